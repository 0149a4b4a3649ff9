"""What passes share: rebuilding a jaxpr with substituted variables."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Jaxpr, Var

__all__ = ["Substitution", "rebuild"]


class Substitution(dict[Var, Atom]):
    """What replaces a variable; others stand for themselves. Chains are followed when they are made."""

    def __call__(self, atom: Atom) -> Atom:
        return self.get(atom, atom) if type(atom) is Var else atom

    def replace(self, old: Var, new: Atom) -> None:
        self[old] = self(new)

    def eqn(self, eqn: Eqn) -> Eqn:
        """The equation with its operands substituted; the same object where nothing changes."""
        if not self or self.keys().isdisjoint(eqn.invars):
            return eqn
        return Eqn(eqn.primitive, tuple([self(a) for a in eqn.invars]), eqn.params, eqn.outvars, eqn.source)


def rebuild(closed: ClosedJaxpr, eqns: Sequence[Eqn], substitute: Substitution) -> ClosedJaxpr:
    jaxpr = closed.jaxpr
    outvars = tuple([substitute(a) for a in jaxpr.outvars])
    return ClosedJaxpr(Jaxpr(jaxpr.constvars, jaxpr.invars, tuple(eqns), outvars, jaxpr.name), closed.consts)
