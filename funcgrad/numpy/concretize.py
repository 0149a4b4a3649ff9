"""What happens where Python wants a number and finds a tracer: ``if x``, ``float(x)``, ``range(n)``, ``np.asarray(x)``.

Under ``grad`` and ``jvp`` without ``jit`` the value is at hand, so that ``if x > 0``, ``int(x)`` and formatting work as
in plain Python: they are locally constant in x. ``float(x)`` is not: what is computed from it would lack its
derivative, silently, so it is an error. Under ``jit`` and ``vmap`` there is no one value at all. Errors say what was
found, where, and what to write instead.
"""

from __future__ import annotations

import ast
import dis
import sys
from typing import Any, NoReturn

import numpy as np

from ..core.trace import Tracer, user_source
from ..errors import (
    ConcretizationError,
    TracerArrayError,
    TracerBoolError,
    TracerIndexError,
    TracerIntegerError,
)
from ..transforms.forward import JVPTracer
from ..transforms.linear import LinearizeTracer
from ..transforms.taylor import JetTracer
from .rewrite import rewritten

__all__ = ["METHODS", "concrete_value", "describe"]


def concrete_value(x: Any) -> Any | None:
    """The array behind a tracer of ``grad``, ``jvp`` or ``jet`` that runs eagerly, else None."""
    while type(x) is LinearizeTracer or type(x) is JVPTracer or type(x) is JetTracer:
        x = x.primal
    return None if isinstance(x, Tracer) else x


def describe(x: Tracer) -> str:
    """``a traced value float64[3] (made by tracing f at file.py:3 (f))``."""
    made = x.origin()
    return f"a traced value {x.aval}{f' (made by {made})' if made else ''}"


def _where() -> str:
    source = user_source()
    return f"at {source}: " if source is not None else ""


_STATIC = "If it does not depend on traced arguments, mark those it comes from as static: jit(f, static_argnums=...)."


def _bool(self: Tracer) -> bool:
    value = concrete_value(self)
    if value is not None:
        return bool(value)
    several = " An array has no single truth value: reduce it with .any() or .all() first." if self.size != 1 else ""
    raise TracerBoolError(
        f"{_where()}`if`, `while`, `and`, `or`, `not` or `assert` asked for the truth of {describe(self)}, which is "
        f"not known while funcgrad traces.{several}{rewritten(user_source())} Write np.where(condition, a, b) to "
        "choose element by element "
        "(both are computed), lax.cond(condition, lambda x: a, lambda x: b, x) for `if` (one of them is), "
        "lax.while_loop(lambda x: condition, lambda x: next, x) for `while`, and & | ~ in place of and, or, not. "
        "Python's own if and while take shapes and static arguments, and under grad or jvp without jit also values. "
        + _STATIC
    )


def _caller_opcode(depth: int) -> str:
    frame = sys._getframe(depth)
    return dis.opname[frame.f_code.co_code[frame.f_lasti]]


def _refuse_store(x: Tracer) -> NoReturn:
    raise TracerArrayError(
        f"{_where()}array[i] = x writes {describe(x)} into a NumPy array, which cannot hold it. Make the array traced "
        "from the start, array = np.zeros_like(x), or write array = fg.at(array)[i].set(x), or collect the values "
        "in a list and np.stack it."
    )


def _number(self: Tracer, kind: type, advice: str) -> Any:
    if _caller_opcode(3) == "STORE_SUBSCR":
        _refuse_store(self)
    value = concrete_value(self)
    if value is not None:
        if kind is not int:
            raise ConcretizationError(
                f"{_where()}{kind.__name__}() (or a function of math, which calls it) takes {describe(self)} out of "
                f"the derivative: what is computed from it would be differentiated as a constant. {advice} If no "
                f"derivative is wanted, {kind.__name__}(lax.stop_gradient(x))."
            )
        return kind(value)
    raise ConcretizationError(
        f"{_where()}{kind.__name__}() asked for the value of {describe(self)}, which is not known while funcgrad "
        f"traces. {advice} {_STATIC}"
    )


def _float(self: Tracer) -> float:
    advice = "Keep it an array, with np.sin for math.sin and x.astype(float) for float(x)."
    number: float = _number(self, float, advice)
    return number


def _complex(self: Tracer) -> complex:
    number: complex = _number(self, complex, "Keep it an array, with x.astype(complex) for complex(x).")
    return number


def _int(self: Tracer) -> int:
    number: int = _number(self, int, "Keep it an array, with x.astype(int) for int(x).")
    return number


def _index(self: Tracer) -> int:
    if self.dtype.kind not in "iu" or self.ndim:
        raise TracerIntegerError(
            f"{_where()}an integer was asked of {describe(self)}: only 0-d integer arrays can be used as one. "
            "Convert a float with .astype(int)."
        )
    value = concrete_value(self)
    if value is not None:
        return int(value)
    raise TracerIntegerError(
        f"{_where()}an integer was asked of {describe(self)}, whose value is not known while funcgrad traces."
        f"{rewritten(user_source(), (ast.For,))} For `for i in range(n)` write "
        "lax.fori_loop(0, n, lambda i, x: next, x), or lax.switch(n, functions, x) to "
        "choose a function; for shapes, n must be static; for a list, write "
        f"np.stack(list)[i]; for a bound of a slice, lax.dynamic_slice with a fixed length. {_STATIC}"
    )


def _array(self: Tracer, dtype: Any = None, copy: Any = None) -> NoReturn:
    opcode = _caller_opcode(2)
    if opcode in ("BINARY_SUBSCR", "BINARY_OP", "BINARY_SLICE"):
        if self.dtype.kind not in "iu" and self.dtype.kind != "b":
            raise TracerIndexError(
                f"{_where()}array[x] indexes a NumPy array by {describe(self)}. An index must be an integer: convert "
                "it, i = x.astype(int), and write fg.numpy.take(array, i, axis=0) or fg.at(array)[i].get()."
            )
        if self.dtype.kind == "b":
            raise TracerIndexError(
                f"{_where()}array[mask] selects from a NumPy array by {describe(self)}, and how many elements it "
                "selects is not known. Write np.where(mask, array, 0) and reduce that."
            )
        raise TracerIndexError(
            f"{_where()}array[i] indexes a NumPy array by {describe(self)}, which NumPy cannot do. "
            "Write fg.numpy.take(array, i, axis=0) or fg.at(array)[i].get()."
        )
    if opcode == "STORE_SUBSCR":
        _refuse_store(self)
    raise TracerArrayError(
        f"{_where()}a NumPy array was asked of {describe(self)}, by np.asarray, np.array, a function that does not "
        "dispatch on its argument, or compiled code. Use fg.numpy.asarray, fg.numpy.array or np.stack for arrays of "
        "traced values, and functions of funcgrad.numpy; code that cannot be traced has to run before or after."
    )


def _item(self: Tracer, *args: Any) -> Any:
    value = concrete_value(self)
    if value is not None:
        return np.asarray(value).item(*args)
    raise ConcretizationError(
        f"{_where()}.item() asked for the value of {describe(self)}, which is not known while funcgrad traces. Index "
        "it instead: x[()] of a 0-d array, x[0] of an array with one element. " + _STATIC
    )


def _tolist(self: Tracer) -> NoReturn:
    raise ConcretizationError(
        f"{_where()}.tolist() asked for the values of {describe(self)}. Write list(x), which gives its rows as arrays, "
        "or call tolist() on the result outside the transformed function."
    )


def _format(self: Tracer, spec: str) -> str:
    value = concrete_value(self)
    if value is not None and spec:
        return format(value, spec)
    if not spec:
        return repr(self)
    raise ConcretizationError(
        f"{_where()}an f-string with the format {spec!r} asked for the value of {describe(self)}, which is not known "
        "while funcgrad traces. Return the value and print it outside the transformed function."
    )


METHODS = {
    "__bool__": _bool,
    "__float__": _float,
    "__complex__": _complex,
    "__int__": _int,
    "__index__": _index,
    "__array__": _array,
    "__format__": _format,
    "item": _item,
    "tolist": _tolist,
}
