"""``linear_call``: a linear function with a transpose of its own.

One primitive, ``linear_call_p(*residuals, *xs)``, linear in ``xs``. ``push(residuals, xs)`` is the function and
``pull(residuals, cts)`` its transpose, both flat, where a tangent or cotangent may be ``ZERO``. It is also what custom
rules put on the tape: pushed forward by the JVP rule, pulled back by the VJP rule (``control.custom``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..core.avals import ShapedArray, aval_of
from ..core.jaxpr import eval_jaxpr
from ..core.lowering import Inline
from ..core.primitive import ZERO, Linear, NotLinear, Primitive, not_linear
from ..core.staging import stage
from ..core.trace import Tracer
from ..errors import FuncgradError
from ..ops.elementwise import add, add_p, sub_p
from ..ops.promotion import as_dtype
from ..ops.structural import reduce_sum
from ..transforms.batch import batch_subtrace, move_batch
from ..transforms.flat import FlatFunction, check_arguments, check_callable, function_name, own_all
from ..transforms.forward import jvp_flat, tangent_zeros
from ..transforms.linear import LinearFunction, linearize_flat
from .derived import grown

__all__ = ["batched_pull", "batched_push", "check_no_offset", "linear_call", "linear_call_p"]

Rule = Callable[[Sequence[Any], Sequence[Any]], Sequence[Any]]


def _run(*args: Any, push: Rule, n_res: int, out_avals: tuple[ShapedArray, ...], **_: Any) -> list[Any]:
    outs = push(args[:n_res], args[n_res:])
    return [tangent_zeros(a) if o is ZERO else as_dtype(o, a.dtype) for o, a in zip(outs, out_avals, strict=True)]


def _shape(*avals: ShapedArray, out_avals: tuple[ShapedArray, ...], **_: Any) -> Any:
    return out_avals


def _sum(x: Any, y: Any) -> Any:
    return y if x is ZERO else x if y is ZERO else add(x, y)


def _along(primals: Sequence[Any], tangents: Sequence[Any], *, n_res: int, **params: Any) -> list[Any]:
    """The part of the derivative along the operands that the function is linear in."""
    xs = [tangent_zeros(aval_of(p).strong()) if t is ZERO else t for p, t in zip(primals, tangents, strict=True)]
    return list(linear_call_p.bind(*primals[:n_res], *xs[n_res:], n_res=n_res, **params))


def _forward(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    n_res = params["n_res"]
    if all([t is ZERO for t in tangents[:n_res]]):
        return linear_call_p.bind(*primals, **params), _along(primals, tangents, **params)
    outs, moved = jvp_flat(lambda *res: _run(*res, *primals[n_res:], **params), primals[:n_res], tangents[:n_res])
    if all([t is ZERO for t in tangents[n_res:]]):
        return outs, moved
    return outs, [_sum(t, s) for t, s in zip(moved, _along(primals, tangents, **params), strict=True)]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], out: Any, **params: Any) -> Any:
    return _forward(primals, tangents, **params)[1]


def _linearize(nonzero: Sequence[bool], primals: Sequence[Any], **params: Any) -> Any:
    n_res = params["n_res"]
    active = [nz and aval_of(x).dtype.kind in "fc" for nz, x in zip(nonzero, primals, strict=True)]
    moved = None
    if any(active[:n_res]):
        res, xs = primals[:n_res], primals[n_res:]
        outs, moved = linearize_flat(lambda *res: _run(*res, *xs, **params), res, active[:n_res])
    else:
        outs = linear_call_p.bind(*primals, **params)

    def apply(*tangents: Any) -> list[Any]:
        rest = iter(tangents)
        full = [next(rest) if nz else ZERO for nz in nonzero]
        full = [t if a else ZERO for t, a in zip(full, active, strict=True)]
        results = [ZERO] * len(outs) if moved is None else moved.apply(list(itertools.compress(full, active[:n_res])))
        if any(active[n_res:]):
            results = [_sum(t, s) for t, s in zip(results, _along(primals, full, **params), strict=True)]
        return results

    return outs, apply


def _transpose(cts: Sequence[Any], *operands: Any, pull: Rule, n_res: int, **_: Any) -> list[Any]:
    if any([type(x) is Linear for x in operands[:n_res]]):
        raise not_linear(linear_call_p, NotLinear("a residual depends on the input"))
    pulled = pull(operands[:n_res], cts)
    return [*[None] * n_res, *[c if type(x) is Linear else None for c, x in zip(pulled, operands[n_res:], strict=True)]]


def batched_push(push: Rule, size: int, axis_name: Any, res_dims: Sequence[int | None], x_dims: Any) -> Rule:
    """The function on batches, whose results all carry the batch axis in front."""

    def batched(res: Sequence[Any], xs: Sequence[Any]) -> list[Any]:
        present = [x is not ZERO for x in xs]
        found: list[bool] = []

        def fun(*args: Any) -> Sequence[Any]:
            nonlocal found
            rest = iter(args[len(res) :])
            outs = push(args[: len(res)], [next(rest) if p else ZERO for p in present])
            found = [o is not ZERO for o in outs]
            return list(itertools.compress(outs, found))

        dims = [*res_dims, *itertools.compress(x_dims, present)]
        outs, out_dims = batch_subtrace(fun, size, [*res, *itertools.compress(xs, present)], dims, axis_name)
        moved = iter([move_batch(size, o, d, 0) for o, d in zip(outs, out_dims, strict=True)])
        return [next(moved) if f else ZERO for f in found]

    return batched


def batched_pull(
    pull: Rule,
    size: int,
    axis_name: Any,
    res_dims: Sequence[int | None],
    ct_dims: Sequence[int | None],
    x_dims: Sequence[int | None],
) -> Rule:
    """The transpose on batches; what belongs to an operand that is not batched is added up."""

    def batched(res: Sequence[Any], cts: Sequence[Any]) -> list[Any]:
        present = [c is not ZERO for c in cts]
        found: list[bool] = []

        def fun(*args: Any) -> Sequence[Any]:
            nonlocal found
            rest = iter(args[len(res) :])
            pulled = pull(args[: len(res)], [next(rest) if p else ZERO for p in present])
            found = [c is not ZERO and c is not None for c in pulled]
            return list(itertools.compress(pulled, found))

        dims = [*res_dims, *itertools.compress(ct_dims, present)]
        outs, out_dims = batch_subtrace(fun, size, [*res, *itertools.compress(cts, present)], dims, axis_name)
        pairs = zip(outs, out_dims, strict=True)
        results = []
        for is_there, wanted in zip(found, x_dims, strict=True):
            if not is_there:
                results.append(ZERO)
                continue
            c, d = next(pairs)
            if wanted is None:
                results.append(reduce_sum(move_batch(size, c, d, 0), (0,)))
            else:
                results.append(move_batch(size, c, d, wanted))
        return results

    return batched


def check_no_offset(function: LinearFunction) -> None:
    """Raise where a constant is added: ``ct + noise`` is affine, its transpose would drop the noise without a word."""
    for node in function.tape:
        if node.primitive in (add_p, sub_p) and len(node.linear) == 1:
            other = node.args[1 - node.linear[0]]
            if not isinstance(other, Tracer) and np.any(other):  # of a traced value nobody knows
                raise FuncgradError("it adds something that does not depend on its argument")


def _batch(
    axis: tuple[int, Any],
    args: Sequence[Any],
    dims: Sequence[int | None],
    *,
    push: Rule,
    pull: Rule,
    n_res: int,
    out_avals: tuple[ShapedArray, ...],
    name: str,
) -> Any:
    size, axis_name = axis
    res_dims, x_dims = dims[:n_res], dims[n_res:]
    front = [0] * len(out_avals)
    outs = linear_call_p.bind(
        *args,
        push=batched_push(push, size, axis_name, res_dims, x_dims),
        pull=batched_pull(pull, size, axis_name, res_dims, front, x_dims),
        n_res=n_res,
        out_avals=tuple([grown(a, 0, size) for a in out_avals]),
        name=f"vmap({name})",
    )
    return outs, front


linear_call_p = Primitive(
    "linear_call",
    impl=_run,
    shape=_shape,
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    lower=Inline(_run),
    multiple_results=True,
    needs_axis=True,
    linearize=_linearize,
    forward=_forward,
)


def linear_call(
    fun: Callable[[Any, Any], Any], fun_transpose: Callable[[Any, Any], Any], residual_args: Any, linear_args: Any
) -> Any:
    """Call a linear function that has a transpose of its own.

    Args:
        fun: ``fun(residual_args, linear_args)``, linear in its second argument.
        fun_transpose: ``fun_transpose(residual_args, ct)`` takes a cotangent of the structure of ``fun``'s result, and
            returns one of the structure of ``linear_args``. Transposed in turn, it is ``fun``.
        residual_args, linear_args: pytrees of arrays; those of ``linear_args`` are floating point or complex.

    Returns:
        The result of ``fun``. Reverse mode uses ``fun_transpose``, forward mode ``fun``; the derivative with respect
        to ``residual_args`` is that of ``fun``.

    Raises:
        TypeError, ValueError: a result has not the structure, shapes or dtypes that it must have.

    >>> from funcgrad import vjp
    >>> divide = lambda x, scale: linear_call(lambda s, x: x / s, lambda s, ct: ct / s, scale, x)
    >>> out, pull = vjp(lambda x: divide(x, 4.0), 2.0)
    >>> out, pull(1.0)
    (np.float64(0.5), (np.float64(0.25),))
    """
    check_callable(fun, "linear_call")
    check_callable(fun_transpose, "linear_call (fun_transpose)")
    leaves, in_tree = tree.flatten(((residual_args, linear_args), {}))
    check_arguments(fun, (residual_args, linear_args), {}, leaves, "linear_call")
    res, res_tree = tree.flatten(residual_args)
    xs, x_tree = tree.flatten(linear_args)
    _check_inexact([aval_of(x) for x in xs], x_tree, f"linear_call: linear_args of {function_name(fun)}")
    flat = FlatFunction(fun, in_tree)
    closed = stage(flat, [aval_of(x) for x in leaves], flat.__name__)
    out_tree = flat.out_tree
    out_avals = tuple([a.strong() for a in closed.out_avals])
    _check_inexact(out_avals, out_tree, f"linear_call: the result of {function_name(fun)}")
    n_consts, n_res = len(closed.consts), len(closed.consts) + len(res)
    x_avals = tuple([aval_of(x).strong() for x in xs])

    def forward(res: Sequence[Any], xs: Sequence[Any]) -> list[Any]:
        full = [tangent_zeros(a) if x is ZERO else x for x, a in zip(xs, x_avals, strict=True)]
        return eval_jaxpr(closed.jaxpr, res[:n_consts], *res[n_consts:], *full)

    def backward(res: Sequence[Any], cts: Sequence[Any]) -> list[Any]:
        full = [tangent_zeros(a) if c is ZERO else c for c, a in zip(cts, out_avals, strict=True)]
        pulled = fun_transpose(res_tree.unflatten(res[n_consts:]), out_tree.unflatten(full))
        return _check_pulled(pulled, x_tree, x_avals, function_name(fun_transpose))

    def pull(res: Sequence[Any], cts: Sequence[Any]) -> Any:
        """Transposed, the call is again a linear call, of the two functions exchanged."""
        full = [tangent_zeros(a) if c is ZERO else c for c, a in zip(cts, out_avals, strict=True)]
        swapped = {"push": backward, "pull": forward_call, "n_res": n_res, "out_avals": x_avals}
        return linear_call_p.bind(*res, *full, **swapped, name=f"transpose({flat.__name__})")

    def forward_call(res: Sequence[Any], xs: Sequence[Any]) -> Any:
        full = [tangent_zeros(a) if x is ZERO else x for x, a in zip(xs, x_avals, strict=True)]
        same = {"push": forward, "pull": pull, "n_res": n_res, "out_avals": out_avals}
        return linear_call_p.bind(*res, *full, **same, name=flat.__name__)

    outs = forward_call([*closed.consts, *res], xs)
    return out_tree.unflatten(own_all(outs, leaves))


def _check_inexact(avals: Sequence[ShapedArray], treedef: tree.PyTreeDef, what: str) -> None:
    for path, a in zip(tree.leaf_paths(treedef), avals, strict=True):
        if a.dtype.kind not in "fc":
            raise TypeError(
                f"{what}{path} has dtype {a.dtype.name}; a linear function acts on floating-point or complex arrays: "
                "write .astype(float), or pass it among residual_args"
            )


def _check_pulled(pulled: Any, x_tree: tree.PyTreeDef, x_avals: Sequence[ShapedArray], name: str) -> list[Any]:
    found, found_tree = tree.flatten(pulled)
    if found_tree != x_tree:
        raise TypeError(
            f"linear_call: {name} must return a cotangent of the structure of linear_args: "
            + tree.describe_difference(x_tree, found_tree)
        )
    for path, c, a in zip(tree.leaf_paths(x_tree), found, x_avals, strict=True):
        b = aval_of(c)
        if b.shape != a.shape or (b.dtype != a.dtype and not b.weak_type):
            raise ValueError(
                f"linear_call: {name} returned {b.short()} for linear_args{path}, which is {a.short()}: the cotangent "
                "has the shape and dtype of what it belongs to"
            )
    return found
