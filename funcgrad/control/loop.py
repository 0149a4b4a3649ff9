"""``while_loop``: a body runs as long as a condition holds.

``while_p`` has operands ``(*cond_consts, *body_consts, *carry)``; ``cond_jaxpr`` takes ``(cond_consts, carry)`` to a
boolean scalar, ``body_jaxpr`` takes ``(body_consts, carry)`` to the next carry. Forward mode carries tangents along.
Batched over a condition that differs along the batch, the loop runs until it holds for none, and a carry whose own
condition does not hold keeps its value.

The linear program of a while loop is a while loop again: the one of forward mode, linear in the tangents it carries.
Its transpose is an operation of its own, ``while_backward_p``, which ``control.reverse`` writes out with loops. Its
derivatives are not those of what is written out: forward over reverse is reverse over forward, at any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import ClosedJaxpr, dependent
from ..core.lowering import Inline, While
from ..core.primitive import ZERO, Linear, NotLinear, Primitive, not_linear
from ..ops.create import instantiate_zeros
from ..record import record
from ..transforms.batch import batch_subtrace, move_batch
from ..transforms.forward import instantiate, jvp_flat
from ..transforms.linear import linearize_flat
from .batched_effects import refuse_io, without_checks
from .body import same_type
from .derived import call_jaxpr, grown, linearize_by_running, silent
from .interpret import execute, handed_over, interpreter, patience, typed_results
from .loop_programs import batched_loop, jvp_body, linearized, masked_loop, pushed, with_unused_inputs
from .reverse import backward, backward_avals, backward_nonzero
from .scan_programs import chosen, linear_carries

__all__ = ["while_p"]

T = TypeVar("T")
Flags = tuple[bool, ...]
Slots = tuple[int, ...]
"""The parameter ``checkpoint``, if it is given: snapshots per level and levels of ``control.reverse``."""


@record(frozen=True)
class Parts:
    """How the operands of a while loop divide."""

    cond_nconsts: int
    body_nconsts: int

    def ins(self, items: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        end = self.cond_nconsts + self.body_nconsts
        return items[: self.cond_nconsts], items[self.cond_nconsts : end], items[end:]


# meaning and type -------------------------------------------------------------------------------------------------


def _interpret(
    *args: Any,
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    cond_nconsts: int,
    body_nconsts: int,
    checkpoint: Slots = (),
) -> Sequence[Any]:
    cond_consts, body_consts, carry = Parts(cond_nconsts, body_nconsts).ins(args)
    condition, step = interpreter(cond_jaxpr), interpreter(body_jaxpr)
    left = patience(body_jaxpr)
    while condition(*cond_consts, *carry)[0]:
        carry = step(*body_consts, *carry)
        left -= 1
        if left == 0:
            counts = dict(cond_nconsts=cond_nconsts, body_nconsts=body_nconsts)
            params = dict(cond_jaxpr=cond_jaxpr, body_jaxpr=body_jaxpr, **counts)
            outs = handed_over(while_p, [*cond_consts, *body_consts, *carry], params)
            if outs is not None:
                return outs
    return carry


def _operand_avals(cond_jaxpr: ClosedJaxpr, body_jaxpr: ClosedJaxpr, cond_nconsts: int) -> list[ShapedArray]:
    return [*cond_jaxpr.in_avals[:cond_nconsts], *body_jaxpr.in_avals]


def _out_avals(body_jaxpr: ClosedJaxpr, body_nconsts: int) -> list[ShapedArray]:
    pairs = zip(body_jaxpr.in_avals[body_nconsts:], body_jaxpr.out_avals, strict=True)
    return [a.update(weak_type=a.weak_type and b.weak_type) for a, b in pairs]


def _impl(*args: Any, **params: Any) -> Any:
    avals = _operand_avals(params["cond_jaxpr"], params["body_jaxpr"], params["cond_nconsts"])
    outs = execute(while_p, _interpret, args, avals, params)
    return typed_results(outs, _out_avals(params["body_jaxpr"], params["body_nconsts"]))


def _shape(
    *avals: ShapedArray,
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    cond_nconsts: int,
    body_nconsts: int,
    checkpoint: Slots = (),
) -> Any:
    wanted = _operand_avals(cond_jaxpr, body_jaxpr, cond_nconsts)
    if len(wanted) != len(avals) or not all(map(same_type, wanted, avals)):
        raise TypeError(f"while: the body takes {wanted}, but the operands are {list(avals)}")
    ins, outs = body_jaxpr.in_avals[body_nconsts:], body_jaxpr.out_avals
    if len(ins) != len(outs) or not all(map(same_type, ins, outs)):
        raise TypeError(f"while: the body takes the carry {ins} and returns {outs}")
    if not all(map(same_type, cond_jaxpr.in_avals[cond_nconsts:], ins)):
        raise TypeError(f"while: the condition takes {cond_jaxpr.in_avals}, but the carry is {ins}")
    (result,) = cond_jaxpr.out_avals
    if result.shape != () or result.dtype.kind != "b":
        raise TypeError(f"while: the condition must give a boolean scalar, found {result}")
    return tuple(_out_avals(body_jaxpr, body_nconsts))


# forward mode -----------------------------------------------------------------------------------------------------


def _forward(
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    cond_nconsts: int,
    body_nconsts: int,
    push: Callable[..., Any] = pushed,
    **how: Any,
) -> Any:
    parts = Parts(cond_nconsts, body_nconsts)
    (cond_consts, consts, carry), (_, t_consts, t_carry) = parts.ins(primals), parts.ins(tangents)
    nonzero = tuple([t is not ZERO for t in (*t_consts, *t_carry)])
    extra, derived, carry_nz = jvp_body(body_jaxpr, nonzero, body_nconsts, push)
    t_consts = [t for t in t_consts if t is not ZERO]
    t_carry = [instantiate(t, x) for t, x, nz in zip(t_carry, carry, carry_nz, strict=True) if nz]
    carry_avals = chosen(body_jaxpr.in_avals[body_nconsts:], carry_nz)
    condition = with_unused_inputs(cond_jaxpr, tuple([a.strong() for a in carry_avals]))
    results = while_p.bind(
        *cond_consts,
        *extra,
        *consts,
        *t_consts,
        *carry,
        *t_carry,
        cond_jaxpr=condition,
        body_jaxpr=derived,
        cond_nconsts=cond_nconsts,
        body_nconsts=len(extra) + body_nconsts + len(t_consts),
        **how,
    )
    rest = iter(results[len(carry) :])
    return results[: len(carry)], [next(rest) if nz else ZERO for nz in carry_nz]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
    return _forward(primals, tangents, **params)[1]


def _linearize(nonzero: Sequence[bool], primals: Sequence[Any], **params: Any) -> Any:
    avals = _operand_avals(params["cond_jaxpr"], params["body_jaxpr"], params["cond_nconsts"])
    floats = [nz and a.dtype.kind in "fc" for nz, a in zip(nonzero, avals, strict=True)]
    outs = while_p.bind(*primals, **params)
    again = {**params, "cond_jaxpr": silent(params["cond_jaxpr"]), "body_jaxpr": silent(params["body_jaxpr"])}

    def apply(*tangents: Any) -> list[Any]:
        rest = iter(tangents)
        given = [next(rest) if nz else ZERO for nz in nonzero]
        given = [t if is_float else ZERO for t, is_float in zip(given, floats, strict=True)]
        ts: list[Any] = _forward(primals, given, **again, push=linearized)[1]
        return ts

    return outs, apply


# batching ---------------------------------------------------------------------------------------------------------


def _batch(
    axis: tuple[int, Any],
    args: Sequence[Any],
    dims: Sequence[int | None],
    *,
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    cond_nconsts: int,
    body_nconsts: int,
    **how: Any,
) -> Any:
    parts = Parts(cond_nconsts, body_nconsts)
    found = batched_loop(axis, dims, cond_jaxpr, body_jaxpr, cond_nconsts, body_nconsts)
    if found.differs:
        refuse_io((cond_jaxpr, body_jaxpr), "a while_loop", "where examples take different numbers of steps")
        counts = {"cond_nconsts": cond_nconsts, "body_nconsts": body_nconsts}
        run = without_checks(while_p, {"cond_jaxpr": cond_jaxpr, "body_jaxpr": body_jaxpr, **counts})
        if run is not None:
            return batch_subtrace(run, axis[0], args, dims, axis[1])
    cond_consts, consts, carry = parts.ins(args)
    carry_dims = parts.ins(dims)[2]
    carry = [
        x if w is None else move_batch(axis[0], x, d, 0) for x, d, w in zip(carry, carry_dims, found.front, strict=True)
    ]
    cond_consts, consts = (*found.cond_extra, *cond_consts), (*found.extra, *consts)
    if not found.differs:
        counts = {"cond_nconsts": len(cond_consts), "body_nconsts": len(consts)}
        programs = {"cond_jaxpr": found.condition, "body_jaxpr": found.body}
        return while_p.bind(*cond_consts, *consts, *carry, **programs, **counts, **how), found.front
    going = call_jaxpr(found.condition)(*cond_consts, *carry)[0]
    any_going, masked = masked_loop((found.condition, found.body), len(cond_consts))
    outs = while_p.bind(
        *cond_consts,
        *consts,
        going,
        *carry,
        cond_jaxpr=any_going,
        body_jaxpr=masked,
        cond_nconsts=0,
        body_nconsts=len(cond_consts) + len(consts),
        **how,
    )
    return outs[1:], found.front


# transposition ------------------------------------------------------------------------------------------------------


def _transpose(
    cts: Sequence[Any],
    *operands: Any,
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    cond_nconsts: int,
    body_nconsts: int,
    **how: Any,
) -> Any:
    parts = Parts(cond_nconsts, body_nconsts)
    cond_linear, const_linear, carry_linear = parts.ins([type(x) is Linear for x in operands])
    n_carry = len(carry_linear)
    in_body = linear_carries(body_jaxpr, (*const_linear, *carry_linear), body_nconsts, n_carry)
    read = dependent(cond_jaxpr.jaxpr, [*cond_linear, *in_body])
    if any([a in read for a in cond_jaxpr.jaxpr.outvars]):
        raise not_linear(while_p, NotLinear("how often it runs depends on values in which it should be linear"))
    cond_consts, consts, init = parts.ins(operands)
    linear = (*const_linear, *in_body)
    known = [x for x, is_linear in zip((*consts, *init), linear, strict=True) if not is_linear]
    nonzero = tuple([c is not ZERO and is_linear for c, is_linear in zip(cts, in_body, strict=True)])
    conds = [instantiate_zeros(x.aval) if type(x) is Linear else x for x in cond_consts]  # such a one is not read
    params = {"cond_jaxpr": cond_jaxpr, "body_jaxpr": body_jaxpr, "linear": linear, "ct_nonzero": nonzero}
    counts = {"cond_nconsts": cond_nconsts, "body_nconsts": body_nconsts}
    results = iter(while_backward_p.bind(*conds, *known, *chosen(cts, nonzero), **params, **counts, **how))
    const_nz, carry_nz = backward_nonzero(body_jaxpr, linear, nonzero, body_nconsts)
    to_consts = iter([next(results) if nz else ZERO for nz in const_nz])
    to_carry = [next(results) if nz else ZERO for nz in carry_nz]
    return [
        *[ZERO if is_linear else None for is_linear in cond_linear],
        *[next(to_consts) if is_linear else None for is_linear in const_linear],
        *[c if is_linear else None for c, is_linear in zip(to_carry, carry_linear, strict=True)],
    ]


while_p = Primitive(
    "while",
    impl=_impl,
    shape=_shape,
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    lower=While(),
    multiple_results=True,
    linearize=_linearize,
    forward=_forward,
    needs_axis=True,
)


class _Backward:
    """The operands of `while_backward_p`: constants of the condition; constants and carries of the body in which the
    loop is not linear (known ones); cotangents of linear carries, ``ct_nonzero`` of them."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.condition, self.body = params["cond_jaxpr"], params["body_jaxpr"]
        self.linear, self.ct_nonzero = params["linear"], params["ct_nonzero"]
        self.n_cond, self.n_body = params["cond_nconsts"], params["body_nconsts"]
        self.how = {k: v for k, v in params.items() if k == "checkpoint"}
        self.lin_consts, self.lin_carry = self.linear[: self.n_body], self.linear[self.n_body :]

    def split(self, items: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T], Sequence[T]]:
        """Those of the condition, known constants, known carries, and cotangents."""
        a = self.n_cond
        b = a + self.lin_consts.count(False)
        c = b + self.lin_carry.count(False)
        return items[:a], items[a:b], items[b:c], items[c:]

    def nonzero(self) -> tuple[Flags, Flags]:
        """Which linear constants, and which carries, have cotangents that are not zero."""
        return backward_nonzero(self.body, self.linear, self.ct_nonzero, self.n_body)

    def merged(self, known: Sequence[T], free: Sequence[T], flags: Flags) -> list[T]:
        """One of each: of ``free`` where it is linear, else of ``known``."""
        a, b = iter(free), iter(known)
        return [next(a) if is_linear else next(b) for is_linear in flags]


def _run_backward(*args: Any, **params: Any) -> list[Any]:
    cond_consts, consts, init, cts = _Backward(params).split(args)
    return backward(while_p, cond_consts, consts, init, cts, **params)


def _backward_shape(*avals: ShapedArray, **params: Any) -> Any:
    a = _Backward(params)
    of_consts, of_carry = backward_avals(a.body, a.linear, a.ct_nonzero, a.n_body)
    return (*of_consts, *of_carry)


def _backward_forward(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    """Forward over reverse is reverse over forward.

    Of a loop ``L(x, t)`` that is linear in ``t`` the pulled cotangent is ``L(x, .)^T ct``. The loop with tangents
    ``(t, s) -> (L(x, t), L'(x, t) dx + L(x, s))`` pulls ``(dct, ct)`` back to the tangent of that (in the place of
    ``t``), and to it itself (in the place of ``s``).
    """
    a = _Backward(params)
    cond_consts, consts, init, cts = a.split(primals)
    _, t_consts, t_init, t_cts = a.split(tangents)
    moving = [t is not ZERO for t in (*t_consts, *t_init)]
    n = len(t_consts)
    const_nz = tuple(a.merged(moving[:n], [True] * sum(a.lin_consts), a.lin_consts))
    init_nz = a.merged(moving[n:], [True] * sum(a.lin_carry), a.lin_carry)
    extra, body, carry_nz = jvp_body(a.body, (*const_nz, *init_nz), a.n_body, pushed)
    carry_avals = chosen(a.body.in_avals[a.n_body :], carry_nz)
    known_nz = [nz for nz, is_linear in zip(carry_nz, a.lin_carry, strict=True) if not is_linear]
    of_consts = (*[False] * len(extra), *a.lin_consts, *chosen(a.lin_consts, const_nz))
    given = iter(t_cts)
    moved = [next(given) if nz else ZERO for nz in a.ct_nonzero]
    more = {
        "cond_jaxpr": with_unused_inputs(a.condition, tuple([v.strong() for v in carry_avals])),
        "body_jaxpr": body,
        "linear": (*of_consts, *a.lin_carry, *chosen(a.lin_carry, carry_nz)),
        "ct_nonzero": (*[c is not ZERO for c in moved], *chosen(a.ct_nonzero, carry_nz)),
        "cond_nconsts": a.n_cond,
        "body_nconsts": len(of_consts),
        **a.how,
    }
    t_known = [instantiate(t, x) for t, x, nz in zip(t_init, init, known_nz, strict=True) if nz]
    results = iter(
        while_backward_p.bind(
            *cond_consts,
            *[*extra, *consts, *[t for t in t_consts if t is not ZERO]],
            *[*init, *t_known],
            *[*[c for c in moved if c is not ZERO], *cts],
            **more,
        )
    )
    found_consts, found_carry = _Backward(more).nonzero()
    pulled_consts = [next(results) if nz else ZERO for nz in found_consts]
    pulled_carry = [next(results) if nz else ZERO for nz in found_carry]
    half, n_carry = len(pulled_consts) // 2, len(a.lin_carry)
    spread = iter(pulled_carry[n_carry:])
    of_carry = [next(spread) if nz else ZERO for nz in carry_nz]
    wanted_consts, wanted_carry = a.nonzero()
    avals = _backward_shape(**params)
    ts = [*chosen(pulled_consts[:half], wanted_consts), *chosen(pulled_carry[:n_carry], wanted_carry)]
    outs = [*chosen(pulled_consts[half:], wanted_consts), *chosen(of_carry, wanted_carry)]
    return [instantiate_zeros(v) if x is ZERO else x for x, v in zip(outs, avals, strict=True)], ts


def _backward_linearize(nonzero: Sequence[bool], primals: Sequence[Any], **params: Any) -> Any:
    active = tuple([nz and aval_of(x).dtype.kind in "fc" for nz, x in zip(nonzero, primals, strict=True)])
    used = chosen(active, nonzero)
    outs = while_backward_p.bind(*primals, **params)
    return outs, lambda *tangents: while_second_p.bind(*primals, *chosen(tangents, used), active=active, **params)


def _backward_transpose(cts: Sequence[Any], *operands: Any, **params: Any) -> Any:
    """It is linear in the cotangents that it is given: its transpose is the loop."""
    a = _Backward(params)
    cond_consts, consts, init, given = a.split(operands)
    if any([type(x) is Linear for x in (*cond_consts, *consts, *init)]):
        raise not_linear(while_backward_p, NotLinear("it is linear in cotangents alone"))
    outs = _run_loop(a, cts, (*cond_consts, *consts, *init))
    pairs = zip(given, outs, strict=True)
    return [*[None] * (len(operands) - len(given)), *[o if type(x) is Linear else None for x, o in pairs]]


def _run_loop(a: _Backward, free: Sequence[Any], known: Sequence[Any]) -> list[Any]:
    """The loop itself: ``free`` are values (or ``ZERO``) of its linear operands that have cotangents. Results: the
    linear carries that have a cotangent."""
    cond_consts, consts, init, _ = a.split(known)
    const_nz, carry_nz = a.nonzero()
    rest = iter(free)
    lin_consts = [next(rest) if nz else ZERO for nz in const_nz]
    lin_init = chosen([next(rest) if nz else ZERO for nz in carry_nz], a.lin_carry)
    operands = [*a.merged(consts, lin_consts, a.lin_consts), *a.merged(init, lin_init, a.lin_carry)]
    avals = a.body.in_avals
    full = [instantiate_zeros(v.strong()) if x is ZERO else x for x, v in zip(operands, avals, strict=True)]
    counts = {"cond_nconsts": a.n_cond, "body_nconsts": a.n_body}
    outs = while_p.bind(*cond_consts, *full, cond_jaxpr=a.condition, body_jaxpr=a.body, **counts, **a.how)
    return chosen(outs, a.ct_nonzero)


def _backward_batch(axis: tuple[int, Any], args: Sequence[Any], dims: Sequence[int | None], **params: Any) -> Any:
    """The loop is batched, all that is linear included; then it is gone through backwards, all examples together."""
    a, size = _Backward(params), axis[0]
    cond_consts, consts, init, cts = a.split(args)
    cond_dims, const_dims, init_dims, ct_dims = a.split(dims)
    zeros: list[int | None] = [0] * sum(a.linear)
    all_dims = [*a.merged(const_dims, zeros, a.lin_consts), *a.merged(init_dims, zeros, a.lin_carry)]
    found = batched_loop(axis, [*cond_dims, *all_dims], a.condition, a.body, a.n_cond, a.n_body)
    front = [w for w, is_linear in zip(found.front, a.lin_carry, strict=True) if not is_linear]
    init = [x if w is None else move_batch(size, x, d, 0) for x, d, w in zip(init, init_dims, front, strict=True)]
    cts = [move_batch(size, x, d, 0) for x, d in zip(cts, ct_dims, strict=True)]
    cond_consts, extra = (*found.cond_extra, *cond_consts), found.extra
    condition, body = found.condition, found.body
    flags: tuple[Any, ...] = ()
    if found.differs:
        pairs = zip(a.body.in_avals[a.n_body :], found.front, a.lin_carry, strict=True)
        unread = [instantiate_zeros(grown(v.strong(), w, size)) for v, w, is_linear in pairs if is_linear]
        going = call_jaxpr(condition)(*cond_consts, *a.merged(init, unread, a.lin_carry))[0]
        condition, body = masked_loop((condition, body), len(cond_consts))
        extra, cond_consts, flags = (*cond_consts, *extra), (), (going,)
    more = {
        "cond_jaxpr": condition,
        "body_jaxpr": body,
        "linear": (*[False] * len(extra), *a.lin_consts, *[False] * len(flags), *a.lin_carry),
        "ct_nonzero": (*[False] * len(flags), *a.ct_nonzero),
        "cond_nconsts": len(cond_consts),
        "body_nconsts": len(extra) + a.n_body,
        **a.how,
    }
    return while_backward_p.bind(*cond_consts, *extra, *consts, *flags, *init, *cts, **more), 0


while_backward_p = Primitive(
    "while_backward",
    impl=_run_backward,
    shape=_backward_shape,
    jvp=lambda primals, tangents, out, **params: _backward_forward(primals, tangents, **params)[1],
    transpose=_backward_transpose,
    batch=_backward_batch,
    lower=Inline(_run_backward),
    multiple_results=True,
    linearize=_backward_linearize,
    forward=_backward_forward,
    needs_axis=True,
)


def _second(*args: Any, active: Flags, **params: Any) -> list[Any]:
    """The derivative of `while_backward_p` along tangents of its active operands."""
    n = len(active)
    rest = iter(args[n:])
    outs, ts = _backward_forward(args[:n], [next(rest) if is_active else ZERO for is_active in active], **params)
    return [instantiate(t, o) for t, o in zip(ts, outs, strict=True)]


def _second_forward(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    return jvp_flat(lambda *xs: _second(*xs, **params), primals, tangents)


def _second_transpose(cts: Sequence[Any], *operands: Any, active: Flags, **params: Any) -> Any:
    """``<w, L(x, .)^T ct> = <L(x, w), ct>``: the loop at ``w``, and its own derivative in ``x`` pulled back."""
    a, n = _Backward(params), len(active)
    _, _, _, given = a.split(operands[:n])
    n_known = n - len(given)
    outs, linear = linearize_flat(lambda *xs: _run_loop(a, cts, xs), operands[:n_known], active[:n_known])
    pulled = [*linear.transpose(given), *chosen(outs, active[n_known:])]
    return [*[None] * n, *pulled]


def _second_batch(axis: tuple[int, Any], args: Sequence[Any], dims: Sequence[int | None], **params: Any) -> Any:
    size, axis_name = axis
    return batch_subtrace(lambda *xs: _second(*xs, **params), size, args, dims, axis_name)


while_second_p = Primitive(
    "while_second",
    impl=_second,
    shape=lambda *avals, active, **params: _backward_shape(**params),
    jvp=lambda primals, tangents, out, **params: _second_forward(primals, tangents, **params)[1],
    transpose=_second_transpose,
    batch=_second_batch,
    lower=Inline(_second),
    multiple_results=True,
    linearize=linearize_by_running(_second),
    forward=_second_forward,
    needs_axis=True,
)
