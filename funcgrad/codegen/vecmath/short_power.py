"""pow in float32: 2**(y log2 |x|), with log2 to some 33 bits.

With AVX-512 it is float32 throughout, 16 lanes at a time: the logarithm as head and tail, from tables that fit into
registers, and without a division. Elsewhere it is float64, which has the precision and the range to spare.
"""

from __future__ import annotations

import math

from . import avx512, logarithm
from .exponential import clamp
from .expr import F32, F64, Scalar, chain, fabs, fma, horner, rint, round_to_integer, select
from .power import is_one, signed
from .registry import function

_h = float.fromhex

# in float64 -----------------------------------------------------------------------------------------------------

# 2**r for |r| <= 1/2, minimax, relative error 2**-28.5.
EXP2 = tuple(
    map(
        _h,
        (
            "0x1p+0",
            "0x1.62e4311734136p-1",
            "0x1.ebfbe2c417f6ep-3",
            "0x1.c6ae734ae88c0p-5",
            "0x1.3b2711ac669acp-7",
            "0x1.5f7212f437ad8p-10",
            "0x1.4705af3fed240p-13",
        ),
    )
)


def _power_in_double(x: Scalar, y: Scalar) -> Scalar:
    """The edges in float32."""
    a = fabs(x)
    product = clamp(y.to(F64) * logarithm.log2_short(a.to(F64)), -200.0, 200.0)
    n, n_bits = round_to_integer(product)
    power = (horner(product - n, EXP2).bits() + (n_bits << 52)).as_float().to(F32)
    zero = a.eq(0.0)
    limit = select((y > 0.0) ^ zero, x.const(float("inf")), 0.0)
    power = select(zero | a.eq(float("inf")), limit, power)
    power = select(x.ne(x) | y.ne(y), float("nan"), power)
    return signed(x, y, select(is_one(a, y), 1.0, power))


# in float32 -----------------------------------------------------------------------------------------------------

# About 1 / m for m in [3/4, 3/2), by the first four bits of its significand: of [1, 3/2) in eight parts, then of
# [3/4, 1). So short that f = m INVERSE - 1 is exact; -0.0372 < f < 0.0625. Next to 1 it is 1, so that nothing is lost.
INVERSE = tuple(i / 64 for i in (64, 58, 56, 52, 50, 48, 46, 44, 84, 80, 78, 74, 72, 70, 68, 64))
# log2 of 1 / INVERSE as head and tail, heads so short that adding an exponent is exact. The exponents are rounded down,
# which is 1 too few for m < 1.
_LOGS = tuple(-math.log2(i) + (j >= 8) for j, i in enumerate(INVERSE))
LOG_HEAD = tuple(round(v * 2.0**15) / 2.0**15 for v in _LOGS)
LOG_TAIL = tuple(v - head for v, head in zip(_LOGS, LOG_HEAD, strict=True))
# log2(1 + f) / f for that f: C0 as head and tail, then the others rounded to float32; minimax in the relative error,
# 2**-33.7.
C0 = (_h("0x1.715476p+0"), _h("0x1.4b8bd2p-26"))
C = tuple(map(_h, ("-0x1.715476p-1", "0x1.ec7096p-2", "-0x1.715b66p-2", "0x1.27c566p-2", "-0x1.cfec34p-3")))
# 2**r for |r| <= 1/2, minimax as rounded to float32, relative error 2**-28.3.
EXP2_SHORT = tuple(
    map(
        _h,
        (
            "0x1p+0",
            "0x1.62e430p-1",
            "0x1.ebfbdcp-3",
            "0x1.c6af7ap-5",
            "0x1.3b2dd2p-7",
            "0x1.5f0948p-10",
            "0x1.417a70p-13",
        ),
    )
)


def _log2_head_tail(x: Scalar) -> tuple[Scalar, Scalar]:
    """log2 |x| as head and tail, to about 2**-32; heads -inf of zeros, inf of infinities, NaN of NaN."""
    m = avx512.significand(x)
    i = m.bits().shift_right_logical(19)
    f = fma(m, avx512.entry("inverse", INVERSE, i), -1.0)
    k = avx512.exponent(x) + avx512.entry("log_head", LOG_HEAD, i)
    # k + f (C0 + f (C1 + f rest)): what each rounded sum leaves out is the next fused step to itself.
    rest = fma(f * f, fma(f, C[4], C[3]), fma(f, C[2], C[1]))
    u = fma(f, rest, C[0])
    u_tail = fma(f, rest, C[0] - u)
    v = fma(f, u, C0[0])
    v_tail = fma(f, u_tail, fma(f, u, C0[0] - v) + C0[1])
    head = fma(f, v, k)
    tail = fma(f, v, k - head) + fma(f, v_tail, avx512.entry("log_tail", LOG_TAIL, i))
    return head, tail


def _power_by_tables(x: Scalar, y: Scalar) -> Scalar:
    """Within 1.1 ulp. Zeros, infinities, NaN and overflow take the common way: `avx512.scale` takes any n."""
    head, tail = _log2_head_tail(x)
    some = ~is_one(fabs(x), y)
    product = select(some, y * head, 0.0)
    rest = fma(y, tail, fma(y, head, -product))
    n = rint(product)
    r = select((fabs(product) < 256.0) & some, (product - n) + rest, 0.0)  # elsewhere n decides
    return signed(x, y, avx512.scale(chain(r, EXP2_SHORT), n))


@function([F32], name="pow")
def pow_f32(x: Scalar, y: Scalar) -> Scalar:
    return _power_by_tables(x, y) if avx512.available() else _power_in_double(x, y)
