"""pow in float64 (in float32: `short_power`), cbrt and hypot."""

from __future__ import annotations

from . import logarithm
from .exponential import clamp, scale_one_plus
from .expr import (
    F64,
    Scalar,
    copysign,
    fabs,
    fma,
    horner,
    round_to_integer,
    select,
    small_integer_to_float,
    sqrt,
    trunc,
)
from .registry import function

_h = float.fromhex
# For float64. log2((1 + s) / (1 - s)) = s (C0 + C1 s**2 + s**4 R(s**2)): C0 = 2 / ln 2 and C1 = C0 / 3 as head and
# tail, R minimax in the error relative to the whole, 2**-66.3, for |s| <= 0.1716.
C0 = (_h("0x1.71547652b82fep+1"), _h("0x1.777d0ffda0d24p-55"))
C1 = (_h("0x1.ec709dc3a03fdp-1"), _h("0x1.d27f05548af0cp-55"))
R = tuple(
    map(
        _h,
        (
            "0x1.2776c50ef9d23p-1",
            "0x1.a61762a759bdap-2",
            "0x1.484b1421710e4p-2",
            "0x1.0c9a63e495b43p-2",
            "0x1.c69f870806c54p-3",
            "0x1.87b1397aa5d67p-3",
            "0x1.85e4b461c2229p-3",
        ),
    )
)
# (2**r - 1) / r for |r| <= 1/2: minimax in the error relative to 2**r, 2**-58 before the coefficients are rounded.
EXP2M1 = tuple(
    map(
        _h,
        (
            "0x1.62e42fefa39efp-1",
            "0x1.ebfbdff82c5a4p-3",
            "0x1.c6b08d7049fe7p-5",
            "0x1.3b2ab6fba00cep-7",
            "0x1.5d87fe78cd913p-10",
            "0x1.4309130ee95b9p-13",
            "0x1.ffcbfba9081f9p-17",
            "0x1.62bfc77093c66p-20",
            "0x1.b5267d6efc351p-24",
            "0x1.e61ba1aec7921p-28",
            "0x1.e79b7e0209efdp-32",
        ),
    )
)


def _log2_head_tail(x: Scalar) -> tuple[Scalar, Scalar]:
    """log2(x) for finite x > 0 in float64, as head and tail, to about 2**-64."""
    k, m = logarithm.normalize(x)
    f, d = m - 1.0, m + 1.0
    inverse = 1.0 / d
    s = f * inverse
    s_tail = fma(-s, (1.0 - d) + m, fma(-s, d, f)) * inverse
    z = s * s
    z_tail = fma(s + s, s_tail, fma(s, s, -z))
    t = z * C1[0]
    t_tail = fma(z, C1[0], -t) + fma(z, C1[1], C0[1])
    slope = fma(z, 2 * R[0], C1[0])  # of C1 z + z**2 R(z)
    t_tail = fma(z * z, horner(z, R), fma(z_tail, slope, t_tail))
    u = t + C0[0]
    u_tail = ((C0[0] - u) + t) + t_tail
    y = s * u
    y_tail = fma(s_tail, u, fma(s, u_tail, fma(s, u, -y)))
    total = k + y
    tail = ((k - total) + y) + y_tail
    head = total + tail  # s**4 R is no rounding error
    return head, (total - head) + tail


def signed(x: Scalar, y: Scalar, power: Scalar) -> Scalar:
    """|x|**y made x**y: the sign of odd powers, NaN for broken powers of negative numbers."""
    whole = trunc(y).eq(y)
    half = y * 0.5
    odd = whole & trunc(half).ne(half)
    power = copysign(power, select(odd, x, 1.0))
    # Finite and below zero, by one comparison of patterns as integers: that of -0.0 wraps, that of -inf is the limit.
    negative = (x.bits() - 1) < -1 - (1 << logarithm.CONSTANTS[x.kind.width].significand)
    return select(negative & ~whole, float("nan"), power)


def is_one(a: Scalar, y: Scalar) -> Scalar:
    """Whether C and IEEE 754 insist on a**y = 1, even of NaN."""
    return y.eq(0.0) | a.eq(1.0)


@function([F64], name="pow")
def pow_f64(x: Scalar, y: Scalar) -> Scalar:
    a = fabs(x)
    head, tail = _log2_head_tail(a)
    head = select(a < float("inf"), head, a)
    head = select(a.eq(0.0), float("-inf"), head)
    product = y * head
    rest = fma(y, tail, fma(y, head, -product))
    inside = fabs(product) < 1100.0
    n, n_bits = round_to_integer(clamp(product, -1100.0, 1024.0))
    r = select(inside, (product - n) + rest, select(product.ne(product), product, 0.0))
    e = fma(r * r, horner(r, EXP2M1[1:]), r * EXP2M1[0])
    return signed(x, y, select(is_one(a, y), 1.0, scale_one_plus(e, n_bits, product > 0.0)))


# m**(-1/3) in m - 3/2, 1 <= m <= 2: minimax, relative errors 2**-17.4 and 2**-20.1.
INVERSE_ROOT = {
    32: tuple(
        map(
            _h,
            ("0x1.bf4698p-1", "-0x1.8d9a1ap-3", "0x1.5ff844p-4", "-0x1.6b805ap-5", "0x1.d1e102p-6", "-0x1.16cce8p-6"),
        )
    ),
    64: tuple(
        map(
            _h,
            (
                "0x1.bf45eb228181ap-1",
                "-0x1.8d99123de2d5ep-3",
                "0x1.61791f5553352p-4",
                "-0x1.6bc3964239b9dp-5",
                "0x1.91eec3f644febp-6",
                "-0x1.151a10e2c4138p-6",
                "0x1.54693c004c59bp-7",
            ),
        )
    ),
}


@function()
def cbrt(x: Scalar) -> Scalar:
    """2**q y with y**3 = m for |x| = 2**(3 q) m, 1 <= m < 8.

    y is m r**2 with a rough r for m**(-1/3), corrected by what y**3 lacks of m.
    """
    width = x.kind.width
    c = logarithm.CONSTANTS[width]
    p, bias = c.significand, c.one >> c.significand
    shift = 3 * ((p + 3) // 3)
    a = fabs(x)
    subnormal = a < c.smallest_normal
    pattern = select(subnormal, a * 2.0**shift, a).bits()
    # Rounding (exponent - 1) / 3 gives q, and the rest is 0, 1 or 2 less 1.
    less_one = small_integer_to_float(pattern.shift_right_logical(p) - (bias + 1))
    q, q_bits = round_to_integer(less_one, 1 / 3)
    rest = fma(q, -3.0, less_one)
    moved = q_bits << p
    m = (pattern - (moved + (moved << 1))).as_float()
    fraction = ((pattern & ((1 << p) - 1)) | c.one).as_float()
    # 2**(-(rest + 1) / 3), by the parabola through its three values.
    middle, last = 2 ** (-1 / 3), 2 ** (-2 / 3)
    root_of_rest = fma(rest, fma(rest, (1 + last) / 2 - middle, (last - 1) / 2), middle)
    r = horner(fraction - 1.5, INVERSE_ROOT[width]) * root_of_rest
    square = r * r
    y = m * square
    left = fma(-(y * y), y, m)
    if width == 32:
        y = fma(left * square, 1 / 3, y)
    else:
        e = left / m  # y / (1 - e)**(1/3)
        y = fma(e * y, fma(e, 2 / 9, 1 / 3), y)
    back = select(subnormal, moved - ((shift // 3) << p), moved)
    root = (y.bits() + back).as_float()
    infinity = (2 * bias + 1) << p
    return copysign(select((a.bits() - 1).as_unsigned() < infinity - 1, root, a), x)  # not 0, inf or NaN


@function()
def hypot(x: Scalar, y: Scalar) -> Scalar:
    """sqrt(x**2 + y**2) without overflow; infinite if either is, even next to NaN."""
    a, b = fabs(x), fabs(y)
    swap = b > a
    a, b = select(swap, b, a), select(swap, a, b)
    step = 2.0 ** (600 if x.kind.width == 64 else 80)
    middle = 2.0 ** (500 if x.kind.width == 64 else 60)
    up, down = a < 1.0 / middle, a > middle
    factor = select(up, a.const(step), select(down, a.const(1.0 / step), 1.0))
    back = select(up, a.const(1.0 / step), select(down, a.const(step), 1.0))
    a_fit, b_fit = a * factor, b * factor
    y_ = sqrt(fma(a_fit, a_fit, b_fit * b_fit)) * back
    y_ = select(x.ne(x) | y.ne(y), float("nan"), y_)
    infinite = fabs(x).eq(float("inf")) | fabs(y).eq(float("inf"))
    return select(infinite, float("inf"), y_)
