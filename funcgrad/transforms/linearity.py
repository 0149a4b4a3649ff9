"""Is a program linear in its inputs? For the messages of ``linear_transpose``.

Transposing finds operations that are not linear by itself. What it would not find is a constant that is added, and
integers or booleans made of the inputs, by which something is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Literal, Var, live_eqns
from ..core.lowering import Call
from ..core.primitive import NotLinear, not_linear
from ..core.trace import Tracer
from ..ops.elementwise import add_p, sub_p
from ..ops.structural import is_linear_unary

__all__ = ["check_linear"]


def check_linear(closed: ClosedJaxpr, linear: Sequence[bool]) -> None:
    """Raise where the results of a program are seen not to be linear in the inputs that ``linear`` chooses.

    Raises:
        FuncgradError: naming the operation, why, and the line.
    """
    jaxpr = closed.jaxpr
    varying: set[Atom] = {v for v, is_linear in zip(jaxpr.invars, linear, strict=True) if is_linear}
    zero: set[Atom] = {v for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if _all_zero(c)}
    for eqn in live_eqns(jaxpr.eqns, jaxpr.outvars):
        inputs = [a in varying for a in eqn.invars]
        if not any(inputs):
            if is_linear_unary(eqn.primitive) and _is_zero(eqn.invars[0], zero):
                zero.update(eqn.outvars)
            continue
        _check(eqn, inputs, zero)
        program = eqn.params.get("jaxpr")
        if isinstance(eqn.primitive.lower, Call) and isinstance(program, ClosedJaxpr):
            check_linear(program, inputs)
        varying.update(eqn.outvars)


def _check(eqn: Eqn, inputs: Sequence[bool], zero: set[Atom]) -> None:
    primitive, rule = eqn.primitive, eqn.primitive.transpose
    if isinstance(rule, NotLinear):
        raise not_linear(primitive, _at(eqn, rule.reason))
    if primitive in (add_p, sub_p) and not all(inputs):
        other = eqn.invars[inputs.index(False)]
        if not _is_zero(other, zero):
            raise not_linear(primitive, _at(eqn, "it adds something that does not depend on the arguments"))
    first_order = not any([isinstance(p, (ClosedJaxpr, tuple)) for p in eqn.params.values()])
    if first_order and any([v.aval.dtype.kind not in "fc" for v in eqn.outvars]):
        raise not_linear(primitive, _at(eqn, f"it makes {eqn.outvars[0].aval.dtype.name} of the arguments"))


def _at(eqn: Eqn, reason: str) -> NotLinear:
    return NotLinear(f"{reason}, at {eqn.source}" if eqn.source is not None else reason)


def _is_zero(a: Atom, zero: set[Atom]) -> bool:
    return a in zero if type(a) is Var else isinstance(a, Literal) and _all_zero(a.value)


def _all_zero(x: Any) -> bool:
    return not isinstance(x, Tracer) and aval_of(x).dtype.kind in "biufc" and not np.any(np.asarray(x))
