"""``scipy`` for functions that are differentiated, batched and compiled."""

from . import fft, signal, special

__all__ = ["fft", "signal", "special"]
