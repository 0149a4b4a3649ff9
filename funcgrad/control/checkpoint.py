"""``checkpoint``: keep only a function's inputs for the backward pass, and compute the rest again there.

The tangent program of a checkpointed call is one linear operation, ``recompute_p``. Pushing a tangent forward is an
ordinary JVP at the kept inputs; its transpose linearizes the function anew and pulls back. Memory for time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import tree
from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import ClosedJaxpr
from ..core.lowering import Call, Inline
from ..core.primitive import ZERO, Linear, Primitive
from ..core.staging import stage
from ..transforms.batch import batch_subtrace
from ..transforms.flat import (
    FlatFunction,
    check_arguments,
    check_callable,
    function_name,
    own_all,
    static_positions,
    wraps,
)
from ..transforms.forward import instantiate, jvp_flat
from ..transforms.linear import linearize_flat
from .derived import batched_jaxpr, call_jaxpr, closed_over, linearize_by_running

__all__ = ["checkpoint", "checkpoint_p", "recompute_p"]


def _impl(*args: Any, jaxpr: ClosedJaxpr) -> Any:
    return call_jaxpr(jaxpr)(*args)


def _forward(primals: Sequence[Any], tangents: Sequence[Any], *, jaxpr: ClosedJaxpr) -> Any:
    return jvp_flat(call_jaxpr(jaxpr), primals, tangents)


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
    return _forward(primals, tangents, **params)[1]


def _linearize(nonzero: Sequence[bool], primals: Sequence[Any], *, jaxpr: ClosedJaxpr) -> Any:
    outs = checkpoint_p.bind(*primals, jaxpr=jaxpr)
    floats = tuple([nz and aval_of(x).dtype.kind in "fc" for nz, x in zip(nonzero, primals, strict=True)])

    def apply(*tangents: Any) -> list[Any]:
        results = iter(recompute_p.bind(*primals, *tangents, jaxpr=jaxpr, active=floats))
        return [next(results) if aval_of(o).dtype.kind in "fc" else ZERO for o in outs]

    return outs, apply


def _batch(axis: tuple[int, Any], args: Sequence[Any], dims: Sequence[int | None], *, jaxpr: ClosedJaxpr) -> Any:
    size, axis_name = axis
    derived, out_dims = batched_jaxpr(jaxpr, size, tuple(dims), axis_name)
    return checkpoint_p.bind(*args, jaxpr=derived), out_dims


def _transpose(cts: Any, *operands: Any, jaxpr: ClosedJaxpr) -> Any:
    linear = [type(x) is Linear for x in operands]

    def fun(*xs: Any) -> list[Any]:
        rest = iter(xs)
        return call_jaxpr(jaxpr)(*[next(rest) if is_l else x for is_l, x in zip(linear, operands, strict=True)])

    zeros = [instantiate(ZERO, x.aval.dtype.type(0)) for x in operands if type(x) is Linear]
    _, function = linearize_flat(fun, zeros)
    pulled = iter(function.transpose(cts))
    return [next(pulled) if is_l else None for is_l in linear]


checkpoint_p = Primitive(
    "checkpoint",
    impl=_impl,
    shape=lambda *avals, jaxpr: tuple(jaxpr.out_avals),
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    lower=Call(),
    multiple_results=True,
    linearize=_linearize,
    forward=_forward,
    needs_axis=True,
)


def _push(*args: Any, jaxpr: ClosedJaxpr, active: tuple[bool, ...]) -> list[Any]:
    n = len(active)
    rest = iter(args[n:])
    tangents = [next(rest) if a else ZERO for a in active]
    outs, t_outs = jvp_flat(call_jaxpr(jaxpr), args[:n], tangents)
    pairs = zip(outs, t_outs, strict=True)
    return [instantiate(t, o) for o, t in pairs if aval_of(o).dtype.kind in "fc"]


def _recompute_shape(*avals: ShapedArray, jaxpr: ClosedJaxpr, active: tuple[bool, ...]) -> Any:
    return tuple([a.strong() for a in jaxpr.out_avals if a.dtype.kind in "fc"])


def _recompute_jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
    return jvp_flat(lambda *xs: _push(*xs, **params), primals, tangents)[1]


def _recompute_transpose(cts: Any, *operands: Any, jaxpr: ClosedJaxpr, active: tuple[bool, ...]) -> Any:
    n = len(active)
    outs, function = linearize_flat(call_jaxpr(jaxpr), operands[:n], active)
    rest = iter(cts)
    full = [next(rest) if aval_of(o).dtype.kind in "fc" else ZERO for o in outs]
    return [*[None] * n, *function.transpose(full)]


def _recompute_batch(axis: tuple[int, Any], args: Sequence[Any], dims: Sequence[int | None], **params: Any) -> Any:
    size, axis_name = axis
    return batch_subtrace(lambda *xs: _push(*xs, **params), size, args, dims, axis_name)


recompute_p = Primitive(
    "recompute",
    impl=_push,
    shape=_recompute_shape,
    jvp=_recompute_jvp,
    transpose=_recompute_transpose,
    batch=_recompute_batch,
    lower=Inline(_push),
    multiple_results=True,
    linearize=linearize_by_running(_push),
    needs_axis=True,
)


def checkpoint(fun: Callable[..., Any], *, prevent_cse: bool = True, static_argnums: Any = ()) -> Callable[..., Any]:
    """``fun``, whose intermediate values are not kept for reverse mode but computed again when they are needed.

    Args:
        prevent_cse: accepted for JAX's sake.
        static_argnums: positions of arguments that are no arrays.

    >>> from funcgrad import grad
    >>> grad(checkpoint(lambda x: x**3))(2.0)
    np.float64(12.0)
    """
    check_callable(fun, "checkpoint")

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
        outs = checkpoint_p.bind(*closed.consts, *leaves, jaxpr=closed_over(closed.consts, closed))
        return flat.out_tree.unflatten(own_all(outs, leaves))

    return checkpointed
