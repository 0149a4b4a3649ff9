"""How every lowering becomes values of the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core import lowering as L
from .convolution import convolve
from .matrix_rules import library
from .rules import BASIC_RULES

__all__ = ["RULES"]

RULES: dict[type, Callable[..., Any]] = {**BASIC_RULES, L.Library: library, L.Convolve: convolve}
