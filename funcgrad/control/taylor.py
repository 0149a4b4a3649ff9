"""Taylor mode through calls, loops and branches: their programs with the series of each value beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import ClosedJaxpr
from ..core.primitive import ZERO, Primitive
from ..core.staging import stage
from ..transforms.taylor import RULES, Series, jet_flat, terms_of
from .call import jit_p, named_call_p
from .checkpoint import checkpoint_p
from .cond import cond_p
from .cond_programs import unified
from .derived import call_jaxpr, per_jaxpr, per_jaxprs, without_constants
from .loop import while_p
from .loop_programs import with_unused_inputs
from .scan import scan_p
from .scan_programs import either

__all__: list[str] = []

Flags = tuple[bool, ...]


def _active(series: Sequence[Series]) -> Flags:
    return tuple([any([t is not ZERO for t in s]) for s in series])


def _flat(primals: Sequence[Any], series: Sequence[Series], active: Sequence[bool]) -> list[Any]:
    """The terms of the active values, one after the other."""
    return [t for p, s, a in zip(primals, series, active, strict=True) if a for t in terms_of(p, s)]


def _term_avals(avals: Sequence[ShapedArray], active: Sequence[bool], order: int) -> list[ShapedArray]:
    return [x.strong() for x, a in zip(avals, active, strict=True) if a for _ in range(order)]


def _series(terms: Any, active: Sequence[bool], order: int) -> list[Series]:
    """What `_flat` laid out, from an iterator."""
    return [[next(terms) for _ in range(order)] if a else [ZERO] * order for a in active]


def _run(closed: ClosedJaxpr, args: Sequence[Any], terms: Any, active: Sequence[bool], order: int) -> Any:
    return jet_flat(call_jaxpr(closed), args, _series(terms, active, order), order)


# calls ----------------------------------------------------------------------------------------------------------------


@per_jaxpr
def _jet_jaxpr(closed: ClosedJaxpr, order: int, active: Flags) -> tuple[ClosedJaxpr, Flags]:
    """``(primals, terms of the active ones) -> (outs, terms of the active ones)``, and which outs are active."""
    n = len(closed.in_avals)
    out_active: Flags = ()

    def fun(*args: Any) -> list[Any]:
        nonlocal out_active
        outs, series = _run(closed, args[:n], iter(args[n:]), active, order)
        out_active = _active(series)
        return [*outs, *_flat(outs, series, out_active)]

    avals = [*closed.in_avals, *_term_avals(closed.in_avals, active, order)]
    return stage(fun, avals, f"jet({closed.jaxpr.name})"), out_active


def _of_call(primitive: Primitive) -> Any:
    def rule(order: int, primals: Sequence[Any], series: Sequence[Series], *, jaxpr: ClosedJaxpr, **params: Any) -> Any:
        active = _active(series)
        derived, out_active = _jet_jaxpr(jaxpr, order, active)
        extra, program = without_constants(derived)
        if "name" in params:
            params["name"] = f"jet({params['name']})"
        results = primitive.bind(*extra, *primals, *_flat(primals, series, active), jaxpr=program, **params)
        n = len(out_active)
        return results[:n], _series(iter(results[n:]), out_active, order)

    return rule


# branches -------------------------------------------------------------------------------------------------------------


@per_jaxprs
def _jet_branches(branches: tuple[ClosedJaxpr, ...], order: int, active: Flags) -> Any:
    """The branches with terms of all results that have some in any of them."""
    n = len(active)
    found: list[Flags] = []
    wanted: Flags = ()

    def program(branch: ClosedJaxpr) -> ClosedJaxpr:
        def fun(*args: Any) -> list[Any]:
            outs, series = _run(branch, args[:n], iter(args[n:]), active, order)
            found.append(_active(series))
            return [*outs, *_flat(outs, series, wanted or [False] * len(outs))]

        avals = [*branch.in_avals, *_term_avals(branch.in_avals, active, order)]
        return stage(fun, avals, f"jet({branch.jaxpr.name})")

    for branch in branches:
        program(branch)
    wanted = tuple([any(flags) for flags in zip(*found, strict=True)])
    return *unified([program(b) for b in branches]), wanted


def _of_cond(order: int, primals: Sequence[Any], series: Sequence[Series], *, branches: tuple[ClosedJaxpr, ...]) -> Any:
    index, *operands = primals
    active = _active(series[1:])
    consts, derived, wanted = _jet_branches(branches, order, active)
    terms = _flat(operands, series[1:], active)
    results = cond_p.bind(index, *consts, *operands, *terms, branches=derived)
    n = len(wanted)
    return results[:n], _series(iter(results[n:]), wanted, order)


# loops ----------------------------------------------------------------------------------------------------------------


@per_jaxpr
def _jet_body(closed: ClosedJaxpr, order: int, active: Flags, n_consts: int, n_carry: int) -> Any:
    """``(consts, their terms, carry, its terms, xs, their terms) -> (carry, terms, ys, terms)``, its constants, and
    which carries and ys have terms."""
    end = n_consts + n_carry
    groups = (closed.in_avals[:n_consts], closed.in_avals[n_consts:end], closed.in_avals[end:])
    const_active, carry_active, x_active = active[:n_consts], active[n_consts:end], active[end:]
    out_active: Flags = ()

    def fun(*args: Any) -> list[Any]:
        nonlocal out_active
        rest = iter(args)
        primals: list[Any] = []
        series: list[Series] = []
        for avals, flags in zip(groups, (const_active, carry_active, x_active), strict=True):
            primals += [next(rest) for _ in avals]
            series += _series(rest, flags, order)
        outs, found = jet_flat(call_jaxpr(closed), primals, series, order)
        out_active = _active(found)
        full = (*either(carry_active, out_active[:n_carry]), *out_active[n_carry:])
        return [
            *outs[:n_carry], *_flat(outs[:n_carry], found[:n_carry], full[:n_carry]),
            *outs[n_carry:], *_flat(outs[n_carry:], found[n_carry:], full[n_carry:]),
        ]  # fmt: skip

    while True:
        avals: list[ShapedArray] = []
        for group, flags in zip(groups, (const_active, carry_active, x_active), strict=True):
            avals += [*group, *_term_avals(group, flags, order)]
        derived = stage(fun, avals, f"jet({closed.jaxpr.name})")
        grown = either(carry_active, out_active[:n_carry])
        if grown == carry_active:
            return *without_constants(derived), carry_active, out_active[n_carry:]
        carry_active = grown


def _of_scan(
    order: int,
    primals: Sequence[Any],
    series: Sequence[Series],
    *,
    jaxpr: ClosedJaxpr,
    n_consts: int,
    n_carry: int,
    **params: Any,
) -> Any:
    active = _active(series)
    extra, derived, carry_active, y_active = _jet_body(jaxpr, order, active, n_consts, n_carry)
    end = n_consts + n_carry
    consts, const_terms = primals[:n_consts], _flat(primals[:n_consts], series[:n_consts], active[:n_consts])
    carry, carry_terms = primals[n_consts:end], _flat(primals[n_consts:end], series[n_consts:end], carry_active)
    xs, x_terms = primals[end:], _flat(primals[end:], series[end:], active[end:])
    counts = {"n_consts": len(extra) + n_consts + len(const_terms), "n_carry": n_carry + len(carry_terms)}
    operands = [*extra, *consts, *const_terms, *carry, *carry_terms, *xs, *x_terms]
    results = iter(scan_p.bind(*operands, jaxpr=derived, **counts, **params))
    outs = [next(results) for _ in carry]
    terms = _series(results, carry_active, order)
    outs += [next(results) for _ in y_active]
    return outs, [*terms, *_series(results, y_active, order)]


def _of_while(
    order: int,
    primals: Sequence[Any],
    series: Sequence[Series],
    *,
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    cond_nconsts: int,
    body_nconsts: int,
    **params: Any,
) -> Any:
    end = cond_nconsts + body_nconsts
    n_carry = len(primals) - end
    active = _active(series[cond_nconsts:])
    extra, derived, carry_active, _ = _jet_body(body_jaxpr, order, active, body_nconsts, n_carry)
    consts, carry = primals[cond_nconsts:end], primals[end:]
    const_terms = _flat(consts, series[cond_nconsts:end], active[:body_nconsts])
    carry_terms = _flat(carry, series[end:], carry_active)
    condition = with_unused_inputs(cond_jaxpr, tuple([aval_of(t).strong() for t in carry_terms]))
    results = while_p.bind(
        *primals[:cond_nconsts],
        *extra,
        *consts,
        *const_terms,
        *carry,
        *carry_terms,
        cond_jaxpr=condition,
        body_jaxpr=derived,
        cond_nconsts=cond_nconsts,
        body_nconsts=len(extra) + body_nconsts + len(const_terms),
        **params,
    )
    return results[:n_carry], _series(iter(results[n_carry:]), carry_active, order)


RULES.update({p: _of_call(p) for p in (jit_p, named_call_p, checkpoint_p)})
RULES.update({cond_p: _of_cond, scan_p: _of_scan, while_p: _of_while})
