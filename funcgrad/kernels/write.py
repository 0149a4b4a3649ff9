"""The statements of a kernel, written from the stages of an expression.

What is written depends on the expression's structure, on the loops and on which operands move along them, and on no
extent: ``assemble`` keeps what was written and gives it to each launch that is like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..record import record
from .build import Expression, Node, Use
from .ir import (
    ArgFold,
    Axis,
    Compute,
    Const,
    Field,
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
from .schedule import Plan, StagePlan

__all__ = ["LoopAxis", "Written", "is_text", "write_kernel"]

_TEXT_NUMBERS = (0, 1, -1, 2, 0.5)


@record(eq=False, slots=True)
class LoopAxis:
    """A loop over the axes ``of`` of the domain, which no operand tells apart. Along an axis that is cut into blocks,
    one step is of ``factor`` elements; a ``ragged`` loop walks one block, of at most ``block`` iterations."""

    role: str
    extent: int
    of: tuple[int, ...]
    factor: int = 1
    ragged: bool = False
    block: int = 0


@record(eq=False)
class Written:
    """A kernel, its integer table's ``fields``, the numbers of the nodes that are its constants, and the loops that
    each scratch operand moves along."""

    kernel: Kernel
    fields: tuple[Field, ...]
    constants: tuple[int, ...]
    scratch: tuple[tuple[int, ...], ...]


def is_text(number: np.generic) -> bool:
    """Whether a constant stands in the text; others are data of the launch."""
    return _is_text(number.dtype, number.tobytes())


@lru_cache(maxsize=1024)
def _is_text(dtype: np.dtype[Any], bits: bytes) -> bool:
    (number,) = np.frombuffer(bits, dtype)
    if dtype.kind == "b" or (dtype.kind == "f" and not np.isfinite(number)):
        return True
    # to the bit: kernels that differ in nothing but -0.0 and 0.0 must not be equal
    return any([number == x and bits == dtype.type(x).tobytes() for x in _TEXT_NUMBERS])


def write_kernel(
    e: Expression, plan: Plan, order: Sequence[int], uses: Sequence[Use], loops: Sequence[LoopAxis],
    letters: Sequence[str],
) -> Written:  # fmt: skip
    """``order`` numbers the accesses that are operands; ``uses`` and ``letters`` say of each how it is used and how it
    moves along the ``loops``."""
    return _Writer(e, plan, order, loops, letters).write(uses)


class _Writer:
    def __init__(
        self, e: Expression, plan: Plan, order: Sequence[int], loops: Sequence[LoopAxis], letters: Sequence[str]
    ) -> None:
        self.e = e
        self.plan = plan
        self.order = order
        self.number = {old: new for new, old in enumerate(order)}
        self.loops = loops
        self.letters = letters
        self.consts: list[Node] = []
        self.prelude: list[Statement] = []
        self.constant_names: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.masks: dict[int, int] = {}
        self.count = 0

    def write(self, uses: Sequence[Use]) -> Written:
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
        operands = [self._operand(k, use) for k, use in enumerate(uses)]
        operands += [self._scratch_operand(node) for node in self.plan.scratch]
        axes = tuple([Axis(x.role, x.ragged) for x in self.loops])
        kernel = Kernel(axes, tuple(operands), tuple([c.dtype for c in self.consts]), tuple(stages))
        moving = [tuple([k for k, step in enumerate(x.steps) if step != "0"]) for x in operands if x.role == "scratch"]
        return Written(kernel, tuple(kernel.fields()), tuple([c.number for c in self.consts]), tuple(moving))

    def _mask(self, mask: int) -> int:
        """A mask over domain axes as one over loops."""
        made = self.masks.get(mask)
        if made is None:
            made = self._all_kept() if mask >> len(self.e.group.domain) else 0
            for k, loop in enumerate(self.loops):
                if any([mask >> a & 1 for a in loop.of]):
                    made |= 1 << k
            self.masks[mask] = made
        return made

    def _all_kept(self) -> int:
        return sum([1 << k for k, x in enumerate(self.loops) if x.role != "inner"])

    # -- statements

    def _name(self, node: Node) -> str:
        name = self.names[node.number] = f"v{self.count}"
        self.count += 1
        return name

    def _arg(self, node: Node) -> str:
        name = self.names.get(node.number)
        if name is None:
            assert node.op == "const", node
            name = self._name(node)
            self.prelude.append(self._const(node, name))
            self.constant_names[node.number] = name
        return name

    def _const(self, node: Node, name: str) -> Const:
        if is_text(node.detail):
            return Const(name, node.dtype, node.detail.item())
        self.consts.append(node)
        return Const(name, node.dtype, None, len(self.consts) - 1)

    def _emit(self, node: Node, body: list[Statement]) -> None:
        if node.op == "const":
            self._arg(node)
            return
        args = tuple([self._arg(a) for a in node.args])
        name, mask = self._name(node), self._mask(node.mask)
        if node.op == "load":
            operand = self.number[node.detail]
            mask = 0
            for k, step in enumerate(self.letters[operand]):
                if step != "0":
                    mask |= 1 << k
            for a in node.args:
                mask |= self._mask(a.mask)
            dynamic = len(self.e.accesses[node.detail].index_strides)
            body.append(Load(name, operand, args[:dynamic], mask, "".join(args[dynamic:])))
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
            names = [self._arg(x) for x in (node, *extra)]
            if root.kind == "put":
                places, guarded, _ = root.mode
                guard = names[-1] if guarded else ""
                made.append(Store(self.number[number], names[0], root.fn, tuple(names[1 : 1 + len(places)]), guard))
            else:
                made.append(Store(self.number[number], names[0]))
        body += made

    def _place(self, home: int) -> int:
        return self.number[home] if home >= 0 else len(self.order) - 1 - home

    # -- operands

    def _operand(self, k: int, use: Use) -> Operand:
        number = self.order[k]
        access = self.e.accesses[number]
        combined = any([s[0] == number and s[3].kind == "put" and s[3].fn != "set" for s in self.e.stores])
        role = "out" if use.stored else "in"
        if use.stored and (use.loaded or combined):
            role = "inout"
        return Operand(access.value.dtype, role, self.letters[k], len(access.index_strides))

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
