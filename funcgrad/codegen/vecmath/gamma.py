"""lgamma and digamma.

lgamma is the C library's, a scalar call. digamma is branch-free: arguments below zero are reflected, those below ten
moved up by the recurrence psi(x) = psi(x + 1) - 1 / x, and the asymptotic series does the rest.
"""

from __future__ import annotations

from .expr import F32, F64, Scalar, fabs, fma, horner, rint, select
from .logarithm import log
from .registry import function
from .trigonometric import tan_moderate

_LIBRARY_NAME = {32: "lgammaf", 64: "lgamma"}
_MOVED_TO = 10
# -B(2 k) / (2 k) for k = 1...: psi(x) = log x - 1 / (2 x) + sum over k of this x**(-2 k)
_ASYMPTOTIC = (-1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12, 3617 / 8160)
_h = float.fromhex
# The positive root as head and tail, and psi(root + t) / t for |t| <= 1/4.
_ROOT = (_h("0x1.762d86356be3fp+0"), _h("0x1.b86a722197829p-54"))
_AT_ROOT = tuple(
    map(
        _h,
        (
            "0x1.ef72bc8ee38acp-1",
            "-0x1.c563b54aa1a34p-2",
            "0x1.08b4294d5037ep-2",
            "-0x1.4fc13172583b3p-3",
            "0x1.b9a5b63710567p-4",
            "-0x1.27baba25764eap-4",
            "0x1.8fce02b0c170ep-5",
            "-0x1.0fa7ecb73cc52p-5",
            "0x1.723d68ff9055ap-6",
            "-0x1.f96fe75c194d6p-7",
            "0x1.59556fe40e1bbp-7",
            "-0x1.d840611bdd37bp-8",
            "0x1.42f511af5323ap-8",
            "-0x1.b67e15a563e2ap-9",
            "0x1.2bbec00855e85p-9",
            "-0x1.d5987755c7665p-10",
            "0x1.42e5927cdde7ap-10",
        ),
    )
)
_PI = 3.141592653589793


@function(small=True)
def lgamma(x: Scalar) -> Scalar:
    function = x.body.declare(_LIBRARY_NAME[x.kind.width], x.kind, [x.kind])
    return x.body.call(function, x.kind, [x])


@function([F64], name="digamma")
def digamma_f64(x: Scalar) -> Scalar:
    reflected = x < 0.5
    y = select(reflected, 1.0 - x, x)
    # The sum of 1 / (y + i) as one fraction: its numerator is the derivative of its denominator.
    numerator, denominator = y.const(0.0), y.const(1.0)
    for _ in range(_MOVED_TO):
        move = y < float(_MOVED_TO)
        numerator = select(move, fma(numerator, y, denominator), numerator)
        denominator = select(move, denominator * y, denominator)
        y = select(move, y + 1.0, y)
    inverse = 1.0 / y
    square = inverse * inverse
    series = fma(square, horner(square, _ASYMPTOTIC), inverse * -0.5)
    value = (log(y) + series) - numerator / denominator
    t = (x - _ROOT[0]) - _ROOT[1]
    value = select(fabs(t) < 0.25, t * horner(t, _AT_ROOT), value)
    # The poles: tan of the distance to the nearest integer.
    distance = x - rint(x)
    cotangent = _PI / tan_moderate(distance * _PI)
    value = select(reflected, value - cotangent, value)
    value = select(reflected & distance.eq(0.0), float("nan"), value)
    value = select(x.eq(0.0), -1.0 / x, value)
    value = select(x.eq(float("inf")), x, value)
    return select(x.eq(float("-inf")), float("nan"), value)


@function([F32], name="digamma")
def digamma_f32(x: Scalar) -> Scalar:
    """In float64, which also covers the root."""
    return digamma_f64(x.to(F64)).to(F32)
