"""Statements of a kernel as lines of source, and the values that a loop along a lane leaves to a later one.

A value that is made in one loop over the lane and used in another is put into an array on the stack, one tile long, or,
if it was merely loaded, loaded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels.ir import ArgFold, Compute, Const, Fold, Index, Kernel, Load, Scan, Statement, Store, reads, value_axes
from .nest import Loop, Nest, indent
from .scalar import Writer, literal, scalar_expression, suffix

__all__ = ["Statements", "register"]


class Statements(Nest):
    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.masks = value_axes(kernel.stages)
        self.dtypes = _dtypes(kernel)
        self.top: list[str] = []
        self.pre: list[list[str]] = [[] for _ in self.outer]
        self.body: list[str] = []
        self.arrays: dict[str, tuple[str, int]] = {}
        self.reloads: dict[str, Load] = {}

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
            old, w = f"{s.arg}w_0", Writer(f"{s.arg}c")
            text = scalar_expression(w, s.combine, (old, s.arg), (dtype, dtype), dtype)
            if text is None:
                raise NotImplementedError(f"no code for {s.combine} on {dtype}")
            lines += [f"{old} = load_{suffix(dtype)}({where})", *w.lines]
            value = text
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


def register(dtype: np.dtype[Any]) -> str:
    """The kind that values of a dtype have in registers."""
    return "f32" if dtype == np.float16 else suffix(dtype)


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
