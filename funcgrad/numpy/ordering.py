"""Sorting, and what is found by comparing with sorted values."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..core.trace import Tracer
from ..ops import sort as so
from ..ops.create import full
from ..ops.indexing import scatter
from ..ops.promotion import as_dtype, promote_dtypes
from ..ops.search import count_places
from ..ops.search import searchsorted as find
from ..ops.shape import rev
from ..ops.structural import reshape, shape_of
from ..util import canonicalize_axis
from ..util import prod as int_prod
from .dispatch import implements, operand
from .manipulation import take
from .selection import unknown_size, where

__all__ = [
    "argpartition", "argsort", "digitize", "histogram", "lexsort", "partition", "searchsorted", "sort", "unique",
]  # fmt: skip


@implements(np.sort, extras=("descending",))
def sort(
    a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None, descending: bool = False
) -> Any:
    """Sorted along an axis, NaN last."""
    x = operand(a)
    if axis is None:
        x, axis = reshape(x, (int_prod(shape_of(x)),)), 0
    result = so.sort(x, axis)
    return rev(result, (canonicalize_axis(axis, len(shape_of(x))),)) if descending else result


@implements(np.argsort, extras=("descending",))
def argsort(
    a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None, descending: bool = False
) -> Any:
    """Indices that sort along an axis, stably."""
    x = operand(a)
    if axis is None:
        x, axis = reshape(x, (int_prod(shape_of(x)),)), 0
    return so.argsort(x, axis, descending)


@implements(np.partition)
def partition(a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None) -> Any:
    """Sorted along an axis, which is one of the orders that ``np.partition`` may give."""
    return sort(a, axis)


@implements(np.argpartition)
def argpartition(a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None) -> Any:
    """Indices that sort along an axis."""
    return argsort(a, axis)


@implements(np.lexsort)
def lexsort(keys: Any, axis: int = -1) -> Any:
    """Indices that sort by several keys, the last the primary one."""
    xs = list(operand(keys)) if not isinstance(keys, (tuple, list)) else [operand(k) for k in keys]
    shape = shape_of(xs[0])
    axis = canonicalize_axis(axis, len(shape))
    position = np.broadcast_to(
        np.arange(shape[axis]).reshape([-1 if k == axis else 1 for k in range(len(shape))]), shape
    )
    return so.sort([*xs[::-1], position], axis, num_keys=len(xs))[-1]


@implements(np.searchsorted)
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None, **unused: Any) -> Any:
    """Where to insert values so that a sorted array stays sorted."""
    x, v = promote_dtypes(operand(a), operand(v))
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side must be 'left' or 'right', found {side!r}")
    if len(shape_of(x)) != 1:
        raise ValueError(f"searchsorted: the sorted array must have one axis, found shape {shape_of(x)}")
    if aval_of(x).dtype.kind == "c":
        raise TypeError("searchsorted: complex numbers cannot be searched for under a trace; sort by a real key")
    return find(x if sorter is None else take(x, sorter), v, side == "right")


@implements(np.digitize)
def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    """The bin each value falls into; static bins may also descend."""
    if isinstance(bins, Tracer):
        return searchsorted(bins, x, "left" if right else "right")
    bins = np.asarray(bins)
    if len(bins) > 1 and bins[0] > bins[-1]:
        return len(bins) - searchsorted(bins[::-1], x, "right" if right else "left")
    return searchsorted(bins, x, "left" if right else "right")


def occurrences(weights: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
    """What each element counts: its weight, or one."""
    if weights is None:
        return full(shape, 1, np.intp)
    w = np.ravel(operand(weights))
    if shape_of(w) != shape:
        raise ValueError(f"weights of {shape_of(w)[0]} elements do not fit {shape[0]} values")
    dtype = aval_of(w).dtype if dtype is None else np.dtype(dtype)
    return as_dtype(w, np.dtype(np.intp) if dtype.kind == "b" else dtype)


@implements(np.histogram)
def histogram(a: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    """Counts (or sums of weights) in bins, and the edges of the bins."""
    x = np.ravel(operand(a))
    if aval_of(x).dtype.kind not in "iuf":
        raise TypeError(f"histogram: values must be integers or floats, found {aval_of(x).dtype.name}")
    if np.ndim(bins) == 0 and not isinstance(bins, Tracer):
        low, high = (np.min(x), np.max(x)) if range is None else range
        edges = np.linspace(low, high, int(bins) + 1)
    else:
        edges = operand(bins)
    n = shape_of(edges)[0] - 1
    index = np.subtract(searchsorted(edges, x, "right"), 1)
    index = where(np.equal(x, edges[-1]), n - 1, index)
    inside = np.logical_and(np.greater_equal(x, edges[0]), np.less_equal(x, edges[-1]))
    counts = count_places(where(inside, index, n), occurrences(weights, shape_of(index)), n)
    return (counts / np.diff(edges) / np.sum(counts) if density else counts), edges


@implements(np.unique, extras=("size", "fill_value"))
def unique(
    ar: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False, axis: Any = None,
    *, equal_nan: bool = True, sorted: bool = True, size: int | None = None, fill_value: Any = None,
) -> Any:  # fmt: skip
    """The distinct elements, ascending. How many there are is not known under a trace: ``size`` says how many to
    return; the rest, if there are fewer, is ``fill_value`` (by default the least of them), counted zero times."""
    x = operand(ar)
    if size is None:
        raise unknown_size("unique", "Pass size=n of funcgrad.numpy.unique for the n least distinct elements.")
    if axis is not None:
        raise NotImplementedError(f"unique along axis {axis} cannot be traced; only of all elements (axis=None)")
    size, n = operator.index(size), int_prod(shape_of(x))
    if not n:
        raise ValueError("unique: there is no element to fill the result with; the array is empty")
    flat = reshape(x, (n,))
    order = so.argsort(flat, 0)
    ascending = take(flat, order)
    before, after = ascending[:-1], ascending[1:]
    differs = np.not_equal(before, after)
    if equal_nan and aval_of(x).dtype.kind in "fc":
        differs = np.logical_and(differs, np.logical_not(np.logical_and(np.isnan(before), np.isnan(after))))
    rank = np.cumsum(np.concatenate([np.ones(1, np.bool_), differs]))
    starts = find(rank, np.arange(1, size + 2), False)
    found = np.less(np.arange(size), rank[-1])
    places = np.minimum(starts[:size], n - 1)
    fill = ascending[0] if fill_value is None else as_dtype(operand(fill_value), aval_of(x).dtype)
    results = [where(found, take(ascending, places), fill)]
    if return_index:
        results.append(where(found, take(order, places), order[0]))
    if return_inverse:
        inverse = scatter(full((n,), 0, np.intp), rank - 1, [order], (0,), "promise_in_bounds", True)
        results.append(reshape(inverse, shape_of(x)))
    if return_counts:
        results.append(starts[1:] - starts[:-1])
    return tuple(results) if len(results) > 1 else results[0]
