"""``scipy`` for functions that are differentiated, batched and compiled."""

from . import fft, integrate, linalg, optimize, signal, sparse, special

__all__ = ["fft", "integrate", "linalg", "optimize", "signal", "sparse", "special"]
