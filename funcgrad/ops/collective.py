"""Collectives: operations along a vmapped axis that has a name.

``vmap(f, axis_name="i")`` lets ``f`` ask for the sum over all its instances, ``psum(x, "i")``. To every other
transformation a collective is an ordinary primitive; the vmap that owns the name replaces it by an operation along the
batch axis (the ``collective`` rule). ``psum``'s transpose is ``psum``: each instance's result depends on every
instance's operand.

Several names in a tuple mean the product of their axes, the first being the slowest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Host
from ..core.primitive import NotLinear, Primitive, ZeroDerivative
from ..core.trace import STATE
from ..util import canonicalize_axis, prod
from .create import iota
from .dynamic import dynamic_slice_p
from .elementwise import add, convert_element_type, div, eq, mul
from .indexing import INDEX, gather_p
from .reduce import reduce_max_p, reduce_min_p, share_of_ties
from .shape import batch_axis_to, insert_at
from .structural import linear_unary, reduce_sum_p, reshape, shape_of, squeeze, transpose

__all__ = [
    "all_gather",
    "all_gather_p",
    "all_to_all",
    "all_to_all_p",
    "axis_index",
    "axis_index_p",
    "axis_size",
    "pmax",
    "pmax_p",
    "pmean",
    "pmin",
    "pmin_p",
    "ppermute",
    "ppermute_p",
    "pshuffle",
    "psum",
    "psum_p",
    "pswapaxes",
]


def axis_size(axis_name: Any) -> int:
    """How many instances run along a named axis (or the axes of a tuple of names).

    Raises:
        NameError: if no enclosing vmap has the name.
    """
    return prod([_size(name) for name in _names(axis_name)])


def _names(axis_name: Any) -> tuple[Any, ...]:
    return tuple(axis_name) if isinstance(axis_name, (tuple, list)) else (axis_name,)


def _size(name: Any) -> int:
    for known, size in reversed(STATE.axes):
        if known == name:
            return size
    named = [repr(known) for known, _ in STATE.axes if isinstance(known, str)]
    raise NameError(
        f"unbound axis name {name!r}: collectives work inside a function mapped with vmap(..., axis_name={name!r}); "
        f"names in scope here: {', '.join(named) or 'none'}"
    )


def _unbound(*args: Any, axis_name: Any, **params: Any) -> Any:
    _size(axis_name)
    raise NameError(f"the axis {axis_name!r} is mapped, but this operation was called from outside of its function")


def _collective(name: str, **fields: Any) -> Primitive:
    return Primitive(name, impl=_unbound, lower=Host("the axis is not mapped: vmap replaces collectives"), **fields)


def _everywhere(name: str) -> Callable[..., Any]:
    """Batching over another axis, for what treats all elements alike."""

    def batch(size: int, args: Any, dims: Any, **params: Any) -> Any:
        return _PRIMITIVES[name].bind(*args, **params), dims[0]

    return batch


_PRIMITIVES: dict[str, Primitive] = {}


# sums and extremes ----------------------------------------------------------------------------------------------


def _psum_collective(size: int, args: Any, dims: Any, *, axis_name: Any) -> Any:
    (x,), (dim,) = args, dims
    if dim is None:
        return mul(x, aval_of(x).dtype.type(size)), None
    return reduce_sum_p.bind(x, axes=(dim,)), None


psum_p: Primitive = linear_unary(
    "psum",
    impl=_unbound,
    lower=Host("the axis is not mapped: vmap replaces collectives"),
    shape=lambda x, *, axis_name: x.strong(),
    transpose=lambda ct, x, *, axis_name: (psum_p.bind(ct, axis_name=axis_name),),
    batch=_everywhere("psum"),
    collective=_psum_collective,
)
_PRIMITIVES["psum"] = psum_p


def _extreme_jvp(primals: Any, tangents: Any, out: Any, *, axis_name: Any) -> Any:
    (x,), (t,) = primals, tangents
    attains = convert_element_type(eq(x, out), aval_of(x).dtype)
    total, count = (psum_p.bind(v, axis_name=axis_name) for v in (mul(t, attains), attains))
    return mul(total, share_of_ties(count))


def _extreme(name: str, reduce: Primitive) -> Primitive:
    def collective(size: int, args: Any, dims: Any, *, axis_name: Any) -> Any:
        (x,), (dim,) = args, dims
        return (x if dim is None else reduce.bind(x, axes=(dim,))), None

    primitive = _collective(
        name,
        shape=lambda x, *, axis_name: x.strong(),
        jvp=_extreme_jvp,
        transpose=NotLinear(),
        batch=_everywhere(name),
        collective=collective,
    )
    _PRIMITIVES[name] = primitive
    return primitive


pmax_p = _extreme("pmax", reduce_max_p)
pmin_p = _extreme("pmin", reduce_min_p)


def psum(x: Any, axis_name: Any) -> Any:
    """Sum of ``x`` over all instances along ``axis_name``; ``psum(1, name)`` is the size, a Python number."""
    size = axis_size(axis_name)
    if isinstance(x, (bool, int, float, complex)):
        return x * size
    if aval_of(x).dtype.kind == "b":
        x = convert_element_type(x, INDEX)
    for name in _names(axis_name):
        x = psum_p.bind(x, axis_name=name)
    return x


def pmean(x: Any, axis_name: Any) -> Any:
    """Mean of ``x`` over all instances along ``axis_name``."""
    size = axis_size(axis_name)
    if isinstance(x, (bool, int, float, complex)):
        return x / 1
    if aval_of(x).dtype.kind not in "fc":
        x = convert_element_type(x, np.float64)
    return div(psum(x, axis_name), aval_of(x).dtype.type(size))


def _extreme_function(primitive: Primitive, what: str) -> Any:
    def function(x: Any, axis_name: Any) -> Any:
        axis_size(axis_name)
        for name in _names(axis_name):
            x = primitive.bind(x, axis_name=name)
        return x

    function.__name__ = function.__qualname__ = primitive.name
    function.__doc__ = f"The {what} of ``x`` over all instances along ``axis_name``; ties share the derivative evenly."
    return function


pmax = _extreme_function(pmax_p, "maximum")
pmin = _extreme_function(pmin_p, "minimum")


# who am I -------------------------------------------------------------------------------------------------------

axis_index_p: Primitive = _collective(
    "axis_index",
    shape=lambda *, axis_name: ShapedArray((), INDEX),
    jvp=ZeroDerivative("its result is an index"),
    transpose=NotLinear("it has no operands"),
    batch=lambda size, args, dims, *, axis_name: (axis_index_p.bind(axis_name=axis_name), None),
    collective=lambda size, args, dims, *, axis_name: (iota(INDEX, size), 0),
)


def axis_index(axis_name: Any) -> Any:
    """The position (intp) of this instance along ``axis_name``."""
    axis_size(axis_name)
    names = _names(axis_name)
    index = axis_index_p.bind(axis_name=names[0])
    for name in names[1:]:
        index = add(mul(index, INDEX.type(_size(name))), axis_index_p.bind(axis_name=name))
    return index


# exchange -------------------------------------------------------------------------------------------------------


def _gather_collective(size: int, args: Any, dims: Any, *, axis_name: Any, axis_size: int, axis: int) -> Any:
    (x,), (dim,) = args, dims
    return batch_axis_to(x, dim, size, axis), None


def _gather_batch(size: int, args: Any, dims: Any, *, axis_name: Any, axis_size: int, axis: int) -> Any:
    x = batch_axis_to(args[0], dims[0], size)
    return all_gather_p.bind(x, axis_name=axis_name, axis_size=axis_size, axis=axis + 1), 0


def _gather_transpose(ct: Any, x: Any, *, axis_name: Any, axis_size: int, axis: int) -> Any:
    total = psum_p.bind(ct, axis_name=axis_name)
    starts = [INDEX.type(0)] * len(shape_of(ct))
    starts[axis] = axis_index_p.bind(axis_name=axis_name)
    sizes = insert_at(x.aval.shape, axis, 1)
    return (squeeze(dynamic_slice_p.bind(total, *starts, sizes=sizes), (axis,)),)


all_gather_p: Primitive = linear_unary(
    "all_gather",
    impl=_unbound,
    lower=Host("the axis is not mapped: vmap replaces collectives"),
    shape=lambda x, *, axis_name, axis_size, axis: x.update(shape=insert_at(x.shape, axis, axis_size)),
    transpose=_gather_transpose,
    batch=_gather_batch,
    collective=_gather_collective,
)


def all_gather(x: Any, axis_name: Any, *, axis: int = 0, tiled: bool = False) -> Any:
    """The values of ``x`` in all instances, along a new axis at ``axis`` of the result (``tiled``: end to end)."""
    size = axis_size(axis_name)
    shape = shape_of(x)
    axis = canonicalize_axis(axis, len(shape) if tiled else len(shape) + 1)
    names = _names(axis_name)
    for name in reversed(names):
        x = all_gather_p.bind(x, axis_name=name, axis_size=_size(name), axis=axis)
    if tiled:
        return reshape(x, (*shape[:axis], size * shape[axis], *shape[axis + 1 :]))
    return reshape(x, insert_at(shape, axis, size))


def _permute_collective(size: int, args: Any, dims: Any, *, axis_name: Any, perm: Any) -> Any:
    x = batch_axis_to(args[0], dims[0], size)
    source = np.full(size, size, INDEX)  # out of bounds: instances that receive nothing get zeros
    for sender, receiver in perm:
        source[receiver] = sender
    return gather_p.bind(x, source, axes=(0,), mode="zero"), 0


ppermute_p: Primitive = linear_unary(
    "ppermute",
    impl=_unbound,
    lower=Host("the axis is not mapped: vmap replaces collectives"),
    shape=lambda x, *, axis_name, perm: x.strong(),
    transpose=lambda ct, x, *, axis_name, perm: (
        ppermute_p.bind(ct, axis_name=axis_name, perm=tuple([(b, a) for a, b in perm])),
    ),
    batch=_everywhere("ppermute"),
    collective=_permute_collective,
)
_PRIMITIVES["ppermute"] = ppermute_p


def _one_name(function: str, axis_name: Any) -> Any:
    names = _names(axis_name)
    if len(names) != 1:
        raise ValueError(f"{function} works along one axis at a time, found the names {names}")
    return names[0]


def ppermute(x: Any, axis_name: Any, perm: Sequence[tuple[int, int]]) -> Any:
    """Send ``x`` from instance to instance, by (sender, receiver) pairs; who receives nothing gets zeros."""
    name = _one_name("ppermute", axis_name)
    size = _size(name)
    pairs = tuple([(int(a), int(b)) for a, b in perm])
    for what, members in (("senders", [a for a, _ in pairs]), ("receivers", [b for _, b in pairs])):
        if len(set(members)) != len(members) or any(not 0 <= k < size for k in members):
            raise ValueError(f"ppermute: {what} {members} must be distinct numbers from 0 to {size - 1}")
    return ppermute_p.bind(x, axis_name=name, perm=pairs)


def pshuffle(x: Any, axis_name: Any, perm: Sequence[int]) -> Any:
    """Instance ``k`` receives ``x`` from instance ``perm[k]``."""
    name = _one_name("pshuffle", axis_name)
    if sorted(perm) != list(range(_size(name))):
        raise ValueError(f"pshuffle: {list(perm)} is not a permutation of the {_size(name)} instances")
    return ppermute(x, name, list(zip(perm, range(len(perm)), strict=True)))


def _all_to_all_shape(x: ShapedArray, *, axis_name: Any, split_axis: int, concat_axis: int) -> ShapedArray:
    kept = x.shape[:split_axis] + x.shape[split_axis + 1 :]
    return ShapedArray(insert_at(kept, concat_axis, x.shape[split_axis]), x.dtype)


def _all_to_all_collective(
    size: int, args: Any, dims: Any, *, axis_name: Any, split_axis: int, concat_axis: int
) -> Any:
    x = batch_axis_to(args[0], dims[0], size)
    order = [a for a in range(len(shape_of(x))) if a not in (0, split_axis + 1)]
    order.insert(concat_axis, 0)
    return transpose(x, (split_axis + 1, *order)), 0


def _all_to_all_batch(size: int, args: Any, dims: Any, *, axis_name: Any, split_axis: int, concat_axis: int) -> Any:
    x = batch_axis_to(args[0], dims[0], size)
    out = all_to_all_p.bind(x, axis_name=axis_name, split_axis=split_axis + 1, concat_axis=concat_axis + 1)
    return out, 0


all_to_all_p: Primitive = linear_unary(
    "all_to_all",
    impl=_unbound,
    lower=Host("the axis is not mapped: vmap replaces collectives"),
    shape=_all_to_all_shape,
    transpose=lambda ct, x, *, axis_name, split_axis, concat_axis: (
        all_to_all_p.bind(ct, axis_name=axis_name, split_axis=concat_axis, concat_axis=split_axis),
    ),
    batch=_all_to_all_batch,
    collective=_all_to_all_collective,
)


def all_to_all(x: Any, axis_name: Any, split_axis: int, concat_axis: int, *, tiled: bool = False) -> Any:
    """Instance ``i`` sends the ``j``-th piece of ``x`` along ``split_axis`` to instance ``j``.

    Untiled, ``split_axis`` has the size of the named axis and disappears; the pieces received are stacked along a new
    axis at ``concat_axis``. ``tiled`` pieces have any length and are joined end to end along ``concat_axis``.
    """
    name = _one_name("all_to_all", axis_name)
    size, shape = _size(name), shape_of(x)
    split_axis = canonicalize_axis(split_axis, len(shape), "split_axis")
    concat_axis = canonicalize_axis(concat_axis, len(shape), "concat_axis")
    extent = shape[split_axis]
    if extent != size and not (tiled and extent % size == 0):
        raise ValueError(
            f"all_to_all: axis {split_axis} of shape {shape} must have the size {size} of axis {name!r}"
            + (" or a multiple of it" if tiled else ", or pass tiled=True")
        )
    params = {"axis_name": name, "split_axis": split_axis, "concat_axis": concat_axis}
    if not tiled:
        return all_to_all_p.bind(x, **params)
    pieces = reshape(x, (*shape[:split_axis], size, extent // size, *shape[split_axis + 1 :]))
    out = all_to_all_p.bind(pieces, **params)
    own = shape_of(out)
    return reshape(out, (*own[:concat_axis], size * own[concat_axis + 1], *own[concat_axis + 2 :]))


def pswapaxes(x: Any, axis_name: Any, axis: int, *, tiled: bool = False) -> Any:
    """Swap the named axis with axis ``axis`` of ``x``."""
    return all_to_all(x, axis_name, axis, axis, tiled=tiled)
