"""The functions as Numba intrinsics, whose bodies are built straight through llvmlite.

Numba types an intrinsic in microseconds, where each `@njit` callee costs it 30 to 100 ms of its own pipeline.
Numba is imported at the first request.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .expr import Body, Kind, Scalar
from .registry import DEFINITIONS, Definition, emit_call


@cache
def numba_function(name: str) -> Any:
    """The intrinsic of this name, for use as a global of code that Numba compiles."""
    from numba.extending import intrinsic

    definition = DEFINITIONS.get(name)
    if definition is None:
        raise KeyError(f"vecmath has no function {name!r}; vecmath.NAMES lists them")
    return intrinsic(_typing(definition))


def _typing(definition: Definition) -> Any:
    from numba.core import types
    from numba.core.typing import signature

    def numba_type(kind: Kind) -> Any:
        if kind.code == "b":
            return types.boolean
        prefix = {"f": "float", "i": "int", "u": "uint"}[kind.code]
        return getattr(types, f"{prefix}{kind.width}")

    typed = signature(numba_type(definition.result), *(numba_type(a) for a in definition.arguments))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        body = Body(builder)
        operands = [Scalar(body, k, v) for k, v in zip(definition.arguments, args, strict=True)]
        return emit_call(definition, body, operands).value

    # Numba reads the number of arguments off the signature of the typing function.
    unary = lambda typingctx, a: (typed, codegen)  # noqa: E731
    binary = lambda typingctx, a, b: (typed, codegen)  # noqa: E731
    ternary = lambda typingctx, a, b, c: (typed, codegen)  # noqa: E731
    typing = (unary, binary, ternary)[len(definition.arguments) - 1]
    typing.__name__ = definition.name
    return typing
