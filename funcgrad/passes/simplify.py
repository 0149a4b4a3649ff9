"""Algebra that is exact for every value, NaN, infinities and signed zeros included.

Derivative rules leave products with one, conversions to the same dtype and double transposes behind; each rule here
removes such a thing without changing a bit of any result. (``x + 0`` is kept: it turns -0.0 into 0.0.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Literal, Var
from ..core.primitive import Primitive
from ..ops.elementwise import add_p, mul_p, neg_p, sub_p
from ..ops.transcendental import rsqrt_p
from .rewrite import Substitution, rebuild

__all__ = ["simplify"]

Definitions = dict[Var, Eqn]


def _is_value(a: Atom, value: float) -> bool:
    return isinstance(a, Literal) and bool(a.value == value)


def _same_type(a: Atom, eqn: Eqn) -> bool:
    out = eqn.outvars[0].aval
    return a.aval.shape == out.shape and a.aval.dtype == out.dtype


def _times_one(eqn: Eqn, defs: Definitions) -> Atom | Eqn | None:
    x, y = eqn.invars
    if _is_value(y, 1) and _same_type(x, eqn):
        return x
    return y if _is_value(x, 1) and _same_type(y, eqn) else None


def _over(eqn: Eqn, defs: Definitions) -> Atom | Eqn | tuple[Eqn, ...] | None:
    x, y = eqn.invars
    if _is_value(y, 1) and _same_type(x, eqn):
        return x
    return _power_over_root(eqn, defs)


def _power_over_root(eqn: Eqn, defs: Definitions) -> Eqn | tuple[Eqn, ...] | None:
    """1 / sqrt(x) as one operation, which a machine may have a short way for; and c / sqrt(x) as c times that for a
    power of two c near 1, as in the derivative of sqrt: a root has no extreme exponent, so both round alike, and
    ``1 / sqrt(x)`` is often there already."""
    c, divisor = eqn.invars
    root = _defined_by(divisor, "sqrt", defs)
    if not isinstance(c, Literal) or root is None or not _same_type(divisor, eqn):
        return None
    if divisor.aval.dtype.kind != "f" or divisor.aval.dtype.itemsize < 4:
        return None
    if c.value == 1:
        return Eqn(rsqrt_p, root.invars, {}, eqn.outvars, eqn.source)
    significand, exponent = np.frexp(c.value)
    if abs(significand) != 0.5 or not -8 <= exponent <= 8:
        return None
    inverse = Var(eqn.outvars[0].aval)
    return (
        Eqn(rsqrt_p, root.invars, {}, (inverse,), eqn.source),
        Eqn(mul_p, (c, inverse), {}, eqn.outvars, eqn.source),
    )


def _defined_by(a: Atom, name: str, defs: Definitions) -> Eqn | None:
    eqn = defs.get(a) if type(a) is Var else None
    return eqn if eqn is not None and eqn.primitive.name == name else None


def _double_neg(eqn: Eqn, defs: Definitions) -> Atom | Eqn | None:
    inner = _defined_by(eqn.invars[0], "neg", defs)
    return inner.invars[0] if inner else None


def _no_nan(eqn: Eqn, defs: Definitions) -> Eqn | tuple[Eqn, ...] | None:
    """``mul_no_nan`` with 1 or -1, as it comes from the seed of a gradient, is a sum with or a difference from zero,
    which also turns -0.0 into 0.0. Of its operands only those signs count that are not of zeros."""
    if eqn.outvars[0].aval.dtype.kind != "f":
        return None
    for factor, x in (eqn.invars, eqn.invars[::-1]):
        spread = _defined_by(factor, "broadcast_in_dim", defs)
        factor = spread.invars[0] if spread else factor
        if _same_type(x, eqn) and (_is_value(factor, 1) or _is_value(factor, -1)):
            zero = Literal(x.aval.dtype.type(0))
            return Eqn(add_p if _is_value(factor, 1) else sub_p, (zero, x), {}, eqn.outvars, eqn.source)
    (x, x_flips, x_steps), (y, y_flips, y_steps) = (_unsigned(a, defs) for a in eqn.invars)
    odd = (x_flips + y_flips) % 2
    base = _base_of_power(x, defs)
    if base is not None and base is _base_of_power(y, defs):
        return _negated(mul_p, (x, y), eqn) if odd else Eqn(mul_p, (x, y), {}, eqn.outvars, eqn.source)
    if x_steps + y_steps <= odd:  # no more than the sign that has to be
        return None
    if not odd:
        return Eqn(eqn.primitive, (x, y), {}, eqn.outvars, eqn.source)
    negative = Var(x.aval)
    return (
        Eqn(neg_p, (x,), {}, (negative,), eqn.source),
        Eqn(eqn.primitive, (negative, y), {}, eqn.outvars, eqn.source),
    )


def _negated(primitive: Primitive, operands: tuple[Atom, ...], eqn: Eqn) -> tuple[Eqn, ...]:
    """Zero less the operation, which is never -0.0 where the operation gives zero."""
    value = Var(eqn.outvars[0].aval)
    zero = Literal(value.aval.dtype.type(0))
    return (
        Eqn(primitive, operands, {}, (value,), eqn.source),
        Eqn(sub_p, (zero, value), {}, eqn.outvars, eqn.source),
    )


def _base_of_power(a: Atom, defs: Definitions) -> Var | None:
    """u, if ``a`` is a power of u, times a constant, and u is neither -0 nor negative and finite. Of two such numbers
    neither is infinite or NaN where the other is zero."""
    for _ in range(3):
        eqn = defs.get(a) if type(a) is Var else None
        if eqn is None:
            return None
        name, operands = eqn.primitive.name, eqn.invars
        if name in ("exp", "abs", "rsqrt"):
            return eqn.outvars[0]
        if name == "mul" and isinstance(operands[0], Literal) and 2.0**-8 <= operands[0].value <= 2.0**8:
            a = operands[1]
        elif name == "mul" and operands[0] is operands[1]:
            a = operands[0]
        else:
            return None
    return None


def _unsigned(a: Atom, defs: Definitions) -> tuple[Atom, int, int]:
    """What ``a`` is, up to the sign of zero, after so many changes of sign, and how many equations that leaves out."""
    flips = steps = 0
    while True:
        eqn = defs.get(a) if type(a) is Var else None
        if eqn is None or eqn.primitive.name not in ("neg", "sub", "add"):
            return a, flips, steps
        if eqn.primitive.name != "neg" and not (_is_value(eqn.invars[0], 0) and _same_type(eqn.invars[1], eqn)):
            return a, flips, steps
        flips += eqn.primitive.name != "add"
        steps += 1
        a = eqn.invars[-1]


def _transpose(eqn: Eqn, defs: Definitions) -> Atom | Eqn | None:
    inner = _defined_by(eqn.invars[0], "transpose", defs)
    permutation = eqn.params["permutation"]
    if inner is not None:
        first = inner.params["permutation"]
        permutation = tuple(first[p] for p in permutation)
    source = inner.invars[0] if inner is not None else eqn.invars[0]
    if permutation == tuple(range(len(permutation))):
        return source
    if inner is None:
        return None
    return Eqn(eqn.primitive, (source,), {"permutation": permutation}, eqn.outvars, eqn.source)


def _reshape(eqn: Eqn, defs: Definitions) -> Atom | Eqn | None:
    inner = _defined_by(eqn.invars[0], "reshape", defs)
    source = inner.invars[0] if inner is not None else eqn.invars[0]
    if _same_type(source, eqn):
        return source
    return None if inner is None else Eqn(eqn.primitive, (source,), eqn.params, eqn.outvars, eqn.source)


def _sum_of_doubles(eqn: Eqn, defs: Definitions) -> tuple[Eqn, ...] | None:
    """The sum of x + x is twice the sum of x, rounded alike (it may overflow a little later): what the derivative of a
    square leaves behind."""
    doubled = _defined_by(eqn.invars[0], "add", defs)
    if doubled is None or doubled.invars[0] is not doubled.invars[1]:
        return None
    total = Var(eqn.outvars[0].aval)
    return (
        Eqn(eqn.primitive, doubled.invars[:1], eqn.params, (total,), eqn.source),
        Eqn(add_p, (total, total), {}, eqn.outvars, eqn.source),
    )


def _convert(eqn: Eqn, defs: Definitions) -> Atom | Eqn | None:
    x = eqn.invars[0]
    if isinstance(x, Literal):
        with np.errstate(all="ignore"):
            value = eqn.primitive.impl(x.value, **eqn.params)[()]
        return Literal(value)
    return x if x.aval.dtype == eqn.params["dtype"] else None


def _select(eqn: Eqn, defs: Definitions) -> Atom | Eqn | None:
    c, x, y = eqn.invars
    if isinstance(c, Literal):
        chosen = x if c.value else y
        return chosen if _same_type(chosen, eqn) else None
    return x if x is y and _same_type(x, eqn) else None


RULES: dict[str, Callable[[Eqn, Definitions], Any]] = {
    "mul": _times_one,
    "mul_no_nan": _no_nan,
    "div": _over,
    "neg": _double_neg,
    "reduce_sum": _sum_of_doubles,
    "transpose": _transpose,
    "reshape": _reshape,
    "convert": _convert,
    "select": _select,
}


def simplify(closed: ClosedJaxpr) -> ClosedJaxpr:
    substitute = Substitution()
    defs: Definitions = {}
    eqns: list[Eqn] = []
    for eqn in closed.jaxpr.eqns:
        eqn = substitute.eqn(eqn)
        rule = RULES.get(eqn.primitive.name)
        simpler = rule(eqn, defs) if rule is not None else None
        if isinstance(simpler, (Var, Literal)):
            substitute.replace(eqn.outvars[0], simpler)
            continue
        for e in simpler if isinstance(simpler, tuple) else (simpler or eqn,):
            for v in e.outvars:
                defs[v] = e
            eqns.append(e)
    return rebuild(closed, eqns, substitute)
