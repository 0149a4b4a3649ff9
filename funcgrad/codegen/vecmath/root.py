"""1 / sqrt(x) without a root and without a division.

The unit that divides and takes roots takes a vector at a time, for ten to forty cycles, while multiplications go
through two at a cycle. AVX-512 has an estimate of 1 / sqrt(x) that is good to 14 bits, for subnormal numbers too; a
few fused steps make it as good as a rounded quotient of a rounded root. Pairwise distances, forces and normalisations
are bound by just this.
"""

from __future__ import annotations

from . import avx512
from .expr import F32, Scalar, fma, select, sqrt
from .registry import function


@function()
def rsqrt(x: Scalar) -> Scalar:
    """Within 1.4 ulp: y (1 - e)**-1/2 for the estimate y and e = 1 - x y**2, as a series in e, |e| < 2**-13."""
    if not avx512.available():
        return 1.0 / sqrt(x)
    y = avx512.inverse_root_estimate(x)
    e = fma(-(x * y), y, 1.0)
    if x.kind == F32:
        better = fma(y * 0.5, e, y)
    else:
        better = fma(y * e, fma(fma(e, 0.3125, 0.375), e, 0.5), y)
    return select(e.eq(e), better, y)  # of zeros and infinities the estimate is the value
