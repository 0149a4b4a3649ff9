"""The passes in order, each with why it stands where it does."""

from __future__ import annotations

from collections.abc import Callable

from ..control.live import eliminate_dead_code
from ..core.jaxpr import ClosedJaxpr, check_jaxpr
from .control import simplify_control
from .cse import eliminate_common_subexpressions
from .inline import inline_calls
from .products import transpose_products
from .simplify import simplify
from .symmetry import share_symmetric_sums

__all__ = ["PASSES", "optimize"]

Pass = Callable[[ClosedJaxpr], ClosedJaxpr]


def optimize(closed: ClosedJaxpr, check: bool = False) -> ClosedJaxpr:
    """Run all passes; ``check`` re-checks the program after each (tests do)."""
    for _, run in PASSES:
        closed = run(closed)
        if check:
            check_jaxpr(closed.jaxpr)
    return closed


def _control(closed: ClosedJaxpr) -> ClosedJaxpr:
    return simplify_control(closed, optimize)


PASSES: tuple[tuple[str, Pass], ...] = (
    ("inline", inline_calls),  # fusion works across calls; everything after sees one flat program
    ("dce", eliminate_dead_code),  # most of a linearized call's primal half is often unused
    ("simplify", simplify),  # before cse: brings different spellings to one form
    ("control", _control),  # bodies of loops and branches, by all passes; what moves out of them meets the rest
    ("cse", eliminate_common_subexpressions),  # forward and backward halves share subexpressions
    ("simplify", simplify),  # what is simpler now that equal values are the same variable, such as x + x
    ("dce", eliminate_dead_code),  # what simplify and cse bypassed
    ("symmetry", share_symmetric_sums),  # after cse: equal values are the same variable
    ("products", transpose_products),  # last: it wants to know who else reads a product
)
