"""Folds along axes with NumPy's whole signature: ``axis, dtype, out, keepdims, initial, where``.

Accumulators are NumPy's: sums and products of booleans and small integers are 64-bit, the mean of integers is
float64, the mean of float16 is accumulated in float32.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..ops import cumulative
from ..ops import elementwise as ew
from ..ops import reduce as rd
from ..ops.promotion import as_dtype
from ..ops.structural import broadcast_to, expand_dims, reduce_sum, reshape, shape_of
from ..ops.transcendental import sqrt
from ..util import canonicalize_axes, canonicalize_axis
from ..util import prod as int_prod
from .dispatch import implements, operand
from .ufuncs import store

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "count_nonzero", "cumprod", "cumsum", "cumulative_prod",
    "cumulative_sum", "max", "mean", "min", "nanargmax", "nanargmin", "nancumprod", "nancumsum", "nanmax", "nanmean",
    "nanmin", "nanprod", "nanstd", "nansum", "nanvar", "prod", "ptp", "std", "sum", "var",
]  # fmt: skip

NO_VALUE = np._NoValue
Fold = Callable[[Any, Any], Any]


def accumulator_dtype(dtype: np.dtype[Any], chosen: Any = None) -> np.dtype[Any]:
    """The dtype in which NumPy adds and multiplies up values of ``dtype``."""
    if chosen is not None:
        return np.dtype(chosen)
    if dtype.kind == "b" or (dtype.kind == "i" and dtype.itemsize < 8):
        return np.dtype(np.int64)
    return np.dtype(np.uint64) if dtype.kind == "u" and dtype.itemsize < 8 else dtype


def finish(name: str, result: Any, shape: tuple[int, ...], axes: tuple[int, ...], keepdims: Any, out: Any) -> Any:
    """``keepdims`` and ``out``, which all reductions share."""
    if keepdims is not NO_VALUE and keepdims:
        result = expand_dims(result, axes) if axes else result
    return result if out is None else store(name, result, out)


def _mask(where: Any) -> Any | None:
    return None if where is NO_VALUE or where is True else operand(where)


def _masked(x: Any, mask: Any | None, neutral: Any) -> Any:
    if mask is None:
        return x
    if aval_of(mask).dtype.kind != "b":
        raise TypeError(f"where must be boolean, found dtype {aval_of(mask).dtype.name}")
    return broadcast_to(ew.select(mask, x, aval_of(x).dtype.type(neutral)), shape_of(x))


def _total(fold: Fold, combine: Fold, neutral: int, name: str) -> Callable[..., Any]:
    def reduce(
        a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = NO_VALUE,
        initial: Any = NO_VALUE, where: Any = NO_VALUE,
    ) -> Any:  # fmt: skip
        x = operand(a)
        axes = canonicalize_axes(axis, len(shape_of(x)))
        x = as_dtype(x, accumulator_dtype(aval_of(x).dtype, dtype))
        result = fold(_masked(x, _mask(where), neutral), axes)
        if initial is not NO_VALUE and initial is not None:
            result = combine(result, as_dtype(operand(initial), aval_of(result).dtype))
        return finish(name, result, shape_of(x), axes, keepdims, out)

    reduce.__name__ = reduce.__qualname__ = name
    return reduce


sum = implements(np.sum)(_total(reduce_sum, ew.add, 0, "sum"))
prod = implements(np.prod)(_total(rd.reduce_prod, ew.mul, 1, "prod"))


def _extreme(fold: Fold, combine: Fold, name: str) -> Callable[..., Any]:
    def reduce(
        a: Any, axis: Any = None, out: Any = None, keepdims: Any = NO_VALUE, initial: Any = NO_VALUE,
        where: Any = NO_VALUE,
    ) -> Any:  # fmt: skip
        x = operand(a)
        x = as_dtype(x, aval_of(x).dtype)
        axes = canonicalize_axes(axis, len(shape_of(x)))
        mask = _mask(where)
        given = initial is not NO_VALUE and initial is not None
        if mask is not None and not given:
            raise ValueError(f"{name} has no identity, so that where= needs initial= too")
        if not given:
            return finish(name, fold(x, axes), shape_of(x), axes, keepdims, out)
        first = as_dtype(operand(initial), aval_of(x).dtype)
        if mask is not None:
            x = broadcast_to(ew.select(mask, x, first), shape_of(x))
        reduced = tuple([n for k, n in enumerate(shape_of(x)) if k not in axes])
        empty = int_prod(shape_of(x)) == 0 and int_prod(reduced) != 0
        result = broadcast_to(first, reduced) if empty else combine(fold(x, axes), first)
        return finish(name, result, shape_of(x), axes, keepdims, out)

    reduce.__name__ = reduce.__qualname__ = name
    return reduce


max = amax = implements(np.max, np.amax)(_extreme(rd.reduce_max, ew.maximum, "max"))
min = amin = implements(np.min, np.amin)(_extreme(rd.reduce_min, ew.minimum, "min"))


def _truth(x: Any) -> Any:
    aval = aval_of(x)
    return x if aval.dtype.kind == "b" else ew.ne(as_dtype(x, aval.dtype), aval.dtype.type(0))


def _logical(fold: Fold, neutral: bool, name: str) -> Callable[..., Any]:
    def reduce(a: Any, axis: Any = None, out: Any = None, keepdims: Any = NO_VALUE, *, where: Any = NO_VALUE) -> Any:
        x = _truth(operand(a))
        axes = canonicalize_axes(axis, len(shape_of(x)))
        return finish(name, fold(_masked(x, _mask(where), neutral), axes), shape_of(x), axes, keepdims, out)

    reduce.__name__ = reduce.__qualname__ = name
    return reduce


all = implements(np.all)(_logical(rd.reduce_and, True, "all"))
any = implements(np.any)(_logical(rd.reduce_or, False, "any"))


@implements(np.count_nonzero)
def count_nonzero(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """Number of elements that are not zero."""
    return sum(_truth(operand(a)), axis=axis, keepdims=keepdims)


# means ----------------------------------------------------------------------------------------------------------


def _mean_dtypes(dtype: np.dtype[Any], chosen: Any) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """In what to add, and what to return."""
    if chosen is not None:
        return np.dtype(chosen), np.dtype(chosen)
    if dtype.kind in "biu":
        return np.dtype(np.float64), np.dtype(np.float64)
    return (np.dtype(np.float32), dtype) if dtype == np.float16 else (dtype, dtype)


def count(shape: tuple[int, ...], axes: tuple[int, ...], mask: Any | None, dtype: np.dtype[Any]) -> Any:
    """How many elements each result is made of: a scalar, or an array if there is a mask."""
    if mask is None:
        return dtype.type(int_prod([shape[a] for a in axes]))
    whole = broadcast_to(as_dtype(mask, dtype), shape)
    return reduce_sum(whole, axes)


def _real_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.empty(0, dtype).real.dtype


@implements(np.mean)
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = NO_VALUE, *, where: Any = NO_VALUE
) -> Any:
    """Arithmetic mean along ``axis``."""
    x = operand(a)
    axes = canonicalize_axes(axis, len(shape_of(x)))
    inner, outer = _mean_dtypes(aval_of(x).dtype, dtype)
    x, mask = as_dtype(x, inner), _mask(where)
    total = reduce_sum(_masked(x, mask, 0), axes)
    result = ew.div(total, count(shape_of(x), axes, mask, inner))
    return finish("mean", as_dtype(result, outer), shape_of(x), axes, keepdims, out)


@implements(np.var)
def var(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = NO_VALUE, *,
    where: Any = NO_VALUE, mean: Any = NO_VALUE, correction: Any = NO_VALUE,
) -> Any:  # fmt: skip
    """Variance along ``axis``: the mean of ``|x - mean|**2``, divided by ``n - ddof``."""
    x = operand(a)
    axes = canonicalize_axes(axis, len(shape_of(x)))
    inner, outer = _mean_dtypes(aval_of(x).dtype, dtype)
    x, mask = as_dtype(x, inner), _mask(where)
    if mean is NO_VALUE:
        total = reduce_sum(_masked(x, mask, 0), axes)
        centre = expand_dims(ew.div(total, count(shape_of(x), axes, mask, inner)), axes)
    else:
        centre = as_dtype(operand(mean), inner)
    deviation = ew.sub(x, centre)
    squares = ew.square(deviation)
    if inner.kind == "c":
        squares = ew.add(ew.square(ew.real(deviation)), ew.square(ew.imag(deviation)))
    real = _real_dtype(inner)
    total = reduce_sum(_masked(squares, mask, 0), axes)
    freedom = count(shape_of(x), axes, mask, real)
    lost = ddof if correction is NO_VALUE else correction
    freedom = ew.maximum(ew.sub(freedom, real.type(lost)), real.type(0)) if lost else freedom
    result = as_dtype(ew.div(total, freedom), _real_dtype(outer))
    return finish("var", result, shape_of(x), axes, keepdims, out)


def root(x: Any) -> Any:
    """The square root of a sum of squares: its derivative at 0 is 0, where the slope is infinite but nothing moves."""
    dtype = aval_of(x).dtype
    none = ew.eq(x, dtype.type(0))
    return ew.select(none, dtype.type(0), sqrt(ew.select(none, dtype.type(1), x)))


@implements(np.std)
def std(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = NO_VALUE, *,
    where: Any = NO_VALUE, mean: Any = NO_VALUE, correction: Any = NO_VALUE,
) -> Any:  # fmt: skip
    """Standard deviation along ``axis``; its derivative at equal values is 0."""
    result = root(var(a, axis, dtype, None, ddof, keepdims, where=where, mean=mean, correction=correction))
    return result if out is None else store("std", result, out)


@implements(np.ptp)
def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = NO_VALUE) -> Any:
    """Largest minus smallest element along ``axis``."""
    x = operand(a)
    result = np.subtract(max(x, axis, keepdims=keepdims), min(x, axis, keepdims=keepdims))
    return result if out is None else store("ptp", result, out)


# positions ------------------------------------------------------------------------------------------------------


def _position(bind: Callable[..., Any], name: str) -> Callable[..., Any]:
    def reduce(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = NO_VALUE) -> Any:
        x = operand(a)
        shape = shape_of(x)
        if axis is None:
            result = bind(reshape(x, (int_prod(shape),)), 0)
            axes = tuple(range(len(shape)))
        else:
            axes = (canonicalize_axis(operator.index(axis), len(shape)),)
            result = bind(x, axes[0])
        return finish(name, result, shape, axes, keepdims, out)

    reduce.__name__ = reduce.__qualname__ = name
    return reduce


argmax = implements(np.argmax)(_position(rd.argmax, "argmax"))
argmin = implements(np.argmin)(_position(rd.argmin, "argmin"))


# running folds --------------------------------------------------------------------------------------------------


def _running(bind: Callable[..., Any], name: str, accumulate: bool = True) -> Callable[..., Any]:
    def scan(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        x = operand(a)
        own = aval_of(x).dtype
        x = as_dtype(x, accumulator_dtype(own, dtype) if accumulate else own)
        if axis is None:
            x, axis = reshape(x, (int_prod(shape_of(x)),)), 0
        axis = canonicalize_axis(axis, len(shape_of(x)))
        result = bind(x, axis)
        return result if out is None else store(name, result, out)

    scan.__name__ = scan.__qualname__ = name
    return scan


cumsum = implements(np.cumsum)(_running(cumulative.cumsum, "cumsum"))
cumprod = implements(np.cumprod)(_running(cumulative.cumprod, "cumprod"))
cummax = _running(cumulative.cummax, "cummax", accumulate=False)
cummin = _running(cumulative.cummin, "cummin", accumulate=False)


def _cumulative(total: Callable[..., Any], first: int, name: str) -> Callable[..., Any]:
    def scan(x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False) -> Any:
        x = operand(x)
        if axis is None:
            if len(shape_of(x)) != 1:
                raise ValueError(f"{name}: axis is needed for an array of {len(shape_of(x))} dimensions")
            axis = 0
        result = total(x, axis, dtype)
        if include_initial:
            shape = list(shape_of(result))
            shape[axis] = 1
            result = np.concatenate([np.full(shape, first, aval_of(result).dtype), result], axis=axis)
        return result if out is None else store(name, result, out)

    scan.__name__ = scan.__qualname__ = name
    return scan


cumulative_sum = implements(np.cumulative_sum)(_cumulative(cumsum, 0, "cumulative_sum"))
cumulative_prod = implements(np.cumulative_prod)(_cumulative(cumprod, 1, "cumulative_prod"))


# ignoring NaN ---------------------------------------------------------------------------------------------------


def _present(a: Any) -> tuple[Any, Any]:
    """The array, and where it is a number; None if its dtype has no NaN."""
    x = operand(a)
    dtype = aval_of(x).dtype
    return x, ew.bitwise_not(ew.is_nan(as_dtype(x, dtype))) if dtype.kind in "fc" else None


def _without_nan(a: Any, neutral: Any) -> Any:
    x, present = _present(a)
    return x if present is None else ew.select(present, x, aval_of(x).dtype.type(neutral))


def _nan_fold(total: Callable[..., Any], neutral: int, numpy_function: Any) -> Any:
    def reduce(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, *args: Any, **kwargs: Any) -> Any:
        return total(_without_nan(a, neutral), axis, dtype, out, *args, **kwargs)

    reduce.__name__ = reduce.__qualname__ = numpy_function.__name__
    return implements(numpy_function)(reduce)


nansum = _nan_fold(sum, 0, np.nansum)
nanprod = _nan_fold(prod, 1, np.nanprod)
nancumsum = _nan_fold(cumsum, 0, np.nancumsum)
nancumprod = _nan_fold(cumprod, 1, np.nancumprod)


def _nan_extreme(total: Callable[..., Any], neutral: float, numpy_function: Any) -> Any:
    def reduce(a: Any, axis: Any = None, out: Any = None, keepdims: Any = NO_VALUE, **kwargs: Any) -> Any:
        x, present = _present(a)
        if present is None:
            return total(x, axis, out, keepdims, **kwargs)
        filled = total(_without_nan(x, neutral), axis, None, keepdims, **kwargs)
        some = any(present, axis, keepdims=keepdims)
        result = ew.select(some, filled, aval_of(filled).dtype.type(np.nan))
        return result if out is None else store(numpy_function.__name__, result, out)

    reduce.__name__ = reduce.__qualname__ = numpy_function.__name__
    return implements(numpy_function)(reduce)


nanmax = _nan_extreme(max, -np.inf, np.nanmax)
nanmin = _nan_extreme(min, np.inf, np.nanmin)


def _nan_position(total: Callable[..., Any], neutral: float, numpy_function: Any) -> Any:
    def reduce(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = NO_VALUE) -> Any:
        return total(_without_nan(a, neutral), axis, out, keepdims=keepdims)

    reduce.__name__ = reduce.__qualname__ = numpy_function.__name__
    return implements(numpy_function)(reduce)


nanargmax = _nan_position(argmax, -np.inf, np.nanargmax)
nanargmin = _nan_position(argmin, np.inf, np.nanargmin)


def _nan_mean(total: Callable[..., Any], numpy_function: Any) -> Any:
    def reduce(a: Any, *args: Any, where: Any = NO_VALUE, **kwargs: Any) -> Any:
        x, present = _present(a)
        if present is None:
            return total(x, *args, where=where, **kwargs)
        x = _without_nan(x, 0)
        mask = present if _mask(where) is None else ew.bitwise_and(present, operand(where))
        return total(x, *args, where=mask, **kwargs)

    reduce.__name__ = reduce.__qualname__ = numpy_function.__name__
    return implements(numpy_function)(reduce)


nanmean = _nan_mean(mean, np.nanmean)
nanvar = _nan_mean(var, np.nanvar)
nanstd = _nan_mean(std, np.nanstd)
