"""``while_loop``: a body runs as long as a condition holds.

``while_p`` has operands ``(*cond_consts, *body_consts, *carry)``; ``cond_jaxpr`` takes ``(cond_consts, carry)`` to a
boolean scalar, ``body_jaxpr`` takes ``(body_consts, carry)`` to the next carry. Forward mode carries tangents along.
Batched over a condition that differs along the batch, the loop runs until it holds for none, and a carry whose own
condition does not hold keeps its value.

The linear program of a while loop is a while loop again: the one of forward mode, linear in the tangents it carries.
Its transpose is in ``control.reverse``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..core.avals import ShapedArray
from ..core.jaxpr import ClosedJaxpr, Jaxpr, Var, dependent
from ..core.lowering import Inline
from ..core.primitive import ZERO, Linear, NotLinear, Primitive, not_linear
from ..core.staging import stage
from ..ops.create import instantiate_zeros
from ..ops.elementwise import bitwise_and, select
from ..ops.reduce import reduce_or
from ..ops.structural import broadcast_in_dim, shape_of
from ..transforms.batch import batch_subtrace, move_batch
from ..transforms.forward import instantiate, jvp_flat
from ..transforms.linear import linear_function, linearize_flat
from .body import same_type
from .derived import call_jaxpr, grown, linearize_by_running, per_jaxpr, per_jaxprs, without_constants
from .interpret import CONTROL_FLOW, execute, interpreter, typed_results
from .reverse import backward, backward_avals, backward_nonzero
from .scan import chosen, either, linear_carries

__all__ = ["while_p"]

T = TypeVar("T")
Flags = tuple[bool, ...]


@dataclass(frozen=True)
class Parts:
    """How the operands of a while loop divide."""

    cond_nconsts: int
    body_nconsts: int

    def ins(self, items: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        end = self.cond_nconsts + self.body_nconsts
        return items[: self.cond_nconsts], items[self.cond_nconsts : end], items[end:]


# meaning and type -------------------------------------------------------------------------------------------------


def _interpret(
    *args: Any, cond_jaxpr: ClosedJaxpr, body_jaxpr: ClosedJaxpr, cond_nconsts: int, body_nconsts: int
) -> Sequence[Any]:
    cond_consts, body_consts, carry = Parts(cond_nconsts, body_nconsts).ins(args)
    condition, step = interpreter(cond_jaxpr), interpreter(body_jaxpr)
    while condition(*cond_consts, *carry)[0]:
        carry = step(*body_consts, *carry)
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
    *avals: ShapedArray, cond_jaxpr: ClosedJaxpr, body_jaxpr: ClosedJaxpr, cond_nconsts: int, body_nconsts: int
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


def _pushed(closed: ClosedJaxpr, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    return jvp_flat(call_jaxpr(closed), primals, tangents)


def _linearized(closed: ClosedJaxpr, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """As `_pushed`, with operations that compute primals and those that compute tangents apart."""
    outs, linear = linearize_flat(call_jaxpr(closed), primals, [t is not ZERO for t in tangents])
    return outs, linear.apply([t for t in tangents if t is not ZERO])


@per_jaxpr
def _jvp_body(closed: ClosedJaxpr, nonzero: Flags, n_consts: int, push: Callable[..., Any]) -> Any:
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


def _forward(
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    cond_nconsts: int,
    body_nconsts: int,
    push: Callable[..., Any] = _pushed,
) -> Any:
    parts = Parts(cond_nconsts, body_nconsts)
    (cond_consts, consts, carry), (_, t_consts, t_carry) = parts.ins(primals), parts.ins(tangents)
    nonzero = tuple([t is not ZERO for t in (*t_consts, *t_carry)])
    extra, derived, carry_nz = _jvp_body(body_jaxpr, nonzero, body_nconsts, push)
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
    )
    rest = iter(results[len(carry) :])
    return results[: len(carry)], [next(rest) if nz else ZERO for nz in carry_nz]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
    return _forward(primals, tangents, **params)[1]


def _linearize(nonzero: Sequence[bool], primals: Sequence[Any], **params: Any) -> Any:
    avals = _operand_avals(params["cond_jaxpr"], params["body_jaxpr"], params["cond_nconsts"])
    floats = [nz and a.dtype.kind in "fc" for nz, a in zip(nonzero, avals, strict=True)]
    outs = while_p.bind(*primals, **params)

    def apply(*tangents: Any) -> list[Any]:
        rest = iter(tangents)
        given = [next(rest) if nz else ZERO for nz in nonzero]
        given = [t if is_float else ZERO for t, is_float in zip(given, floats, strict=True)]
        ts: list[Any] = _forward(primals, given, **params, push=_linearized)[1]
        return ts

    return outs, apply


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


@dataclass(frozen=True)
class _Batched:
    """A batched loop: its programs, the constants they want in front of the given ones, where the carries have their
    batch axis, and whether the condition differs along the batch."""

    cond_extra: tuple[Any, ...]
    condition: ClosedJaxpr
    extra: tuple[Any, ...]
    body: ClosedJaxpr
    front: tuple[int | None, ...]
    differs: bool


def _batched(
    axis: tuple[int, Any],
    dims: Sequence[int | None],
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    cond_nconsts: int,
    body_nconsts: int,
) -> _Batched:
    size, axis_name = axis
    cond_dims, now = tuple(dims[:cond_nconsts]), tuple(dims[cond_nconsts:])
    differs = False
    while True:
        extra, body, batched = _batched_body(body_jaxpr, size, now, differs, axis_name, body_nconsts)
        front = tuple([0 if b else None for b in batched])
        cond_extra, condition, cond_batched = _batched_condition(cond_jaxpr, size, (*cond_dims, *front), axis_name)
        if cond_batched == differs:
            return _Batched(cond_extra, condition, extra, body, front, differs)
        differs = True  # then more carries are batched


def _batch(
    axis: tuple[int, Any],
    args: Sequence[Any],
    dims: Sequence[int | None],
    *,
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    cond_nconsts: int,
    body_nconsts: int,
) -> Any:
    parts = Parts(cond_nconsts, body_nconsts)
    found = _batched(axis, dims, cond_jaxpr, body_jaxpr, cond_nconsts, body_nconsts)
    cond_consts, consts, carry = parts.ins(args)
    carry_dims = parts.ins(dims)[2]
    carry = [
        x if w is None else move_batch(axis[0], x, d, 0) for x, d, w in zip(carry, carry_dims, found.front, strict=True)
    ]
    cond_consts, consts = (*found.cond_extra, *cond_consts), (*found.extra, *consts)
    if not found.differs:
        counts = {"cond_nconsts": len(cond_consts), "body_nconsts": len(consts)}
        programs = {"cond_jaxpr": found.condition, "body_jaxpr": found.body}
        return while_p.bind(*cond_consts, *consts, *carry, **programs, **counts), found.front
    going = call_jaxpr(found.condition)(*cond_consts, *carry)[0]
    any_going, masked = _masked((found.condition, found.body), len(cond_consts))
    outs = while_p.bind(
        *cond_consts,
        *consts,
        going,
        *carry,
        cond_jaxpr=any_going,
        body_jaxpr=masked,
        cond_nconsts=0,
        body_nconsts=len(cond_consts) + len(consts),
    )
    return outs[1:], found.front


@per_jaxprs
def _masked(programs: tuple[ClosedJaxpr, ...], n_cond_consts: int) -> tuple[ClosedJaxpr, ClosedJaxpr]:
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


# transposition ------------------------------------------------------------------------------------------------------


def _transpose(
    cts: Sequence[Any],
    *operands: Any,
    cond_jaxpr: ClosedJaxpr,
    body_jaxpr: ClosedJaxpr,
    cond_nconsts: int,
    body_nconsts: int,
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
    results = iter(while_backward_p.bind(*conds, *known, *chosen(cts, nonzero), **params, **counts))
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
    lower=CONTROL_FLOW,
    multiple_results=True,
    linearize=_linearize,
    forward=_forward,
    needs_axis=True,
)


def _run_backward(*args: Any, **params: Any) -> list[Any]:
    """Operands: constants of the condition, constants and carries of the body that are not linear, cotangents."""
    linear, n_cond, n_body = params["linear"], params["cond_nconsts"], params["body_nconsts"]
    rest = iter(args)
    cond_consts = [next(rest) for _ in range(n_cond)]
    consts = [next(rest) for is_linear in linear[:n_body] if not is_linear]
    init = [next(rest) for is_linear in linear[n_body:] if not is_linear]
    return backward(while_p, cond_consts, consts, init, list(rest), **params)


def _backward_shape(*avals: ShapedArray, **params: Any) -> Any:
    of_consts, of_carry = backward_avals(
        params["body_jaxpr"], params["linear"], params["ct_nonzero"], params["body_nconsts"]
    )
    return (*of_consts, *of_carry)


def _backward_forward(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    return jvp_flat(lambda *xs: _run_backward(*xs, **params), primals, tangents)


def _backward_transpose(cts: Sequence[Any], *operands: Any, **params: Any) -> Any:
    """It is linear in the cotangents that it is given."""
    linear = [type(x) is Linear for x in operands]

    def fun(*xs: Any) -> list[Any]:
        rest = iter(xs)
        return _run_backward(
            *[next(rest) if is_linear else x for is_linear, x in zip(linear, operands, strict=True)], **params
        )

    function, _ = linear_function(fun, [x.aval for x in operands if type(x) is Linear])
    pulled = iter(function.transpose(cts))
    return [next(pulled) if is_linear else None for is_linear in linear]


def _backward_batch(axis: tuple[int, Any], args: Sequence[Any], dims: Sequence[int | None], **params: Any) -> Any:
    """The loop is batched, all that is linear included; then it is gone through backwards, all examples together."""
    cond_jaxpr, body_jaxpr, linear, nonzero = (params[k] for k in ("cond_jaxpr", "body_jaxpr", "linear", "ct_nonzero"))
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    size = axis[0]
    n_known = linear.count(False)
    known_dims = iter(dims[n_cond : n_cond + n_known])
    all_dims = [*dims[:n_cond], *[0 if is_linear else next(known_dims) for is_linear in linear]]
    found = _batched(axis, all_dims, cond_jaxpr, body_jaxpr, n_cond, n_body)
    known, known_dims = iter(args[n_cond : n_cond + n_known]), iter(dims[n_cond : n_cond + n_known])
    consts = [next(known) for is_linear in linear[:n_body] if not is_linear]
    for _ in consts:
        next(known_dims)
    init: list[Any] = []
    for is_linear, w, aval in zip(linear[n_body:], found.front, body_jaxpr.in_avals[n_body:], strict=True):
        if is_linear:
            init.append(instantiate_zeros(grown(aval.strong(), w, size)))  # not read
        else:
            x, d = next(known), next(known_dims)
            init.append(x if w is None else move_batch(size, x, d, 0))
    cts = [move_batch(size, x, d, 0) for x, d in zip(args[n_cond + n_known :], dims[n_cond + n_known :], strict=True)]
    cond_consts = (*found.cond_extra, *args[:n_cond])
    extra = found.extra
    condition, body = found.condition, found.body
    flags: tuple[Any, ...] = ()
    const_linear, carry_linear = (*[False] * len(extra), *linear[:n_body]), linear[n_body:]
    if found.differs:
        going = call_jaxpr(condition)(*cond_consts, *init)[0]
        condition, body = _masked((condition, body), len(cond_consts))
        const_linear = (*[False] * len(cond_consts), *const_linear)
        extra, cond_consts, flags = (*cond_consts, *extra), (), (going,)
    carry = [x for x, is_linear in zip(init, carry_linear, strict=True) if not is_linear]
    more = {
        "cond_jaxpr": condition,
        "body_jaxpr": body,
        "linear": (*const_linear, *[False] * len(flags), *carry_linear),
        "ct_nonzero": (*[False] * len(flags), *nonzero),
        "cond_nconsts": len(cond_consts),
        "body_nconsts": len(const_linear),
    }
    return while_backward_p.bind(*cond_consts, *extra, *consts, *flags, *carry, *cts, **more), 0


while_backward_p = Primitive(
    "while_backward",
    impl=_run_backward,
    shape=_backward_shape,
    jvp=lambda primals, tangents, out, **params: _backward_forward(primals, tangents, **params)[1],
    transpose=_backward_transpose,
    batch=_backward_batch,
    lower=Inline(_run_backward),
    multiple_results=True,
    linearize=linearize_by_running(_run_backward),
    forward=_backward_forward,
    needs_axis=True,
)
