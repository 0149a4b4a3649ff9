"""Reading and writing at computed indices: ``gather`` and the ``scatter`` family.

``gather(x, indices, axes)`` is NumPy's advanced indexing with the indexed axes first: all index arrays have one shape
``I``, array ``k`` indexes axis ``axes[k]``, and the result's shape is ``I`` plus the other axes of ``x`` in order.
``scatter(x, updates, indices, axes)`` is ``x`` with ``updates`` of that shape written there; ``scatter_add``,
``scatter_mul``, ``scatter_max`` and ``scatter_min`` combine them with what is there. Indices count from zero: a
negative index is out of bounds (the NumPy face wraps it), and ``mode`` says what out of bounds means:

========================  =============================================  ============================================
mode                      a read gives                                   a write
========================  =============================================  ============================================
``"clip"``                the nearest element                            goes to the nearest element
``"fill"``, ``"drop"``    NaN; the least integer if signed, the          is dropped
                          greatest if unsigned; False
``"zero"``                0: what ``"fill"`` is to derivatives
``"promise_in_bounds"``   the caller vouches that no index is outside    the same
========================  =============================================  ============================================

Gather and scatter-add are each other's transposes. Where several updates meet one element, ``scatter`` keeps the last,
as NumPy does, and only that one has a derivative; ``scatter_max`` and ``scatter_min`` split it evenly between ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Gather, Scatter
from ..core.primitive import ZERO, Linear, NotLinear, Primitive
from ..core.trace import Tracer
from ..errors import FuncgradError
from ..util import canonicalize_axis, prod
from .create import broadcasted_iota, full, full_like, instantiate_zeros, iota
from .elementwise import add, convert_element_type, div, eq, mul, select
from .families import broadcast_shapes
from .reduce import share_of_ties
from .shape import batch_axis_to
from .structural import bind_checked, broadcast_in_dim, broadcast_to, reshape, shape_of, transpose

__all__ = [
    "gather",
    "gather_p",
    "scatter",
    "scatter_add",
    "scatter_add_p",
    "scatter_max",
    "scatter_max_p",
    "scatter_min",
    "scatter_min_p",
    "scatter_mul",
    "scatter_mul_p",
    "scatter_p",
    "take",
    "take_along_axis",
]

Axes = tuple[int, ...]
_READS = ("clip", "fill", "zero", "promise_in_bounds")
_WRITES = ("drop", "clip", "promise_in_bounds")
_WRITE_OF_READ = {"fill": "drop", "zero": "drop"}
_READ_OF_WRITE = {"drop": "zero"}
INDEX = np.dtype(np.intp)


# what the rules share -------------------------------------------------------------------------------------------


def other_axes(rank: int, axes: Axes) -> Axes:
    return tuple([a for a in range(rank) if a not in axes])


def _check(name: str, x: ShapedArray, indices: Sequence[ShapedArray], axes: Axes, mode: str, modes: Any) -> Axes:
    """Raise on indices that do not fit; the shape of a read."""
    if mode not in modes:
        raise ValueError(f"{name}: mode must be one of {', '.join(map(repr, modes))}, found {mode!r}")
    if len(axes) != len(indices) or list(axes) != sorted(set(axes)) or any(not 0 <= a < x.ndim for a in axes):
        raise ValueError(
            f"{name}: axes {axes} must name distinct axes of shape {x.shape} in ascending order, one for each of "
            f"{len(indices)} index arrays"
        )
    for i in indices:
        if i.dtype.kind not in "iu":
            raise TypeError(f"{name}: indices must have an integer dtype, found {i.dtype.name}")
        if i.shape != indices[0].shape:
            raise ValueError(f"{name}: index arrays have shapes {[i.shape for i in indices]}; broadcast them first")
    shape: tuple[int, ...] = indices[0].shape if indices else ()
    if mode in ("clip", "promise_in_bounds") and prod(shape):
        _check_extents(name, x.shape, axes)
    return (*shape, *[x.shape[a] for a in other_axes(x.ndim, axes)])


def _check_extents(name: str, shape: tuple[int, ...], axes: Axes) -> None:
    for a in axes:
        if not shape[a]:
            raise IndexError(f"{name}: index is out of bounds for axis {a} with size 0 (shape {shape})")


def _signed(index: Any, extent: int) -> Any:
    """As intp; unsigned numbers too large for it stay out of bounds."""
    index = np.asarray(index)
    if index.dtype.kind == "u":
        index = np.minimum(index, min(extent, np.iinfo(index.dtype).max))
    return index.astype(INDEX, copy=False)


def _clamped(shape: tuple[int, ...], indices: Sequence[Any], axes: Axes) -> tuple[Any, ...]:
    pairs = zip(indices, axes, strict=True)
    return tuple([np.minimum(np.maximum(_signed(i, shape[a]), 0), shape[a] - 1) for i, a in pairs])


def _in_bounds(shape: tuple[int, ...], indices: Sequence[Any], axes: Axes) -> Any:
    inside = np.True_
    for index, a in zip(indices, axes, strict=True):
        index = _signed(index, shape[a])
        inside = inside & (index >= 0) & (index < shape[a])
    return np.asarray(inside)


def _stack_indices(size: int, indices: Sequence[Any], dims: Sequence[int | None]) -> list[Any]:
    return [batch_axis_to(i, d, size) for i, d in zip(indices, dims, strict=True)]


def _batch_iota(size: int, like: Any) -> Any:
    """The position along the batch axis: one more index, where operand and indices are batched together."""
    return broadcasted_iota(INDEX, shape_of(like), 0)


# gather ---------------------------------------------------------------------------------------------------------


def fill_value(dtype: np.dtype[Any]) -> Any:
    """What an out-of-bounds read gives: NaN, the least signed or greatest unsigned integer, False."""
    if dtype.kind in "fc":
        return dtype.type(np.nan)
    if dtype.kind == "b":
        return np.False_
    limits = np.iinfo(dtype)
    return dtype.type(limits.min if dtype.kind == "i" else limits.max)


def _gather_shape(x: ShapedArray, *indices: ShapedArray, axes: Axes, mode: str) -> ShapedArray:
    return ShapedArray(_check("gather", x, indices, axes, mode, _READS), x.dtype, x.weak_type)


def _gather_impl(x: Any, *indices: Any, axes: Axes, mode: str) -> Any:
    x = np.asarray(x)
    rest = other_axes(x.ndim, axes)
    shape = np.shape(indices[0]) if indices else ()
    empty = any(not x.shape[a] for a in axes)
    if mode in ("clip", "promise_in_bounds"):
        if empty and prod(shape):
            _check_extents("gather", x.shape, axes)
        if axes == (0,) and not empty:
            return x.take(_signed(indices[0], x.shape[0]), axis=0, mode="clip")
    missing = fill_value(x.dtype) if mode == "fill" else x.dtype.type(0)
    if empty:
        return np.full((*shape, *[x.shape[a] for a in rest]), missing, x.dtype)
    out = x.transpose((*axes, *rest))[_clamped(x.shape, indices, axes)]
    if mode in ("fill", "zero"):
        inside = _in_bounds(x.shape, indices, axes)
        if not inside.all():
            out = np.where(inside.reshape(inside.shape + (1,) * len(rest)), out, missing)
    return out


def _gather_jvp(primals: Any, tangents: Any, out: Any, *, axes: Axes, mode: str) -> Any:
    if tangents[0] is ZERO:
        return ZERO
    return gather_p.bind(tangents[0], *primals[1:], axes=axes, mode="zero" if mode == "fill" else mode)


def _gather_transpose(ct: Any, x: Any, *indices: Any, axes: Axes, mode: str) -> Any:
    zeros = instantiate_zeros(x.aval)
    added = scatter_add_p.bind(zeros, ct, *indices, axes=axes, mode=_WRITE_OF_READ.get(mode, mode), unique=False)
    return (added, *[None] * len(indices))


def _gather_batch(size: int, args: Any, dims: Any, *, axes: Axes, mode: str) -> Any:
    (x, *indices), (dim, *index_dims) = args, dims
    if all(d is None for d in index_dims):
        moved = tuple([a + (a >= dim) for a in axes])
        before = sum(a not in moved for a in range(dim))
        return gather_p.bind(x, *indices, axes=moved, mode=mode), len(shape_of(indices[0])) + before if indices else dim
    indices = _stack_indices(size, indices, index_dims)
    if dim is None:
        return gather_p.bind(x, *indices, axes=axes, mode=mode), 0
    x = batch_axis_to(x, dim, size)
    axes = (0, *[a + 1 for a in axes])
    return gather_p.bind(x, _batch_iota(size, indices[0]), *indices, axes=axes, mode=mode), 0


def _gather_samples(rng: np.random.Generator) -> list[Any]:
    rows = [
        ((5,), (0,), (3,), 5, "clip"),
        ((3, 4), (0,), (2, 3), 3, "clip"),
        ((3, 4), (1,), (2,), 9, "clip"),
        ((3, 4), (0, 1), (5,), 3, "promise_in_bounds"),
        ((2, 3, 4), (0, 2), (2, 2), 2, "clip"),
        ((4, 2), (0,), (6,), 4, "zero"),
        ((4,), (0,), (), 4, "clip"),
        ((0, 2), (0,), (0,), 1, "clip"),
    ]
    made = [
        ((rng.normal(size=s), *[rng.integers(0, high, size=shape) for _ in axes]), {"axes": axes, "mode": mode})
        for s, axes, shape, high, mode in rows
    ]
    made.append(((rng.normal(size=(4, 2)), np.array([-1, 0, 9, 3])), {"axes": (0,), "mode": "zero"}))
    made.append(((rng.integers(0, 9, size=(4,)), np.array([-1, 0, 9, 3])), {"axes": (0,), "mode": "fill"}))
    return made


gather_p = Primitive(
    "gather",
    impl=_gather_impl,
    shape=_gather_shape,
    jvp=_gather_jvp,
    transpose=_gather_transpose,
    batch=_gather_batch,
    lower=Gather(),
    samples=_gather_samples,
)


# scatter --------------------------------------------------------------------------------------------------------


def _scatter_shape(name: str) -> Any:
    def shape(
        x: ShapedArray, updates: ShapedArray, *indices: ShapedArray, axes: Axes, mode: str, unique: bool
    ) -> ShapedArray:
        wanted = _check(name, x, indices, axes, mode, _WRITES)
        if updates.shape != wanted:
            raise ValueError(f"{name}: updates have shape {updates.shape}; the indexed part has shape {wanted}")
        if updates.dtype != x.dtype:
            raise TypeError(f"{name}: updates of dtype {updates.dtype.name} into an array of {x.dtype.name}")
        return x.strong()

    return shape


def _scatter_impl(name: str, ufunc: np.ufunc | None) -> Any:
    def impl(x: Any, updates: Any, *indices: Any, axes: Axes, mode: str, unique: bool) -> Any:
        out = np.array(x)
        updates = np.asarray(updates)
        if mode != "drop" and any(not out.shape[a] for a in axes) and np.size(indices[0]):
            _check_extents(name, out.shape, axes)
        if mode == "drop":
            inside = _in_bounds(out.shape, indices, axes)
            if not inside.all():
                indices = tuple([np.asarray(i)[inside] for i in indices])
                updates = updates[inside]
        if indices and not np.size(indices[0]):
            return out
        target = out.transpose((*axes, *other_axes(out.ndim, axes)))
        index = _clamped(out.shape, indices, axes)
        if ufunc is None:
            target[index] = updates
        elif unique or not indices or np.size(indices[0]) == 1:
            target[index] = ufunc(target[index], updates)
        else:
            ufunc.at(target, index, updates)
        return out

    return impl


def _scatter_batch(name: str) -> Any:
    def batch(size: int, args: Any, dims: Any, *, axes: Axes, mode: str, unique: bool) -> Any:
        (x, updates, *indices), (dim, update_dim, *index_dims) = args, dims
        bind = _SCATTERS[name].bind
        x = batch_axis_to(x, dim, size)
        moved = tuple([a + 1 for a in axes])
        if all(d is None for d in index_dims):  # the batch axis is the first of those not indexed
            rank = len(shape_of(indices[0])) if indices else 0
            updates = batch_axis_to(updates, update_dim, size, rank)
            return bind(x, updates, *indices, axes=moved, mode=mode, unique=unique), 0
        updates = batch_axis_to(updates, update_dim, size)
        indices = _stack_indices(size, indices, index_dims)
        own = _batch_iota(size, indices[0])
        return bind(x, updates, own, *indices, axes=(0, *moved), mode=mode, unique=unique), 0

    return batch


def _scatter_samples(rng: np.random.Generator) -> list[Any]:
    rows = [
        ((5,), (0,), np.array([3, 0]), "drop", True),
        ((4,), (0,), np.array([1, 1, 3, 1]), "drop", False),
        ((3, 4), (0,), np.array([2, 0, 2]), "clip", False),
        ((3, 4), (1,), np.array([[0, 7], [-2, 1]]), "drop", False),
        ((2, 3, 2), (0, 2), np.array([1, 0, 1]), "promise_in_bounds", False),
        ((4,), (0,), np.array(2), "drop", False),
        ((3, 2), (0,), np.zeros(0, np.int64), "drop", True),
    ]
    made = []
    for shape, axes, index, mode, unique in rows:
        x = rng.permutation(prod(shape)) / 7 + 0.31
        window = (*index.shape, *[shape[a] for a in other_axes(len(shape), axes)])
        updates = (rng.permutation(prod(window)) / 7 + 0.38).reshape(window)
        indices = [index] * len(axes)
        made.append(((x.reshape(shape), updates, *indices), {"axes": axes, "mode": mode, "unique": unique}))
    return made


_SCATTERS: dict[str, Primitive] = {}


def _scatter(name: str, ufunc: np.ufunc | None, combine: str, *, jvp: Any, transpose: Any) -> Primitive:
    primitive = Primitive(
        name,
        impl=_scatter_impl(name, ufunc),
        shape=_scatter_shape(name),
        jvp=jvp,
        transpose=transpose,
        batch=_scatter_batch(name),
        lower=Scatter(combine),
        samples=_scatter_samples,
    )
    _SCATTERS[name] = primitive
    return primitive


def _read(x: Any, indices: Sequence[Any], axes: Axes, mode: str) -> Any:
    """What is where a scatter writes; 0 where it drops."""
    return gather_p.bind(x, *indices, axes=axes, mode=_READ_OF_WRITE.get(mode, mode))


def _instantiated(primals: Any, tangents: Any) -> tuple[Any, Any]:
    tx, tu = [instantiate_zeros(aval_of(p)) if t is ZERO else t for p, t in zip(primals[:2], tangents[:2], strict=True)]
    return tx, tu


def _linear_scatter_jvp(name: str) -> Any:
    def jvp(primals: Any, tangents: Any, out: Any, **params: Any) -> Any:
        return _SCATTERS[name].bind(*_instantiated(primals, tangents), *primals[2:], **params)

    return jvp


def _winners(shape: tuple[int, ...], indices: Sequence[Any], axes: Axes, mode: str) -> Any:
    """Which updates remain: number them, scatter the numbers, and see who finds his own."""
    window = shape_of(indices[0])
    numbers = add(reshape(iota(INDEX, prod(window)), window), full(window, 1, INDEX))
    extents = tuple([shape[a] for a in axes])
    own = tuple(range(len(axes)))
    left = scatter_p.bind(full(extents, 0, INDEX), numbers, *indices, axes=own, mode=mode, unique=False)
    return eq(_read(left, indices, own, mode), numbers)


def _scatter_transpose(ct: Any, x: Any, u: Any, *indices: Any, axes: Axes, mode: str, unique: bool) -> Any:
    params = {"axes": axes, "mode": mode, "unique": unique}
    ct_x = ct_u = None
    if type(x) is Linear:
        window = u.aval.shape if type(u) is Linear else shape_of(u)
        ct_x = scatter_p.bind(ct, full(window, 0, aval_of(ct).dtype), *indices, **params)
    if type(u) is Linear:
        ct_u = _read(ct, indices, axes, mode)
        if not unique and indices and prod(shape_of(indices[0])) > 1:
            kept = _winners(shape_of(ct), indices, axes, mode)
            kept = broadcast_in_dim(kept, shape_of(ct_u), range(len(shape_of(kept))))
            ct_u = select(kept, ct_u, full_like(ct_u, 0))
    return (ct_x, ct_u, *[None] * len(indices))


scatter_p = _scatter("scatter", None, "set", jvp=_linear_scatter_jvp("scatter"), transpose=_scatter_transpose)


def _scatter_add_transpose(ct: Any, x: Any, u: Any, *indices: Any, axes: Axes, mode: str, unique: bool) -> Any:
    ct_u = _read(ct, indices, axes, mode) if type(u) is Linear else None
    return (ct if type(x) is Linear else None, ct_u, *[None] * len(indices))


scatter_add_p = _scatter(
    "scatter_add", np.add, "add", jvp=_linear_scatter_jvp("scatter_add"), transpose=_scatter_add_transpose
)


def _scatter_mul_slope(x: Any, u: Any, indices: Sequence[Any], params: dict[str, Any]) -> Any:
    """d out / d update: the element times all *other* updates that meet it.

    Without duplicates that is the element. With them, the product of the nonzero updates is divided by one's own, and
    zeros are counted: one zero leaves a slope at itself alone, two leave none.
    """
    axes, mode = params["axes"], params["mode"]
    if params["unique"] or not indices or prod(shape_of(indices[0])) <= 1:
        return _read(x, indices, axes, mode)
    zero, one = full_like(u, 0), full_like(u, 1)
    is_zero = eq(u, zero)
    safe = select(is_zero, one, u)
    product = _read(scatter_mul_p.bind(x, safe, *indices, **params), indices, axes, mode)
    zeros = scatter_add_p.bind(full_like(x, 0), select(is_zero, one, zero), *indices, **params)
    others = eq(_read(zeros, indices, axes, mode), select(is_zero, one, zero))  # no zero but one's own
    return select(others, div(product, safe), zero)


def _scatter_mul_jvp(primals: Any, tangents: Any, out: Any, **params: Any) -> Any:
    (x, u, *indices), (tx, tu, *_) = primals, tangents
    parts = []
    if tx is not ZERO:
        parts.append(scatter_mul_p.bind(tx, u, *indices, **params))
    if tu is not ZERO:
        slope = _scatter_mul_slope(x, u, indices, params)
        parts.append(scatter_add_p.bind(full_like(x, 0), mul(tu, slope), *indices, **params))
    return parts[0] if len(parts) == 1 else add(*parts)


def _scatter_mul_transpose(ct: Any, x: Any, u: Any, *indices: Any, axes: Axes, mode: str, unique: bool) -> Any:
    none = [None] * len(indices)
    if type(x) is Linear:
        return (scatter_mul_p.bind(ct, u, *indices, axes=axes, mode=mode, unique=unique), None, *none)
    if not unique and indices and prod(shape_of(indices[0])) > 1:
        raise FuncgradError("scatter_mul is linear in its updates only if the indices are distinct: pass unique=True")
    return (None, _read(mul(ct, x), indices, axes, mode), *none)


scatter_mul_p = _scatter("scatter_mul", np.multiply, "mul", jvp=_scatter_mul_jvp, transpose=_scatter_mul_transpose)


def _scatter_extreme_jvp(primals: Any, tangents: Any, out: Any, *, axes: Axes, mode: str, unique: bool) -> Any:
    """Of all that compete for an element, those that attain the extreme share its derivative evenly."""
    (x, u, *indices), (tx, tu) = primals, _instantiated(primals, tangents)
    params = {"axes": axes, "mode": mode, "unique": unique}
    dtype = aval_of(x).dtype
    x_attains = convert_element_type(eq(x, out), dtype)
    u_attains = convert_element_type(eq(u, _read(out, indices, axes, mode)), dtype)
    share = share_of_ties(scatter_add_p.bind(x_attains, u_attains, *indices, **params))
    return mul(scatter_add_p.bind(mul(tx, x_attains), mul(tu, u_attains), *indices, **params), share)


scatter_max_p = _scatter("scatter_max", np.maximum, "max", jvp=_scatter_extreme_jvp, transpose=NotLinear())
scatter_min_p = _scatter("scatter_min", np.minimum, "min", jvp=_scatter_extreme_jvp, transpose=NotLinear())


# functions ------------------------------------------------------------------------------------------------------


def _prepare(name: str, x: Any, indices: Sequence[Any], axes: Sequence[int]) -> tuple[list[Any], Axes]:
    """Indices as arrays of one shape, in the order of their axes."""
    rank = len(shape_of(x))
    canonical = [canonicalize_axis(a, rank, "axes") for a in axes]
    if len(canonical) != len(indices):
        raise ValueError(f"{name}: {len(indices)} index arrays for axes {tuple(axes)}; give one for each axis")
    arrays = [i if isinstance(i, Tracer) else np.asarray(i) for i in indices]
    if arrays:
        shape = broadcast_shapes(name, [shape_of(i) for i in arrays])
        arrays = [broadcast_to(i, shape) for i in arrays]
    order = sorted(range(len(canonical)), key=lambda k: canonical[k])
    return [arrays[k] for k in order], tuple([canonical[k] for k in order])


def gather(x: Any, indices: Sequence[Any], axes: Sequence[int], mode: str = "clip") -> Any:
    """Elements (or subarrays) of ``x`` at ``indices``, one integer array per axis in ``axes``.

    The index arrays broadcast to one shape ``I``; the result has shape ``I`` plus the axes not indexed, in order.
    ``mode`` for indices outside of ``[0, extent)``: ``"clip"``, ``"fill"``, ``"zero"`` or ``"promise_in_bounds"``.
    """
    arrays, sorted_axes = _prepare("gather", x, indices, axes)
    return bind_checked(gather_p, x, *arrays, axes=sorted_axes, mode=mode)


def _scatter_function(primitive: Primitive, what: str) -> Any:
    def function(
        x: Any, updates: Any, indices: Sequence[Any], axes: Sequence[int], mode: str = "drop", unique: bool = False
    ) -> Any:
        arrays, sorted_axes = _prepare(primitive.name, x, indices, axes)
        window = shape_of(arrays[0]) if arrays else ()
        window += tuple([shape_of(x)[a] for a in other_axes(len(shape_of(x)), sorted_axes)])
        updates = broadcast_to(updates, window)
        return bind_checked(primitive, x, updates, *arrays, axes=sorted_axes, mode=mode, unique=bool(unique))

    function.__name__ = function.__qualname__ = primitive.name
    function.__doc__ = (
        f"``x`` with ``updates`` {what} at ``indices``, one integer array per axis in ``axes``.\n\n"
        "    The indexed part has the shape that ``gather`` gives; ``updates`` (of ``x``'s dtype) broadcast to it.\n"
        "    ``mode`` for indices outside of ``[0, extent)``: ``'drop'``, ``'clip'`` or ``'promise_in_bounds'``.\n"
        "    ``unique`` promises that no element is met twice.\n    "
    )
    return function


scatter = _scatter_function(scatter_p, "written (the last one wins)")
scatter_add = _scatter_function(scatter_add_p, "added")
scatter_mul = _scatter_function(scatter_mul_p, "multiplied in")
scatter_max = _scatter_function(scatter_max_p, "competing for the maximum")
scatter_min = _scatter_function(scatter_min_p, "competing for the minimum")


def take(x: Any, indices: Any, axis: int, mode: str = "clip") -> Any:
    """``np.take``: the axis is replaced by the axes of ``indices``."""
    axis = canonicalize_axis(axis, len(shape_of(x)))
    index = indices if isinstance(indices, Tracer) else np.asarray(indices)
    rank = len(shape_of(index))
    out = gather(x, (index,), (axis,), mode)
    order = [*range(rank, rank + axis), *range(rank), *range(rank + axis, len(shape_of(out)))]
    return transpose(out, order)


def take_along_axis(x: Any, indices: Any, axis: int, mode: str = "clip") -> Any:
    """``np.take_along_axis``: at each position, the element of ``x`` with that index along ``axis``.

    ``indices`` has the rank of ``x``; all other axes agree or have extent 1 in one of the two.
    """
    shape = shape_of(x)
    axis = canonicalize_axis(axis, len(shape))
    own = shape_of(indices)
    if len(own) != len(shape):
        raise ValueError(f"take_along_axis: indices of shape {own} and an array of shape {shape} differ in rank")
    out = broadcast_shapes("take_along_axis", [own, shape[:axis] + (1,) + shape[axis + 1 :]])
    index = broadcast_to(indices if isinstance(indices, Tracer) else np.asarray(indices), out)
    axes, arrays = [], []
    for a, n in enumerate(shape):
        if a == axis:
            axes.append(a)
            arrays.append(index)
        elif n == out[a]:
            axes.append(a)
            arrays.append(broadcasted_iota(INDEX, out, a))
        else:  # extent 1, stretched
            axes.append(a)
            arrays.append(full(out, 0, INDEX))
    return gather(x, arrays, axes, mode)
