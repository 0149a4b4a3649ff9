"""``lax.reduce``: axes folded with any associative function, of several arrays at once if need be.

A sum, product, extreme, and, or, xor is the primitive of that name. Any other function is applied to neighbours in
pairs, all at a time, about log2(n) times: order is kept, so it need not be commutative, and derivatives and batching
are those of what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..core.avals import ShapedArray, aval_of
from ..ops import reduce as folds
from ..ops.promotion import as_dtype
from ..ops.reduce_window import is_identity, monoid_of
from ..ops.shape import concatenate, strided_slice
from ..ops.structural import broadcast_to, reduce_sum, reshape, shape_of, transpose
from ..transforms.flat import check_callable, function_name
from ..transforms.vmap import vmap
from ..util import canonicalize_axis, prod
from .body import check_same_structure, flatten_operands, owned_results, stage_body
from .derived import call_jaxpr

__all__ = ["reduce"]

_REDUCERS: dict[str, Callable[[Any, Sequence[int]], Any]] = {
    "add": reduce_sum,
    "mul": folds.reduce_prod,
    "max": folds.reduce_max,
    "min": folds.reduce_min,
    "and": folds.reduce_and,
    "or": folds.reduce_or,
    "xor": folds.reduce_xor,
}


def reduce(operands: Any, init_values: Any, computation: Callable[[Any, Any], Any], dimensions: Sequence[int]) -> Any:
    """Fold arrays over axes.

    Args:
        operands: a pytree of arrays of one shape.
        init_values: the same pytree with a scalar for each, of its dtype: what the fold begins with.
        computation: an associative function of two such pytrees of scalars. Sum, product, maximum, minimum, and, or,
            xor of one array are known by what they do.
        dimensions: the axes that are folded.

    Returns:
        The pytree of arrays without these axes.

    Raises:
        TypeError: structures or dtypes differ, or ``computation`` returns others than it takes.
        ValueError: shapes differ, an initial value is no scalar, or an axis does not exist or is named twice.

    >>> reduce(np.array([[1.0, 5.0], [4.0, 2.0]]), -np.inf, np.maximum, (1,))
    array([5., 4.])
    >>> def furthest(a, b):                         # the largest, and where it is
    ...     return tuple(np.where(b[0] > a[0], y, x) for x, y in zip(a, b))
    >>> reduce((np.array([3.0, 7.0, 5.0]), np.arange(3)), (-np.inf, -1), furthest, (0,))
    (np.float64(7.0), np.int64(1))
    """
    check_callable(computation, "reduce: computation")
    leaves, in_tree = flatten_operands((operands,), "reduce", lambda _: "operands")
    starts, start_tree = flatten_operands((init_values,), "reduce", lambda _: "init_values")
    (own,), (theirs,) = in_tree.children()[0].children(), start_tree.children()[0].children()
    check_same_structure("reduce: init_values must have the structure of operands", own, theirs)
    if not leaves:
        return operands
    paths = tree.leaf_paths(own)
    shape = shape_of(leaves[0])
    axes = _axes(dimensions, len(shape))
    avals = [ShapedArray((), aval_of(x).dtype) for x in leaves]
    for path, x, start in zip(paths, leaves, starts, strict=True):
        if shape_of(x) != shape:
            raise ValueError(
                f"reduce: all operands must have one shape, but operands{paths[0]} has {shape} and operands{path} has "
                f"{shape_of(x)}"
            )
        if shape_of(start) != ():
            raise ValueError(f"reduce: init_values{path} must be a scalar, found shape {shape_of(start)}")
    starts = [_typed(s, a.dtype, path) for s, a, path in zip(starts, avals, paths, strict=True)]
    body = stage_body(computation, tree.structure(((operands, operands), {})), [*avals, *avals])
    name = function_name(computation)
    check_same_structure(f"reduce: {name} must return the structure of its arguments", own, body.out_tree)
    for path, a, b in zip(paths, avals, body.out_avals, strict=True):
        if a.dtype != b.dtype or b.shape:
            raise TypeError(
                f"reduce: {name} must return scalars of the types that it takes, but takes {a.short()} and returns "
                f"{b.short()} for operands{path}; convert with .astype('{a.dtype.name}')"
            )
    program = call_jaxpr(body.jaxpr)
    combine = lambda xs, ys: program(*body.consts, *xs, *ys)  # noqa: E731
    monoid = monoid_of(body.jaxpr, avals[0].dtype) if len(leaves) == 1 else None
    if monoid is not None and prod(shape):
        folded = [_REDUCERS[monoid](leaves[0], axes)] if axes else leaves
        outs = folded if is_identity(starts[0], monoid, avals[0].dtype) else combine(starts, folded)
    else:
        outs = _by_pairs(combine, leaves, starts, axes)
    return own.unflatten(owned_results(outs, leaves))


def _axes(dimensions: Any, rank: int) -> tuple[int, ...]:
    axes = tuple([canonicalize_axis(a, rank, "dimensions") for a in dimensions])
    if len(set(axes)) != len(axes):
        raise ValueError(f"reduce: dimensions {tuple(dimensions)} name an axis twice")
    return tuple(sorted(axes))


def _typed(value: Any, dtype: np.dtype[Any], path: str) -> Any:
    aval = aval_of(value)
    if aval.dtype != dtype and not (aval.weak_type and np.can_cast(aval.dtype, dtype, "same_kind")):
        if aval.weak_type and dtype.kind in "iu" and aval.dtype.kind == "f" and not np.isfinite(value):
            way = f"a fold of integers begins with an integer, such as np.iinfo('{dtype.name}').min"
        else:
            way = f"write np.{dtype.name}(...) or .astype('{dtype.name}')"
        raise TypeError(f"reduce: init_values{path} has dtype {aval.dtype.name}, operands{path} {dtype.name}: {way}")
    return as_dtype(value, dtype)


def _by_pairs(
    combine: Callable[[Sequence[Any], Sequence[Any]], list[Any]],
    leaves: Sequence[Any],
    starts: Sequence[Any],
    axes: tuple[int, ...],
) -> list[Any]:
    shape = shape_of(leaves[0])
    kept = [a for a in range(len(shape)) if a not in axes]
    out = tuple([shape[a] for a in kept])
    rows, n = prod(out), prod([shape[a] for a in axes])
    begin = [broadcast_to(s, (rows, 1)) for s in starts]
    if not n or not rows:
        return [reshape(b, out) if rows else broadcast_to(s, out) for b, s in zip(begin, starts, strict=True)]
    each = vmap(lambda xs, ys: combine(xs, ys))

    def joined(xs: Sequence[Any], ys: Sequence[Any]) -> list[Any]:
        flat = each([reshape(x, (-1,)) for x in xs], [reshape(y, (-1,)) for y in ys])
        return [reshape(z, shape_of(x)) for z, x in zip(flat, xs, strict=True)]

    values = [reshape(transpose(x, (*kept, *axes)), (rows, n)) for x in leaves]
    while n > 1:
        pairs = 2 * (n // 2)
        left, right = ([strided_slice(x, (0, k), (rows, pairs), (1, 2)) for x in values] for k in (0, 1))
        rest = [strided_slice(x, (0, pairs), (rows, n)) for x in values] if pairs < n else []
        values = joined(left, right)
        values = [concatenate([x, r], 1) for x, r in zip(values, rest, strict=True)] if rest else values
        n -= pairs // 2
    return [reshape(x, out) for x in joined(begin, values)]
