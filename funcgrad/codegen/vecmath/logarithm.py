"""log, log2, log10, log1p and the inverse hyperbolic functions.

x = 2**k m with m in [sqrt(1/2), sqrt(2)). With f = m - 1 and s = f / (2 + f),
log(m) = 2 atanh(s) = f - (f**2/2 - s (f**2/2 + R(s**2))), an arrangement that loses nothing near f = 0. In float32 a
polynomial in f does.
"""

from __future__ import annotations

from typing import NamedTuple

from .expr import F32, Scalar, copysign, fabs, fma, horner, select, small_integer_to_float, sqrt
from .registry import function


class _Constants(NamedTuple):
    wide_series: tuple[float, ...]  # (2 atanh(s) - 2 s) / s**3 in s**2, |s| <= 0.2013
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


# For float64: (2 atanh(s) - 2 s) / s**3 in s**2, |s| <= 0.1716.
SERIES = tuple(
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
)
# For float32: (log_b(1 + f) - f / ln b) / f**2 for the base b of each logarithm and the f that `split_exponent` leaves,
# minimax in the error relative to the logarithm (2**-27.5 for e, 2**-24.9 for 2 and 10). A polynomial is dearer than
# `SERIES`, but there is no division to wait for.
DIRECT = {
    "e": tuple(
        map(
            _h,
            (
                "-0x1.fffff8p-2",
                "0x1.555550p-2",
                "-0x1.000426p-2",
                "0x1.99a400p-3",
                "-0x1.54276cp-3",
                "0x1.227086p-3",
                "-0x1.0f3684p-3",
                "0x1.084efep-3",
                "-0x1.38442ap-4",
            ),
        )
    ),
    "2": tuple(
        map(
            _h,
            (
                "-0x1.715472p-1",
                "0x1.ec72f0p-2",
                "-0x1.715b14p-2",
                "0x1.26e79ep-2",
                "-0x1.e99a2ap-3",
                "0x1.b8c13cp-3",
                "-0x1.a6b6a6p-3",
                "0x1.021adap-3",
            ),
        )
    ),
    "10": tuple(
        map(
            _h,
            (
                "-0x1.bcb7acp-3",
                "0x1.287bdcp-3",
                "-0x1.bcbfaap-4",
                "0x1.6319c8p-4",
                "-0x1.26c518p-4",
                "0x1.095c60p-4",
                "-0x1.fcff6ap-5",
                "0x1.36ca0cp-5",
            ),
        )
    ),
}
# For float32 functions computed in float64: log2((1 + s) / (1 - s)) / s in s**2, |s| <= 0.1716, minimax, relative error
# 2**-37.8.
SHORT = tuple(
    map(
        _h,
        (
            "0x1.71547652bede5p+1",
            "0x1.ec709d12e08f5p-1",
            "0x1.27777fe7090c1p-1",
            "0x1.a58d84d8f1a75p-2",
            "0x1.5ce8cf26a1969p-2",
        ),
    )
)


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
    return h, s * fma(z, horner(z, SERIES), h)


def at_the_edges(x: Scalar, y: Scalar) -> Scalar:
    """A logarithm's value y at x, put right where x is zero, negative, infinite or NaN."""
    y = select(x < float("inf"), y, x)
    y = select(x < 0.0, float("nan"), y)
    return select(x.eq(0.0), float("-inf"), y)


def _curvature(f: Scalar, base: str) -> Scalar:
    """(log(1 + f) - f) / ln base, to the precision of log(1 + f); base "e" in float32 only."""
    if f.kind is F32:
        return f * f * horner(f, DIRECT[base])
    h, w = log_terms(f)
    return (w - h) * (CONSTANTS[64].log2e if base == "2" else CONSTANTS[64].log10e)[0]


def log_of_parts(k: Scalar, f: Scalar) -> Scalar:
    """k ln2 + log(1 + f)."""
    ln2, tail = _constants(f).ln2
    if f.kind is F32:
        return fma(k, ln2, f + fma(k, tail, _curvature(f, "e")))
    h, w = log_terms(f)
    return fma(k, ln2, f - (h - fma(k, tail, w)))


@function()
def log(x: Scalar) -> Scalar:
    k, m = normalize(x)
    return at_the_edges(x, log_of_parts(k, m - 1.0))


@function()
def log2(x: Scalar) -> Scalar:
    k, m = normalize(x)
    f = m - 1.0
    head, tail = _constants(x).log2e
    return at_the_edges(x, k + fma(f, head, fma(f, tail, _curvature(f, "2"))))


@function()
def log10(x: Scalar) -> Scalar:
    c = _constants(x)
    k, m = normalize(x)
    f = m - 1.0
    rest = fma(k, c.log10_2[1], fma(f, c.log10e[1], _curvature(f, "10")))
    return at_the_edges(x, fma(k, c.log10_2[0], fma(f, c.log10e[0], rest)))


def log1p_shifted(x: Scalar, tail: Scalar | float = 0.0, doublings: Scalar | None = None) -> Scalar:
    """log(1 + x + tail) + doublings ln2 for x > -1, without the edges; exact where x is tiny."""
    u = x + 1.0
    lost = x - (u - 1.0)  # exact until it no longer matters
    if isinstance(tail, Scalar):
        lost = lost + tail
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


def log2_short(x: Scalar) -> Scalar:
    """log2 of a positive normal float64, to some 2**-37."""
    k, m = split_exponent(x)
    s = (m - 1.0) / (m + 1.0)
    return fma(s, horner(s * s, SHORT), small_integer_to_float(k))


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
