"""Windows at computed positions: ``dynamic_slice`` and ``dynamic_update_slice``.

The window's extents are static, its start is data. A start is clamped so that the window fits, as in JAX. Where starts
differ along a batch, a window becomes a gather and an update a scatter, over those axes only that the window can move
along.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import DynamicSlice, DynamicUpdate
from ..core.primitive import ZERO, Linear, Primitive
from .create import broadcasted_iota, instantiate_zeros
from .elementwise import add, convert_element_type, maximum, minimum
from .indexing import INDEX, gather_p, other_axes, scatter_p
from .shape import batch_axis_to, insert_at
from .structural import bind_checked, broadcast_in_dim, shape_of, transpose

__all__ = ["dynamic_slice", "dynamic_slice_p", "dynamic_update_slice", "dynamic_update_slice_p"]


def _check_window(name: str, shape: tuple[int, ...], sizes: tuple[int, ...], starts: Sequence[ShapedArray]) -> None:
    if len(sizes) != len(shape) or len(starts) != len(shape):
        raise ValueError(
            f"{name}: shape {shape} needs one start and one size per axis, found {len(starts)} starts and sizes {sizes}"
        )
    for axis, (k, n) in enumerate(zip(sizes, shape, strict=True)):
        if not 0 <= k <= n:
            raise ValueError(f"{name}: a window of shape {sizes} does not fit into shape {shape} (axis {axis})")
    for s in starts:
        if s.shape != () or s.dtype.kind not in "iu":
            raise TypeError(f"{name}: starts must be integer scalars, found {s}")


def _window(shape: tuple[int, ...], starts: Sequence[Any], sizes: Sequence[int]) -> tuple[slice, ...]:
    index = []
    for n, s, k in zip(shape, starts, sizes, strict=True):
        s = min(max(int(s), 0), n - k)
        index.append(slice(s, s + k))
    return tuple(index)


def _moving_axes(shape: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple([a for a, (n, k) in enumerate(zip(shape, sizes, strict=True)) if k < n])


def _window_indices(
    size: int, shape: Sequence[int], starts: Sequence[Any], dims: Sequence[int | None], sizes: Sequence[int]
) -> list[Any]:
    """For each axis that the window can move along, its indices: shape ``(size, *extents of those axes)``."""
    moving = _moving_axes(shape, sizes)
    window = (size, *[sizes[a] for a in moving])
    indices = []
    for k, a in enumerate(moving):
        start = convert_element_type(starts[a], INDEX)
        start = minimum(maximum(start, INDEX.type(0)), INDEX.type(shape[a] - sizes[a]))
        start = broadcast_in_dim(start, window, () if dims[a] is None else (0,))
        indices.append(add(start, broadcasted_iota(INDEX, window, k + 1)))
    return indices


# dynamic_slice --------------------------------------------------------------------------------------------------


def _slice_shape(x: ShapedArray, *starts: ShapedArray, sizes: tuple[int, ...]) -> ShapedArray:
    _check_window("dynamic_slice", x.shape, sizes, starts)
    return x.update(shape=sizes)


def _slice_jvp(primals: Any, tangents: Any, out: Any, *, sizes: tuple[int, ...]) -> Any:
    return ZERO if tangents[0] is ZERO else dynamic_slice_p.bind(tangents[0], *primals[1:], sizes=sizes)


def _slice_transpose(ct: Any, x: Any, *starts: Any, sizes: tuple[int, ...]) -> Any:
    return (dynamic_update_slice_p.bind(instantiate_zeros(x.aval), ct, *starts), *[None] * len(starts))


def _slice_batch(size: int, args: Any, dims: Any, *, sizes: tuple[int, ...]) -> Any:
    (x, *starts), (dim, *start_dims) = args, dims
    if all(d is None for d in start_dims):
        starts = insert_at(starts, dim, INDEX.type(0))
        return dynamic_slice_p.bind(x, *starts, sizes=insert_at(sizes, dim, size)), dim
    shape = shape_of(x)
    own = shape if dim is None else shape[:dim] + shape[dim + 1 :]
    moving = _moving_axes(own, sizes)
    if not moving:
        return x, dim
    indices = _window_indices(size, own, starts, start_dims, sizes)
    axes = moving
    if dim is not None:
        x = batch_axis_to(x, dim, size)
        indices = [broadcasted_iota(INDEX, shape_of(indices[0]), 0), *indices]
        axes = (0, *[a + 1 for a in moving])
    out = gather_p.bind(x, *indices, axes=axes, mode="promise_in_bounds")
    order = (*moving, *other_axes(len(own), moving))
    return transpose(out, [0, *[1 + order.index(a) for a in range(len(own))]]), 0


dynamic_slice_p = Primitive(
    "dynamic_slice",
    impl=lambda x, *starts, sizes: np.asarray(x)[_window(np.shape(x), starts, sizes)],
    shape=_slice_shape,
    jvp=_slice_jvp,
    transpose=_slice_transpose,
    batch=_slice_batch,
    lower=DynamicSlice(),
    samples=lambda rng: [
        ((rng.normal(size=s), *[np.int64(b) for b in starts]), {"sizes": k})
        for s, starts, k in [
            ((5,), (1,), (3,)),
            ((5,), (9,), (3,)),
            ((3, 4), (-2, 1), (2, 2)),
            ((3, 4), (0, 1), (3, 2)),
            ((2, 3), (1, 1), (2, 3)),
            ((2, 3), (1, 1), (0, 1)),
            ((), (), ()),
        ]
    ],
)


def dynamic_slice(x: Any, start_indices: Sequence[Any], slice_sizes: Sequence[int]) -> Any:
    """The window of shape ``slice_sizes`` at ``start_indices``: one integer scalar (maybe traced) per axis.

    Starts are clamped so that the window fits; a negative one is clamped to 0.
    """
    sizes = tuple([operator.index(k) for k in slice_sizes])
    return bind_checked(dynamic_slice_p, x, *start_indices, sizes=sizes)


# dynamic_update_slice -------------------------------------------------------------------------------------------


def _update_shape(x: ShapedArray, update: ShapedArray, *starts: ShapedArray) -> ShapedArray:
    _check_window("dynamic_update_slice", x.shape, update.shape, starts)
    if x.dtype != update.dtype:
        raise TypeError(f"dynamic_update_slice: an update of {update.dtype.name} into an array of {x.dtype.name}")
    return x.strong()


def _update_impl(x: Any, update: Any, *starts: Any) -> Any:
    out = np.array(x)
    out[_window(out.shape, starts, np.shape(update))] = update
    return out


def _update_jvp(primals: Any, tangents: Any, out: Any) -> Any:
    pairs = zip(primals[:2], tangents[:2], strict=True)
    tx, tu = [instantiate_zeros(aval_of(p)) if t is ZERO else t for p, t in pairs]
    return dynamic_update_slice_p.bind(tx, tu, *primals[2:])


def _update_transpose(ct: Any, x: Any, update: Any, *starts: Any) -> Any:
    aval = update.aval if type(update) is Linear else aval_of(update)
    ct_x = dynamic_update_slice_p.bind(ct, instantiate_zeros(aval), *starts) if type(x) is Linear else None
    ct_u = dynamic_slice_p.bind(ct, *starts, sizes=aval.shape) if type(update) is Linear else None
    return (ct_x, ct_u, *[None] * len(starts))


def _update_batch(size: int, args: Any, dims: Any) -> Any:
    (x, update, *starts), (dim, update_dim, *start_dims) = args, dims
    shape = shape_of(update)
    sizes = shape if update_dim is None else shape[:update_dim] + shape[update_dim + 1 :]
    x = batch_axis_to(x, dim, size)
    update = batch_axis_to(update, update_dim, size)
    if all(d is None for d in start_dims):
        return dynamic_update_slice_p.bind(x, update, INDEX.type(0), *starts), 0
    own = shape_of(x)[1:]
    moving = _moving_axes(own, sizes)
    if not moving:
        return update, 0
    indices = _window_indices(size, own, starts, start_dims, sizes)
    rows = broadcasted_iota(INDEX, shape_of(indices[0]), 0)
    update = transpose(update, [0, *[a + 1 for a in (*moving, *other_axes(len(own), moving))]])
    axes = (0, *[a + 1 for a in moving])
    return scatter_p.bind(x, update, rows, *indices, axes=axes, mode="promise_in_bounds", unique=True), 0


dynamic_update_slice_p = Primitive(
    "dynamic_update_slice",
    impl=_update_impl,
    shape=_update_shape,
    jvp=_update_jvp,
    transpose=_update_transpose,
    batch=_update_batch,
    lower=DynamicUpdate(),
    samples=lambda rng: [
        ((rng.normal(size=s), rng.normal(size=k), *[np.int64(b) for b in starts]), {})
        for s, k, starts in [
            ((5,), (3,), (1,)),
            ((5,), (3,), (9,)),
            ((3, 4), (2, 2), (-2, 1)),
            ((3, 4), (3, 2), (0, 1)),
            ((2, 3), (2, 3), (1, 1)),
            ((2, 3), (0, 1), (1, 1)),
            ((), (), ()),
        ]
    ],
)


def dynamic_update_slice(x: Any, update: Any, start_indices: Sequence[Any]) -> Any:
    """``x`` with the window at ``start_indices`` replaced by ``update``, of ``x``'s dtype; starts as above."""
    return bind_checked(dynamic_update_slice_p, x, update, *start_indices)
