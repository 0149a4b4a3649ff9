"""The sparsity rules of loops and branches.

Short loops are walked step by step, so that they are as exact as what they unroll to, known indices included. Of
longer ones the body is walked once, with its own inputs for inputs: that gives the pattern of one step, boolean
matrices from constants, carry and slices to carry and slices. Steps are then products with these; and where there are
more than ``STEPS`` of them, or as many as the data says, the carry is given everything that any number of steps can
bring to it (the transitive closure).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from ..core import lowering as L
from ..core.avals import ShapedArray
from ..core.jaxpr import ClosedJaxpr, Eqn
from ..record import record
from ..util import prod
from .dependence import LIMIT, Rows, constant_set, csr, gather_sets, identity, selected, union
from .sparsity import UNKNOWN, Reach, Sets

__all__ = ["reach"]

EQUATIONS = 4096
"""Up to so many equations in all steps together a loop is walked step by step."""

STEPS = 1024


@record(frozen=True)
class _Step:
    """The pattern of one step: ``matrix`` has a row for each element of all results, and a column for each of all
    inputs; ``ins`` and ``outs`` say where each input and result begins."""

    matrix: Any
    ins: np.ndarray
    outs: np.ndarray

    def block(self, outs: slice, ins: slice) -> Any:
        """Rows and columns of the results and inputs number ``outs.start`` up to ``outs.stop`` and so on."""
        rows = slice(self.outs[outs.start], self.outs[outs.stop])
        return self.matrix[rows, self.ins[ins.start] : self.ins[ins.stop]].tocoo()


def _step(walk: Reach, body: ClosedJaxpr, values: Sequence[Any]) -> _Step:
    ins = np.cumsum([0, *[a.size for a in body.in_avals]])
    outs = np.cumsum([0, *[a.size for a in body.out_avals]])
    n = int(ins[-1])
    own = [
        identity(a.shape, int(b), n) if a.dtype.kind in "fc" else None for a, b in zip(body.in_avals, ins, strict=False)
    ]
    results, _ = walk.run(body.jaxpr, body.consts, own, values)
    rows = _joined(results, body.out_avals, n)
    return _Step(rows.matrix(), ins, outs)


def _joined(sets: Sequence[Sets], avals: Sequence[ShapedArray], n: int, lead: tuple[int, ...] = ()) -> Rows:
    """Several values as one, ``(*lead, elements of all)``; each has the axes ``lead`` in front."""
    sizes = [a.size * prod(lead) for a in avals]
    starts = np.cumsum([0, *sizes])
    index = [np.arange(b, b + s).reshape(*lead, -1) if s else np.zeros((*lead, 0), np.intp)
             for b, s in zip(starts, sizes, strict=False)]  # fmt: skip
    places = np.concatenate(index, axis=-1) if index else np.zeros((*lead, 0), np.intp)
    rows = selected(sets, sizes, places)
    return _empty(n, places.shape) if rows is None else rows


def _empty(n: int, shape: tuple[int, ...]) -> Rows:
    return Rows(csr(np.zeros(0, np.int32), np.zeros(2, np.int32), (1, n)), np.full(shape, -1))


def _cut(rows: Rows, avals: Sequence[ShapedArray], lead: tuple[int, ...] = ()) -> list[Sets]:
    """What `_joined` joined."""
    parts: list[Sets] = []
    start = 0
    for a in avals:
        which = rows.which[..., start : start + a.size].reshape((*lead, *a.shape))
        parts.append(Rows(rows.table, which))
        start += a.size
    return parts


def _times(block: Any, rows: Rows) -> Rows:
    """A boolean matrix times a vector of sets."""
    return gather_sets(rows, block.row, block.col, (block.shape[0],))


def _united(*parts: Rows) -> Rows:
    total = union(parts, np.broadcast_shapes(*[p.shape for p in parts]))
    assert total is not None
    return total


def _closure(block: Any) -> Any:
    """What a value can reach in any number of steps, none included; None where that is nearly everything."""
    from scipy.sparse import csr_array, eye_array

    reached = csr_array(eye_array(block.shape[0], dtype=np.bool_) + block.tocsr().astype(np.bool_))
    while True:
        lengths = np.diff(reached.indptr).astype(np.int64)
        if lengths[reached.indices].sum() > LIMIT:
            return None
        further = reached @ reached
        if further.nnz == reached.nnz:
            return further.tocoo()
        reached = further


def _inputs(sets: Sequence[Sets]) -> int:
    return int(next(s for s in sets if s is not None).table.shape[1])


def _scan(walk: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    params = eqn.params
    body, length, n_consts, n_carry = params["jaxpr"], params["length"], params["n_consts"], params["n_carry"]
    if length * max(len(body.eqns), 1) <= EQUATIONS:
        return _unrolled(walk, eqn, operands, values)
    n, end = _inputs(operands), n_consts + n_carry
    step = _step(walk, body, [*values[:n_consts], *[UNKNOWN] * (len(operands) - n_consts)])
    avals, out_avals = body.in_avals, body.out_avals
    consts, carry, xs = slice(0, n_consts), slice(n_consts, end), slice(end, len(avals))
    to_carry, to_ys = slice(0, n_carry), slice(n_carry, len(out_avals))
    const_rows = _joined(operands[consts], avals[consts], n)
    first = _joined(operands[carry], avals[carry], n)
    x_rows = _joined(operands[xs], avals[xs], n, (length,))

    def of_slices(outs: slice) -> Rows:
        block = step.block(outs, xs)
        steps = np.arange(length)[:, None]
        targets, sources = steps * block.shape[0] + block.row, steps * block.shape[1] + block.col
        return gather_sets(x_rows, targets.ravel(), sources.ravel(), (length, block.shape[0]))

    brought = _united(of_slices(to_carry), _times(step.block(to_carry, consts), const_rows))
    again = step.block(to_carry, carry)
    before, last = _carries(first, brought, again, length, params["reverse"])
    made = _united(of_slices(to_ys), _times(step.block(to_ys, consts), const_rows))
    kept = step.block(to_ys, carry)
    if kept.nnz:
        seen = [_times(kept, c) for c in before]
        made = _united(made, seen[0]) if len(seen) == 1 else _stacked([_united(made.moved(itemgetter(k)), s)
                                                                       for k, s in enumerate(seen)])  # fmt: skip
    return [*_cut(last, out_avals[to_carry]), *_cut(made, out_avals[to_ys], (length,))]


def _carries(first: Rows, brought: Rows, again: Any, length: int, reverse: bool) -> tuple[list[Rows], Rows]:
    """The carry before each step, in the order of the slices (or one that holds for all of them), and the last."""
    if not first.which.size:
        return [first], first
    if length <= STEPS:
        before, carry = [], first
        for k in reversed(range(length)) if reverse else range(length):
            before.append(carry)
            carry = _united(_times(again, carry), brought.moved(itemgetter(k)))
            if carry.entries() > LIMIT // STEPS:
                break
        else:
            return before[::-1] if reverse else before, carry
    every = brought.moved(lambda w: np.swapaxes(w, 0, 1))
    start = _united(first, _all_steps(every))
    closed = _closure(again)
    final = constant_set([start], start.shape) if closed is None else _times(closed, start)
    return [final], final


def _all_steps(rows: Rows) -> Rows:
    count, length = rows.shape
    return gather_sets(rows, np.repeat(np.arange(count), length), np.arange(count * length), (count,))


def _stacked(rows: Sequence[Rows]) -> Rows:
    size = prod(rows[0].shape)
    total = selected(rows, [size] * len(rows), np.arange(size * len(rows)).reshape(len(rows), *rows[0].shape))
    assert total is not None
    return total


def _unrolled(walk: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    params = eqn.params
    body, length, n_consts, n_carry = params["jaxpr"], params["length"], params["n_consts"], params["n_carry"]
    end, n = n_consts + n_carry, _inputs(operands)
    carry, known = operands[n_consts:end], values[n_consts:end]
    ys: list[list[Sets]] = [[None] * length for _ in body.out_avals[n_carry:]]
    for k in reversed(range(length)) if params["reverse"] else range(length):
        slices = [None if s is None else s.moved(itemgetter(k)) for s in operands[end:]]
        given = [v if v is UNKNOWN else np.asarray(v)[k] for v in values[end:]]
        ins, vals = [*operands[:n_consts], *carry, *slices], [*values[:n_consts], *known, *given]
        outs, made = walk.run(body.jaxpr, body.consts, ins, vals)
        carry, known = outs[:n_carry], made[:n_carry]
        for row, s in zip(ys, outs[n_carry:], strict=True):
            row[k] = s
    stacks = []
    for row, a in zip(ys, body.out_avals[n_carry:], strict=True):
        index = np.arange(a.size * length).reshape(length, *a.shape)
        stacks.append(selected(row, [a.size] * length, index) if length else _empty(n, index.shape))
    return [*carry, *stacks]


def _while(walk: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    params, n = eqn.params, _inputs(operands)
    body, skip, n_consts = params["body_jaxpr"], params["cond_nconsts"], params["body_nconsts"]
    consts, carry = slice(0, n_consts), slice(n_consts, len(body.in_avals))
    to_carry = slice(0, len(body.out_avals))
    operands, values = operands[skip:], values[skip:]
    step = _step(walk, body, [*values[:n_consts], *[UNKNOWN] * len(body.out_avals)])
    first = _joined(operands[carry], body.in_avals[carry], n)
    const_rows = _joined(operands[consts], body.in_avals[consts], n)
    start = _united(first, _times(step.block(to_carry, consts), const_rows))
    closed = _closure(step.block(to_carry, carry))
    final = constant_set([start], start.shape) if closed is None else _times(closed, start)
    return _cut(final, body.out_avals)


def _branch(walk: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    branches = eqn.params["branches"]
    if values[0] is not UNKNOWN:
        k = min(max(int(values[0]), 0), len(branches) - 1)
        branches = branches[k : k + 1]
    results = [walk.run(b.jaxpr, b.consts, operands[1:], values[1:])[0] for b in branches]
    return [union(sets, v.aval.shape) for sets, v in zip(zip(*results, strict=True), eqn.outvars, strict=True)]


def _call(walk: Reach, eqn: Eqn, operands: list[Sets], values: list[Any]) -> list[Sets]:
    inner = eqn.params["jaxpr"]
    return walk.run(inner.jaxpr, inner.consts, operands, values)[0]


reach = Reach({L.Scan: _scan, L.While: _while, L.Branch: _branch, L.Call: _call})
"""The walker that knows every rule."""
