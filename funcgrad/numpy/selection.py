"""Functions of elements that are not ufuncs: choosing, clipping, rounding, comparing."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..core.trace import Tracer, user_source
from ..errors import ConcretizationError
from ..ops import elementwise as ew
from ..ops.families import broadcast_shapes
from ..ops.promotion import as_dtype, promote_dtypes, result_type
from ..ops.search import searchsorted
from ..ops.structural import broadcast_to, reshape, shape_of
from ..util import prod as int_prod
from .dispatch import implements, operand
from .manipulation import take
from .memory import mark_view
from .ufuncs import store

__all__ = [
    "allclose", "angle", "argwhere", "around", "array_equal", "array_equiv", "choose", "clip", "compress",
    "extract", "fix", "flatnonzero", "imag", "isclose", "iscomplex", "iscomplexobj", "isneginf", "isposinf",
    "isreal", "isrealobj", "nan_to_num", "ndim", "nonzero", "piecewise", "real",
    "result_type_of", "round", "select", "shape",
    "sinc", "size", "where",
]  # fmt: skip


def _truth(c: Any) -> Any:
    dtype = aval_of(c).dtype
    return c if dtype.kind == "b" else ew.ne(as_dtype(c, dtype), dtype.type(0))


# choosing -------------------------------------------------------------------------------------------------------


@implements(np.where, extras=("size", "fill_value"))
def where(condition: Any, x: Any = None, y: Any = None, /, *, size: int | None = None, fill_value: Any = None) -> Any:
    """Elements of ``x`` where the condition holds, of ``y`` elsewhere; with one argument, as ``nonzero``.

    The derivative of the side that is not taken is 0 even where it is infinite: the gradient of
    ``where(x > 0, sqrt(x), 0)`` at 0 is 0.
    """
    if x is None and y is None:
        return nonzero(condition, size=size, fill_value=fill_value)
    if x is None or y is None:
        raise ValueError("either both or neither of x and y should be given")
    c, x, y = _truth(operand(condition)), operand(x), operand(y)
    x, y = promote_dtypes(x, y)
    shape = broadcast_shapes("where", [shape_of(c), shape_of(x), shape_of(y)])
    return broadcast_to(ew.select(c, x, y), shape)


@implements(np.select)
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """Of each position's choices the first whose condition holds, else the default."""
    if len(condlist) != len(choicelist) or not len(condlist):
        raise ValueError("select: list of cases must be same length as list of conditions, and not empty")
    dtype = result_type(*[operand(c) for c in choicelist], operand(default))
    result = as_dtype(operand(default), dtype)
    for c, choice in list(zip(condlist, choicelist, strict=True))[::-1]:
        if aval_of(operand(c)).dtype.kind != "b":
            raise TypeError(f"select: conditions must be boolean, found {aval_of(operand(c)).dtype.name}")
        result = where(c, as_dtype(operand(choice), dtype), result)
    return result


@implements(np.choose)
def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Any:
    """At each position, the element of the choice with that number (clipped to those there are, or wrapped)."""
    n = len(choices)
    index = operand(a)
    index = np.remainder(index, n) if mode == "wrap" else np.clip(index, 0, n - 1)
    parts = promote_dtypes(*[operand(c) for c in choices])
    result = parts[-1]
    for k in range(n - 2, -1, -1):
        result = where(np.equal(index, k), parts[k], result)
    return result if out is None else store("choose", result, out)


@implements(np.piecewise)
def piecewise(x: Any, condlist: Any, funclist: Any, *args: Any, **kwargs: Any) -> Any:
    """Functions by region. Every function is evaluated everywhere, and the region chosen afterwards."""
    x = operand(x)
    conditions = list(condlist) if isinstance(condlist, (list, tuple)) else [condlist]
    if len(funclist) not in (len(conditions), len(conditions) + 1):
        raise ValueError(f"piecewise: {len(conditions)} conditions take as many functions or one more")
    values = [f(x, *args, **kwargs) if callable(f) else f for f in funclist]
    dtype = aval_of(x).dtype
    result = as_dtype(operand(values[-1] if len(values) > len(conditions) else 0), dtype)
    result = broadcast_to(result, shape_of(x))
    for c, v in zip(conditions, values, strict=False):
        result = where(c, as_dtype(operand(v), dtype), result)
    return result


@implements(np.clip, extras=("a", "min", "max"))
def clip(a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None, max: Any = None,
         **unused: Any) -> Any:  # fmt: skip
    """Elements limited to an interval; a bound of None is none."""
    low = min if a_min is None or a_min is np._NoValue else a_min
    high = max if a_max is None or a_max is np._NoValue else a_max
    result = operand(a)
    if low is not None and low is not np._NoValue:
        result = np.maximum(result, low)
    if high is not None and high is not np._NoValue:
        result = np.minimum(result, high)
    return result if out is None else store("clip", result, out)


@implements(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """NaN and infinities replaced by numbers."""
    x = operand(x)
    dtype = aval_of(x).dtype
    if dtype.kind == "c":
        return ew.complex_(*[nan_to_num(p, copy, nan, posinf, neginf) for p in (ew.real(x), ew.imag(x))])
    if dtype.kind != "f":
        return as_dtype(x, dtype)
    limits = np.finfo(dtype)
    x = as_dtype(x, dtype)
    for test, value in (
        (np.isnan(x), nan),
        (np.equal(x, np.inf), limits.max if posinf is None else posinf),
        (np.equal(x, -np.inf), limits.min if neginf is None else neginf),
    ):
        x = where(test, as_dtype(operand(value), dtype), x)
    return x


# sizes that depend on values ------------------------------------------------------------------------------------


def unknown_size(name: str, instead: str) -> ConcretizationError:
    return ConcretizationError(
        f"at {user_source()}: {name} of a traced array: the size of its result depends on values, which are not known "
        f"while funcgrad traces. {instead}"
    )


@implements(np.nonzero, extras=("size", "fill_value"))
def nonzero(a: Any, *, size: int | None = None, fill_value: Any = None) -> Any:
    """Indices of the elements that are not zero. Of traced arrays the first ``size`` of them, padded."""
    x = _truth(operand(a))
    if size is None:
        if not isinstance(x, Tracer):
            return np.nonzero(x)
        raise unknown_size("nonzero", "Pass size=n for the first n indices, or write np.where(condition, x, y).")
    shape = shape_of(x)
    flat = reshape(x, (int_prod(shape),))
    total = shape_of(flat)[0]
    rank = np.cumsum(flat)
    position = searchsorted(rank, np.arange(1, size + 1), False)  # ranks ascend
    found = np.less(np.arange(size), np.sum(flat))
    results = np.unravel_index(np.arange(max(total, 1)), shape or (1,))
    fill = 0 if fill_value is None else fill_value
    fills = fill if isinstance(fill, (tuple, list)) else [fill] * len(shape)
    safe = np.minimum(position, max(total - 1, 0))
    return tuple([where(found, take(r, safe), f) for r, f in zip(results, fills, strict=True)])


def _value_dependent(numpy_function: Any, instead: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("size") is None:
            raise unknown_size(numpy_function.__name__, instead)
        raise NotImplementedError(f"{numpy_function.__name__} of traced arrays takes no size=; use nonzero")

    refuse.__name__ = refuse.__qualname__ = numpy_function.__name__
    return implements(numpy_function)(refuse)


argwhere = _value_dependent(np.argwhere, "Write np.nonzero(x, size=n) of funcgrad.numpy and stack it.")
flatnonzero = _value_dependent(np.flatnonzero, "Write funcgrad.numpy.nonzero(x.ravel(), size=n)[0].")
extract = _value_dependent(np.extract, "Write np.where(condition, x, 0).")
compress = _value_dependent(np.compress, "Write np.where(condition, x, 0).")


# parts and properties -------------------------------------------------------------------------------------------


@implements(np.real, view=True)
def real(val: Any) -> Any:
    """The real part."""
    x = operand(val)
    return mark_view(ew.real(x), x, "the real part", ew.real) if aval_of(x).dtype.kind == "c" else x


@implements(np.imag, view=True)
def imag(val: Any) -> Any:
    """The imaginary part."""
    x = operand(val)
    if aval_of(x).dtype.kind == "c":
        return mark_view(ew.imag(x), x, "the imaginary part", ew.imag)
    return np.zeros_like(x)


@implements(np.angle)
def angle(z: Any, deg: bool = False) -> Any:
    """The angle of complex numbers, in radians."""
    x = operand(z)
    result = np.arctan2(imag(x), real(x))
    return np.degrees(result) if deg else result


def _of_aval(numpy_function: Any, fun: Callable[[Any], Any]) -> Any:
    def ask(x: Any) -> Any:
        return fun(aval_of(operand(x)))

    ask.__name__ = ask.__qualname__ = numpy_function.__name__
    return implements(numpy_function)(ask)


shape = _of_aval(np.shape, lambda aval: aval.shape)
ndim = _of_aval(np.ndim, lambda aval: aval.ndim)
iscomplexobj = _of_aval(np.iscomplexobj, lambda aval: aval.dtype.kind == "c")
isrealobj = _of_aval(np.isrealobj, lambda aval: aval.dtype.kind != "c")


@implements(np.size)
def size(a: Any, axis: Any = None) -> int:
    """The number of elements, or the extent of an axis."""
    extents = shape_of(operand(a))
    if axis is None:
        return int_prod(extents)
    return int_prod([extents[k] for k in (axis if isinstance(axis, tuple) else (axis,))])


@implements(np.result_type)
def result_type_of(*arrays_and_dtypes: Any) -> np.dtype[Any]:
    """The dtype that the operands promote to."""
    samples = [operand(x) if isinstance(x, (Tracer, np.ndarray, np.generic, int, float, complex)) else
               np.dtype(x).type(0) for x in arrays_and_dtypes]  # fmt: skip
    return result_type(*samples)


@implements(np.iscomplex)
def iscomplex(x: Any) -> Any:
    """Where the imaginary part is not zero."""
    return np.not_equal(imag(operand(x)), 0)


@implements(np.isreal)
def isreal(x: Any) -> Any:
    """Where the imaginary part is zero."""
    return np.equal(imag(operand(x)), 0)


@implements(np.isposinf)
def isposinf(x: Any, out: Any = None) -> Any:
    """Where an element is positive infinity."""
    result = np.equal(operand(x), np.inf)
    return result if out is None else store("isposinf", result, out)


@implements(np.isneginf)
def isneginf(x: Any, out: Any = None) -> Any:
    """Where an element is negative infinity."""
    result = np.equal(operand(x), -np.inf)
    return result if out is None else store("isneginf", result, out)


# rounding -------------------------------------------------------------------------------------------------------


@implements(np.round, np.around)
def round(a: Any, decimals: int = 0, out: Any = None) -> Any:
    """Rounded to decimals, halves to even."""
    x = operand(a)
    dtype = aval_of(x).dtype
    decimals = operator.index(decimals)
    if dtype.kind in "fc":
        scale = float(10.0 ** abs(decimals))
        if decimals > 0:
            result = np.divide(np.rint(np.multiply(x, scale)), scale)
        else:
            result = np.multiply(np.rint(np.divide(x, scale)), scale) if decimals else np.rint(x)
    elif dtype.kind in "iu" and decimals < 0:
        scale = 10**-decimals
        result = as_dtype(np.multiply(np.rint(np.divide(x, scale)), scale), dtype)
    else:
        result = as_dtype(x, np.dtype(np.float16) if dtype.kind == "b" else dtype)
    return result if out is None else store("round", result, out)


around = round


@implements(np.fix)
def fix(x: Any, out: Any = None) -> Any:
    """Rounded towards zero."""
    result = np.trunc(operand(x))
    return result if out is None else store("fix", result, out)


@implements(np.sinc)
def sinc(x: Any) -> Any:
    """``sin(pi x) / (pi x)``, and 1 at 0, differentiable there."""
    x = operand(x)
    y = np.multiply(np.pi, x)
    small = np.less(np.abs(y), 1e-2 if aval_of(y).dtype.itemsize > 4 else 1e-1)
    square = np.square(y)
    series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    safe = where(small, 1.0, y)
    return where(small, series, np.sin(safe) / safe)


# comparing ------------------------------------------------------------------------------------------------------


@implements(np.isclose)
def isclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False) -> Any:
    """Where ``|a - b| <= atol + rtol * |b|``."""
    x, y = operand(a), operand(b)
    near = np.less_equal(np.abs(np.subtract(x, y)), np.add(atol, np.multiply(rtol, np.abs(y))))
    result = np.logical_or(np.logical_and(near, np.isfinite(y)), np.equal(x, y))
    return np.logical_or(result, np.logical_and(np.isnan(x), np.isnan(y))) if equal_nan else result


@implements(np.allclose)
def allclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False) -> Any:
    """Whether all elements are close, as ``isclose`` says."""
    return np.all(isclose(a, b, rtol, atol, equal_nan))


@implements(np.array_equal)
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    """Whether two arrays have the same shape and elements."""
    x, y = operand(a1), operand(a2)
    if shape_of(x) != shape_of(y):
        return False
    same = np.equal(x, y)
    return np.all(np.logical_or(same, np.logical_and(np.isnan(x), np.isnan(y))) if equal_nan else same)


@implements(np.array_equiv)
def array_equiv(a1: Any, a2: Any) -> Any:
    """Whether two arrays broadcast to equal ones."""
    try:
        return np.all(np.equal(operand(a1), operand(a2)))
    except ValueError:
        return False
