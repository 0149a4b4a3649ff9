"""Groups to launches: walked backwards, so that by its turn each group knows what later ones read from memory."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.jaxpr import has_effect
from .assemble import Launch, assemble
from .build import Expression, store_value
from .fuse import Group
from .graph import Call, Graph

__all__ = ["build_steps"]


def build_steps(graph: Graph, groups: Sequence[Group]) -> list[Launch | Call]:
    """The steps of a program in order; groups and calls whose results nothing needs are dropped."""
    for value in graph.outputs:
        store_value(value)
    steps: list[Launch | Call] = []
    for group in reversed(groups):
        call = group.call
        if call is not None:
            if has_effect(call.eqn) or any(x.stored for x in call.outputs):
                for ref in call.operands:
                    store_value(ref.value)
                steps.append(call)
            continue
        roots = [m for m in group.members if m.stored and m.size]
        if roots:
            steps.append(assemble(Expression(group, roots)))
    steps.reverse()
    return steps
