"""Kernels as Python source for the CPU: loops over memory addresses, vectorised by LLVM.

    def kernel(slots, ints, lo, hi):
        p0 = base(slots, ints, 0, 2)        # operands: address of the buffer plus the launch's offset
        p1 = base(slots, ints, 1, 3)
        for i0 in range(lo, hi):
            v0 = load_f64(p0, i0, 0)        # address, element, number of the operand
            v1 = tanh_f64(v0)
            store_f64(p1, i0, 1, v1)

``lo..hi`` is the caller's slice of parallel axis 0. A lane axis is walked in tiles of ``TILE`` elements, whose row
values lie in small arrays on the stack; so the innermost loop always runs along memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels.ir import (
    TILE,
    ArgFold,
    Fold,
    Kernel,
    Load,
    Scan,
    Stage,
    Statement,
    Store,
    reads,
)
from ..kernels.rules import identity_of
from .nest import Loop, indent
from .scalar import Writer, literal, scalar_expression
from .statements import Statements, register

__all__ = ["kernel_source"]

SUM_BLOCK = 2048
"""Floats that are summed in one go; partial sums of blocks keep long sums as accurate as pairwise ones."""

SEARCH_BLOCK = 512
"""Elements of which the extreme is folded before its place is noted; the best such block is searched at the end."""


def kernel_source(kernel: Kernel) -> str:
    """The text of a kernel. Equal kernels have equal texts."""
    return _Printer(kernel).text()


class _Printer(Statements):
    # -- the whole

    def text(self) -> str:
        kernel = self.kernel
        if self.lane is not None:
            self._find_arrays()
        for stage in kernel.stages:
            if stage.inner:
                self._inner_stage(stage)
            else:
                self._row_stage(stage)
        lines = ["def kernel(slots, ints, lo, hi):"]
        lines += indent(self._header() + self.top, 1)
        for depth, axis in enumerate(self.outer):
            lines += indent(self._open_outer(depth, axis), 1 + depth)
            lines += indent(self.advance(axis, self.longest), 2 + depth)
            lines += indent(self.pre[depth], 2 + depth)
        lines += indent(self.body or ["pass"], 1 + len(self.outer))
        lines += indent([f"release(p{k})" for k, x in enumerate(kernel.operands) if x.role == "scratch"], 1)
        return "\n".join(lines) + "\n"

    def _header(self) -> list[str]:
        kernel, table, lines = self.kernel, self.table, []
        for f, j in table.items():
            if f.kind == "slot":
                lines.append(f"p{f.operand} = base(slots, ints, {j}, {self.field('offset', f.operand)})")
            elif f.kind == "extent":
                lines.append(f"n{f.axis} = integer(ints, {j})")
            elif f.kind in ("block", "total"):
                lines.append(f"{f.kind}{f.axis} = integer(ints, {j})")
            elif f.kind == "stride":
                lines.append(f"s{f.operand}_{f.axis} = integer(ints, {j})")
            elif f.kind == "dynamic":
                lines.append(f"d{f.operand}_{f.axis} = integer(ints, {j})")
        for k, x in enumerate(kernel.operands):
            if x.role == "scratch":
                lines += self._allocate(k)
        lines += [f"{name} = stack({TILE * size})" for name, size in self._stacks()]
        return lines

    def _allocate(self, k: int) -> list[str]:
        """Scratch memory: the unit-step axis innermost, the others outside it in order."""
        operand = self.kernel.operands[k]
        unit = operand.steps.find("1")
        lines, size = [], f"{operand.dtype.itemsize}"
        order = [a for a, s in enumerate(operand.steps) if s == "s"]
        if unit >= 0:
            size = f"{size} * {self._extent(unit)}"
        for a in reversed(order):
            lines.append(f"s{k}_{a} = {size}")
            size = f"s{k}_{a} * {self._extent(a)}"
        lines += [f"p{k} = allocate({size})", f"if p{k} == 0:", "    return out_of_memory(slots)"]
        return lines

    def _extent(self, axis: int) -> str:
        if axis == self.lane:
            return str(TILE)
        return f"block{axis}" if self.kernel.axes[axis].ragged else f"n{axis}"

    def _open_outer(self, depth: int, axis: int) -> list[str]:
        if axis == self.lane:
            if depth == 0:
                return [f"for t{axis} in range(lo, hi):", f"    i{axis} = t{axis} * {TILE}", *self._tile_width(axis)]
            return [f"for i{axis} in range(0, n{axis}, {TILE}):", *self._tile_width(axis)]
        return [f"for i{axis} in range({'lo, hi' if depth == 0 else f'n{axis}'}):"]

    def _tile_width(self, axis: int) -> list[str]:
        return [f"    width = min_i64(n{axis} - i{axis}, {TILE})"]

    # -- row stages

    def _row_stage(self, stage: Stage) -> None:
        nest = self.nest(False)
        rest = []
        for s in stage.body:
            if not self._hoist(s):
                rest.append(s)
                if isinstance(s, (Load, Store)):
                    self._note(s.operand, nest)
        lines = self._with_arrays(rest, nest)
        if self.lane is not None and lines:
            lines = ["for j in range(width):", *indent(lines, 1)]
        self.body += lines

    def _with_arrays(self, statements: Sequence[Statement], nest: Sequence[Loop]) -> list[str]:
        """Statements of one loop: row values of other loops are fetched, those wanted elsewhere stored."""
        lines: list[str] = []
        here: set[str] = set()
        wanted = {name for s in statements for name in reads(s)}
        for s in statements:
            if not isinstance(s, Store) and s.dst in self.reloads and s.dst not in wanted:
                continue
            for name in reads(s):
                lines += self._fetch(name, here, nest)
            lines += self._plain(s, nest)
            if not isinstance(s, Store):
                here.add(s.dst)
                if s.dst in self.arrays:
                    lines.append(self._put(s.dst, s.dst))
        return lines

    # -- inner stages

    def _inner_stage(self, stage: Stage) -> None:
        nest = self.nest(True)
        for s in stage.body:
            if isinstance(s, (Load, Store)):
                self._note(s.operand, nest)
        levels: list[list[Statement]] = [[] for _ in self.inner]
        last: list[Statement] = []
        for s in stage.body:
            level = self._level(s)
            if level < 0:
                if not isinstance(s, Store) and self._hoist(s):
                    continue
                level = 0
            (levels[level] if self._outside_innermost(s, level) else last).append(s)
        users = {s.operand for s in stage.body if isinstance(s, (Load, Store))}
        self.body += self._initial(stage)
        split = self._splits(stage)
        level_now = 0
        for depth, axis in enumerate(self.inner):
            if split:
                lines = self._split_head(stage, axis)
                self.body += indent(lines, level_now)
                level_now += 1
                self.body += indent(self._partials(stage), level_now)
                self.body += indent([f"for i{axis} in range(b{axis}, {self._block_end(stage, axis)}):"], level_now)
            else:
                self.body += indent(self._inner_head(axis), level_now)
            level_now += 1
            self.body += indent(self.advance(axis, dict.fromkeys(users, nest)), level_now)
            self.body += indent(self._level_lines(levels[depth], nest), level_now)
        lines = self._innermost(last, nest, split)
        if self.lane is not None:
            lines = ["for j in range(width):", *indent(lines, 1)]
        self.body += indent(lines, level_now)
        if split:
            self.body += indent(self._join_partials(stage), level_now - 1)
            for s in self._argfolds(stage):
                self.body += indent(self._better_block(s), level_now - 1)
            for s in self._argfolds(stage):
                self.body += indent(self._search(s, last, nest), level_now - 2)
        self.body += self._final(stage)

    def _level(self, s: Statement) -> int:
        """The innermost of the inner loops that a statement needs; -1: none."""
        mask = self._mask_of(s)
        return max([d for d, a in enumerate(self.inner) if mask >> a & 1], default=-1)

    def _outside_innermost(self, s: Statement, level: int) -> bool:
        if isinstance(s, (Fold, ArgFold, Scan, Store)):
            return False
        if self.lane is not None:
            return not self._mask_of(s) >> self.lane & 1
        return level < len(self.inner) - 1

    def _level_lines(self, statements: Sequence[Statement], nest: Sequence[Loop]) -> list[str]:
        lines = []
        for s in statements:
            lines += self._plain(s, nest)
        return lines

    def _inner_head(self, axis: int) -> list[str]:
        if self.kernel.axes[axis].ragged:
            return [
                self._ragged_length(axis),
                f"for i{axis} in range(m{axis}):",
            ]
        return [f"for i{axis} in range(n{axis}):"]

    def _argfolds(self, stage: Stage) -> list[ArgFold]:
        return [s for s in stage.body if isinstance(s, ArgFold)]

    def _folds(self, stage: Stage) -> list[Fold]:
        return [s for s in stage.body if isinstance(s, Fold)]

    def _splits(self, stage: Stage) -> bool:
        """Whether the inner loop is cut into blocks: with a partial sum each, or a partial extreme."""
        if self.lane is not None or len(self.inner) != 1 or any(isinstance(s, Scan) for s in stage.body):
            return False
        if self._argfolds(stage):
            return True
        return bool(self._summed(stage)) and not self.kernel.axes[self.inner[0]].ragged

    def _split_head(self, stage: Stage, axis: int) -> list[str]:
        head = f"for b{axis} in range(0, {self._length(axis)}, {self._block(stage)}):"
        return [self._ragged_length(axis), head] if self.kernel.axes[axis].ragged else [head]

    def _block(self, stage: Stage) -> int:
        return SEARCH_BLOCK if self._argfolds(stage) else SUM_BLOCK

    def _block_end(self, stage: Stage, axis: int) -> str:
        return f"min_i64(b{axis} + {self._block(stage)}, {self._length(axis)})"

    def _length(self, axis: int) -> str:
        return f"m{axis}" if self.kernel.axes[axis].ragged else f"n{axis}"

    def _ragged_length(self, axis: int) -> str:
        return f"m{axis} = min_i64(total{axis} - i0 * block{axis}, block{axis})"

    def _summed(self, stage: Stage) -> list[Fold]:
        return [s for s in self._folds(stage) if s.monoid == "add" and s.dtype.kind == "f"]

    def _partials(self, stage: Stage) -> list[str]:
        lines = [f"{s.dst}p = {self._identity('add', s.dtype)}" for s in self._summed(stage)]
        return lines + [f"{s.dst}p = {self._identity(s.extreme, s.arg_dtype)}" for s in self._argfolds(stage)]

    def _join_partials(self, stage: Stage) -> list[str]:
        return [f"{s.dst} = {s.dst} + {s.dst}p" for s in self._summed(stage)]

    def _identity(self, monoid: str, dtype: np.dtype[Any]) -> str:
        return literal(identity_of(monoid, dtype), dtype)

    def _initial(self, stage: Stage) -> list[str]:
        """Accumulators before the walk."""
        pairs = []
        for s in stage.body:
            if isinstance(s, Fold):
                pairs.append((s.dst, self._identity(s.monoid, s.dtype)))
            elif isinstance(s, Scan):
                pairs.append((f"{s.dst}c", self._identity(s.monoid, s.dtype)))
                if self._sticky(s):
                    pairs.append((f"{s.dst}n", "False"))
            elif isinstance(s, ArgFold):
                pairs.append((f"{s.dst}b", self._identity(s.extreme, s.arg_dtype)))
                if self._splits(stage):
                    pairs.append((f"{s.dst}s", "i64(0)"))
                pairs.append((s.dst, "i64(0)"))
        if self.lane is None or not pairs:
            return [f"{name} = {value}" for name, value in pairs]
        return ["for j in range(width):", *indent([self._put(name, value) for name, value in pairs], 1)]

    def _final(self, stage: Stage) -> list[str]:
        """float16 is summed in float32 and rounded once."""
        if self._splits(stage):
            twins = [(s, self._twin(s, stage.body)) for s in self._folds(stage)]
            self.body += [f"{s.dst} = {twin.dst}b" for s, twin in twins if twin is not None]
        lines = [f"{s.dst} = round_f16({s.dst})" for s in self._folds(stage) if s.dtype == np.float16]
        if self.lane is None or not lines:
            return lines
        names = [s.dst for s in self._folds(stage) if s.dtype == np.float16]
        body = [line for n in names for line in (self._get(n), f"{n} = round_f16({n})", self._put(n, n))]
        return ["for j in range(width):", *indent(body, 1)]

    def _innermost(self, statements: Sequence[Statement], nest: Sequence[Loop], split: bool) -> list[str]:
        lines: list[str] = []
        here: set[str] = set()
        folded = {s.dst for s in statements if isinstance(s, (Fold, ArgFold))}
        for s in statements:
            for name in reads(s):
                if name not in folded:
                    lines += self._fetch(name, here, nest)
            if isinstance(s, Fold):
                lines += [] if split and self._twin(s, statements) else self._fold(s, split)
            elif isinstance(s, ArgFold):
                lines += self._fold_into(f"{s.dst}p", s.extreme, s.arg, s.arg_dtype) if split else self._argfold(s)
            elif isinstance(s, Scan):
                lines += self._scan(s)
            else:
                lines += self._plain(s, nest)
        return lines

    def _fold_into(self, dst: str, monoid: str, arg: str, dtype: np.dtype[Any]) -> list[str]:
        if dtype.kind == "f" and monoid in ("add", "mul", "max", "min"):
            return [f"{dst} = fold_{monoid}_{register(dtype)}({dst}, {arg})"]
        if dtype.kind == "b":
            monoid = {"max": "or", "min": "and"}.get(monoid, monoid)
        w = Writer(f"{dst}f")
        text = _fold_expression(w, monoid, (dst, arg), dtype)
        return [*w.lines, f"{dst} = {text}"]

    def _fold(self, s: Fold, split: bool) -> list[str]:
        dst = f"{s.dst}p" if split and s.monoid == "add" and s.dtype.kind == "f" else s.dst
        lines = [] if self.lane is None else [self._get(s.dst)]
        lines += self._fold_into(dst, s.monoid, s.arg, s.dtype)
        return lines if self.lane is None else [*lines, self._put(s.dst, dst)]

    def _argfold(self, s: ArgFold) -> list[str]:
        kind = register(s.arg_dtype)
        best, word = f"{s.dst}b", "more" if s.extreme == "max" else "less"
        lines = [] if self.lane is None else [self._get(best), self._get(s.dst)]
        lines += [
            f"{s.dst}t = {word}_{kind}({s.arg}, {best})",
            f"{best} = select_{kind}({s.dst}t, {s.arg}, {best})",
            f"{s.dst} = select_i64({s.dst}t, {self._index(self.inner[-1])}, {s.dst})",
        ]
        return lines if self.lane is None else [*lines, self._put(best, best), self._put(s.dst, s.dst)]

    def _twin(self, s: Fold, statements: Sequence[Statement]) -> ArgFold | None:
        """The search for the very extreme that is folded here, which knows it in the end."""
        for x in statements:
            if isinstance(x, ArgFold) and x.arg == s.arg:
                extreme = {"max": "or", "min": "and"}[x.extreme] if x.arg_dtype.kind == "b" else x.extreme
                if extreme == s.monoid:
                    return x
        return None

    def _sticky(self, s: Scan) -> bool:
        """A running extreme of floats along memory keeps apart whether there was a NaN: each element waits for the one
        before, and comparing takes one instruction where ``maximum``, NaN included, takes several."""
        return self.lane is None and s.dtype.kind == "f" and s.monoid in ("max", "min")

    def _better_block(self, s: ArgFold) -> list[str]:
        """Behind a block: note its extreme and where it begins, if that is the best so far.

        Folding the extreme alone runs in vector registers; an index carried along with it would not.
        """
        kind, better = register(s.arg_dtype), f"{s.dst}t"
        return [
            f"{better} = {'more' if s.extreme == 'max' else 'less'}_{kind}({s.dst}p, {s.dst}b)",
            f"{s.dst}b = select_{kind}({better}, {s.dst}p, {s.dst}b)",
            f"{s.dst}s = select_i64({better}, b{self.inner[0]}, {s.dst}s)",
        ]

    def _search(self, s: ArgFold, statements: Sequence[Statement], nest: Sequence[Loop]) -> list[str]:
        """Behind all blocks: the first place of the extreme, found by walking the first block that has it again."""
        axis, kind, best = self.inner[0], register(s.arg_dtype), f"{s.dst}b"
        walk, here = list[str](), set[str]()
        for each in _needed(statements, s.arg):
            for name in reads(each):
                walk += self._fetch(name, here, nest)
            walk += self._plain(each, nest)
        found = f"eq_{kind}({s.arg}, {best})"
        if s.arg_dtype.kind == "f":
            found = f"or_b1({found}, is_nan_{kind}({s.arg}))"
        walk.append(f"{s.dst} = min_i64({s.dst}, select_i64({found}, {self._index(axis)}, i64({_FAR})))")
        return [
            f"{s.dst} = i64({_FAR})",
            f"for i{axis} in range({s.dst}s, min_i64({s.dst}s + {SEARCH_BLOCK}, {self._length(axis)})):",
            *indent(walk, 1),
        ]

    def _scan(self, s: Scan) -> list[str]:
        carry = f"{s.dst}c"
        if self._sticky(s):
            kind, value = register(s.dtype), "gt" if s.monoid == "max" else "lt"
            return [
                f"{carry} = select_{kind}({value}_{kind}({s.arg}, {carry}), {s.arg}, {carry})",
                f"{s.dst}n = or_b1({s.dst}n, is_nan_{kind}({s.arg}))",
                f"{s.dst} = select_{kind}({s.dst}n, {kind}(nan), {carry})",
            ]
        w = Writer(f"{s.dst}f")
        lines = [] if self.lane is None else [self._get(carry)]
        text = _fold_expression(w, s.monoid, (carry, s.arg), s.dtype)
        lines += [*w.lines, f"{s.dst} = {text}"]
        lines.append(f"{carry} = {s.dst}" if self.lane is None else self._put(carry, s.dst))
        return lines


_FAR = (1 << 63) - 1


def _needed(statements: Sequence[Statement], name: str) -> list[Statement]:
    """Those of the statements, in order, that make a value."""
    wanted, kept = {name}, list[Statement]()
    for s in reversed(statements):
        if not isinstance(s, Store) and s.dst in wanted:
            kept.append(s)
            wanted.update(reads(s))
    return kept[::-1]


def _fold_expression(w: Writer, monoid: str, args: tuple[str, str], dtype: np.dtype[Any]) -> str:
    text = scalar_expression(w, monoid, args, (dtype, dtype), dtype)
    assert text is not None, (monoid, dtype)
    return text
