"""exp, exp2, expm1, the hyperbolic functions and the logistic function.

All of them rest on x = n ln2 + r with |r| <= ln2 / 2, where e**r = 1 + r + r**2 q(r) for a minimax polynomial q, and
e**x = 2**n e**r. The scale 2**n is built in the exponent field. Where a result may overflow or be subnormal it is
applied in two steps, so that only the last multiplication rounds.
"""

from __future__ import annotations

from typing import NamedTuple

from .expr import Scalar, copysign, divide, fabs, fma, horner, round_to_integer, select
from .registry import function


class _Constants(NamedTuple):
    log2e: float
    ln2: tuple[float, float]  # head and tail
    exp: tuple[float, ...]  # (e**r - 1 - r) / r**2, small absolute error
    expm1: tuple[float, ...]  # the same with small error relative to expm1
    highest: float  # e**x overflows above; clamping here keeps n within the two-step scale
    lowest: float  # e**x is 0 below
    saturated: float  # tanh is 1 and expm1(-x) is -1 above
    significand: int  # stored bits
    bias: int


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
        highest=89.0,
        lowest=-106.0,
        saturated=20.0,
        significand=23,
        bias=127,
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
        highest=710.0,
        lowest=-746.0,
        saturated=40.0,
        significand=52,
        bias=1023,
    ),
}


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


def reduce_exp(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(n, low bits of n, r): x = n ln2 + r."""
    c = _constants(x)
    n, n_bits = round_to_integer(x * c.log2e)
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


def exp_reduced(r: Scalar, tail: Scalar | None = None) -> Scalar:
    head, rest = exp_parts(r, tail)
    return head + rest


def expm1_reduced(r: Scalar) -> Scalar:
    return fma(r * r, horner(r, _constants(r).expm1), r)


@function()
def exp(x: Scalar) -> Scalar:
    c = _constants(x)
    n, n_bits, r = reduce_exp(clamp(x, c.lowest, c.highest))
    return scale(exp_reduced(r), n, n_bits)


@function()
def exp2(x: Scalar) -> Scalar:
    c = _constants(x)
    x = clamp(x, -c.bias - c.significand - 2.0, c.bias + 2.0)
    n, n_bits = round_to_integer(x)
    f = x - n
    r = f * c.ln2[0]
    tail = fma(f, c.ln2[1], fma(f, c.ln2[0], -r))
    return scale(exp_reduced(r, tail), n, n_bits)


@function()
def expm1(x: Scalar) -> Scalar:
    c = _constants(x)
    _, n_bits, r = reduce_exp(clamp(x, -c.saturated, c.highest))
    quarter = power_of_two(n_bits, x.kind.width, -2)  # of 2**n, which itself may overflow too early
    y = fma(expm1_reduced(r), quarter, quarter - 0.25) * 4.0
    return select(fabs(x) < TINY, x, y)


def expm1_parts(x: Scalar, shift: int = 0) -> tuple[Scalar, Scalar]:
    """2**shift * expm1(x) as head and tail, for x >= 0 up to where 2**shift * e**x overflows."""
    c = _constants(x)
    n, n_bits, r = reduce_exp(x)
    r_tail = reduction_tail(x, n, r)
    two_n = power_of_two(n_bits, x.kind.width, shift)
    lead, swing = two_n - 2.0**shift, two_n * r
    head = lead + swing
    return head, fma(fma(r * r, horner(r, c.expm1), r_tail), two_n, (lead - head) + swing)


@function()
def tanh(x: Scalar) -> Scalar:
    """With t = expm1(2|x|): t / (t + 2)."""
    c = _constants(x)
    doubled = fabs(x) * 2.0
    head, tail = expm1_parts(select(doubled > 2 * c.saturated, 2 * c.saturated, doubled))
    t = head + tail
    over = t > 2.0
    d = t + 2.0
    d_tail = (select(over, t, 2.0) - d) + select(over, 2.0, t)
    return copysign(divide(t, 0.0, d, d_tail), x)


@function()
def sinh(x: Scalar) -> Scalar:
    """With h = expm1(|x|) / 2: h + h / (2 h + 1)."""
    c = _constants(x)
    a = fabs(x)
    head, tail = expm1_parts(select(a > c.highest + 1.0, c.highest + 1.0, a), -3)
    head, tail = head * 4.0, tail * 4.0
    h = head + tail
    g = select(h > 2.0**60, 2.0**60, h)  # so that an infinite h does not divide itself
    y = head + (tail + g / fma(g, 2.0, 1.0))
    return select(a < TINY, x, copysign(y, x))


@function()
def cosh(x: Scalar) -> Scalar:
    """With h = e**|x| / 2: h + 1 / (4 h)."""
    c = _constants(x)
    a = fabs(x)
    _, n_bits, r = reduce_exp(select(a > c.highest + 1.0, c.highest + 1.0, a))
    h = exp_reduced(r) * power_of_two(n_bits, x.kind.width, -3) * 4.0
    return h + 0.25 / h


@function()
def sigmoid(x: Scalar) -> Scalar:
    """1 / (1 + e**-x), from e**-|x| so that neither tail overflows."""
    c = _constants(x)
    a = -fabs(x)
    a = select(a < c.lowest, c.lowest, a)
    n, n_bits, r = reduce_exp(a)
    e = scale(exp_reduced(r, reduction_tail(a, n, r)), n, n_bits)
    d = e + 1.0
    return divide(select(x < 0.0, e, 1.0), 0.0, d, (1.0 - d) + e)
