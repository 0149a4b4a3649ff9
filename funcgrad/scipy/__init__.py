"""``scipy`` for functions that are differentiated, batched and compiled."""

from . import special

__all__ = ["special"]
