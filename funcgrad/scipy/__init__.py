"""``scipy`` for functions that are differentiated, batched and compiled."""

from . import fft, integrate, linalg, signal, special

__all__ = ["fft", "integrate", "linalg", "signal", "special"]
