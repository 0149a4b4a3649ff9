"""Running folds along an axis: sum, product, extremes, log-sum-exp.

A sum is linear, its transpose is the sum from the other end. The tangents of product and log-sum-exp are folds of pairs
(value, tangent) themselves, by doubling: after step ``k`` each element has met the ``2**k`` before it. No step
divides, so zeros (and infinitely small exponentials) are harmless. An extreme passes on the tangent of the element
that attained it; of several in a tie, the one met last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Cumulate
from ..core.primitive import NotLinear, Primitive
from ..util import canonicalize_axis
from .create import broadcasted_iota, full
from .elementwise import add, bitwise_or, eq, mul, ne, select, sub
from .indexing import INDEX, take_along_axis
from .shape import pad
from .structural import linear_unary, shape_of
from .transcendental import exp, logaddexp

__all__ = [
    "cumlogsumexp",
    "cumlogsumexp_p",
    "cummax",
    "cummax_p",
    "cummin",
    "cummin_p",
    "cumprod",
    "cumprod_p",
    "cumsum",
    "cumsum_p",
]


def _shape(name: str, kinds: str) -> Any:
    def shape(x: ShapedArray, *, axis: int, reverse: bool) -> ShapedArray:
        if x.dtype.kind not in kinds:
            raise TypeError(f"{name} does not take operands of dtype {x.dtype.name}")
        if not 0 <= axis < x.ndim:
            raise ValueError(f"{name}: axis {axis} does not fit shape {x.shape}")
        return x.strong()

    return shape


def _impl(ufunc: np.ufunc) -> Any:
    def impl(x: Any, *, axis: int, reverse: bool) -> Any:
        if not reverse:
            return ufunc.accumulate(x, axis=axis, dtype=x.dtype)
        return np.flip(ufunc.accumulate(np.flip(x, axis), axis=axis, dtype=x.dtype), axis)

    return impl


def _batch(name: str) -> Any:
    def batch(size: int, args: Any, dims: Any, *, axis: int, reverse: bool) -> Any:
        (x,), (dim,) = args, dims
        return _CUMULATIVE[name].bind(x, axis=axis + (axis >= dim), reverse=reverse), dim

    return batch


def _samples(rng: np.random.Generator) -> list[Any]:
    return [
        (((rng.permutation(np.prod(shape)) / 5 - 0.61).reshape(shape),), {"axis": axis, "reverse": reverse})
        for shape, axis in [((5,), 0), ((3, 4), 0), ((3, 4), 1), ((2, 1, 3), 1), ((0, 2), 0)]
        for reverse in (False, True)
    ]


_CUMULATIVE: dict[str, Primitive] = {}


def _fields(name: str, ufunc: np.ufunc, monoid: str, kinds: str) -> dict[str, Any]:
    return {
        "impl": _impl(ufunc),
        "shape": _shape(name, kinds),
        "batch": _batch(name),
        "lower": Cumulate(monoid),
        "samples": _samples,
    }


def cumulative(name: str, ufunc: np.ufunc, monoid: str, *, jvp: Callable[..., Any], kinds: str) -> Primitive:
    """A running fold with a NumPy ufunc, in the dtype of the operand."""
    primitive = Primitive(name, jvp=jvp, transpose=NotLinear(), **_fields(name, ufunc, monoid, kinds))
    _CUMULATIVE[name] = primitive
    return primitive


cumsum_p: Primitive = linear_unary(
    "cumsum",
    transpose=lambda ct, x, *, axis, reverse: (cumsum_p.bind(ct, axis=axis, reverse=not reverse),),
    **_fields("cumsum", np.add, "add", "iufc"),
)


_CUMULATIVE["cumsum"] = cumsum_p


def _doubling_jvp(combine: Callable[..., tuple[Any, Any]], identity: float) -> Any:
    """Fold pairs (value, tangent); ``combine`` joins two neighbours' and is linear in the tangents."""

    def jvp(primals: Any, tangents: Any, out: Any, *, axis: int, reverse: bool) -> Any:
        (y,), (t,) = primals, tangents
        shape, dtype = shape_of(y), aval_of(y).dtype

        def shifted(v: Any, fill: float, distance: int) -> Any:
            shift = (-distance, distance, 0) if reverse else (distance, -distance, 0)
            return pad(v, dtype.type(fill), [shift if a == axis else (0, 0, 0) for a in range(len(shape))])

        distance = 1
        while distance < shape[axis]:
            y, t = combine(shifted(y, identity, distance), shifted(t, 0, distance), y, t)
            distance *= 2
        return t

    return jvp


def _product(x: Any, s: Any, y: Any, t: Any) -> tuple[Any, Any]:
    return mul(x, y), add(mul(s, y), mul(t, x))


def _log_sum(x: Any, s: Any, y: Any, t: Any) -> tuple[Any, Any]:
    z = logaddexp(x, y)
    none = eq(z, full(shape_of(z), -np.inf, aval_of(z).dtype))  # no weight at all: share none
    safe = select(none, full(shape_of(z), 0, aval_of(z).dtype), z)
    return z, add(mul(s, exp(sub(x, safe))), mul(t, exp(sub(y, safe))))


cumprod_p = cumulative("cumprod", np.multiply, "mul", jvp=_doubling_jvp(_product, 1.0), kinds="iufc")
cumlogsumexp_p = cumulative("cumlogsumexp", np.logaddexp, "logaddexp", jvp=_doubling_jvp(_log_sum, -np.inf), kinds="f")


def _extreme_jvp(primals: Any, tangents: Any, out: Any, *, axis: int, reverse: bool) -> Any:
    (x,), (t,) = primals, tangents
    shape = shape_of(x)
    attains = bitwise_or(eq(x, out), ne(x, x))
    first = full(shape, shape[axis] - 1 if reverse else 0, INDEX)
    position = select(attains, broadcasted_iota(INDEX, shape, axis), first)
    latest = (cummin_p if reverse else cummax_p).bind(position, axis=axis, reverse=reverse)
    return take_along_axis(t, latest, axis, "promise_in_bounds")


cummax_p = cumulative("cummax", np.maximum, "max", jvp=_extreme_jvp, kinds="biufc")
cummin_p = cumulative("cummin", np.minimum, "min", jvp=_extreme_jvp, kinds="biufc")


def _function(primitive: Primitive, what: str) -> Any:
    def function(x: Any, axis: int = 0, reverse: bool = False) -> Any:
        rank = len(shape_of(x))
        return primitive.bind(x, axis=canonicalize_axis(axis, rank), reverse=bool(reverse))

    function.__name__ = function.__qualname__ = primitive.name
    function.__doc__ = f"Running {what} along ``axis``, from the end if ``reverse``, in the dtype of ``x``."
    return function


cumsum = _function(cumsum_p, "sum")
cumprod = _function(cumprod_p, "product")
cummax = _function(cummax_p, "maximum (NaN from the first NaN on)")
cummin = _function(cummin_p, "minimum (NaN from the first NaN on)")
cumlogsumexp = _function(cumlogsumexp_p, "``log(sum(exp(x)))``, without overflow,")
