"""Checks inside of loops and branches, taken out before these are batched.

A branch that a batched ``cond`` computes and throws away, or a step that a batched ``while`` takes for examples that
have finished, must not fail a check. So what owns checks is first made a function of its operands that returns them
(``control.checkify``, which says how: ``set_extraction``), and batched then. What is read and written there cannot be
taken back, so that ``io_callback`` is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.jaxpr import ClosedJaxpr, Eqn, subjaxprs
from ..core.primitive import Primitive
from .callback import io_callback_p

__all__ = ["Extraction", "refuse_io", "set_extraction", "without_checks"]

Extraction = Callable[[Primitive, dict[str, Any]], "Callable[..., Any] | None"]
_extraction: Extraction | None = None


def set_extraction(extraction: Extraction) -> None:
    global _extraction
    _extraction = extraction


def without_checks(primitive: Primitive, params: dict[str, Any]) -> Callable[..., Any] | None:
    """What the primitive does, with the checks that it owns behind it; None if it owns none."""
    return None if _extraction is None else _extraction(primitive, params)


def refuse_io(programs: Sequence[ClosedJaxpr], what: str, when: str) -> None:
    """Raise if there is an ``io_callback`` in programs that a batch runs for examples that they are not meant for."""
    found = [e for p in programs for e in p.jaxpr.eqns if _does_io(e)]
    if found:
        raise NotImplementedError(
            f"vmap of {what} with an io_callback in it (at {found[0].source}): {when}, it would be called for "
            "examples that do not ask for it. Call it outside, for all of them; or go through the examples one by one, "
            "with lax.map."
        )


def _does_io(eqn: Eqn) -> bool:
    return eqn.primitive is io_callback_p or any([_does_io(e) for j in subjaxprs(eqn.params) for e in j.eqns])
