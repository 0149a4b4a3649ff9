"""Checks inside of loops and branches, taken out before these are batched.

A branch that a batched ``cond`` computes and throws away, or a step that a batched ``while`` takes for examples that
have finished, must not fail a check. So what owns checks is first made a function of its operands that returns them
(``control.checkify``, which says how: ``set_splitter``), and batched then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.primitive import Primitive

__all__ = ["Splitter", "set_splitter", "without_checks"]

Splitter = Callable[[Primitive, dict[str, Any]], "Callable[..., Any] | None"]
_splitter: Splitter | None = None


def set_splitter(splitter: Splitter) -> None:
    global _splitter
    _splitter = splitter


def without_checks(primitive: Primitive, params: dict[str, Any]) -> Callable[..., Any] | None:
    """What the primitive does, with the checks that it owns behind it; None if it owns none."""
    return None if _splitter is None else _splitter(primitive, params)
