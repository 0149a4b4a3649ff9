"""Exponentials, logarithms, trigonometry, powers and the error functions: a table of derivatives.

Where the factor can be infinite at the border of the domain (sqrt and log at 0, asin at 1) the rule multiplies with
``mul_no_nan``, so that a zero tangent or cotangent stays zero there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..core.trace import Tracer
from .elementwise import bitwise_and, eq, mul_no_nan, select
from .families import binary, unary

_SQRT_PI = math.sqrt(math.pi)
_LN2, _LN10 = math.log(2.0), math.log(10.0)

exp_p = unary("exp", np.exp, jvp=lambda t, y, x: t * y)
exp2_p = unary("exp2", np.exp2, jvp=lambda t, y, x: t * (y * _LN2))
expm1_p = unary("expm1", np.expm1, jvp=lambda t, y, x: t * (y + 1))
log_p = unary("log", np.log, jvp=lambda t, y, x: mul_no_nan(t, 1 / x), domain=(0.2, 3))
log2_p = unary("log2", np.log2, jvp=lambda t, y, x: mul_no_nan(t, 1 / (x * _LN2)), domain=(0.2, 3))
log10_p = unary("log10", np.log10, jvp=lambda t, y, x: mul_no_nan(t, 1 / (x * _LN10)), domain=(0.2, 3))
log1p_p = unary("log1p", np.log1p, jvp=lambda t, y, x: mul_no_nan(t, 1 / (x + 1)), domain=(-0.7, 3))

sin_p = unary("sin", np.sin, jvp=lambda t, y, x: t * cos(x))
cos_p = unary("cos", np.cos, jvp=lambda t, y, x: -t * sin(x))
tan_p = unary("tan", np.tan, jvp=lambda t, y, x: t * (1 + y * y), domain=(-1.2, 1.2))
asin_p = unary("asin", np.arcsin, jvp=lambda t, y, x: mul_no_nan(t, rsqrt(1 - x * x)), domain=(-0.9, 0.9))
acos_p = unary("acos", np.arccos, jvp=lambda t, y, x: mul_no_nan(-t, rsqrt(1 - x * x)), domain=(-0.9, 0.9))
atan_p = unary("atan", np.arctan, jvp=lambda t, y, x: t / (1 + x * x))
sinh_p = unary("sinh", np.sinh, jvp=lambda t, y, x: t * cosh(x))
cosh_p = unary("cosh", np.cosh, jvp=lambda t, y, x: t * sinh(x))
tanh_p = unary("tanh", np.tanh, jvp=lambda t, y, x: t * (1 - y * y))
asinh_p = unary("asinh", np.arcsinh, jvp=lambda t, y, x: t * rsqrt(x * x + 1))
acosh_p = unary("acosh", np.arccosh, jvp=lambda t, y, x: mul_no_nan(t, rsqrt((x - 1) * (x + 1))), domain=(1.2, 3))
atanh_p = unary("atanh", np.arctanh, jvp=lambda t, y, x: mul_no_nan(t, 1 / (1 - x * x)), domain=(-0.9, 0.9))


def _special(name: str) -> Any:
    """A function of SciPy in the operand's dtype (SciPy widens float16), imported when it is first called: the import
    costs more than all of this package's."""

    def impl(*xs: Any) -> Any:
        from scipy import special

        dtype = np.asarray(xs[0]).dtype
        wide = [np.asarray(x, np.float32) if dtype == np.float16 else x for x in xs]
        return np.asarray(getattr(special, name)(*wide)).astype(dtype, copy=False)

    return impl


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x)) if np.asarray(x).dtype.kind == "c" else _expit(x)


_expit, _digamma, _gamma, _zeta = (_special(f) for f in ("expit", "digamma", "gamma", "zeta"))

logistic_p = unary("logistic", _logistic, jvp=lambda t, y, x: t * (y * (1 - y)))
sqrt_p = unary("sqrt", np.sqrt, jvp=lambda t, y, x: mul_no_nan(t, 0.5 / y), domain=(0.2, 3))
rsqrt_p = unary(
    "rsqrt", lambda x: 1 / np.sqrt(x), jvp=lambda t, y, x: mul_no_nan(t, -0.5 * y * (y * y)), domain=(0.2, 3)
)
cbrt_p = unary("cbrt", np.cbrt, jvp=lambda t, y, x: mul_no_nan(t, 1 / (3 * y * y)), kinds="f", domain=(0.2, 3))

erf_p = unary("erf", _special("erf"), jvp=lambda t, y, x: t * (2 / _SQRT_PI * exp(-x * x)), kinds="f")
erfc_p = unary("erfc", _special("erfc"), jvp=lambda t, y, x: t * (-2 / _SQRT_PI * exp(-x * x)), kinds="f")
erf_inv_p = unary(
    "erf_inv",
    _special("erfinv"),
    jvp=lambda t, y, x: mul_no_nan(t, _SQRT_PI / 2 * exp(y * y)),
    kinds="f",
    domain=(-0.9, 0.9),
)
lgamma_p = unary("lgamma", _special("gammaln"), jvp=lambda t, y, x: t * digamma(x), kinds="f", domain=(0.5, 4))
digamma_p = unary(
    "digamma", _special("digamma"), jvp=lambda t, y, x: t * polygamma(_one(x), x), kinds="f", domain=(0.5, 4)
)


def _one(x: Any) -> Any:
    return aval_of(x).dtype.type(1)


def _polygamma(n: Any, x: Any) -> Any:
    """By the Hurwitz zeta function, as SciPy's own, which takes integers ``n`` only as Python ones."""
    n = np.asarray(n)
    sign = 1 - 2 * np.mod(n + 1, 2)
    return np.where(n == 0, _digamma(x), sign * _gamma(n + 1) * _zeta(n + 1, x))


polygamma_p = binary(
    "polygamma",
    _polygamma,
    jvp=(None, lambda t, z, n, x: t * polygamma(n + 1, x)),
    kinds="f",
    domain=((1, 1), (0.5, 4)),
)


def _pow_base_jvp(t: Any, z: Any, x: Any, y: Any) -> Any:
    # y * x**(y-1), with the exponent 0 giving 0 also at x = 0
    zero, one = aval_of(z).dtype.type(0), aval_of(z).dtype.type(1)
    lower = y - 1
    if not isinstance(y, Tracer):
        return mul_no_nan(t, y * pow_(x, select(eq(y, zero), one, lower)))
    # Where y may be differentiated too, the factor beside 0 counts: it is 1/x.
    undefined = bitwise_and(eq(x, zero), eq(y, zero))
    return mul_no_nan(t, mul_no_nan(y, pow_(x, select(undefined, one, lower))))


def _pow_exponent_jvp(t: Any, z: Any, x: Any, y: Any) -> Any:
    # log(x) * x**y, which is 0 at x = 0 for positive exponents
    zero, one = aval_of(z).dtype.type(0), aval_of(z).dtype.type(1)
    return mul_no_nan(t, log(select(eq(x, zero), one, x)) * z)


pow_p = binary("pow", np.power, jvp=(_pow_base_jvp, _pow_exponent_jvp), kinds="iufc", domain=((0.5, 2), (-2, 2)))

atan2_p = binary(
    "atan2",
    np.arctan2,
    jvp=(
        lambda t, z, x, y: mul_no_nan(t, y / (x * x + y * y)),
        lambda t, z, x, y: mul_no_nan(-t, x / (x * x + y * y)),
    ),
    kinds="f",
    domain=((0.3, 2), (-2, 2)),
)
hypot_p = binary(
    "hypot",
    np.hypot,
    jvp=(lambda t, z, x, y: mul_no_nan(t, x / z), lambda t, z, x, y: mul_no_nan(t, y / z)),
    kinds="f",
    domain=(0.3, 2),
)


logaddexp_p = binary(
    "logaddexp",
    np.logaddexp,
    jvp=(
        lambda t, z, x, y: t * logistic(_difference(x, y)),
        lambda t, z, x, y: t * logistic(_difference(y, x)),
    ),
    kinds="f",
)
logaddexp2_p = binary(
    "logaddexp2",
    np.logaddexp2,
    jvp=(
        lambda t, z, x, y: t * logistic(_difference(x, y) * _LN2),
        lambda t, z, x, y: t * logistic(_difference(y, x) * _LN2),
    ),
    kinds="f",
)


def _difference(x: Any, y: Any) -> Any:
    """x - y, and 0 where both are the same infinity."""
    return select(eq(x, y), aval_of(x).dtype.type(0), x - y)


exp, exp2, expm1, log, log2, log10, log1p = (p.bind for p in (exp_p, exp2_p, expm1_p, log_p, log2_p, log10_p, log1p_p))
sin, cos, tan, asin, acos, atan = (p.bind for p in (sin_p, cos_p, tan_p, asin_p, acos_p, atan_p))
sinh, cosh, tanh, asinh, acosh, atanh = (p.bind for p in (sinh_p, cosh_p, tanh_p, asinh_p, acosh_p, atanh_p))
logistic, sqrt, rsqrt, cbrt = logistic_p.bind, sqrt_p.bind, rsqrt_p.bind, cbrt_p.bind
erf, erfc, erf_inv = erf_p.bind, erfc_p.bind, erf_inv_p.bind
lgamma, digamma, polygamma = lgamma_p.bind, digamma_p.bind, polygamma_p.bind
pow_, atan2, hypot, logaddexp, logaddexp2 = (p.bind for p in (pow_p, atan2_p, hypot_p, logaddexp_p, logaddexp2_p))
