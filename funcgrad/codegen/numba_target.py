"""Instructions as Numba intrinsics: kernels compiled by Numba itself.

The text of a kernel is Numba's Python, so that it can be pasted, compiled and stepped through:

    scope = numba_names(source)
    exec(source, scope)
    numba.cfunc("void(intp, intp, intp, intp)")(scope["kernel"])

That is also an independent witness of our own front end. Numba types an intrinsic in microseconds, where each
``@njit`` callee costs it 30 to 100 ms of its own pipeline. Importing this module imports nothing heavy; calling it
imports Numba.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from .instruction import IMMEDIATE, Instruction
from .vecmath.expr import KINDS, Body, Kind, Scalar
from .vocabulary import find_instruction

__all__ = ["compile_with_numba", "numba_intrinsic", "numba_names"]

_WORD: Final = re.compile(r"[a-z][a-z0-9_]*")


def numba_names(source: str) -> dict[str, Any]:
    """The globals under which Numba compiles a kernel's source."""
    names: dict[str, Any] = {"inf": float("inf"), "nan": float("nan")}
    for word in set(_WORD.findall(source)):
        instruction = find_instruction(word)
        if instruction is not None:
            names[word] = numba_intrinsic(instruction)
        elif word in KINDS:
            names[word] = _numba_type(KINDS[word])
    return names


def compile_with_numba(source: str, name: str = "kernel") -> Any:
    """A kernel as Numba's own ``cfunc``: its ``address`` is that of the machine code."""
    import numba

    scope = numba_names(source)
    exec(compile(source, f"<funcgrad {name}>", "exec"), scope)
    return numba.cfunc("void(intp, intp, intp, intp)")(scope[name])


def _numba_type(kind: Kind | None) -> Any:
    import numba.types

    if kind is None:
        return numba.types.void
    if kind.code == "b":
        return numba.types.boolean
    prefix = {"f": "float", "i": "int", "u": "uint", "c": "complex"}[kind.code]
    return getattr(numba.types, f"{prefix}{kind.width}")


@cache
def numba_intrinsic(instruction: Instruction) -> Any:
    """An instruction for use as a global of code that Numba compiles."""
    from numba.core import types
    from numba.extending import intrinsic

    result = _numba_type(instruction.result)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        body = Body(builder)
        operands: list[Any] = [
            given.literal_value if kind is IMMEDIATE else Scalar(body, kind, value)
            for kind, given, value in zip(instruction.arguments, signature.args, args, strict=True)
        ]
        made = instruction.emit(body, *operands)
        return context.get_dummy_value() if made is None else made.value

    def signature_of(*given: Any) -> Any:
        fixed = []
        for kind, argument in zip(instruction.arguments, given, strict=True):
            if kind is IMMEDIATE and not isinstance(argument, types.IntegerLiteral):
                return None
            fixed.append(argument if kind is IMMEDIATE else _numba_type(kind))
        return result(*fixed), codegen

    # Numba reads the number of arguments off the parameters of the typing function.
    parameters = ", ".join([f"a{k}" for k in range(len(instruction.arguments))])
    scope = {"signature_of": signature_of}
    exec(f"def typing(context, {parameters}): return signature_of({parameters})", scope)
    typing = scope["typing"]
    typing.__name__ = instruction.name
    return intrinsic(prefer_literal=IMMEDIATE in instruction.arguments)(typing)
