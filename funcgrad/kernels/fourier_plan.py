"""How Fourier transforms are divided: what the graph and the runtime have to agree on."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["LANES", "LONGEST", "PRIMES", "FourierPass", "factors", "smooth"]

PRIMES = (2, 3, 5, 7, 11, 13)
"""Factors of the lengths for which there are transforms of our own."""
LANES = 16
"""Enough transforms to do them side by side, on any machine."""
LONGEST = 1 << 13
"""Elements of transforms that are done so: a tile of longer ones would leave the second-level cache."""


class FourierPass(NamedTuple):
    """Transforms along one axis: ``outer`` times ``inner`` of them; strides (outer, inner, element) in elements.

    ``kind`` is ``FFT``, ``IFFT``, ``RFFT`` or ``IRFFT``; ``n`` the length of the complex transform that is meant; of
    the output the stride along ``inner`` is 1 (where ``inner`` is not 1). If ``weights`` is not 0, result k of
    transform j of ``inner`` is multiplied by ``exp(-2πi j k / weights)`` (``IFFT``: its conjugate); ``n`` is smooth
    and at most `LONGEST` then, and ``inner`` at least `LANES`.
    """

    kind: str
    n: int
    outer: int
    inner: int
    strides_in: tuple[int, int, int]
    strides_out: tuple[int, int, int]
    weights: int = 0

    @property
    def counts(self) -> tuple[int, int]:
        """Elements of one transform's input and output."""
        half = self.n // 2 + 1
        return (half if self.kind == "IRFFT" else self.n), (half if self.kind == "RFFT" else self.n)


def smooth(n: int) -> bool:
    """Whether ``n`` has no other prime factors than `PRIMES`."""
    for p in PRIMES:
        while n % p == 0:
            n //= p
    return n == 1


def factors(n: int) -> tuple[int, int]:
    """Two factors of ``n`` as close to each other as may be."""
    first = next(k for k in range(math.isqrt(n), 0, -1) if n % k == 0)
    return first, n // first
