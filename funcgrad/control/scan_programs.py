"""The programs of a scan's transforms: what becomes of its body in forward mode, linearized, transposed, batched.

Each is worked out once per jaxpr. Which carries take part (have a tangent, a cotangent, a batch axis) is found by
iterating to a fixpoint.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

from ..core.jaxpr import ClosedJaxpr, Var, dependent
from ..core.primitive import ZERO
from ..core.staging import stage
from ..ops.create import instantiate_zeros
from ..ops.elementwise import add
from ..record import record
from ..transforms.batch import batch_subtrace, move_batch
from ..transforms.forward import instantiate, jvp_flat
from ..transforms.linear import linear_function, linearize_flat
from .derived import call_jaxpr, grown, live_jaxpr, per_jaxpr, select_program, without_constants

__all__ = [
    "Linearized",
    "Parts",
    "batched_body",
    "chosen",
    "either",
    "jvp_body",
    "known_body",
    "linear_carries",
    "linearized_body",
    "transposed_body",
]

T = TypeVar("T")
Flags = tuple[bool, ...]


@record(frozen=True)
class Parts:
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


# forward mode -----------------------------------------------------------------------------------------------------


@per_jaxpr
def jvp_body(closed: ClosedJaxpr, nonzero: Flags, n_consts: int, n_carry: int) -> Any:
    """``(consts, their tangents, carry, its tangents, xs, their tangents) -> (carry, tangents, ys, tangents)``, its
    constants, and which carries and ys have tangents."""
    parts = Parts(n_consts, n_carry)
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


# linearization ----------------------------------------------------------------------------------------------------


@record(frozen=True)
class Linearized:
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
def linearized_body(closed: ClosedJaxpr, nonzero: Flags, n_consts: int, n_carry: int) -> Linearized:
    parts = Parts(n_consts, n_carry)
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
    return Linearized(
        *without_constants(primal),
        select_program(staged, range(n_consts), invariant),
        fixed,
        stacked,
        *without_constants(linear),
        carry_nz,
        found["out_nz"][n_carry:],
    )


def _residual_sources(staged: ClosedJaxpr, residuals: Sequence[Any], n_outs: int, parts: Parts) -> Any:
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
    parts: Parts,
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


# transposition ----------------------------------------------------------------------------------------------------


@per_jaxpr
def linear_carries(closed: ClosedJaxpr, linear: Flags, n_consts: int, n_carry: int) -> Flags:
    """Which carries depend on linear operands."""
    parts = Parts(n_consts, n_carry)
    consts, carry, xs = parts.ins(linear)
    while True:
        found = dependent(closed.jaxpr, [*consts, *carry, *xs])
        grown_flags = either(carry, [a in found for a in closed.jaxpr.outvars[:n_carry]])
        if grown_flags == tuple(carry):
            return grown_flags
        carry = grown_flags


@per_jaxpr
def known_body(closed: ClosedJaxpr, linear: Flags, n_consts: int, n_carry: int) -> ClosedJaxpr:
    """The part of the body that computes the carries that are not linear; its ys are these at the start of a step."""
    invars = closed.jaxpr.invars
    carry = [k for k in range(n_carry) if not linear[n_consts + k]]
    outs = [*[closed.jaxpr.outvars[k] for k in carry], *[invars[n_consts + k] for k in carry]]
    return select_program(closed, [k for k, is_linear in enumerate(linear) if not is_linear], outs)


@per_jaxpr
def transposed_body(closed: ClosedJaxpr, linear: Flags, cts_nz: Flags, n_consts: int, n_carry: int) -> Any:
    """``(known consts; sums of the cotangents of consts, cotangents of the carry; known xs, known carries, cotangents
    of ys) -> (sums, cotangents of the carry; cotangents of xs)``, its constants, and which cotangents there are."""
    parts = Parts(n_consts, n_carry)
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


# batching ---------------------------------------------------------------------------------------------------------


@per_jaxpr
def batched_body(
    closed: ClosedJaxpr, size: int, dims: tuple[int | None, ...], axis_name: Any, n_consts: int, n_carry: int
) -> Any:
    """The body over batched operands, its constants, and which carries and ys are batched, along axis 0."""
    parts = Parts(n_consts, n_carry)
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
