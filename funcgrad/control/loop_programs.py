"""The programs of a while loop's transforms: body and condition with tangents, with a batch axis, with a mask.

Each is worked out once per jaxpr. Which carries take part is found by iterating to a fixpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.avals import ShapedArray
from ..core.jaxpr import ClosedJaxpr, Jaxpr, Var
from ..core.primitive import ZERO
from ..core.staging import stage
from ..ops.elementwise import bitwise_and, select
from ..ops.reduce import reduce_or
from ..ops.structural import broadcast_in_dim, shape_of
from ..record import record
from ..transforms.batch import batch_subtrace, move_batch
from ..transforms.forward import instantiate, jvp_flat
from ..transforms.linear import linearize_flat
from .derived import call_jaxpr, grown, per_jaxpr, per_jaxprs, without_constants
from .scan_programs import chosen, either

__all__ = ["Batched", "batched_loop", "jvp_body", "linearized", "masked_loop", "pushed", "with_unused_inputs"]

Flags = tuple[bool, ...]


# forward mode -----------------------------------------------------------------------------------------------------


def pushed(closed: ClosedJaxpr, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    return jvp_flat(call_jaxpr(closed), primals, tangents)


def linearized(closed: ClosedJaxpr, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """As `pushed`, with operations that compute primals and those that compute tangents apart."""
    outs, linear = linearize_flat(call_jaxpr(closed), primals, [t is not ZERO for t in tangents])
    return outs, linear.apply([t for t in tangents if t is not ZERO])


@per_jaxpr
def jvp_body(closed: ClosedJaxpr, nonzero: Flags, n_consts: int, push: Callable[..., Any]) -> Any:
    """``(consts, their tangents, carry, its tangents) -> (carry, tangents)``, its constants, and which carries have
    tangents."""
    const_nz, carry_nz = nonzero[:n_consts], nonzero[n_consts:]
    const_avals, carry_avals = closed.in_avals[:n_consts], closed.in_avals[n_consts:]
    out_nz: Flags = ()

    def fun(*args: Any) -> list[Any]:
        nonlocal out_nz
        rest = iter(args)
        primals, tangents = [], []
        for avals, flags in ((const_avals, const_nz), (carry_avals, carry_nz)):
            primals += [next(rest) for _ in avals]
            tangents += [next(rest) if nz else ZERO for nz in flags]
        outs, t_outs = push(closed, primals, tangents)
        out_nz = tuple([t is not ZERO for t in t_outs])
        wanted = either(carry_nz, out_nz)
        return [*outs, *[instantiate(t, o) for t, o, nz in zip(t_outs, outs, wanted, strict=True) if nz]]

    while True:
        avals = [*const_avals, *[a.strong() for a in chosen(const_avals, const_nz)]]
        avals += [*carry_avals, *[a.strong() for a in chosen(carry_avals, carry_nz)]]
        derived = stage(fun, avals, f"jvp({closed.jaxpr.name})")
        grown_nz = either(carry_nz, out_nz)
        if grown_nz == carry_nz:
            return *without_constants(derived), carry_nz
        carry_nz = grown_nz


@per_jaxpr
def with_unused_inputs(closed: ClosedJaxpr, avals: tuple[ShapedArray, ...]) -> ClosedJaxpr:
    """The jaxpr with more inputs at the end, which it does not read."""
    jaxpr = closed.jaxpr
    invars = (*jaxpr.invars, *[Var(a) for a in avals])
    return ClosedJaxpr(Jaxpr(jaxpr.constvars, invars, jaxpr.eqns, jaxpr.outvars, jaxpr.name), closed.consts)


# batching ---------------------------------------------------------------------------------------------------------


@per_jaxpr
def _batched_body(
    closed: ClosedJaxpr, size: int, dims: tuple[int | None, ...], all_carries: bool, axis_name: Any, n_consts: int
) -> Any:
    """The body over batched operands, its constants, and which carries are batched, along axis 0."""
    const_dims = dims[:n_consts]
    jaxpr = closed.jaxpr
    changing = [a is not v for a, v in zip(jaxpr.outvars, jaxpr.invars[n_consts:], strict=True)]
    batched: Flags = tuple(
        [d is not None or (all_carries and c) for d, c in zip(dims[n_consts:], changing, strict=True)]
    )
    out_batched: Flags = ()

    def fun(*args: Any) -> list[Any]:
        nonlocal out_batched
        outs, out_dims = batch_subtrace(call_jaxpr(closed), size, args, now, axis_name)
        out_batched = tuple([d is not None for d in out_dims])
        front = either(batched, out_batched)
        return [move_batch(size, x, d, 0) if b else x for x, d, b in zip(outs, out_dims, front, strict=True)]

    while True:
        now = [*const_dims, *[0 if b else None for b in batched]]
        avals = [grown(a, d, size) for a, d in zip(closed.in_avals, now, strict=True)]
        derived = stage(fun, avals, f"vmap({jaxpr.name})")
        grown_flags = either(batched, out_batched)
        if grown_flags == batched:
            return *without_constants(derived), batched
        batched = grown_flags


@per_jaxpr
def _batched_condition(closed: ClosedJaxpr, size: int, dims: tuple[int | None, ...], axis_name: Any) -> Any:
    """The condition over batched operands, its constants, and whether its result is batched."""
    dim: int | None = None

    def fun(*args: Any) -> list[Any]:
        nonlocal dim
        outs, (dim,) = batch_subtrace(call_jaxpr(closed), size, args, dims, axis_name)
        return outs

    avals = [grown(a, d, size) for a, d in zip(closed.in_avals, dims, strict=True)]
    derived = stage(fun, avals, f"vmap({closed.jaxpr.name})")
    return *without_constants(derived), dim is not None


@record(frozen=True)
class Batched:
    """A batched loop: its programs, the constants they want in front of the given ones, where the carries have their
    batch axis, and whether the condition differs along the batch."""

    cond_extra: tuple[Any, ...]
    condition: ClosedJaxpr
    extra: tuple[Any, ...]
    body: ClosedJaxpr
    front: tuple[int | None, ...]
    differs: bool


def batched_loop(
    axis: tuple[int, Any],
    dims: Sequence[int | None],
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    cond_nconsts: int,
    body_nconsts: int,
) -> Batched:
    size, axis_name = axis
    cond_dims, now = tuple(dims[:cond_nconsts]), tuple(dims[cond_nconsts:])
    differs = False
    while True:
        extra, body, batched = _batched_body(body_jaxpr, size, now, differs, axis_name, body_nconsts)
        front = tuple([0 if b else None for b in batched])
        cond_extra, condition, cond_batched = _batched_condition(cond_jaxpr, size, (*cond_dims, *front), axis_name)
        if cond_batched == differs:
            return Batched(cond_extra, condition, extra, body, front, differs)
        differs = True  # then more carries are batched


@per_jaxprs
def masked_loop(programs: tuple[ClosedJaxpr, ...], n_cond_consts: int) -> tuple[ClosedJaxpr, ClosedJaxpr]:
    """A batched loop whose carry starts with the flags of those that still run, which alone take a step."""
    condition, body = programs
    cond_avals, carry_avals = condition.in_avals[:n_cond_consts], condition.in_avals[n_cond_consts:]
    const_avals = body.in_avals[: len(body.in_avals) - len(carry_avals)]
    (flags,) = condition.out_avals
    n_consts = n_cond_consts + len(const_avals)

    def masked(*args: Any) -> list[Any]:
        cond_consts, consts = args[:n_cond_consts], args[n_cond_consts:n_consts]
        going, carry = args[n_consts], args[n_consts + 1 :]
        stepped = call_jaxpr(body)(*consts, *carry)
        kept = [x if x is y else _where(going, x, y) for x, y in zip(stepped, carry, strict=True)]
        return [bitwise_and(going, call_jaxpr(condition)(*cond_consts, *kept)[0]), *kept]

    any_going = stage(lambda going, *carry: [reduce_or(going, (0,))], [flags, *carry_avals], condition.jaxpr.name)
    step = stage(masked, [*cond_avals, *const_avals, flags, *carry_avals], body.jaxpr.name)
    return any_going, step


def _where(flags: Any, x: Any, y: Any) -> Any:
    """``x`` for the elements of the batch whose flag is set; both have the batch axis in front."""
    shape = shape_of(x)
    return select(flags if len(shape) == 1 else broadcast_in_dim(flags, shape, (0,)), x, y)
