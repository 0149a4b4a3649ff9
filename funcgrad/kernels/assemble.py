"""From stages of nodes to the kernel's text-bearing form, and to the numbers of this one launch.

The kernel keeps only what generated code depends on; extents, strides, offsets and scalar constants go to the
launch's integer table. So two launches of one structure share a kernel whatever their shapes.
"""

from __future__ import annotations

import numpy as np

from ..record import record
from ..util import prod
from .build import Access, Expression, Node
from .fuse import Group
from .graph import Value
from .ir import (
    TILE,
    ArgFold,
    Axis,
    Compute,
    Const,
    Fold,
    Index,
    Kernel,
    Load,
    Operand,
    Scan,
    Stage,
    Statement,
    Store,
)
from .schedule import RECOMPUTE_WEIGHT, Plan, StagePlan, schedule

__all__ = ["Launch", "assemble", "const_bits"]

_TEXT_NUMBERS = (0, 1, -1, 2, 0.5)


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
        kinds = [type(s) for stage in self.kernel.stages for s in stage.body]
        return kinds == [Load, Store] and self.accesses[0].walk == self.accesses[1].walk


@record(eq=False, slots=True)
class _LoopAxis:
    """A loop: the walk of every access along it is ``step(access)``."""

    role: str
    extent: int
    of: tuple[int, ...]
    factor: int = 1
    ragged: bool = False
    block: int = 0


def assemble(e: Expression) -> Launch:
    return _Assembler(e, schedule(e)).launch()


class _Assembler:
    def __init__(self, e: Expression, plan: Plan) -> None:
        self.e = e
        self.plan = plan
        self.group = e.group
        self.domain = e.group.domain
        self.sequential = e.group.sequential
        self.serial = any([x[3].kind == "put" and not x[3].mode[2] for x in e.stores])
        used = self._used_accesses()
        self.order = used
        self.number = {old: new for new, old in enumerate(used)}
        self.block = e.group.block if e.inner else None
        self.loops = self._loops()
        self.consts: list[np.generic] = []
        self.prelude: list[Statement] = []
        self.constant_names: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.masks: dict[int, int] = {}
        self.count = 0

    # -- operands

    def _used_accesses(self) -> list[int]:
        e, used = self.e, set[int]()
        for t, stage in enumerate(self.plan.stages):
            for node in (*stage.row, *stage.inner):
                if node.op == "load":
                    used.add(node.detail)
                    e.accesses[node.detail].loaded = True
                    e.accesses[node.detail].last_load = t
            for k in (*stage.row_stores, *stage.stores):
                used.add(e.stores[k][0])
                self._stored(e.stores[k][0], t)
            for _, home in stage.keeps:
                if home >= 0:
                    self._stored(home, t)
            for home in stage.reloads.values():
                if home >= 0:
                    e.accesses[home].loaded = True
        return sorted(used)

    def _stored(self, number: int, stage: int) -> None:
        access = self.e.accesses[number]
        access.stored = True
        access.first_store = min(access.first_store, stage)

    # -- loops

    def _loops(self) -> list[_LoopAxis]:
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
            loops.insert(0, _LoopAxis("parallel", blocks, (first,), rows))
        elif not loops:
            loops.append(_LoopAxis("parallel", 1, ()))
        return loops + inner_loops

    def _merged(self, axes: list[int], role: str) -> list[_LoopAxis]:
        runs: list[list[int]] = []
        for a in axes:
            if runs and not self.sequential and self._uniform(runs[-1][-1], a):
                runs[-1].append(a)
            else:
                runs.append([a])
        return [_LoopAxis(role, prod([self.domain[a] for a in run]), tuple(run)) for run in runs]

    def _uniform(self, outer: int, axis: int) -> bool:
        extent = self.domain[axis]
        for number in self.order:
            access = self.e.accesses[number]
            strides = self._strides(access)
            if strides[outer] != strides[axis] * extent:
                return False
        return not any(
            (n.op == "index" and n.detail in (outer, axis)) or (n.op == "scan" and self.e.inner >> axis & 1)
            for n in self.e.nodes
        )

    def _strides(self, access: Access) -> tuple[int, ...]:
        """The access's strides over the domain; the store of a block's partial result has them for kept axes."""
        if len(access.walk.strides) == len(self.domain) and not self._is_partial(access):
            return access.walk.strides
        rest = iter(access.walk.strides[1:])
        return tuple([0 if self.e.inner >> a & 1 else next(rest) for a in range(len(self.domain))])

    def _is_partial(self, access: Access) -> bool:
        return access.value.block is not None and access.value.group == self.group.number

    def _prefers_lane(self, kept: _LoopAxis, folded: _LoopAxis) -> bool:
        """Whether neighbours in memory lie along the last kept axis rather than along the folded ones, or something
        heavy must not be repeated along it."""
        lane = kept.of[-1]
        for n in self.e.nodes:
            costly = n.op == "compute" and (n.heavy or n.weight > RECOMPUTE_WEIGHT)
            if costly and n.mask & self.e.inner and not n.mask >> lane & 1:
                return True
        kept_units = folded_units = 0
        for number in self.order:
            strides = self._strides(self.e.accesses[number])
            along, across = strides[lane], strides[folded.of[-1]]
            if along and across:
                kept_units += along == 1
                folded_units += across in (1, -1)
        return kept_units > folded_units

    def _step(self, access: Access, loop: _LoopAxis) -> int:
        if not loop.of:
            return 0
        if (loop.role == "parallel" and loop.factor > 1) or (self.block is not None and loop is self.loops[0]):
            if self._is_partial(access):
                return access.walk.strides[0]
            return self._strides(access)[loop.of[-1]] * loop.factor
        return self._strides(access)[loop.of[-1]]

    # -- statements

    def launch(self) -> Launch:
        stages = []
        for stage in self.plan.stages:
            row = self._row(stage)
            if row:
                stages.append(Stage(False, tuple(row)))
            inner = self._inner(stage)
            if inner:
                stages.append(Stage(True, tuple(inner)))
        if self.prelude:
            stages.insert(0, Stage(False, tuple(self.prelude)))
        accesses = [self.e.accesses[k] for k in self.order]
        operands = [self._operand(x) for x in accesses]
        operands += [self._scratch_operand(node) for node in self.plan.scratch]
        axes = tuple([Axis(x.role, x.ragged) for x in self.loops])
        kernel = Kernel(axes, tuple(operands), tuple([c.dtype for c in self.consts]), tuple(stages))
        return self._numbers(kernel, accesses)

    def _mask(self, mask: int) -> int:
        """A mask over domain axes as one over loops."""
        made = self.masks.get(mask)
        if made is None:
            made = self._all_kept() if mask >> len(self.domain) else 0
            for k, loop in enumerate(self.loops):
                if any(mask >> a & 1 for a in loop.of):
                    made |= 1 << k
            self.masks[mask] = made
        return made

    def _all_kept(self) -> int:
        return sum([1 << k for k, x in enumerate(self.loops) if x.role != "inner"])

    def _name(self, node: Node) -> str:
        name = self.names[node.number] = f"v{self.count}"
        self.count += 1
        return name

    def _arg(self, node: Node, body: list[Statement]) -> str:
        name = self.names.get(node.number)
        if name is None:
            assert node.op == "const", node
            name = self._name(node)
            self.prelude.append(self._const(node, name))
            self.constant_names[node.number] = name
        return name

    def _const(self, node: Node, name: str) -> Const:
        number = node.detail
        special = number.dtype.kind == "f" and not np.isfinite(number)
        # to the bit: kernels that differ in nothing but -0.0 and 0.0 must not be equal
        usual = any([number == x and number.tobytes() == number.dtype.type(x).tobytes() for x in _TEXT_NUMBERS])
        if special or number.dtype.kind == "b" or usual:
            return Const(name, node.dtype, number.item())
        self.consts.append(number)
        return Const(name, node.dtype, None, len(self.consts) - 1)

    def _emit(self, node: Node, body: list[Statement]) -> None:
        if node.op == "const":
            self._arg(node, body)
            return
        args = tuple([self._arg(a, body) for a in node.args])
        name, mask = self._name(node), self._mask(node.mask)
        if node.op == "load":
            access = self.e.accesses[node.detail]
            mask = 0
            for k, loop in enumerate(self.loops):
                if self._step(access, loop):
                    mask |= 1 << k
            for a in node.args:
                mask |= self._mask(a.mask)
            dynamic = len(access.index_strides)
            body.append(Load(name, self.number[node.detail], args[:dynamic], mask, "".join(args[dynamic:])))
        elif node.op == "index":
            body.append(Index(name, self._loop_of(node.detail), mask))
        elif node.op == "compute":
            body.append(Compute(name, node.fn, args, node.dtype, node.params, mask))
        elif node.op == "fold":
            body.append(Fold(name, node.fn, args[0], node.dtype, self._all_kept()))
        elif node.op == "argfold":
            body.append(ArgFold(name, node.fn, args[0], node.args[0].dtype, self._all_kept()))
        else:
            body.append(Scan(name, node.fn, args[0], node.dtype, (1 << len(self.loops)) - 1))

    def _loop_of(self, axis: int) -> int:
        for k in range(len(self.loops) - 1, -1, -1):
            if axis in self.loops[k].of:
                return k
        raise AssertionError(f"no loop over axis {axis}")

    def _row(self, stage: StagePlan) -> list[Statement]:
        body: list[Statement] = []
        for node in stage.row:
            self._emit(node, body)
        self._emit_stores(stage.row_stores, body)
        return body

    def _inner(self, stage: StagePlan) -> list[Statement]:
        body: list[Statement] = []
        saved = dict(self.names)
        nodes = {n.number: n for n in self.e.nodes if n.number in stage.reloads} if stage.reloads else {}
        for number, home in sorted(stage.reloads.items()):
            name = f"v{self.count}"
            self.count += 1
            self.names[number] = name
            body.append(Load(name, self._place(home), (), self._mask(nodes[number].mask)))
        for node in stage.inner:
            self._emit(node, body)
        for node, home in stage.keeps:
            body.append(Store(self._place(home), self.names[node.number]))
        self._emit_stores(stage.stores, body)
        folds = {n.number: self.names[n.number] for n in stage.inner if n.op in ("fold", "argfold")}
        self.names = {**saved, **folds, **self.constant_names}  # values of this walk are not there in the next one
        return body

    def _emit_stores(self, stores: list[int], body: list[Statement]) -> None:
        made = []
        for k in stores:
            number, node, extra, root = self.e.stores[k]
            names = [self._arg(x, body) for x in (node, *extra)]
            if root.kind == "put":
                places, guarded, _ = root.mode
                guard = names[-1] if guarded else ""
                made.append(Store(self.number[number], names[0], root.fn, tuple(names[1 : 1 + len(places)]), guard))
            else:
                made.append(Store(self.number[number], names[0]))
        body += made

    def _place(self, home: int) -> int:
        return self.number[home] if home >= 0 else len(self.order) - 1 - home

    # -- operands and numbers

    def _operand(self, access: Access) -> Operand:
        steps = "".join([_letter(self._step(access, x)) for x in self.loops])
        combined = any(
            s[0] == k and s[3].fn != "set" and s[3].kind == "put"
            for k in self.order
            if self.e.accesses[k] is access
            for s in self.e.stores
        )
        role = "out" if access.stored else "in"
        if access.stored and (access.loaded or combined):
            role = "inout"
        return Operand(access.value.dtype, role, steps, len(access.index_strides))

    def _scratch_operand(self, node: Node) -> Operand:
        """Over the axes that the kept value varies along, the innermost with unit step."""
        mask = self._mask(node.mask)
        steps = []
        last = None
        for k, loop in enumerate(self.loops):
            moves = loop.role != "parallel" and mask >> k & 1
            steps.append("s" if moves else "0")
            if moves and (loop.role == "inner" or last is None):
                last = k
        lanes = [k for k, x in enumerate(self.loops) if x.role == "lane" and mask >> k & 1]
        last = lanes[0] if lanes else last
        if last is not None:
            steps[last] = "1"
        return Operand(node.dtype, "scratch", "".join(steps))

    def _numbers(self, kernel: Kernel, accesses: list[Access]) -> Launch:
        ints: list[int] = []
        sizes = [x.value.dtype.itemsize for x in accesses]
        for f in kernel.fields():
            if f.kind == "slot":
                ints.append(0)
            elif f.kind == "offset":
                ints.append(accesses[f.operand].walk.offset * sizes[f.operand])
            elif f.kind == "extent":
                ints.append(self.loops[f.axis].extent)
            elif f.kind == "block":
                ints.append(self.loops[f.axis].block)
            elif f.kind == "total":
                ints.append(self.loops[f.axis].extent)
            elif f.kind == "stride":
                ints.append(self._step(accesses[f.operand], self.loops[f.axis]) * sizes[f.operand])
            elif f.kind == "dynamic":
                ints.append(accesses[f.operand].index_strides[f.axis] * sizes[f.operand])
            else:
                ints.append(const_bits(self.consts[f.operand], f.kind == "const_imag"))
        first = self.loops[0]
        extent = -(-first.extent // TILE) if first.role == "lane" else first.extent
        iterations = prod(self.domain)
        nbytes = sum([_touched(x, self.domain) for x in accesses])
        weight = sum([1 + 15 * n.heavy for n in self.e.nodes if n.op == "compute"])
        return Launch(
            kernel, accesses, ints, extent, self.serial, nbytes, iterations * max(1, weight), self.group,
            tuple([(x.role, x.block or x.extent) for x in self.loops]), tuple(self.e.made.values()),
            self._scratch_bytes(kernel),
        )  # fmt: skip

    def _scratch_bytes(self, kernel: Kernel) -> int:
        total = 0
        for x in kernel.operands:
            if x.role == "scratch":
                moving = [loop for loop, step in zip(self.loops, x.steps, strict=True) if step != "0"]
                extents = [TILE if loop.role == "lane" else loop.block or loop.extent for loop in moving]
                total += x.dtype.itemsize * prod(extents)
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
