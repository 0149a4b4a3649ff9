"""Differences, integrals, interpolation, convolution and polynomials along one axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..ops.conv import conv
from ..ops.promotion import as_dtype, promote_dtypes, result_type
from ..ops.shape import rev, slice_in_dim
from ..ops.structural import broadcast_to, reshape, shape_of
from ..util import canonicalize_axis
from .dispatch import implements, operand
from .manipulation import take
from .ordering import argsort, searchsorted
from .selection import where

__all__ = [
    "convolve", "correlate", "diff", "ediff1d", "gradient", "interp", "polyder", "polyint", "polyval", "trapezoid",
    "unwrap",
]  # fmt: skip


# along an axis --------------------------------------------------------------------------------------------------


@implements(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = np._NoValue, append: Any = np._NoValue) -> Any:
    """Differences of neighbours, ``n`` times."""
    x = operand(a)
    axis = canonicalize_axis(axis, len(shape_of(x)))
    if n < 0:
        raise ValueError(f"order must be non-negative but got {n}")
    edge = [*shape_of(x)[:axis], 1, *shape_of(x)[axis + 1 :]]
    parts = [x]
    for value, first in ((prepend, True), (append, False)):
        if value is not np._NoValue:
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
        xp, fp = take(xp, order), take(fp, order)
        xp = np.concatenate([xp[-1:] - period, xp, xp[:1] + period])
        fp = np.concatenate([fp[-1:], fp, fp[:1]])
    x, xp = promote_dtypes(x, xp, np.float64(0))[:2]
    n = shape_of(xp)[0]
    right_of = np.clip(searchsorted(xp, x, "right"), 1, max(n - 1, 1))
    x0, f0 = take(xp, right_of - 1), take(fp, right_of - 1)
    hi = np.minimum(right_of, n - 1)
    width, rise = take(xp, hi) - x0, take(fp, hi) - f0
    width = where(np.equal(width, 0), 1.0, width)
    result = f0 + (x - x0) / width * rise
    below, above = (fp[0] if left is None else left), (fp[-1] if right is None else right)
    if period is None:
        result = where(np.less(x, xp[0]), below, where(np.greater(x, xp[-1]), above, result))
    return where(np.isnan(x), x, result)


def _correlation(x: Any, kernel: Any, mode: str) -> Any:
    """Sums of products over all shifts; the kernel is the shorter operand."""
    n, m = shape_of(x)[0], shape_of(kernel)[0]
    before = {"full": m - 1, "same": m - 1 - (m - 1) // 2, "valid": 0}[mode]
    after = {"full": m - 1, "same": (m - 1) // 2, "valid": 0}[mode]
    dtype = aval_of(x).dtype
    if dtype.kind == "b":
        x, kernel = as_dtype(x, np.dtype(np.int64)), as_dtype(kernel, np.dtype(np.int64))
    x, kernel = reshape(x, (1, 1, n, 1)), reshape(kernel, (1, m, 1, 1))
    out = reshape(conv(x, kernel, (1,), ((before, after),), (1,), (1,)), (-1,))
    return as_dtype(out, dtype)


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
