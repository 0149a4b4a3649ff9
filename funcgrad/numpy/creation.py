"""Arrays from nothing, from scalars and from lists. Without a tracer among the arguments these are NumPy's own.

``zeros_like`` and its kin of a tracer give a tracer of the same transformation even where the values are known, so
that ``y = np.zeros_like(x); y[0] = x[0]`` can be written.
"""

from __future__ import annotations

import math
from operator import index
from typing import Any

import numpy as np

from ..core.avals import aval_of, check_dtype
from ..core.staging import is_staging
from ..core.trace import Tracer
from ..ops import elementwise as ew
from ..ops.create import full as constant
from ..ops.create import iota
from ..ops.promotion import as_dtype, result_type
from ..ops.structural import broadcast_to, expand_dims, reshape, shape_of
from .dispatch import implements, operand
from .memory import clone, mark_view

__all__ = [
    "arange", "array", "asanyarray", "asarray", "ascontiguousarray", "astype", "copy", "diag", "diagflat", "empty",
    "empty_like", "eye", "fill_diagonal", "from_dlpack", "frombuffer", "fromfunction", "full", "full_like",
    "geomspace", "identity", "indices", "linspace", "logspace", "mask_indices", "meshgrid", "ones", "ones_like",
    "tri", "tril", "tril_indices", "tril_indices_from", "triu", "triu_indices", "triu_indices_from", "vander",
    "zeros", "zeros_like",
]  # fmt: skip

eye, from_dlpack, frombuffer, fromfunction = np.eye, np.from_dlpack, np.frombuffer, np.fromfunction
identity, indices, mask_indices, tri = np.identity, np.indices, np.mask_indices, np.tri
tril_indices, triu_indices = np.tril_indices, np.triu_indices


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple([index(n) for n in shape]) if isinstance(shape, (tuple, list)) else (index(shape),)


def _constant(shape: Any, value: Any, dtype: Any, default: Any) -> Any:
    """A constant array: under ``jit`` a traced one, which no memory stands behind and which has ``.at``."""
    dtype = check_dtype(np.dtype(default if dtype is None else dtype), "dtype")
    return clone(constant(_shape(shape), value, dtype)) if is_staging() else np.full(_shape(shape), value, dtype)


def zeros(shape: Any, dtype: Any = None, order: Any = "C", **ignored: Any) -> Any:
    """An array of zeros, float64 unless another dtype is asked. See ``numpy.zeros``."""
    return _constant(shape, 0, dtype, np.float64)


def ones(shape: Any, dtype: Any = None, order: Any = "C", **ignored: Any) -> Any:
    """An array of ones, float64 unless another dtype is asked. See ``numpy.ones``."""
    return _constant(shape, 1, dtype, np.float64)


def empty(shape: Any, dtype: Any = None, order: Any = "C", **ignored: Any) -> Any:
    """An array to be filled; it is zero so far. See ``numpy.empty``."""
    return zeros(shape, dtype)


def _checked(array: Any) -> Any:
    check_dtype(array.dtype, "array")
    return array


def _typed(x: Any, dtype: Any) -> Any:
    x = operand(x)
    return as_dtype(x, aval_of(x).dtype if dtype is None else check_dtype(np.dtype(dtype), "dtype="))


@implements(np.array)
def array(object: Any, dtype: Any = None, *, copy: Any = True, ndmin: int = 0, **ignored: Any) -> Any:
    """An array of what is given: numbers, arrays, tracers and nested lists of them."""
    x = _typed(object, dtype)
    return expand_dims(x, range(ndmin - len(shape_of(x)))) if len(shape_of(x)) < ndmin else x


@implements(np.asarray, view=True)
def asarray(a: Any, dtype: Any = None, *args: Any, copy: Any = None, **ignored: Any) -> Any:
    """The argument itself if it is an array or tracer of that dtype, else a new array."""
    x = _typed(a, dtype)
    return clone(x) if copy and x is a else x


@implements(np.asanyarray, np.ascontiguousarray, view=True)
def asanyarray(a: Any, dtype: Any = None, *args: Any, **ignored: Any) -> Any:
    """As ``asarray``."""
    return asarray(a, dtype)


ascontiguousarray = asanyarray


@implements(np.copy)
def copy(a: Any, order: Any = "K", subok: bool = False) -> Any:
    """A copy: writes to it leave the original, and the other way round."""
    return _typed(a, None)


@implements(np.astype)
def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """The array in another dtype; complex to real drops the imaginary part, as with a warning in NumPy."""
    return as_dtype(operand(x), check_dtype(np.dtype(dtype), "dtype"))


def _like(x: Any, value: Any, dtype: Any, shape: Any) -> Any:
    x = operand(x)
    dtype = aval_of(x).dtype if dtype is None else check_dtype(np.dtype(dtype), "dtype")
    own = shape_of(x)
    target = own if shape is None else tuple(shape) if isinstance(shape, (tuple, list)) else (int(shape),)
    filled = broadcast_to(as_dtype(operand(value), dtype), target)
    if isinstance(filled, Tracer) and (not isinstance(x, Tracer) or x._trace is filled._trace):
        return filled if filled is not value else clone(filled)
    if target != own:
        if not math.prod(own):
            return np.array(filled)
        x = broadcast_to(reshape(x, (math.prod(own),))[0], target)
    return ew.select(np.False_, as_dtype(x, dtype), filled)  # the values of `filled`, traced as `x` is


@implements(np.zeros_like)
def zeros_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, **ignored: Any
) -> Any:
    """Zeros with the shape and dtype of an array."""
    return _like(a, 0, dtype, shape)


@implements(np.ones_like)
def ones_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, **ignored: Any
) -> Any:
    """Ones with the shape and dtype of an array."""
    return _like(a, 1, dtype, shape)


@implements(np.empty_like)
def empty_like(
    prototype: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, **ignored: Any
) -> Any:
    """An array to be filled, with the shape and dtype of another; of a tracer, zeros."""
    return _like(prototype, 0, dtype, shape)


@implements(np.full_like)
def full_like(
    a: Any, fill_value: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, **ignored: Any
) -> Any:
    """A constant with the shape and dtype of an array."""
    return _like(a, fill_value, dtype, shape)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C", **ignored: Any) -> Any:
    """An array filled with one value. See ``numpy.full``."""
    if not isinstance(fill_value, Tracer) and np.ndim(fill_value) == 0:
        return _constant(shape, fill_value, dtype, np.asarray(fill_value).dtype)
    return _full(shape, fill_value, dtype)


@implements(np.full)
def _full(shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C", **ignored: Any) -> Any:
    """An array filled with one value."""
    return broadcast_to(_typed(fill_value, dtype), tuple(shape) if isinstance(shape, (tuple, list)) else (int(shape),))


# ranges ---------------------------------------------------------------------------------------------------------


@implements(np.arange)
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, **ignored: Any) -> Any:
    """Evenly spaced numbers with a given step. Bounds must be static: they give the shape."""
    start, stop = (0, start) if stop is None else (start, stop)
    bounds = [float(v) for v in (start, stop, step)]  # a tracer says here that it must be static
    return np.arange(*bounds, dtype=result_type(start, stop, step) if dtype is None else dtype)


def _spaced_dtype(dtype: Any, *bounds: Any) -> np.dtype[Any]:
    return np.dtype(dtype) if dtype is not None else np.result_type(result_type(*bounds), 0.0)


def _as_array_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if dtype.kind in "fc" else np.dtype(np.float64)


@implements(np.linspace)
def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None,
    axis: int = 0, **ignored: Any,
) -> Any:  # fmt: skip
    """``num`` evenly spaced numbers from ``start`` to ``stop``, both of which may be traced arrays."""
    start, stop = operand(start), operand(stop)
    inner = _as_array_dtype(_spaced_dtype(None, start, stop))
    a, b = np.broadcast_arrays(as_dtype(start, inner), as_dtype(stop, inner))
    parts = num - 1 if endpoint else num
    position = as_dtype(iota(np.int64, num), inner)
    position = reshape(position, (num, *[1] * len(shape_of(a))))
    span = np.subtract(b, a)
    step = np.divide(span, parts) if parts > 0 else np.multiply(span, np.nan)
    result = np.add(np.multiply(position, step), a) if parts > 0 else np.add(np.multiply(position, span), a)
    if endpoint and num > 1:
        last = np.equal(position, inner.type(num - 1))
        result = ew.select(last, b, result)
    result = np.moveaxis(result, 0, axis) if axis else result
    if dtype is not None and np.dtype(dtype).kind in "iu":
        result = np.floor(result)
    result = as_dtype(result, np.dtype(dtype)) if dtype is not None else result
    return (result, step) if retstep else result


@implements(np.logspace)
def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0, dtype: Any = None, axis: int = 0
) -> Any:
    """Numbers whose logarithms are evenly spaced."""
    result = np.power(base, linspace(start, stop, num, endpoint, axis=axis))
    return result if dtype is None else as_dtype(result, np.dtype(dtype))


@implements(np.geomspace)
def geomspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0) -> Any:
    """Numbers with a constant ratio, between positive bounds."""
    result = np.exp(linspace(np.log(operand(start)), np.log(operand(stop)), num, endpoint, axis=axis))
    return result if dtype is None else as_dtype(result, np.dtype(dtype))


@implements(np.meshgrid)
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> Any:
    """Coordinate arrays of a grid."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing must be 'xy' or 'ij', found {indexing!r}")
    xs = [np.ravel(operand(x)) for x in xi]
    rank = len(xs)
    grids = [reshape(x, [-1 if j == k else 1 for j in range(rank)]) for k, x in enumerate(xs)]
    if indexing == "xy" and rank > 1:
        grids = [np.swapaxes(g, 0, 1) for g in grids]
    return tuple(grids) if sparse else tuple(np.broadcast_arrays(*grids))


# diagonals and triangles ------------------------------------------------------------------------------------------


def _triangle(m: Any, k: int, lower: bool) -> Any:
    x = operand(m)
    if len(shape_of(x)) < 2:
        x = broadcast_to(x, (shape_of(x)[0], shape_of(x)[0]))
    mask = np.tri(*shape_of(x)[-2:], k=k if lower else k - 1, dtype=bool)
    zero = aval_of(x).dtype.type(0)
    return ew.select(mask, x, zero) if lower else ew.select(mask, zero, x)


@implements(np.tril)
def tril(m: Any, k: int = 0) -> Any:
    """The lower triangle; zeros above the ``k``-th diagonal."""
    return _triangle(m, k, True)


@implements(np.triu)
def triu(m: Any, k: int = 0) -> Any:
    """The upper triangle; zeros below the ``k``-th diagonal."""
    return _triangle(m, k, False)


@implements(np.tril_indices_from)
def tril_indices_from(arr: Any, k: int = 0) -> Any:
    """Indices of the lower triangle of an array."""
    return np.tril_indices(arr.shape[-2], k=k, m=arr.shape[-1])


@implements(np.triu_indices_from)
def triu_indices_from(arr: Any, k: int = 0) -> Any:
    """Indices of the upper triangle of an array."""
    return np.triu_indices(arr.shape[-2], k=k, m=arr.shape[-1])


@implements(np.diag)
def diag(v: Any, k: int = 0) -> Any:
    """The diagonal of a matrix, or the matrix with a given diagonal."""
    x = operand(v)
    rank = len(shape_of(x))
    if rank == 2:
        return mark_view(np.diagonal(x, k), x, "a diagonal")
    if rank != 1:
        raise ValueError(f"diag: input must be 1- or 2-d, found shape {shape_of(x)}")
    n = shape_of(x)[0] + abs(k)
    rows = np.arange(shape_of(x)[0]) + max(-k, 0)
    zero = np.zeros((n, n), aval_of(x).dtype)
    from_zero = ew.select(np.False_, broadcast_to(x[:1].sum(), (n, n)), zero) if shape_of(x)[0] else zero
    return operand(from_zero).at[rows, rows + k].set(x) if isinstance(from_zero, Tracer) else zero


@implements(np.diagflat)
def diagflat(v: Any, k: int = 0) -> Any:
    """The matrix with the flattened input as a diagonal."""
    return diag(np.ravel(operand(v)), k)


@implements(np.fill_diagonal)
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """Write ``val`` to the diagonal of a traced array, in place."""
    if not isinstance(a, Tracer):
        raise TypeError("fill_diagonal writes a traced value into a NumPy array; make it with zeros_like(x)")
    if a.ndim != 2 or wrap:
        raise NotImplementedError("fill_diagonal of a traced array takes matrices, without wrap")
    rows = np.arange(min(a.shape))
    a[rows, rows] = val


@implements(np.vander)
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """Matrix of powers of a vector."""
    x = operand(x)
    n = shape_of(x)[0] if N is None else N
    powers = np.arange(n) if increasing else np.arange(n)[::-1]
    columns = [np.power(x, int(p)) for p in powers]
    return np.stack(columns, axis=1) if columns else np.zeros((shape_of(x)[0], 0), aval_of(x).dtype)
