"""sin, cos and tan for every finite argument.

x = q pi/2 + r with |r| <= pi/4; the parity of q picks the sine or the cosine polynomial of r and its next bit the
sign. q pi/2 is subtracted with fused steps, and r kept as head and tail, so that r keeps full relative accuracy next
to the zeros. Beyond `CONSTANTS.limit` this would fail: the bits of 2/pi that matter are then picked out of a long
table (Payne and Hanek), in wide integers, behind a branch that is practically never taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .expr import F64, U64, Kind, Scalar, divide, fabs, fma, horner, round_to_integer, select
from .rare import beyond
from .registry import function


class _Constants(NamedTuple):
    two_over_pi: float
    half_pi: tuple[float, float, float]
    sin: tuple[float, ...]  # (sin r - r) / r**3 in r**2
    cos: tuple[float, ...]  # (cos r - 1 + r**2 / 2) / r**4 in r**2
    limit: float


_h = float.fromhex
CONSTANTS = {
    32: _Constants(
        two_over_pi=_h("0x1.45f306p-1"),
        half_pi=(_h("0x1.921fb6p+0"), _h("-0x1.777a5cp-25"), _h("-0x1.ee59dap-50")),
        sin=tuple(map(_h, ("-0x1.555546p-3", "0x1.11076ep-7", "-0x1.994e42p-13"))),
        cos=tuple(map(_h, ("0x1.55554ap-5", "-0x1.6c0c1ap-10", "0x1.99e0e2p-16"))),
        limit=2.0**15,
    ),
    64: _Constants(
        two_over_pi=_h("0x1.45f306dc9c883p-1"),
        half_pi=(_h("0x1.921fb54442d18p+0"), _h("0x1.1a62633145c07p-54"), _h("-0x1.f1976b7ed8fbcp-110")),
        sin=tuple(
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
        ),
        cos=tuple(
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
        ),
        limit=2.0**40,
    ),
}

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
    c = CONSTANTS[x.kind.width]
    q, q_bits = round_to_integer(x * c.two_over_pi)
    first = fma(q, -c.half_pi[0], x)
    second = q * c.half_pi[1]
    lost = fma(q, c.half_pi[1], -second)
    r = first - second
    tail = fma(q, -c.half_pi[2], ((first - r) - second) - lost)
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
    half_pi = CONSTANTS[64].half_pi
    high = head * half_pi[0]
    low = fma(head, half_pi[0], -high) + fma(head, half_pi[1], rest * half_pi[0])
    r = high + low
    tail = (high - r) + low
    flip = select(negative, -unit, unit)
    quadrant = q.to(U64).as_signed()
    sign_flip = pattern.as_signed() < 0
    flip = select(sign_flip, -flip, flip)
    return Reduced(select(sign_flip, -quadrant, quadrant), r * flip, tail * flip)


def _sin_poly(r: Scalar, tail: Scalar, z: Scalar) -> Scalar:
    return r + fma(r * z, horner(z, CONSTANTS[r.kind.width].sin), tail)


def _cos_parts(r: Scalar, tail: Scalar, z: Scalar) -> tuple[Scalar, Scalar]:
    """cos(r + tail) as head and tail."""
    half = z * 0.5
    head = 1.0 - half
    lost = (1.0 - head) - half
    rest = fma(z * z, horner(z, CONSTANTS[r.kind.width].cos), fma(-r, tail, lost))
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
    rise = fma(at.r * z, horner(z, CONSTANTS[z.kind.width].sin), at.tail)
    sine = at.r + rise
    sine_tail = (at.r - sine) + rise
    cosine, cosine_tail = _cos_parts(at.r, at.tail, z)
    return divide(
        select(odd, -cosine, sine),
        select(odd, -cosine_tail, sine_tail),
        select(odd, sine, cosine),
        select(odd, sine_tail, cosine_tail),
    )


def _whole_range(x: Scalar, name: str, of: Callable[[Reduced], Scalar]) -> Scalar:
    """The function by the moderate reduction, or where |x| is beyond it (or not finite) by the huge one."""

    def huge(far: Scalar) -> Scalar:
        value = of(reduce_huge(far.to(F64))).to(far.kind)
        return select(fabs(far) < float("inf"), value, float("nan"))

    return beyond(x, CONSTANTS[x.kind.width].limit, of(reduce_moderate(x)), f"{name}_huge", huge)


@function()
def sin(x: Scalar) -> Scalar:
    return copysign_of_zero(_whole_range(x, "sin", _sin_of), x)


@function()
def cos(x: Scalar) -> Scalar:
    return _whole_range(x, "cos", _cos_of)


@function()
def tan(x: Scalar) -> Scalar:
    return copysign_of_zero(_whole_range(x, "tan", _tan_of), x)


def copysign_of_zero(y: Scalar, x: Scalar) -> Scalar:
    """y, but -0.0 where x is."""
    return select(x.eq(0.0), x, y)
