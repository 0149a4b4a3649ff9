"""Drop equations whose results nobody reads, and constants nobody uses. Inputs stay: they are the signature."""

from __future__ import annotations

from ..core.jaxpr import ClosedJaxpr, Jaxpr, Var, live_eqns

__all__ = ["eliminate_dead_code"]


def eliminate_dead_code(closed: ClosedJaxpr) -> ClosedJaxpr:
    jaxpr = closed.jaxpr
    kept = live_eqns(jaxpr.eqns, jaxpr.outvars)
    used = {a for a in (*jaxpr.outvars, *[a for eqn in kept for a in eqn.invars]) if type(a) is Var}
    consts = [(v, c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if v in used]
    return ClosedJaxpr(
        Jaxpr(tuple([v for v, _ in consts]), jaxpr.invars, tuple(kept), jaxpr.outvars, jaxpr.name),
        tuple([c for _, c in consts]),
    )
