"""log, log2, log10, log1p and the inverse hyperbolic functions.

x = 2**k m with m in [sqrt(1/2), sqrt(2)). With f = m - 1 and s = f / (2 + f),
log(m) = 2 atanh(s) = f - (f**2/2 - s (f**2/2 + R(s**2))), an arrangement that loses nothing near f = 0.
"""

from __future__ import annotations

from typing import NamedTuple

from .expr import Scalar, copysign, fabs, fma, horner, select, small_integer_to_float, sqrt
from .registry import function


class _Constants(NamedTuple):
    series: tuple[float, ...]  # (2 atanh(s) - 2 s) / s**3 in s**2
    wide_series: tuple[float, ...]  # the same for |s| <= 0.2013
    ln2: tuple[float, float]
    log2e: tuple[float, float]
    log10e: tuple[float, float]
    log10_2: tuple[float, float]  # the head short enough for an exact product with k
    significand: int
    sqrt_half: int  # bit pattern
    one: int
    smallest_normal: float
    huge: float  # squares add nothing to x**2 +- 1 above


_h = float.fromhex
CONSTANTS = {
    32: _Constants(
        series=tuple(map(_h, ("0x1.555554p-1", "0x1.999c26p-2", "0x1.23d3e6p-2", "0x1.f138c6p-3"))),
        wide_series=tuple(map(_h, ("0x1.555554p-1", "0x1.999c0cp-2", "0x1.23e03ep-2", "0x1.eea09p-3"))),
        ln2=(_h("0x1.62e43p-1"), _h("-0x1.05c61p-29")),
        log2e=(_h("0x1.715476p+0"), _h("0x1.4ae0cp-26")),
        log10e=(_h("0x1.bcb7b2p-2"), _h("-0x1.5b235ep-27")),
        log10_2=(_h("0x1.344p-2"), _h("0x1.3509f8p-18")),
        significand=23,
        sqrt_half=0x3F3504F3,
        one=0x3F800000,
        smallest_normal=2.0**-126,
        huge=2.0**30,
    ),
    64: _Constants(
        series=tuple(
            map(
                _h,
                (
                    "0x1.5555555555592p-1",
                    "0x1.999999997fec4p-2",
                    "0x1.24924941e972ep-2",
                    "0x1.c71c520b7f82ap-3",
                    "0x1.74663f20c072cp-3",
                    "0x1.39a1a6f68a6c9p-3",
                    "0x1.2f06a57791b0ap-3",
                ),
            )
        ),
        wide_series=tuple(
            map(
                _h,
                (
                    "0x1.555555555554ep-1",
                    "0x1.999999999c6fdp-2",
                    "0x1.24924921934e8p-2",
                    "0x1.c71c74d58dd57p-3",
                    "0x1.745c3ae35d755p-3",
                    "0x1.3b37bfb7a9798p-3",
                    "0x1.0daaa92a65a52p-3",
                    "0x1.1c5c99db8ee89p-3",
                ),
            )
        ),
        ln2=(_h("0x1.62e42fefa39efp-1"), _h("0x1.abc9e3b39803fp-56")),
        log2e=(_h("0x1.71547652b82fep+0"), _h("0x1.777d0ffda0d24p-56")),
        log10e=(_h("0x1.bcb7b1526e50ep-2"), _h("0x1.95355baaafad3p-57")),
        log10_2=(_h("0x1.34413509f8000p-2"), _h("-0x1.80433b83b532ap-44")),
        significand=52,
        sqrt_half=0x3FE6A09E667F3BCD,
        one=0x3FF0000000000000,
        smallest_normal=2.0**-1022,
        huge=2.0**60,
    ),
}


def _constants(x: Scalar) -> _Constants:
    return CONSTANTS[x.kind.width]


def split_exponent(x: Scalar) -> tuple[Scalar, Scalar]:
    """(k as an integer, m): a positive normal x = 2**k m with m in [sqrt(1/2), sqrt(2))."""
    c = _constants(x)
    shifted = x.bits() + (c.one - c.sqrt_half)
    k = shifted.shift_right_logical(c.significand) - (c.one >> c.significand)
    m = ((shifted & ((1 << c.significand) - 1)) + c.sqrt_half).as_float()
    return k, m


def normalize(x: Scalar) -> tuple[Scalar, Scalar]:
    """(k, m) as floats for any positive x, subnormals included."""
    c = _constants(x)
    subnormal = x < c.smallest_normal
    k, m = split_exponent(select(subnormal, x * 2.0 ** (c.significand + 2), x))
    return small_integer_to_float(select(subnormal, k - (c.significand + 2), k)), m


def log_terms(f: Scalar) -> tuple[Scalar, Scalar]:
    """(h, w) with log(1 + f) = f - (h - w), h = f**2 / 2, for f in [sqrt(1/2) - 1, sqrt(2) - 1)."""
    s = f / (f + 2.0)
    z = s * s
    h = f * f * 0.5
    return h, s * fma(z, horner(z, _constants(f).series), h)


def log_of_parts(k: Scalar, f: Scalar) -> Scalar:
    """k ln2 + log(1 + f)."""
    ln2, tail = _constants(f).ln2
    h, w = log_terms(f)
    return fma(k, ln2, f - (h - fma(k, tail, w)))


def at_the_edges(x: Scalar, y: Scalar) -> Scalar:
    """A logarithm's value y at x, put right where x is zero, negative, infinite or NaN."""
    y = select(x < float("inf"), y, x)
    y = select(x < 0.0, float("nan"), y)
    return select(x.eq(0.0), float("-inf"), y)


@function()
def log(x: Scalar) -> Scalar:
    k, m = normalize(x)
    return at_the_edges(x, log_of_parts(k, m - 1.0))


def _scaled_log(f: Scalar, factor: tuple[float, float]) -> tuple[Scalar, Scalar]:
    """factor * log(1 + f) as head and tail."""
    h, w = log_terms(f)
    head = f - h
    tail = (f - head) - h + w
    product = head * factor[0]
    return product, fma(tail, factor[0], fma(head, factor[1], fma(head, factor[0], -product)))


def _sum_with_exponent(big: Scalar, head: Scalar, tail: Scalar) -> Scalar:
    """big + head + tail where big is 0 or larger than head."""
    total = big + head
    return total + ((big - total) + head + tail)


@function()
def log2(x: Scalar) -> Scalar:
    k, m = normalize(x)
    head, tail = _scaled_log(m - 1.0, _constants(x).log2e)
    return at_the_edges(x, _sum_with_exponent(k, head, tail))


@function()
def log10(x: Scalar) -> Scalar:
    c = _constants(x)
    k, m = normalize(x)
    head, tail = _scaled_log(m - 1.0, c.log10e)
    return at_the_edges(x, _sum_with_exponent(k * c.log10_2[0], head, fma(k, c.log10_2[1], tail)))


def log1p_shifted(x: Scalar, tail: Scalar | float = 0.0, doublings: Scalar | None = None) -> Scalar:
    """log(1 + x + tail) + doublings ln2 for x > -1, without the edges; exact where x is tiny."""
    u = x + 1.0
    larger = fabs(x) > 1.0
    lost = select(larger, 1.0 - (u - x), x - (u - 1.0)) + tail
    k, m = split_exponent(u)
    c = _constants(x)
    inverse = (((c.one >> c.significand) + 1 - k) << c.significand).as_float()  # 2**(1 - k), 0 at the very top
    k_float = small_integer_to_float(k)
    if doublings is not None:
        k_float = k_float + doublings
    return log_of_parts(k_float, fma(lost * 0.5, inverse, m - 1.0))


@function()
def log1p(x: Scalar) -> Scalar:
    y = log1p_shifted(x)
    y = select(x < float("inf"), y, x)
    y = select(x < -1.0, float("nan"), y)
    y = select(x.eq(-1.0), float("-inf"), y)
    return copysign(y, x)


@function()
def asinh(x: Scalar) -> Scalar:
    """log(a + sqrt(a**2 + 1)) as log1p(a + a**2 / (1 + sqrt(a**2 + 1))) for a = |x|; log(2 a) when a is huge."""
    c = _constants(x)
    a = fabs(x)
    huge = a > c.huge
    b = select(huge, 1.0, a)
    more = b * b / (sqrt(fma(b, b, 1.0)) + 1.0)
    u = b + more
    y = log1p_shifted(select(huge, a, u), (b - u) + more, select(huge, x.const(1.0), 0.0))
    return copysign(select(a < float("inf"), y, a), x)


@function()
def acosh(x: Scalar) -> Scalar:
    """log1p(t + sqrt(t**2 + 2 t)) with t = x - 1; log(2 x) when x is huge."""
    c = _constants(x)
    huge = x > c.huge
    t = select(huge, 1.0, x - 1.0)
    twice = t * 2.0
    square = fma(t, t, twice)
    root = sqrt(square)
    # One Newton step: what the root lacks of sqrt(t**2 + 2 t).
    root_tail = (fma(-root, root, square) + fma(t, t, twice - square)) * (0.5 / (root + 1e-30))
    u = root + t
    tail = (root - u) + t + root_tail
    y = log1p_shifted(select(huge, x, u), tail, select(huge, x.const(1.0), 0.0))
    y = select(x < float("inf"), y, x)
    return select(x < 1.0, float("nan"), y)


@function()
def atanh(x: Scalar) -> Scalar:
    """(k ln2 + log(m)) / 2 where 2**k m = (1 + a) / (1 - a), a = |x|.

    s = (m - 1) / (m + 1) comes straight from a, and is a itself when k = 0.
    """
    c = _constants(x)
    a = fabs(x)
    # The difference of the bit patterns is a piecewise linear log2 of the ratio: good enough to choose k.
    distance = (a + 1.0).bits() - (1.0 - a).bits() + (c.one + (1 << (c.significand - 1)))
    k = distance.shift_right_logical(c.significand) - (c.one >> c.significand)
    two_k = ((k + (c.one >> c.significand)) << c.significand).as_float()
    down, up = 1.0 - two_k, two_k + 1.0
    # Close to 1 it is 1 - a that is exact, elsewhere the powers of two.
    near = a > 0.75
    near_one = (1.0 - a) * two_k
    numerator = select(near, (1.0 - near_one) + a, fma(a, up, down))
    s = numerator / select(near, near_one + a + 1.0, fma(a, down, up))
    z = s * s
    k_float = small_integer_to_float(k)
    series = fma(s * z, horner(z, c.wide_series), k_float * c.ln2[1])
    y = fma(k_float, c.ln2[0], fma(s, 2.0, series)) * 0.5
    y = select(a.eq(1.0), float("inf"), y)
    y = select(a <= 1.0, y, float("nan"))
    return copysign(select(a < 2.0**-40, a, y), x)
