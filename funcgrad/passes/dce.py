"""Drop equations whose results nobody reads, and constants nobody uses. Inputs stay: they are the signature."""

from __future__ import annotations

from ..core.jaxpr import ClosedJaxpr, Eqn, Jaxpr, Var

__all__ = ["eliminate_dead_code"]


def eliminate_dead_code(closed: ClosedJaxpr) -> ClosedJaxpr:
    jaxpr = closed.jaxpr
    used = {a for a in jaxpr.outvars if type(a) is Var}
    kept: list[Eqn] = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.primitive.has_effect or not used.isdisjoint(eqn.outvars):
            kept.append(eqn)
            used.update([a for a in eqn.invars if type(a) is Var])
    kept.reverse()
    consts = [(v, c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if v in used]
    return ClosedJaxpr(
        Jaxpr(tuple([v for v, _ in consts]), jaxpr.invars, tuple(kept), jaxpr.outvars, jaxpr.name),
        tuple([c for _, c in consts]),
    )
