"""exp, exp2, expm1, the hyperbolic functions and the logistic function.

All of them rest on x = n ln2 + r with |r| <= ln2 / 2, where e**r = 1 + r + r**2 q(r) for a minimax polynomial q, and
e**x = 2**n e**r. The scale 2**n is built in the exponent field. Where a result may overflow or be subnormal it is
applied in two steps, so that only the last multiplication rounds.

What such a loop costs is not its arithmetic alone: a processor's schedulers hold only so many waiting instructions, so
the time is about the number of instructions times the length of their longest chain. Hence short chains side by side.
"""

from __future__ import annotations

from typing import NamedTuple

from .expr import Scalar, copysign, fabs, fma, horner, round_to_integer, select
from .registry import function


class _Constants(NamedTuple):
    log2e: float
    ln2: tuple[float, float]  # head and tail
    exp: tuple[float, ...]  # (e**r - 1 - r) / r**2, small absolute error
    expm1: tuple[float, ...]  # the same with small error relative to expm1
    tanh: tuple[float, ...]  # (tanh a - a) / a**3 in a**2, small error relative to tanh, a <= TANH_NEAR
    sinh: tuple[float, ...]  # (sinh a - a) / a**3 in a**2, small error relative to sinh, a <= 1
    highest: float  # e**x overflows above; clamping here keeps n within the two-step scale
    lowest: float  # e**x is 0 below
    saturated: float  # tanh is 1 and expm1(-x) is -1 above
    significand: int  # stored bits
    bias: int
    shift: int  # 2**(n + shift) and 2**-shift are normal for any n <= 0 whose 2**n is not 0


_h = float.fromhex
CONSTANTS = {
    32: _Constants(
        log2e=_h("0x1.715476p+0"),
        ln2=(_h("0x1.62e43p-1"), _h("-0x1.05c610p-29")),
        exp=tuple(map(_h, ("0x1p-1", "0x1.55549p-3", "0x1.55546p-5", "0x1.123adp-7", "0x1.6db2eep-10"))),
        expm1=tuple(
            map(
                _h,
                (
                    "0x1p-1",
                    "0x1.555556p-3",
                    "0x1.5554aep-5",
                    "0x1.11109p-7",
                    "0x1.6d745ep-10",
                    "0x1.a1a078p-13",
                ),
            )
        ),
        tanh=tuple(map(_h, ("-0x1.555548p-2", "0x1.110c5ep-3", "-0x1.b905c4p-5", "0x1.5811f6p-6", "-0x1.9454eap-8"))),
        sinh=tuple(map(_h, ("0x1.555556p-3", "0x1.1110e0p-7", "0x1.a022bcp-13", "0x1.756c14p-19"))),
        highest=89.0,
        lowest=-106.0,
        saturated=20.0,
        significand=23,
        bias=127,
        shift=64,
    ),
    64: _Constants(
        log2e=_h("0x1.71547652b82fep+0"),
        ln2=(_h("0x1.62e42fefa39efp-1"), _h("0x1.abc9e3b39803fp-56")),
        exp=tuple(
            map(
                _h,
                (
                    "0x1.000000000000bp-1",
                    "0x1.5555555555561p-3",
                    "0x1.55555555503c6p-5",
                    "0x1.111111110d7dap-7",
                    "0x1.6c16c18507565p-10",
                    "0x1.a01a01ba691dcp-13",
                    "0x1.a01997ff5f470p-16",
                    "0x1.71dde0bb450bep-19",
                    "0x1.28af26583b30cp-22",
                    "0x1.af8432cad6fcep-26",
                ),
            )
        ),
        expm1=tuple(
            map(
                _h,
                (
                    "0x1p-1",
                    "0x1.5555555555559p-3",
                    "0x1.555555555555ap-5",
                    "0x1.111111110f6bcp-7",
                    "0x1.6c16c16c14496p-10",
                    "0x1.a01a01afe0d83p-13",
                    "0x1.a01a01b0a40e6p-16",
                    "0x1.71ddf85c82f66p-19",
                    "0x1.27e4c5c581b2fp-22",
                    "0x1.af5eb255c02afp-26",
                    "0x1.1f952f7bb1d57p-29",
                ),
            )
        ),
        tanh=tuple(
            map(
                _h,
                (
                    "-0x1.555555555543ep-2",
                    "0x1.11111110fbffep-3",
                    "-0x1.ba1ba1a879af2p-5",
                    "0x1.664f44d9491dcp-6",
                    "-0x1.226dc522c6e04p-7",
                    "0x1.d6c31d235eea8p-9",
                    "-0x1.7cd66a6d40463p-10",
                    "0x1.2ef6840a58778p-11",
                    "-0x1.b4b1dfbac92dfp-13",
                    "0x1.a01eecad2c32dp-15",
                ),
            )
        ),
        sinh=tuple(
            map(
                _h,
                (
                    "0x1.5555555555556p-3",
                    "0x1.111111111101ep-7",
                    "0x1.a01a01a03726cp-13",
                    "0x1.71de3a3b064fbp-19",
                    "0x1.ae646ff5be223p-26",
                    "0x1.6116f42b0fac8p-33",
                    "0x1.b5c8cc110aabdp-41",
                ),
            )
        ),
        highest=710.0,
        lowest=-746.0,
        saturated=40.0,
        significand=52,
        bias=1023,
        shift=512,
    ),
}


TANH_NEAR = 0.5625
TINY = 2.0**-60  # odd functions with slope 1 return such an x itself, subnormal or zero


def _constants(x: Scalar) -> _Constants:
    return CONSTANTS[x.kind.width]


def clamp(x: Scalar, low: float, high: float) -> Scalar:
    """x held within [low, high]; NaN stays NaN."""
    x = select(x < low, low, x)
    return select(x > high, high, x)


def power_of_two(n_bits: Scalar, width: int, offset: int = 0) -> Scalar:
    """2**(n + offset) for a result in the normal range, from the low bits of n."""
    c = CONSTANTS[width]
    return ((n_bits + (c.bias + offset)) << c.significand).as_float()


def scale(y: Scalar, n: Scalar, n_bits: Scalar) -> Scalar:
    """y * 2**n with one rounding, for any n that leaves a finite y between 0 and inf."""
    _, half = round_to_integer(n * 0.5)
    width = y.kind.width
    rest = n_bits - half
    return y * power_of_two(half, width) * power_of_two(rest, width)


def scale_one_plus(e: Scalar, n_bits: Scalar, grows: Scalar | None) -> Scalar:
    """(1 + e) 2**n for e**r = 1 + e, with one rounding where the result is normal.

    The scale is split so that neither part leaves the normal range: 2**(n - 1) and 2 where the result `grows` (n >= 0),
    else 2**(n + shift) and 2**-shift. None: it nowhere grows.
    """
    c = _constants(e)
    up = (c.bias + c.shift) << c.significand
    moved = n_bits << c.significand
    if grows is None:
        scale = (moved + up).as_float()
        return fma(e, scale, scale) * 2.0**-c.shift
    scale = (moved + select(grows, moved.const((c.bias - 1) << c.significand), up)).as_float()
    return fma(e, scale, scale) * select(grows, e.const(2.0), 2.0**-c.shift)


def reduce_exp(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(n, low bits of n, r): x = n ln2 + r."""
    c = _constants(x)
    n, n_bits = round_to_integer(x, c.log2e)
    r = fma(n, -c.ln2[1], fma(n, -c.ln2[0], x))
    return n, n_bits, r


def reduction_tail(x: Scalar, n: Scalar, r: Scalar) -> Scalar:
    """What rounding left out of r in x = n ln2 + r."""
    ln2 = _constants(x).ln2
    return fma(n, -ln2[1], fma(n, -ln2[0], x) - r)


def exp_parts(r: Scalar, tail: Scalar | None = None) -> tuple[Scalar, Scalar]:
    """e**(r + tail) as head and rest, for |r| <= ln2 / 2 and a tail below the precision of r."""
    head = r + 1.0
    rest = (1.0 - head) + r
    if tail is not None:
        rest = rest + tail
    return head, fma(r * r, horner(r, _constants(r).exp), rest)


def exp_less_one(r: Scalar) -> Scalar:
    """e**r - 1 to the precision of e**r, for |r| <= ln2 / 2."""
    return fma(r * r, horner(r, _constants(r).exp), r)


@function()
def exp(x: Scalar) -> Scalar:
    c = _constants(x)
    _, n_bits, r = reduce_exp(clamp(x, c.lowest, c.highest))
    return scale_one_plus(exp_less_one(r), n_bits, x > 0.0)


@function()
def exp2(x: Scalar) -> Scalar:
    c = _constants(x)
    within = clamp(x, -c.bias - c.significand - 2.0, c.bias + 1.0)
    n, n_bits = round_to_integer(within)
    return scale_one_plus(exp_less_one((within - n) * c.ln2[0]), n_bits, x > 0.0)


@function()
def expm1(x: Scalar) -> Scalar:
    c = _constants(x)
    within = clamp(x, -c.saturated, c.highest)
    n, n_bits, r = reduce_exp(within)
    quarter = power_of_two(n_bits, x.kind.width, -2)  # of 2**n, which itself may overflow too early
    less_one = r + fma(r * r, horner(r, c.expm1), reduction_tail(within, n, r))
    y = fma(less_one, quarter, quarter - 0.25) * 4.0
    return select(fabs(x) < TINY, x, y)


@function()
def tanh(x: Scalar) -> Scalar:
    """1 - 2 / (e**(2|x|) + 1), and x + x**3 P(x**2) near zero."""
    c = _constants(x)
    a = fabs(x)
    doubled = a + a
    doubled = select(doubled > 2 * c.saturated, 2 * c.saturated, doubled)
    n, n_bits = round_to_integer(doubled, c.log2e)
    r = fma(n, -c.ln2[0], doubled)  # one part of ln2 will do: its error counts for less and less as n grows
    two_n = power_of_two(n_bits, x.kind.width)
    far = 1.0 - 2.0 / fma(exp_less_one(r), two_n, two_n + 1.0)
    z = x * x
    near = fma(a * z, horner(z, c.tanh), a)
    return copysign(select(a < TANH_NEAR, near, far), x)


def _half_exp(a: Scalar) -> Scalar:
    """e**a / 2 for a >= 0 (or NaN), infinite only where it overflows."""
    c = _constants(a)
    _, n_bits, r = reduce_exp(select(a > c.highest + 1.0, c.highest + 1.0, a))
    eighth = power_of_two(n_bits, a.kind.width, -3)
    return fma(exp_less_one(r), eighth, eighth) * 4.0


@function()
def sinh(x: Scalar) -> Scalar:
    """h - 1 / (4 h) with h = e**|x| / 2, and x + x**3 P(x**2) near zero."""
    a = fabs(x)
    h = _half_exp(a)
    z = x * x
    near = fma(a * z, horner(z, _constants(x).sinh), a)
    return copysign(select(a < 1.0, near, h - 0.25 / h), x)


@function()
def cosh(x: Scalar) -> Scalar:
    """h + 1 / (4 h) with h = e**|x| / 2."""
    h = _half_exp(fabs(x))
    return h + 0.25 / h


@function()
def sigmoid(x: Scalar) -> Scalar:
    """1 / (1 + e**-x), from e**-|x| so that neither tail overflows."""
    c = _constants(x)
    a = -fabs(x)
    _, n_bits, r = reduce_exp(select(a < c.lowest, c.lowest, a))
    e = scale_one_plus(exp_less_one(r), n_bits, None)
    d = e + 1.0
    negative = x < 0.0
    n = select(negative, e, 1.0)
    y = n / d
    # One correction for what the division and the sum d lost; 1 / d is y on the right and 1 - y on the left.
    left = fma(y, (d - 1.0) - e, fma(-y, d, n))
    return fma(left, select(negative, 1.0 - y, y), y)
