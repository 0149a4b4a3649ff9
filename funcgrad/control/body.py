"""The user's functions that loops and branches own, as jaxprs closed over nothing.

What a function captures (arrays, tracers of enclosing transformations) becomes leading operands: ``Body.consts``.
Carries of loops have one type throughout. A Python number that starts one takes the dtype that the body gives it, as
in JAX; any other change of type is an error that names the leaf and the cast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import tree
from ..core.avals import ShapedArray, aval_of
from ..core.intern import interned
from ..core.jaxpr import ClosedJaxpr, eval_jaxpr
from ..core.staging import stage
from ..core.trace import EVAL, STATE
from ..ops.promotion import as_dtype, common_dtype
from ..record import record
from ..transforms.flat import FlatFunction, own_all
from .derived import without_constants

__all__ = [
    "Body",
    "cast_hint",
    "check_same_structure",
    "converted",
    "flatten_operands",
    "joined_aval",
    "owned_results",
    "promoted_carry",
    "same_type",
    "stage_body",
]


@record(frozen=True)
class Body:
    """``jaxpr``: ``(consts, leaves of the arguments) -> leaves of the result``, whose structure is ``out_tree``."""

    jaxpr: ClosedJaxpr
    consts: tuple[Any, ...]
    out_tree: tree.PyTreeDef

    @property
    def out_avals(self) -> list[ShapedArray]:
        return self.jaxpr.out_avals


def stage_body(fun: Callable[..., Any], in_tree: tree.PyTreeDef, avals: Sequence[ShapedArray]) -> Body:
    """Trace the user's function on avals of the leaves of its positional arguments."""
    flat = FlatFunction(fun, in_tree)
    closed = stage(flat, avals, flat.__name__)
    consts, jaxpr = without_constants(closed)
    return Body(interned(jaxpr), consts, flat.out_tree)


def converted(body: Body, avals: Sequence[ShapedArray]) -> Body:
    """The body with its results converted to the dtypes of ``avals``."""
    if all([a.dtype == b.dtype and a.weak_type == b.weak_type for a, b in zip(body.out_avals, avals, strict=True)]):
        return body

    def fun(*args: Any) -> list[Any]:
        outs = eval_jaxpr(body.jaxpr.jaxpr, (), *args)
        return [as_dtype(x, a.dtype, a.weak_type) for x, a in zip(outs, avals, strict=True)]

    return Body(interned(stage(fun, body.jaxpr.in_avals, body.jaxpr.jaxpr.name)), body.consts, body.out_tree)


def flatten_operands(args: tuple[Any, ...], what: str, name: Callable[[int], str]) -> tuple[list[Any], tree.PyTreeDef]:
    """Leaves of ``(args, {})``, each checked to be an array; ``name(position)`` names an argument."""
    leaves, in_tree = tree.flatten((args, {}))
    for k, x in enumerate(leaves):
        try:
            aval_of(x)
        except TypeError as error:
            path = tree.leaves_with_path((args, {}))[k][0]
            raise TypeError(f"{what}: {name(path[1].idx)}{tree.keystr(path[2:])}: {error}") from None
    return leaves, in_tree


def owned_results(outs: Sequence[Any], taken: Sequence[Any]) -> Sequence[Any]:
    """Results for the user: arrays that he may write to, sharing no memory with what he gave."""
    if STATE.trace is not EVAL:
        return outs
    return [x if type(x) in (float, int, complex) else y for x, y in zip(outs, own_all(outs, taken), strict=True)]


def same_type(a: ShapedArray, b: ShapedArray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def joined_aval(avals: Sequence[ShapedArray]) -> ShapedArray | None:
    """The one type that several results of equal shape can take by promoting weak ones; None if there is none."""
    if len({a.shape for a in avals}) != 1:
        return None
    dtype = common_dtype(avals)
    if any([not a.weak_type and a.dtype != dtype for a in avals]):
        return None
    return ShapedArray(avals[0].shape, dtype, all([a.weak_type for a in avals]))


def cast_hint(wanted: ShapedArray, found: ShapedArray, value: str) -> str:
    """How to write the cast that turns ``found`` into ``wanted``."""
    if found.shape == wanted.shape:
        return f"write {value}.astype('{wanted.dtype.name}')"
    if found.size == wanted.size:
        return f"write {value}.reshape({wanted.shape})"
    return "give it the shape that it keeps"


def check_same_structure(what: str, expected: tree.PyTreeDef, found: tree.PyTreeDef) -> None:
    if expected != found:
        raise TypeError(f"{what}: {tree.describe_difference(expected, found)}")


def promoted_carry(
    what: str,
    name: str,
    init: Sequence[Any],
    in_tree: tree.PyTreeDef,
    step: Callable[[Sequence[ShapedArray]], tuple[Body, Sequence[ShapedArray], tree.PyTreeDef]],
    shown: Callable[[tree.PyTreeDef], tree.PyTreeDef],
) -> tuple[list[Any], Body]:
    """The initial carry, converted to the types that the body keeps, and the body traced for them.

    ``step(carry avals)`` traces the body and gives it with the avals and the structure of the carry it returns.
    ``name`` is the body's, for messages; ``shown``: the part of the carry that the user knows of, its end.

    Raises:
        TypeError: the structure changes, or the type of a leaf that is not weak.
    """
    init = list(init)
    avals = [aval_of(x) for x in init]
    while True:
        body, out_avals, out_tree = step(avals)
        text = f"{what}: {name} must return a carry of the structure that it is given"
        check_same_structure(text, shown(in_tree), shown(out_tree))
        promoted = [_promoted(a, b) for a, b in zip(avals, out_avals, strict=True)]
        if promoted == avals:
            break
        init = [
            x if a == b else as_dtype(x, b.dtype, b.weak_type) for x, a, b in zip(init, avals, promoted, strict=True)
        ]
        avals = promoted
    paths = tree.leaf_paths(shown(in_tree))
    hidden = len(avals) - len(paths)
    changed = [
        f"carry{path} is {a.short()}, but {name} returns {b.short()} for it: {cast_hint(a, b, 'what it returns')}"
        + (f", or start with {b.dtype.name}" if a.shape == b.shape else "")
        for path, a, b in zip(paths, avals[hidden:], out_avals[hidden:], strict=True)
        if not same_type(a, b)
    ]
    if changed:
        raise TypeError(f"{what}: the carry must keep its shapes and dtypes from step to step; {'; '.join(changed)}")
    return init, body


def _promoted(a: ShapedArray, b: ShapedArray) -> ShapedArray:
    """What a carry that starts as ``a`` and is returned as ``b`` starts as: weak ones give way."""
    if not a.weak_type or a.shape != b.shape or (a.dtype == b.dtype and b.weak_type):
        return a
    dtype = common_dtype((a, b))
    return ShapedArray(a.shape, dtype, b.weak_type) if dtype != a.dtype or not b.weak_type else a
