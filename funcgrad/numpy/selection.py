"""Functions of elements that are not ufuncs: choosing, clipping, rounding, comparing, sorting, interpolating."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..core.trace import Tracer, user_source
from ..errors import ConcretizationError
from ..ops import elementwise as ew
from ..ops import sort as so
from ..ops.families import broadcast_shapes
from ..ops.promotion import as_dtype, promote_dtypes, result_type
from ..ops.shape import rev, slice_in_dim
from ..ops.structural import broadcast_to, reshape, shape_of
from ..util import canonicalize_axis
from ..util import prod as int_prod
from .dispatch import implements, operand
from .memory import mark_view
from .ufuncs import store

__all__ = [
    "allclose", "angle", "argsort", "argwhere", "around", "array_equal", "array_equiv", "choose", "clip", "compress",
    "convolve", "correlate", "diff", "digitize", "ediff1d", "extract", "fix", "flatnonzero", "gradient", "histogram",
    "imag", "interp", "isclose", "iscomplex", "iscomplexobj", "isneginf", "isposinf", "isreal", "isrealobj", "lexsort",
    "nan_to_num", "ndim", "nonzero", "partition", "argpartition", "piecewise", "polyder", "polyint", "polyval", "real",
    "result_type_of", "round", "searchsorted", "select", "shape", "sinc", "size", "sort", "trapezoid", "unique",
    "unwrap", "where",
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
    low = min if a_min is None or a_min is np._NoValue else a_min  # type: ignore[attr-defined]
    high = max if a_max is None or a_max is np._NoValue else a_max  # type: ignore[attr-defined]
    result = operand(a)
    if low is not None and low is not np._NoValue:  # type: ignore[attr-defined]
        result = np.maximum(result, low)
    if high is not None and high is not np._NoValue:  # type: ignore[attr-defined]
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


def _unknown_size(name: str, instead: str) -> ConcretizationError:
    return ConcretizationError(
        f"at {user_source()}: {name} of a traced array: the size of its result depends on values, which are not known "
        f"while funcgrad traces. {instead}"
    )


@implements(np.nonzero, extras=("size", "fill_value"))
def nonzero(a: Any, *, size: int | None = None, fill_value: Any = None) -> Any:
    """Indices of the elements that are not zero. Traced arrays need ``size``: the first ``size`` of them, or padding."""
    x = _truth(operand(a))
    if size is None:
        if not isinstance(x, Tracer):
            return np.nonzero(x)
        raise _unknown_size("nonzero", "Pass size=n for the first n indices, or write np.where(condition, x, y).")
    shape = shape_of(x)
    flat = reshape(x, (int_prod(shape),))
    total = shape_of(flat)[0]
    rank = np.cumsum(flat)
    position = np.sum(np.less_equal(np.expand_dims(rank, 0), np.arange(size)[:, None]), axis=1)
    found = np.less(np.arange(size), np.sum(flat))
    results = np.unravel_index(np.arange(max(total, 1)), shape or (1,))
    fills = fill_value if isinstance(fill_value, (tuple, list)) else [0 if fill_value is None else fill_value] * len(shape)
    safe = np.minimum(position, max(total - 1, 0))
    return tuple([where(found, np.take(r, safe), f) for r, f in zip(results, fills, strict=True)])


def _value_dependent(numpy_function: Any, instead: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("size") is None:
            raise _unknown_size(numpy_function.__name__, instead)
        raise NotImplementedError(f"{numpy_function.__name__} with size= is not supported on traced arrays; use nonzero")

    refuse.__name__ = refuse.__qualname__ = numpy_function.__name__
    return implements(numpy_function)(refuse)


argwhere = _value_dependent(np.argwhere, "Write np.nonzero(x, size=n) of funcgrad.numpy and stack it.")
flatnonzero = _value_dependent(np.flatnonzero, "Write funcgrad.numpy.nonzero(x.ravel(), size=n)[0].")
unique = _value_dependent(np.unique, "Sort it, and mark the first of each run with np.diff.")
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


# order ----------------------------------------------------------------------------------------------------------


@implements(np.sort, extras=("descending",))
def sort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None, descending: bool = False) -> Any:
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
    x, v = operand(a), operand(v)
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side must be 'left' or 'right', found {side!r}")
    x = x if sorter is None else np.take(x, sorter)
    before = np.less if side == "left" else np.less_equal
    return np.sum(before(x, np.expand_dims(v, -1)), axis=-1)


@implements(np.digitize)
def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    """The bin each value falls into; static bins may also descend."""
    if isinstance(bins, Tracer):
        return searchsorted(bins, x, "left" if right else "right")
    bins = np.asarray(bins)
    if len(bins) > 1 and bins[0] > bins[-1]:
        return len(bins) - searchsorted(bins[::-1], x, "right" if right else "left")
    return searchsorted(bins, x, "left" if right else "right")


@implements(np.histogram)
def histogram(a: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    """Counts (or sums of weights) in bins, and the edges of the bins."""
    x = np.ravel(operand(a))
    if np.ndim(bins) == 0 and not isinstance(bins, Tracer):
        low, high = (np.min(x), np.max(x)) if range is None else range
        edges = np.linspace(low, high, int(bins) + 1)
    else:
        edges = operand(bins)
    n = shape_of(edges)[0] - 1
    index = np.subtract(searchsorted(edges, x, "right"), 1)
    index = where(np.equal(x, edges[-1]), n - 1, index)
    inside = np.logical_and(np.greater_equal(x, edges[0]), np.less_equal(x, edges[-1]))
    hit = np.logical_and(np.equal(np.expand_dims(index, 0), np.arange(n)[:, None]), inside)
    counts = np.sum(hit, axis=1) if weights is None else np.matmul(np.multiply(hit, 1.0), np.ravel(operand(weights)))
    return (counts / np.diff(edges) / np.sum(counts) if density else counts), edges


# along an axis --------------------------------------------------------------------------------------------------


@implements(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = np._NoValue, append: Any = np._NoValue) -> Any:  # type: ignore[attr-defined]
    """Differences of neighbours, ``n`` times."""
    x = operand(a)
    axis = canonicalize_axis(axis, len(shape_of(x)))
    if n < 0:
        raise ValueError(f"order must be non-negative but got {n}")
    edge = [*shape_of(x)[:axis], 1, *shape_of(x)[axis + 1 :]]
    parts = [x]
    for value, first in ((prepend, True), (append, False)):
        if value is not np._NoValue:  # type: ignore[attr-defined]
            value = operand(value)
            value = broadcast_to(value, edge) if shape_of(value) == () else value
            parts = [value, *parts] if first else [*parts, value]
    x = np.concatenate(parts, axis) if len(parts) > 1 else x
    for _ in range(n):
        length = shape_of(x)[axis]
        high, low = slice_in_dim(x, 1, None, axis=axis), slice_in_dim(x, 0, max(length - 1, 0), axis=axis)
        x = np.not_equal(high, low) if aval_of(x).dtype.kind == "b" else np.subtract(high, low)
    return x


@implements(np.ediff1d)
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """Differences of the flattened array, with values before and after."""
    parts = [diff(np.ravel(operand(ary)))]
    if to_begin is not None:
        parts = [np.ravel(operand(to_begin)), *parts]
    if to_end is not None:
        parts.append(np.ravel(operand(to_end)))
    return np.concatenate(parts)


@implements(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """Integral by the trapezoidal rule."""
    y = operand(y)
    axis = canonicalize_axis(axis, len(shape_of(y)))
    if x is not None:
        x = operand(x)
        dx = diff(x) if len(shape_of(x)) == 1 else diff(x, axis=axis)
        if len(shape_of(dx)) == 1:
            dx = reshape(dx, [-1 if k == axis else 1 for k in range(len(shape_of(y)))])
    n = shape_of(y)[axis]
    pairs = np.add(slice_in_dim(y, 1, None, axis=axis), slice_in_dim(y, 0, max(n - 1, 0), axis=axis))
    return np.sum(np.multiply(dx, pairs) / 2.0, axis)


def _gradient_uniform(x: Any, h: Any, axis: int, edge_order: int) -> Any:
    n = shape_of(x)[axis]
    if n < edge_order + 1:
        raise ValueError("gradient: an axis is too small; at least edge_order + 1 elements are needed")

    def at(k: int) -> Any:
        return slice_in_dim(x, k % n, k % n + 1, axis=axis)

    inner = (slice_in_dim(x, 2, None, axis=axis) - slice_in_dim(x, 0, n - 2, axis=axis)) / (2.0 * h) if n > 2 else None
    if edge_order == 1:
        first, last = (at(1) - at(0)) / h, (at(-1) - at(-2)) / h
    else:
        first = (-1.5 * at(0) + 2.0 * at(1) - 0.5 * at(2)) / h
        last = (1.5 * at(-1) - 2.0 * at(-2) + 0.5 * at(-3)) / h
    return np.concatenate([part for part in (first, inner, last) if part is not None], axis)


@implements(np.gradient)
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Central differences inside, one-sided at the edges; uniform spacings."""
    x = operand(f)
    x = as_dtype(x, result_type(x, 0.0))
    rank = len(shape_of(x))
    axes = tuple(range(rank)) if axis is None else tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple([canonicalize_axis(a, rank) for a in axes])
    steps = [1.0] * len(axes) if not varargs else list(varargs) * len(axes) if len(varargs) == 1 else list(varargs)
    if len(steps) != len(axes) or any([shape_of(operand(h)) != () for h in steps]):
        raise NotImplementedError("gradient of a traced array takes one spacing, or one scalar per axis")
    results = [_gradient_uniform(x, h, a, edge_order) for h, a in zip(steps, axes, strict=True)]
    return results[0] if len(results) == 1 else tuple(results)


@implements(np.unwrap)
def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: Any = 2 * np.pi) -> Any:
    """Jumps of more than half a period removed by adding multiples of it."""
    x = operand(p)
    axis = canonicalize_axis(axis, len(shape_of(x)))
    half = period / 2
    d = diff(x, axis=axis)
    wrapped = np.remainder(d + half, period) - half
    wrapped = where(np.logical_and(np.equal(wrapped, -half), np.greater(d, 0)), half, wrapped)
    limit = half if discont is None else discont
    jump = where(np.less(np.abs(d), limit), 0.0, wrapped - d)
    total = np.cumsum(jump, axis)
    return np.concatenate([slice_in_dim(x, 0, 1, axis=axis), slice_in_dim(x, 1, None, axis=axis) + total], axis)


@implements(np.interp, extras=("extrapolate",))
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    """Piecewise linear interpolation of points with increasing ``xp``."""
    x, xp, fp = operand(x), operand(xp), operand(fp)
    if shape_of(xp) != shape_of(fp) or len(shape_of(xp)) != 1:
        raise ValueError(f"interp: xp and fp must be vectors of one length, found {shape_of(xp)} and {shape_of(fp)}")
    if period is not None:
        x, xp = np.remainder(x, period), np.remainder(xp, period)
        order = argsort(xp)
        xp, fp = np.take(xp, order), np.take(fp, order)
        xp = np.concatenate([xp[-1:] - period, xp, xp[:1] + period])
        fp = np.concatenate([fp[-1:], fp, fp[:1]])
    x, xp = promote_dtypes(x, xp, np.float64(0))[:2]
    n = shape_of(xp)[0]
    right_of = np.clip(searchsorted(xp, x, "right"), 1, max(n - 1, 1))
    x0, f0 = np.take(xp, right_of - 1), np.take(fp, right_of - 1)
    hi = np.minimum(right_of, n - 1)
    width, rise = np.take(xp, hi) - x0, np.take(fp, hi) - f0
    width = where(np.equal(width, 0), 1.0, width)
    result = f0 + (x - x0) / width * rise
    below, above = (fp[0] if left is None else left), (fp[-1] if right is None else right)
    if period is None:
        result = where(np.less(x, xp[0]), below, where(np.greater(x, xp[-1]), above, result))
    return where(np.isnan(x), x, result)


def _correlation(x: Any, kernel: Any, mode: str) -> Any:
    """Products of all shifts: the kernel is the shorter operand, its elements few."""
    n, m = shape_of(x)[0], shape_of(kernel)[0]
    padded = np.pad(x, m - 1)
    windows = np.arange(n + m - 1)[:, None] + np.arange(m)
    full = np.matmul(np.take(padded, windows), kernel)
    if mode == "full":
        return full
    if mode == "valid":
        return full[m - 1 : n]
    start = (m - 1) // 2
    return full[start : start + n]


def _vectors(name: str, a: Any, v: Any, mode: Any) -> tuple[Any, Any]:
    x, y = promote_dtypes(operand(a), operand(v))
    x, y = np.atleast_1d(x), np.atleast_1d(y)
    if len(shape_of(x)) != 1 or len(shape_of(y)) != 1 or 0 in shape_of(x) + shape_of(y):
        raise ValueError(f"{name}: operands are vectors that are not empty, found {shape_of(x)} and {shape_of(y)}")
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"{name}: mode must be 'full', 'same' or 'valid', found {mode!r}")
    return x, y


@implements(np.convolve, extras=("precision",))
def convolve(a: Any, v: Any, mode: str = "full", **unused: Any) -> Any:
    """Discrete convolution of two vectors."""
    x, y = _vectors("convolve", a, v, mode)
    if shape_of(y)[0] > shape_of(x)[0]:
        x, y = y, x
    return _correlation(x, rev(y, (0,)), mode)


@implements(np.correlate)
def correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    """Cross-correlation of two vectors."""
    x, y = _vectors("correlate", a, v, mode)
    y = np.conjugate(y)
    if shape_of(y)[0] > shape_of(x)[0]:
        return rev(_correlation(y, x, mode), (0,))
    return _correlation(x, y, mode)


# polynomials ----------------------------------------------------------------------------------------------------


@implements(np.polyval)
def polyval(p: Any, x: Any, **unused: Any) -> Any:
    """A polynomial with coefficients from the highest power down, by Horner's rule."""
    p, x = operand(p), operand(x)
    result = np.zeros_like(x)
    for k in range(shape_of(p)[0]):
        result = np.add(np.multiply(result, x), p[k])
    return result


@implements(np.polyder)
def polyder(p: Any, m: int = 1) -> Any:
    """Coefficients of the derivative of a polynomial."""
    p = operand(p)
    for _ in range(m):
        n = shape_of(p)[0]
        p = np.multiply(p[: max(n - 1, 0)], np.arange(max(n - 1, 0), 0, -1))
    return p


@implements(np.polyint)
def polyint(p: Any, m: int = 1, k: Any = None) -> Any:
    """Coefficients of the integral of a polynomial."""
    p = operand(p)
    constants = np.zeros(m) if k is None else np.broadcast_to(operand(k), (m,))
    for j in range(m):
        n = shape_of(p)[0]
        p = np.concatenate([np.divide(p, np.arange(n, 0, -1)), constants[j : j + 1]])
    return p
