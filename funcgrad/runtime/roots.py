"""Roots of unity, to the last bit or nearly so.

What is a bit off in them is off in the same way in all elements of a transform: with cosines of rounded angles, the
error of 3**12 elements is twice NumPy's. So angles are reduced to an eighth of a turn in integers, and what rounding
takes from them is put back by the derivative.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["root", "roots"]

_PI = Fraction(3141592653589793238462643383279502884197169399375105820974944592, 10**63)
_BITS = 26
"""Of the first part of an angle's unit: products with positions below 2**27 are exact."""
_FIXED = 120
"""Binary digits of series."""


def roots(powers: np.ndarray, n: int, real: np.dtype[Any]) -> np.ndarray:
    """``exp(-2πi k / n)`` as pairs of real numbers on a new last axis; ``n`` is below 2**27.

    >>> roots(np.arange(4), 8, np.dtype(np.float32))[1:3]
    array([[ 0.70710677, -0.70710677],
           [-0.        , -1.        ]], dtype=float32)
    """
    octant, rest = np.divmod(8 * (powers.astype(np.int64) % n), n)
    odd = octant % 2 == 1
    rest = np.where(odd, n - rest, rest)
    unit = _PI / (4 * n)
    scale = 2 ** (_BITS + n.bit_length())
    first = Fraction(int(unit * scale), scale)
    coarse, fine = rest * float(first), rest * float(unit - first)
    angle = coarse + fine
    lost = (coarse - angle) + fine
    c, s = np.cos(angle), np.sin(angle)
    c, s = c - s * lost, s + c * lost
    c, s = np.where(odd, s, c), np.where(odd, c, s)
    quarter = octant // 2
    return np.stack([np.choose(quarter, [c, -s, -c, s]), np.choose(quarter, [-s, -c, s, c])], -1).astype(real)


def root(k: int, n: int) -> tuple[float, float]:
    """One of them, rounded correctly: a constant that all transforms share is worth the series in integers.

    >>> root(1, 3)
    (-0.5, -0.8660254037844386)
    """
    octant, rest = divmod(8 * (k % n), n)
    if octant % 2:
        rest = n - rest
    one = 1 << _FIXED
    angle = int(_PI * rest / (4 * n) * one)
    sums, term = [one, 0], one
    for i in range(1, 40):
        term = (term * angle >> _FIXED) // i
        sums[i % 2] += -term if i & 2 else term
    c, s = [x / one for x in (sums if octant % 2 == 0 else sums[::-1])]
    return [(c, -s), (-s, -c), (-c, s), (s, c)][octant // 2]
