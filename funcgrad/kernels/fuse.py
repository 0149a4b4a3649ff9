"""Which values share a kernel: one pass over the graph, in order.

A *group* becomes one kernel. It has a domain, the shape that its loops run over, of which some axes may be reduced;
its members vary over the whole domain, or, once something was folded, over the kept axes alone ("row" members).
Groups are numbered in order of execution. A value may join any group not earlier than those that its operands come
from, so no cycle can arise; we ask the latest of these, and the latest reader of the same operands.

What a group needs from outside is loaded from memory, or computed again on the spot if that is cheap (``inlines``):
no heavy function is ever computed twice for an element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..record import field, record
from .affine import Walk, contiguous_strides, split_padded, split_walk
from .graph import ALONE, CHEAP_WEIGHT, INLINED_KINDS, Call, Graph, Value
from .ir import TILE

__all__ = ["Group", "Refusal", "embedded", "form_groups", "inlines", "is_local", "member_walks", "obstacle"]

_OUTSIDE = ("input", "const", "iota")
"""The kinds of values that no group makes."""
MAX_MEMBERS = 120
MAX_INLINE = 60
_SEEN = 16


class Refusal(NamedTuple):
    """Why ``value`` did not join a group: "*value* *reason*", or, with a ``cause``, "*value* needs *cause*, which
    *reason*"."""

    value: Value
    group: int
    reason: str
    cause: Value | None = None


@record(eq=False)
class Group:
    """``axes`` are the reduced axes of ``domain``, None as long as nothing is folded. ``block``: see ``Value``.
    ``floor``: the last barrier that any member stands behind."""

    number: int
    domain: tuple[int, ...]
    axes: tuple[int, ...] | None = None
    block: tuple[int, int] | None = None
    sequential: bool = False
    call: Call | None = None
    floor: int = 0
    members: list[Value] = field(default_factory=list)

    @property
    def kept(self) -> tuple[int, ...]:
        axes = self.axes or ()
        return tuple([n for a, n in enumerate(self.domain) if a not in axes])

    def extents(self, row: bool) -> tuple[int, ...]:
        return self.kept if row else self.domain

    def is_row(self, value: Value) -> bool:
        """Whether a member varies along the kept axes only."""
        if value.kind in ("fold", "argfold"):
            return True
        return bool(self.axes) and value.shape != self.domain


def embedded(group: Group, strides: tuple[int, ...], row: bool) -> tuple[int, ...]:
    """Strides over the kept axes, laid over the whole domain."""
    if not row or not group.axes:
        return strides
    rest = iter(strides)
    return tuple([0 if a in group.axes else next(rest) for a in range(len(group.domain))])


def is_local(group: Group, value: Value, walk: Walk) -> bool:
    """Whether a member, walked over the domain like this, is just the element computed in this iteration."""
    if walk.offset or value.block is not None:
        return False
    own = contiguous_strides(value.shape)
    return walk.strides == (embedded(group, own, group.is_row(value)) if group.axes else own)


def inlines(value: Value, walk: Walk, group: Group) -> bool:
    """Whether a value, walked over the group's domain, is computed again where it is used rather than loaded.

    What is cheap always is. Anything else only if the loops compute each element once, nothing else in the group
    that defines it needs it, and no other group has claimed it: so nothing heavy is computed in two places.
    """
    if value.virtual:
        return True
    if value.kind not in INLINED_KINDS or value.home is not None or value.fenced:
        return False
    if not value.heavy and value.weight <= CHEAP_WEIGHT:
        return True
    if value.whole or value.weight > MAX_INLINE or value.claimed not in (-1, group.number):
        return False
    if not _leaves_home(value):
        return False
    return not value.shape or _computed_once(walk, group)


def _leaves_home(value: Value) -> bool:
    """Whether all that is made of ``value`` in its own group passes through one value that another group reads."""
    home = value.group
    for _ in range(MAX_INLINE):
        meeting = value.meeting
        if meeting is None or (meeting.group == home and meeting.kind not in INLINED_KINDS):
            return False
        if meeting.group != home:
            return True
        value = meeting
    return False


def _computed_once(walk: Walk, group: Group) -> bool:
    """Whether the loops compute an element of this walk once: the axes that it does not vary along are innermost.

    Loops run over kept axes, then folded ones; or, with the last kept axis as a lane, over that one innermost.
    """
    folded = [a for a in range(len(group.domain)) if a in (group.axes or ())]
    kept = [a for a in range(len(group.domain)) if a not in folded]
    moves = [walk.strides[a] != 0 for a in (*kept, *folded)]
    if sorted(moves, reverse=True) == moves:
        return True
    if not folded or not kept or group.domain[kept[-1]] > TILE:
        return False
    moves = [walk.strides[a] != 0 for a in (*kept[:-1], *folded, kept[-1])]
    return sorted(moves, reverse=True) == moves


def member_walks(value: Value, group: Group) -> Sequence[Walk]:
    """The walks through the operands of a member of ``group``, over the group's domain."""
    row = value.kind not in ("fold", "argfold") and group.is_row(value)
    if value.kind == "padded":
        own = Walk(embedded(group, contiguous_strides(value.shape), row), 0)
        walks = operand_walks(value, own, group.domain)
        assert walks is not None
        return walks
    return [Walk(embedded(group, x.layout.strides, row), x.layout.offset) for x in value.operands]


def operand_walks(value: Value, walk: Walk, domain: tuple[int, ...]) -> Sequence[Walk] | None:
    """The walks through the operands of an expression, given one through itself."""
    if value.kind == "padded":
        parts = split_padded(walk, domain, value.shape, value.mode, value.operands[0].layout)
        return None if parts is None else [parts[1], Walk((0,) * len(domain), value.operands[1].layout.offset)]
    shape = value.shape
    if shape == domain and not walk.offset and walk.strides == contiguous_strides(shape):
        return [Walk(x.strides, x.offset) for _, x in value.operands]
    return split_walk(walk, domain, shape, tuple([x for _, x in value.operands]))


def obstacle(value: Value, group: Group) -> str:
    """Why the loops of ``group`` cannot compute ``value``, as in `Refusal`; empty if they can."""
    return _told(_obstacle(value, group), value, group)


def _obstacle(value: Value, group: Group) -> str:
    """`obstacle` without its numbers, of which nobody wants to know while groups are formed."""
    if group.call is not None:
        return "cannot join a library or host step, which has no loops of ours"
    if group.sequential:
        return "cannot join: writing at computed places is a kernel of its own"
    if len(group.members) >= MAX_MEMBERS:
        return f"cannot join: {MAX_MEMBERS} values in one kernel are enough"
    if value.kind in ("fold", "argfold", "scan"):
        if value.operands[0].value.block is not None:
            return "folds the blocks of a long reduction once they are all there"
        if value.operands[0].layout.shape != group.domain:
            return _OTHER_DOMAIN
        if group.axes is None:
            if value.block is None or not any(m.kind == "window" for m in group.members):
                return ""
            return "is a long reduction, cut into blocks, and indexing is not"
        if group.axes != value.axes:
            return _OTHER_AXES
        return "" if group.block == value.block else "is not cut into blocks like the long reductions there"
    if value.shape == group.domain:
        return ""
    if group.axes is None or value.shape != group.kept:
        return _OTHER_DOMAIN
    return "" if group.block is None else "waits for a long reduction, whose blocks have to be folded first"


class Grouper:
    """``refusals``, if given, collects why values did not join the groups of their operands."""

    def __init__(self, refusals: list[Refusal] | None = None) -> None:
        self.groups: list[Group] = []
        self.refusals = refusals
        self.floors = {0: 0}
        """The first group behind each barrier."""
        self.readers: dict[int, dict[int, bool]] = {}
        """By the number of a group: which others read what it defines, and whether just element by element."""
        self.claims: dict[int, list[Value]] = {}
        """By the number of a group: the values it claims to compute on the spot."""
        self.pinned: set[int] = set()
        """Groups whose place is fixed: what they read may be overwritten later."""

    def new_group(self, domain: tuple[int, ...], **fields: Any) -> Group:
        group = Group(len(self.groups), domain, **fields)
        self.groups.append(group)
        return group

    # -- where a value may go

    def ready(self, value: Value, walk: Walk, group: Group, known: dict[tuple[int, Walk], int]) -> int:
        """The earliest group in which ``value``, walked over the domain of ``group``, can be used. A member of
        ``group`` itself counts as there if only its own element is used."""
        if value.kind in _OUTSIDE:
            return -1
        if value.group == group.number and value.kind != "array" and is_local(group, value, walk):
            return value.group
        key = (value.index, walk)
        found = known.get(key)
        if found is None:
            found = known[key] = value.group + 1
            if inlines(value, walk, group):
                walks = operand_walks(value, walk, group.domain)
                if walks is not None:
                    found = known[key] = self.ready_operands(value, walks, group, known)
        return found

    def ready_operands(
        self, value: Value, walks: Sequence[Walk], group: Group, known: dict[tuple[int, Walk], int]
    ) -> int:
        latest = -1
        in_memory = value.kind == "window"  # the first operand
        for (x, _), walk in zip(value.operands, walks, strict=True):
            ready = x.group + 1 if in_memory else self.ready(x, walk, group, known)
            if ready > latest:
                latest = ready
            in_memory = False
        return latest

    def claim(self, value: Value, group: Group) -> None:
        """Note what ``group`` is going to compute on the spot for its new member."""
        stack = [
            (ref.value, walk)
            for k, (ref, walk) in enumerate(zip(value.operands, value.walks, strict=True))
            if value.kind != "window" or k
        ]
        if value.kind == "window":
            self.note_read(value.operands[0].value, group, None)
        number = group.number
        seen = set()
        while stack:
            x, walk = stack.pop()
            kind = x.kind
            if kind in _OUTSIDE or (x.group == number and kind in INLINED_KINDS and x.home is None):
                continue
            key = (x.index, walk)
            if key in seen:
                continue
            seen.add(key)
            self.note_read(x, group, walk)
            if kind not in INLINED_KINDS or x.group == number or not inlines(x, walk, group):
                continue
            walks = operand_walks(x, walk, group.domain)
            if walks is None:
                continue
            if x.heavy or x.weight > CHEAP_WEIGHT:
                x.claimed = group.number
                self.claims.setdefault(group.number, []).append(x)
            stack += [
                (r.value, w) for k, (r, w) in enumerate(zip(x.operands, walks, strict=True)) if x.kind != "window" or k
            ]

    def note_read(self, value: Value, group: Group, walk: Walk | None) -> None:
        """``group`` reads ``value``; the walk over its domain, if it is one that might be element by element."""
        if value.kind in ("array", "put") or value.home is not None:
            self.pinned.add(group.number)
        if 0 <= value.group < group.number:  # what comes later is computed on the spot, not read
            local = value.shape == group.domain and walk == Walk(contiguous_strides(value.shape), 0)
            readers = self.readers.setdefault(value.group, {})
            readers[group.number] = local and readers.get(group.number, True)

    def candidates(self, value: Value) -> list[Group]:
        """The groups that ``value`` might join, the likeliest first."""
        numbers: list[int] = []
        for ref in value.operands:
            for number in (ref.value.group, ref.value.consumers):
                if number >= 0 and number not in numbers:
                    numbers.append(number)
        numbers.sort(reverse=True)
        return [self.groups[n] for n in numbers[:_SEEN]]

    # -- putting it there

    def place(self, value: Value) -> None:
        earliest = floor = self.floors.setdefault(value.floor, len(self.groups))
        if value.home is not None and (value.mode == 1 or value.kind == "put"):
            array = value.home.value
            written = max([p.group for p in array.parts if p is not value and p.group >= 0], default=-1) + 1
            earliest = max(earliest, written)
        group = walks = None
        if value.kind != "put" and value.mode != ALONE:
            for candidate in self.candidates(value):
                if candidate.number < floor:
                    reason = _FENCED
                else:
                    reason = _WRITTEN if candidate.number < earliest else _obstacle(value, candidate)
                walks = None if reason else self._try(value, candidate)
                if walks is not None:
                    group = candidate
                    break
                if self.refusals is not None:
                    self._note(value, candidate, reason)
        if group is None:
            group = self._fresh(value)
        value.walks = member_walks(value, group) if walks is None else walks
        group.members.append(value)
        group.floor = max(group.floor, value.floor)
        value.group = group.number
        self.claim(value, group)
        for ref in value.operands:
            ref.value.consumers = group.number

    def _try(self, value: Value, group: Group) -> Sequence[Walk] | None:
        """The walks through the operands of ``value``, if all are at hand in ``group``, over whose domain it is
        defined."""
        saved = group.axes, group.block
        if value.kind in ("fold", "argfold", "scan"):
            group.axes, group.block = value.axes, value.block
        walks = member_walks(value, group)
        if self.ready_operands(value, walks, group, {}) <= group.number:
            return walks
        group.axes, group.block = saved
        return None

    def _note(self, value: Value, group: Group, reason: str) -> None:
        assert self.refusals is not None
        cause = None
        reason = _told(reason, value, group)
        if not reason:
            reason, cause = self._missing(value, member_walks(value, group), group) or (_LATER, None)
        self.refusals.append(Refusal(value, group.number, reason, cause))

    def _missing(self, value: Value, walks: Sequence[Walk], group: Group) -> tuple[str, Value] | None:
        """The operand that is not at hand in ``group``, and why."""
        for k, (ref, walk) in enumerate(zip(value.operands, walks, strict=True)):
            x = ref.value
            if value.kind == "window" and k == 0:
                if x.group >= group.number:
                    return "is read at computed places: it is needed whole before", x
            elif self.ready(x, walk, group, {}) > group.number:
                if x.group >= group.number and x.kind in INLINED_KINDS and inlines(x, walk, group):
                    inner = operand_walks(x, walk, group.domain)
                    found = None if inner is None else self._missing(x, inner, group)
                    if found is not None:
                        return found
                return self._why_not_there(x, walk, group), x
        return None

    def _why_not_there(self, x: Value, walk: Walk, group: Group) -> str:
        if x.call is not None:
            return f"comes from a {'library' if x.call.kind == 'gemm' else 'host'} step"
        if x.group > group.number:
            return _LATER
        if x.kind in ("array", "put") or x.home is not None:
            return "is written piece by piece: it is needed whole before"
        if x.kind in ("fold", "argfold", "scan") or group.is_row(x):
            if x.block is not None:
                return "is a long reduction, cut into blocks, which have to be folded first"
            return "is a result along the reduced axes that is needed whole before"
        if x.whole:
            return "is read in several arrangements and too heavy to compute for each: it is needed whole before"
        if x.claimed not in (-1, group.number) and (x.heavy or x.weight > CHEAP_WEIGHT):
            return "is used in two places and too heavy to compute twice"
        return "is read at other places than it is computed at (shifted, transposed or repeated)"

    def _fresh(self, value: Value) -> Group:
        if value.kind in ("fold", "argfold", "scan"):
            return self.new_group(value.operands[0].layout.shape, axes=value.axes, block=value.block)
        return self.new_group(value.shape, sequential=value.kind == "put")

    # -- putting groups together

    def join_readers(self) -> None:
        """Let groups of elementwise work go where they are first read: the chain ``exp(-r t)`` began in a group of its
        own, since nothing that was there yet read ``r`` or ``t``, and is then read beside other work on them."""
        moved: dict[int, int] = {}
        for group in reversed(self.groups):
            readers: dict[int, bool] = {}
            for number, local in self.readers.get(group.number, {}).items():
                number = moved.get(number, number)
                readers[number] = local and readers.get(number, True)
            if not readers:
                continue
            first = min(readers)
            if readers[first] and self._may_join(group, self.groups[first]):
                self._join(group, self.groups[first])
                moved[group.number] = first

    def _may_join(self, group: Group, target: Group) -> bool:
        plain = group.call is None and group.axes is None and not group.sequential and group.number not in self.pinned
        return (
            plain
            and group.domain == target.domain
            and group.floor == target.floor
            and len(group.members) + len(target.members) <= MAX_MEMBERS
            and all([m.kind == "map" and m.home is None and m.mode != ALONE and not m.fenced for m in group.members])
            and len({m.floor for m in (*group.members, *target.members)}) == 1
            and not any([_obstacle(m, target) for m in group.members[:1]])
        )

    def _join(self, group: Group, target: Group) -> None:
        for value in group.members:
            value.group = target.number
        for value in self.claims.get(group.number, ()):
            value.claimed = target.number
        target.members = sorted([*group.members, *target.members], key=lambda m: m.index)
        group.members = []


def _told(reason: str, value: Value, group: Group) -> str:
    """An obstacle with its numbers."""
    if reason is _OTHER_AXES:
        return reason.format(_shape(value.axes), _shape(group.axes or ()))
    if reason is _OTHER_DOMAIN:
        folds = value.kind in ("fold", "argfold", "scan")
        domain = value.operands[0].layout.shape if folds else value.shape
        return reason.format(_shape(domain), _shape(group.domain))
    return reason


def _shape(numbers: Sequence[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"


_OTHER_DOMAIN = "runs over a different domain: {}, not {}"
_OTHER_AXES = "folds axes {}, the reductions there axes {}"

_WRITTEN = "writes over what another kernel writes first"
_LATER = "is computed later"
_FENCED = "stands behind an optimization barrier"


def form_groups(graph: Graph, refusals: list[Refusal] | None = None) -> list[Group]:
    """The groups of a graph in order of execution. Groups of which nothing is needed have no stored member."""
    grouper = Grouper(refusals)
    for item in graph.order:
        if isinstance(item, Call):
            group = grouper.new_group((), call=item)
            for ref in item.operands:
                grouper.note_read(ref.value, group, None)
            for value in item.outputs:
                value.group = group.number
        elif item.kind == "array":
            item.group = max([p.group for p in item.parts], default=-1)
        elif item.kind != "iota" and item.size:
            grouper.place(item)
    grouper.join_readers()
    return grouper.groups
