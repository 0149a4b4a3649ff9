"""``scipy`` for functions that are differentiated, batched and compiled."""

from . import signal, special

__all__ = ["signal", "special"]
