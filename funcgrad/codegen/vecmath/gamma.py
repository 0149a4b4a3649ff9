"""lgamma and digamma.

lgamma is the C library's, a scalar call. digamma is branch-free: arguments below zero are reflected, those below ten
moved up by the recurrence psi(x) = psi(x + 1) - 1 / x, and the asymptotic series does the rest.
"""
from __future__ import annotations

from .expr import F32, F64, Scalar, fma, horner, select
from .logarithm import log
from .registry import function
from .trigonometric import tan

_LIBRARY_NAME = {32: "lgammaf", 64: "lgamma"}
_MOVED_TO = 10
# -B(2 k) / (2 k) for k = 1...: psi(x) = log x - 1 / (2 x) + sum over k of this x**(-2 k)
_ASYMPTOTIC = (-1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12, 3617 / 8160)
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
    # The poles: tan of the distance to the nearest integer.
    distance = x - _nearest(x)
    cotangent = _PI / tan(distance * _PI)
    value = select(reflected, value - cotangent, value)
    value = select(reflected & distance.eq(0.0), float("nan"), value)
    value = select(x.eq(0.0), -1.0 / x, value)
    value = select(x.eq(float("inf")), x, value)
    return select(x.eq(float("-inf")), float("nan"), value)


def _nearest(x: Scalar) -> Scalar:
    return x.body.intrinsic(f"llvm.roundeven.{x.kind.name}", x.kind, [x])


@function([F32], name="digamma")
def digamma_f32(x: Scalar) -> Scalar:
    """In float64, which also covers the root."""
    return digamma_f64(x.to(F64)).to(F32)
