"""From an expression to a launch: a kernel, and the numbers of this one launch of it.

The kernel keeps only what generated code depends on; extents, strides, offsets and scalar constants go to the
launch's integer table. So two launches of one structure share a kernel whatever their shapes: the *sketch* of a
structure holds its stages and the kernels that were written for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..record import field, record
from ..util import prod
from .build import Access, Expression, Node, Use
from .fuse import Group
from .graph import Value
from .ir import TILE, Kernel
from .schedule import RECOMPUTE_WEIGHT, Plan, schedule
from .write import LoopAxis, Written, is_text, write_kernel

__all__ = ["Launch", "assemble", "const_bits"]


@record(eq=False)
class Launch:
    """A kernel on buffers: ``accesses[k]`` belongs to the k-th buffer operand, ``ints`` is the kernel's table with
    zeros where the slot numbers go. ``extent`` counts iterations of parallel axis 0. ``loops`` are role and extent of
    each axis, ``made`` the values that are computed, ``scratch_bytes`` the working memory of one thread."""

    kernel: Kernel
    accesses: list[Access]
    ints: list[int]
    extent: int
    serial: bool
    nbytes: int
    operations: int
    group: Group
    loops: tuple[tuple[str, int], ...]
    made: tuple[Value, ...]
    scratch_bytes: int

    @property
    def is_copy(self) -> bool:
        """Whether the launch does nothing but copy one buffer to another, element for element."""
        return self.kernel.is_copy and self.accesses[0].walk == self.accesses[1].walk


# what expressions of one structure share ------------------------------------------------------------------------


@record(eq=False)
class _Sketch:
    """The stages of a structure; the accesses that they use, by number, and how; ``indexed`` axes of the domain, whose
    index is computed with. ``written`` holds kernels by their loops and the operands' letters."""

    plan: Plan
    order: list[int]
    uses: list[Use]
    indexed: frozenset[int]
    scans: bool
    costly: tuple[int, ...]
    """The masks of what must not be repeated along an axis that it does not vary along."""
    weight: int
    written: dict[Any, Written] = field(default_factory=dict)


_SKETCHES = 4096
_sketches: dict[Any, _Sketch] = {}


def _sketch(e: Expression) -> _Sketch:
    key = _structure(e)
    found = _sketches.get(key)
    if found is None:
        if len(_sketches) >= _SKETCHES:
            _sketches.clear()
        found = _sketches[key] = _sketched(e)
    return found


def _structure(e: Expression) -> Any:
    """All that stages and statements are made from."""
    nodes = [
        (n.op, n.fn, n.params, n.dtype, n.mask, _said(n) if n.op == "const" else n.detail, *[a.number for a in n.args])
        for n in e.nodes
    ]
    stores = []
    for number, node, extra, root in e.stores:
        puts = (root.fn, len(root.mode[0]), *root.mode[1:]) if root.kind == "put" else None
        plain = root.home is None and root.block is None
        stores.append((number, node.number, *[x.number for x in extra], e.group.is_row(root), plain, root.dtype, puts))
    accesses = [(x.value.dtype, len(x.index_strides)) for x in e.accesses]
    return e.inner, len(e.group.domain), tuple(nodes), tuple(stores), tuple(accesses)


def _said(node: Node) -> bytes | None:
    """A constant as far as it is text."""
    return node.detail.tobytes() if is_text(node.detail) else None


def _sketched(e: Expression) -> _Sketch:
    plan = schedule(e)
    uses: dict[int, Use] = {}

    def stored(number: int, stage: int) -> None:
        use = uses.setdefault(number, Use())
        use.stored = True
        use.first_store = min(use.first_store, stage)

    for t, stage in enumerate(plan.stages):
        for node in (*stage.row, *stage.inner):
            if node.op == "load":
                use = uses.setdefault(node.detail, Use())
                use.loaded = True
                use.last_load = t
        for k in (*stage.row_stores, *stage.stores):
            stored(e.stores[k][0], t)
        for _, home in stage.keeps:
            if home >= 0:
                stored(home, t)
        for home in stage.reloads.values():
            if home >= 0:
                uses.setdefault(home, Use()).loaded = True
    order = sorted(uses)
    computed = [n for n in e.nodes if n.op == "compute"]
    return _Sketch(
        plan,
        order,
        [uses[k] for k in order],
        frozenset([n.detail for n in e.nodes if n.op == "index"]),
        any([n.op == "scan" for n in e.nodes]),
        tuple([n.mask for n in computed if (n.heavy or n.weight > RECOMPUTE_WEIGHT) and n.mask & e.inner]),
        max(1, sum([1 + 15 * n.heavy for n in computed])),
    )


# one launch -----------------------------------------------------------------------------------------------------


def assemble(e: Expression) -> Launch:
    return _Assembler(e, _sketch(e)).launch()


class _Assembler:
    def __init__(self, e: Expression, sketch: _Sketch) -> None:
        self.e = e
        self.sketch = sketch
        self.domain = e.group.domain
        self.block = e.group.block if e.inner else None
        self.accesses = [e.accesses[k] for k in sketch.order]
        for access, use in zip(self.accesses, sketch.uses, strict=True):
            access.use = use
        self.strides = [self._strides(x) for x in self.accesses]
        self.loops = self._loops()

    # -- loops

    def _loops(self) -> list[LoopAxis]:
        """Parallel axes, then inner ones; neighbours merged where no operand can tell them apart."""
        inner = self.e.inner
        parallel = [a for a in range(len(self.domain)) if not inner >> a & 1]
        folded = [a for a in range(len(self.domain)) if inner >> a & 1]
        loops = self._merged(parallel, "parallel")
        inner_loops = self._merged(folded, "inner")
        lane = bool(loops) and bool(inner_loops) and self._prefers_lane(loops[-1], inner_loops[-1])
        if lane:
            loops[-1].role = "lane"
        if self.block is not None:
            first, rows = self.block
            ragged = inner_loops[0]
            assert ragged.of[0] == first
            scale = prod([self.domain[a] for a in ragged.of[1:]])
            ragged.ragged, ragged.block = True, rows * scale
            blocks = -(-self.domain[first] // rows)
            loops.insert(0, LoopAxis("parallel", blocks, (first,), rows))
        elif not loops:
            loops.append(LoopAxis("parallel", 1, ()))
        return loops + inner_loops

    def _merged(self, axes: list[int], role: str) -> list[LoopAxis]:
        runs: list[list[int]] = []
        for a in axes:
            if runs and self._uniform(runs[-1][-1], a):
                runs[-1].append(a)
            else:
                runs.append([a])
        return [LoopAxis(role, prod([self.domain[a] for a in run]), tuple(run)) for run in runs]

    def _uniform(self, outer: int, axis: int) -> bool:
        sketch = self.sketch
        if self.e.group.sequential or outer in sketch.indexed or axis in sketch.indexed:
            return False
        extent = self.domain[axis]
        for strides in self.strides:
            if strides[outer] != strides[axis] * extent:
                return False
        return not (sketch.scans and self.e.inner >> axis & 1)

    def _strides(self, access: Access) -> tuple[int, ...]:
        """The access's strides over the domain; the store of a block's partial result has them for kept axes."""
        if len(access.walk.strides) == len(self.domain) and not self._is_partial(access):
            return access.walk.strides
        rest = iter(access.walk.strides[1:])
        return tuple([0 if self.e.inner >> a & 1 else next(rest) for a in range(len(self.domain))])

    def _is_partial(self, access: Access) -> bool:
        return access.value.block is not None and access.value.group == self.e.group.number

    def _prefers_lane(self, kept: LoopAxis, folded: LoopAxis) -> bool:
        """Whether neighbours in memory lie along the last kept axis rather than along the folded ones, or something
        heavy must not be repeated along it."""
        lane = kept.of[-1]
        if any([not mask >> lane & 1 for mask in self.sketch.costly]):
            return True
        kept_units = folded_units = 0
        for strides in self.strides:
            along, across = strides[lane], strides[folded.of[-1]]
            if along and across:
                kept_units += along == 1
                folded_units += across in (1, -1)
        return kept_units > folded_units

    def _steps(self) -> list[list[int]]:
        """How far each access moves along each loop."""
        ends = [x.of[-1] if x.of else -1 for x in self.loops]
        steps = [[strides[a] if a >= 0 else 0 for a in ends] for strides in self.strides]
        if self.block is not None:
            for access, row in zip(self.accesses, steps, strict=True):
                row[0] = access.walk.strides[0] if self._is_partial(access) else row[0] * self.loops[0].factor
        return steps

    # -- the kernel, and the numbers

    def launch(self) -> Launch:
        sketch, steps = self.sketch, self._steps()
        letters = ["".join([_letter(step) for step in row]) for row in steps]
        key = (tuple([(x.role, x.of, x.ragged) for x in self.loops]), *letters)
        written = sketch.written.get(key)
        if written is None:
            made = write_kernel(self.e, sketch.plan, sketch.order, sketch.uses, self.loops, letters)
            written = sketch.written[key] = made
        first, e = self.loops[0], self.e
        return Launch(
            written.kernel,
            self.accesses,
            self._table(written, steps),
            -(-first.extent // TILE) if first.role == "lane" else first.extent,
            any([x[3].kind == "put" and not x[3].mode[2] for x in e.stores]),
            sum([_touched(x, self.domain) for x in self.accesses]),
            prod(self.domain) * sketch.weight,
            e.group,
            tuple([(x.role, x.block or x.extent) for x in self.loops]),
            tuple(e.made.values()),
            self._scratch_bytes(written),
        )

    def _table(self, written: Written, steps: Sequence[Sequence[int]]) -> list[int]:
        ints: list[int] = []
        accesses, loops = self.accesses, self.loops
        for f in written.fields:
            kind = f.kind
            if kind == "slot":
                ints.append(0)
            elif kind == "offset":
                access = accesses[f.operand]
                ints.append(access.walk.offset * access.value.dtype.itemsize)
            elif kind == "stride":
                ints.append(steps[f.operand][f.axis] * accesses[f.operand].value.dtype.itemsize)
            elif kind in ("extent", "total"):
                ints.append(loops[f.axis].extent)
            elif kind == "block":
                ints.append(loops[f.axis].block)
            elif kind == "dynamic":
                access = accesses[f.operand]
                ints.append(access.index_strides[f.axis] * access.value.dtype.itemsize)
            else:
                ints.append(const_bits(self.e.nodes[written.constants[f.operand]].detail, kind == "const_imag"))
        return ints

    def _scratch_bytes(self, written: Written) -> int:
        total = 0
        for node, moving in zip(self.sketch.plan.scratch, written.scratch, strict=True):
            loops = [self.loops[k] for k in moving]
            total += node.dtype.itemsize * prod([TILE if x.role == "lane" else x.block or x.extent for x in loops])
        return total


def _touched(access: Access, domain: tuple[int, ...]) -> int:
    size = access.value.dtype.itemsize
    if len(access.walk.strides) != len(domain):
        return access.value.nbytes
    for s, n in zip(access.walk.strides, domain, strict=True):
        if s:
            size *= n
    return size


def _letter(step: int) -> str:
    return "0" if step == 0 else "1" if step == 1 else "s"


def const_bits(number: np.generic, imaginary: bool) -> int:
    """A scalar's bits as an int64; of a complex128 one half."""
    if number.dtype == np.complex128:
        number = np.float64(number.imag if imaginary else number.real)
    if number.dtype.kind in "iub":
        return int(np.asarray(number).astype(np.uint64).view(np.int64)) if number.dtype.kind == "u" else int(number)
    raw = number.tobytes()
    return int.from_bytes(raw + bytes(8 - len(raw)), "little", signed=True)
