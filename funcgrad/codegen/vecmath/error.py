"""erf and erfc.

Near zero erf(x) = x + x P(x**2). Elsewhere erfc(a) = e**(-a**2) g(a) for a = |x|, where g, the scaled complement,
is smooth enough for one polynomial in t = (a - 3) / (a + 3) over the whole half line.
"""
from __future__ import annotations

from .exponential import CONSTANTS as EXP
from .exponential import exp_parts, power_of_two, reduce_exp, reduction_tail, scale
from .expr import F32, F64, Scalar, copysign, fabs, fma, horner, select
from .registry import function

_h = float.fromhex
NEAR = {  # erf(x) / x - 1 in x**2, |x| <= 1
    32: tuple(map(_h, (
        "0x1.06eba8p-3", "-0x1.81273ep-2", "0x1.ce2ce6p-4", "-0x1.b7f71ap-6", "0x1.53f224p-8", "-0x1.a3515cp-11",
        "0x1.4771f0p-14",
    ))),
    64: tuple(map(_h, (
        "0x1.06eba8214db69p-3", "-0x1.812746b037a25p-2", "0x1.ce2f21a0458dcp-4", "-0x1.b82ce31354f7cp-6",
        "0x1.565bcd2c6cbb5p-8", "-0x1.c02db9357c715p-11", "0x1.f9a3b9aaacb55p-14", "-0x1.f4dcf93eecc53p-17",
        "0x1.ba698ab250225p-20", "-0x1.639539f5a1c83p-23", "0x1.133b739c687c8p-26", "-0x1.c570912407e47p-30",
        "0x1.3cadaa83c6e78p-33",
    ))),
}
SCALED = {  # erfcx(a) in t = (a - 3) / (a + 3), 0.49 <= a <= 28; both used in float64
    32: tuple(map(_h, (
        "0x1.6e9827d2a877dp-3", "-0x1.4e102b98c37bcp-2", "0x1.f6ff1feb884e2p-3", "-0x1.336ffd1970464p-3",
        "0x1.258b25378c6d4p-4", "-0x1.8fa53ed6d9c33p-6", "0x1.17be0199ba66bp-8", "0x1.72fb71c345648p-11",
        "-0x1.37b127751d926p-11", "0x1.77cefe70f0e8bp-15", "0x1.ee7e41dc26364p-15", "-0x1.6a9c20041614fp-17",
        "-0x1.d731bd4131cd3p-19",
    ))),
    64: tuple(map(_h, (
        "0x1.6e9827d229d2dp-3", "-0x1.4e102b9cf8513p-2", "0x1.f6ff204105975p-3", "-0x1.336ffbef08b4dp-3",
        "0x1.258b13b017a0dp-4", "-0x1.8fa58eb5d9050p-6", "0x1.17c838ee92a84p-8", "0x1.73101e774cf75p-11",
        "-0x1.39084c5d418a3p-11", "0x1.7ba104ed65787p-15", "0x1.0cac356196ca9p-14", "-0x1.af87051ec89d5p-17",
        "-0x1.0bb3e2c4bc447p-17", "0x1.1c8eb624468f8p-19", "0x1.503e70a5c33acp-20", "-0x1.3bf695471e7eep-22",
        "-0x1.f8722617bcb83p-23", "0x1.f3f4440ba1bc5p-26", "0x1.9556c865019f6p-25", "0x1.524690f9dc7f9p-32",
        "-0x1.34077bedebd85p-27", "-0x1.4700c0d8d2e6dp-31", "0x1.4b75e81f8e824p-30", "-0x1.35cbf59c91367p-35",
    ))),
}
_CENTRE = 3.0
_TWO_OVER_SQRT_PI = 1.1283791670955126
_ZERO_BEYOND = 28.0  # erfc is 0 in both kinds


def _near(x: Scalar) -> Scalar:
    return fma(x, horner(x * x, NEAR[x.kind.width]), x)


def _scaled_complement(a: Scalar) -> tuple[Scalar, Scalar]:
    """erfcx(a) as a value and a first-order correction for the rounding of t."""
    n, d = a - _CENTRE, a + _CENTRE
    n_tail = a - (n + _CENTRE)
    d_tail = select(a > _CENTRE, _CENTRE - (d - a), a - (d - _CENTRE))
    inverse = 1.0 / d
    t = n * inverse
    t_tail = (fma(-t, d, n) - t * d_tail + n_tail) * inverse
    g = horner(t, SCALED[64])
    slope = fma(a * 2.0, g, -_TWO_OVER_SQRT_PI) * (d * d) * (0.5 / _CENTRE)  # dg/da da/dt
    return g, slope * t_tail


def _complement_f64(a: Scalar) -> Scalar:
    """erfc(a) for 0.49 <= a <= 28."""
    g, g_tail = _scaled_complement(a)
    square = a * a
    square_tail = fma(a, a, -square)
    n, n_bits, r = reduce_exp(-square)
    tail = reduction_tail(-square, n, r) - square_tail
    whole = r + tail
    head, rest = exp_parts(whole, (r - whole) + tail)
    return scale(fma(head, g, fma(rest, g, head * g_tail)), n, n_bits)


def _complement_f32(a: Scalar) -> Scalar:
    """erfc(a) for 0.49 <= a <= 28 to float32 precision, for an a in float64."""
    t = (a - _CENTRE) / (a + _CENTRE)
    _, n_bits, r = reduce_exp(-(a * a))
    power = fma(r * r, horner(r, EXP[32].expm1), r + 1.0) * power_of_two(n_bits, 64)
    return power * horner(t, SCALED[32])


def _clipped(x: Scalar) -> Scalar:
    a = fabs(x)
    return select(a > _ZERO_BEYOND, _ZERO_BEYOND, a)


@function([F64], name="erf")
def erf_f64(x: Scalar) -> Scalar:
    a = _clipped(x)
    far = 1.0 - _complement_f64(select(a < 0.5, 0.5, a))
    return select(a < 1.0, _near(x), copysign(far, x))


@function([F64], name="erfc")
def erfc_f64(x: Scalar) -> Scalar:
    a = _clipped(x)
    far = _complement_f64(select(a < 0.5, 0.5, a))
    return select(a < 0.5, 1.0 - _near(x), select(x < 0.0, 2.0 - far, far))


@function([F32], name="erf")
def erf_f32(x: Scalar) -> Scalar:
    a = _clipped(x)
    wide = a.to(F64)
    far = (1.0 - _complement_f32(select(wide < 0.5, 0.5, wide))).to(F32)
    return select(a < 1.0, _near(x), copysign(far, x))


@function([F32], name="erfc")
def erfc_f32(x: Scalar) -> Scalar:
    wide = _clipped(x).to(F64)
    far = _complement_f32(select(wide < 0.5, 0.5, wide))
    far = select(x < 0.0, 2.0 - far, far).to(F32)
    return select(fabs(x) < 0.5, 1.0 - _near(x), far)
