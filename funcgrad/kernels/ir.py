"""The kernel IR: a nest of parallel loops around a sequence of stages.

A kernel iterates over *axes*: first the parallel ones, outermost first (the last of them may be a *lane*: the axis
along which neighbours in memory lie while something else is reduced), then the inner ones, which one iteration of the
parallel loops walks itself. Its *stages* run one after the other within one parallel iteration: a row stage does
scalar work per parallel index, an inner stage walks the inner axes, folding into row values or storing elements.
Softmax is ``[inner: fold max] [inner: exp, fold sum] [inner: divide, store]``.

Every statement defines one value, and every value knows the axes that it varies along: printers place a statement at
the outermost loop that has them all. Extents, strides, offsets and scalar constants are runtime integers: of shapes
the text holds ranks only, and for each operand and axis one of ``0`` (does not move), ``1`` (moves by one element),
``s`` (by a runtime stride). Nothing here is peculiar to a CPU: a GPU printer gives parallel axes to blocks and
threads and walks the inner axes with the threads of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..record import record

__all__ = [
    "TILE",
    "ArgFold",
    "Axis",
    "Compute",
    "Const",
    "Field",
    "Fold",
    "Index",
    "Kernel",
    "Load",
    "Operand",
    "Scan",
    "Stage",
    "Statement",
    "Store",
    "check_kernel",
    "format_kernel",
]


TILE = 512
"""Elements of a lane axis that one parallel iteration works on side by side."""


@record(frozen=True, slots=True)
class Axis:
    """``role`` is ``parallel``, ``lane`` or ``inner``. A ``ragged`` inner axis runs through one block of an axis that
    was cut into blocks, of which parallel axis 0 counts the number: its last block may be short."""

    role: str
    ragged: bool = False


@record(frozen=True, slots=True)
class Operand:
    """``role``: ``in``, ``out``, ``inout``, or ``scratch``: memory of one parallel iteration, over inner axes (and the
    lane). ``steps`` has a letter per axis; ``dynamic`` counts the computed indices, each with its own stride."""

    dtype: np.dtype[Any]
    role: str
    steps: str
    dynamic: int = 0


@record(frozen=True, slots=True)
class Const:
    """A scalar: ``value`` is in the text, or None if it is runtime data (the ``slot``-th constant)."""

    dst: str
    dtype: np.dtype[Any]
    value: Any
    slot: int = -1


@record(frozen=True, slots=True)
class Load:
    """With a ``guard``: zero where that is false, and memory is not touched there."""

    dst: str
    operand: int
    indices: tuple[str, ...] = ()
    axes: int = 0
    guard: str = ""


@record(frozen=True, slots=True)
class Index:
    """The position along an axis (within the whole axis, also where it is ragged), as int64."""

    dst: str
    axis: int
    axes: int = 0


@record(frozen=True, slots=True)
class Compute:
    dst: str
    fn: str
    args: tuple[str, ...]
    dtype: np.dtype[Any]
    params: tuple[tuple[str, Any], ...] = ()
    axes: int = 0


@record(frozen=True, slots=True)
class Fold:
    """Fold ``arg`` over the inner axes; ``dst`` is known when the stage ends."""

    dst: str
    monoid: str
    arg: str
    dtype: np.dtype[Any]
    axes: int = 0


@record(frozen=True, slots=True)
class ArgFold:
    """The position along the inner axis of the first extreme element; NaN is more extreme than all."""

    dst: str
    extreme: str
    arg: str
    arg_dtype: np.dtype[Any]
    axes: int = 0


@record(frozen=True, slots=True)
class Scan:
    """The fold so far, along the one inner axis, which runs in order."""

    dst: str
    monoid: str
    arg: str
    dtype: np.dtype[Any]
    axes: int = 0


@record(frozen=True, slots=True)
class Store:
    """Write ``arg``, or with ``combine`` accumulate it; with ``indices``, at a computed place, and only where the
    boolean ``guard`` holds."""

    operand: int
    arg: str
    combine: str = "set"
    indices: tuple[str, ...] = ()
    guard: str = ""


Statement = Const | Load | Index | Compute | Fold | ArgFold | Scan | Store


@record(frozen=True, slots=True)
class Stage:
    inner: bool
    body: tuple[Statement, ...]


@record(frozen=True, slots=True)
class Field:
    """One entry of the kernel's integer table; see ``Kernel.fields``."""

    kind: str
    operand: int = -1
    axis: int = -1


@record(frozen=True)
class Kernel:
    """Equal kernels are mostly one object (see ``assemble``), and each works out its hash once."""

    axes: tuple[Axis, ...]
    operands: tuple[Operand, ...]
    constants: tuple[np.dtype[Any], ...]
    stages: tuple[Stage, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.axes, self.operands, self.constants, self.stages))

    @cached_property
    def is_copy(self) -> bool:
        """Whether it does nothing but load one operand and store it to another."""
        return [type(s) for stage in self.stages for s in stage.body] == [Load, Store]

    @property
    def buffers(self) -> list[int]:
        """The operands that are buffers of the program (all but scratch)."""
        return [k for k, x in enumerate(self.operands) if x.role != "scratch"]

    def fields(self) -> Iterator[Field]:
        """The integer table in order: slots, byte offsets, extents, block and total of a ragged axis, byte strides,
        constants (as bits, two entries if complex128). An axis that is cut into blocks counts blocks."""
        buffers = self.buffers
        for k in buffers:
            yield Field("slot", k)
        for k in buffers:
            yield Field("offset", k)
        for a, axis in enumerate(self.axes):
            if axis.ragged:
                yield Field("block", axis=a)
                yield Field("total", axis=a)
            elif a > 0 or axis.role != "parallel":
                yield Field("extent", axis=a)
        for k in buffers:
            for a, step in enumerate(self.operands[k].steps):
                if step == "s":
                    yield Field("stride", k, a)
            for d in range(self.operands[k].dynamic):
                yield Field("dynamic", k, d)
        for c, dtype in enumerate(self.constants):
            yield Field("const", c)
            if dtype.itemsize == 16:
                yield Field("const_imag", c)

    def inner_mask(self) -> int:
        return sum([1 << a for a, axis in enumerate(self.axes) if axis.role == "inner"])

    def lane(self) -> int | None:
        for a, axis in enumerate(self.axes):
            if axis.role == "lane":
                return a
        return None

    def __str__(self) -> str:
        return format_kernel(self)


def reads(statement: Statement) -> tuple[str, ...]:
    """The names of the values that a statement uses."""
    if isinstance(statement, Compute):
        return statement.args
    if isinstance(statement, Load):
        return (*statement.indices, *((statement.guard,) if statement.guard else ()))
    if isinstance(statement, Store):
        return (statement.arg, *statement.indices, *((statement.guard,) if statement.guard else ()))
    if isinstance(statement, (Fold, ArgFold, Scan)):
        return (statement.arg,)
    return ()


def check_kernel(kernel: Kernel) -> None:
    """Axes in order, names defined once and before use, values varying at most along the axes of their arguments.

    Raises:
        ValueError: saying what is wrong.
    """
    roles = [a.role for a in kernel.axes]
    if roles != sorted(roles, key=["parallel", "lane", "inner"].index) or roles.count("lane") > 1:
        raise ValueError(f"kernel axes are out of order: {roles}")
    inner, masks = kernel.inner_mask(), dict[str, int]()
    for operand in kernel.operands:
        if len(operand.steps) != len(roles) or set(operand.steps) - set("01s"):
            raise ValueError(f"operand {operand} does not fit axes {roles}")
    for stage in kernel.stages:
        for s in stage.body:
            for name in reads(s):
                if name not in masks:
                    raise ValueError(f"{name} is used before it is defined, in {s}")
                if not stage.inner and masks[name] & inner:
                    raise ValueError(f"{name} varies along inner axes, in the row statement {s}")
            if isinstance(s, Store):
                continue
            if s.dst in masks:
                raise ValueError(f"{s.dst} is defined twice")
            masks[s.dst] = getattr(s, "axes", 0)
            if isinstance(s, Compute) and any(masks[a] & ~s.axes for a in s.args):
                raise ValueError(f"an argument of {s} varies along axes that it does not")


def _statement(s: Statement) -> str:
    if isinstance(s, Const):
        return f"{s.dst}:{s.dtype} = {f'const[{s.slot}]' if s.value is None else s.value}"
    if isinstance(s, Load):
        where = list(s.indices) if s.indices else ""
        return f"{s.dst} = load x{s.operand}{where}{f' if {s.guard}' if s.guard else ''}"
    if isinstance(s, Index):
        return f"{s.dst} = index {s.axis}"
    if isinstance(s, Compute):
        params = ", ".join([f"{k}={v}" for k, v in s.params])
        return f"{s.dst}:{s.dtype} = {s.fn}{f'[{params}]' if params else ''} {' '.join(s.args)}"
    if isinstance(s, Store):
        where = list(s.indices) if s.indices else ""
        return f"{s.combine} x{s.operand}{where} = {s.arg}{f' if {s.guard}' if s.guard else ''}"
    word = {Fold: "fold", ArgFold: "argfold", Scan: "scan"}[type(s)]
    return f"{s.dst} = {word} {s.extreme if isinstance(s, ArgFold) else s.monoid} {s.arg}"


def format_kernel(kernel: Kernel) -> str:
    """The kernel as text, one statement a line."""
    axes = ", ".join([f"{a.role}{' ragged' if a.ragged else ''}" for a in kernel.axes])
    lines = [f"kernel over ({axes})"]
    for k, x in enumerate(kernel.operands):
        lines.append(f"  x{k}: {x.role} {x.dtype}[{','.join(x.steps)}]{' +' + str(x.dynamic) if x.dynamic else ''}")
    for stage in kernel.stages:
        lines.append("  inner:" if stage.inner else "  row:")
        lines += [f"    {_statement(s)}" for s in stage.body]
    return "\n".join(lines)


def value_axes(stages: Sequence[Stage]) -> dict[str, int]:
    """The axes that each value varies along, as a bit mask."""
    return {s.dst: getattr(s, "axes", 0) for stage in stages for s in stage.body if not isinstance(s, Store)}
