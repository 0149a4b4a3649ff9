"""Dividing a program in two: what runs now and keeps some of its values, and the same again from what was kept.

``split(closed, keep)`` asks a policy about each equation; what an effect gives is kept always, since it happens once.
Of a loop or a call that is not kept as a whole the body is split: its values are kept step by step, stacked, as results
and operands of the loop; branches share slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.avals import ShapedArray
from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Jaxpr, Var
from ..core.primitive import Primitive
from ..core.staging import stage
from ..ops.marks import name_p
from ..record import record
from .call import jit_p, named_call_p
from .cond import cond_p
from .cond_programs import Slots, with_slots
from .derived import call_jaxpr, per_jaxpr, silent_eqn
from .policies import Policy
from .scan import scan_p

__all__ = ["RULES", "Split", "of_call", "split"]


@record(frozen=True)
class Split:
    """``first``: ``ins -> (outs, kept)``; ``again``: ``(ins, kept) -> outs``, without the operations whose results are
    kept. ``kept``: which variables of ``first`` these are."""

    first: ClosedJaxpr
    again: ClosedJaxpr
    kept: tuple[Var, ...]


Halves = tuple[Eqn, Eqn, list[Var]]


class _Kept:
    """The values that are kept, each once, in order."""

    def __init__(self) -> None:
        self.vars: dict[Var, None] = {}

    def add(self, variables: Sequence[Var]) -> None:
        self.vars.update(dict.fromkeys(variables))


@per_jaxpr
def split(closed: ClosedJaxpr, keep: Policy) -> Split:
    jaxpr = closed.jaxpr
    kept = _Kept()
    same: dict[Var, Var] = {}
    first: list[Eqn] = []
    again: list[Eqn] = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.has_effect or keep(eqn.primitive, *[a.aval for a in eqn.invars], **eqn.params):
            kept.add(eqn.outvars)
            first.append(eqn)
            source = eqn.invars[0] if eqn.primitive is name_p else None
            if type(source) is Var and source not in kept.vars and source not in jaxpr.invars:
                same[source] = eqn.outvars[0]  # a value and its name are one: whoever reads the value has it
            continue
        rule = RULES.get(eqn.primitive)
        halves = None if rule is None else rule(eqn, keep)
        if halves is None:
            first.append(eqn)
            again.append(silent_eqn(eqn))
        else:
            now, then, inner = halves
            first.append(now)
            again.append(then)
            kept.add(inner)
    again = [_reading(eqn, same) for eqn in again if not all([v in kept.vars or v in same for v in eqn.outvars])]
    again = [_with_fresh_results(eqn, kept, same) for eqn in again]
    outs = tuple([same.get(a, a) if type(a) is Var else a for a in jaxpr.outvars])
    variables = tuple(kept.vars)
    return Split(
        ClosedJaxpr(
            Jaxpr(jaxpr.constvars, jaxpr.invars, tuple(first), (*jaxpr.outvars, *variables), jaxpr.name), closed.consts
        ),
        ClosedJaxpr(Jaxpr(jaxpr.constvars, (*jaxpr.invars, *variables), tuple(again), outs, jaxpr.name), closed.consts),
        variables,
    )


def _reading(eqn: Eqn, same: dict[Var, Var]) -> Eqn:
    invars: tuple[Atom, ...] = tuple([same.get(a, a) if type(a) is Var else a for a in eqn.invars])
    return Eqn(eqn.primitive, invars, eqn.params, eqn.outvars, eqn.source)


def _with_fresh_results(eqn: Eqn, kept: _Kept, same: dict[Var, Var]) -> Eqn:
    """Results that are kept already are computed for nobody."""
    outvars = tuple([Var(v.aval) if v in kept.vars or v in same else v for v in eqn.outvars])
    return Eqn(eqn.primitive, eqn.invars, eqn.params, outvars, eqn.source)


# equations that own programs ------------------------------------------------------------------------------------------


def of_call(eqn: Eqn, keep: Policy) -> Halves | None:
    """A call of ``params["jaxpr"]``."""
    inner = split(eqn.params["jaxpr"], keep)
    if not inner.kept:
        return None
    kept = [Var(v.aval) for v in inner.kept]
    return (
        Eqn(eqn.primitive, eqn.invars, {**eqn.params, "jaxpr": inner.first}, (*eqn.outvars, *kept), eqn.source),
        Eqn(eqn.primitive, (*eqn.invars, *kept), {**eqn.params, "jaxpr": inner.again}, eqn.outvars, eqn.source),
        kept,
    )


def _of_scan(eqn: Eqn, keep: Policy) -> Halves | None:
    body, length, n_carry = eqn.params["jaxpr"], eqn.params["length"], eqn.params["n_carry"]
    inner = split(body, keep)
    if not inner.kept:
        return None
    ys = dict(zip(body.jaxpr.outvars[n_carry:], eqn.outvars[n_carry:], strict=True))
    extra = [v for v in inner.kept if v not in ys]  # what is a result of the loop anyway is that
    stacked = {v: Var(ShapedArray((length, *v.aval.shape), v.aval.dtype)) for v in extra}
    kept: list[Var] = [ys[v] if v in ys else stacked[v] for v in inner.kept]
    first = _with_results(inner.first, [*body.jaxpr.outvars, *extra])
    return (
        Eqn(scan_p, eqn.invars, {**eqn.params, "jaxpr": first}, (*eqn.outvars, *stacked.values()), eqn.source),
        Eqn(scan_p, (*eqn.invars, *kept), {**eqn.params, "jaxpr": inner.again}, eqn.outvars, eqn.source),
        kept,
    )


def _with_results(closed: ClosedJaxpr, outs: Sequence[Atom]) -> ClosedJaxpr:
    jaxpr = closed.jaxpr
    return ClosedJaxpr(Jaxpr(jaxpr.constvars, jaxpr.invars, jaxpr.eqns, tuple(outs), jaxpr.name), closed.consts)


def _of_cond(eqn: Eqn, keep: Policy) -> Halves | None:
    branches: tuple[ClosedJaxpr, ...] = eqn.params["branches"]
    halves = [split(b, keep) for b in branches]
    if not any([h.kept for h in halves]):
        return None
    slots = Slots()
    places = [slots.place([v.aval for v in h.kept]) for h in halves]
    n_outs = len(eqn.outvars)
    kept = [Var(a) for a in slots.avals]
    first = [with_slots(h.first, n_outs, slots.avals, p) for h, p in zip(halves, places, strict=True)]
    again = [_from_slots(h, b, slots.avals, p) for h, b, p in zip(halves, branches, places, strict=True)]
    return (
        Eqn(cond_p, eqn.invars, {**eqn.params, "branches": tuple(first)}, (*eqn.outvars, *kept), eqn.source),
        Eqn(cond_p, (*eqn.invars, *kept), {**eqn.params, "branches": tuple(again)}, eqn.outvars, eqn.source),
        kept,
    )


def _from_slots(half: Split, branch: ClosedJaxpr, avals: Sequence[ShapedArray], place: Sequence[int]) -> ClosedJaxpr:
    n = len(branch.in_avals)

    def fun(*args: Any) -> list[Any]:
        slots = args[n:]
        return call_jaxpr(half.again)(*args[:n], *[slots[k] for k in place])

    return stage(fun, [*branch.in_avals, *avals], branch.jaxpr.name)


RULES: dict[Primitive, Callable[[Eqn, Policy], Halves | None]] = {
    jit_p: of_call,
    named_call_p: of_call,
    scan_p: _of_scan,
    cond_p: _of_cond,
}
