"""asin, acos, atan and atan2.

Arguments are folded to where a short odd polynomial t + t**3 A(t**2) serves, and the angle folded away is added back
as head and tail. Everything rests on one division or one square root.
"""

from __future__ import annotations

from typing import NamedTuple

from .expr import Scalar, copysign, fabs, fma, horner, select, sqrt
from .registry import function


class _Constants(NamedTuple):
    atan: tuple[float, ...]  # (atan t - t) / t**3 in t**2, |t| <= tan(pi/8)
    asin: tuple[float, ...]  # (asin t - t) / t**3 in t**2, |t| <= 1/2
    pi: tuple[float, float]
    large: float  # sums of two numbers below may overflow if they are not below this


_h = float.fromhex
CONSTANTS = {
    32: _Constants(
        atan=tuple(map(_h, ("-0x1.55554ap-2", "0x1.9991e6p-3", "-0x1.23ba04p-3", "0x1.b22a34p-4", "-0x1.f3020ap-5"))),
        asin=tuple(
            map(
                _h,
                (
                    "0x1.55554cp-3",
                    "0x1.3338acp-4",
                    "0x1.6ca75ep-5",
                    "0x1.04d26p-5",
                    "0x1.d52a82p-7",
                    "0x1.34c418p-5",
                ),
            )
        ),
        pi=(_h("0x1.921fb6p+1"), _h("-0x1.777a5cp-24")),
        large=2.0**120,
    ),
    64: _Constants(
        atan=tuple(
            map(
                _h,
                (
                    "-0x1.555555555553ep-2",
                    "0x1.9999999995a38p-3",
                    "-0x1.24924922b6e80p-3",
                    "0x1.c71c70e944c2dp-4",
                    "-0x1.745cf92d294a6p-4",
                    "0x1.3b111e11e88ebp-4",
                    "-0x1.10ebea6ee4b36p-4",
                    "0x1.df11d72cefc97p-5",
                    "-0x1.9cdd02486e1c8p-5",
                    "0x1.37ed0341df716p-5",
                    "-0x1.259827d2d6ae1p-6",
                ),
            )
        ),
        asin=tuple(
            map(
                _h,
                (
                    "0x1.5555555555577p-3",
                    "0x1.333333332e0b2p-4",
                    "0x1.6db6db721ba55p-5",
                    "0x1.f1c71a90ad971p-6",
                    "0x1.6e8bdf6889e54p-6",
                    "0x1.1c49e5f99ad6bp-6",
                    "0x1.ca20958f22416p-7",
                    "0x1.757cb808d999ep-7",
                    "0x1.616facc2ec4aap-7",
                    "0x1.e2dc0548c9052p-9",
                    "0x1.6493254a6f953p-6",
                    "-0x1.596115f0c2fedp-6",
                    "0x1.0bb7b14827477p-5",
                ),
            )
        ),
        pi=(_h("0x1.921fb54442d18p+1"), _h("0x1.1a62633145c07p-53")),
        large=2.0**1000,
    ),
}
_TAN_PI_8, _TAN_3PI_8 = 0.41421356, 2.4142135


def _angle_of_ratio(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """(e, t) with atan(a / b) = e pi/4 + atan(t) for a, b >= 0, a + b finite: e is 0, 1 or 2, |t| <= tan(pi/8)."""
    steep, diagonal = a > b * _TAN_3PI_8, a > b * _TAN_PI_8
    n = select(steep, -b, select(diagonal, a - b, a))
    d = select(steep, a, select(diagonal, a + b, b))
    return select(steep, a.const(2.0), select(diagonal, a.const(1.0), 0.0)), n / d


def _atan_rest(t: Scalar) -> Scalar:
    """atan(t) - t."""
    z = t * t
    return t * z * horner(z, CONSTANTS[t.kind.width].atan)


@function()
def atan(x: Scalar) -> Scalar:
    pi, pi_tail = CONSTANTS[x.kind.width].pi
    eighths, t = _angle_of_ratio(fabs(x), x.const(1.0))
    y = fma(eighths, pi / 4, t + fma(eighths, pi_tail / 4, _atan_rest(t)))
    return copysign(y, x)


@function()
def atan2(y: Scalar, x: Scalar) -> Scalar:
    """The angle of the point (x, y), from -pi to pi; signed zeros and infinities as in C."""
    c = CONSTANTS[x.kind.width]
    pi, pi_tail = c.pi
    a, b = fabs(y), fabs(x)
    large = (a > c.large) | (b > c.large)
    both_infinite = a.eq(float("inf")) & b.eq(float("inf"))
    both_zero = a.eq(0.0) & b.eq(0.0)
    a_fit = select(both_infinite, 1.0, select(large, a * 0.25, a))
    b_fit = select(both_infinite | both_zero, 1.0, select(large, b * 0.25, b))
    eighths, t = _angle_of_ratio(a_fit, b_fit)
    # Left of the vertical axis the angle is pi minus that.
    left = x.bits() < 0
    eighths = select(left, 4.0 - eighths, eighths)
    rest = _atan_rest(t)
    rest, t = select(left, -rest, rest), select(left, -t, t)
    angle = fma(eighths, pi / 4, t + fma(eighths, pi_tail / 4, rest))
    return copysign(select(x.ne(x), x, angle), y)


def _asin_parts(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(outer, s, p): asin(s) = s + p, where asin|x| is that, or pi/2 minus twice that when |x| > 1/2 (outer)."""
    a = fabs(x)
    outer = a > 0.5
    z = select(outer, (1.0 - a) * 0.5, a * a)
    s = select(outer, sqrt(z), a)
    return outer, s, s * z * horner(z, CONSTANTS[x.kind.width].asin)


@function()
def asin(x: Scalar) -> Scalar:
    pi, pi_tail = CONSTANTS[x.kind.width].pi
    outer, s, p = _asin_parts(x)
    head = pi / 2 - s * 2.0
    lost = (pi / 2 - head) - s * 2.0
    folded = head + (lost + fma(p, -2.0, pi_tail / 2))
    return copysign(select(outer, folded, s + p), x)


@function()
def acos(x: Scalar) -> Scalar:
    """pi/2 - asin(x), from the folded argument where that is near 1 or -1."""
    pi, pi_tail = CONSTANTS[x.kind.width].pi
    outer, s, p = _asin_parts(x)
    negative = x < 0.0
    # Inside, sign(x) (s + p) is subtracted from pi/2; outside, 2 (s + p) is added to 0 or subtracted from pi.
    factor = select(outer, x.const(2.0), 1.0)
    factor = select(negative ^ outer, factor, -factor)
    s, p = s * factor, p * factor
    halves = select(outer, select(negative, x.const(2.0), 0.0), x.const(1.0))
    base, base_tail = halves * (pi / 2), halves * (pi_tail / 2)
    head = base + s
    lost = (base - head) + s
    return select(base.eq(0.0), s + p, head + (lost + (p + base_tail)))
