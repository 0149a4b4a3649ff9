"""Finding trouble: printing from inside programs, catching NaNs where they arise, statistics of gradients."""

from __future__ import annotations

from .origin import Input, Origin
from .printing import callback, print
from .statistics import LeafStatistics, Statistics, check_finite, statistics
from .watch import infs, nans

__all__ = [
    "Input",
    "LeafStatistics",
    "Origin",
    "Statistics",
    "callback",
    "check_finite",
    "infs",
    "nans",
    "print",
    "statistics",
]
