"""``checkpoint``: keep little for the backward pass, and compute the rest again there.

Linearized, a checkpointed call becomes two: the forward one gives, beside its results, the values that the policy
keeps; the linear one has these and the inputs as operands, computes from them what else the derivative needs, and
applies it. Both are checkpointed calls again, so transposition, batching and higher derivatives are those of any call.
A linear one is ``differentiated``: compiled, its operands pass an optimization barrier, since what it computes would
otherwise be merged with the same computation in the forward pass, and be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

from .. import tree
from ..core.avals import aval_of
from ..core.jaxpr import ClosedJaxpr, Jaxpr
from ..core.lowering import Call
from ..core.primitive import ZERO, Linear, Primitive
from ..core.staging import stage
from ..record import record
from ..transforms.flat import (
    FlatFunction,
    check_arguments,
    check_callable,
    function_name,
    own_all,
    static_positions,
    wraps,
)
from . import live
from . import split as halves
from .derived import (
    batched_jaxpr,
    call_jaxpr,
    closed_over,
    jvp_jaxpr,
    linearized_jaxpr,
    per_jaxpr,
    transposed_jaxpr,
    without_constants,
)
from .policies import Policy, nothing_saveable

__all__ = ["checkpoint", "checkpoint_p"]


def _impl(*args: Any, jaxpr: ClosedJaxpr, **params: Any) -> Any:
    return call_jaxpr(jaxpr)(*args)


def _forward(primals: Sequence[Any], tangents: Sequence[Any], *, jaxpr: ClosedJaxpr, **params: Any) -> Any:
    derived, out_nonzero = jvp_jaxpr(jaxpr, tuple([t is not ZERO for t in tangents]))
    extra, program = without_constants(derived)
    given = [t for t in tangents if t is not ZERO]
    results = checkpoint_p.bind(*extra, *primals, *given, jaxpr=program, **params)
    n_outs = len(out_nonzero)
    rest = iter(results[n_outs:])
    return results[:n_outs], [next(rest) if nz else ZERO for nz in out_nonzero]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
    return _forward(primals, tangents, **params)[1]


@record(frozen=True)
class _Linearized:
    """``first``: ``ins -> (outs, kept)``. ``linear``: ``(those ins that are read, kept, tangents) -> tangents``; both
    have constants as leading operands. ``reads`` says which ins."""

    extra: tuple[Any, ...]
    first: ClosedJaxpr
    reads: list[bool]
    linear_extra: tuple[Any, ...]
    linear: ClosedJaxpr
    out_nonzero: tuple[bool, ...]


@per_jaxpr
def _linearized(closed: ClosedJaxpr, floats: tuple[bool, ...], policy: Policy) -> _Linearized:
    lin = linearized_jaxpr(closed, floats)
    n_ins, n_outs = len(closed.in_avals), lin.n_outs
    divided = halves.split(lin.primal, policy)
    again, results = divided.again, divided.again.jaxpr.outvars
    residuals = tuple([again.jaxpr.invars[k] if k < n_ins else results[k - n_ins] for k in lin.sources])
    jaxpr = again.jaxpr
    wanted = ClosedJaxpr(Jaxpr(jaxpr.constvars, jaxpr.invars, jaxpr.eqns, residuals, jaxpr.name), again.consts)
    again, ins = live.part_of(wanted, [True] * len(residuals))
    n_results = len(lin.primal.out_avals)
    kept = ins[n_ins:]
    first, _ = live.part_of(divided.first, [k < n_outs for k in range(n_results)] + kept, keep=n_ins)
    n_known = len(again.in_avals)

    def linear(*args: Any) -> list[Any]:
        return call_jaxpr(lin.linear)(*call_jaxpr(again)(*args[:n_known]), *args[n_known:])

    tangents = lin.linear.in_avals[len(residuals) :]
    staged = stage(linear, [*again.in_avals, *tangents], f"linear({closed.jaxpr.name})")
    return _Linearized(*without_constants(first), ins[:n_ins], *without_constants(staged), lin.out_nonzero)


def _linearize(
    nonzero: Sequence[bool],
    primals: Sequence[Any],
    *,
    jaxpr: ClosedJaxpr,
    policy: Policy | None,
    prevent_cse: bool,
    differentiated: bool,
) -> Any:
    floats = tuple([nz and a.dtype.kind in "fc" for nz, a in zip(nonzero, jaxpr.in_avals, strict=True)])
    lin = _linearized(jaxpr, floats, policy or nothing_saveable)
    params: dict[str, Any] = {"policy": policy, "prevent_cse": prevent_cse}
    results = checkpoint_p.bind(*lin.extra, *primals, jaxpr=lin.first, differentiated=differentiated, **params)
    n_outs = len(lin.out_nonzero)
    known = [*lin.linear_extra, *compress(primals, lin.reads), *results[n_outs:]]
    used = list(compress(floats, nonzero))

    def apply(*tangents: Any) -> list[Any]:
        given = compress(tangents, used)
        rest = iter(checkpoint_p.bind(*known, *given, jaxpr=lin.linear, differentiated=True, **params))
        return [next(rest) if nz else ZERO for nz in lin.out_nonzero]

    return results[:n_outs], apply


def _transpose(cts: Sequence[Any], *operands: Any, jaxpr: ClosedJaxpr, **params: Any) -> Any:
    linear = tuple([type(x) is Linear for x in operands])
    derived, out_nonzero = transposed_jaxpr(jaxpr, linear, tuple([c is not ZERO for c in cts]))
    extra, program = without_constants(derived)
    known = [x for x in operands if type(x) is not Linear]
    given = [c for c in cts if c is not ZERO]
    results = iter(checkpoint_p.bind(*extra, *known, *given, jaxpr=program, **params))
    flags = iter(out_nonzero)
    return [(next(results) if next(flags) else ZERO) if is_linear else None for is_linear in linear]


def _batch(
    axis: tuple[int, Any], args: Sequence[Any], dims: Sequence[int | None], *, jaxpr: ClosedJaxpr, **params: Any
) -> Any:
    size, axis_name = axis
    derived, out_dims = batched_jaxpr(jaxpr, size, tuple(dims), axis_name)
    extra, program = without_constants(derived)
    return checkpoint_p.bind(*extra, *args, jaxpr=program, **params), out_dims


checkpoint_p = Primitive(
    "checkpoint",
    impl=_impl,
    shape=lambda *avals, jaxpr, **params: tuple(jaxpr.out_avals),
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    lower=Call(lambda params: params["differentiated"] and params["prevent_cse"]),
    multiple_results=True,
    linearize=_linearize,
    forward=_forward,
    needs_axis=True,
)
live.RULES[checkpoint_p] = live.of_call
halves.RULES[checkpoint_p] = halves.of_call


def checkpoint(
    fun: Callable[..., Any] | None = None,
    *,
    prevent_cse: bool = True,
    policy: Policy | None = None,
    static_argnums: Any = (),
) -> Callable[..., Any]:
    """``fun``, whose intermediate values are not kept for reverse mode but computed again when they are needed.

    Args:
        fun: any function of arrays. Without it, what comes back is a decorator: ``@checkpoint(policy=...)``.
        prevent_cse: under `jit`, keep the second computation apart from the first, which a compiler would otherwise
            see to be the same. Where it is not needed (in a body of `lax.scan`), leaving it out lets more be fused.
        policy: which values are kept nevertheless, one of ``checkpoint_policies`` or a function of that kind:
            ``policy(primitive, *avals, **params)``, true if the results of that operation are to be kept. With None,
            the inputs alone.
        static_argnums: positions of arguments that are no arrays.

    >>> from funcgrad import checkpoint_policies, grad
    >>> grad(checkpoint(lambda x: x**3))(2.0)
    np.float64(12.0)
    >>> @checkpoint(policy=checkpoint_policies.dots_saveable)
    ... def layer(w, x):
    ...     return (x @ w) ** 2
    """
    if fun is None:
        options: dict[str, Any] = {"prevent_cse": prevent_cse, "policy": policy, "static_argnums": static_argnums}
        return lambda fun: checkpoint(fun, **options)
    check_callable(fun, "checkpoint")
    if policy is not None and not callable(policy):
        raise TypeError(
            f"checkpoint: policy must be a function, such as checkpoint_policies.dots_saveable, found {policy!r}"
        )
    params = {"policy": policy, "prevent_cse": bool(prevent_cse), "differentiated": False}

    @wraps(fun, "checkpoint", "Takes the same arguments.")
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        fixed = static_positions(static_argnums, len(args), "checkpoint")
        dynamic = [x for p, x in enumerate(args) if p not in fixed]
        leaves, in_tree = tree.flatten((tuple(dynamic), kwargs))
        check_arguments(fun, [None if p in fixed else x for p, x in enumerate(args)], kwargs, leaves, "checkpoint")

        def partial(*xs: Any, **kws: Any) -> Any:
            rest = iter(xs)
            return fun(*[args[p] if p in fixed else next(rest) for p in range(len(args))], **kws)

        partial.__name__ = function_name(fun)
        flat = FlatFunction(partial, in_tree)
        closed = stage(flat, [aval_of(x) for x in leaves], flat.__name__)
        outs = checkpoint_p.bind(*closed.consts, *leaves, jaxpr=closed_over(closed.consts, closed), **params)
        return flat.out_tree.unflatten(own_all(outs, leaves))

    return checkpointed
