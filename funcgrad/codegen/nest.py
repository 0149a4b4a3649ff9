"""Loops over memory: where the elements of a kernel's operands lie inside a nest.

Each loop that an operand moves along, but the innermost of them, advances a pointer at its head; loads and stores then
name a pointer and an element. ``p0_1`` is the pointer of operand 0 within the loop over axis 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..kernels.ir import Field, Kernel

__all__ = ["Loop", "Nest", "indent"]

Loop = tuple[int, str]
"""An axis and the variable that runs along it: ``i1``, or ``j`` for the elements of a tile of the lane."""


def indent(lines: Iterable[str], depth: int) -> list[str]:
    space = "    " * depth
    return [space + line for line in lines]


class Nest:
    """The loops of a kernel and the addresses within them."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.table = {f: j for j, f in enumerate(kernel.fields())}
        self.parallel = [a for a, x in enumerate(kernel.axes) if x.role == "parallel"]
        self.lane = kernel.lane()
        self.inner = [a for a, x in enumerate(kernel.axes) if x.role == "inner"]
        self.outer = self.parallel + ([self.lane] if self.lane is not None else [])
        self.longest: dict[int, list[Loop]] = {}

    def field(self, kind: str, operand: int = -1, axis: int = -1) -> int:
        """The place of an entry in the kernel's integer table."""
        return self.table[Field(kind, operand, axis)]

    def moving(self, k: int, nest: Sequence[Loop]) -> list[Loop]:
        steps = self.kernel.operands[k].steps
        scratch = self.kernel.operands[k].role == "scratch"
        return [(a, v) for a, v in nest if steps[a] != "0" and not (scratch and a in self.outer and v == f"i{a}")]

    def stride(self, k: int, axis: int) -> str:
        operand = self.kernel.operands[k]
        return str(operand.dtype.itemsize) if operand.steps[axis] == "1" else f"s{k}_{axis}"

    def nest(self, inner: bool) -> list[Loop]:
        """The loops around a statement of a stage, as (axis, variable): the lane counts twice, tile and element."""
        nest = [(a, f"i{a}") for a in self.outer]
        if inner:
            nest += [(a, f"i{a}") for a in self.inner]
        if self.lane is not None:
            nest.append((self.lane, "j"))
        return nest

    def pointer(self, k: int, nest: Sequence[Loop]) -> str:
        """The name of the pointer of operand ``k`` after the loops ``nest``."""
        moving = self.moving(k, nest)
        if not moving:
            return f"p{k}"
        return f"p{k}_{moving[-1][0]}" if moving[-1][1] != "j" else f"p{k}_j"

    def advance(self, axis: int, nests: Mapping[int, list[Loop]]) -> list[str]:
        """At the head of the loop over ``axis``: the pointers of the operands that move on further inside the nests
        they are used in."""
        lines = []
        for k, nest in sorted(nests.items()):
            position = next((p for p, (a, v) in enumerate(nest) if a == axis and v != "j"), None)
            if position is None:
                continue
            moving, here = self.moving(k, nest), nest[position]
            if here in moving and here != moving[-1]:
                before = self.pointer(k, nest[:position])
                lines.append(f"p{k}_{axis} = {before} + i{axis} * {self.stride(k, axis)}")
        return lines

    def address(self, k: int, nest: Sequence[Loop], indices: Sequence[str]) -> str:
        moving = self.moving(k, nest)
        pointer, element = f"p{k}", "0"
        if moving:
            axis, variable = moving[-1]
            pointer = self.pointer(k, list(nest[: nest.index(moving[-1])]))
            if self.kernel.operands[k].steps[axis] == "1":
                element = variable
            else:
                pointer = f"{pointer} + {variable} * s{k}_{axis}"
        for d, name in enumerate(indices):
            pointer = f"{pointer} + {name} * d{k}_{d}"
        return f"{pointer}, {element}, {k}"
