"""pow, cbrt and hypot."""

from __future__ import annotations

from . import logarithm
from .exponential import CONSTANTS as EXP
from .exponential import clamp, exp_reduced, reduce_exp, reduction_tail, scale
from .expr import (
    F32,
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
# 2 atanh(s) = 2 s + s**3 (2/3 + s**2 SERIES(s**2)), with 2/3 as head and tail.
TWO_THIRDS = (_h("0x1.5555555555555p-1"), _h("0x1.5555555555555p-55"))
SERIES = tuple(
    map(
        _h,
        (
            "0x1.9999999999a07p-2",
            "0x1.249249247b2bap-2",
            "0x1.c71c71fbe0e26p-3",
            "0x1.745cfac3acf8fp-3",
            "0x1.3b1be91d95004p-3",
            "0x1.0fc531a26abb2p-3",
            "0x1.0bc90306c7202p-3",
        ),
    )
)


def _log_head_tail(x: Scalar) -> tuple[Scalar, Scalar]:
    """log(x) for finite x > 0 in float64, as head and tail, to about 2**-65."""
    k, m = logarithm.normalize(x)
    f = m - 1.0
    d = f + 2.0
    inverse = 1.0 / d
    s = f * inverse
    s_tail = (fma(-s, d, f) - s * ((2.0 - d) + f)) * inverse
    z = s * s
    z_tail = fma(s, s, -z) + s * s_tail * 2.0
    p = z * horner(z, SERIES)
    u = p + TWO_THIRDS[0]
    u_tail = (TWO_THIRDS[0] - u) + p + TWO_THIRDS[1]
    w = z * u
    w_tail = fma(z, u, -w) + fma(z, u_tail, z_tail * u)
    v = s * w
    v_tail = fma(s, w, -v) + fma(s, w_tail, s_tail * w)
    s2 = s * 2.0
    y = s2 + v
    y_tail = (s2 - y) + v + fma(s_tail, 2.0, v_tail)
    ln2, ln2_tail = EXP[64].ln2
    big = k * ln2
    big_tail = fma(k, ln2, -big) + k * ln2_tail
    total = big + y
    return total, (big - total) + y + (big_tail + y_tail)


def _exp_head_tail(x: Scalar, tail: Scalar) -> Scalar:
    """e**(x + tail) for |tail| tiny next to 1."""
    c = EXP[64]
    inside = fabs(x) < c.highest + 40.0
    tail = select(inside, tail, 0.0)
    x = clamp(x, c.lowest - 2.0, c.highest)
    n, n_bits, r = reduce_exp(x)
    tail = reduction_tail(x, n, r) + tail
    whole = r + tail
    return scale(exp_reduced(whole, (r - whole) + tail), n, n_bits)


def _pow_edges(x: Scalar, y: Scalar, power: Scalar) -> Scalar:
    """|x|**y made x**y: signs, and the arguments on which C and IEEE 754 insist."""
    whole = trunc(y).eq(y)
    half = y * 0.5
    odd = whole & trunc(half).ne(half)
    negative = x.bits() < 0
    power = select(negative & odd, -power, power)
    power = select((x < 0.0) & ~whole & (x > float("-inf")), float("nan"), power)
    power = select(x.ne(x) | y.ne(y), float("nan"), power)
    one = y.eq(0.0) | x.eq(1.0) | (x.eq(-1.0) & fabs(y).eq(float("inf")))
    return select(one, 1.0, power)


@function([F64], name="pow")
def pow_f64(x: Scalar, y: Scalar) -> Scalar:
    a = fabs(x)
    head, tail = _log_head_tail(a)
    head = select(a.eq(0.0), float("-inf"), select(a.eq(float("inf")), float("inf"), head))
    product = y * head
    return _pow_edges(x, y, _exp_head_tail(product, fma(y, head, -product) + y * tail))


@function([F32], name="pow")
def pow_f32(x: Scalar, y: Scalar) -> Scalar:
    """In float64, whose logarithm is precise enough for the exponents of float32."""
    wide_x, wide_y = x.to(F64), y.to(F64)
    a = fabs(wide_x)
    k, m = logarithm.split_exponent(a)
    head = logarithm.log_of_parts(small_integer_to_float(k), m - 1.0)
    head = select(a.eq(0.0), float("-inf"), select(a.eq(float("inf")), float("inf"), head))
    product = clamp(wide_y * head, -200.0, 200.0)
    _, n_bits, r = reduce_exp(product)
    power = exp_reduced(r) * ((n_bits + 1023) << 52).as_float()
    return _pow_edges(wide_x, wide_y, power).to(F32)


@function()
def cbrt(x: Scalar) -> Scalar:
    """x (x**-1/3)**2, the inverse root from the exponent field refined without division."""
    c = logarithm.CONSTANTS[x.kind.width]
    shift = 3 * ((c.significand + 3) // 3)
    a = fabs(x)
    subnormal = a < c.smallest_normal
    a_fit = select(subnormal, a * 2.0**shift, a)
    # The bit pattern, read as a number, is a piecewise linear log2: a third of it is a rough root.
    drop = x.kind.width - 20  # what is left is small enough for both kinds to hold as a float
    top = a_fit.bits().shift_right_logical(drop)
    _, third = round_to_integer(small_integer_to_float(top) * (-1.0 / 3.0))
    one = c.one >> drop
    r = ((third + (one + one // 3)) << drop).as_float()
    for _ in range(3 if x.kind.width == 64 else 2):
        e = fma(-(a_fit * r), r * r, 1.0)
        r = fma(r * e, fma(e, fma(e, 14 / 81, 2 / 9), 1 / 3), r)
    root = a_fit * r * r
    square = root * root
    square_tail = fma(root, root, -square)
    left = fma(-square, root, a_fit) - square_tail * root
    root = fma(left * (r * r), 1 / 3, root)
    root = select(subnormal, root * 2.0 ** -(shift // 3), root)
    return copysign(select((a > 0.0) & (a < float("inf")), root, a), x)


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
