"""Staging: run a function on tracers that write down equations.

Every operation met while a ``StageTrace`` is current is recorded, also those on constants. Values that are not its
own tracers become constants of the jaxpr, as they are at that moment: scalars as literals, arrays (and tracers of outer
transformations, which a closure may hold) as constant variables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .avals import ShapedArray, aval_of
from .jaxpr import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var
from .primitive import Primitive
from .snapshot import Snapshots
from .trace import STATE, Source, Trace, Tracer, leaked, opened, user_source

__all__ = ["StageTrace", "StageTracer", "is_staging", "stage"]


_NUMBERS = frozenset((float, int, complex, bool, np.float32, np.float64))
"""The usual types of scalars; NumPy takes a microsecond to see that a number has no axes."""


class StageTracer(Tracer):
    __slots__ = ("source", "variable")
    contents = ("source", "variable")

    def __init__(self, trace: StageTrace, var: Var, source: Source | None) -> None:
        self._trace = trace
        self._views = None
        self.variable = var
        self.source = source

    @property
    def aval(self) -> ShapedArray:
        return self.variable.aval

    @property
    def shape(self) -> tuple[int, ...]:  # asked for at every operation
        return self.variable.aval.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.variable.aval.dtype

    def origin(self) -> str:
        where = f" at {self.source}" if self.source is not None else ""
        return f"tracing {self._trace.name}{where}"  # type: ignore[attr-defined]


class StageTrace(Trace):
    __slots__ = ("consts", "constvars", "eqns", "name", "snapshots")

    def __init__(self, parent: Trace, name: str = "") -> None:
        super().__init__(parent, checks_shapes=True)
        self.name = name
        self.eqns: list[Eqn] = []
        self.constvars: dict[int, Var] = {}
        self.consts: list[Any] = []
        self.snapshots = Snapshots()

    def new_input(self, aval: ShapedArray, source: Source | None = None) -> StageTracer:
        return StageTracer(self, Var(aval), source)

    def atom(self, x: Any) -> Atom:
        if type(x) is StageTracer and x._trace is self:
            return x.variable
        if not isinstance(x, Tracer) and (type(x) in _NUMBERS or np.ndim(x) == 0):
            return Literal(x[()] if isinstance(x, np.ndarray) else x)
        if isinstance(x, Tracer) and not self._is_outer(x._trace):
            raise leaked(x, f"the program of {self.name or 'a function'}")
        x = self.snapshots(x)
        var = self.constvars.get(id(x))
        if var is None:
            var = self.constvars[id(x)] = Var(aval_of(x))
            self.consts.append(x)
        return var

    def _is_outer(self, other: Trace) -> bool:
        """Whether a trace is one that this one was opened under. Tracers of all others have leaked."""
        trace = self.parent
        while trace is not None:
            if trace is other:
                return True
            trace = trace.parent
        return False

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        invars = tuple([self.atom(x) for x in args])
        out = primitive.shape(*[a.aval for a in invars], **params)
        source = user_source()
        if primitive.multiple_results:
            outvars = tuple([Var(a) for a in out])
            self.eqns.append(Eqn(primitive, invars, params, outvars, source))
            return tuple([StageTracer(self, v, source) for v in outvars])
        var = Var(out)
        self.eqns.append(Eqn(primitive, invars, params, (var,), source))
        return StageTracer(self, var, source)

    def close(self, outs: Sequence[Any], invars: Sequence[Var]) -> ClosedJaxpr:
        outvars = tuple([self.atom(x) for x in outs])
        jaxpr = Jaxpr(tuple(self.constvars.values()), tuple(invars), tuple(self.eqns), outvars, self.name)
        return ClosedJaxpr(jaxpr, tuple(self.consts))


def is_staging(trace: Trace | None = None) -> bool:
    """Whether what is computed now (or in ``trace``) is written down instead: some enclosing trace stages."""
    trace = STATE.trace if trace is None else trace
    while trace is not None:
        if type(trace) is StageTrace:
            return True
        trace = trace.parent
    return False


def stage(fun: Callable[..., Sequence[Any]], in_avals: Sequence[ShapedArray], name: str = "") -> ClosedJaxpr:
    """The jaxpr of ``fun``, a function of flat positional arrays that returns a flat sequence of arrays."""
    trace = StageTrace(STATE.trace, name or getattr(fun, "__name__", ""))
    inputs = [trace.new_input(a) for a in in_avals]
    invars = [t.variable for t in inputs]  # kept apart: an in-place update rebinds the tracer, not the input
    with opened(trace):
        outs = fun(*inputs)
    return trace.close(outs, invars)
