"""Whether two libraries computed the same: structure, shapes, dtypes and, within a tolerance, values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["compare", "disagreements"]

# Whose result the others are held against, first come first served: NumPy has no compiler that could be wrong.
WITNESSES = ("numpy", "jax", "autograd", "torch", "pytensor", "numba", "funcgrad")


def leaves(x: Any) -> list[np.ndarray]:
    if isinstance(x, dict):
        return [leaf for k in sorted(x) for leaf in leaves(x[k])]
    if isinstance(x, (list, tuple)):
        return [leaf for item in x for leaf in leaves(item)]
    return [np.asarray(x)]


def compare(found: Any, expected: Any, tolerance: float) -> str:
    """What differs; empty if nothing does."""
    a, b = leaves(found), leaves(expected)
    if len(a) != len(b):
        return f"{len(a)} results instead of {len(b)}"
    for k, (x, y) in enumerate(zip(a, b)):
        if x.shape != y.shape or x.dtype != y.dtype:
            return f"result {k} is {x.dtype}{list(x.shape)}, expected {y.dtype}{list(y.shape)}"
        if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
            return f"result {k} is not finite"
        if x.dtype.kind in "bui":
            if not np.array_equal(x, y):
                return f"result {k} differs in {np.count_nonzero(x != y)} of {x.size} elements"
            continue
        scale = float(np.max(np.abs(y), initial=0.0)) or 1.0
        error = float(np.max(np.abs(x - y), initial=0.0)) / scale
        if error > tolerance:
            return f"result {k} differs by {error:.1e} of its largest element; {tolerance:.0e} is allowed"
    return ""


def disagreements(results: Mapping[str, Any], tolerance: float) -> dict[str, str]:
    """Which libraries differ from the witness, and how."""
    witness = next((n for n in WITNESSES if n in results), None)
    if witness is None:
        return {}
    found = {n: compare(r, results[witness], tolerance) for n, r in results.items() if n != witness}
    return {n: f"WRONG, compared with {witness}: {difference}" for n, difference in found.items() if difference}
