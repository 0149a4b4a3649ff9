"""Common subexpressions: equal primitives on equal operands with equal parameters are computed once.

Barriers remain: what stands behind one reads other variables than what stands before, and so stays apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Literal, Var, has_effect
from ..core.lowering import Barrier
from .rewrite import Substitution, rebuild

__all__ = ["eliminate_common_subexpressions", "equation_key"]


def _atom_key(a: Atom) -> Any:
    if not isinstance(a, Literal):
        return a
    aval, x = a.aval, a.value  # by bytes: -0.0 is not 0.0, and a NaN is itself
    bits = x.tobytes() if isinstance(x, np.generic) and x.dtype == aval.dtype else np.asarray(x, aval.dtype).tobytes()
    return bits, aval.dtype, aval.weak_type


def equation_key(eqn: Eqn) -> Any:
    """What equal equations have in common; not hashable where a parameter is not."""
    return eqn.primitive, tuple([_atom_key(a) for a in eqn.invars]), tuple(eqn.params.items())


def eliminate_common_subexpressions(closed: ClosedJaxpr) -> ClosedJaxpr:
    substitute = Substitution()
    seen: dict[Any, tuple[Var, ...]] = {}
    eqns = []
    for eqn in closed.jaxpr.eqns:
        eqn = substitute.eqn(eqn)
        if has_effect(eqn) or isinstance(eqn.primitive.lower, Barrier):
            eqns.append(eqn)
            continue
        key = equation_key(eqn)
        try:
            before = seen.setdefault(key, eqn.outvars)
        except TypeError:  # parameters that cannot be hashed cannot be compared cheaply either
            before = eqn.outvars
        if before is eqn.outvars:
            eqns.append(eqn)
        else:
            substitute.update(zip(eqn.outvars, before, strict=True))
    return rebuild(closed, eqns, substitute)
