"""What of a program somebody reads: its equations, and of loops, branches and calls the results, carries and operands.

``eliminate_dead_code`` is the pass, which leaves a program its signature; ``part_of`` is the part of a program that
computes some of its results, from the inputs that these need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from weakref import WeakKeyDictionary

from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Jaxpr, Var, has_effect
from ..core.primitive import Primitive
from ..ops.marks import optimization_barrier_p
from .call import jit_p, named_call_p
from .cond import cond_p
from .loop import while_p
from .scan import scan_p

__all__ = ["RULES", "eliminate_dead_code", "of_call", "part_of"]


def eliminate_dead_code(closed: ClosedJaxpr) -> ClosedJaxpr:
    jaxpr = closed.jaxpr
    kept, used = _trim(jaxpr.eqns, jaxpr.outvars)
    consts = [(v, c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if v in used]
    return ClosedJaxpr(
        Jaxpr(tuple([v for v, _ in consts]), jaxpr.invars, tuple(kept), jaxpr.outvars, jaxpr.name),
        tuple([c for _, c in consts]),
    )


def part_of(closed: ClosedJaxpr, outs: Sequence[bool], keep: int = 0) -> tuple[ClosedJaxpr, list[bool]]:
    """The program of some results, and the inputs that it has: those they depend on, and the first ``keep``."""
    ins = [needed or k < keep for k, needed in enumerate(_needed(closed, outs))]
    return _program(closed, ins, outs), ins


def _trim(eqns: Sequence[Eqn], outs: Sequence[Atom]) -> tuple[list[Eqn], set[Var]]:
    """The equations that ``outs`` depend on, each without what is not needed of it, and all variables they read."""
    used = {a for a in outs if type(a) is Var}
    kept: list[Eqn] = []
    for eqn in reversed(eqns):
        effect = has_effect(eqn)
        if used.isdisjoint(eqn.outvars) and not effect:
            continue
        rule = None if effect else RULES.get(eqn.primitive)
        if rule is not None:
            eqn = rule(eqn, [v in used for v in eqn.outvars])
        kept.append(eqn)
        used.update([a for a in eqn.invars if type(a) is Var])
    kept.reverse()
    return kept, used


_found: WeakKeyDictionary[Jaxpr, dict[tuple[bool, ...], tuple[list[Eqn], set[Var]]]] = WeakKeyDictionary()


def _trim_body(jaxpr: Jaxpr, outs: Sequence[bool]) -> tuple[list[Eqn], set[Var]]:
    """``_trim`` for some of a body's results. It is kept: a loop asks several times for the same ones, and loops that
    are nested would multiply that."""
    per, key = _found.setdefault(jaxpr, {}), tuple(outs)
    if key not in per:
        per[key] = _trim(jaxpr.eqns, list(compress(jaxpr.outvars, key)))
    return per[key]


def _program(closed: ClosedJaxpr, ins: Sequence[bool], outs: Sequence[bool]) -> ClosedJaxpr:
    """A body with some of its inputs and results; the same object where nothing goes."""
    jaxpr = closed.jaxpr
    outvars = tuple(compress(jaxpr.outvars, outs))
    eqns = tuple(_trim_body(jaxpr, outs)[0])
    if all(ins) and all(outs) and len(eqns) == len(jaxpr.eqns) and all(map(_same, eqns, jaxpr.eqns)):
        return closed
    trimmed = Jaxpr(jaxpr.constvars, tuple(compress(jaxpr.invars, ins)), eqns, outvars, jaxpr.name)
    return ClosedJaxpr(trimmed, closed.consts)


def _same(a: Eqn, b: Eqn) -> bool:
    return a is b


def _needed(closed: ClosedJaxpr, outs: Sequence[bool]) -> list[bool]:
    """Which inputs the chosen results depend on."""
    jaxpr = closed.jaxpr
    _, used = _trim_body(jaxpr, outs)
    return [v in used for v in jaxpr.invars]


def _scan(eqn: Eqn, used: Sequence[bool]) -> Eqn:
    params = eqn.params
    body, n_consts, n_carry = params["jaxpr"], params["n_consts"], params["n_carry"]
    end = n_consts + n_carry
    carry, ys = list(used[:n_carry]), list(used[n_carry:])
    while True:
        needed = _needed(body, [*carry, *ys])
        grown = [a or b for a, b in zip(carry, needed[n_consts:end], strict=True)]
        if grown == carry:
            break
        carry = grown
    ins = [*needed[:n_consts], *carry, *needed[end:]]
    counts = {"n_consts": sum(ins[:n_consts]), "n_carry": sum(carry)}
    return _trimmed(eqn, ins, [*carry, *ys], {"jaxpr": _program(body, ins, [*carry, *ys]), **counts})


def _while(eqn: Eqn, used: Sequence[bool]) -> Eqn:
    params = eqn.params
    condition, body = params["cond_jaxpr"], params["body_jaxpr"]
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    for_condition = _needed(condition, [True])
    carry = [a or b for a, b in zip(used, for_condition[n_cond:], strict=True)]
    while True:
        needed = _needed(body, carry)
        grown = [a or b for a, b in zip(carry, needed[n_body:], strict=True)]
        if grown == carry:
            break
        carry = grown
    cond_ins, body_ins = [*for_condition[:n_cond], *carry], [*needed[:n_body], *carry]
    changed = {
        "cond_jaxpr": _program(condition, cond_ins, [True]),
        "body_jaxpr": _program(body, body_ins, carry),
        "cond_nconsts": sum(cond_ins[:n_cond]),
        "body_nconsts": sum(body_ins[:n_body]),
    }
    return _trimmed(eqn, [*cond_ins[:n_cond], *body_ins], carry, changed)


def _cond(eqn: Eqn, used: Sequence[bool]) -> Eqn:
    branches = eqn.params["branches"]
    ins = [any(flags) for flags in zip(*[_needed(b, used) for b in branches], strict=True)]
    return _trimmed(eqn, [True, *ins], used, {"branches": tuple([_program(b, ins, used) for b in branches])})


def of_call(eqn: Eqn, used: Sequence[bool]) -> Eqn:
    """A call of ``params["jaxpr"]``."""
    program, ins = part_of(eqn.params["jaxpr"], used)
    return _trimmed(eqn, ins, used, {"jaxpr": program})


def _barrier(eqn: Eqn, used: Sequence[bool]) -> Eqn:
    return _trimmed(eqn, used, used, {})


def _trimmed(eqn: Eqn, ins: Sequence[bool], outs: Sequence[bool], params: dict[str, object]) -> Eqn:
    if all(ins) and all(outs) and all([eqn.params[k] == v for k, v in params.items()]):
        return eqn
    invars, outvars = tuple(compress(eqn.invars, ins)), tuple(compress(eqn.outvars, outs))
    return Eqn(eqn.primitive, invars, {**eqn.params, **params}, outvars, eqn.source)


RULES: dict[Primitive, Callable[[Eqn, Sequence[bool]], Eqn]] = {
    scan_p: _scan,
    while_p: _while,
    cond_p: _cond,
    jit_p: of_call,
    named_call_p: of_call,
    optimization_barrier_p: _barrier,
}
