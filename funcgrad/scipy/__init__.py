"""``scipy`` for functions that are differentiated, batched and compiled."""

from . import fft, linalg, signal, sparse, special

__all__ = ["fft", "linalg", "signal", "sparse", "special"]
