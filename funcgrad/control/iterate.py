"""Loops for users: ``while_loop``, ``fori_loop``, ``scan``, ``map``, ``associative_scan``.

They flatten pytrees, trace the functions once, check that the carry keeps its type, and bind ``scan_p`` or ``while_p``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from .. import tree
from ..core.avals import ShapedArray, aval_of
from ..core.trace import Tracer
from ..ops.elementwise import add, lt
from ..ops.promotion import as_dtype
from ..ops.shape import concatenate, rev, slice_in_dim, stack
from ..ops.structural import reshape, shape_of
from ..transforms.derive import quiet
from ..transforms.flat import check_callable, function_name, kind_of
from ..transforms.vmap import vmap
from ..util import canonicalize_axis
from .body import Body, flatten_operands, owned_results, promoted_carry, stage_body
from .cond import INDEX, scalar_operand
from .loop import while_p
from .reverse import FEW_SLOTS
from .scan import scan_p
from .segments import check_checkpoint, scan_plan

__all__ = ["associative_scan", "fori_loop", "map_", "scan", "while_loop"]


def while_loop(
    cond_fun: Callable[[Any], Any],
    body_fun: Callable[[Any], Any],
    init_val: Any,
    *,
    checkpoint: int | bool | None = None,
) -> Any:
    """``body_fun`` applied again and again, as long as ``cond_fun`` of the value holds.

        val = init_val
        while cond_fun(val):
            val = body_fun(val)
        return val

    Args:
        cond_fun: gives a boolean scalar.
        body_fun: takes the value to the next one, of the same structure, shapes and dtypes.
        init_val: a pytree of arrays. A Python number takes the dtype that ``body_fun`` gives it.
        checkpoint: how many states reverse mode keeps, however many steps there are; the others are computed again.
            None: 192. True: 48. A number: at most so many, 6 or more. Fewer states mean more repetitions.

    Under `vmap` the loop runs until the condition holds for no element; finished elements keep their value.

    Raises:
        TypeError: the condition is no boolean scalar, or the value changes its structure or type.

    >>> while_loop(lambda x: x < 100, lambda x: 2 * x, 1)
    128
    """
    check_callable(cond_fun, "while_loop: cond_fun")
    check_callable(body_fun, "while_loop: body_fun")
    return _while("while_loop", cond_fun, body_fun, init_val, checkpoint, _whole)


def _whole(treedef: tree.PyTreeDef) -> tree.PyTreeDef:
    return treedef


def _value_alone(treedef: tree.PyTreeDef) -> tree.PyTreeDef:
    """Of a pair of counter and value, the part that the user knows of."""
    return treedef.children()[1]


def _while(
    what: str,
    cond_fun: Callable[[Any], Any],
    body_fun: Callable[[Any], Any],
    init_val: Any,
    checkpoint: int | bool | None,
    shown: Callable[[tree.PyTreeDef], tree.PyTreeDef],
) -> Any:
    slots = _slots(checkpoint, what)
    init, in_tree = flatten_operands((init_val,), what, lambda _: "init_val")
    (value_tree,) = in_tree.children()[0].children()

    def step(avals: Sequence[ShapedArray]) -> tuple[Body, Sequence[ShapedArray], tree.PyTreeDef]:
        body = stage_body(body_fun, in_tree, avals)
        return body, body.out_avals, body.out_tree

    init, body = promoted_carry(what, function_name(body_fun), init, value_tree, step, shown)
    condition = stage_body(cond_fun, in_tree, [aval_of(x) for x in init])
    _check_condition(condition, cond_fun)
    outs = while_p.bind(
        *condition.consts,
        *body.consts,
        *init,
        cond_jaxpr=condition.jaxpr,
        body_jaxpr=body.jaxpr,
        cond_nconsts=len(condition.consts),
        body_nconsts=len(body.consts),
        **({"checkpoint": slots} if slots else {}),
    )
    return value_tree.unflatten(owned_results(outs, [*body.consts, *init]))


def _slots(checkpoint: int | bool | None, what: str) -> tuple[int, int] | None:
    """Snapshots per level, and levels; see ``control.reverse``."""
    check_checkpoint(checkpoint, what)
    if checkpoint is None:
        return None
    if checkpoint is True:
        return FEW_SLOTS
    if checkpoint < 6:
        raise ValueError(
            f"{what}: checkpoint={checkpoint} is too few for a loop of unknown length: it keeps the states of at least "
            "6 steps. checkpoint=True chooses a number."
        )
    return checkpoint // 6 * 2, 3


def _check_condition(condition: Body, cond_fun: Callable[..., Any]) -> None:
    name = function_name(cond_fun)
    if not condition.out_tree.is_leaf():
        raise TypeError(f"while_loop: {name} must return one boolean, but it returned {condition.out_tree}")
    (aval,) = condition.out_avals
    if aval.shape != ():
        raise TypeError(
            f"while_loop: {name} must return a boolean scalar, but it returned shape {aval.shape}. Reduce it with "
            ".any() or .all()."
        )
    if aval.dtype.kind != "b":
        raise TypeError(
            f"while_loop: {name} must return a boolean, but it returned {aval.dtype.name}. Write a comparison, "
            "x != 0 for instance."
        )


# fori_loop ----------------------------------------------------------------------------------------------------------


def _check_bound(x: Any, name: str) -> None:
    aval = scalar_operand(x, "fori_loop", name, "Give one integer")
    if aval.dtype.kind not in "iu":
        raise TypeError(f"fori_loop: {name} must be an integer, found {aval.dtype.name}; convert it with .astype(int)")


def fori_loop(
    lower: Any,
    upper: Any,
    body_fun: Callable[[Any, Any], Any],
    init_val: Any,
    *,
    unroll: int | bool | None = None,
    checkpoint: int | bool | None = None,
) -> Any:
    """``body_fun(i, val)`` for ``i`` from ``lower`` to ``upper - 1``.

        val = init_val
        for i in range(lower, upper):
            val = body_fun(i, val)
        return val

    Args:
        lower, upper: integer scalars. Known ones make the loop a `scan`, whose derivative in reverse mode keeps what
            it needs; with traced ones it is a `while_loop`.
        body_fun: takes the index and the value to the next value, of the same structure, shapes and dtypes.
        init_val: a pytree of arrays.
        unroll: a hint, as in `scan`.
        checkpoint: how much reverse mode keeps, as in `scan` or `while_loop`.

    >>> fori_loop(0, 5, lambda i, total: total + i, 0)
    10
    >>> from funcgrad import grad
    >>> grad(lambda x: fori_loop(0, 3, lambda i, y: y * x, 1.0))(2.0)
    np.float64(12.0)
    """
    check_callable(body_fun, "fori_loop: body_fun")
    _check_bound(lower, "lower")
    _check_bound(upper, "upper")
    if isinstance(lower, Tracer) or isinstance(upper, Tracer):
        return _counted_while(lower, upper, body_fun, init_val, checkpoint)

    def body(carry: Any, _: Any) -> Any:
        i, value = carry
        return (add(i, 1), body_fun(i, value)), None

    body.__name__ = function_name(body_fun)
    length = max(int(upper) - int(lower), 0)
    (_, value), _ = _scan(
        "fori_loop", body, (int(lower), init_val), None, length, False, unroll, checkpoint, _value_alone
    )
    return value


def _counted_while(
    lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any, checkpoint: int | bool | None
) -> Any:
    """The counter is weakly typed, as the numbers that Python's ``range`` gives are."""
    start, end = as_dtype(lower, INDEX, weak=True), as_dtype(upper, INDEX)

    def body(state: Any) -> Any:
        i, value = state
        return add(i, 1), body_fun(i, value)

    body.__name__ = function_name(body_fun)
    condition = lambda state: lt(state[0], end)  # noqa: E731
    return _while("fori_loop", condition, body, (start, init_val), checkpoint, _value_alone)[1]


# scan ---------------------------------------------------------------------------------------------------------------


def scan(
    f: Callable[[Any, Any], Any],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    *,
    checkpoint: int | bool | None = None,
) -> Any:
    """Carry a value along the leading axis of arrays.

        carry, ys = init, []
        for x in xs:
            carry, y = f(carry, x)
            ys.append(y)
        return carry, np.stack(ys)

    Args:
        f: takes ``(carry, x)`` to ``(carry, y)``; the carry keeps its structure, shapes and dtypes.
        init: the first carry, a pytree of arrays. A Python number takes the dtype that ``f`` gives it.
        xs: a pytree of arrays with the same leading extent, or None.
        length: the number of steps; needed if there are no arrays in ``xs``.
        reverse: go from the last to the first; ys keep the order of xs.
        unroll: how many steps to put into one iteration of the compiled loop (True: all). A hint.
        checkpoint: how much reverse mode keeps. None: what it needs of every step. True: of about ``8 log8(length)``
            steps, the others are computed again, each ``log8(length)`` times at most. A number: of at most so many
            steps, with as few repetitions as they allow.

    Returns:
        The last carry, and the ys stacked along a new leading axis.

    Raises:
        TypeError: ``f`` returns no pair, or a carry of another type.
        ValueError: leading extents differ, from each other or from ``length``; ``checkpoint`` is too small.

    >>> import numpy as np
    >>> scan(lambda total, x: (total + x, total), 0.0, np.array([1.0, 2.0, 3.0]))
    (np.float64(6.0), array([0., 1., 3.]))
    """
    check_callable(f, "scan")
    return _scan("scan", f, init, xs, length, reverse, unroll, checkpoint, _whole)


def _unroll(unroll: int | bool | None, length: int, what: str) -> int:
    if unroll is None or unroll is False:
        return 1
    if unroll is True:
        return max(length, 1)
    try:
        count = operator.index(unroll)
    except TypeError:
        raise TypeError(f"{what}: unroll must be a positive integer or a boolean, found {unroll!r}") from None
    if count < 1:
        raise ValueError(f"{what}: unroll must be a positive integer or a boolean, found {unroll!r}")
    return count


def _length(xs: Sequence[Any], paths: Sequence[str], length: Any, what: str) -> int:
    """The number of steps."""
    if length is not None:
        if isinstance(length, Tracer):
            raise TypeError(f"{what}: length must be known while tracing, found {length}. Use fori_loop or while_loop.")
        try:
            length = operator.index(length)
        except TypeError:
            raise TypeError(f"{what}: length must be an integer, found {length!r}") from None
        if length < 0:
            raise ValueError(f"{what}: length must not be negative, found {length}")
    extents = {}
    for x, path in zip(xs, paths, strict=True):
        shape = shape_of(x)
        if not shape:
            raise ValueError(
                f"{what}: xs{path} is a scalar, which has no leading axis to go along; capture it in f, or put it "
                "into the carry"
            )
        extents[path] = shape[0]
    if len(set(extents.values())) > 1:
        found = ", ".join([f"xs{path} has {n}" for path, n in extents.items()])
        raise ValueError(f"{what}: the arrays in xs must have the same leading extent: {found}")
    if not extents:
        if length is None:
            raise ValueError(f"{what}: without arrays in xs the number of steps is not known; give length")
        return int(length)
    (extent,) = set(extents.values())
    if length is not None and length != extent:
        raise ValueError(f"{what}: length is {length}, but the arrays in xs have the leading extent {extent}")
    return extent


def _scan(
    what: str,
    f: Callable[[Any, Any], Any],
    init_val: Any,
    xs: Any,
    length: int | None,
    reverse: bool,
    unroll: int | bool | None,
    checkpoint: int | bool | None,
    shown: Callable[[tree.PyTreeDef], tree.PyTreeDef],
) -> Any:
    """``shown``: the part of the carry's structure that the user knows of."""
    init, init_tree = flatten_operands((init_val,), what, lambda _: "init")
    x_leaves, x_tree = flatten_operands((xs,), what, lambda _: "xs")
    (carry_tree,), (xs_tree,) = init_tree.children()[0].children(), x_tree.children()[0].children()
    steps = _length(x_leaves, tree.leaf_paths(xs_tree), length, what)
    plan = scan_plan(checkpoint, steps, what)
    slices = [ShapedArray(a.shape[1:], a.dtype) for a in map(aval_of, x_leaves)]
    in_tree = tree.structure(((init_val, xs), {}))
    n_carry = len(init)
    y_tree: Any = None

    def step(avals: Sequence[ShapedArray]) -> tuple[Body, Sequence[ShapedArray], tree.PyTreeDef]:
        nonlocal y_tree
        body = stage_body(pair, in_tree, [*avals, *slices])
        new_carry, y_tree = body.out_tree.children()
        return body, body.out_avals[: new_carry.num_leaves], new_carry

    def pair(carry: Any, x: Any) -> Any:
        out = f(carry, x)
        if not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(f"{what}: {function_name(f)} must return a pair (carry, y), but it returned {kind_of(out)}")
        return out

    pair.__name__ = function_name(f)
    init, body = promoted_carry(what, function_name(f), init, carry_tree, step, shown)
    outs = scan_p.bind(
        *body.consts,
        *init,
        *x_leaves,
        jaxpr=body.jaxpr,
        length=steps,
        reverse=bool(reverse),
        unroll=_unroll(unroll, steps, what),
        n_consts=len(body.consts),
        n_carry=n_carry,
        **({"checkpoint": plan} if len(plan) > 1 else {}),
    )
    outs = owned_results(outs, [*body.consts, *init, *x_leaves])
    return carry_tree.unflatten(outs[:n_carry]), y_tree.unflatten(outs[n_carry:])


def map_(f: Callable[[Any], Any], xs: Any, *, batch_size: int | None = None) -> Any:
    """``f`` applied to the slices of arrays along their leading axis, one after the other; the results stacked.

    Args:
        f: a function of one pytree of slices.
        xs: a pytree of arrays with the same leading extent.
        batch_size: apply ``vmap(f)`` to so many slices at a time.

    >>> import numpy as np
    >>> map_(lambda x: x**2, np.arange(4.0))
    array([0., 1., 4., 9.])
    """
    check_callable(f, "map")
    if batch_size is None:
        return scan(_without_carry(f), None, xs)[1]
    size = operator.index(batch_size)
    if size < 1:
        raise ValueError(f"map: batch_size must be positive, found {batch_size}")
    leaves, treedef = tree.flatten(xs)
    n = _length(leaves, tree.leaf_paths(treedef), None, "map")
    whole = n // size
    batches = [reshape(slice_in_dim(x, 0, whole * size), (whole, size, *shape_of(x)[1:])) for x in leaves]
    ys = scan(_without_carry(vmap(f)), None, treedef.unflatten(batches))[1]
    ys = tree.map(lambda y: reshape(y, (whole * size, *shape_of(y)[2:])), ys)
    if whole * size == n:
        return ys
    rest = vmap(f)(treedef.unflatten([slice_in_dim(x, whole * size, n) for x in leaves]))
    return tree.map(lambda a, b: concatenate([a, b], 0), ys, rest)


def _without_carry(f: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def body(_: Any, x: Any) -> Any:
        return None, f(x)

    body.__name__ = function_name(f)
    return body


# associative_scan ---------------------------------------------------------------------------------------------------


def associative_scan(fn: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """All partial results of an associative operation, ``fn(fn(x0, x1), x2)`` and so on, in about log2(n) steps.

    Args:
        fn: takes two pytrees of slices (arrays that keep the axis, of any extent) to one; it must be associative and
            act on the positions along the axis independently.
        elems: a pytree of arrays with the same extent along ``axis``.
        reverse: from the end.

    >>> import numpy as np
    >>> associative_scan(np.multiply, np.array([1.0, 2.0, 3.0, 4.0]))
    array([ 1.,  2.,  6., 24.])
    """
    check_callable(fn, "associative_scan")
    leaves, treedef = tree.flatten(elems)
    if not leaves:
        return elems
    axes = [canonicalize_axis(axis, len(shape_of(x))) for x in leaves]
    extents = {shape_of(x)[a] for x, a in zip(leaves, axes, strict=True)}
    if len(extents) > 1:
        named = zip(tree.leaf_paths(treedef), leaves, axes, strict=True)
        found = ", ".join([f"elems{path} has {shape_of(x)[a]}" for path, x, a in named])
        raise ValueError(f"associative_scan: arrays must have the same extent along axis {axis}: {found}")
    (n,) = extents

    def combine(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
        out, out_tree = tree.flatten(fn(treedef.unflatten(a), treedef.unflatten(b)))
        if out_tree != treedef:
            raise TypeError(
                f"associative_scan: {function_name(fn)} must return the structure of its arguments: "
                + tree.describe_difference(treedef, out_tree)
            )
        return out

    with quiet():
        turned = [rev(x, (a,)) for x, a in zip(leaves, axes, strict=True)] if reverse else leaves
        results = _prefixes(combine, turned, axes, n)
        results = [rev(x, (a,)) for x, a in zip(results, axes, strict=True)] if reverse else results
    return treedef.unflatten(owned_results(results, leaves))


def _prefixes(combine: Callable[..., list[Any]], xs: Sequence[Any], axes: Sequence[int], n: int) -> list[Any]:
    """Neighbours are combined in pairs; the partial results of the pairs are every other result."""
    if n < 2:
        return list(xs)

    def part(x: Any, axis: int, start: int, stop: int, step: int = 1) -> Any:
        return slice_in_dim(x, start, stop, step, axis)

    pairs = list(zip(xs, axes, strict=True))
    halves = combine([part(x, a, 0, n - 1, 2) for x, a in pairs], [part(x, a, 1, n, 2) for x, a in pairs])
    odd = _prefixes(combine, halves, axes, n // 2)
    before = [part(x, a, 0, (n - 1) // 2) for x, a in zip(odd, axes, strict=True)]
    even = combine(before, [part(x, a, 2, n, 2) for x, a in pairs]) if n > 2 else []
    first = [part(x, a, 0, 1) for x, a in pairs]
    even = [concatenate([f, e], a) for f, e, a in zip(first, even, axes, strict=True)] if even else first
    return [_interleaved(e, o, a) for e, o, a in zip(even, odd, axes, strict=True)]


def _interleaved(even: Any, odd: Any, axis: int) -> Any:
    """``even[0], odd[0], even[1], ...``; there are as many, or one even more."""
    m = shape_of(odd)[axis]
    shape = shape_of(odd)
    pairs = stack([slice_in_dim(even, 0, m, 1, axis), odd], axis + 1)
    mixed = reshape(pairs, (*shape[:axis], 2 * m, *shape[axis + 1 :]))
    return mixed if shape_of(even)[axis] == m else concatenate([mixed, slice_in_dim(even, m, m + 1, 1, axis)], axis)
