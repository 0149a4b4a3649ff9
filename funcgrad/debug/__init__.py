"""Finding trouble: printing from inside programs, catching NaNs where they arise, statistics of gradients."""

from __future__ import annotations

from .watch import infs, nans
from .origin import Input, Origin
from .printing import callback, print

__all__ = ["Input", "Origin", "callback", "infs", "nans", "print"]
