"""The pseudo-inverse, differentiated in closed form: its rule needs no singular vectors, so equal singular values do
no harm. The rank is taken as constant."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Inline
from ..core.primitive import NotLinear, Primitive
from .elementwise import div, gt, mul, select
from .matrices import adjoint, batch_leading, check_matrices, extents, eye_like, matmul, mT, scale_columns
from .reduce import reduce_max
from .spectral import svd
from .structural import bind_checked, expand_dims, shape_of

__all__ = ["pinv", "pinv_p"]


def _pinv_shape(a: ShapedArray, *, rtol: float) -> ShapedArray:
    m, n = check_matrices("pinv", a)
    return ShapedArray((*a.shape[:-2], n, m), a.dtype)


def _pinv_value(a: Any, *, rtol: float) -> Any:
    if not min(extents(a)):
        return mT(a)
    u, s, vh = svd(a, full_matrices=False)
    dtype = aval_of(s).dtype
    cutoff = mul(expand_dims(reduce_max(s, (len(shape_of(s)) - 1,)), (-1,)), dtype.type(rtol))
    large = gt(s, cutoff)
    inverse = select(large, div(dtype.type(1), select(large, s, dtype.type(1))), dtype.type(0))
    return matmul(scale_columns(adjoint(vh), inverse), adjoint(u))


def _pinv_jvp(primals: Any, tangents: Any, out: Any, *, rtol: float) -> Any:
    """``-p da p + p pᴴ daᴴ (1 - a p) + (1 - p a) daᴴ pᴴ p``."""
    (a,), (t,) = primals, tangents
    m, n = extents(a)
    turned, own = adjoint(t), adjoint(out)
    result = -matmul(out, matmul(t, out))
    if m > n or rtol:
        rest = eye_like(a, m) - matmul(a, out)
        result = result + matmul(out, matmul(own, matmul(turned, rest)))
    if n > m or rtol:
        rest = eye_like(a, n) - matmul(out, a)
        result = result + matmul(matmul(matmul(rest, turned), own), out)
    return result


pinv_p: Primitive = Primitive(
    "pinv",
    impl=lambda a, *, rtol: np.linalg.pinv(a, rtol),
    shape=_pinv_shape,
    jvp=_pinv_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda a, **params: pinv_p.bind(a, **params)),
    lower=Inline(_pinv_value),
    samples=lambda rng: [
        ((rng.normal(size=s),), {"rtol": 1e-15}) for s in [(3, 3), (4, 2), (2, 4), (2, 3, 2), (0, 2, 2), (3, 0)]
    ],
)


def pinv(a: Any, rtol: float) -> Any:
    """The pseudo-inverse, by singular values; those of at most ``rtol`` times the largest count as zero."""
    return bind_checked(pinv_p, a, rtol=float(rtol))
