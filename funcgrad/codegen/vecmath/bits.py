"""The small exact functions: rounding, signs, minima and maxima, NumPy's division rules, shifts and integer powers.

Integer division follows NumPy and never traps: anything divided by zero is 0, and the one quotient that overflows
wraps. Floor division and remainder round towards minus infinity, as in Python; `fmod` towards zero, as in C.
"""

from __future__ import annotations

from . import expr
from .expr import F32, F64, KINDS, Kind, Scalar, copysign, fma, select
from .rare import beyond, register_bits
from .registry import INTEGERS, SIGNED, function, predicate

U8 = KINDS["u8"]
UNSIGNED = tuple(k for k in INTEGERS if not k.signed)

for _name, _emit in (("floor", expr.floor), ("ceil", expr.ceil), ("trunc", expr.trunc), ("rint", expr.rint)):
    function(small=True, name=_name)(_emit)


@function(small=True, name="fma")
def fused(a: Scalar, b: Scalar, c: Scalar) -> Scalar:
    return expr.fma(a, b, c)


@function(small=True, name="copysign")
def with_sign_of(magnitude: Scalar, sign: Scalar) -> Scalar:
    return copysign(magnitude, sign)


@function(small=True)
def sqrt(x: Scalar) -> Scalar:
    return expr.sqrt(x)


@function(small=True, name="abs")
def magnitude(x: Scalar) -> Scalar:
    return expr.fabs(x)


@function(SIGNED, small=True, name="abs")
def magnitude_signed(x: Scalar) -> Scalar:
    return select(x < 0, -x, x)


@function(UNSIGNED, small=True, name="abs")
def magnitude_unsigned(x: Scalar) -> Scalar:
    return x


@function(small=True, name="sign")
def sign_float(x: Scalar) -> Scalar:
    """-1, 0 or 1; NaN for NaN and 0.0 for -0.0, as in NumPy."""
    nonzero = select(x > 0.0, x.const(1.0), select(x < 0.0, x.const(-1.0), x))
    return select(x.eq(0.0), 0.0, nonzero)


@function(INTEGERS, small=True, name="sign")
def sign_integer(x: Scalar) -> Scalar:
    return (
        select(x > 0, x.const(1), select(x < 0, x.const(-1), x.const(0)))
        if x.kind.signed
        else select(x.ne(0), x.const(1), 0)
    )


def _binary_intrinsic(name: str, x: Scalar, y: Scalar) -> Scalar:
    return x.body.intrinsic(f"llvm.{name}.{x.kind.name}", x.kind, [x, y])


@function(small=True)
def maximum(x: Scalar, y: Scalar) -> Scalar:
    """The larger; NaN if either is."""
    return _binary_intrinsic("maximum", x, y)


@function(small=True)
def minimum(x: Scalar, y: Scalar) -> Scalar:
    return _binary_intrinsic("minimum", x, y)


@function(small=True)
def fmax(x: Scalar, y: Scalar) -> Scalar:
    """The larger; the other one if one is NaN."""
    return _binary_intrinsic("maxnum", x, y)


@function(small=True)
def fmin(x: Scalar, y: Scalar) -> Scalar:
    return _binary_intrinsic("minnum", x, y)


@function(INTEGERS, small=True, name="maximum")
def maximum_integer(x: Scalar, y: Scalar) -> Scalar:
    return select(x > y, x, y)


@function(INTEGERS, small=True, name="minimum")
def minimum_integer(x: Scalar, y: Scalar) -> Scalar:
    return select(x < y, x, y)


@predicate()
def isnan(x: Scalar) -> Scalar:
    return x.ne(x)


@predicate()
def isinf(x: Scalar) -> Scalar:
    return expr.fabs(x).eq(float("inf"))


@predicate()
def isfinite(x: Scalar) -> Scalar:
    return expr.fabs(x) < float("inf")


@predicate()
def signbit(x: Scalar) -> Scalar:
    return x.bits() < 0


@function()
def nextafter(x: Scalar, y: Scalar) -> Scalar:
    """The neighbour of x on the way to y. The magnitudes of floats are ordered like their bit patterns."""
    pattern = x.bits()
    away = (x < y) ^ (pattern < 0)  # the magnitude grows
    step = select(away, pattern.const(1), -1)
    smallest = copysign(pattern.const(1).as_float(), y)
    moved = select(x.eq(0.0), smallest, (pattern + step).as_float())
    moved = select(x.eq(y), y, moved)
    moved = select(x.ne(x), x, moved)
    return select(y.ne(y), y, moved)


def _truncated_remainder(x: Scalar, y: Scalar) -> Scalar:
    """C's fmod. One fused step is exact while the quotient is; astronomically long divisions go the long way."""
    a, b = expr.fabs(x), expr.fabs(y)
    quotient = a / b
    r = fma(-expr.trunc(quotient), b, a)
    # A rounded quotient may be one too large.
    r = copysign(select(r < 0.0, r + b, r), x)
    r = select(a < b, x, r)  # also for an infinite y

    def long_division(_: Scalar, p: Scalar, q: Scalar) -> Scalar:
        return Scalar(p.body, p.kind, p.body.builder.frem(p.value, q.value))

    limit = 2.0**22 if x.kind is F32 else 2.0**51
    return beyond(quotient, limit, r, "fmod_long", long_division, x, y)


@function(name="fmod")
def fmod_float(x: Scalar, y: Scalar) -> Scalar:
    return _truncated_remainder(x, y)


@function(name="remainder")
def remainder_float(x: Scalar, y: Scalar) -> Scalar:
    """x - floor(x / y) * y with the sign of y, zeros included."""
    r = _truncated_remainder(x, y)
    adjusted = select((r < 0.0) ^ (y < 0.0), r + y, r)
    return select(r.eq(0.0), copysign(r, y), adjusted)


@function(name="floor_divide")
def floor_divide_float(x: Scalar, y: Scalar) -> Scalar:
    """floor(x / y), of the exact quotient rather than the rounded one."""
    r = _truncated_remainder(x, y)
    whole = (x - r) / y
    whole = select(r.ne(0.0) & ((r < 0.0) ^ (y < 0.0)), whole - 1.0, whole)
    nearest = expr.floor(whole)
    nearest = select(whole - nearest > 0.5, nearest + 1.0, nearest)
    nearest = select(whole.eq(0.0), copysign(whole.const(0.0), x / y), nearest)
    return select(y.eq(0.0), x / y, nearest)


def _safe_divisor(x: Scalar, y: Scalar) -> Scalar:
    """y, but 1 where the machine would trap."""
    trap = y.eq(0)
    if x.kind.signed:
        trap = trap | y.eq(-1)
    return select(trap, 1, y)


def _truncated_quotient(x: Scalar, y: Scalar) -> Scalar:
    """x / y towards zero; y is neither 0 nor -1.

    There is no vector instruction for integers. In floats of twice the width the quotient, rounded and truncated, is
    exact: it is never closer to the next integer than one unit of the dividend.
    """
    if x.kind.width == 64:
        return _quotient_64(x, y) if register_bits() == 512 else x.divide_integer(y)
    wide: Kind = F32 if x.kind.width < 32 else F64
    return (x.to(wide) / y.to(wide)).to(x.kind)


_BELOW = 1.0 - 2.0**-50  # outweighs the roundings of two conversions, a division and a product


def _quotient_64(x: Scalar, y: Scalar) -> Scalar:
    """Two divisions in float64, each rounded down, and one unit where that is still missing.

    Only AVX-512 converts vectors between 64-bit integers and floats.
    """
    signed = x.kind.signed
    a, b = ((select(v < 0, -v, v) if signed else v).as_unsigned() for v in (x, y))
    d = b.to(F64)
    q = (a.to(F64) / d * _BELOW).to(a.kind)
    r = a - q * b  # at most 2**15 b
    more = (r.to(F64) / d * _BELOW).to(a.kind)
    q = q + more + select(r - more * b >= b, a.const(1), 0)
    return select((x ^ y) < 0, -q, q).as_signed() if signed else q


def _int_divmod(x: Scalar, y: Scalar, *, towards_zero: bool = False) -> tuple[Scalar, Scalar]:
    d = _safe_divisor(x, y)
    q = _truncated_quotient(x, d)
    r = x - q * d
    if x.kind.signed:
        if not towards_zero:
            down = r.ne(0) & ((r ^ d) < 0)
            q, r = select(down, q - 1, q), select(down, r + d, r)
        minus_one = y.eq(-1)
        q, r = select(minus_one, -x, q), select(minus_one, 0, r)
    zero = y.eq(0)
    return select(zero, 0, q), select(zero, 0, r)


@function(INTEGERS, name="floor_divide")
def floor_divide_integer(x: Scalar, y: Scalar) -> Scalar:
    return _int_divmod(x, y)[0]


@function(INTEGERS, name="remainder")
def remainder_integer(x: Scalar, y: Scalar) -> Scalar:
    return _int_divmod(x, y)[1]


@function(INTEGERS, name="fmod")
def fmod_integer(x: Scalar, y: Scalar) -> Scalar:
    return _int_divmod(x, y, towards_zero=True)[1]


@function(INTEGERS, small=True)
def left_shift(x: Scalar, n: Scalar) -> Scalar:
    """x << n; 0 where n is negative or not below the width."""
    inside = n.as_unsigned() < x.kind.width
    return select(inside, x << select(inside, n, 0), 0)


@function(INTEGERS, small=True)
def right_shift(x: Scalar, n: Scalar) -> Scalar:
    """x >> n; all sign where n is negative or not below the width."""
    inside = n.as_unsigned() < x.kind.width
    return x >> select(inside, n, x.kind.width - 1) if x.kind.signed else select(inside, x >> select(inside, n, 0), 0)


@function(INTEGERS, small=True, result=U8)
def popcount(x: Scalar) -> Scalar:
    """The one-bits of |x|, as `np.bitwise_count` counts them."""
    a = select(x < 0, -x, x) if x.kind.signed else x
    count = x.body.intrinsic(f"llvm.ctpop.i{x.kind.width}", x.kind, [a])
    return count.to(U8)


@function(INTEGERS, name="pow")
def pow_integer(x: Scalar, n: Scalar) -> Scalar:
    """x**n modulo 2**width by repeated squaring; a negative n truncates: 1 and -1 stay, everything else is 0."""
    body, builder = x.body, x.body.builder
    entry = builder.block
    loop, done = builder.append_basic_block("square"), builder.append_basic_block("powered")
    builder.branch(loop)
    builder.position_at_end(loop)
    llvm = body.llvm_type(x.kind)
    result, base, left = (Scalar(body, x.kind, builder.phi(llvm)) for _ in range(3))
    product = select((left & 1).ne(0), result * base, result)
    square, rest = base * base, left.shift_right_logical(1)
    for phi, first, then in ((result, x.const(1), product), (base, x, square), (left, n, rest)):
        phi.value.add_incoming(first.value, entry)
        phi.value.add_incoming(then.value, loop)
    builder.cbranch(rest.ne(0).value, loop, done)
    builder.position_at_end(done)
    if not x.kind.signed:
        return product
    unit = select(x.eq(1) | x.eq(-1), product, 0)
    return select(n < 0, unit, product)
