"""How loops and branches run on concrete values: jaxprs interpreted by NumPy, one equation after the other.

It is the witness that compiled loops are held to, and what runs where nothing is compiled. An ``Interpreter`` is made
once per jaxpr: variables become slots of a list, dead values are dropped, and a step costs little more than NumPy.

Of loops that turn out to be long, the composition root may have the rest compiled (``set_loop_executor``): this layer
knows no compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..core.avals import ShapedArray
from ..core.jaxpr import Atom, ClosedJaxpr, Jaxpr, Literal, Var, last_uses
from ..core.primitive import Primitive
from ..core.trace import EVAL, STATE, Tracer, leaked

__all__ = ["execute", "handed_over", "interpreter", "patience", "set_loop_executor", "typed_results"]


class Interpreter:
    """A jaxpr without constants as a function of NumPy values."""

    __slots__ = ("_inputs", "_outputs", "_slots", "_steps")

    def __init__(self, jaxpr: Jaxpr) -> None:
        self._slots: list[Any] = []
        known: dict[Var, int] = {}

        def slot(a: Atom) -> int:
            if isinstance(a, Literal):
                self._slots.append(a.aval.dtype.type(a.value))
                return len(self._slots) - 1
            if a not in known:
                known[a] = len(self._slots)
                self._slots.append(None)
            return known[a]

        self._inputs = [slot(v) for v in jaxpr.invars]
        self._steps = []
        for eqn, gone in zip(jaxpr.eqns, last_uses(jaxpr), strict=True):
            ins, outs = [slot(a) for a in eqn.invars], [slot(v) for v in eqn.outvars]
            multiple = eqn.primitive.multiple_results
            self._steps.append((eqn.primitive.impl, ins, eqn.params, outs, multiple, [slot(v) for v in gone]))
        self._outputs = [slot(a) for a in jaxpr.outvars]

    def __call__(self, *args: Any) -> list[Any]:
        values = self._slots.copy()
        for k, x in zip(self._inputs, args, strict=True):
            values[k] = x
        for impl, ins, params, outs, multiple, gone in self._steps:
            result = impl(*[values[k] for k in ins], **params)
            if multiple:
                for k, x in zip(outs, result, strict=True):
                    values[k] = x[()] if type(x) is np.ndarray and not x.ndim else x
            else:
                values[outs[0]] = result[()] if type(result) is np.ndarray and not result.ndim else result
            for k in gone:
                values[k] = None
        return [values[k] for k in self._outputs]


_interpreters: WeakKeyDictionary[Jaxpr, Interpreter] = WeakKeyDictionary()


def interpreter(closed: ClosedJaxpr) -> Interpreter:
    """The interpreter of a jaxpr without constants; made once."""
    found = _interpreters.get(closed.jaxpr)
    if found is None:
        found = _interpreters[closed.jaxpr] = Interpreter(closed.jaxpr)
    return found


Executor = Callable[[Primitive, Sequence[Any], dict[str, Any]], Sequence[Any]]
_executor: Executor | None = None

PATIENCE = 5000
"""Equations of a loop's body that are interpreted, some ten milliseconds, before compiling it is worth its time."""


def set_loop_executor(executor: Executor | None) -> None:
    """Say how long loops run on concrete values: ``executor(primitive, args, params)`` gives the results. With None
    all are interpreted to their end, as at first."""
    global _executor
    _executor = executor


def patience(body: ClosedJaxpr) -> int:
    """The number of steps, at least one, of a loop with this body that are interpreted before the rest is handed
    over."""
    return max(PATIENCE // max(len(body.jaxpr.eqns), 1), 1)


def handed_over(primitive: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Sequence[Any] | None:
    """The results of a long loop from elsewhere; None where there is nobody else."""
    return None if _executor is None else _executor(primitive, args, params)


def execute(
    primitive: Primitive,
    meaning: Callable[..., Any],
    args: Sequence[Any],
    in_avals: Sequence[ShapedArray],
    params: dict[str, Any],
) -> Sequence[Any]:
    """Run a primitive that owns jaxprs on concrete values; ``meaning(*args, **params)`` is the interpreter's way.

    Python's numbers among the operands take the dtypes of the avals.
    """
    for x in args:
        if isinstance(x, Tracer):
            raise leaked(x, primitive)
    typed = [x if hasattr(x, "dtype") else a.dtype.type(x) for x, a in zip(args, in_avals, strict=True)]
    saved = STATE.trace
    STATE.trace = EVAL  # some primitives bind others in their impl
    try:
        return meaning(*typed, **params)
    finally:
        STATE.trace = saved


def typed_results(outs: Sequence[Any], avals: Sequence[ShapedArray]) -> list[Any]:
    """Results of weak type as Python's numbers, as they come from Python's numbers un-jitted."""
    return [x.item() if a.weak_type and isinstance(x, np.generic) else x for x, a in zip(outs, avals, strict=True)]
