"""Reverse mode through scans in memory that grows less than the number of steps.

A scan whose parameter ``checkpoint`` is a plan ``(b, *rest)`` is linearized as a scan over ``b`` segments, each a
checkpointed scan with the plan ``rest``: of a segment the state at its start is kept, and when the sweep backwards
comes to it, it is run again, by the same rule. The last level keeps what its few steps need. So ``b1 + b2 + ...`` steps
are kept of ``b1 * b2 * ...``, and a step is computed once for each level. What ``b`` does not divide goes in front.

Run forwards, a scan with a plan is a scan.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import cache
from typing import Any

from ..core.avals import ShapedArray
from ..core.jaxpr import ClosedJaxpr
from ..core.staging import stage
from ..ops.shape import concatenate, slice_in_dim
from ..ops.structural import reshape, shape_of
from .checkpoint import checkpoint_p
from .derived import linearize_by_running, per_jaxpr, without_constants
from .scan import scan_p, set_segments

__all__ = ["check_checkpoint", "scan_plan"]

BRANCHES = 8
"""Segments per level of ``checkpoint=True``: three times fewer levels than with two, for 1.3 times the memory."""


def check_checkpoint(checkpoint: Any, what: str) -> None:
    """Raise for what is no ``checkpoint=`` of a loop."""
    if checkpoint is None or checkpoint is True:
        return
    wanted = f"{what}: checkpoint must be None, True, or how many steps' states to keep, a positive integer"
    if checkpoint is False:
        raise TypeError(f"{wanted}; found False. Leave it out to keep every step.")
    try:
        count = operator.index(checkpoint)
    except TypeError:
        raise TypeError(f"{wanted}; found {checkpoint!r}") from None
    if count < 1:
        raise ValueError(f"{wanted}; found {checkpoint!r}")


def scan_plan(checkpoint: Any, length: int, what: str) -> tuple[int, ...]:
    """The segments per level of a scan; empty if every step is to be kept.

    Raises:
        TypeError, ValueError: ``checkpoint`` is neither None, True nor a positive integer, or too small.
    """
    check_checkpoint(checkpoint, what)
    if checkpoint is None or length < 2:
        return ()
    if checkpoint is True:
        levels, reach = 1, BRANCHES
        while reach < length:
            levels, reach = levels + 1, reach * BRANCHES
        return _divided(length, levels)[1]
    least = length
    for levels in range(1, length.bit_length() + 1):
        kept, plan = _divided(length, levels)
        if kept <= checkpoint:
            return plan
        least = min(least, kept)
    raise ValueError(
        f"{what}: checkpoint={checkpoint} is too few for {length} steps: the states of at least {least} must be kept. "
        "checkpoint=True chooses a number."
    )


@cache
def _divided(length: int, levels: int) -> tuple[int, tuple[int, ...]]:
    """How many steps are kept, and the segments per level that keep the fewest."""
    if levels == 1 or length < 4:
        return length, (length,)
    near = round(length ** (1 / levels))
    found = []
    for b in range(max(2, near - 2), min(near + 3, length // 2 + 1)):
        kept, plan = _divided(length // b, levels - 1)
        found.append((b + length % b + kept, (b, *plan)))
    return min(found) if found else (length, (length,))


@per_jaxpr
def _segment(body: ClosedJaxpr, length: int, plan: tuple[int, ...], reverse: bool, n_consts: int, n_carry: int) -> Any:
    """``(consts, carry, xs of a segment) -> (carry, ys of a segment)``, checkpointed, and constants of it."""
    end = n_consts + n_carry
    avals = [*body.in_avals[:end], *[ShapedArray((length, *a.shape), a.dtype) for a in body.in_avals[end:]]]
    params = {"jaxpr": body, "length": length, "reverse": reverse, "unroll": 1, "checkpoint": plan}
    program = stage(
        lambda *args: scan_p.bind(*args, n_consts=n_consts, n_carry=n_carry, **params), avals, body.jaxpr.name
    )
    # In a loop there is nothing to merge the second computation with.
    how: dict[str, Any] = {"policy": None, "prevent_cse": False, "differentiated": False}
    return without_constants(
        stage(lambda *args: checkpoint_p.bind(*args, jaxpr=program, **how), avals, f"segment({body.jaxpr.name})")
    )


def _in_segments(
    *args: Any,
    jaxpr: ClosedJaxpr,
    length: int,
    reverse: bool,
    unroll: int,
    n_consts: int,
    n_carry: int,
    checkpoint: tuple[int, ...],
) -> list[Any]:
    branches, *rest = checkpoint
    size, first = divmod(length, branches)
    end = n_consts + n_carry
    consts, carry, xs = args[:n_consts], args[n_consts:end], args[end:]
    # in order of execution: `first` steps, then the segments
    start, middle, stop = (length - first, 0, length - first) if reverse else (0, first, length)
    heads: Sequence[Any] = ()
    if first:
        counts = {"n_consts": n_consts, "n_carry": n_carry}
        slices = [slice_in_dim(x, start, start + first) for x in xs]
        outs = scan_p.bind(
            *consts, *carry, *slices, jaxpr=jaxpr, length=first, reverse=reverse, unroll=unroll, **counts
        )
        carry, heads = outs[:n_carry], outs[n_carry:]
    extra, body = _segment(jaxpr, size, tuple(rest), reverse, n_consts, n_carry)
    rows = [reshape(slice_in_dim(x, middle, stop), (branches, size, *shape_of(x)[1:])) for x in xs]
    counts = {"n_consts": len(extra) + n_consts, "n_carry": n_carry}
    outs = scan_p.bind(*extra, *consts, *carry, *rows, jaxpr=body, length=branches, reverse=reverse, unroll=1, **counts)
    ys = [reshape(y, (branches * size, *shape_of(y)[2:])) for y in outs[n_carry:]]
    if first:
        ys = [concatenate([y, h] if reverse else [h, y], 0) for y, h in zip(ys, heads, strict=True)]
    return [*outs[:n_carry], *ys]


set_segments(linearize_by_running(_in_segments))
