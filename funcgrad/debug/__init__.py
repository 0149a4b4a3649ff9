"""Finding trouble: printing from inside programs, catching NaNs where they arise, statistics of gradients."""

from __future__ import annotations

from .printing import callback, print

__all__ = ["callback", "print"]
