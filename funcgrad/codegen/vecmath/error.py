"""erf and erfc.

Near zero erf(x) = x + x P(x**2). Elsewhere erfc(a) = e**(-a**2) erfcx(a) for a = |x|, where (1 + 2 a) erfcx(a) is
so smooth that one polynomial in t = (a - c) / (a + c) serves the whole half line.
"""

from __future__ import annotations

from .exponential import CONSTANTS as EXP
from .exponential import exp, exp_less_one, exp_parts, power_of_two, reduce_exp, reduction_tail, scale
from .expr import F32, F64, Scalar, copysign, divide, fabs, fma, horner, select
from .registry import function

_h = float.fromhex
NEAR = {  # erf(x) / x - 1 in x**2, |x| <= 1
    32: tuple(
        map(
            _h,
            (
                "0x1.06eba8p-3",
                "-0x1.81273ep-2",
                "0x1.ce2ce6p-4",
                "-0x1.b7f71ap-6",
                "0x1.53f224p-8",
                "-0x1.a3515cp-11",
                "0x1.4771f0p-14",
            ),
        )
    ),
    64: tuple(
        map(
            _h,
            (
                "0x1.06eba8214db69p-3",
                "-0x1.812746b037a25p-2",
                "0x1.ce2f21a0458dcp-4",
                "-0x1.b82ce31354f7cp-6",
                "0x1.565bcd2c6cbb5p-8",
                "-0x1.c02db9357c715p-11",
                "0x1.f9a3b9aaacb55p-14",
                "-0x1.f4dcf93eecc53p-17",
                "0x1.ba698ab250225p-20",
                "-0x1.639539f5a1c83p-23",
                "0x1.133b739c687c8p-26",
                "-0x1.c570912407e47p-30",
                "0x1.3cadaa83c6e78p-33",
            ),
        )
    ),
}
FAR = {  # (1 + 2 a) erfcx(a) in t = (a - 3) / (a + 3), 1 <= a <= 4 or 6: enough for erf, which is nearly 1 there
    32: tuple(
        map(
            _h,
            (
                "0x1.40c522p+0",
                "-0x1.15c086p-3",
                "-0x1.85a60ap-5",
                "0x1.0981eep-3",
                "-0x1.e82554p-4",
                "0x1.19071cp-4",
                "-0x1.8d4b0ep-6",
            ),
        )
    ),
    64: tuple(
        map(
            _h,
            (
                "0x1.40c522d7e4988p+0",
                "-0x1.15c084bb9ea7cp-3",
                "-0x1.85a15c58acdb3p-5",
                "0x1.098366a5c9726p-3",
                "-0x1.e88b8039a7f28p-4",
                "0x1.17ca286dd3472p-4",
                "-0x1.8574c4923f6fap-6",
                "0x1.4b886ed883676p-9",
                "0x1.ef1cbbcf9b8b1p-10",
                "-0x1.98e14bf211715p-11",
                "-0x1.b9d1466973d1cp-14",
                "0x1.06c2fed85adedp-13",
                "0x1.9cb76b4c975afp-18",
                "-0x1.4c429d75dcfe1p-16",
                "-0x1.01c5760806f7fp-18",
            ),
        )
    ),
}
FAR_CENTRE = 3.0
FAR_END = {32: 4.0, 64: 6.0}  # where erf rounds to 1
TAIL = {  # the same in t = (a - 4) / (a + 4), 0.49 <= a <= 11 or 28, for erfc; both used in float64
    32: tuple(
        map(
            _h,
            (
                "0x1.3ba59169d42a9p+0",
                "-0x1.1df1a650710e1p-3",
                "0x1.f7f766fe261aap-7",
                "0x1.16ea3495687afp-4",
                "-0x1.9de131cae89dep-4",
                "0x1.801365647894bp-4",
                "-0x1.0f651defce197p-4",
                "0x1.2f0b5ec2df766p-5",
                "-0x1.0fad47a407cebp-6",
                "0x1.593a50d14b81fp-8",
            ),
        )
    ),
    64: tuple(
        map(
            _h,
            (
                "0x1.3ba5916e9fd7fp+0",
                "-0x1.1df1ad154a28ep-3",
                "0x1.f7f5df66fd521p-7",
                "0x1.16ecefcfa532ap-4",
                "-0x1.9ddb23c3e7a51p-4",
                "0x1.7fee004e13772p-4",
                "-0x1.0fb06dfe6f3bbp-4",
                "0x1.3079edf652b33p-5",
                "-0x1.0962387ce21c2p-6",
                "0x1.49c672986df4bp-8",
                "-0x1.8d4aa22260e62p-11",
                "-0x1.a1df36cfc3422p-13",
                "0x1.3be0e1e87e694p-13",
                "-0x1.995694562e1ddp-16",
                "-0x1.78a5a3f0de21cp-17",
                "0x1.7f05bc85d306ep-18",
                "0x1.42064d86407c5p-22",
                "-0x1.b8c21be10d276p-21",
                "0x1.1e916fd8a3321p-24",
                "0x1.c0b5050100b69p-24",
                "-0x1.a037f75d383a6p-27",
                "-0x1.5a6480f685854p-27",
            ),
        )
    ),
}
TAIL_CENTRE = 4.0
TAIL_END = {32: 11.0, 64: 28.0}  # where erfc rounds to 0


def _between(a: Scalar, low: float, high: float) -> Scalar:
    a = select(a < low, low, a)
    return select(a > high, high, a)


@function([F64], name="erf")
def erf_f64(x: Scalar) -> Scalar:
    """The exponential is spelled as in erf's derivative, so that a kernel with both computes it once."""
    a = fabs(x)
    near = fma(x, horner(x * x, NEAR[64]), x)
    b = _between(a, 1.0, FAR_END[64])
    d, e = b + FAR_CENTRE, fma(b, 2.0, 1.0)
    inverse = 1.0 / (d * e)
    t = (b - FAR_CENTRE) * e * inverse
    complement = exp(-x * x) * (horner(t, FAR[64]) * (d * inverse))
    return select(a < 1.0, near, copysign(1.0 - complement, x))


@function([F32], name="erf")
def erf_f32(x: Scalar) -> Scalar:
    width = x.kind.width
    a = fabs(x)
    near = fma(x, horner(x * x, NEAR[width]), x)
    b = _between(a, 1.0, FAR_END[width])
    d, e = b + FAR_CENTRE, fma(b, 2.0, 1.0)
    inverse = 1.0 / (d * e)
    t = (b - FAR_CENTRE) * e * inverse
    _, n_bits, r = reduce_exp(-(b * b))
    two_n = power_of_two(n_bits, width)
    complement = fma(exp_less_one(r), two_n, two_n) * (horner(t, FAR[width]) * (d * inverse))
    return select(a < 1.0, near, copysign(1.0 - complement, x))


def _complement_f64(a: Scalar) -> Scalar:
    """erfc(a) for 0.5 <= a <= 28. What a**2 and each factor lose to rounding is carried along."""
    d, e = a + TAIL_CENTRE, fma(a, 2.0, 1.0)
    e_tail = fma(a, 2.0, 1.0 - e)
    g = horner((a - TAIL_CENTRE) / d, TAIL[64])
    square = a * a
    square_tail = fma(a, a, -square)
    n, n_bits, r = reduce_exp(-square)
    tail = reduction_tail(-square, n, r) - square_tail
    whole = r + tail
    head, rest = exp_parts(whole, (r - whole) + tail)
    y = head * g
    y_tail = fma(rest, g, fma(head, g, -y))
    return scale(divide(y, y_tail, e, e_tail), n, n_bits)


@function([F64], name="erfc")
def erfc_f64(x: Scalar) -> Scalar:
    a = fabs(x)
    far = _complement_f64(_between(a, 0.5, TAIL_END[64]))
    near = fma(x, horner(x * x, NEAR[64]), x)
    return select(a < 0.5, 1.0 - near, select(x < 0.0, 2.0 - far, far))


@function([F32], name="erfc")
def erfc_f32(x: Scalar) -> Scalar:
    """In float64, where rounding needs no care and the polynomials of float32 suffice."""
    wide = x.to(F64)
    a = _between(fabs(wide), 0.5, TAIL_END[32])
    d, e = a + TAIL_CENTRE, fma(a, 2.0, 1.0)
    inverse = 1.0 / (d * e)
    _, n_bits, r = reduce_exp(-(a * a))
    two_n = power_of_two(n_bits, 64)
    power = fma(fma(r * r, horner(r, EXP[32].expm1), r), two_n, two_n)
    far = power * (horner((a - TAIL_CENTRE) * e * inverse, TAIL[32]) * (d * inverse))
    far = select(wide < 0.0, 2.0 - far, far).to(F32)
    near = fma(x, horner(x * x, NEAR[32]), x)
    return select(fabs(x) < 0.5, 1.0 - near, far)
