"""Between pytrees and flat lists: every transformation works on flat arrays and remembers the structure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..core.avals import ShapeDtypeStruct, aval_of
from ..core.trace import EVAL, STATE, Tracer, leaked

__all__ = [
    "FlatFunction",
    "argument_name",
    "canonical_argnums",
    "check_arguments",
    "check_callable",
    "check_chosen",
    "check_outputs",
    "chosen_name",
    "function_name",
    "leaf_name",
    "own",
    "own_all",
    "static_positions",
    "watch_results",
    "wraps",
]


class FlatFunction:
    """``fun(*args, **kwargs)`` as a function of leaves. After a call ``out_tree`` is the structure of the result;
    with ``has_aux`` the second half of the result is put aside in ``aux``."""

    __slots__ = ("aux", "fun", "has_aux", "in_tree", "out_tree")

    def __init__(self, fun: Callable[..., Any], in_tree: tree.PyTreeDef, has_aux: bool = False) -> None:
        self.fun = fun
        self.in_tree = in_tree
        self.has_aux = has_aux
        self.out_tree: Any = None
        self.aux: Any = None

    @property
    def __name__(self) -> str:
        return function_name(self.fun)

    def __call__(self, *leaves: Any) -> list[Any]:
        args, kwargs = self.in_tree.unflatten(leaves)
        out = self.fun(*args, **kwargs)
        if self.has_aux:
            if not (isinstance(out, tuple) and len(out) == 2):
                raise TypeError(
                    f"{self.__name__} must return a pair (output, auxiliary data) because has_aux is True; "
                    f"it returned {kind_of(out)}"
                )
            out, self.aux = out
        flat, self.out_tree = tree.flatten(out)
        return check_outputs(flat, self.out_tree, self.__name__)


def kind_of(out: Any) -> str:
    """What the user's function has returned, in his words."""
    return f"one value, {out.aval}" if isinstance(out, Tracer) else f"a {type(out).__name__}"


def check_outputs(flat: list[Any], out_tree: tree.PyTreeDef, name: str) -> list[Any]:
    """Raise for leaves that are no arrays, naming the function and the leaf."""
    for k, x in enumerate(flat):
        try:
            aval_of(x)
        except TypeError as error:
            path = tree.leaf_paths(out_tree)[k]
            raise TypeError(f"{name} returned something that is not an array at output{path}: {error}") from None
    return flat


def check_callable(fun: Any, transform: str) -> None:
    if not callable(fun):
        raise TypeError(f"{transform} expects a function as its first argument, but got {fun!r}")


def argument_name(fun: Callable[..., Any], position: int) -> str:
    """``argument 'x'`` where the signature tells, else ``argument 0``."""
    try:
        names = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        return f"argument {position}"
    plain = [p.name for p in names if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return f"argument {plain[position]!r}" if position < len(plain) else f"argument {position}"


def leaf_name(fun: Callable[..., Any], path: tuple[Any, ...]) -> str:
    """``argument 'x'[0]``: a leaf of ``(args, kwargs)`` by its Python name and its path in the argument."""
    if path[0].idx == 0:
        return argument_name(fun, path[1].idx) + tree.keystr(path[2:])
    return f"keyword argument {path[1].key!r}" + tree.keystr(path[2:])


def check_arguments(
    fun: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    leaves: Sequence[Any],
    transform: str,
    abstract: bool = False,
) -> None:
    """Raise for leaves that are no arrays, naming the argument. ``abstract``: shapes and dtypes alone will do."""
    for k, x in enumerate(leaves):
        try:
            aval_of(x)
            reason = None if abstract or type(x) is not ShapeDtypeStruct else _NO_VALUE
        except TypeError as error:
            reason = str(error)
        if reason is not None:
            path = tree.leaves_with_path((tuple(args), kwargs))[k][0]
            raise TypeError(f"{transform}: {leaf_name(fun, path)} of {function_name(fun)}: {reason}")


def check_chosen(fun: Callable[..., Any], args: Sequence[Any], positions: Sequence[int], transform: str) -> None:
    """As `check_arguments`, of the arguments at ``positions`` alone."""
    chosen = [x if p in positions else None for p, x in enumerate(args)]
    check_arguments(fun, chosen, {}, tree.leaves(chosen), transform)


def chosen_name(fun: Callable[..., Any], args: Sequence[Any], positions: Sequence[int], k: int) -> str:
    """``argument 'x'[0]``: leaf number ``k`` of the arguments at ``positions``."""
    path = tree.leaves_with_path([args[p] for p in positions])[k][0]
    return argument_name(fun, positions[path[0].idx]) + tree.keystr(path[1:])


_NO_VALUE = "a ShapeDtypeStruct has no value. It will do for eval_shape, make_jaxpr, jit(f).trace and jit(f).lower."


def function_name(fun: Callable[..., Any]) -> str:
    name: str = getattr(fun, "__name__", type(fun).__name__)
    return name


def canonical_argnums(
    argnums: int | Sequence[int],
    n_args: int,
    transform: str,
    what: str = "argnums",
    why: str = "differentiated arguments must be passed by position",
) -> tuple[int, ...]:
    """``argnums`` as non-negative positions; ``what`` and ``why`` are for the messages.

    Raises:
        TypeError, ValueError: not integers, beyond the positional arguments of the call, or one of them twice.
    """
    positions = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    result = []
    for a in positions:
        if not isinstance(a, (int, np.integer)) or isinstance(a, bool):
            raise TypeError(f"{transform}: {what} must be an integer or a tuple of integers, found {argnums!r}")
        if not -n_args <= a < n_args:
            raise ValueError(
                f"{transform}: {what} {argnums!r} wants positional argument {a}, but the function was called with "
                f"{n_args}; {why}"
            )
        result.append(int(a) % n_args)
    if not result:
        raise ValueError(f"{transform}: {what} is empty; name at least one argument")
    if len(set(result)) != len(result):
        raise ValueError(f"{transform}: {what} {argnums!r} names the same argument twice")
    return tuple(result)


def static_positions(argnums: int | Sequence[int], n_args: int, transform: str) -> frozenset[int]:
    """As `canonical_argnums` for static arguments, of which there may be none."""
    if isinstance(argnums, (tuple, list)) and not argnums:
        return frozenset()
    why = "static arguments must be passed by position"
    return frozenset(canonical_argnums(argnums, n_args, transform, "static_argnums", why))


_look: Callable[[Sequence[Any], bool], None] | None = None


def watch_results(look: Callable[[Sequence[Any], bool], None] | None) -> None:
    """Have ``look(results, last)`` called for what transformations give back to the user, ``last`` if nothing follows;
    None: nobody looks."""
    global _look
    _look = look


def own(x: Any) -> Any:
    """A result that the caller may write to: views of a broadcast are copied.

    Raises:
        LeakedTracerError: a tracer as the result of a computation with values.
    """
    if _look is not None:
        _look([x], False)
    return _owned(x)


def _owned(x: Any) -> Any:
    if type(x) is np.ndarray:
        return x if x.flags.writeable else x.copy()
    if STATE.trace is EVAL and isinstance(x, Tracer):
        raise leaked(x, "the caller of a transformed function")
    return np.asarray(x)[()] if type(x) in _PYTHON_NUMBERS else x


_PYTHON_NUMBERS = frozenset((bool, int, float, complex))


def _memory(x: np.ndarray) -> int:
    """Whose memory ``x`` lies in: equal for an array and its views."""
    owner: Any = x
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return id(owner)


def own_all(results: Iterable[Any], taken: Iterable[Any] = ()) -> list[Any]:
    """As `own`, and so that writing to one result changes neither another nor any of ``taken``."""
    if _look is not None:
        results = list(results)
        _look(results, True)
    seen = {_memory(x) for x in taken if type(x) is np.ndarray}
    owned = []
    for x in results:
        x = _owned(x)
        if type(x) is np.ndarray:
            memory = _memory(x)
            if memory in seen:
                x = x.copy()
            seen.add(memory)
        owned.append(x)
    return owned


def wraps(fun: Callable[..., Any], transform: str, doc: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """As ``functools.wraps``, with a docstring that says what was done to ``fun``."""

    def decorate(wrapper: Callable[..., Any]) -> Callable[..., Any]:
        functools.update_wrapper(wrapper, fun)
        name = function_name(fun)
        own_doc = getattr(fun, "__doc__", None)
        wrapper.__name__ = name
        wrapper.__doc__ = f"{transform} of {name}. {doc}".strip() + (f"\n\nOriginal:\n\n{own_doc}" if own_doc else "")
        return wrapper

    return decorate
