"""All instructions that generated kernels may use, and the files that define them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from . import basic, frontend, instruction, llvm_text, memory, vecmath, writer
from .instruction import Instruction, from_definition
from .vecmath.registry import DEFINITIONS

__all__ = ["MACHINE_CODE", "find_instruction"]

MACHINE_CODE: Final = sorted(
    [Path(str(m.__file__)) for m in (basic, frontend, instruction, llvm_text, memory, writer)]
    + list(Path(str(vecmath.__file__)).parent.glob("*.py"))
)
"""The files that turn a kernel's text into LLVM: what the text leaves out of the cache's key."""


@cache
def find_instruction(name: str) -> Instruction | None:
    """The instruction of this name, or None. Loads neither Numba nor llvmlite."""
    found = memory.MEMORY.get(name)
    if found is None:
        definition = basic.BASIC.get(name) or DEFINITIONS.get(name)
        found = None if definition is None else from_definition(definition)
    return found
