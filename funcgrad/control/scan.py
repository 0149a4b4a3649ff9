"""``scan``: a loop with a known number of steps, a carry, and slices of arrays in and out.

``scan_p`` has operands ``(*consts, *carry, *xs)``; its jaxpr takes ``(consts, carry, slices of xs)`` to
``(carry, slices of ys)``. Every transform of a scan is a scan again:

- forward mode carries the tangents along;
- linearization keeps residuals. Those that vary from step to step are stacked as additional ys; what does not depend
  on the step is computed once, outside;
- transposition runs backwards, carries the cotangent of the carry, and adds up those of the consts;
- batching adds an axis to every step.

With ``checkpoint``, a plan of segments, linearization keeps less; see ``control.segments``.

Which carries take part (have a tangent, a cotangent, a batch axis) is found by iterating to a fixpoint.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..core.avals import ShapedArray
from ..core.jaxpr import ClosedJaxpr, Var, dependent
from ..core.lowering import Scan
from ..core.primitive import ZERO, Linear, Primitive
from ..core.staging import stage
from ..ops.create import instantiate_zeros
from ..ops.elementwise import add
from ..ops.structural import moveaxis
from ..record import record
from ..transforms.batch import batch_subtrace, move_batch
from ..transforms.forward import instantiate, jvp_flat
from ..transforms.linear import linear_function, linearize_flat
from .body import same_type
from .derived import call_jaxpr, grown, live_jaxpr, per_jaxpr, select_program, without_constants
from .interpret import execute, handed_over, interpreter, patience, typed_results

__all__ = ["chosen", "either", "linear_carries", "scan_p", "set_segments", "transposed_body"]

T = TypeVar("T")
Flags = tuple[bool, ...]


@record(frozen=True)
class _Parts:
    """How the operands of a scan, and the inputs of its jaxpr, divide."""

    n_consts: int
    n_carry: int

    def ins(self, items: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        end = self.n_consts + self.n_carry
        return items[: self.n_consts], items[self.n_consts : end], items[end:]

    def outs(self, items: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
        return items[: self.n_carry], items[self.n_carry :]


def chosen(items: Sequence[T], flags: Sequence[bool]) -> list[T]:
    return list(itertools.compress(items, flags))


def either(a: Sequence[bool], b: Sequence[bool]) -> Flags:
    return tuple([x or y for x, y in zip(a, b, strict=True)])


# meaning and type -------------------------------------------------------------------------------------------------


def _interpret(
    *args: Any,
    jaxpr: ClosedJaxpr,
    length: int,
    reverse: bool,
    unroll: int,
    n_consts: int,
    n_carry: int,
    checkpoint: tuple[int, ...] = (),
) -> list[Any]:
    parts = _Parts(n_consts, n_carry)
    if length > patience(jaxpr):
        params = dict(jaxpr=jaxpr, length=length, reverse=reverse, unroll=unroll, n_consts=n_consts, n_carry=n_carry)
        outs = handed_over(scan_p, args, params)
        if outs is not None:
            return list(outs)
    consts, carry, xs = parts.ins(args)
    step = interpreter(jaxpr)
    _, y_avals = parts.outs(jaxpr.out_avals)
    ys = [np.empty((length, *a.shape), a.dtype) for a in y_avals]
    for k in reversed(range(length)) if reverse else range(length):
        carry, y = parts.outs(step(*consts, *carry, *[x[k] for x in xs]))
        for row, value in zip(ys, y, strict=True):
            row[k] = value
    return [*carry, *ys]


def _operand_avals(jaxpr: ClosedJaxpr, length: int, parts: _Parts) -> list[ShapedArray]:
    consts, carry, xs = parts.ins(jaxpr.in_avals)
    return [*consts, *carry, *[a.update(shape=(length, *a.shape)) for a in xs]]


def _out_avals(jaxpr: ClosedJaxpr, length: int, parts: _Parts) -> list[ShapedArray]:
    _, ins, _ = parts.ins(jaxpr.in_avals)
    outs, ys = parts.outs(jaxpr.out_avals)
    carry = [a.update(weak_type=a.weak_type and b.weak_type) for a, b in zip(ins, outs, strict=True)]
    return [*carry, *[ShapedArray((length, *a.shape), a.dtype) for a in ys]]


def _impl(*args: Any, **params: Any) -> Any:
    parts, length = _Parts(params["n_consts"], params["n_carry"]), params["length"]
    jaxpr = params["jaxpr"]
    outs = execute(scan_p, _interpret, args, _operand_avals(jaxpr, length, parts), params)
    return typed_results(outs, _out_avals(jaxpr, length, parts))


def _shape(
    *avals: ShapedArray,
    jaxpr: ClosedJaxpr,
    length: int,
    reverse: bool,
    unroll: int,
    n_consts: int,
    n_carry: int,
    checkpoint: tuple[int, ...] = (),
) -> Any:
    parts = _Parts(n_consts, n_carry)
    wanted = _operand_avals(jaxpr, length, parts)
    if len(wanted) != len(avals) or not all(map(same_type, wanted, avals)):
        raise TypeError(f"scan: the body takes {wanted}, but the operands are {list(avals)}")
    _, ins, _ = parts.ins(jaxpr.in_avals)
    outs, _ = parts.outs(jaxpr.out_avals)
    if len(ins) != len(outs) or not all(map(same_type, ins, outs)):
        raise TypeError(f"scan: the body takes the carry {list(ins)} and returns {list(outs)}")
    return tuple(_out_avals(jaxpr, length, parts))


# forward mode -----------------------------------------------------------------------------------------------------


@per_jaxpr
def _jvp_body(closed: ClosedJaxpr, nonzero: Flags, n_consts: int, n_carry: int) -> Any:
    """``(consts, their tangents, carry, its tangents, xs, their tangents) -> (carry, tangents, ys, tangents)``, its
    constants, and which carries and ys have tangents."""
    parts = _Parts(n_consts, n_carry)
    groups = parts.ins(closed.in_avals)
    const_nz, carry_nz, x_nz = map(tuple, parts.ins(nonzero))
    out_nz: Flags = ()

    def fun(*args: Any) -> list[Any]:
        nonlocal out_nz
        rest = iter(args)
        primals, tangents = [], []
        for avals, flags in zip(groups, (const_nz, carry_nz, x_nz), strict=True):
            primals += [next(rest) for _ in avals]
            tangents += [next(rest) if nz else ZERO for nz in flags]
        outs, t_outs = jvp_flat(call_jaxpr(closed), primals, tangents)
        out_nz = tuple([t is not ZERO for t in t_outs])
        full = [*[nz or own for nz, own in zip(carry_nz, out_nz, strict=False)], *out_nz[n_carry:]]
        t_outs = [instantiate(t, o) if nz else t for t, o, nz in zip(t_outs, outs, full, strict=True)]
        (carry, ys), (t_carry, t_ys) = parts.outs(outs), parts.outs(t_outs)
        return [*carry, *[t for t in t_carry if t is not ZERO], *ys, *[t for t in t_ys if t is not ZERO]]

    while True:
        avals = []
        for group, flags in zip(groups, (const_nz, carry_nz, x_nz), strict=True):
            avals += [*group, *[a.strong() for a in chosen(group, flags)]]
        derived = stage(fun, avals, f"jvp({closed.jaxpr.name})")
        grown_nz = either(carry_nz, out_nz[:n_carry])
        if grown_nz == carry_nz:
            return *without_constants(derived), carry_nz, out_nz[n_carry:]
        carry_nz = grown_nz


def _forward(
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    jaxpr: ClosedJaxpr,
    n_consts: int,
    n_carry: int,
    **params: Any,
) -> Any:
    parts = _Parts(n_consts, n_carry)
    nonzero = tuple([t is not ZERO for t in tangents])
    extra, derived, carry_nz, y_nz = _jvp_body(jaxpr, nonzero, n_consts, n_carry)
    (consts, carry, xs), (t_consts, t_carry, t_xs) = parts.ins(primals), parts.ins(tangents)
    t_consts, t_xs = [t for t in t_consts if t is not ZERO], [t for t in t_xs if t is not ZERO]
    t_carry = [instantiate(t, x) for t, x, nz in zip(t_carry, carry, carry_nz, strict=True) if nz]
    counts = {"n_consts": len(extra) + n_consts + len(t_consts), "n_carry": n_carry + len(t_carry)}
    operands = [*extra, *consts, *t_consts, *carry, *t_carry, *xs, *t_xs]
    results = iter(scan_p.bind(*operands, jaxpr=derived, **counts, **params))
    outs, t_outs = [next(results) for _ in carry], [next(results) if nz else ZERO for nz in carry_nz]
    outs += [next(results) for _ in y_nz]
    return outs, [*t_outs, *[next(results) if nz else ZERO for nz in y_nz]]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
    return _forward(primals, tangents, **params)[1]


# linearization ----------------------------------------------------------------------------------------------------

_segments: Callable[..., Any]


def set_segments(linearize: Callable[..., Any]) -> None:
    """Say how a scan with a plan of segments is linearized: by checkpointed calls, which this module knows nothing
    of."""
    global _segments
    _segments = linearize


@record(frozen=True)
class _Linearized:
    """``primal``: the body with ``n_new`` residuals as additional ys. ``invariant``: ``consts -> residuals`` that are
    the same at every step. A residual comes from a const, from these, from xs or from ys: ``fixed`` and ``stacked``
    name source and position. ``linear``: ``(fixed residuals, tangents of consts; tangents of the carry; stacked
    residuals, tangents of xs) -> (tangents of the carry, of ys)``."""

    extra: tuple[Any, ...]
    primal: ClosedJaxpr
    invariant: ClosedJaxpr
    fixed: tuple[tuple[str, int], ...]
    stacked: tuple[tuple[str, int], ...]
    linear_extra: tuple[Any, ...]
    linear: ClosedJaxpr
    carry_nz: Flags
    y_nz: Flags


@per_jaxpr
def _linearized_body(closed: ClosedJaxpr, nonzero: Flags, n_consts: int, n_carry: int) -> _Linearized:
    parts = _Parts(n_consts, n_carry)
    const_nz, carry_nz, x_nz = map(tuple, parts.ins(nonzero))
    found: dict[str, Any] = {}

    def fun(*args: Any) -> list[Any]:
        outs, lin = linearize_flat(call_jaxpr(closed), args, (*const_nz, *carry_nz, *x_nz))
        linear, residuals = live_jaxpr(*lin.to_jaxpr())
        found.update(linear=linear, args=args, outs=outs, residuals=residuals)
        found["out_nz"] = tuple([o is not None for o in lin.outs])
        return [*outs, *residuals]

    while True:
        staged = stage(fun, closed.in_avals, closed.jaxpr.name)
        grown_nz = either(carry_nz, found["out_nz"][:n_carry])
        if grown_nz == carry_nz:
            break
        carry_nz = grown_nz
    n_outs = len(closed.out_avals)
    residual_vars = staged.jaxpr.outvars[n_outs:]
    sources, new, invariant = _residual_sources(staged, residual_vars, n_outs, parts)
    primal = select_program(staged, range(len(closed.in_avals)), [*staged.jaxpr.outvars[:n_outs], *new], True)
    linear, fixed, stacked = _linear_body(closed, found, sources, residual_vars, carry_nz, (const_nz, x_nz), parts)
    return _Linearized(
        *without_constants(primal),
        select_program(staged, range(n_consts), invariant),
        fixed,
        stacked,
        *without_constants(linear),
        carry_nz,
        found["out_nz"][n_carry:],
    )


def _residual_sources(staged: ClosedJaxpr, residuals: Sequence[Any], n_outs: int, parts: _Parts) -> Any:
    """Where each residual comes from, those that are to be stacked anew, and those that no step changes."""
    jaxpr = staged.jaxpr
    consts, _, xs = parts.ins(jaxpr.invars)
    _, ys = parts.outs(jaxpr.outvars[:n_outs])
    varying = dependent(jaxpr, [k >= parts.n_consts for k in range(len(jaxpr.invars))], effects=True)
    known: dict[Any, tuple[str, int]] = {v: ("xs", k) for k, v in enumerate(xs)}
    for k, v in enumerate(ys):
        known.setdefault(v, ("ys", k))
    known.update({v: ("consts", k) for k, v in enumerate(consts)})
    sources: list[tuple[str, int]] = []
    new: list[Var] = []
    invariant: list[Var] = []
    for v in residuals:
        if v not in varying and known.get(v, ("", 0))[0] != "consts":
            known[v] = ("invariant", len(invariant))
            invariant.append(v)
        elif v not in known:
            known[v] = ("ys", len(ys) + len(new))
            new.append(v)
        sources.append(known[v])
    return sources, new, invariant


def _linear_body(
    closed: ClosedJaxpr,
    found: dict[str, Any],
    sources: Sequence[tuple[str, int]],
    residuals: Sequence[Any],
    carry_nz: Flags,
    const_x_nz: tuple[Flags, Flags],
    parts: _Parts,
) -> tuple[ClosedJaxpr, tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]:
    linear, out_nz = found["linear"], found["out_nz"]
    const_avals, carry_avals, x_avals = parts.ins(closed.in_avals)
    t_consts = [a.strong() for a in chosen(const_avals, const_x_nz[0])]
    t_carry = [a.strong() for a in chosen(carry_avals, carry_nz)]
    t_xs = [a.strong() for a in chosen(x_avals, const_x_nz[1])]
    is_fixed = [s[0] in ("consts", "invariant") for s in sources]
    avals = [v.aval for v in residuals]
    fixed = [k for k, f in enumerate(is_fixed) if f]
    stacked = [k for k, f in enumerate(is_fixed) if not f]
    sizes = [len(fixed), len(t_consts), len(t_carry), len(stacked), len(t_xs)]
    ends = list(itertools.accumulate(sizes))

    def fun(*args: Any) -> list[Any]:
        groups = [args[end - n : end] for n, end in zip(sizes, ends, strict=True)]
        values = dict(zip([*fixed, *stacked], [*groups[0], *groups[3]], strict=True))
        rest = iter(call_jaxpr(linear)(*[values[k] for k in range(len(sources))], *groups[1], *groups[2], *groups[4]))
        results = []
        wanted = (*carry_nz, *out_nz[parts.n_carry :])
        for aval, own, want in zip(closed.out_avals, out_nz, wanted, strict=True):
            if own:
                results.append(next(rest))
            elif want:
                results.append(instantiate_zeros(aval.strong()))
        return results

    in_avals = [*[avals[k] for k in fixed], *t_consts, *t_carry, *[avals[k] for k in stacked], *t_xs]
    body = stage(fun, in_avals, f"linear({closed.jaxpr.name})")
    return body, tuple([sources[k] for k in fixed]), tuple([sources[k] for k in stacked])


def _linearize(nonzero: Sequence[bool], primals: Sequence[Any], **params: Any) -> Any:
    plan = params.pop("checkpoint", ())
    if len(plan) > 1:
        return _segments(nonzero, primals, checkpoint=plan, **params)
    return _linearize_steps(nonzero, primals, **params)


def _linearize_steps(
    nonzero: Sequence[bool],
    primals: Sequence[Any],
    *,
    jaxpr: ClosedJaxpr,
    n_consts: int,
    n_carry: int,
    **params: Any,
) -> Any:
    parts = _Parts(n_consts, n_carry)
    floats = tuple([nz and a.dtype.kind in "fc" for nz, a in zip(nonzero, jaxpr.in_avals, strict=True)])
    lin = _linearized_body(jaxpr, floats, n_consts, n_carry)
    consts, carry, xs = parts.ins(primals)
    counts = {"n_consts": len(lin.extra) + n_consts, "n_carry": n_carry}
    results = scan_p.bind(*lin.extra, *primals, jaxpr=lin.primal, **counts, **params)
    sources = {"consts": consts, "xs": xs, "ys": results[n_carry:], "invariant": call_jaxpr(lin.invariant)(*consts)}
    fixed, stacked = ([sources[name][k] for name, k in group] for group in (lin.fixed, lin.stacked))
    n_outs = len(jaxpr.out_avals)

    def apply(*tangents: Any) -> list[Any]:
        rest = iter(tangents)
        given = [next(rest) if nz else ZERO for nz in nonzero]
        t_consts, t_carry, t_xs = parts.ins([t if f else ZERO for t, f in zip(given, floats, strict=True)])
        t_consts, t_xs = [t for t in t_consts if t is not ZERO], [t for t in t_xs if t is not ZERO]
        t_carry = [instantiate(t, x) for t, x, nz in zip(t_carry, carry, lin.carry_nz, strict=True) if nz]
        operands = [*lin.linear_extra, *fixed, *t_consts, *t_carry, *stacked, *t_xs]
        counts = {"n_consts": len(lin.linear_extra) + len(fixed) + len(t_consts), "n_carry": len(t_carry)}
        outs = iter(scan_p.bind(*operands, jaxpr=lin.linear, **counts, **params))
        return [next(outs) if nz else ZERO for nz in (*lin.carry_nz, *lin.y_nz)]

    return results[:n_outs], apply


# transposition ----------------------------------------------------------------------------------------------------


@per_jaxpr
def linear_carries(closed: ClosedJaxpr, linear: Flags, n_consts: int, n_carry: int) -> Flags:
    """Which carries depend on linear operands."""
    parts = _Parts(n_consts, n_carry)
    consts, carry, xs = parts.ins(linear)
    while True:
        found = dependent(closed.jaxpr, [*consts, *carry, *xs])
        grown_flags = either(carry, [a in found for a in closed.jaxpr.outvars[:n_carry]])
        if grown_flags == tuple(carry):
            return grown_flags
        carry = grown_flags


@per_jaxpr
def _known_body(closed: ClosedJaxpr, linear: Flags, n_consts: int, n_carry: int) -> ClosedJaxpr:
    """The part of the body that computes the carries that are not linear; its ys are these at the start of a step."""
    invars = closed.jaxpr.invars
    carry = [k for k in range(n_carry) if not linear[n_consts + k]]
    outs = [*[closed.jaxpr.outvars[k] for k in carry], *[invars[n_consts + k] for k in carry]]
    return select_program(closed, [k for k, is_linear in enumerate(linear) if not is_linear], outs)


@per_jaxpr
def transposed_body(closed: ClosedJaxpr, linear: Flags, cts_nz: Flags, n_consts: int, n_carry: int) -> Any:
    """``(known consts; sums of the cotangents of consts, cotangents of the carry; known xs, known carries, cotangents
    of ys) -> (sums, cotangents of the carry; cotangents of xs)``, its constants, and which cotangents there are."""
    parts = _Parts(n_consts, n_carry)
    lin_consts, lin_carry, lin_xs = parts.ins(linear)
    const_avals, carry_avals, x_avals = parts.ins(closed.in_avals)
    linear_avals = chosen(closed.in_avals, linear)
    _, y_avals = parts.outs(closed.out_avals)
    carry_nz, y_nz = map(tuple, parts.outs(cts_nz))
    carry_nz = tuple([nz and is_linear for nz, is_linear in zip(carry_nz, lin_carry, strict=True)])
    const_nz: Flags = (False,) * sum(lin_consts)
    x_nz: Flags = ()
    pulled_nz: Flags = ()
    known_avals = [[a for a, is_linear in zip(*group, strict=True) if not is_linear]
                   for group in ((const_avals, lin_consts), (x_avals, lin_xs), (carry_avals, lin_carry))]  # fmt: skip

    def fun(*args: Any) -> list[Any]:
        nonlocal pulled_nz
        rest = iter(args)
        known_consts = [next(rest) for _ in known_avals[0]]
        sums = [next(rest) if nz else ZERO for nz in const_nz]
        ct_carry = [next(rest) if nz else ZERO for nz in carry_nz]
        known_xs = [next(rest) for _ in known_avals[1]]
        known_carry = [next(rest) for _ in known_avals[2]]
        ct_ys = [next(rest) if nz else ZERO for nz in y_nz]

        def of_linear_operands(*operands: Any) -> list[Any]:
            free, known = iter(operands), iter([*known_consts, *known_carry, *known_xs])
            return call_jaxpr(closed)(*[next(free) if is_linear else next(known) for is_linear in linear])

        function, _ = linear_function(of_linear_operands, linear_avals)
        pulled = function.transpose([*ct_carry, *ct_ys])
        pulled_nz = tuple([c is not ZERO for c in pulled])
        n, m = sum(lin_consts), sum(lin_consts) + sum(lin_carry)
        to_consts = [c if s is ZERO else s if c is ZERO else add(s, c) for s, c in zip(sums, pulled[:n], strict=True)]
        spread = iter(pulled[n:m])
        to_carry = [
            instantiate_zeros(a.strong()) if c is ZERO else c
            for c, a, nz in zip([next(spread) if k else ZERO for k in lin_carry], carry_avals, carry_nz, strict=True)
            if nz
        ]
        return [*[c for c in to_consts if c is not ZERO], *to_carry, *[c for c in pulled[m:] if c is not ZERO]]

    while True:
        sums = [a.strong() for a in chosen(chosen(const_avals, lin_consts), const_nz)]
        cts = [a.strong() for a in chosen(carry_avals, carry_nz)]
        ct_ys = [a.strong() for a in chosen(y_avals, y_nz)]
        derived = stage(
            fun, [*known_avals[0], *sums, *cts, *known_avals[1], *known_avals[2], *ct_ys],
            f"transpose({closed.jaxpr.name})",
        )  # fmt: skip
        n, m = sum(lin_consts), sum(lin_consts) + sum(lin_carry)
        spread = iter(pulled_nz[n:m])
        grown_carry = either(carry_nz, [next(spread) if is_linear else False for is_linear in lin_carry])
        grown_consts = either(const_nz, pulled_nz[:n])
        if grown_carry == carry_nz and grown_consts == const_nz:
            x_nz = pulled_nz[m:]
            return *without_constants(derived), const_nz, carry_nz, x_nz
        carry_nz, const_nz = grown_carry, grown_consts


def _transpose(
    cts: Sequence[Any],
    *operands: Any,
    jaxpr: ClosedJaxpr,
    length: int,
    reverse: bool,
    unroll: int,
    n_consts: int,
    n_carry: int,
    checkpoint: tuple[int, ...] = (),
) -> Any:
    parts = _Parts(n_consts, n_carry)
    given = tuple([type(x) is Linear for x in operands])
    lin_consts, _, lin_xs = parts.ins(given)
    lin_carry = linear_carries(jaxpr, given, n_consts, n_carry)
    linear = (*lin_consts, *lin_carry, *lin_xs)
    consts, init, xs = parts.ins(operands)
    known_consts = [x for x in consts if type(x) is not Linear]
    known_xs = [x for x in xs if type(x) is not Linear]
    steps: dict[str, Any] = {"length": length, "unroll": unroll}
    known_init = [x for x, is_linear in zip(init, lin_carry, strict=True) if not is_linear]
    known_carry: Sequence[Any] = []
    if known_init:
        body = _known_body(jaxpr, linear, n_consts, n_carry)
        counts = {"n_consts": len(known_consts), "n_carry": len(known_init)}
        sweep = scan_p.bind(*known_consts, *known_init, *known_xs, jaxpr=body, reverse=reverse, **counts, **steps)
        known_carry = sweep[len(known_init) :]
    nonzero = tuple([c is not ZERO for c in cts])
    extra, body, const_nz, carry_nz, x_nz = transposed_body(jaxpr, linear, nonzero, n_consts, n_carry)
    const_avals, carry_avals, _ = parts.ins(jaxpr.in_avals)
    ct_carry, ct_ys = parts.outs(cts)
    sums = [instantiate_zeros(a.strong()) for a in chosen(chosen(const_avals, lin_consts), const_nz)]
    starts = [
        instantiate_zeros(a.strong()) if c is ZERO else c
        for c, a, nz in zip(ct_carry, carry_avals, carry_nz, strict=True)
        if nz
    ]
    backwards = [*extra, *known_consts, *sums, *starts, *known_xs, *known_carry, *[c for c in ct_ys if c is not ZERO]]
    counts = {"n_consts": len(extra) + len(known_consts), "n_carry": len(sums) + len(starts)}
    results = iter(scan_p.bind(*backwards, jaxpr=body, reverse=not reverse, **counts, **steps))
    to_consts = iter([next(results) if nz else ZERO for nz in const_nz])
    to_carry = [next(results) if nz else ZERO for nz in carry_nz]
    to_xs = iter([next(results) if nz else ZERO for nz in x_nz])
    return [
        *[next(to_consts) if is_linear else None for is_linear in lin_consts],
        *[c if type(x) is Linear else None for c, x in zip(to_carry, init, strict=True)],
        *[next(to_xs) if is_linear else None for is_linear in lin_xs],
    ]


# batching ---------------------------------------------------------------------------------------------------------


@per_jaxpr
def _batched_body(
    closed: ClosedJaxpr, size: int, dims: tuple[int | None, ...], axis_name: Any, n_consts: int, n_carry: int
) -> Any:
    """The body over batched operands, its constants, and which carries and ys are batched, along axis 0."""
    parts = _Parts(n_consts, n_carry)
    const_dims, carry_dims, x_dims = parts.ins(dims)
    carry_batched: Flags = tuple([d is not None for d in carry_dims])
    out_batched: Flags = ()

    def fun(*args: Any) -> list[Any]:
        nonlocal out_batched
        now = [*const_dims, *[0 if b else None for b in carry_batched], *x_dims]
        outs, out_dims = batch_subtrace(call_jaxpr(closed), size, args, now, axis_name)
        out_batched = tuple([d is not None for d in out_dims])
        front = either(out_batched, (*carry_batched, *[False] * (len(outs) - n_carry)))
        return [move_batch(size, x, d, 0) if b else x for x, d, b in zip(outs, out_dims, front, strict=True)]

    while True:
        now = [*const_dims, *[0 if b else None for b in carry_batched], *x_dims]
        avals = [grown(a, d, size) for a, d in zip(closed.in_avals, now, strict=True)]
        derived = stage(fun, avals, f"vmap({closed.jaxpr.name})")
        grown_carry = either(carry_batched, out_batched[:n_carry])
        if grown_carry == carry_batched:
            return *without_constants(derived), carry_batched, out_batched[n_carry:]
        carry_batched = grown_carry


def _batch(
    axis: tuple[int, Any],
    args: Sequence[Any],
    dims: Sequence[int | None],
    *,
    jaxpr: ClosedJaxpr,
    n_consts: int,
    n_carry: int,
    **params: Any,
) -> Any:
    size, axis_name = axis
    parts = _Parts(n_consts, n_carry)
    (consts, carry, xs), (const_dims, carry_dims, x_dims) = parts.ins(args), parts.ins(dims)
    xs = [moveaxis(x, 0, 1) if d == 0 else x for x, d in zip(xs, x_dims, strict=True)]
    slice_dims = [None if d is None else max(d - 1, 0) for d in x_dims]
    inner = (*const_dims, *[None if d is None else 0 for d in carry_dims], *slice_dims)
    extra, derived, carry_batched, y_batched = _batched_body(jaxpr, size, inner, axis_name, n_consts, n_carry)
    carry = [move_batch(size, x, d, 0) if b else x for x, d, b in zip(carry, carry_dims, carry_batched, strict=True)]
    counts = {"n_consts": len(extra) + n_consts, "n_carry": n_carry}
    outs = scan_p.bind(*extra, *consts, *carry, *xs, jaxpr=derived, **counts, **params)
    return outs, [*[0 if b else None for b in carry_batched], *[1 if b else None for b in y_batched]]


scan_p = Primitive(
    "scan",
    impl=_impl,
    shape=_shape,
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    lower=Scan(),
    multiple_results=True,
    linearize=_linearize,
    forward=_forward,
    needs_axis=True,
)
