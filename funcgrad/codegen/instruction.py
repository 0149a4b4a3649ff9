"""What a kernel's text may call: an instruction emits machine code for its operands.

Kernels are written in a flat subset of Numba's Python (see `frontend`). The names that they call are instructions:
loads and stores (`memory`), exact scalar operations (`basic`), mathematics (`vecmath`), and, in the runtime's own
functions, atomics and calls by address. An instruction emits LLVM through a `Body`, so one table serves two
compilers: our front end, and Numba, to which `numba_target` offers each instruction as an intrinsic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..record import record
from .vecmath.expr import Kind, Scalar
from .vecmath.registry import Definition, emit_call

__all__ = ["IMMEDIATE", "Instruction", "from_definition"]

IMMEDIATE: Final = None
"""Stands in `Instruction.arguments` for an integer that is part of the text, not a value."""


@record(frozen=True)
class Instruction:
    """``emit(body, *operands)`` gives the result, or None where ``result`` is None.

    ``arguments`` has the kind of each operand; an ``IMMEDIATE`` one arrives as a Python integer, all others as
    ``Scalar``. ``operand`` is the position of the immediate that numbers the kernel's operand, if there is one.
    """

    name: str
    emit: Callable[..., Scalar | None]
    arguments: tuple[Kind | None, ...]
    result: Kind | None
    operand: int | None = None
    chain: bool = False
    """Whether it is a long chain of operations, each of which waits for the one before."""


def from_definition(definition: Definition) -> Instruction:
    """A scalar function as an instruction."""

    def emit(body: Any, *operands: Scalar) -> Scalar:
        return emit_call(definition, body, list(operands))

    chain = not definition.small and definition.result.code == "f"
    return Instruction(definition.name, emit, definition.arguments, definition.result, chain=chain)
