"""Expand calls, and every primitive whose lowering is ``Inline``, into the equations they stand for.

An expansion is staged once, in isolation, then copied in; its equations are expanded in turn by a work list, so that
nesting depth costs no recursion.
"""

from __future__ import annotations

from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Literal, Var
from ..core.lowering import Call, Inline
from ..core.staging import stage
from ..ops.marks import optimization_barrier_p
from .rewrite import Substitution, rebuild

__all__ = ["inline_calls"]


def _expansion(eqn: Eqn) -> ClosedJaxpr:
    """The equation as a jaxpr of its operands. A call already owns one."""
    lower = eqn.primitive.lower
    if isinstance(lower, Call):
        own: ClosedJaxpr = eqn.params["jaxpr"]
        return own
    assert isinstance(lower, Inline)
    fun = lower.fun

    def expand(*args: object) -> list[object]:
        out = fun(*args, **eqn.params)
        return list(out) if eqn.primitive.multiple_results else [out]

    return stage(expand, [a.aval for a in eqn.invars], eqn.primitive.name)


def _fenced(eqn: Eqn, copied: list[Eqn | tuple[Var, Atom]]) -> list[Atom]:
    """The operands of an equation, behind a barrier where the call wants one."""
    lower = eqn.primitive.lower
    arrays = dict.fromkeys([a for a in eqn.invars if type(a) is Var])
    if not isinstance(lower, Call) or not arrays or not lower.fenced(eqn.params):
        return list(eqn.invars)
    behind: dict[Atom, Var] = {a: Var(a.aval) for a in arrays}
    copied.append(Eqn(optimization_barrier_p, tuple(arrays), {}, tuple(behind.values()), eqn.source))
    return [behind.get(a, a) for a in eqn.invars]


def inline_calls(closed: ClosedJaxpr) -> ClosedJaxpr:
    """No equation of the result has an ``Inline`` lowering."""
    if not any(isinstance(e.primitive.lower, (Inline, Call)) for e in closed.jaxpr.eqns):
        return closed
    substitute = Substitution()
    constvars, consts = list(closed.jaxpr.constvars), list(closed.consts)
    eqns: list[Eqn] = []
    work: list[Eqn | tuple[Var, Atom]] = list(reversed(closed.jaxpr.eqns))
    while work:
        item = work.pop()
        if isinstance(item, tuple):
            substitute.replace(*item)
            continue
        eqn = substitute.eqn(item)
        if not isinstance(eqn.primitive.lower, (Inline, Call)):
            eqns.append(eqn)
            continue
        inner = _expansion(eqn)
        constvars_in, renamed = inner.jaxpr.constvars, Substitution()
        for v, value in zip(constvars_in, inner.consts, strict=True):
            constvars.append(Var(v.aval))
            consts.append(value)
            renamed[v] = constvars[-1]
        copied: list[Eqn | tuple[Var, Atom]] = []
        renamed.update(zip(inner.jaxpr.invars, _fenced(eqn, copied), strict=True))
        for e in inner.jaxpr.eqns:  # fresh variables: the same jaxpr may be called twice
            outvars = tuple([Var(v.aval) for v in e.outvars])
            source = (
                e.source if isinstance(eqn.primitive.lower, Call) else eqn.source
            )  # an expansion has no user's line
            copied.append(Eqn(e.primitive, tuple([renamed(a) for a in e.invars]), e.params, outvars, source))
            renamed.update(zip(e.outvars, outvars, strict=True))
        for v, a in zip(eqn.outvars, inner.jaxpr.outvars, strict=True):
            copied.append((v, renamed(a) if not isinstance(a, Literal) else a))
        work.extend(reversed(copied))
    result = rebuild(closed, eqns, substitute)
    jaxpr = result.jaxpr
    return ClosedJaxpr(
        type(jaxpr)(tuple(constvars), jaxpr.invars, jaxpr.eqns, jaxpr.outvars, jaxpr.name), tuple(consts)
    )
