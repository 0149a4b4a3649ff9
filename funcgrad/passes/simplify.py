"""Algebra that is exact for every value, NaN, infinities and signed zeros included.

Derivative rules leave products with one, conversions to the same dtype and double transposes behind; each rule here
removes such a thing without changing a bit of any result. (``x + 0`` is kept: it turns -0.0 into 0.0.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.jaxpr import Atom, ClosedJaxpr, Eqn, Literal, Var
from ..ops.elementwise import add_p, mul_p, sub_p
from .rewrite import Substitution, rebuild

__all__ = ["simplify"]

Definitions = dict[Var, Eqn]


def _is_value(a: Atom, value: float) -> bool:
    return isinstance(a, Literal) and bool(np.asarray(a.value == value))


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


def _power_over_root(eqn: Eqn, defs: Definitions) -> tuple[Eqn, ...] | None:
    """c / sqrt(x) as c * (1 / sqrt(x)) for a power of two c near 1, as in the derivative of sqrt: a root has no
    extreme exponent, so both round alike, and ``1 / sqrt(x)`` is often there already."""
    c, root = eqn.invars
    if not isinstance(c, Literal) or _defined_by(root, "sqrt", defs) is None or root.aval.dtype.kind != "f":
        return None
    significand, exponent = np.frexp(c.value)
    if abs(significand) != 0.5 or not -8 <= exponent <= 8 or c.value == 1 or root.aval.dtype.itemsize < 4:
        return None
    inverse = Var(eqn.outvars[0].aval)
    one = Literal(root.aval.dtype.type(1))
    return (
        Eqn(eqn.primitive, (one, root), {}, (inverse,), eqn.source),
        Eqn(mul_p, (c, inverse), {}, eqn.outvars, eqn.source),
    )


def _defined_by(a: Atom, name: str, defs: Definitions) -> Eqn | None:
    eqn = defs.get(a) if type(a) is Var else None
    return eqn if eqn is not None and eqn.primitive.name == name else None


def _double_neg(eqn: Eqn, defs: Definitions) -> Atom | Eqn | None:
    inner = _defined_by(eqn.invars[0], "neg", defs)
    return inner.invars[0] if inner else None


def _no_nan_unit(eqn: Eqn, defs: Definitions) -> Eqn | None:
    """``mul_no_nan`` with 1 or -1, as it comes from the seed of a gradient: a sum with or difference from zero, which
    also turns -0.0 into 0.0."""
    for factor, x in (eqn.invars, eqn.invars[::-1]):
        spread = _defined_by(factor, "broadcast_in_dim", defs)
        factor = spread.invars[0] if spread else factor
        if x.aval.dtype.kind == "f" and _same_type(x, eqn) and (_is_value(factor, 1) or _is_value(factor, -1)):
            zero = Literal(x.aval.dtype.type(0))
            return Eqn(add_p if _is_value(factor, 1) else sub_p, (zero, x), {}, eqn.outvars, eqn.source)
    return None


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
    "mul_no_nan": _no_nan_unit,
    "div": _over,
    "neg": _double_neg,
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
