"""Is a program linear in its inputs? For the messages of ``linear_transpose``.

Transposing finds operations that are not linear by itself. What it would not find is a constant that is added, and
integers or booleans made of the inputs, by which something is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var, live_eqns
from ..core.lowering import Branch, Call, Scan, While
from ..core.primitive import NotLinear, not_linear
from ..core.trace import Tracer
from ..ops.elementwise import add_p, sub_p
from ..ops.structural import is_linear_unary

__all__ = ["check_linear"]


def check_linear(
    closed: ClosedJaxpr, linear: Sequence[bool], zeros: Sequence[bool] | None = None, offsets: bool = True
) -> None:
    """Raise where the results of a program are seen not to be linear in the inputs that ``linear`` chooses; ``zeros``:
    the inputs that are known to be zero. Without ``offsets``, what is added may be anything.

    Raises:
        FuncgradError: naming the operation, why, and the line.
    """
    jaxpr = closed.jaxpr
    varying: set[Atom] = {v for v, is_linear in zip(jaxpr.invars, linear, strict=True) if is_linear}
    zero: set[Atom] = {v for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if _all_zero(c)}
    if zeros is not None:
        zero.update([v for v, is_zero in zip(jaxpr.invars, zeros, strict=True) if is_zero])
    for eqn in live_eqns(jaxpr.eqns, jaxpr.outvars):
        inputs = [a in varying for a in eqn.invars]
        if not any(inputs):
            if is_linear_unary(eqn.primitive) and _is_zero(eqn.invars[0], zero):
                zero.update(eqn.outvars)
            continue
        _check(eqn, inputs, zero, offsets)
        varying.update(_dependent_results(eqn, inputs))
        for program, flags, first in _programs(eqn, inputs):
            known = [_is_zero(a, zero) for a in eqn.invars[first : first + len(flags)]]
            fixed = eqn.params.get("n_consts", eqn.params.get("body_nconsts", len(known)))
            check_linear(program, flags, [z and k < fixed for k, z in enumerate(known)], offsets)


def _programs(eqn: Eqn, inputs: list[bool]) -> list[tuple[ClosedJaxpr, list[bool], int]]:
    """The programs that a call, loop or branch owns, which of their inputs depend on linear ones, and the operand that
    their first input is."""
    params = eqn.params
    match eqn.primitive.lower:
        case Call():
            return [(params["jaxpr"], inputs, 0)]
        case Scan():
            return [(params["jaxpr"], _in_loop(params["jaxpr"], inputs, params["n_consts"], params["n_carry"]), 0)]
        case While():
            first, body = params["cond_nconsts"], params["body_jaxpr"]
            flags = _in_loop(body, inputs[first:], params["body_nconsts"], len(body.out_avals))
            return [(body, flags, first)]
        case Branch():
            return [(branch, inputs[1:], 1) for branch in params["branches"]]
    return []


def _dependent(jaxpr: Jaxpr, flags: Sequence[bool]) -> set[Atom]:
    """What depends on the inputs that the flags choose; of the results of a loop or branch those that do."""
    varying: set[Atom] = {v for v, flag in zip(jaxpr.invars, flags, strict=True) if flag}
    for eqn in jaxpr.eqns:
        inputs = [a in varying for a in eqn.invars]
        if any(inputs):
            varying.update(_dependent_results(eqn, inputs))
    return varying


def _dependent_results(eqn: Eqn, inputs: list[bool]) -> Sequence[Var]:
    programs, params = _programs(eqn, inputs), eqn.params
    match eqn.primitive.lower:
        case Branch():
            decided = inputs[0]
        case While():
            carries = programs[0][1][params["body_nconsts"] :]
            condition = params["cond_jaxpr"].jaxpr
            decided = condition.outvars[0] in _dependent(condition, [*inputs[: params["cond_nconsts"]], *carries])
        case _:
            decided = not programs
    if decided:
        return eqn.outvars
    results = []
    for program, flags, _ in programs:
        found = _dependent(program.jaxpr, flags)
        results += [v for v, inner in zip(eqn.outvars, program.jaxpr.outvars, strict=True) if inner in found]
    return results


def _in_loop(body: ClosedJaxpr, flags: list[bool], n_consts: int, n_carry: int) -> list[bool]:
    """With the carries that come to depend on what the flags choose."""
    while True:
        found = _dependent(body.jaxpr, flags)
        carries = [a in found for a in body.jaxpr.outvars[:n_carry]]
        grown = [a or b for a, b in zip(flags[n_consts : n_consts + n_carry], carries, strict=True)]
        if grown == flags[n_consts : n_consts + n_carry]:
            return flags
        flags = [*flags[:n_consts], *grown, *flags[n_consts + n_carry :]]


def _check(eqn: Eqn, inputs: Sequence[bool], zero: set[Atom], offsets: bool) -> None:
    primitive, rule = eqn.primitive, eqn.primitive.transpose
    if isinstance(rule, NotLinear):
        raise not_linear(primitive, _at(eqn, rule.reason))
    if offsets and primitive in (add_p, sub_p) and not all(inputs):
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
