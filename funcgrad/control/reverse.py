"""Reverse mode through loops of unknown length, in memory that does not grow with the number of steps.

A while loop that is linear in some of its carries (the tangents) runs backwards through the states of the others. These
are kept as snapshots in ``SLOTS`` slots, or in as many as take ``SMALL`` bytes: at first every state; when the slots
are full, every other one goes and the spacing doubles. Then the segments between snapshots are gone through backwards,
each run again from its snapshot into slots of its own, down to single steps. Two such levels below the first reach
about ``slots**3 / 2`` steps, in which a step is computed at most four times; beyond, the last segments are longer than
one step and their states are recomputed one by one. The loop's parameter ``checkpoint`` sets other numbers of slots and
levels. All of it is written with loops and branches, so that it compiles, nests and batches as these do.

Batched, the loop is batched (``control.loop``) and not this algorithm, so that all examples share the counters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import ClosedJaxpr
from ..core.primitive import Primitive
from ..core.staging import stage
from ..ops.create import instantiate_zeros
from ..ops.dynamic import dynamic_slice, dynamic_update_slice
from ..ops.elementwise import (
    add,
    bitwise_and,
    convert_element_type,
    floor_divide,
    gt,
    lt,
    maximum,
    minimum,
    mul,
    select,
    sub,
)
from ..ops.shape import concatenate, slice_in_dim
from ..ops.structural import expand_dims, shape_of, squeeze
from .cond import cond_p
from .cond_programs import unified
from .derived import call_jaxpr, per_jaxpr, select_program, without_constants
from .scan_programs import chosen, transposed_body

__all__ = ["FEW_SLOTS", "SLOTS", "backward", "backward_avals", "backward_nonzero", "known_step"]

SLOTS = 64
"""Snapshots per level; even."""
SMALL = 1 << 14
"""Bytes per level. (They are cleared at every call, which is what keeps them from being more: 0.5 µs.)"""
LEVELS = 3
FEW_SLOTS = (8, 6)
"""Slots and levels of ``checkpoint=True``: a quarter of the memory; they reach 131072 steps."""

INDEX = np.dtype(np.int64)
Values = Sequence[Any]
Step = Callable[[Values], list[Any]]


@per_jaxpr
def known_step(closed: ClosedJaxpr, linear: tuple[bool, ...], n_consts: int) -> ClosedJaxpr:
    """The part of a body that computes the carries that are not linear."""
    carry = [k for k, is_linear in enumerate(linear[n_consts:]) if not is_linear]
    inputs = [k for k, is_linear in enumerate(linear) if not is_linear]
    return select_program(closed, inputs, [closed.jaxpr.outvars[k] for k in carry])


def _i(n: int) -> Any:
    return INDEX.type(n)


class _Machine:
    """Loops and branches of functions of tracers, for one while primitive; and snapshots in ``slots`` slots."""

    def __init__(self, while_p: Primitive, slots: int, levels: int) -> None:
        self.while_p = while_p
        self.slots, self.levels = slots, levels

    def loop(self, condition: Callable[..., Any], step: Callable[..., list[Any]], init: Values) -> list[Any]:
        avals = [aval_of(x).strong() for x in init]
        cond_consts, cond_jaxpr = without_constants(stage(lambda *xs: [condition(*xs)], avals))
        consts, body = without_constants(stage(step, avals))
        counts = {"cond_nconsts": len(cond_consts), "body_nconsts": len(consts)}
        start = [convert_element_type(x, a.dtype) for x, a in zip(init, avals, strict=True)]
        outs = self.while_p.bind(*cond_consts, *consts, *start, cond_jaxpr=cond_jaxpr, body_jaxpr=body, **counts)
        return list(outs)

    def down(self, start: Any, step: Callable[[Any, Values], list[Any]], init: Values) -> list[Any]:
        """``step(j, values)`` for ``j`` from ``start - 1`` down to 0."""

        def body(j: Any, *values: Any) -> list[Any]:
            j = sub(j, _i(1))
            return [j, *step(j, values)]

        return self.loop(lambda j, *_: gt(j, _i(0)), body, [start, *init])[1:]

    def up(self, stop: Any, step: Callable[[Any, Values], list[Any]], init: Values) -> list[Any]:
        """``step(i, values)`` for ``i`` from 0 to ``stop - 1``."""
        body = lambda i, *values: [add(i, _i(1)), *step(i, values)]  # noqa: E731
        return self.loop(lambda i, *_: lt(i, stop), body, [_i(0), *init])[1:]


def switch(index: Any, branches: Sequence[Callable[..., list[Any]]], operands: Values) -> list[Any]:
    avals = [aval_of(x).strong() for x in operands]
    consts, programs = unified([stage(f, avals) for f in branches])
    return list(cond_p.bind(index, *consts, *operands, branches=programs))


# slots --------------------------------------------------------------------------------------------------------------


def _empty(avals: Sequence[ShapedArray], slots: int) -> list[Any]:
    """Slots for states, and one more for what is not kept."""
    return [instantiate_zeros(ShapedArray((slots + 1, *a.shape), a.dtype)) for a in avals]


def _write(slots: Values, k: Any, state: Values) -> list[Any]:
    return [
        dynamic_update_slice(s, expand_dims(x, (0,)), [k, *[_i(0)] * len(shape_of(x))])
        for s, x in zip(slots, state, strict=True)
    ]


def _read(slots: Values, k: Any) -> list[Any]:
    found = []
    for s in slots:
        _, *shape = shape_of(s)
        found.append(squeeze(dynamic_slice(s, [k, *[_i(0)] * len(shape)], (1, *shape)), (0,)))
    return found


def _every_other(slots: Values, count: int) -> list[Any]:
    half = count // 2
    return [concatenate([slice_in_dim(s, 0, count, 2), slice_in_dim(s, half, count + 1)], 0) for s in slots]


def _slot(n: Any, spacing: Any, count: int) -> Any:
    """Where the state after ``n`` steps is kept: the last slot is for those that are not."""
    k = floor_divide(n, spacing)
    return select(lt(mul(k, spacing), n), _i(count), k)


def _ceil_divide(n: Any, k: Any) -> Any:
    return floor_divide(add(n, sub(k, _i(1))), k)


def _slots_for(avals: Sequence[ShapedArray]) -> int:
    """`SLOTS`, or as many small states as take `SMALL` bytes: the more slots, the less is computed again."""
    return max(SLOTS, SMALL // max(sum([a.nbytes for a in avals]), 8) // 2 * 2)


# the algorithm ------------------------------------------------------------------------------------------------------


def backward(
    while_p: Primitive,
    cond_consts: Values,
    consts: Values,
    init: Values,
    cts: Values,
    *,
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    linear: tuple[bool, ...],
    ct_nonzero: tuple[bool, ...],
    cond_nconsts: int,
    body_nconsts: int,
    checkpoint: tuple[int, ...] = (),
) -> list[Any]:
    """Cotangents of the linear constants and of the linear carries of a while loop, those that are not zero.

    Args:
        cond_consts, consts, init: the operands that are not linear.
        cts: nonzero cotangents of the carries; ``ct_nonzero`` says which.
        linear: for constants and carries of the body.
    """
    n_carry = len(linear) - body_nconsts
    extra, back_jaxpr, _, carry_nz, _ = transposed_body(body_jaxpr, linear, ct_nonzero, body_nconsts, n_carry)
    sum_avals, ct_avals = backward_avals(body_jaxpr, linear, ct_nonzero, body_nconsts)
    given = dict(zip([k for k, nz in enumerate(ct_nonzero) if nz], cts, strict=True))
    taken = [k for k, nz in enumerate(carry_nz) if nz]
    starts = [given[k] if k in given else instantiate_zeros(a) for k, a in zip(taken, ct_avals, strict=True)]
    acc = [*[instantiate_zeros(a) for a in sum_avals], *starts]
    known = [k for k, is_linear in enumerate(linear[body_nconsts:]) if not is_linear]
    inputs = [*range(cond_nconsts), *[cond_nconsts + k for k in known]]
    condition_jaxpr = select_program(cond_jaxpr, inputs, cond_jaxpr.jaxpr.outvars)
    step_jaxpr = known_step(body_jaxpr, linear, body_nconsts)
    avals = [aval_of(x).strong() for x in init]
    machine = _Machine(while_p, *(checkpoint or (_slots_for(avals), LEVELS)))

    def step(state: Values) -> list[Any]:
        return call_jaxpr(step_jaxpr)(*consts, *state)

    def going(state: Values) -> Any:
        return call_jaxpr(condition_jaxpr)(*cond_consts, *state)[0]

    def back(state: Values, acc: Values) -> list[Any]:
        return call_jaxpr(back_jaxpr)(*extra, *consts, *acc, *state)

    n, spacing, slots = _sweep(machine, step, going, init, avals)
    return _unwind(machine, step, back, n, spacing, slots, acc, avals)


def _sweep(
    machine: _Machine, step: Step, going: Callable[[Values], Any], init: Values, avals: Sequence[ShapedArray]
) -> tuple[Any, Any, list[Any]]:
    """Run the loop: the number of steps, the spacing of the snapshots, and the snapshots."""
    m, count = len(avals), machine.slots

    def fill(n: Any, spacing: Any, *values: Any) -> list[Any]:
        spacing = maximum(mul(spacing, _i(2)), _i(1))  # 0 at first: then the slots are empty
        limit = mul(spacing, _i(count))

        def one(n: Any, *values: Any) -> list[Any]:
            slots, state = values[:m], values[m:]
            return [add(n, _i(1)), *_write(slots, _slot(n, spacing, count), state), *step(state)]

        slots, state = _every_other(values[:m], count), values[m:]
        inside = lambda n, *values: bitwise_and(lt(n, limit), going(values[m:]))  # noqa: E731
        n, *values = machine.loop(inside, one, [n, *slots, *state])  # type: ignore[assignment]
        return [n, spacing, *values]

    outs = machine.loop(lambda n, k, *values: going(values[m:]), fill, [_i(0), _i(0), *_empty(avals, count), *init])
    return outs[0], maximum(outs[1], _i(1)), outs[2 : 2 + m]


def _unwind(
    machine: _Machine,
    step: Step,
    back: Callable[[Values, Values], list[Any]],
    n: Any,
    spacing: Any,
    slots: Values,
    acc: Values,
    avals: Sequence[ShapedArray],
) -> list[Any]:
    """Go through the segments backwards."""
    m, count = len(avals), machine.slots

    def segment(levels: int, length: Any, start: Values, values: Values) -> list[Any]:
        """The steps from a state; ``values``: the slots of the levels below, and the cotangents."""
        if not levels:
            return single(length, start, values)
        own, values = values[:m], values[m:]
        gap = _ceil_divide(length, _i(count))

        def one(i: Any, values: Values) -> list[Any]:
            return [*_write(values[:m], _slot(i, gap, count), values[m:]), *step(values[m:])]

        own = machine.up(length, one, [*own, *start])[:m]
        return [*own, *below(levels - 1, length, gap, own, values)]

    def below(levels: int, length: Any, gap: Any, slots: Values, values: Values) -> list[Any]:
        def one(j: Any, values: Values) -> list[Any]:
            rest = sub(length, mul(j, gap))
            return segment(levels, minimum(gap, rest), _read(slots, j), values)

        return machine.down(_ceil_divide(length, gap), one, values)

    def single(length: Any, start: Values, acc: Values) -> list[Any]:
        """A segment of one step; of more, each state computed anew, where even the last level is too coarse."""
        at = lambda i: machine.up(i, lambda _, state: step(state), start)  # noqa: E731
        return machine.down(length, lambda i, acc: back(at(i), acc), acc)

    def exactly_one(acc: Values) -> list[Any]:
        return machine.down(n, lambda j, acc: back(_read(slots, j), acc), acc)

    def with_levels(levels: int, acc: Values) -> list[Any]:
        scratch = list(itertools.chain.from_iterable([_empty(avals, count) for _ in range(levels)]))
        return below(levels, n, spacing, slots, [*scratch, *acc])[levels * m :]

    branches = [lambda *acc: exactly_one(acc)]
    index = _i(0)
    for level in range(1, machine.levels):
        branches.append(lambda *acc, level=level: with_levels(level, acc))
        index = add(index, convert_element_type(gt(spacing, _i(count ** (level - 1))), INDEX))
    return switch(index, branches, acc)


def backward_nonzero(
    body: ClosedJaxpr, linear: tuple[bool, ...], nonzero: tuple[bool, ...], n_consts: int
) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Which linear constants and which carries have cotangents that are not zero."""
    _, _, const_nz, carry_nz, _ = transposed_body(body, linear, nonzero, n_consts, len(linear) - n_consts)
    return const_nz, carry_nz


def backward_avals(
    body: ClosedJaxpr, linear: tuple[bool, ...], nonzero: tuple[bool, ...], n_consts: int
) -> tuple[list[ShapedArray], list[ShapedArray]]:
    """The types of what `backward` gives: of constants, of carries."""
    const_nz, carry_nz = backward_nonzero(body, linear, nonzero, n_consts)
    linear_consts = chosen(body.in_avals[:n_consts], linear[:n_consts])
    return (
        [a.strong() for a in chosen(linear_consts, const_nz)],
        [a.strong() for a in chosen(body.in_avals[n_consts:], carry_nz)],
    )
