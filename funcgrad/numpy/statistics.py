"""Averages, order statistics, covariance and counting."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..core.trace import Tracer
from ..ops.promotion import as_dtype, result_type
from ..ops.search import count_places
from ..ops.shape import slice_in_dim
from ..ops.sort import sort
from ..ops.structural import broadcast_to, expand_dims, reshape, shape_of
from ..ops.structural import squeeze as drop_axes
from ..util import canonicalize_axes
from ..util import prod as int_prod
from .dispatch import implements, operand
from .ordering import occurrences
from .ufuncs import store

__all__ = [
    "average", "bincount", "corrcoef", "cov", "median", "nanmedian", "nanpercentile", "nanquantile", "percentile",
    "quantile",
]  # fmt: skip


@implements(np.average)
def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False) -> Any:
    """Weighted mean."""
    x = operand(a)
    if weights is None:
        result = np.mean(x, axis, keepdims=keepdims)
        count = int_prod([shape_of(x)[k] for k in canonicalize_axes(axis, len(shape_of(x)))])
        return (result, np.full_like(result, count)) if returned else result
    w = operand(weights)
    if shape_of(w) != shape_of(x):
        axes = canonicalize_axes(axis, len(shape_of(x)))
        if axis is None or shape_of(w) != tuple([shape_of(x)[k] for k in axes]):
            raise ValueError(f"average: weights of shape {shape_of(w)} do not fit axes {axis} of shape {shape_of(x)}")
        order = sorted(range(len(axes)), key=lambda k: axes[k])
        w = np.transpose(w, order)
        w = reshape(w, [n if k in axes else 1 for k, n in enumerate(shape_of(x))])
    dtype = result_type(x, w)
    dtype = dtype if dtype.kind in "fc" else np.dtype(np.float64)
    total = np.sum(broadcast_to(as_dtype(w, dtype), shape_of(x)), axis, keepdims=keepdims)
    result = np.divide(np.sum(np.multiply(as_dtype(x, dtype), w), axis, keepdims=keepdims), total)
    return (result, total) if returned else result


# order statistics -------------------------------------------------------------------------------------------------

_METHODS = ("linear", "lower", "higher", "midpoint", "nearest")


def _last_axis(x: Any, axis: Any) -> tuple[Any, tuple[int, ...]]:
    """The reduced axes, flattened, as the last one."""
    shape = shape_of(x)
    axes = canonicalize_axes(axis, len(shape))
    kept = [k for k in range(len(shape)) if k not in axes]
    x = np.transpose(x, [*kept, *axes])
    return reshape(x, [*[shape[k] for k in kept], int_prod([shape[k] for k in axes])]), axes


def _at(x: Any, position: Any) -> Any:
    """Elements of the last axis at positions that broadcast with the leading axes."""
    if not isinstance(position, Tracer) and np.ndim(position) == 0:
        k = int(position)
        return drop_axes(slice_in_dim(x, k, k + 1, axis=-1), (-1,))
    index = broadcast_to(operand(position), shape_of(x)[:-1])
    return drop_axes(np.take_along_axis(x, expand_dims(index, (len(shape_of(x)) - 1,)), -1), (-1,))


def _between(x: Any, virtual: Any, method: str) -> Any:
    """Interpolate sorted values at a virtual index into the last axis."""
    dtype = aval_of(x).dtype
    low, high = np.floor(virtual), np.ceil(virtual)
    if method == "nearest":
        return _at(x, np.rint(virtual).astype(np.intp))
    if method == "lower":
        return _at(x, low.astype(np.intp))
    if method == "higher":
        return _at(x, high.astype(np.intp))
    a, b = _at(x, low.astype(np.intp)), _at(x, high.astype(np.intp))
    if method == "median":
        return np.where(np.equal(low, high), a, np.add(a, b) * 0.5)
    weight = np.subtract(virtual, low) if method == "linear" else np.multiply(np.not_equal(low, high), 0.5)
    weight = as_dtype(operand(weight), dtype)
    step = np.subtract(b, a)
    return np.where(np.less(weight, 0.5), a + step * weight, b - step * (1 - weight))


def _quantile(name: str, a: Any, q: Any, axis: Any, method: str, keepdims: Any, ignore_nan: bool, out: Any) -> Any:
    x, q = operand(a), operand(q)
    if method not in (*_METHODS, "median"):
        raise NotImplementedError(f"{name}: method {method!r} cannot be traced; take {', '.join(_METHODS)}")
    if not isinstance(q, Tracer) and not np.all((np.asarray(q) >= 0) & (np.asarray(q) <= 1)):
        raise ValueError(f"{name}: quantiles must be in the range [0, 1] (percentiles in [0, 100])")
    dtype = aval_of(x).dtype
    if dtype.kind == "c":
        raise TypeError(f"{name}: complex numbers have no order")
    own = dtype if dtype.kind == "f" else np.dtype(np.float64)
    x, axes = _last_axis(as_dtype(x, own), axis)
    n = shape_of(x)[-1]
    if not n:
        raise ValueError(f"{name} of an axis without elements")
    x = sort(x, -1)
    missing = np.isnan(x)
    results = []
    for level in [q] if shape_of(q) == () else list(np.ravel(q)):
        level = as_dtype(level, np.dtype(np.float64)) if not isinstance(level, Tracer) else level
        if ignore_nan:
            count = np.maximum(np.sum(np.logical_not(missing), axis=-1), 1)
            value = _between(x, np.multiply(level, count - 1), method)
        else:
            value = _between(x, np.multiply(level, n - 1), method)
            value = np.where(_at(missing, n - 1), own.type(np.nan), value)
        results.append(expand_dims(value, sorted(axes)) if keepdims else value)
    result = results[0] if shape_of(q) == () else np.stack(results)
    if len(shape_of(q)) > 1:
        result = reshape(result, (*shape_of(q), *shape_of(result)[1:]))
    return result if out is None else store(name, result, out)


def _quantile_function(numpy_function: Any, scale: float, ignore_nan: bool) -> Any:
    name = numpy_function.__name__

    def quantile(
        a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, method: str = "linear",
        keepdims: Any = False, *, weights: Any = None,
    ) -> Any:  # fmt: skip
        if weights is not None:
            raise NotImplementedError(f"{name} with weights is not supported on traced values")
        level = np.divide(q, scale) if scale != 1 else q
        return _quantile(name, a, level, axis, method, keepdims, ignore_nan, out)

    quantile.__name__ = quantile.__qualname__ = name
    return implements(numpy_function)(quantile)


quantile = _quantile_function(np.quantile, 1, False)
percentile = _quantile_function(np.percentile, 100, False)
nanquantile = _quantile_function(np.nanquantile, 1, True)
nanpercentile = _quantile_function(np.nanpercentile, 100, True)


def _median_function(numpy_function: Any, ignore_nan: bool) -> Any:
    name = numpy_function.__name__

    def median(a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False) -> Any:
        return _quantile(name, a, 0.5, axis, "median", keepdims, ignore_nan, out)

    median.__name__ = median.__qualname__ = name
    return implements(numpy_function)(median)


median = _median_function(np.median, False)
nanmedian = _median_function(np.nanmedian, True)


# covariance and counting ------------------------------------------------------------------------------------------


@implements(np.cov)
def cov(
    m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: int | None = None, fweights: Any = None,
    aweights: Any = None, *, dtype: Any = None,
) -> Any:  # fmt: skip
    """Covariance matrix of variables (rows) from observations (columns)."""
    x = np.atleast_2d(operand(m))
    x = as_dtype(x, np.result_type(result_type(x), np.float64) if dtype is None else np.dtype(dtype))
    x = np.transpose(x) if not rowvar and shape_of(operand(m)) != shape_of(x)[1:] else x
    if y is not None:
        other = np.atleast_2d(operand(y))
        other = np.transpose(other) if not rowvar and shape_of(other)[0] != 1 else other
        x = np.concatenate([x, as_dtype(other, aval_of(x).dtype)], axis=0)
    ddof = (0 if bias else 1) if ddof is None else ddof
    n = shape_of(x)[1]
    w = None
    if fweights is not None or aweights is not None:
        w = np.multiply(1.0 if fweights is None else operand(fweights), 1.0 if aweights is None else operand(aweights))
    if w is None:
        centred, freedom = x - np.mean(x, axis=1, keepdims=True), n - ddof
        weighted = centred
    else:
        total = np.sum(w)
        centred = x - np.divide(np.sum(x * w, axis=1), total)[:, None]
        lost = ddof if aweights is None else ddof * np.sum(w * operand(aweights)) / total
        freedom, weighted = total - lost, centred * w
    result = np.divide(np.matmul(weighted, np.conjugate(np.transpose(centred))), freedom)
    return np.squeeze(result) if 1 in shape_of(result) else result


@implements(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    """Matrix of correlation coefficients."""
    c = cov(x, y, rowvar, dtype=dtype)
    if shape_of(c) == ():
        return c / c
    deviation = np.sqrt(np.real(np.diagonal(c)))
    result = c / deviation[:, None] / deviation
    return np.clip(result, -1, 1) if aval_of(result).dtype.kind == "f" else result


@implements(np.bincount, extras=("length",))
def bincount(x: Any, /, weights: Any = None, minlength: int = 0, *, length: int | None = None) -> Any:
    """How often each integer occurs, or the sums of weights. Traced integers need ``length`` (or ``minlength``)."""
    x = operand(x)
    if length is None:
        if isinstance(x, Tracer):
            if not minlength:
                raise ValueError("bincount of traced integers: the length of the result depends on them; pass length=n")
            length = minlength
        else:
            length = max(minlength, int(np.max(x)) + 1 if np.size(x) else 0)
    if aval_of(x).dtype.kind not in "biu" or len(shape_of(x)) != 1:
        raise TypeError(f"bincount: x must be a vector of integers, found {aval_of(x).dtype.name}{list(shape_of(x))}")
    x = as_dtype(x, np.dtype(np.intp)) if aval_of(x).dtype.kind == "b" else x
    return count_places(x, occurrences(weights, shape_of(x), np.float64), operator.index(length))
