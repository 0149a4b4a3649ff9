"""sin, cos and tan for every finite argument.

x = q pi/2 + r with |r| <= pi/4; the parity of q picks the sine or the cosine polynomial of r and its next bit the
sign. q pi/2 is subtracted with fused steps, and r kept as head and tail, so that r keeps full relative accuracy next
to the zeros. Beyond `LIMIT` this would fail: the bits of 2/pi that matter are then picked out of a long table (Payne
and Hanek), in wide integers, behind a branch that is practically never taken. float32 has sine and cosine by one
polynomial for |r| <= pi/2, and its tangent is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .expr import F32, F64, U64, Kind, Scalar, divide, fabs, fma, horner, round_to_integer, select
from .rare import beyond, choose
from .registry import function

_h = float.fromhex
PI = (_h("0x1.921fb54442d18p+1"), _h("0x1.1a62633145c07p-53"), _h("-0x1.f1976b7ed8fbcp-109"))
TWO_OVER_PI = _h("0x1.45f306dc9c883p-1")
LIMIT = 2.0**40

# (sin r - r) / r**3 in r**2, and (cos r - 1 + r**2 / 2) / r**4 in r**2, for |r| <= pi/4
SIN = tuple(
    map(
        _h,
        (
            "-0x1.5555555555548p-3",
            "0x1.111111110f713p-7",
            "-0x1.a01a019be28dap-13",
            "0x1.71de354d4e708p-19",
            "-0x1.ae5e43e55a613p-26",
            "0x1.5d88c0829405fp-33",
        ),
    )
)
COS = tuple(
    map(
        _h,
        (
            "0x1.555555555554bp-5",
            "-0x1.6c16c16c14ff4p-10",
            "0x1.a01a019c88a36p-16",
            "-0x1.27e4f7ea95faap-22",
            "0x1.1ee9d59ae89d0p-29",
            "-0x1.8fa29a2c3e5bdp-37",
        ),
    )
)
# For float32. (sin r - r) / r**3 in r**2 for |r| <= 1.01 pi/2: minimax in the relative error of the sine, 2**-26.98.
SIN_SHORT = tuple(map(_h, ("-0x1.55554ap-3", "0x1.110e86p-7", "-0x1.9f6132p-13", "0x1.5ce5acp-19")))
# pi as three float32, the first a multiple of 2**-22; below LIMIT_SHORT, q is off by less than 0.006.
PI_SHORT = (_h("0x1.921fb6p+1"), _h("-0x1.777a5cp-24"), _h("-0x1.ee59dap-49"))
LIMIT_SHORT = 2.0**18
# tan r = r (1 + p z) / (1 + q z + s z**2), z = r**2, for |r| <= pi/4: minimax in the relative error, 2**-25.8.
TAN_SHORT = (_h("-0x1.88553ddb117d8p-4"), (_h("-0x1.b76ac6d71ad10p-2"), _h("0x1.3e324171fc7e7p-7")))

# Payne-Hanek: 2/pi to FRACTION bits, read as windows of WINDOW bits.
_FRACTION, _WINDOW = 1280, 192
_U192, _U256 = Kind("u192", "u", 192), Kind("u256", "u", 256)


class Reduced(NamedTuple):
    """q (its low bits count) and the rest r + tail."""

    q: Scalar
    r: Scalar
    tail: Scalar


def reduce_moderate(x: Scalar) -> Reduced:
    """For |x| < limit: q pi/2 is subtracted in three parts, of which the first step is exact."""
    half_pi = [part / 2 for part in PI]
    q, q_bits = round_to_integer(x, TWO_OVER_PI)
    first = fma(q, -half_pi[0], x)
    second = q * half_pi[1]
    lost = fma(q, half_pi[1], -second)
    r = first - second
    tail = fma(q, -half_pi[2], ((first - r) - second) - lost)
    return Reduced(q_bits, r, tail)


def two_over_pi_bits() -> int:
    """floor(2/pi * 2**FRACTION), by Machin's formula in integers."""
    guard = 64
    one = 1 << (_FRACTION + guard)

    def arctan_inverse(n: int) -> int:
        total, power, k = 0, one // n, 1
        while power:
            total += power // k if k % 4 == 1 else -(power // k)
            power //= n * n
            k += 2
        return total

    pi = 4 * (4 * arctan_inverse(5) - arctan_inverse(239))
    return ((one << (_FRACTION + guard + 1)) // pi) >> guard


def _table(body: Any) -> Any:
    """2/pi as a little-endian byte string in the module, zero-padded so that every window may be loaded."""
    name = "fg.two_over_pi"
    made = body.module.globals.get(name)
    if made is None:
        data = two_over_pi_bits().to_bytes(_FRACTION // 8 + 32, "little")
        content = body.ir.Constant(body.ir.ArrayType(body.ir.IntType(8), len(data)), bytearray(data))
        made = body.ir.GlobalVariable(body.module, content.type, name)
        made.initializer, made.global_constant, made.linkage = content, True, "internal"
    return made


def reduce_huge(x: Scalar) -> Reduced:
    """Payne and Hanek for a float64 x >= limit: x = m 2**e, times the window of 2/pi whose bits matter modulo 4."""
    body = x.body
    ir, builder = body.ir, body.builder
    pattern = x.bits().as_unsigned()
    significand = (pattern & ((1 << 52) - 1)) | (1 << 52)
    exponent = ((pattern >> 52) & 0x7FF) - 1075
    # The window holds 2/pi 2**e modulo 4: two integer bits above WINDOW - 2 bits of fraction.
    shift = body.constant(U64, _FRACTION - (_WINDOW - 2)) - exponent
    shift = select(shift > _FRACTION - 128, _FRACTION - 128, shift)  # only where the value is not wanted
    address = builder.gep(
        builder.bitcast(_table(body), ir.IntType(8).as_pointer()), [(shift >> 3).value], source_etype=ir.IntType(8)
    )
    wide = ir.IntType(_U256.width)
    window = Scalar(body, _U256, builder.load(builder.bitcast(address, wide.as_pointer()), align=1, typ=wide))
    product = (window >> (shift & 7).to(_U256)).to(_U192) * significand.to(_U192)
    # Round to the nearest quadrant; what is left is a signed fraction of WINDOW - 2 bits.
    q = (product + (1 << (_WINDOW - 3))) >> (_WINDOW - 2)
    left = product - (q << (_WINDOW - 2))
    negative = (left >> (_WINDOW - 1)).ne(0)
    magnitude = select(negative, -left, left)
    zeros = Scalar(body, _U192, builder.ctlz(magnitude.value, ir.Constant(ir.IntType(1), 1)))
    normal = magnitude << zeros
    top = (normal >> (_WINDOW - 53)).to(U64)
    below = ((normal >> (_WINDOW - 106)).to(U64)) & ((1 << 53) - 1)
    # magnitude = (top + below 2**-53) 2**(WINDOW - 53 - zeros), of which one quadrant is 2**(WINDOW - 2).
    head = top.to(F64)
    rest = below.to(F64) * 2.0**-53
    unit = (((body.constant(U64, 1023 - 53 + 2) - zeros.to(U64)) << 52).as_signed()).as_float()
    half_pi, half_pi_tail = PI[0] / 2, PI[1] / 2
    high = head * half_pi
    low = fma(head, half_pi, -high) + fma(head, half_pi_tail, rest * half_pi)
    r = high + low
    tail = (high - r) + low
    flip = select(negative, -unit, unit)
    quadrant = q.to(U64).as_signed()
    sign_flip = pattern.as_signed() < 0
    flip = select(sign_flip, -flip, flip)
    return Reduced(select(sign_flip, -quadrant, quadrant), r * flip, tail * flip)


def _sin_poly(r: Scalar, tail: Scalar, z: Scalar) -> Scalar:
    return r + fma(r * z, horner(z, SIN), tail)


def _cos_parts(r: Scalar, tail: Scalar, z: Scalar) -> tuple[Scalar, Scalar]:
    """cos(r + tail) as head and tail."""
    half = z * 0.5
    head = 1.0 - half
    lost = (1.0 - head) - half
    rest = fma(z * z, horner(z, COS), fma(-r, tail, lost))
    value = head + rest
    return value, (head - value) + rest


def _cos_poly(r: Scalar, tail: Scalar, z: Scalar) -> Scalar:
    return _cos_parts(r, tail, z)[0]


def _parity_and_values(at: Reduced) -> tuple[Scalar, Scalar, Scalar]:
    """(q is odd, sin r, cos r)."""
    z = at.r * at.r
    return (at.q & 1).ne(0), _sin_poly(at.r, at.tail, z), _cos_poly(at.r, at.tail, z)


def _with_sign_bit(y: Scalar, quadrant: Scalar) -> Scalar:
    """y negated where bit 1 of the quadrant is set."""
    width = y.kind.width
    return (y.bits() ^ ((quadrant & 2) << (width - 2))).as_float()


def _sin_of(at: Reduced) -> Scalar:
    odd, sine, cosine = _parity_and_values(at)
    return _with_sign_bit(select(odd, cosine, sine), at.q)


def _cos_of(at: Reduced) -> Scalar:
    odd, sine, cosine = _parity_and_values(at)
    return _with_sign_bit(select(odd, sine, cosine), at.q + 1)


def _tan_of(at: Reduced) -> Scalar:
    z = at.r * at.r
    odd = (at.q & 1).ne(0)
    rise = fma(at.r * z, horner(z, SIN), at.tail)
    sine = at.r + rise
    sine_tail = (at.r - sine) + rise
    cosine, cosine_tail = _cos_parts(at.r, at.tail, z)
    return divide(
        select(odd, -cosine, sine),
        select(odd, -cosine_tail, sine_tail),
        select(odd, sine, cosine),
        select(odd, sine_tail, cosine_tail),
    )


def _whole_range(x: Scalar, common: Scalar, name: str, of: Callable[[Reduced], Scalar]) -> Scalar:
    """`common`, or where |x| is beyond the moderate reduction (or not finite) `of` the huge one."""
    return beyond(x, LIMIT, common, f"{name}_huge", lambda far: _far(far, of))


def _whole_range_short(x: Scalar, common: Scalar, name: str, of: Callable[[Reduced], Scalar]) -> Scalar:
    """The same for float32 below `LIMIT_SHORT`; from there to `LIMIT` by float64."""

    def long_way(far: Scalar) -> Scalar:
        moderate = fabs(far) < LIMIT
        return choose(moderate, lambda: of(reduce_moderate(far.to(F64))).to(F32), lambda: _far(far, of))

    return beyond(x, LIMIT_SHORT, common, f"{name}_far", long_way)


def _far(x: Scalar, of: Callable[[Reduced], Scalar]) -> Scalar:
    value = of(reduce_huge(x.to(F64))).to(x.kind)
    return select(fabs(x) < float("inf"), value, float("nan"))


def _sin_short(x: Scalar, q: Scalar, quadrant: Scalar) -> Scalar:
    """The sine of r = x - q pi, a float32, negated where the quadrant is odd; q is a multiple of 1/2.

    The first step is exact: both operands are multiples of 2**-23, and so is r, which has no more than 24 bits of it.
    The second rounds once, and the third changes more than the last bit only of small r, whose sine is about r.
    """
    r = fma(q, -PI_SHORT[2], fma(q, -PI_SHORT[1], fma(q, -PI_SHORT[0], x)))
    z = r * r
    y = fma(r * z, horner(z, SIN_SHORT), r)
    return (y.bits() ^ (quadrant << 31)).as_float()


def tan_moderate(x: Scalar) -> Scalar:
    """The tangent of a float64 below `LIMIT`."""
    return _tan_of(reduce_moderate(x))


@function([F64], name="sin")
def sin_f64(x: Scalar) -> Scalar:
    return copysign_of_zero(_whole_range(x, _sin_of(reduce_moderate(x)), "sin", _sin_of), x)


@function([F64], name="cos")
def cos_f64(x: Scalar) -> Scalar:
    return _whole_range(x, _cos_of(reduce_moderate(x)), "cos", _cos_of)


@function([F64], name="tan")
def tan_f64(x: Scalar) -> Scalar:
    return copysign_of_zero(_whole_range(x, tan_moderate(x), "tan", _tan_of), x)


@function([F32], name="sin")
def sin_f32(x: Scalar) -> Scalar:
    q, q_bits = round_to_integer(x, TWO_OVER_PI / 2)
    return copysign_of_zero(_whole_range_short(x, _sin_short(x, q, q_bits), "sin", _sin_of), x)


@function([F32], name="cos")
def cos_f32(x: Scalar) -> Scalar:
    """cos x = (-1)**(q + 1) sin r for x = (q + 1/2) pi + r."""
    q, q_bits = round_to_integer(fma(x, TWO_OVER_PI / 2, -0.5))
    return _whole_range_short(x, _sin_short(x, q + 0.5, q_bits + 1), "cos", _cos_of)


# A float32 is no closer than 2**-31 to a nonzero multiple of pi/2, so in float64 two parts of pi leave r more than
# precise enough, and no tails are needed: that is cheaper than float32 with them, and serves up to `LIMIT`.


@function([F32], name="tan")
def tan_f32(x: Scalar) -> Scalar:
    wide = x.to(F64)
    q, q_bits = round_to_integer(wide, TWO_OVER_PI)
    r = fma(q, -PI[1] / 2, fma(q, -PI[0] / 2, wide))
    z = r * r
    up, down = TAN_SHORT
    n = fma(r * z, up, r)
    d = fma(z, fma(z, down[1], down[0]), 1.0)
    odd = (q_bits & 1).ne(0)
    n, d = select(odd, -d, n), select(odd, n, d)
    y = (n / d).to(F32)
    return copysign_of_zero(_whole_range(x, y, "tan", _tan_of), x)


def copysign_of_zero(y: Scalar, x: Scalar) -> Scalar:
    """y, but -0.0 where x is."""
    return select(x.eq(0.0), x, y)
