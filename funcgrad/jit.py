"""``jit``: trace once per structure of the arguments, compile once per structure of the program, then only run.

A call finds its compiled program by the types, shapes, strides and dtypes of its leaves, in about a microsecond.
Another shape costs a new trace and plan (milliseconds), but no compilation: kernels do not depend on extents.
Under another transformation the call becomes one ``jit`` equation, which that transformation transforms.

    jit(f).trace(*args)  ->  Traced   the jaxpr
           .lower()      ->  Lowered  passes and fusion: the kernels as Python source
           .compile()    ->  Compiled native code, memory and cost analysis
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np

from . import tree
from .compiler import Executable, compile_jaxpr, preload
from .control.call import jit_p, set_executor
from .control.derived import clear_derived, closed_over
from .control.interpret import set_loop_executor
from .core.avals import ShapedArray, ShapeDtypeStruct, aval_of
from .core.jaxpr import ClosedJaxpr, Jaxpr, eval_jaxpr
from .core.primitive import Primitive
from .core.staging import stage
from .core.trace import EVAL, STATE, Tracer
from .garbage import rarely_collected
from .passes.pipeline import optimize
from .record import record
from .runtime.callables import NativelyCalled
from .transforms.flat import FlatFunction, canonical_argnums, check_arguments, check_callable, function_name
from .tree_specialize import Specialized, specialize

__all__ = ["Compiled", "JitFunction", "Lowered", "Traced", "clear_caches", "jit"]


# executables of call equations ----------------------------------------------------------------------------------

_executables: WeakKeyDictionary[Jaxpr, Executable] = WeakKeyDictionary()


def _executable(closed: ClosedJaxpr, donated: tuple[bool, ...] = ()) -> Executable:
    found = _executables.get(closed.jaxpr)
    if found is None:
        found = _executables[closed.jaxpr] = _compile(closed, donated)
    return found


def _compile(closed: ClosedJaxpr, donated: tuple[bool, ...] = (), compiler: str = "llvm") -> Executable:
    """All of compilation: rewrite the jaxpr, then fuse, print, compile and plan it."""
    with rarely_collected:
        return compile_jaxpr(optimize(closed), donated, compiler)


def _execute_call(closed: ClosedJaxpr, args: Sequence[Any]) -> Sequence[Any]:
    """How ``jit_p`` runs on concrete values: the program derived from a jitted function is compiled like it."""
    inputs = [as_input(x, a) for x, a in zip(args, closed.in_avals, strict=True)]
    return _executable(closed)(inputs)


set_executor(_execute_call)


def _execute_loop(primitive: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Sequence[Any]:
    """How a long loop runs on concrete values: compiled. Its kernels are those of earlier loops like it."""
    avals = [aval_of(x) for x in args]
    closed = stage(lambda *xs: primitive.bind(*xs, **params), avals, primitive.name)
    return _compile(closed)([as_input(x, a) for x, a in zip(args, avals, strict=True)])


set_loop_executor(_execute_loop)


def as_input(x: Any, aval: ShapedArray) -> Any:
    """``x`` as compiled programs take it: a C-contiguous array, or a NumPy scalar if 0-d."""
    if aval.shape == ():
        try:
            return x if type(x) is aval.dtype.type else aval.dtype.type(x)
        except OverflowError:
            raise OverflowError(
                f"the integer {x} does not fit {aval.dtype.name}, the dtype with which Python's integers are traced; "
                "pass it as a float"
            ) from None
    return np.ascontiguousarray(x, aval.dtype)


# one compiled signature -----------------------------------------------------------------------------------------

_NATIVE_SCALARS = (float, complex)


def _converter(x: Any, aval: ShapedArray) -> Callable[[Any], Any] | None:
    """What has to be done to an argument like ``x`` at every call; None for nothing, the usual case."""
    if type(x) in _NATIVE_SCALARS or (isinstance(x, np.generic) and x.dtype.isnative):
        return None
    if type(x) is np.ndarray and x.ndim and x.flags.c_contiguous and x.dtype.isnative and x.flags.aligned:
        return None
    return functools.partial(as_input, aval=aval)


@record(frozen=True, slots=True)
class Traced:
    """A function traced for one signature: ``jaxpr`` takes the leaves of the dynamic arguments."""

    jaxpr: ClosedJaxpr
    in_tree: tree.PyTreeDef
    out_tree: tree.PyTreeDef
    fun_name: str
    donated: tuple[bool, ...] = ()

    def as_text(self) -> str:
        return str(self.jaxpr)

    def lower(self) -> Lowered:
        return Lowered(self, _compile(self.jaxpr, self.donated))


@record(frozen=True, slots=True)
class Lowered:
    """A fused program: its kernels are known, as source."""

    traced: Traced
    executable: Executable

    def as_text(self) -> str:
        """The fused kernels as the very Python source that is compiled."""
        return self.executable.as_text()

    def compile(self, compiler: str = "llvm") -> Compiled:
        """Ready to run. ``compiler="numba"``: the same kernels compiled by Numba (slower to compile, not cached)."""
        if compiler == "llvm":
            return Compiled(self.traced, self.executable)
        return Compiled(self.traced, _compile(self.traced.jaxpr, self.traced.donated, compiler))


@record(frozen=True, slots=True)
class Compiled:
    """A program ready to run for one signature. Call it with arguments of exactly that signature."""

    traced: Traced
    executable: Executable

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, in_tree = tree.flatten((args, kwargs))
        if in_tree != self.traced.in_tree:
            raise TypeError(
                f"{self.traced.fun_name} was compiled for another structure of arguments: "
                + tree.describe_difference(self.traced.in_tree, in_tree)
            )
        avals = self.traced.jaxpr.in_avals
        for k, (x, a) in enumerate(zip(leaves, avals, strict=True)):
            found = aval_of(x)
            if found.shape != a.shape or (found.dtype != a.dtype and not found.weak_type):
                raise TypeError(
                    f"{self.traced.fun_name} was compiled for {a} at argument{tree.leaf_paths(in_tree)[k][3:]}, "
                    f"but called with {found}"
                )
        outs = self.executable([as_input(x, a) for x, a in zip(leaves, avals, strict=True)])
        return self.traced.out_tree.unflatten(outs)

    def as_text(self, stage: str = "source") -> str:
        """``stage``: ``jaxpr``, ``source`` (the kernels as Python), ``llvm`` or ``assembly``."""
        if stage == "jaxpr":
            return self.traced.as_text()
        return self.executable.as_text(stage)

    def memory_analysis(self) -> Any:
        return self.executable.memory_analysis()

    def cost_analysis(self) -> Any:
        return self.executable.cost_analysis()


class _Entry:
    """A compiled signature, ready for leaves of exactly its types, shapes, strides and dtypes."""

    __slots__ = ("builtin", "converters", "executable", "ready", "single", "unflatten")

    def __init__(self, executable: Executable, leaves: Sequence[Any], avals: Sequence[ShapedArray], out_tree: Any):
        converters = [_converter(x, a) for x, a in zip(leaves, avals, strict=True)]
        self.converters = converters if any(converters) else None
        self.executable = executable
        self.single = out_tree.is_leaf()
        special = specialize(out_tree)
        self.unflatten = special.unflatten if special is not None else out_tree.unflatten
        self.builtin = None if self.converters else executable.builtin(leaves, self.single)
        self.ready = self.single or out_tree == tree.structure((0,) * out_tree.num_leaves)
        """Whether what the built-in returns is the result: an array, or a tuple of them."""

    def __call__(self, leaves: Sequence[Any]) -> Any:
        if self.builtin is not None:
            outs = self.builtin(*leaves)
            if outs is not None:
                return self.result(outs)
        if self.converters is not None:
            leaves = [x if c is None else c(x) for x, c in zip(leaves, self.converters, strict=True)]
        outs = self.executable(leaves)
        return outs[0] if self.single else self.unflatten(outs)

    def result(self, outs: Any) -> Any:
        """The result, from what the built-in returned."""
        return outs if self.ready else self.unflatten(outs)


_PLAIN = frozenset((np.ndarray, float, int, bool, complex, *{np.dtype(c).type for c in "?bhilqBHILQefdFD"}))


def _leaf_key(x: Any) -> Any:
    """What of an argument decides which program runs; None for a tracer."""
    if type(x) is np.ndarray:
        return x.shape, x.strides, x.dtype
    if type(x) in _PLAIN:
        return type(x)
    if isinstance(x, Tracer):
        return None
    return aval_of(x), getattr(x, "strides", None), type(x)


_UNKNOWN = object()
"""Stands for the result of a call that no compiled signature is known for."""


# the jitted function --------------------------------------------------------------------------------------------


class JitFunction(NativelyCalled):
    """A function under ``jit``. See `jit`."""

    __slots__ = ("__dict__", "__weakref__")

    def __init__(
        self,
        fun: Callable[..., Any],
        static_argnums: tuple[int, ...],
        static_argnames: frozenset[str],
        donate_argnums: tuple[int, ...],
        donate_argnames: frozenset[str],
        inline: bool,
    ) -> None:
        super().__init__()
        functools.update_wrapper(self, fun)
        self._fun = fun
        self._static_argnums = static_argnums
        self._static_argnames = static_argnames
        self._donate_argnums = donate_argnums
        self._donate_argnames = donate_argnames
        self._inline = inline
        self._has_static = bool(static_argnums or static_argnames)
        self._entries: dict[Any, _Entry] = {}
        self._traces: dict[Any, Traced] = {}
        self._special: Specialized | None = None
        self._last_structured: _Entry | None = None
        _functions.add(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if STATE.trace is EVAL and not self._has_static:
            out = self._run_known(args, kwargs)
            if out is not _UNKNOWN:
                return out
        return self._call(args, kwargs)

    def _run_known(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result by a short way: plain arguments, or the structure of an earlier call; else ``_UNKNOWN``."""
        special = self._special
        leaves: Sequence[Any] | None = None if special is None else special.flatten((args, kwargs))
        if leaves is not None:
            assert special is not None
            if self._last_structured is not None:
                outs = self._last_structured.builtin(*leaves)  # type: ignore[misc]
                if outs is not None:
                    return self._last_structured.result(outs)
            entry = self._entries.get((special.treedef, *map(_leaf_key, leaves)))
            if entry is None:
                return _UNKNOWN
            if entry.builtin is not None:
                self._last_structured = entry
            return entry(leaves)
        if kwargs:
            return _UNKNOWN
        key: list[Any] = []
        for x in args:
            kind = type(x)
            if kind is np.ndarray:
                key.append((x.shape, x.strides, x.dtype))
            elif kind in _PLAIN:
                key.append(kind)
            else:
                return _UNKNOWN
        entry = self._entries.get(tuple(key))
        if entry is None:
            return _UNKNOWN
        if entry.ready and entry.builtin is not None:
            self.remember(entry.builtin)
        return entry(args)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fun, args, kwargs, statics = self._split_static(args, kwargs)
        leaves, in_tree = tree.flatten((args, kwargs))
        if STATE.trace is not EVAL or any(isinstance(x, Tracer) for x in leaves):
            check_arguments(fun, args, kwargs, leaves, "jit")
            return self._bind(fun, leaves, in_tree, statics)
        plain = not kwargs and not statics and all(type(x) in _PLAIN for x in args)
        try:
            keys = tuple([_leaf_key(x) for x in leaves])
        except TypeError:
            check_arguments(fun, args, kwargs, leaves, "jit")
            raise
        key = keys if plain else (in_tree, *keys, statics) if statics else (in_tree, *keys)
        entry = self._entries.get(key)
        if entry is None:
            check_arguments(fun, args, kwargs, leaves, "jit")
            preload()
            with rarely_collected:
                traced = self._trace(fun, leaves, in_tree, statics)
                if any(isinstance(c, Tracer) for c in traced.jaxpr.consts):
                    return self._bind(fun, leaves, in_tree, statics)
                executable = _executable(traced.jaxpr, traced.donated)
                entry = self._entries[key] = _Entry(executable, leaves, traced.jaxpr.in_avals, traced.out_tree)
        elif not plain and not statics and (self._special is None or self._special.treedef != in_tree):
            self._special = specialize(in_tree)  # worth making at the second call
            self._last_structured = None
        return entry(leaves)

    def _bind(self, fun: Callable[..., Any], leaves: list[Any], in_tree: Any, statics: Any) -> Any:
        """Under another trace: one equation of that trace."""
        traced = self._trace(fun, leaves, in_tree, statics)
        closed = traced.jaxpr
        if self._inline:
            outs: Sequence[Any] = eval_jaxpr(closed.jaxpr, closed.consts, *leaves)
        else:
            call = closed if not closed.consts else closed_over(closed.consts, closed)
            outs = jit_p.bind(*closed.consts, *leaves, jaxpr=call, name=traced.fun_name)
        return traced.out_tree.unflatten(outs)

    def _trace(self, fun: Callable[..., Any], leaves: Sequence[Any], in_tree: Any, statics: Any) -> Traced:
        avals = [aval_of(x) for x in leaves]
        key = (in_tree, tuple(avals), statics, STATE.axes)
        traced = self._traces.get(key)
        if traced is None:
            flat = FlatFunction(fun, in_tree)
            closed = stage(flat, avals, flat.__name__)
            traced = Traced(closed, in_tree, flat.out_tree, flat.__name__, self._donated_leaves(in_tree))
            if not any(isinstance(c, Tracer) for c in closed.consts):
                self._traces[key] = traced
        return traced

    def _donated_leaves(self, in_tree: Any) -> tuple[bool, ...]:
        """For each leaf of the dynamic arguments, whether it is given up."""
        if not self._donate_argnums and not self._donate_argnames:
            return ()
        positional, keyword = in_tree.children()
        flags: list[bool] = []
        n = len(positional.children()) + len(self._static_argnums)
        dynamic = [p for p in range(n) if p not in self._static_argnums]
        for p, child in zip(dynamic, positional.children(), strict=False):
            flags += [p in self._donate_argnums] * child.num_leaves
        for name, child in zip(keyword.entries(), keyword.children(), strict=True):
            flags += [name in self._donate_argnames] * child.num_leaves
        return tuple(flags)

    def _split_static(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The function of the dynamic arguments alone, these arguments, and the static ones as a hashable key."""
        if not self._has_static:
            return self._fun, args, kwargs, ()
        if not self._static_argnames:  # without a name for it, a static argument must be there by position
            why = "static arguments must be passed by position"
            canonical_argnums(self._static_argnums, len(args), "jit", "static_argnums", why)
        positions = {p % len(args) for p in self._static_argnums if -len(args) <= p < len(args)}
        named = {k: v for k, v in kwargs.items() if k in self._static_argnames}
        fixed = {p: args[p] for p in positions}
        for position, value in fixed.items():
            _check_hashable(self._fun, f"at position {position}", value)
        for name, value in named.items():
            _check_hashable(self._fun, repr(name), value)
        fun = _WithStatic(self._fun, len(args), fixed, named)
        dynamic = tuple([x for p, x in enumerate(args) if p not in positions])
        rest = {k: v for k, v in kwargs.items() if k not in named}
        key = (
            tuple([(p, _static_key(fixed[p])) for p in sorted(fixed)]),
            tuple([(k, _static_key(named[k])) for k in sorted(named)]),
        )
        return fun, dynamic, rest, key

    def trace(self, *args: Any, **kwargs: Any) -> Traced:
        """Trace for these arguments (arrays, or ``ShapeDtypeStruct``) without running anything."""
        fun, args, kwargs, statics = self._split_static(args, kwargs)
        leaves, in_tree = tree.flatten((args, kwargs))
        check_arguments(fun, args, kwargs, leaves, "jit", abstract=True)
        return self._trace(fun, leaves, in_tree, statics)

    @property
    def has_static(self) -> bool:
        return self._has_static

    @property
    def donates(self) -> bool:
        return bool(self._donate_argnums or self._donate_argnames)

    def program(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Traced, list[Any]]:
        """What a call runs, and the leaves that it is run on."""
        fun, args, kwargs, statics = self._split_static(args, kwargs)
        leaves, in_tree = tree.flatten((args, kwargs))
        return self._trace(fun, leaves, in_tree, statics), leaves

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        return self.trace(*args, **kwargs).lower()

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        traced = self.trace(*args, **kwargs)
        return traced.out_tree.unflatten([ShapeDtypeStruct(a.shape, a.dtype) for a in traced.jaxpr.out_avals])

    def clear_cache(self) -> None:
        self._entries.clear()
        self._traces.clear()
        self._last_structured = None
        self.forget()

    def _cache_size(self) -> int:
        return len(self._entries)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self) -> Any:
        """Pickled by name where that finds this object (a decorated function), else by its function and options."""
        found: Any = sys.modules.get(getattr(self, "__module__", ""))
        for part in getattr(self, "__qualname__", "").split("."):
            found = getattr(found, part, None)
        if found is self:
            return self.__qualname__
        options = (self._static_argnums, self._static_argnames, self._donate_argnums, self._donate_argnames)
        return JitFunction, (self._fun, *options, self._inline)

    def __repr__(self) -> str:
        return f"<jit of {getattr(self._fun, '__qualname__', self._fun)}>"


_functions: WeakSet[JitFunction] = WeakSet()


class _WithStatic:
    """``fun`` with its static arguments put back."""

    def __init__(self, fun: Callable[..., Any], n_args: int, fixed: dict[int, Any], named: dict[str, Any]) -> None:
        self.fun, self.n_args, self.fixed, self.named = fun, n_args, fixed, named
        self.__name__ = function_name(fun)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        rest = iter(args)
        full = [self.fixed[p] if p in self.fixed else next(rest) for p in range(self.n_args)]
        return self.fun(*full, **self.named, **kwargs)


def _static_key(value: Any) -> Any:
    """Tells apart what Python holds equal but programs do not: 1, 1.0 and True, 0.0 and -0.0, also in tuples."""
    kind = type(value)
    if kind is tuple:
        return kind, tuple([_static_key(x) for x in value])
    if kind is float:
        return kind, value.hex()
    return (kind, value.real.hex(), value.imag.hex()) if kind is complex else (kind, value)


def _check_hashable(fun: Callable[..., Any], name: str, value: Any) -> None:
    try:
        hash(value)
    except TypeError as error:
        what = "an array" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise ValueError(
            f"jit: the static argument {name} of {function_name(fun)} is {what}, which is not hashable ({error}). "
            "Static arguments are part of the cache key: pass a tuple instead of a list, or make the argument dynamic "
            "by leaving it out of static_argnums and static_argnames."
        ) from None


def _as_tuple(value: Any, kind: type, name: str) -> tuple[Any, ...]:
    items = () if value is None else (value,) if isinstance(value, kind) else tuple(value)
    for item in items:
        if not isinstance(item, kind) or isinstance(item, bool):
            raise TypeError(f"jit: {name} must be {kind.__name__} or a sequence of {kind.__name__}, found {value!r}")
    return items


def _positions_and_names(
    fun: Callable[..., Any], argnums: tuple[int, ...], argnames: tuple[str, ...], kind: str
) -> tuple[tuple[int, ...], frozenset[str]]:
    """Positions and names complete each other: an argument may be passed either way. ``kind``: static or donate."""
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        return tuple(argnums), frozenset(argnames)
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keyword = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} | set(plain)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        for p in argnums:
            if not -len(plain) <= p < len(plain):
                raise ValueError(
                    f"jit: {kind}_argnums {argnums!r} wants positional argument {p}, but {function_name(fun)} takes "
                    f"{len(plain)}: {plain}"
                )
        argnums = tuple([p % len(plain) for p in argnums])  # -1 is the last parameter, passed or not
    for n in argnames:
        if n not in keyword and not takes_any:
            raise ValueError(
                f"jit: {kind}_argnames names {n!r}, but {function_name(fun)} has no such "
                f"parameter; it has {sorted(keyword)}"
            )
    positions = set(argnums) | {plain.index(n) for n in argnames if n in plain}
    names = set(argnames) | {plain[p] for p in argnums if -len(plain) <= p < len(plain)}
    return tuple(sorted(positions)), frozenset(names)


def jit(
    fun: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Sequence[str] | None = None,
    donate_argnums: int | Sequence[int] | None = None,
    donate_argnames: str | Sequence[str] | None = None,
    inline: bool = False,
) -> Any:
    """Compile ``fun`` into fused native kernels.

    ``fun`` is traced with abstract values once per combination of structures, shapes and dtypes of its arguments; the
    result of a call has the values, shapes and dtypes that the function gives un-jitted.

    Args:
        fun: a pure function of pytrees of arrays. Without it, ``jit`` is a decorator factory.
        static_argnums, static_argnames: arguments that are Python values, hashable, part of the cache key.
        donate_argnums, donate_argnames: arguments whose memory the caller gives up: a result of the same type may be
            written over it, and then is that very array, or a view of it in another shape. Do not use them after the
            call. (Arrays that are read-only or overlap another argument are copied first.)
        inline: under another ``jit`` or ``make_jaxpr``, put the equations in place of a call.

    Returns:
        A callable with ``trace``, ``lower``, ``eval_shape`` and ``clear_cache``.

    >>> import numpy as np
    >>> f = jit(lambda x: np.sin(x) ** 2 + np.cos(x) ** 2)
    >>> f(np.array([0.0, 1.0]))
    array([1., 1.])
    """
    options: dict[str, Any] = {
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
        "donate_argnums": donate_argnums,
        "donate_argnames": donate_argnames,
        "inline": inline,
    }
    if fun is None:
        return lambda f: jit(f, **options)
    check_callable(fun, "jit")
    nums, names = _positions_and_names(
        fun,
        _as_tuple(static_argnums, int, "static_argnums"),
        _as_tuple(static_argnames, str, "static_argnames"),
        "static",
    )
    donated, donated_names = _positions_and_names(
        fun,
        _as_tuple(donate_argnums, int, "donate_argnums"),
        _as_tuple(donate_argnames, str, "donate_argnames"),
        "donate",
    )
    both = sorted(set(nums) & set(donated))
    if both:
        raise ValueError(f"jit: argument {both[0]} is both static and donated; a static argument has no memory to give")
    return JitFunction(fun, nums, names, donated, donated_names, inline)


def clear_caches() -> None:
    """Forget all traces, derived programs and loaded executables. The kernel cache on disk stays."""
    for function in list(_functions):
        function.clear_cache()
    _executables.clear()
    clear_derived()
