"""Forward mode: run a function on pairs of primal and tangent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.avals import FLOAT0, ShapedArray, aval_of, tangent_dtype
from ..core.primitive import ZERO, NotDifferentiable, Primitive, ZeroDerivative
from ..core.trace import STATE, Trace, Tracer, inside_transform, opened, strong_value, user_source
from ..errors import NonDifferentiableError
from ..ops.structural import broadcast_to

__all__ = ["DualTracer", "JVPTrace", "JVPTracer", "instantiate", "jvp_flat", "refuse", "tangent_zeros"]


def tangent_zeros(aval: ShapedArray) -> Any:
    """Zeros of the tangent space of ``aval``: float0 for integers."""
    dtype = tangent_dtype(aval.dtype)
    if dtype == FLOAT0:
        return np.zeros(aval.shape, FLOAT0)
    zero = dtype.type(0)
    return broadcast_to(zero, aval.shape) if aval.shape else zero


def instantiate(t: Any, primal: Any) -> Any:
    """``t``, or real zeros where it is ``ZERO``."""
    return tangent_zeros(aval_of(primal)) if t is ZERO else t


def refuse(primitive: Primitive, rule: NotDifferentiable) -> NonDifferentiableError:
    return NonDifferentiableError(
        f"{primitive} cannot be differentiated: {rule.reason}. At {user_source()}. If its derivative is not wanted, "
        "apply lax.stop_gradient to its operand."
    )


class DualTracer(Tracer):
    """A value and its derivative: a primal with a tangent."""

    __slots__ = ("_aval", "primal", "tangent")
    contents = ("_aval", "primal", "tangent")

    def __init__(self, trace: Trace, primal: Any, tangent: Any, aval: ShapedArray | None = None) -> None:
        self._trace = trace
        self._views = None
        self._aval = aval  # of the primal, once somebody has asked
        self.primal = primal
        self.tangent = tangent

    @property
    def aval(self) -> ShapedArray:
        aval = self._aval
        if aval is None:
            aval = self._aval = aval_of(self.primal)
        return aval

    def strengthened(self) -> Tracer | None:
        primal = strong_value(self.primal)  # tangents are strongly typed anyway
        return None if primal is None else type(self)(self._trace, primal, self.tangent)


class JVPTracer(DualTracer):
    __slots__ = ()

    def origin(self) -> str:
        return "a jvp" + self._trace.of_user()


class JVPTrace(Trace):
    __slots__ = ()

    def split(self, x: Any) -> tuple[Any, Any]:
        return (x.primal, x.tangent) if type(x) is JVPTracer and x._trace is self else (x, ZERO)

    @inside_transform
    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        primals, tangents = zip(*map(self.split, args), strict=True) if args else ((), ())
        parent = self.parent
        assert parent is not None
        if all(t is ZERO for t in tangents):
            return parent.process(primitive, primals, params)
        saved, STATE.trace = STATE.trace, parent
        try:
            if primitive.forward is not None:
                out, t = primitive.forward(primals, tangents, **params)
            else:
                out = parent.process(primitive, primals, params)
                rule = primitive.jvp
                if isinstance(rule, NotDifferentiable):
                    raise refuse(primitive, rule)
                if isinstance(rule, ZeroDerivative):
                    return out
                t = rule(primals, tangents, out, **params)
                if Trace.look_at_rule is not None:
                    Trace.look_at_rule(primitive, (*primals, *tangents), t if primitive.multiple_results else (t,))
        finally:
            STATE.trace = saved
        if primitive.multiple_results:
            return tuple([o if s is ZERO else JVPTracer(self, o, s) for o, s in zip(out, t, strict=True)])
        return out if t is ZERO else JVPTracer(self, out, t)


def jvp_flat(
    fun: Callable[..., Sequence[Any]],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    user: Callable[..., Any] | None = None,
) -> tuple[list[Any], list[Any]]:
    """``fun`` and its derivative along ``tangents`` (which may be ``ZERO``), all flat. ``user``: the user's
    function, for messages."""
    trace = JVPTrace(STATE.trace, user)
    args = [p if t is ZERO else JVPTracer(trace, p, t) for p, t in zip(primals, tangents, strict=True)]
    with opened(trace):
        outs = fun(*args)
    pairs = [trace.split(x) for x in outs]
    return [p for p, _ in pairs], [t for _, t in pairs]
