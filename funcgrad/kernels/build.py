"""From a group of values to a kernel and its operands.

``Expression`` pulls what the group must store, as a graph of scalar nodes over the group's domain: members at their
own index, outside values by loads, cheap outside values as expressions. ``schedule`` cuts that graph into stages at
its folds. ``assemble`` merges loop axes that need not be told apart, ``write`` writes the statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..record import record
from .affine import Origin, Walk, contiguous_strides, split_padded
from .fuse import Group, embedded, inlines, is_local, operand_walks
from .graph import HEAVY, INDEX, INLINED_KINDS, WEIGHTS, Ref, Value

__all__ = ["Access", "Expression", "Node", "Use", "store_value"]

_BOOL = np.dtype(np.bool_)


@record(eq=False, slots=True)
class Use:
    """How a kernel uses an access, and the stages where it stores there first and loads from there last."""

    stored: bool = False
    loaded: bool = False
    first_store: int = 1 << 30
    last_load: int = -1


_UNUSED = Use()


@record(eq=False, slots=True)
class Access:
    """A way through a buffer. ``index_strides`` belong to computed indices."""

    value: Value
    walk: Walk
    index_strides: tuple[int, ...] = ()
    use: Use = _UNUSED

    @property
    def stored(self) -> bool:
        return self.use.stored

    @property
    def loaded(self) -> bool:
        return self.use.loaded


@record(eq=False, slots=True)
class Node:
    """One scalar of the expression; ``mask`` are the domain axes it varies along, ``stage`` when it can be known."""

    number: int
    op: str
    args: tuple[Node, ...]
    dtype: np.dtype[Any]
    mask: int
    stage: int = 0
    fn: str = ""
    params: tuple[tuple[str, Any], ...] = ()
    detail: Any = None
    weight: int = 1
    heavy: bool = False


def store_value(value: Value) -> None:
    """Something reads ``value`` from memory, so its group must put it there."""
    if value.stored:
        return
    value.stored = True
    for part in value.parts:
        part.stored = True


class Expression:
    def __init__(self, group: Group, roots: Sequence[Value]) -> None:
        self.group = group
        self.nodes: list[Node] = []
        self.accesses: list[Access] = []
        self.inner = 0
        self.made: dict[int, Value] = {}
        """All that the kernel computes: members of the group, and what is computed on the spot."""
        self._memo: dict[Any, Node] = {}
        self._access: dict[Any, int] = {}
        self._members = {m.index for m in group.members}
        for a in group.axes or ():
            self.inner |= 1 << a
        self.stores: list[tuple[int, Node, tuple[Node, ...], Value]] = []
        for root in roots:
            self._store(root)
        folds = any(n.op in ("fold", "argfold", "scan") for n in self.nodes)
        if not folds and not any(group.is_row(r) for r in roots):
            self.inner = 0  # whatever was folded here is not needed: all axes are parallel

    # -- building

    def node(self, op: str, args: tuple[Node, ...], dtype: np.dtype[Any], mask: int, **fields: Any) -> Node:
        made = Node(len(self.nodes), op, args, dtype, mask, **fields)
        self.nodes.append(made)
        return made

    def const(self, x: Any, dtype: np.dtype[Any]) -> Node:
        number = x if type(x) is dtype.type else dtype.type(x)
        key = ("const", dtype, number.tobytes())
        made = self._memo.get(key)
        if made is None:
            made = self._memo[key] = self.node("const", (), dtype, 0, detail=number)
        return made

    def compute(
        self, fn: str, args: Sequence[Node], dtype: np.dtype[Any], params: tuple[tuple[str, Any], ...] = ()
    ) -> Node:
        args = tuple(args)
        key = (fn, params, dtype, *[a.number for a in args])
        made = self._memo.get(key)
        if made is None:
            mask, stage, weight, heavy = 0, 0, WEIGHTS.get(fn, 1), fn in HEAVY
            for a in args:
                mask |= a.mask
                if a.stage > stage:
                    stage = a.stage
                if a.mask & self.inner:
                    weight += a.weight
                    heavy = heavy or a.heavy
            number = len(self.nodes)
            made = Node(number, "compute", args, dtype, mask, stage, fn, params, None, weight, heavy)
            self._memo[key] = made
            self.nodes.append(made)
        return made

    def access(self, value: Value, walk: Walk, index_strides: tuple[int, ...] = ()) -> int:
        key = (value.index, walk, index_strides)
        number = self._access.get(key)
        if number is None:
            number = self._access[key] = len(self.accesses)
            self.accesses.append(Access(value, walk, index_strides))
        return number

    def load(
        self, value: Value, walk: Walk, guard: Node | None = None, indices: tuple[Node, ...] = (),
        strides: tuple[int, ...] = (),
    ) -> Node:  # fmt: skip
        """An element from memory; where ``guard`` is false, zero, and memory is not touched."""
        store_value(value)
        number = self.access(value, walk if walk.origin is None else walk._replace(origin=None), strides)
        args = indices if guard is None else (*indices, guard)
        key = ("load", number, *[n.number for n in args])
        made = self._memo.get(key)
        if made is None:
            mask, stage = strides_mask(walk.strides), 0
            for n in args:
                mask |= n.mask
                stage = max(stage, n.stage)
            made = self._memo[key] = self.node("load", args, value.dtype, mask, stage=stage, detail=number)
        return made

    def pull(self, ref: Ref, walk: Walk, guard: Node | None = None) -> Node:
        """The element of ``ref.value`` at ``walk`` over the domain."""
        value = ref.value
        if value.kind == "const":
            return self.const(value.mode, value.dtype)
        key = (value.index, walk, None if guard is None else guard.number)
        made = self._memo.get(key)
        if made is None:
            made = self._memo[key] = self._pull(value, walk, guard)
        return made

    def _pull(self, value: Value, walk: Walk, guard: Node | None) -> Node:
        group = self.group
        if value.kind == "iota":
            return self._linear(walk.strides, walk.offset)
        if value.group == group.number and value.index in self._members and is_local(group, value, walk):
            return self._define(value)
        outside = value.kind == "input" or (value.stored and value.group < group.number)
        later = value.kind in INLINED_KINDS and value.group >= group.number  # counted on being computed here
        if later or (not outside and inlines(value, walk, group)):
            walks = operand_walks(value, walk, group.domain)
            if walks is not None:
                return self._apply(value, walk, walks, guard)
        return self.load(value, walk, guard)

    def _define(self, value: Value) -> Node:
        """A member at its own index."""
        return self._apply(value, self._own(value), value.walks, None)

    def _own(self, value: Value) -> Walk:
        """The walk through a member itself."""
        return Walk(embedded(self.group, contiguous_strides(value.shape), self.group.is_row(value)), 0)

    def _apply(self, value: Value, walk: Walk, walks: Sequence[Walk], guard: Node | None) -> Node:
        self.made[value.index] = value
        if value.kind == "padded":
            return self._pad(value, walk, walks, guard)
        if value.kind == "window":
            indices = tuple([self.pull(r, w, guard) for r, w in zip(value.operands[1:], walks[1:], strict=True)])
            return self.load(value.operands[0].value, walks[0], guard, indices, value.mode)
        args = [self.pull(r, w, guard) for r, w in zip(value.operands, walks, strict=True)]
        if value.kind == "map":
            return args[0] if value.fn == "copy" else self.compute(value.fn, args, value.dtype, value.params)
        if value.kind == "scan":
            mask = args[0].mask | self.inner | self._kept_mask()
            return self.node(
                "scan", tuple(args), value.dtype, mask, stage=args[0].stage, fn=value.fn, weight=99, heavy=True
            )
        return self.node(value.kind, tuple(args), value.dtype, self._kept_mask(), stage=args[0].stage + 1, fn=value.fn)

    def _pad(self, value: Value, walk: Walk, walks: Sequence[Walk], guard: Node | None) -> Node:
        (inner, fill), domain = value.operands, self.group.domain
        parts = split_padded(walk, domain, value.shape, value.mode, inner.layout)
        assert parts is not None
        inside = self._inside(parts[0], value.mode, inner.layout.shape)
        outer = self.pull(fill, walks[1], guard)
        if inside is None:
            return self.pull(inner, walks[0], guard)
        both = inside if guard is None else self.compute("and", (guard, inside), _BOOL)
        return self.compute("select", (inside, self.pull(inner, walks[0], both), outer), value.dtype)

    def _inside(self, origin: Origin, lows: Sequence[int], counts: Sequence[int]) -> Node | None:
        """Whether the index is within the region; None: always."""
        inside: Node | None = None
        for k, (low, count, extent) in enumerate(zip(lows, counts, origin.shape, strict=True)):
            if low == 0 and count == extent:
                continue
            index = self._linear(tuple([row[k] for row in origin.rows]), origin.base[k])
            for fn, limit, needed in (("ge", low, low > 0), ("lt", low + count, low + count < extent)):
                if needed:
                    test = self.compute(fn, (index, self.const(limit, INDEX)), _BOOL)
                    inside = test if inside is None else self.compute("and", (inside, test), _BOOL)
        return inside

    def _kept_mask(self) -> int:
        """All kept axes, and one bit more: what depends on a fold belongs into the parallel iteration even where no
        kept axis is left."""
        return ((2 << len(self.group.domain)) - 1) & ~self.inner

    def _linear(self, strides: Sequence[int], offset: int) -> Node:
        """The integer ``offset`` plus each domain index times its stride."""
        total: Node | None = None
        for a, step in enumerate(strides):
            if step:
                term = self._index(a)
                if step != 1:
                    term = self.compute("mul", (term, self.const(step, INDEX)), INDEX)
                total = term if total is None else self.compute("add", (total, term), INDEX)
        if total is None:
            return self.const(offset, INDEX)
        return self.compute("add", (total, self.const(offset, INDEX)), INDEX) if offset else total

    def _index(self, axis: int) -> Node:
        made = self._memo.get(("index", axis))
        if made is None:
            made = self._memo[("index", axis)] = self.node("index", (), INDEX, 1 << axis, detail=axis)
        return made

    def _store(self, root: Value) -> None:
        group = self.group
        row = group.is_row(root)
        owner, layout = (root.home.value, root.home.layout) if root.home is not None else (root, None)
        if root.block is not None:
            walk = Walk(contiguous_strides(root.shape), 0)  # its first axis counts blocks; see assemble
        elif layout is None:
            walk = Walk(embedded(group, contiguous_strides(root.shape), row), 0)
        else:
            walk = Walk(embedded(group, layout.strides, row), layout.offset)
        if root.kind == "put":
            self.made[root.index] = root
            places = root.mode[0]
            args = [self.pull(r, Walk(r.layout.strides, r.layout.offset)) for r in root.operands]
            number = self.access(owner, walk, places)
            self.stores.append((number, args[0], tuple(args[1:]), root))
            return
        own = walk if root.home is None else self._own(root)
        made = self._memo.get((root.index, own, None)) if root.block is None else None
        if made is None:
            made = self._define(root)
            if root.block is None:
                self._memo[(root.index, own, None)] = made
        self.stores.append((self.access(owner, walk), made, (), root))


def strides_mask(strides: Sequence[int]) -> int:
    mask = 0
    for a, s in enumerate(strides):
        if s:
            mask |= 1 << a
    return mask
