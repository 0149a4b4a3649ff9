"""NumPy as it is: no derivatives, no compiler, loops in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
import scipy.linalg
import scipy.special

from .base import EagerLoops, Peer


class NumPy(Peer):
    name, title, version = "numpy", "NumPy", np.__version__
    np, special, lax = np, scipy.special, EagerLoops(np)
    scipy = scipy

    def add_at(self, x: Any, index: Any, value: Any) -> Any:
        result = np.array(x)
        if isinstance(index, np.ndarray):  # an element may be named more than once
            np.add.at(result, index, value)
        else:
            result[index] += value
        return result

    def set_at(self, x: Any, index: Any, value: Any) -> Any:
        result = np.array(x)
        result[index] = value
        return result


def make() -> Peer:
    return NumPy()
