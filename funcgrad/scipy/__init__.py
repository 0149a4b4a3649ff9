"""``scipy`` for functions that are differentiated, batched and compiled."""

from . import fft, special

__all__ = ["fft", "special"]
