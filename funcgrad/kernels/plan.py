"""The buffer plan: when each value in memory lives, and where.

Launches run in order, so a buffer lives from the launch that writes it first to the one that reads it last.
Temporaries share one arena: each takes the best-fitting free block, and a result takes over the memory of an operand
that dies in the launch that makes it if it reads that operand element for element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .assemble import Launch
from .graph import Call, Value

__all__ = ["ALIGNMENT", "MemoryPlan", "make_plan"]

ALIGNMENT = 64


@dataclass(eq=False)
class MemoryPlan:
    """``slots`` maps a value's number to its slot: inputs, outputs, constants, temporaries in this order."""

    slots: dict[int, int]
    offsets: list[int]
    arena_bytes: int
    in_place: int = 0
    elided: set[int] = field(default_factory=set)
    """Steps that have become copies of memory to itself."""
    temporaries: list[Value] = field(default_factory=list)
    donations: dict[int, int] = field(default_factory=dict)
    """Outputs (by position) that are written over the memory of an input that the caller gave up."""


def make_plan(
    steps: Sequence[Launch | Call],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    constants: Sequence[Value],
    donated: Sequence[bool] = (),
) -> MemoryPlan:
    """``donated`` says of each input whether its memory may be overwritten by an output of the same type."""
    slots = {v.index: k for k, v in enumerate((*inputs, *outputs, *constants))}
    donations, written_over = _donations(steps, inputs, outputs, donated)
    last: dict[int, int] = {}
    order: list[tuple[int, Value]] = []
    for number, step in enumerate(steps):
        for value, written in touched(step):
            if value.index in slots:
                continue
            if value.index not in last and written:
                order.append((number, value))
            last[value.index] = number
    arena = _Arena()
    offsets: list[int] = []
    dying: dict[int, list[Value]] = {}
    for _, value in order:
        dying.setdefault(last[value.index], []).append(value)
    place: dict[int, int] = {}
    taken: set[int] = set()
    first_temporary, position, in_place = len(slots), 0, len(donations)
    elided: set[int] = {n for n in written_over if steps[n].is_copy}  # type: ignore[union-attr]
    temporaries = []
    for number, step in enumerate(steps):
        while position < len(order) and order[position][0] == number:
            value = order[position][1]
            position += 1
            ends = dying.get(number, ())
            if isinstance(step, Launch):
                heir = _takes_over(step, value, ends, taken)
            else:
                heir = _overwrites(step, value, ends, taken)
            if heir is not None:
                taken.add(heir.index)
                in_place += 1
                if isinstance(step, Launch) and step.is_copy:
                    elided.add(number)
                at = place[heir.index]
            else:
                at = arena.take(_rounded(value.nbytes))
            place[value.index] = at
            slots[value.index] = first_temporary + len(offsets)
            offsets.append(at)
            temporaries.append(value)
        for value in dying.get(number, ()):
            if value.index not in taken:
                arena.give(place[value.index], _rounded(value.nbytes))
    return MemoryPlan(slots, offsets, arena.size, in_place, elided, temporaries, donations)


def _donations(
    steps: Sequence[Launch | Call], inputs: Sequence[Value], outputs: Sequence[Value], donated: Sequence[bool]
) -> tuple[dict[int, int], set[int]]:
    """Which outputs take over which donated inputs, and the steps in which they do."""
    given = {v.index: k for k, (v, gives) in enumerate(zip(inputs, donated, strict=False)) if gives}
    if not given:
        return {}, set()
    last: dict[int, int] = {}
    first: dict[int, int] = {}
    for number, step in enumerate(steps):
        for value, written in touched(step):
            last[value.index] = number
            if written:
                first.setdefault(value.index, number)
    kept = {v.index for v in outputs}
    donations: dict[int, int] = {}
    taken: set[int] = set()
    for k, value in enumerate(outputs):
        made_in = first.get(value.index)
        if made_in is None:
            continue
        maker = steps[made_in]
        if not isinstance(maker, Launch):
            continue
        dying = [
            v for v in inputs
            if v.index in given and v.index not in kept and v.dtype == value.dtype and last.get(v.index) == made_in
        ]  # fmt: skip
        heir = _takes_over(maker, value, dying, taken)
        if heir is not None:
            taken.add(heir.index)
            donations[k] = given[heir.index]
    return donations, {first[outputs[k].index] for k in donations}


def touched(step: Launch | Call) -> list[tuple[Value, bool]]:
    """The values a step uses, and whether it writes them."""
    if isinstance(step, Launch):
        return [(x.value, x.stored) for x in step.accesses]
    return [(x.value, False) for x in step.operands] + [(x, True) for x in step.outputs]


def _takes_over(launch: Launch, value: Value, dying: Sequence[Value], taken: set[int]) -> Value | None:
    """An operand that dies here, of the same size and walked like ``value``, whose memory the result can take."""
    if launch.serial:
        return None
    writes = [x for x in launch.accesses if x.value is value]
    if len(writes) != 1 or writes[0].value.block is not None:
        return None
    write = writes[0]
    for x in launch.accesses:
        old = x.value
        if x.stored or old is value or old.nbytes != value.nbytes or old.dtype.itemsize != value.dtype.itemsize:
            continue
        if old not in dying or old.index in taken or x.walk != write.walk or x.index_strides:
            continue
        alone = sum([y.value is old for y in launch.accesses]) == 1
        if alone and x.last_load <= write.first_store:
            return old
    return None


def _overwrites(call: Call, value: Value, dying: Sequence[Value], taken: set[int]) -> Value | None:
    """The operand that dies here and that the routine would have to copy into ``value``: one without gaps, in the
    order of ``value``."""
    for k, j in call.overwrites:
        old, layout = call.operands[j]
        whole = layout.offset == 0 and layout.size == old.size
        alone = sum([x.value is old for x in call.operands]) == 1
        if call.outputs[k] is value and old in dying and old.index not in taken and whole and alone:
            return old if old.nbytes == value.nbytes else None
    return None


def _rounded(nbytes: int) -> int:
    return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)


class _Arena:
    """First fit over free blocks, which are kept in order of address and joined when they touch."""

    def __init__(self) -> None:
        self.size = 0
        self.free: list[tuple[int, int]] = []

    def take(self, nbytes: int) -> int:
        best = -1
        for k, (_, room) in enumerate(self.free):
            if room >= nbytes and (best < 0 or room < self.free[best][1]):
                best = k
                if room == nbytes:
                    break
        if best >= 0:
            at, room = self.free[best]
            if room == nbytes:
                del self.free[best]
            else:
                self.free[best] = (at + nbytes, room - nbytes)
            return at
        if self.free and self.free[-1][0] + self.free[-1][1] == self.size:
            at, room = self.free.pop()
            self.size = at + nbytes
            return at
        at = self.size
        self.size += nbytes
        return at

    def give(self, at: int, nbytes: int) -> None:
        low, high = 0, len(self.free)
        while low < high:
            middle = (low + high) // 2
            if self.free[middle][0] < at:
                low = middle + 1
            else:
                high = middle
        if low < len(self.free) and at + nbytes == self.free[low][0]:
            nbytes += self.free.pop(low)[1]
        if low and self.free[low - 1][0] + self.free[low - 1][1] == at:
            at, nbytes = self.free[low - 1][0], nbytes + self.free[low - 1][1]
            self.free[low - 1] = (at, nbytes)
        else:
            self.free.insert(low, (at, nbytes))
