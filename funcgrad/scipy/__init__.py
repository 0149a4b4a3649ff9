"""``scipy`` for functions that are differentiated, batched and compiled."""

from . import fft, linalg, optimize, signal, sparse, special

__all__ = ["fft", "linalg", "optimize", "signal", "sparse", "special"]
