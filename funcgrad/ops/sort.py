"""Sorting: several operands by the first ``num_keys`` of them, stably, NaN last as in NumPy.

The derivative of sorting is the same permutation of the tangents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Library
from ..core.primitive import ZERO, NotLinear, Primitive
from ..util import canonicalize_axis
from .create import broadcasted_iota, full
from .elementwise import add, floor_divide, mul, sub
from .indexing import INDEX, take_along_axis
from .reduce import reduce_max
from .shape import batch_axis_to, pad, rev, slice_in_dim
from .stop import stop_gradient
from .structural import bind_checked, moveaxis, reshape, shape_of

__all__ = ["argsort", "sort", "sort_p", "top_k"]


def _sort_shape(*avals: ShapedArray, dimension: int, num_keys: int) -> tuple[ShapedArray, ...]:
    shape = avals[0].shape
    if not 1 <= num_keys <= len(avals):
        raise ValueError(f"sort: num_keys is {num_keys} for {len(avals)} operands")
    if any(a.shape != shape for a in avals):
        raise ValueError(f"sort: operands have shapes {', '.join(str(a.shape) for a in avals)}; they must agree")
    if not 0 <= dimension < len(shape):
        raise ValueError(f"sort: dimension {dimension} does not fit shape {shape}")
    return tuple([a.strong() for a in avals])


def _order(keys: Sequence[Any], dimension: int) -> Any:
    if len(keys) == 1:
        return np.argsort(keys[0], axis=dimension, kind="stable")
    return np.lexsort(keys[::-1], axis=dimension)  # its last key is the primary one


def _sort_impl(*xs: Any, dimension: int, num_keys: int) -> Any:
    if len(xs) == 1:  # equal elements look the same, so that stability does not show
        return (np.sort(xs[0], axis=dimension),)
    order = _order(xs[:num_keys], dimension)
    return tuple([np.take_along_axis(x, order, dimension) for x in xs])


def _sort_jvp(primals: Any, tangents: Any, out: Any, *, dimension: int, num_keys: int) -> Any:
    position = broadcasted_iota(INDEX, shape_of(primals[0]), dimension)
    *_, order = sort_p.bind(*primals[:num_keys], position, dimension=dimension, num_keys=num_keys)
    return [t if t is ZERO else take_along_axis(t, order, dimension, "promise_in_bounds") for t in tangents]


def _sort_batch(size: int, args: Any, dims: Any, *, dimension: int, num_keys: int) -> Any:
    dim = next(d for d in dims if d is not None)
    moved = [batch_axis_to(x, d, size, dim) for x, d in zip(args, dims, strict=True)]
    return sort_p.bind(*moved, dimension=dimension + (dimension >= dim), num_keys=num_keys), [dim] * len(args)


def _sort_samples(rng: np.random.Generator) -> list[Any]:
    def distinct(*shape: int) -> Any:
        return (rng.permutation(int(np.prod(shape))) / 5).reshape(shape)

    return [
        ((distinct(6),), {"dimension": 0, "num_keys": 1}),
        ((distinct(3, 4),), {"dimension": 0, "num_keys": 1}),
        ((distinct(3, 4), distinct(3, 4)), {"dimension": 1, "num_keys": 1}),
        ((rng.integers(0, 2, size=(7,)), distinct(7), distinct(7)), {"dimension": 0, "num_keys": 2}),
        ((np.array([2.0, 0.0, 1.0]), np.arange(3)), {"dimension": 0, "num_keys": 1}),
        ((distinct(0, 2),), {"dimension": 0, "num_keys": 1}),
    ]


sort_p = Primitive(
    "sort",
    impl=_sort_impl,
    shape=_sort_shape,
    jvp=_sort_jvp,
    transpose=NotLinear(),
    batch=_sort_batch,
    lower=Library("sort"),
    multiple_results=True,
    samples=_sort_samples,
)


def sort(operands: Any, dimension: int = -1, num_keys: int = 1) -> Any:
    """Sort along ``dimension``, ascending, NaN last.

    A tuple or list of operands of one shape is sorted together by its first ``num_keys`` members, lexicographically
    and stably, and gives a tuple.
    """
    several = isinstance(operands, (tuple, list))
    xs = tuple(operands) if several else (operands,)
    if not xs:
        raise ValueError("sort: need at least one operand")
    dimension = canonicalize_axis(dimension, len(shape_of(xs[0])), "dimension")
    out = bind_checked(sort_p, *xs, dimension=dimension, num_keys=num_keys)
    return tuple(out) if several else out[0]


def argsort(x: Any, axis: int = -1, descending: bool = False) -> Any:
    """Indices (intp) that sort ``x`` along ``axis``, stably; NaN last if ascending, first if descending."""
    axis = canonicalize_axis(axis, len(shape_of(x)))
    n = shape_of(x)[axis]
    position = broadcasted_iota(INDEX, shape_of(x), axis)
    if not descending:
        return sort_p.bind(x, position, dimension=axis, num_keys=1)[1]
    # Sorted back to front and read back to front, so that equal elements keep their order.
    backwards = sort_p.bind(rev(x, (axis,)), position, dimension=axis, num_keys=1)[1]
    return sub(full(shape_of(x), n - 1, INDEX), rev(backwards, (axis,)))


def top_k(x: Any, k: int, axis: int = -1) -> tuple[Any, Any]:
    """The ``k`` largest elements along an axis, descending, and their positions (intp).

    NaN counts as the largest; of equal elements the first comes first. Few of many are looked for in the ``k`` blocks
    whose largest elements are the largest: those of any other block come after ``k`` elements at least.

    >>> top_k(np.array([1.0, 5.0, 2.0, 5.0]), 3)
    (array([5., 5., 2.]), array([1, 3, 2]))

    Raises:
        ValueError: ``k`` is negative or more than the axis has elements.
    """
    axis = canonicalize_axis(axis, len(shape_of(x)))
    n = shape_of(x)[axis]
    if not 0 <= k <= n:
        raise ValueError(f"top_k: k is {k} for an axis of extent {n}")
    x = moveaxis(x, axis, len(shape_of(x)) - 1)
    places = _leading_by_blocks(stop_gradient(x), k)
    values = take_along_axis(x, places, -1, "promise_in_bounds")
    return tuple([moveaxis(v, len(shape_of(v)) - 1, axis) for v in (values, places)])


SMALLEST_BLOCK = 16


def _leading_by_blocks(x: Any, k: int) -> Any:
    """Positions of the ``k`` largest elements of the last axis."""
    shape, dtype = shape_of(x), aval_of(x).dtype
    *rows, n = shape
    size = math.isqrt(n // k) if k else 0  # as many blocks as there will be candidates
    if size < SMALLEST_BLOCK or 4 * k * size > n or dtype.kind not in "iuf":
        return _leading(x, k)
    blocks, last = -(-n // size), len(shape)
    least = -np.inf if dtype.kind == "f" else np.iinfo(dtype).min
    x = pad(x, dtype.type(least), [*[(0, 0, 0)] * len(rows), (0, blocks * size - n, 0)])
    x = reshape(x, (*rows, blocks, size))
    chosen = sort(_leading(reduce_max(x, [last]), k))  # ascending: equal candidates keep their order
    candidates = take_along_axis(x, reshape(chosen, (*rows, k, 1)), last - 1, "promise_in_bounds")
    found = _leading(reshape(candidates, (*rows, k * size)), k)
    width = full(shape_of(found), size, INDEX)
    number = floor_divide(found, width)
    block = take_along_axis(chosen, number, last - 1, "promise_in_bounds")
    return add(mul(block, width), sub(found, mul(number, width)))


def _leading(x: Any, k: int) -> Any:
    """The same by sorting all."""
    axis, n = len(shape_of(x)) - 1, shape_of(x)[-1]
    order = argsort(x, axis, descending=True)
    return slice_in_dim(order, 0, k, axis=axis) if k < n else order
