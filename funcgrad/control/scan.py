"""``scan``: a loop with a known number of steps, a carry, and slices of arrays in and out.

``scan_p`` has operands ``(*consts, *carry, *xs)``; its jaxpr takes ``(consts, carry, slices of xs)`` to
``(carry, slices of ys)``. Every transform of a scan is a scan again:

- forward mode carries the tangents along;
- linearization keeps residuals. Those that vary from step to step are stacked as additional ys; what does not depend
  on the step is computed once, outside;
- transposition runs backwards, carries the cotangent of the carry, and adds up those of the consts;
- batching adds an axis to every step.

With ``checkpoint``, a plan of segments, linearization keeps less; see ``control.segments``.

What becomes of the body is in `scan_programs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray
from ..core.jaxpr import ClosedJaxpr
from ..core.lowering import Scan
from ..core.primitive import ZERO, Linear, Primitive
from ..ops.create import instantiate_zeros
from ..ops.structural import moveaxis
from ..transforms.batch import move_batch
from ..transforms.forward import instantiate
from .body import same_type
from .derived import call_jaxpr
from .interpret import execute, handed_over, interpreter, patience, typed_results
from .scan_programs import (
    Parts,
    batched_body,
    chosen,
    jvp_body,
    known_body,
    linear_carries,
    linearized_body,
    transposed_body,
)

__all__ = ["scan_p", "set_segments"]

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
    parts = Parts(n_consts, n_carry)
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


def _operand_avals(jaxpr: ClosedJaxpr, length: int, parts: Parts) -> list[ShapedArray]:
    consts, carry, xs = parts.ins(jaxpr.in_avals)
    return [*consts, *carry, *[a.update(shape=(length, *a.shape)) for a in xs]]


def _out_avals(jaxpr: ClosedJaxpr, length: int, parts: Parts) -> list[ShapedArray]:
    _, ins, _ = parts.ins(jaxpr.in_avals)
    outs, ys = parts.outs(jaxpr.out_avals)
    carry = [a.update(weak_type=a.weak_type and b.weak_type) for a, b in zip(ins, outs, strict=True)]
    return [*carry, *[ShapedArray((length, *a.shape), a.dtype) for a in ys]]


def _impl(*args: Any, **params: Any) -> Any:
    parts, length = Parts(params["n_consts"], params["n_carry"]), params["length"]
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
    parts = Parts(n_consts, n_carry)
    wanted = _operand_avals(jaxpr, length, parts)
    if len(wanted) != len(avals) or not all(map(same_type, wanted, avals)):
        raise TypeError(f"scan: the body takes {wanted}, but the operands are {list(avals)}")
    _, ins, _ = parts.ins(jaxpr.in_avals)
    outs, _ = parts.outs(jaxpr.out_avals)
    if len(ins) != len(outs) or not all(map(same_type, ins, outs)):
        raise TypeError(f"scan: the body takes the carry {list(ins)} and returns {list(outs)}")
    return tuple(_out_avals(jaxpr, length, parts))


# forward mode -----------------------------------------------------------------------------------------------------


def _forward(
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    jaxpr: ClosedJaxpr,
    n_consts: int,
    n_carry: int,
    **params: Any,
) -> Any:
    parts = Parts(n_consts, n_carry)
    nonzero = tuple([t is not ZERO for t in tangents])
    extra, derived, carry_nz, y_nz = jvp_body(jaxpr, nonzero, n_consts, n_carry)
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
    parts = Parts(n_consts, n_carry)
    floats = tuple([nz and a.dtype.kind in "fc" for nz, a in zip(nonzero, jaxpr.in_avals, strict=True)])
    lin = linearized_body(jaxpr, floats, n_consts, n_carry)
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
    parts = Parts(n_consts, n_carry)
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
        body = known_body(jaxpr, linear, n_consts, n_carry)
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
    parts = Parts(n_consts, n_carry)
    (consts, carry, xs), (const_dims, carry_dims, x_dims) = parts.ins(args), parts.ins(dims)
    xs = [moveaxis(x, 0, 1) if d == 0 else x for x, d in zip(xs, x_dims, strict=True)]
    slice_dims = [None if d is None else max(d - 1, 0) for d in x_dims]
    inner = (*const_dims, *[None if d is None else 0 for d in carry_dims], *slice_dims)
    extra, derived, carry_batched, y_batched = batched_body(jaxpr, size, inner, axis_name, n_consts, n_carry)
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
