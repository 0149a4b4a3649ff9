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
    Compute,
    Const,
    Fold,
    Index,
    Kernel,
    Load,
    Scan,
    Stage,
    Statement,
    Store,
    reads,
    value_axes,
)
from ..kernels.rules import identity_of
from .nest import Loop, Nest, indent
from .scalar import Writer, literal, scalar_expression, suffix

__all__ = ["kernel_source"]

SUM_BLOCK = 2048
"""Floats that are summed in one go; partial sums of blocks keep long sums as accurate as pairwise ones."""


def kernel_source(kernel: Kernel) -> str:
    """The text of a kernel. Equal kernels have equal texts."""
    return _Printer(kernel).text()


class _Printer(Nest):
    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.masks = value_axes(kernel.stages)
        self.dtypes = _dtypes(kernel)
        self.top: list[str] = []
        self.pre: list[list[str]] = [[] for _ in self.outer]
        self.body: list[str] = []
        self.arrays: dict[str, tuple[str, int]] = {}
        self.reloads: dict[str, Load] = {}

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

    # -- values along a lane that outlive the loop they are made in

    def _find_arrays(self) -> None:
        made: dict[str, int] = {}
        plain = {
            s.dst: s for stage in self.kernel.stages if not stage.inner for s in stage.body
            if isinstance(s, Load) and not reads(s) and self.kernel.operands[s.operand].role == "in"
        }  # fmt: skip
        lane = 1 << (self.lane or 0)
        for loop, stage in enumerate(self.kernel.stages):
            for s in stage.body:
                for name in reads(s):
                    if made.get(name, loop) != loop and self.masks[name] & lane:
                        if name in plain:
                            self.reloads[name] = plain[name]
                        else:
                            self._array(name)
                if isinstance(s, (Fold, ArgFold)):
                    made[s.dst] = -1
                    self._array(s.dst)
                    if isinstance(s, ArgFold):
                        self._array(f"{s.dst}b", s.arg_dtype)
                elif isinstance(s, Scan):
                    made[s.dst] = loop
                    self._array(f"{s.dst}c", s.dtype)
                elif not isinstance(s, Store):
                    made[s.dst] = loop

    def _array(self, name: str, dtype: np.dtype[Any] | None = None) -> None:
        if name not in self.arrays:
            if dtype is not None:
                self.dtypes[name] = dtype
            self.arrays[name] = (f"r_{name}", len(self.kernel.operands) + len(self.arrays))

    def _stacks(self) -> list[tuple[str, int]]:
        return [(array, max(4, self.dtypes[name].itemsize)) for name, (array, _) in self.arrays.items()]

    def _array_kind(self, name: str) -> str:
        """float16 values are kept as float32."""
        s = suffix(self.dtypes[name])
        return "f32" if s == "f16" else s

    def _get(self, name: str) -> str:
        array, scope = self.arrays[name]
        return f"{name} = load_{self._array_kind(name)}({array}, j, {scope})"

    def _fetch(self, name: str, here: set[str], nest: Sequence[Loop]) -> list[str]:
        """A value of another loop over the lane, if ``name`` is one: from its array or, if it was loaded, again."""
        if name in here or (name not in self.arrays and name not in self.reloads):
            return []
        here.add(name)
        again = self.reloads.get(name)
        if again is None:
            return [self._get(name)]
        self._note(again.operand, list(nest))
        return self._plain(again, nest)

    def _put(self, name: str, value: str) -> str:
        array, scope = self.arrays[name]
        return f"store_{self._array_kind(name)}({array}, j, {scope}, {value})"

    # -- statements

    def _plain(self, s: Statement, nest: Sequence[Loop]) -> list[str]:
        """The lines of a statement that does not fold."""
        if isinstance(s, Const):
            if s.value is not None:
                return [f"{s.dst} = {literal(s.value, s.dtype)}"]
            return [f"{s.dst} = const_{suffix(s.dtype)}(ints, {self.field('const', s.slot)})"]
        if isinstance(s, Load):
            kind = suffix(self.kernel.operands[s.operand].dtype)
            where = self.address(s.operand, nest, s.indices)
            if s.guard:
                return [f"{s.dst} = load_{kind}_if({s.guard}, {where})"]
            return [f"{s.dst} = load_{kind}({where})"]
        if isinstance(s, Index):
            return [f"{s.dst} = {self._index(s.axis)}"]
        if isinstance(s, Compute):
            w = Writer(s.dst)
            sources = [self.dtypes[a] for a in s.args]
            text = scalar_expression(w, s.fn, s.args, sources, s.dtype, s.params)
            if text is None:
                raise NotImplementedError(f"no code for {s.fn} on {', '.join(map(str, sources))}")
            return [*w.lines, f"{s.dst} = {text}"]
        assert isinstance(s, Store)
        return self._store(s, nest)

    def _store(self, s: Store, nest: Sequence[Loop]) -> list[str]:
        dtype = self.kernel.operands[s.operand].dtype
        where = self.address(s.operand, nest, s.indices)
        lines, value = [], s.arg
        if s.combine != "set":
            w = Writer(f"{s.arg}w")
            old = w.let(f"load_{suffix(dtype)}({where})")
            text = scalar_expression(w, s.combine, (old, s.arg), (dtype, dtype), dtype)
            lines += w.lines
            value = str(text)
        lines.append(f"store_{suffix(dtype)}({where}, {value})")
        return [f"if {s.guard}:", *indent(lines, 1)] if s.guard else lines

    def _index(self, axis: int) -> str:
        if axis == self.lane:
            return f"i{axis} + j"
        return f"i0 * block{axis} + i{axis}" if self.kernel.axes[axis].ragged else f"i{axis}"

    def _depth(self, name_mask: int) -> int:
        """How many of the outer loops a value needs."""
        return max([d + 1 for d, a in enumerate(self.outer) if name_mask >> a & 1], default=0)

    def _mask_of(self, s: Statement) -> int:
        if isinstance(s, Store):
            return (1 << len(self.kernel.axes)) - 1
        return getattr(s, "axes", 0)

    def _hoist(self, s: Statement) -> bool:
        """Print a row statement before the loops that it does not vary along; False if it varies along all."""
        if isinstance(s, Store):
            return False
        depth = self._depth(self._mask_of(s))
        if depth == len(self.outer):
            return False
        nest = [(a, f"i{a}") for a in self.outer[:depth]]
        (self.top if depth == 0 else self.pre[depth - 1]).extend(self._plain(s, nest))
        if isinstance(s, Load):
            self._note(s.operand, nest)
        return True

    def _note(self, k: int, nest: list[Loop]) -> None:
        """Remember the longest nest in which an operand is used."""
        if len(nest) > len(self.longest.get(k, ())):
            self.longest[k] = nest

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
                end = f"min_i64(b{axis} + {SUM_BLOCK}, n{axis})"
                self.body += indent([f"for i{axis} in range(b{axis}, {end}):"], level_now)
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
                f"m{axis} = min_i64(total{axis} - i0 * block{axis}, block{axis})",
                f"for i{axis} in range(m{axis}):",
            ]
        return [f"for i{axis} in range(n{axis}):"]

    def _folds(self, stage: Stage) -> list[Fold]:
        return [s for s in stage.body if isinstance(s, Fold)]

    def _splits(self, stage: Stage) -> bool:
        """Whether the inner loop is cut into blocks with a partial sum each."""
        if self.lane is not None or len(self.inner) != 1 or self.kernel.axes[self.inner[0]].ragged:
            return False
        if any(isinstance(s, (Scan, ArgFold)) for s in stage.body):
            return False
        return any(s.monoid == "add" and s.dtype.kind == "f" for s in self._folds(stage))

    def _split_head(self, stage: Stage, axis: int) -> list[str]:
        return [f"for b{axis} in range(0, n{axis}, {SUM_BLOCK}):"]

    def _summed(self, stage: Stage) -> list[Fold]:
        return [s for s in self._folds(stage) if s.monoid == "add" and s.dtype.kind == "f"]

    def _partials(self, stage: Stage) -> list[str]:
        return [f"{s.dst}p = {self._identity('add', s.dtype)}" for s in self._summed(stage)]

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
            elif isinstance(s, ArgFold):
                pairs.append((f"{s.dst}b", self._identity(s.extreme, s.arg_dtype)))
                pairs.append((s.dst, "i64(0)"))
        if self.lane is None or not pairs:
            return [f"{name} = {value}" for name, value in pairs]
        return ["for j in range(width):", *indent([self._put(name, value) for name, value in pairs], 1)]

    def _final(self, stage: Stage) -> list[str]:
        """float16 is summed in float32 and rounded once."""
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
                lines += self._fold(s, split)
            elif isinstance(s, ArgFold):
                lines += self._argfold(s)
            elif isinstance(s, Scan):
                lines += self._scan(s)
            else:
                lines += self._plain(s, nest)
        return lines

    def _fold(self, s: Fold, split: bool) -> list[str]:
        dst = f"{s.dst}p" if split and s.monoid == "add" and s.dtype.kind == "f" else s.dst
        lines = [] if self.lane is None else [self._get(s.dst)]
        if s.dtype.kind == "f" and s.monoid in ("add", "mul", "max", "min"):
            kind = "f32" if s.dtype == np.float16 else suffix(s.dtype)
            lines.append(f"{dst} = fold_{s.monoid}_{kind}({dst}, {s.arg})")
        else:
            w = Writer(f"{dst}f")
            text = _fold_expression(w, s.monoid, (dst, s.arg), s.dtype)
            lines += [*w.lines, f"{dst} = {text}"]
        return lines if self.lane is None else [*lines, self._put(s.dst, dst)]

    def _argfold(self, s: ArgFold) -> list[str]:
        kind = suffix(s.arg_dtype)
        kind = "f32" if kind == "f16" else kind
        best, word = f"{s.dst}b", "more" if s.extreme == "max" else "less"
        lines = [] if self.lane is None else [self._get(best), self._get(s.dst)]
        lines += [
            f"{s.dst}t = {word}_{kind}({s.arg}, {best})",
            f"{best} = select_{kind}({s.dst}t, {s.arg}, {best})",
            f"{s.dst} = select_i64({s.dst}t, i{self.inner[-1]}, {s.dst})",
        ]
        return lines if self.lane is None else [*lines, self._put(best, best), self._put(s.dst, s.dst)]

    def _scan(self, s: Scan) -> list[str]:
        carry = f"{s.dst}c"
        w = Writer(f"{s.dst}f")
        lines = [] if self.lane is None else [self._get(carry)]
        text = _fold_expression(w, s.monoid, (carry, s.arg), s.dtype)
        lines += [*w.lines, f"{s.dst} = {text}"]
        lines.append(f"{carry} = {s.dst}" if self.lane is None else self._put(carry, s.dst))
        return lines


def _fold_expression(w: Writer, monoid: str, args: tuple[str, str], dtype: np.dtype[Any]) -> str:
    text = scalar_expression(w, monoid, args, (dtype, dtype), dtype)
    assert text is not None, (monoid, dtype)
    return text


def _dtypes(kernel: Kernel) -> dict[str, np.dtype[Any]]:
    dtypes: dict[str, np.dtype[Any]] = {}
    for stage in kernel.stages:
        for s in stage.body:
            if isinstance(s, Load):
                dtypes[s.dst] = kernel.operands[s.operand].dtype
            elif isinstance(s, (Index, ArgFold)):
                dtypes[s.dst] = np.dtype(np.int64)
            elif not isinstance(s, Store):
                dtypes[s.dst] = s.dtype
    return dtypes
