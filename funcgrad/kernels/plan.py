"""The buffer plan: when each value in memory lives, and where.

Launches run in order, so a buffer lives from the launch that writes it first to the one that reads it last. Memory is
handed out walking backwards: where a value is read last it gets the memory of a result that is written over it element
for element, else the best-fitting free block of the one arena that temporaries share. Outputs begin in memory of their
own, which is free before (that is, after, walking backwards) the launch that writes them: so a product and the update
made of it, or a value and its copy, need no memory but the output's. Forwards, one would have to guess which of two
buffers a chain of values must begin in to end beside its output; backwards it follows.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ..record import field, record
from .assemble import Launch
from .graph import Call, Value
from .ir import Kernel, Load, Statement, Store, reads

__all__ = ["ALIGNMENT", "MemoryPlan", "make_plan"]

ALIGNMENT = 64


@record(eq=False)
class MemoryPlan:
    """``slots`` maps a value's number to its slot: inputs, outputs, constants, temporaries in this order; a temporary
    in the memory of an output has that output's slot."""

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
    heirs: Mapping[int, int] | None = None,
) -> MemoryPlan:
    """``donated`` says of each input whether its memory may be overwritten by an output of the same type; ``heirs``,
    where given, of an output the one input whose memory it may take."""
    slots = {v.index: k for k, v in enumerate((*inputs, *outputs, *constants))}
    donations, written_over = _donations(steps, inputs, outputs, donated, heirs)
    made, born, dying = _lifetimes(steps, slots)
    places = _Places(slots, [v for k, v in enumerate(outputs) if k not in donations])
    elided: set[int] = {n for n in written_over if steps[n].is_copy}  # type: ignore[union-attr]
    in_place = len(donations)
    for number in range(len(steps) - 1, -1, -1):
        step, results = steps[number], born.get(number, ())
        alive = dying.get(number, ())  # backwards, a value comes to life where it is read last
        taken: set[int] = set()
        claimed: set[int] = set()
        for result in results:
            if result in alive:  # nothing reads it
                places.find(result)
                taken.add(result.index)
        for result in results:
            heir = None
            if places.can_pass_on(result):
                take = _takes_over if isinstance(step, Launch) else _overwrites
                heir = take(step, result, alive, taken)  # type: ignore[arg-type]
            if heir is not None:
                places.pass_on(result, heir)
                taken.add(heir.index)
                claimed.add(result.index)
                in_place += 1
                if isinstance(step, Launch) and step.is_copy:
                    elided.add(number)
        for value in alive:
            if value.index not in taken:
                places.find(value)
        for result in results:
            if result.index not in claimed:
                places.free(result)
    offsets: list[int] = []
    temporaries = [v for v in made if places.of[v.index].output is None]
    first_temporary = len(slots)
    for value in made:
        output, offset = places.of[value.index]
        if output is not None:
            slots[value.index] = slots[output]
        else:
            slots[value.index] = first_temporary + len(offsets)
            offsets.append(offset)
    return MemoryPlan(slots, offsets, places.arena.size, in_place, elided, temporaries, donations)


def _lifetimes(
    steps: Sequence[Launch | Call], slots: dict[int, int]
) -> tuple[list[Value], dict[int, list[Value]], dict[int, list[Value]]]:
    """The temporaries in order; per step, what is first written in it (outputs too), and the temporaries whose last
    use it is."""
    made: list[Value] = []
    last: dict[int, int] = {}
    born: dict[int, list[Value]] = {}
    for number, step in enumerate(steps):
        for value, written in touched(step):
            if value.index not in last:
                if written:
                    born.setdefault(number, []).append(value)
                if value.index not in slots and (written or not value.size):  # no step writes what is empty
                    made.append(value)
            last[value.index] = number
    dying: dict[int, list[Value]] = {}
    for value in made:
        dying.setdefault(last[value.index], []).append(value)
    return made, born, dying


class _Place(NamedTuple):
    """The memory of an output (by index), or an offset in the arena."""

    output: int | None
    offset: int = 0


class _Places:
    """Where temporaries lie, handed out from the last step to the first."""

    def __init__(self, slots: dict[int, int], outputs: Sequence[Value]) -> None:
        self.of: dict[int, _Place] = {v.index: _Place(v.index) for v in outputs}
        self.arena = _Arena()
        self.outputs = {v.index: v for v in outputs}
        self.unborn: list[tuple[int, int]] = []
        """Outputs whose memory is free: (bytes, index), in order."""

    def can_pass_on(self, value: Value) -> bool:
        """Not an output that lies in donated memory."""
        return value.index in self.of

    def pass_on(self, value: Value, heir: Value) -> None:
        self.of[heir.index] = self.of[value.index]

    def find(self, value: Value) -> None:
        """Free memory in the arena, then an output that holds it, then more arena."""
        nbytes = _rounded(value.nbytes)
        at = self.arena.take_free(nbytes)
        if at is None:
            k = bisect_left(self.unborn, (value.nbytes, -1))
            if k < len(self.unborn):
                self.of[value.index] = _Place(self.unborn.pop(k)[1])
                return
            at = self.arena.grow(nbytes)
        self.of[value.index] = _Place(None, at)

    def free(self, value: Value) -> None:
        place = self.of.get(value.index)
        if place is None:
            return
        if place.output is not None:
            insort(self.unborn, (self.outputs[place.output].nbytes, place.output))
        else:
            self.arena.give(place.offset, _rounded(value.nbytes))


def _donations(
    steps: Sequence[Launch | Call],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    donated: Sequence[bool],
    heirs: Mapping[int, int] | None,
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
            and (heirs is None or heirs.get(k) == given[v.index])
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
    uses = [(x.value, False) for x in step.operands] + [(x, True) for x in step.outputs]
    return uses if step.scratch is None else [*uses, (step.scratch, True)]


def _takes_over(launch: Launch, value: Value, dying: Sequence[Value], taken: set[int]) -> Value | None:
    """An operand that dies here, of the same size and walked like ``value``, whose memory the result can take."""
    if launch.serial:
        return None
    writes = [x for x in launch.accesses if x.value is value]
    if len(writes) != 1 or writes[0].value.block is not None:
        return None
    write = writes[0]
    new = launch.accesses.index(write)
    for k, x in enumerate(launch.accesses):
        old = x.value
        if x.stored or old is value or old.nbytes != value.nbytes or old.dtype.itemsize != value.dtype.itemsize:
            continue
        if old not in dying or old.index in taken or x.walk != write.walk or x.index_strides:
            continue
        alone = sum([y.value is old for y in launch.accesses]) == 1
        if alone and x.use.last_load <= write.use.first_store and _feeds(launch.kernel, k, new):
            return old
    return None


@lru_cache(maxsize=4096)
def _feeds(kernel: Kernel, old: int, new: int) -> bool:
    """Whether what is loaded of operand ``old`` in the stage that first writes ``new`` goes into what is written, and
    nothing loaded of it is used in a later stage.

    Generated code tells LLVM that operands do not overlap, and may load a value again where a later stage uses it. So
    it must be the data that keeps each load of a shared element before the store.
    """
    first = next(n for n, s in enumerate(kernel.stages) if any([_stores(x, new) for x in s.body]))
    loaded: set[str] = set()
    made: set[str] = set()
    for number, stage in enumerate(kernel.stages):
        for statement in stage.body:
            if isinstance(statement, Load) and statement.operand == old:
                loaded.add(statement.dst)
                if number == first:
                    made.add(statement.dst)
                continue
            names = reads(statement)
            if number > first and not loaded.isdisjoint(names):
                return False
            if isinstance(statement, Store):
                if number == first and statement.operand == new and made and statement.arg not in made:
                    return False
            elif not made.isdisjoint(names):
                made.add(statement.dst)
    return True


def _stores(statement: Statement, operand: int) -> bool:
    return isinstance(statement, Store) and statement.operand == operand


def _overwrites(call: Call, value: Value, dying: Sequence[Value], taken: set[int]) -> Value | None:
    """The operand that dies here and that the routine would have to copy into ``value``: one without gaps, in the
    order of ``value``."""
    if call.kind == "host":
        return _host_takes_over(call, value, dying, taken)
    for k, j in call.overwrites:
        old, layout = call.operands[j]
        whole = layout.offset == 0 and layout.size == old.size
        alone = sum([x.value is old for x in call.operands]) == 1
        if call.outputs[k] is value and old in dying and old.index not in taken and whole and alone:
            return old if old.nbytes == value.nbytes else None
    return None


def _host_takes_over(call: Call, value: Value, dying: Sequence[Value], taken: set[int]) -> Value | None:
    """The one result of a host step is copied into place when the function has returned: its operands may be gone."""
    if len(call.outputs) != 1:
        return None
    for ref in call.operands:
        old = ref.value
        if old in dying and old.index not in taken and old.nbytes == value.nbytes:
            return old
    return None


def _rounded(nbytes: int) -> int:
    return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)


class _Arena:
    """Best fit over free blocks, which are kept in order of address and joined when they touch."""

    def __init__(self) -> None:
        self.size = 0
        self.free: list[tuple[int, int]] = []

    def take_free(self, nbytes: int) -> int | None:
        """The smallest free block that is large enough; None where there is none."""
        best = -1
        for k, (_, room) in enumerate(self.free):
            if room >= nbytes and (best < 0 or room < self.free[best][1]):
                best = k
                if room == nbytes:
                    break
        if best < 0:
            return None
        at, room = self.free[best]
        if room == nbytes:
            del self.free[best]
        else:
            self.free[best] = (at + nbytes, room - nbytes)
        return at

    def grow(self, nbytes: int) -> int:
        """A block that begins with what is free at the end."""
        if self.free and self.free[-1][0] + self.free[-1][1] == self.size:
            at, _ = self.free.pop()
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
