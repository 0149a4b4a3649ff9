"""``scipy.special`` for functions that are differentiated, batched and compiled.

Those that are ufuncs in SciPy are SciPy's own here: they find the tracers among their operands, so that code written
with ``from scipy.special import expit`` can be transformed as it is. Their definitions are found by name, so that
SciPy need not be imported for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.avals import aval_of
from ..core.trace import Tracer
from ..nn import log_softmax as _log_softmax
from ..nn import logsumexp as _logsumexp
from ..nn import softmax as _softmax
from ..numpy.dispatch import contains_tracer, operand
from ..numpy.ufuncs import FOREIGN_UFUNCS
from ..ops import elementwise as ew
from ..ops import transcendental as tr
from ..ops.promotion import as_dtype

if TYPE_CHECKING:
    from scipy.special import (
        beta,
        betaln,
        boxcox,
        boxcox1p,
        digamma,
        entr,
        erf,
        erfc,
        erfinv,
        exp10,
        expit,
        gamma,
        gammaln,
        gammasgn,
        kl_div,
        log_expit,
        log_ndtr,
        loggamma,
        logit,
        ndtr,
        ndtri,
        poch,
        psi,
        rel_entr,
        xlog1py,
        xlogy,
    )  # fmt: skip

__all__ = [
    "beta", "betaln", "boxcox", "boxcox1p", "digamma", "entr", "erf", "erfc", "erfinv", "exp10", "expit", "factorial",
    "gamma", "gammaln", "gammasgn", "kl_div", "log_expit", "log_ndtr", "log_softmax", "loggamma", "logit", "logsumexp",
    "multigammaln", "ndtr", "ndtri", "poch", "polygamma", "psi", "rel_entr", "softmax", "xlog1py", "xlogy",
]  # fmt: skip

_SQRT_HALF = math.sqrt(0.5)


def _const(x: Any, value: float) -> Any:
    return aval_of(x).dtype.type(value)


def _times_log(log: Callable[[Any], Any], at_zero: float) -> Callable[[Any, Any], Any]:
    """``x * log(y)``, and 0 where x is 0 and y is a number."""

    def product(x: Any, y: Any) -> Any:
        none = ew.eq(x, _const(x, 0))
        value = ew.mul(x, log(ew.select(none, _const(y, at_zero), y)))  # 0 times a finite number where x is 0
        return ew.select(ew.is_nan(y), y, value)

    return product


_xlogy, _xlog1py = _times_log(tr.log, 1.0), _times_log(tr.log1p, 0.0)


def _entr(x: Any) -> Any:
    negative = ew.lt(x, _const(x, 0))
    value = ew.neg(_xlogy(x, ew.select(negative, _const(x, 1), x)))
    return ew.select(negative, _const(x, -np.inf), value)


def _in_domain(x: Any, y: Any) -> tuple[Any, Any]:
    """Where both are positive, and where x is 0 and y not negative."""
    zero = _const(x, 0)
    both = ew.bitwise_and(ew.gt(x, zero), ew.gt(y, zero))
    edge = ew.bitwise_and(ew.eq(x, zero), ew.ge(y, zero))
    return both, edge


def _rel_entr(x: Any, y: Any) -> Any:
    both, edge = _in_domain(x, y)
    one = _const(x, 1)
    sx, sy = ew.select(both, x, one), ew.select(both, y, one)
    value = ew.mul(sx, ew.sub(tr.log(sx), tr.log(sy)))
    other = ew.select(edge, _const(x, 0), _const(x, np.inf))
    missing = ew.bitwise_or(ew.is_nan(x), ew.is_nan(y))
    return ew.select(missing, _const(x, np.nan), ew.select(both, value, other))


def _kl_div(x: Any, y: Any) -> Any:
    both, edge = _in_domain(x, y)
    inside = ew.bitwise_or(both, edge)
    zero = _const(x, 0)
    rest = ew.sub(ew.select(inside, y, zero), ew.select(inside, x, zero))
    return ew.add(_rel_entr(x, y), rest)


def _logit(x: Any) -> Any:
    return ew.sub(tr.log(x), tr.log1p(ew.neg(x)))


def _log_expit(x: Any) -> Any:
    return ew.neg(tr.logaddexp(ew.neg(x), _const(x, 0)))


def _ndtr(x: Any) -> Any:
    return ew.mul(_const(x, 0.5), tr.erfc(ew.mul(x, _const(x, -_SQRT_HALF))))


def _ndtri(p: Any) -> Any:
    return ew.mul(_const(p, math.sqrt(2)), tr.erf_inv(ew.sub(ew.mul(_const(p, 2), p), _const(p, 1))))


def _log_ndtr(x: Any) -> Any:
    """Above -1 from the distribution itself; below, where that underflows, from a continued fraction of the tail."""
    low = ew.lt(x, _const(x, -5))
    one = _const(x, 1)
    z = ew.select(low, x, _const(x, -5))
    fraction = ew.neg(z)
    for k in range(40, 0, -1):  # erfcx's continued fraction: Q(t) = phi(t) / (t + 1/(t + 2/(t + ...)))
        fraction = ew.add(ew.neg(z), ew.div(_const(x, k), fraction))
    scale = ew.add(_const(x, 0.5 * math.log(2 * math.pi)), tr.log(fraction))
    tail = ew.sub(ew.mul(_const(x, -0.5), ew.square(z)), scale)
    body = ew.select(low, one, x)
    upper = tr.log1p(ew.neg(_ndtr(ew.neg(body))))
    lower = tr.log(_ndtr(body))
    return ew.select(low, tail, ew.select(ew.gt(body, _const(x, 0)), upper, lower))


def _gammasgn(x: Any) -> Any:
    """The sign of gamma: it alternates between the negative integers, where SciPy gives 0 (1 at 0 and above)."""
    whole = ew.floor(x)
    odd = ew.ne(ew.remainder(whole, _const(x, 2)), _const(x, 0))
    sign = ew.select(odd, _const(x, -1), _const(x, 1))
    sign = ew.select(ew.eq(whole, x), _const(x, np.nan), sign)
    at_zero = ew.copysign(_const(x, 1), x)
    sign = ew.select(ew.eq(x, _const(x, 0)), at_zero, sign)
    return ew.select(ew.gt(x, _const(x, 0)), _const(x, 1), ew.select(ew.is_nan(x), x, sign))


def _gamma(x: Any) -> Any:
    return ew.mul(_gammasgn(x), tr.exp(tr.lgamma(x)))


def _betaln(a: Any, b: Any) -> Any:
    return ew.sub(ew.add(tr.lgamma(a), tr.lgamma(b)), tr.lgamma(ew.add(a, b)))


def _beta(a: Any, b: Any) -> Any:
    sign = ew.mul(ew.mul(_gammasgn(a), _gammasgn(b)), _gammasgn(ew.add(a, b)))
    return ew.mul(sign, tr.exp(_betaln(a, b)))


def _poch(z: Any, m: Any) -> Any:
    top = ew.add(z, m)
    sign = ew.mul(_gammasgn(z), _gammasgn(top))
    return ew.mul(sign, tr.exp(ew.sub(tr.lgamma(top), tr.lgamma(z))))


def _box(log: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def boxcox(x: Any, power: Any) -> Any:
        none = ew.eq(power, _const(power, 0))
        safe = ew.select(none, _const(power, 1), power)
        value = ew.div(tr.expm1(ew.mul(safe, log(x))), safe)
        return ew.select(none, log(x), value)

    return boxcox


def _exp10(x: Any) -> Any:
    return tr.pow_(_const(x, 10), x)


FOREIGN_UFUNCS.update({
    "beta": _beta, "betaln": _betaln, "boxcox": _box(tr.log), "boxcox1p": _box(tr.log1p), "psi": tr.digamma,
    "entr": _entr, "erf": tr.erf, "erfc": tr.erfc, "erfinv": tr.erf_inv, "exp10": _exp10, "expit": tr.logistic,
    "gamma": _gamma, "gammaln": tr.lgamma, "gammasgn": _gammasgn, "kl_div": _kl_div, "log_expit": _log_expit,
    "log_ndtr": _log_ndtr, "logit": _logit, "loggamma": tr.lgamma, "ndtr": _ndtr, "ndtri": _ndtri,
    "poch": _poch, "rel_entr": _rel_entr, "xlogy": _xlogy, "xlog1py": _xlog1py, "exp2": tr.exp2,
    "expm1": tr.expm1, "log1p": tr.log1p, "cbrt": tr.cbrt,
})  # fmt: skip


def _scipy() -> Any:
    """``scipy.special``, which takes long to import, when it is first needed."""
    from scipy import special

    return special


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(_scipy(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def logsumexp(
    a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False, where: Any = None
) -> Any:
    """``log(sum(b * exp(a)))`` without overflow. Derivatives are right where terms are ``-inf``."""
    return _logsumexp(a, axis, b, keepdims, return_sign, where)


def softmax(x: Any, /, *, axis: Any = None) -> Any:
    """``exp(x) / sum(exp(x))``, over all axes by default as SciPy's."""
    return _softmax(x, axis) if contains_tracer((x,)) else _scipy().softmax(x, axis=axis)


def log_softmax(x: Any, /, *, axis: Any = None) -> Any:
    """The logarithm of ``softmax``, without overflow."""
    return _log_softmax(x, axis) if contains_tracer((x,)) else _scipy().log_softmax(x, axis=axis)


def polygamma(n: Any, x: Any) -> Any:
    """The ``n``-th derivative of ``digamma``."""
    if not contains_tracer((n, x)):
        return _scipy().polygamma(n, x)
    x = operand(x)
    dtype = aval_of(x).dtype
    x = as_dtype(x, dtype if dtype.kind == "f" else np.dtype(np.float64))
    order = as_dtype(operand(n), aval_of(x).dtype)
    if not isinstance(n, Tracer) and np.ndim(n) == 0 and n == 0:
        return tr.digamma(x)
    return tr.polygamma(order, x)


def factorial(n: Any, exact: bool = False) -> Any:
    """``n!`` as a float, by the gamma function; 0 for negative ``n``."""
    if not contains_tracer((n,)):
        return _scipy().factorial(n, exact=exact)
    if exact:
        raise NotImplementedError("factorial(exact=True) is not supported on traced values; it may exceed int64")
    return np.where(np.less(n, 0), 0.0, _scipy().gamma(np.add(n, 1)))


def multigammaln(a: Any, d: int) -> Any:
    """Logarithm of the multivariate gamma function of dimension ``d``."""
    if not contains_tracer((a,)):
        return _scipy().multigammaln(a, d)
    total = d * (d - 1) * 0.25 * math.log(math.pi)
    return sum((_scipy().gammaln(a - 0.5 * k) for k in range(d)), start=total)
