"""``scipy`` for functions that are differentiated, batched and compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..later import later
from . import special  # SciPy's own special functions take tracers by what is registered there

if TYPE_CHECKING:
    from . import fft, integrate, linalg, optimize, signal, sparse
else:
    __getattr__, __dir__ = later(
        __name__, {name: name for name in ("fft", "integrate", "linalg", "optimize", "signal", "sparse")}
    )

__all__ = ["fft", "integrate", "linalg", "optimize", "signal", "sparse", "special"]
