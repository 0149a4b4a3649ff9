"""Stages: an expression cut where a fold must be complete before it is used.

Softmax: the fold ``max`` reads stage 0; ``exp(x - max)`` and the fold ``add`` are of stage 1; the quotient is of stage
2. A value that varies along inner axes and is wanted in a later stage again is computed again if it is cheap, else
kept: in the row of an output that is written later anyway, or in scratch memory of one parallel iteration.
"""

from __future__ import annotations

from ..record import field, record
from .build import Expression, Node
from .graph import Value

__all__ = ["Plan", "StagePlan", "schedule"]

RECOMPUTE_WEIGHT = 8


@record(eq=False)
class StagePlan:
    """What one stage does: ``row`` nodes and stores first, then the walk over the inner axes."""

    row: list[Node] = field(default_factory=list)
    row_stores: list[int] = field(default_factory=list)
    inner: list[Node] = field(default_factory=list)
    stores: list[int] = field(default_factory=list)
    keeps: list[tuple[Node, int]] = field(default_factory=list)
    reloads: dict[int, int] = field(default_factory=dict)


@record(eq=False)
class Plan:
    """``scratch`` lists the nodes kept in scratch memory; a keep or reload refers to an access, or to ``-1 - k`` for
    the k-th of these."""

    stages: list[StagePlan]
    scratch: list[Node]


def schedule(e: Expression) -> Plan:
    inner = e.inner
    folds = ("fold", "argfold")
    count = 1 + max([n.stage for n in e.nodes], default=0)
    stages = [StagePlan() for _ in range(count)]
    sinks: list[list[Node]] = [[] for _ in range(count)]
    for node in e.nodes:
        if node.op in folds:
            sinks[node.stage - 1].append(node)
    row_roots: list[tuple[int, Node]] = []
    for k, (_, node, extra, root) in enumerate(e.stores):
        stage = max([node.stage, *[x.stage for x in extra]])
        if inner and not e.group.is_row(root):
            stages[stage].stores.append(k)
        else:
            stages[stage].row_stores.append(k)
            row_roots += [(stage, node), *[(stage, x) for x in extra]]
    plan = Plan(stages, [])
    wanted: dict[int, int] = {}
    for stage, node in row_roots:
        _want(node, stage, wanted)
    _inner_stages(e, plan, sinks, wanted)
    for node in reversed(e.nodes):  # row values as late as their first use
        first = wanted.get(node.number)
        if first is None or node.mask & inner or node.op in folds:
            continue
        stages[first].row.append(node)
        for a in node.args:
            _want(a, first, wanted)
    for each in stages:
        each.row.reverse()
    return plan


def _want(node: Node, stage: int, wanted: dict[int, int]) -> None:
    known = wanted.get(node.number)
    if known is None or stage < known:
        wanted[node.number] = max(stage, node.stage)


def _inner_stages(e: Expression, plan: Plan, sinks: list[list[Node]], wanted: dict[int, int]) -> None:
    inner = e.inner
    first: dict[int, int] = {}
    homes: dict[int, int] = {}
    claimed: set[int] = set()
    for t, stage in enumerate(plan.stages):
        roots = list(sinks[t])
        for k in stage.stores:
            roots += [e.stores[k][1], *e.stores[k][2]]
        found: dict[int, Node] = {}
        stack = list(roots)
        while stack:
            node = stack.pop()
            if node.number in found or node.number in stage.reloads:
                continue
            fold_here = node.op in ("fold", "argfold") and node.stage == t + 1
            if not fold_here and not node.mask & inner:
                _want(node, t, wanted)
                continue
            if not fold_here and first.get(node.number, t) < t and _expensive(node):
                stage.reloads[node.number] = _keep(e, plan, node, first[node.number], t, homes, claimed)
                continue
            found[node.number] = node
            if not fold_here:
                first.setdefault(node.number, t)
            stack += node.args
        stage.inner = [found[k] for k in sorted(found)]


def _expensive(node: Node) -> bool:
    return node.op == "scan" or (node.op == "compute" and (node.heavy or node.weight > RECOMPUTE_WEIGHT))


def _keep(
    e: Expression, plan: Plan, node: Node, made: int, used: int, homes: dict[int, int], claimed: set[int]
) -> int:  # fmt: skip
    """Where ``node``, computed in stage ``made``, is found again in stage ``used``."""
    home = homes.get(node.number)
    if home is not None:
        return home
    for t, stage in enumerate(plan.stages):
        for k in stage.stores:
            number, stored, _, root = e.stores[k]
            if stored is node and t == made and _plain(root):
                homes[node.number] = number
                claimed.add(number)
                return number
    for t in range(used, len(plan.stages)):  # the row of an output that is written once we are done with it
        for k in plan.stages[t].stores:
            number, stored, _, root = e.stores[k]
            last = t == len(plan.stages) - 1
            if last and number not in claimed and root.dtype == node.dtype and _plain(root):
                homes[node.number] = number
                claimed.add(number)
                plan.stages[made].keeps.append((node, number))
                return number
    plan.scratch.append(node)
    homes[node.number] = -len(plan.scratch)
    plan.stages[made].keeps.append((node, homes[node.number]))
    return homes[node.number]


def _plain(root: Value) -> bool:
    return root.kind != "put" and root.home is None and root.block is None
