"""``scipy`` for functions that are differentiated, batched and compiled."""

from . import linalg, special

__all__ = ["linalg", "special"]
