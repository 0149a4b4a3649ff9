"""The IR: a jaxpr is a straight line of typed equations, immutable, in static single assignment.

``check_jaxpr`` re-runs every shape rule and is on between all passes under test. ``eval_jaxpr`` re-binds each
equation in the current trace, so that every transform composes with every other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import JaxprError
from ..record import field, record
from .avals import ShapedArray, aval_of
from .primitive import Primitive
from .trace import STATE, Source, acts_for_source

__all__ = [
    "Atom",
    "ClosedJaxpr",
    "Eqn",
    "Jaxpr",
    "Literal",
    "Var",
    "check_jaxpr",
    "dependent",
    "eval_jaxpr",
    "has_effect",
    "live_eqns",
    "subjaxprs",
]


class Var:
    """A value of the program; identity is its name."""

    __slots__ = ("aval",)

    def __init__(self, aval: ShapedArray) -> None:
        self.aval = aval

    def __repr__(self) -> str:
        return f"Var{id(self) % 10**6}:{self.aval.short()}"


class Literal:
    """A 0-d constant written into the equation. It carries its dtype: ``value`` is a NumPy scalar or, weakly
    typed, a Python one."""

    __slots__ = ("aval", "value")

    def __init__(self, value: Any, aval: ShapedArray | None = None) -> None:
        self.value = value
        self.aval = aval_of(value) if aval is None else aval

    def __repr__(self) -> str:
        return f"{self.value}:{self.aval.short()}"


Atom = Var | Literal


@record(frozen=True, eq=False, slots=True)
class Eqn:
    primitive: Primitive
    invars: tuple[Atom, ...]
    params: dict[str, Any]
    outvars: tuple[Var, ...]
    source: Source | None = None

    def __repr__(self) -> str:
        return f"{self.outvars} = {self.primitive}{self.params} {self.invars}"


@record(frozen=True, eq=False)
class Jaxpr:
    constvars: tuple[Var, ...]
    invars: tuple[Var, ...]
    eqns: tuple[Eqn, ...]
    outvars: tuple[Atom, ...]
    name: str = field(default="", compare=False)
    """The traced function, for messages and profiles."""

    def __str__(self) -> str:
        return printer(self)

    __repr__ = __str__


@record(frozen=True, eq=False)
class ClosedJaxpr:
    jaxpr: Jaxpr
    consts: tuple[Any, ...] = ()

    @property
    def in_avals(self) -> list[ShapedArray]:
        return [v.aval for v in self.jaxpr.invars]

    @property
    def out_avals(self) -> list[ShapedArray]:
        return [v.aval for v in self.jaxpr.outvars]

    @property
    def eqns(self) -> tuple[Eqn, ...]:
        return self.jaxpr.eqns

    def __str__(self) -> str:
        return printer(self.jaxpr)

    __repr__ = __str__


def printer(jaxpr: Jaxpr) -> str:  # replaced at import by core.printer, which needs the classes above
    raise NotImplementedError


def subjaxprs(params: dict[str, Any]) -> list[Jaxpr]:
    """The jaxprs that an equation's params own, in order."""
    found: list[Jaxpr] = []
    for value in params.values():
        several = isinstance(value, (tuple, list))
        if several and _OWNERS.isdisjoint(map(type, value)):
            continue
        for x in value if several else (value,):
            kind = type(x)
            if kind is ClosedJaxpr:
                found.append(x.jaxpr)
            elif kind is Jaxpr:
                found.append(x)
    return found


_OWNERS = frozenset((ClosedJaxpr, Jaxpr))


def has_effect(eqn: Eqn) -> bool:
    """Whether an equation does more than compute its results, itself or in a jaxpr that it owns."""
    if eqn.primitive.has_effect:
        return True
    if not eqn.params:
        return False
    inner = subjaxprs(eqn.params)
    return bool(inner) and any([has_effect(e) for jaxpr in inner for e in jaxpr.eqns])


def live_eqns(eqns: Sequence[Eqn], outs: Sequence[Atom], effects: bool = True) -> list[Eqn]:
    """The equations that ``outs`` or (with ``effects``) effects depend on."""
    used = {a for a in outs if type(a) is Var}
    kept: list[Eqn] = []
    for eqn in reversed(eqns):
        if not used.isdisjoint(eqn.outvars) or (effects and has_effect(eqn)):
            kept.append(eqn)
            used.update([a for a in eqn.invars if type(a) is Var])
    kept.reverse()
    return kept


def dependent(jaxpr: Jaxpr, sources: Sequence[bool], effects: bool = False) -> set[Var]:
    """The variables that depend on the inputs at which ``sources`` holds, or (with ``effects``) on effects."""
    found = {v for v, is_source in zip(jaxpr.invars, sources, strict=True) if is_source}
    for eqn in jaxpr.eqns:
        if not found.isdisjoint([a for a in eqn.invars if type(a) is Var]) or (effects and has_effect(eqn)):
            found.update(eqn.outvars)
    return found


def _read(env: dict[Var, Any], atom: Atom) -> Any:
    return env[atom] if type(atom) is Var else atom.value  # type: ignore[union-attr]


def last_uses(jaxpr: Jaxpr) -> list[list[Var]]:
    """For each equation, the variables that nothing later reads."""
    dead: list[list[Var]] = []
    alive = {v for v in jaxpr.outvars if type(v) is Var}
    for eqn in reversed(jaxpr.eqns):
        gone = []
        for v in (*eqn.invars, *eqn.outvars):
            if type(v) is Var and v not in alive:
                alive.add(v)
                gone.append(v)
        dead.append(gone)
    dead.reverse()
    return dead


@acts_for_source
def eval_jaxpr(jaxpr: Jaxpr, consts: Sequence[Any], *args: Any) -> list[Any]:
    """Re-bind every equation on ``args`` in the current trace; intermediate values are dropped after last use."""
    env: dict[Var, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    asked = STATE.source
    try:
        for eqn, gone in zip(jaxpr.eqns, last_uses(jaxpr), strict=True):
            STATE.source = eqn.source or asked
            out = eqn.primitive.bind(*[_read(env, a) for a in eqn.invars], **eqn.params)
            if eqn.primitive.multiple_results:
                env.update(zip(eqn.outvars, out, strict=True))
            else:
                env[eqn.outvars[0]] = out
            for v in gone:
                del env[v]
    finally:
        STATE.source = asked
    return [_read(env, a) for a in jaxpr.outvars]


def check_jaxpr(jaxpr: Jaxpr) -> None:
    """Every variable is bound once and before its use, and every equation has the avals its rule gives.

    Raises:
        JaxprError: naming the equation that is wrong.
    """
    bound: set[Var] = set()

    def bind(v: Var, where: Any) -> None:
        if v in bound:
            raise JaxprError(f"{v} is bound twice, at {where}")
        bound.add(v)

    def use(a: Atom, where: Any) -> ShapedArray:
        if isinstance(a, Literal):
            if np.shape(a.value) != ():
                raise JaxprError(f"literal {a} is not a scalar, in {where}")
        elif a not in bound:
            raise JaxprError(f"{a} is used before it is bound, in {where}")
        return a.aval

    for v in (*jaxpr.constvars, *jaxpr.invars):
        bind(v, "the inputs")
    for eqn in jaxpr.eqns:
        avals = [use(a, eqn) for a in eqn.invars]
        out = eqn.primitive.shape(*avals, **eqn.params)
        expected = tuple(out) if eqn.primitive.multiple_results else (out,)
        if len(expected) != len(eqn.outvars):
            raise JaxprError(f"{eqn.primitive} gives {len(expected)} results, not {len(eqn.outvars)}: {eqn}")
        for v, aval in zip(eqn.outvars, expected, strict=True):
            if v.aval.shape != aval.shape or v.aval.dtype != aval.dtype:
                raise JaxprError(f"{eqn.primitive} gives {aval}, but {v} has {v.aval}: {eqn}")
            bind(v, eqn)
        for inner in subjaxprs(eqn.params):
            check_jaxpr(inner)
    for a in jaxpr.outvars:
        use(a, "the outputs")
