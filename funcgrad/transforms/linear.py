"""Reverse mode: linearize while tracing, then transpose.

A ``LinearizeTrace`` runs the primal program in its parent and, in the same sweep, writes the linear program of the
tangents onto a tape: JVP rules run with the ``TangentTrace`` current, which passes everything that touches no tangent
on to the parent and records the rest. Nothing that no derivative needs is built. Transposition walks the tape
backwards, so depth costs memory but never recursion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.avals import ShapedArray, aval_of, tangent_dtype
from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var
from ..core.primitive import ZERO, Linear, NotDifferentiable, NotLinear, Primitive, ZeroDerivative, not_linear
from ..core.snapshot import Snapshots
from ..core.staging import StageTracer, is_staging
from ..core.trace import STATE, Source, Trace, Tracer, acts_for_source, inside_transform, opened, user_source
from ..ops.elementwise import add_p, mul_p, neg_p, sub_p
from .forward import DualTracer, refuse, tangent_zeros

__all__ = [
    "LinearFunction",
    "LinearizeTrace",
    "LinearizeTracer",
    "TangentTrace",
    "TangentTracer",
    "Tape",
    "linear_function",
    "linearize_flat",
]

Tape = list["Node"]


class Node:
    """One linear operation of the tape, the positions of the operands it is linear in, and its results."""

    __slots__ = ("args", "linear", "outs", "params", "primitive")

    def __init__(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any], linear: list[int]) -> None:
        self.primitive = primitive
        self.args = args
        self.params = params
        self.linear = linear
        self.outs: tuple[TangentTracer, ...] = ()


class TangentTracer(Tracer):
    """A tangent on the tape. Its aval is worked out only if somebody asks: eager gradients rarely do."""

    __slots__ = ("_aval", "index", "node")

    _trace: TangentTrace

    def __init__(self, trace: TangentTrace, aval: ShapedArray | None, node: Node | None) -> None:
        self._trace = trace
        self._views = None
        self._aval = aval
        self.node = node
        self.index = trace.count  # where the cotangent is kept while the tape is transposed
        trace.count += 1

    @property
    def aval(self) -> ShapedArray:
        aval = self._aval
        if aval is None:
            node = self.node
            assert node is not None
            aval = self._aval = node.primitive.shape(*[aval_of(x) for x in node.args], **node.params)
        return aval

    def origin(self) -> str:
        return "a linearization"

    def replace_with(self, other: Tracer) -> None:
        raise TypeError(
            f"at {user_source()}: a rule cannot write to a tangent or cotangent, which is recorded here for the other "
            "mode. Write t = t + x in the place of t += x, and t = funcgrad.at(t)[i].set(x) in the place of t[i] = x."
        )

    # Our rules give tangents operands of their own dtype, so that arithmetic needs no promotion; those of users give
    # what they like.
    def __mul__(self, other: Any) -> Any:
        if self._trace.promotes:
            return super().__mul__(other)  # type: ignore[misc]
        return STATE.trace.process(mul_p, (self, self._typed(other)), {})

    def __rmul__(self, other: Any) -> Any:
        if self._trace.promotes:
            return super().__rmul__(other)  # type: ignore[misc]
        return STATE.trace.process(mul_p, (self._typed(other), self), {})

    def __add__(self, other: Any) -> Any:
        if self._trace.promotes:
            return super().__add__(other)  # type: ignore[misc]
        return STATE.trace.process(add_p, (self, other), {})

    def __radd__(self, other: Any) -> Any:
        if self._trace.promotes:
            return super().__radd__(other)  # type: ignore[misc]
        return STATE.trace.process(add_p, (self, other), {})

    def __sub__(self, other: Any) -> Any:
        if self._trace.promotes:
            return super().__sub__(other)  # type: ignore[misc]
        return sub_p.bind(self, other)

    def __neg__(self) -> Any:
        return neg_p.bind(self)

    def _typed(self, other: Any) -> Any:
        return self.aval.dtype.type(other) if type(other) is float or type(other) is int else other


class TangentTrace(Trace):
    """Records what touches tangents, passes on the rest. ``sources``, where somebody will want to know, has for each
    node the user's line. With ``promotes``, arithmetic of tangents takes operands of any dtype, as NumPy's does."""

    __slots__ = ("count", "line", "promotes", "sources", "tape")

    line: Source | None
    """While a rule of ours runs, the line that it runs for, where that is known: it need not be sought again."""

    def __init__(self, parent: Trace, promotes: bool = False) -> None:
        super().__init__(parent)
        self.promotes = promotes
        self.tape: Tape = []
        self.count = 0
        self.line = None
        wanted = Trace.look_at_rule is not None or is_staging(parent)
        self.sources: dict[Node, Source | None] | None = {} if wanted else None

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        linear = [k for k, x in enumerate(args) if type(x) is TangentTracer and x._trace is self]
        if not linear:
            assert self.parent is not None
            return self.parent.process(primitive, args, params)
        node = Node(primitive, args, params, linear)
        self.tape.append(node)
        if self.sources is not None:
            self.sources[node] = self.line or user_source()
        if primitive.multiple_results:
            avals = primitive.shape(*[aval_of(x) for x in args], **params)
            node.outs = tuple([TangentTracer(self, a, node) for a in avals])
            return node.outs
        out = TangentTracer(self, None, node)
        node.outs = (out,)
        return out


class LinearizeTracer(DualTracer):
    """A primal of the parent trace, with its tangent on the tape."""

    __slots__ = ()

    def origin(self) -> str:
        return "a gradient" + self._trace.of_user()


class LinearizeTrace(Trace):
    """With ``snapshots``, constant operands are kept as they are when used: the user's function may write to them
    later. A program that is a jaxpr needs none."""

    __slots__ = ("snapshots", "tangent_trace")

    def __init__(
        self, parent: Trace, snapshots: Snapshots | None = None, user: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(parent, user, parent.checks_shapes)  # which is given the same operands
        self.tangent_trace = TangentTrace(parent)
        self.snapshots = snapshots

    @inside_transform
    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        primals: list[Any] = []
        tangents: list[Any] = []
        active = False
        for x in args:
            if type(x) is LinearizeTracer and x._trace is self:
                primals.append(x.primal)
                tangents.append(x.tangent)
                active = True
            else:
                primals.append(x)
                tangents.append(ZERO)
        parent = self.parent
        assert parent is not None
        if not active:
            return parent.process(primitive, args, params)
        if self.snapshots is not None and any([t is ZERO for t in tangents]):
            snapshot = self.snapshots
            primals = [snapshot(p) if t is ZERO else p for p, t in zip(primals, tangents, strict=True)]
        rule = primitive.jvp
        saved = STATE.trace
        try:
            if primitive.linearize is not None:
                STATE.trace = parent
                nonzero = [t is not ZERO for t in tangents]
                out, apply = primitive.linearize(nonzero, primals, **params)
                STATE.trace = self.tangent_trace
                t = apply(*[t for t in tangents if t is not ZERO])
            else:
                out = parent.process(primitive, tuple(primals), params)
                if isinstance(rule, NotDifferentiable):
                    raise refuse(primitive, rule)
                if isinstance(rule, ZeroDerivative):
                    return out
                STATE.trace = self.tangent_trace
                if type(out) is StageTracer:
                    self.tangent_trace.line = out.source
                t = rule(primals, tangents, out, **params)
        finally:
            STATE.trace = saved
            self.tangent_trace.line = None
        if primitive.multiple_results:
            return tuple([self.pair(o, s) for o, s in zip(out, t, strict=True)])
        return self.pair(out, t)

    def pair(self, primal: Any, tangent: Any) -> Any:
        """A tangent that never touched the tape is zero: rules are linear, and constants stay out of them."""
        if type(tangent) is TangentTracer and tangent._trace is self.tangent_trace:
            aval = aval_of(primal)
            if tangent._aval is None:
                tangent._aval = aval.strong()  # the tangent has the type of its primal
            return LinearizeTracer(self, primal, tangent, aval)
        return primal


class LinearFunction:
    """The linear program of a linearization: tangents in, tangents out; residuals are held by the tape."""

    def __init__(self, inputs: list[TangentTracer], trace: TangentTrace, outs: list[TangentTracer | None]) -> None:
        self.inputs = inputs
        self.trace = trace
        self.tape = trace.tape
        self.n_tangents = trace.count
        self.outs = outs

    def apply(self, tangents: Sequence[Any]) -> list[Any]:
        """Push tangents (one per input, maybe ``ZERO``) forward; a result is ``ZERO`` where nothing reaches it."""
        asked = STATE.source
        try:
            return self._push(tangents)
        finally:
            STATE.source = asked

    @acts_for_source
    def _push(self, tangents: Sequence[Any]) -> list[Any]:
        sources = self.trace.sources
        env: dict[TangentTracer, Any] = dict(zip(self.inputs, tangents, strict=True))
        for node in self.tape:
            known = [env.get(x, ZERO) if type(x) is TangentTracer and x in env else x for x in node.args]
            linear = [type(x) is TangentTracer and x in env for x in node.args]
            if all(v is ZERO for v, is_linear in zip(known, linear, strict=True) if is_linear):
                env.update((o, ZERO) for o in node.outs)
                continue
            if sources is not None:
                STATE.source = sources[node]
            full = [tangent_zeros(x.aval) if v is ZERO else v for v, x in zip(known, node.args, strict=True)]
            out = node.primitive.bind(*full, **node.params)
            env.update(zip(node.outs, out if node.primitive.multiple_results else (out,), strict=True))
        return [ZERO if o is None else env[o] for o in self.outs]

    def transpose(self, cts: Sequence[Any]) -> list[Any]:
        """Pull cotangents (one per result, maybe ``ZERO``) back to the inputs."""
        asked = STATE.source
        try:
            return self._pull(cts)
        finally:
            STATE.source = asked

    @acts_for_source
    def _pull(self, cts: Sequence[Any]) -> list[Any]:
        sources = self.trace.sources
        pulled: list[Any] = [ZERO] * self.n_tangents
        for o, ct in zip(self.outs, cts, strict=True):
            if o is not None and ct is not ZERO:
                old = pulled[o.index]
                pulled[o.index] = ct if old is ZERO else add_p.bind(old, ct)
        for node in reversed(self.tape):
            primitive, outs = node.primitive, node.outs
            if primitive.multiple_results:
                ct = [pulled[o.index] for o in outs]
                if all([c is ZERO for c in ct]):
                    continue
                for o in outs:
                    pulled[o.index] = ZERO
            else:
                index = outs[0].index
                ct = pulled[index]
                if ct is ZERO:
                    continue
                pulled[index] = ZERO  # the memory is free again
            if sources is not None:
                source = sources[node]
                STATE.source = None if source is None else source.pulled_back()
            rule = primitive.transpose
            if isinstance(rule, NotLinear):
                raise not_linear(primitive, rule)
            operands = list(node.args)
            for k in node.linear:
                operands[k] = Linear(operands[k])
            results = rule(ct, *operands, **node.params)
            if sources is not None and Trace.look_at_rule is not None:
                known = [x for k, x in enumerate(node.args) if k not in node.linear]
                Trace.look_at_rule(primitive, (*(ct if primitive.multiple_results else (ct,)), *known), results)
            for k in node.linear:
                c = results[k]
                if c is None:
                    raise not_linear(primitive, NotLinear(f"it is not linear in its operand {k}"))
                if c is not ZERO:
                    index = node.args[k].index
                    old = pulled[index]
                    pulled[index] = c if old is ZERO else add_p.bind(old, c)
        return [pulled[x.index] for x in self.inputs]

    def to_jaxpr(self) -> tuple[ClosedJaxpr, list[Any]]:
        """As a jaxpr ``(residuals, tangents) -> tangents``, and the residuals. Inputs stay even if unused."""
        converter = _TapeConverter(self.inputs, self.trace.sources or {})
        eqns = tuple([converter.eqn(node) for node in self.tape])
        outvars = tuple([converter.atom(o) for o in self.outs if o is not None])
        invars = (*converter.residual_vars.values(), *[converter.vars[t] for t in self.inputs])
        return ClosedJaxpr(Jaxpr((), invars, eqns, outvars, "linear")), converter.residuals


def linear_function(
    fun: Callable[..., Sequence[Any]], avals: Sequence[ShapedArray]
) -> tuple[LinearFunction, Sequence[Any]]:
    """A function that is linear in inputs of the given avals as a linear program, and its results' stand-ins."""
    trace = TangentTrace(STATE.trace, promotes=True)
    inputs = [TangentTracer(trace, a.strong(), None) for a in avals]
    with opened(trace):
        outs = fun(*inputs)
    mine = [o if type(o) is TangentTracer and o._trace is trace else None for o in outs]
    return LinearFunction(inputs, trace, mine), outs


class _TapeConverter:
    def __init__(self, inputs: Sequence[TangentTracer], sources: Mapping[Node, Source | None]) -> None:
        self.sources = sources
        self.vars: dict[TangentTracer, Var] = {t: Var(t.aval) for t in inputs}
        self.residual_vars: dict[int, Var] = {}
        self.residuals: list[Any] = []

    def atom(self, x: Any) -> Atom:
        if type(x) is TangentTracer and x in self.vars:
            return self.vars[x]
        aval = aval_of(x)
        if not isinstance(x, Tracer) and aval.shape == ():
            return Literal(x)
        if id(x) not in self.residual_vars:
            self.residual_vars[id(x)] = Var(aval)
            self.residuals.append(x)
        return self.residual_vars[id(x)]

    def eqn(self, node: Node) -> Eqn:
        invars = tuple([self.atom(x) for x in node.args])
        outvars = tuple([Var(o.aval) for o in node.outs])
        self.vars.update(zip(node.outs, outvars, strict=True))
        return Eqn(node.primitive, invars, node.params, outvars, self.sources.get(node))


def linearize_flat(
    fun: Callable[..., Sequence[Any]],
    primals: Sequence[Any],
    active: Sequence[bool] | None = None,
    snapshots: Snapshots | None = None,
    user: Callable[..., Any] | None = None,
) -> tuple[list[Any], LinearFunction]:
    """``fun(*primals)`` and its derivative there as a linear function of the active, inexact inputs' tangents.

    The linear function has one input per primal that is active and has a tangent space, in order. ``snapshots`` must
    be given where ``fun`` runs the user's code, and ``user``, his function, for messages.
    """
    trace = LinearizeTrace(STATE.trace, snapshots, user)
    args, inputs = [], []
    for k, x in enumerate(primals):
        aval = aval_of(x)
        if (active is None or active[k]) and tangent_dtype(aval.dtype) == aval.dtype:
            t = TangentTracer(trace.tangent_trace, aval.strong(), None)
            inputs.append(t)
            args.append(LinearizeTracer(trace, x, t))
        else:
            args.append(x)
    with opened(trace):
        outs = fun(*args)
    out_primals: list[Any] = []
    out_tangents: list[TangentTracer | None] = []
    for x in outs:
        mine = type(x) is LinearizeTracer and x._trace is trace
        out_primals.append(x.primal if mine else x)
        out_tangents.append(x.tangent if mine else None)
    return out_primals, LinearFunction(inputs, trace.tangent_trace, out_tangents)
