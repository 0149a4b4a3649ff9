"""Slices, reversal, padding and concatenation.

All are linear maps that move elements. A slice and a reversal are views (a map of layouts, no pass over memory); their
transposes write the elements back into zeros, which is ``pad``. ``pad`` and ``concatenate`` assemble pieces into a
fresh array.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.layout import Layout
from ..core.lowering import Assemble, Piece, View
from ..core.primitive import ZERO, Linear, Primitive
from ..util import canonicalize_axes, canonicalize_axis
from .create import full, instantiate_zeros
from .elementwise import select, sub
from .structural import bind_checked, broadcast_in_dim, expand_dims, linear_unary, moveaxis, reduce_sum, shape_of

__all__ = [
    "concatenate",
    "concatenate_p",
    "pad",
    "pad_p",
    "rev",
    "rev_p",
    "slice_in_dim",
    "slice_p",
    "split",
    "stack",
    "strided_slice",
]

PaddingConfig = tuple[tuple[int, int, int], ...]


def insert_at(values: Sequence[Any], position: int, value: Any) -> tuple[Any, ...]:
    """``values`` with ``value`` inserted: a parameter per axis, for an operand that got a batch axis."""
    return (*values[:position], value, *values[position:])


def batch_axis_to(x: Any, dim: int | None, size: int, position: int = 0) -> Any:
    """``x`` with its batch axis at ``position``, repeated along it if it has none."""
    if dim is not None:
        return x if dim == position else moveaxis(x, dim, position)
    shape = shape_of(x)
    kept = [a + (a >= position) for a in range(len(shape))]
    return broadcast_in_dim(x, insert_at(shape, position, size), kept)


# slice ----------------------------------------------------------------------------------------------------------


def _slice_extents(starts: Sequence[int], limits: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    return tuple([max(0, -((b - e) // k)) for b, e, k in zip(starts, limits, strides, strict=True)])


def _slice_shape(x: ShapedArray, *, starts: Any, limits: Any, strides: Any) -> ShapedArray:
    rank = len(x.shape)
    if not rank == len(starts) == len(limits) == len(strides):
        raise ValueError(
            f"slice: shape {x.shape} needs one start, limit and stride per axis, "
            f"found starts {starts}, limits {limits}, strides {strides}"
        )
    for axis, (b, e, k, n) in enumerate(zip(starts, limits, strides, x.shape, strict=True)):
        if not 0 <= b <= e <= n or k < 1:
            raise ValueError(
                f"slice: {b}:{e}:{k} does not fit axis {axis} of shape {x.shape}; "
                "wanted 0 <= start <= limit <= extent and a positive stride"
            )
    return ShapedArray(_slice_extents(starts, limits, strides), x.dtype, x.weak_type)


def _slice_impl(x: Any, *, starts: Any, limits: Any, strides: Any) -> Any:
    return np.asarray(x)[tuple([slice(b, e, k) for b, e, k in zip(starts, limits, strides, strict=True)])]


def _slice_transpose(ct: Any, x: Any, *, starts: Any, limits: Any, strides: Any) -> Any:
    config = []
    for b, k, n, m in zip(starts, strides, x.aval.shape, shape_of(ct), strict=True):
        covered = (m - 1) * k + 1 if m else 0
        config.append((b, n - b - covered, k - 1))
    return (pad(ct, aval_of(ct).dtype.type(0), config),)


def _slice_batch(size: int, args: Any, dims: Any, *, starts: Any, limits: Any, strides: Any) -> Any:
    (x,), (dim,) = args, dims
    params = {
        "starts": insert_at(starts, dim, 0),
        "limits": insert_at(limits, dim, size),
        "strides": insert_at(strides, dim, 1),
    }
    return slice_p.bind(x, **params), dim


slice_p = linear_unary(
    "slice",
    impl=_slice_impl,
    shape=_slice_shape,
    transpose=_slice_transpose,
    batch=_slice_batch,
    lower=View(
        lambda layout, *, starts, limits, strides: layout.slice(
            starts, _slice_extents(starts, limits, strides), strides
        )
    ),
    samples=lambda rng: [
        ((rng.normal(size=(5, 4)),), {"starts": b, "limits": e, "strides": k})
        for b, e, k in [
            ((1, 0), (4, 4), (1, 1)),
            ((0, 1), (5, 4), (2, 2)),
            ((1, 0), (5, 4), (3, 3)),
            ((2, 3), (2, 4), (1, 1)),
        ]
    ],
)


def strided_slice(
    x: Any, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Sequence[int] | None = None
) -> Any:
    """``x[start:limit:stride, ...]`` with one entry per axis: ``0 <= start <= limit <= extent``, strides positive."""
    starts = tuple([operator.index(b) for b in start_indices])
    limits = tuple([operator.index(e) for e in limit_indices])
    steps = (1,) * len(starts) if strides is None else tuple([operator.index(k) for k in strides])
    if limits == shape_of(x) and not any(starts) and all(k == 1 for k in steps):
        return x
    return bind_checked(slice_p, x, starts=starts, limits=limits, strides=steps)


def slice_in_dim(x: Any, start: int | None, limit: int | None, stride: int = 1, axis: int = 0) -> Any:
    """``x[start:limit:stride]`` along one axis, clipped to its extent as Python does; ``stride`` is positive."""
    shape = shape_of(x)
    axis = canonicalize_axis(axis, len(shape))
    if stride < 1:
        raise ValueError(f"slice_in_dim: stride must be positive, found {stride}; reverse with rev")
    b, e, _ = slice(start, limit, stride).indices(shape[axis])
    starts, limits, strides = [0] * len(shape), list(shape), [1] * len(shape)
    starts[axis], limits[axis], strides[axis] = b, max(b, e), stride
    return strided_slice(x, starts, limits, strides)


# reverse --------------------------------------------------------------------------------------------------------


def _rev_shape(x: ShapedArray, *, dimensions: tuple[int, ...]) -> ShapedArray:
    if any(not 0 <= a < x.ndim for a in dimensions) or len(set(dimensions)) != len(dimensions):
        raise ValueError(f"rev: dimensions {dimensions} do not name distinct axes of shape {x.shape}")
    return x


def _rev_batch(size: int, args: Any, dims: Any, *, dimensions: tuple[int, ...]) -> Any:
    (x,), (dim,) = args, dims
    return rev_p.bind(x, dimensions=tuple([a + (a >= dim) for a in dimensions])), dim


rev_p = linear_unary(
    "rev",
    impl=lambda x, *, dimensions: np.flip(x, dimensions),
    shape=_rev_shape,
    transpose=lambda ct, x, *, dimensions: (rev(ct, dimensions),),
    batch=_rev_batch,
    lower=View(lambda layout, *, dimensions: layout.reverse(dimensions)),
    samples=lambda rng: [
        ((rng.normal(size=(2, 3, 4)),), {"dimensions": a}) for a in [(0,), (1,), (0, 2), (0, 1, 2), ()]
    ],
)


def rev(x: Any, dimensions: Sequence[int]) -> Any:
    """``x`` with the order of elements reversed along ``dimensions``."""
    axes = canonicalize_axes(tuple(dimensions), len(shape_of(x)), "dimensions", sort=True)
    return rev_p.bind(x, dimensions=axes) if axes else x


# pad ------------------------------------------------------------------------------------------------------------


def _padded_extent(n: int, lo: int, hi: int, interior: int) -> int:
    return lo + hi + n + max(0, n - 1) * interior


def _pad_shape(x: ShapedArray, value: ShapedArray, *, padding_config: PaddingConfig) -> ShapedArray:
    if value.shape != ():
        raise ValueError(f"pad: the padding value must be a scalar, found shape {value.shape}")
    if x.dtype != value.dtype:
        raise TypeError(f"pad: an array of dtype {x.dtype.name} padded with a value of dtype {value.dtype.name}")
    if len(padding_config) != x.ndim:
        raise ValueError(f"pad: shape {x.shape} needs one (low, high, interior) per axis, found {padding_config}")
    padded = tuple([_padded_extent(n, *c) for n, c in zip(x.shape, padding_config, strict=True)])
    for axis, (extent, entry) in enumerate(zip(padded, padding_config, strict=True)):
        if extent < 0 or entry[2] < 0:
            raise ValueError(f"pad: {entry} does not fit axis {axis} of shape {x.shape}")
    return ShapedArray(padded, x.dtype, x.weak_type)


def _kept_window(n: int, lo: int, hi: int, interior: int) -> tuple[int, int, int]:
    """Which elements of an axis survive negative padding, and where the first lands: (first, count, position)."""
    step, out = interior + 1, _padded_extent(n, lo, hi, interior)
    first = max(0, -(lo // step))
    last = min(n - 1, (out - 1 - lo) // step)
    count = max(0, last - first + 1)
    return first, count, lo + first * step if count else 0


def _pad_regions(shape: tuple[int, ...], config: PaddingConfig) -> tuple[list[int], list[int], list[int], list[int]]:
    windows = [_kept_window(n, *c) for n, c in zip(shape, config, strict=True)]
    firsts, counts, positions = ([w[k] for w in windows] for k in range(3))
    return firsts, counts, positions, [c[2] + 1 for c in config]


def _pad_impl(x: Any, value: Any, *, padding_config: PaddingConfig) -> Any:
    x = np.asarray(x)
    firsts, counts, positions, steps = _pad_regions(x.shape, padding_config)
    out = np.full([_padded_extent(n, *c) for n, c in zip(x.shape, padding_config, strict=True)], value, x.dtype)
    if all(counts):
        target = tuple([slice(p, p + (m - 1) * k + 1, k) for p, m, k in zip(positions, counts, steps, strict=True)])
        out[target] = x[tuple([slice(f, f + m) for f, m in zip(firsts, counts, strict=True)])]
    return out


def _pad_pieces(x: ShapedArray, value: ShapedArray, *, padding_config: PaddingConfig) -> list[Piece]:
    out = Layout.contiguous([_padded_extent(n, *c) for n, c in zip(x.shape, padding_config, strict=True)])
    firsts, counts, positions, steps = _pad_regions(x.shape, padding_config)
    pieces = []
    if tuple(counts) != out.shape:  # some elements are padding: write it everywhere first
        pieces.append(Piece(1, Layout((), ()).broadcast(out.shape, ()), out))
    if all(counts):
        source = Layout.contiguous(x.shape).slice(firsts, counts, [1] * x.ndim)
        pieces.append(Piece(0, source, out.slice(positions, counts, steps)))
    return pieces


def _pad_jvp(primals: Any, tangents: Any, out: Any, *, padding_config: PaddingConfig) -> Any:
    tx, tv = [instantiate_zeros(aval_of(p)) if t is ZERO else t for p, t in zip(primals, tangents, strict=True)]
    return pad_p.bind(tx, tv, padding_config=padding_config)


def _pad_transpose(ct: Any, x: Any, value: Any, *, padding_config: PaddingConfig) -> Any:
    own = x.aval.shape if type(x) is Linear else shape_of(x)
    zero = aval_of(ct).dtype.type(0)
    cropped = pad(ct, zero, [(-lo, -hi, 0) for lo, hi, _ in padding_config])
    limits = [
        min(n, (m - 1) * (c[2] + 1) + 1 if m else 0)
        for n, m, c in zip(shape_of(cropped), own, padding_config, strict=True)
    ]
    ct_x = strided_slice(cropped, [0] * len(own), limits, [c[2] + 1 for c in padding_config])
    ct_value = None
    if type(value) is Linear:
        everything = range(len(own))
        ct_value = sub(reduce_sum(ct, everything), reduce_sum(ct_x, everything))
    return (ct_x if type(x) is Linear else None), ct_value


def _pad_batch(size: int, args: Any, dims: Any, *, padding_config: PaddingConfig) -> Any:
    (x, value), (dim, value_dim) = args, dims
    if value_dim is None:
        return pad_p.bind(x, value, padding_config=insert_at(padding_config, dim, (0, 0, 0))), dim
    x = batch_axis_to(x, dim, size)
    config = ((0, 0, 0), *padding_config)
    own = full(shape_of(x), False, np.bool_)
    is_padding = pad_p.bind(own, np.bool_(True), padding_config=config)
    padded = pad_p.bind(x, aval_of(x).dtype.type(0), padding_config=config)
    value = broadcast_in_dim(value, shape_of(padded), (0,))
    return select(is_padding, value, padded), 0


pad_p = Primitive(
    "pad",
    impl=_pad_impl,
    shape=_pad_shape,
    jvp=_pad_jvp,
    transpose=_pad_transpose,
    batch=_pad_batch,
    lower=Assemble(_pad_pieces),
    samples=lambda rng: [
        ((rng.normal(size=s), np.float64(rng.normal())), {"padding_config": c})
        for s, c in [
            ((2, 3), ((1, 2, 0), (0, 1, 2))),
            ((4, 5), ((-1, 2, 0), (1, -2, 1))),
            ((4,), ((-3, -2, 2),)),
            ((3,), ((-4, 0, 2),)),
            ((0, 2), ((1, 1, 3), (0, 0, 0))),
            ((), ()),
        ]
    ],
)


def pad(x: Any, padding_value: Any, padding_config: Sequence[tuple[int, int, int]]) -> Any:
    """Pad each axis by ``(low, high, interior)`` elements of ``padding_value`` before, after and between its own.

    Negative ``low`` and ``high`` crop (after the interior padding was put in). The value is a scalar of ``x``'s dtype.
    """
    config = tuple([tuple([operator.index(k) for k in entry]) for entry in padding_config])
    if not any(any(entry) for entry in config) and len(config) == len(shape_of(x)):
        return x
    if isinstance(padding_value, (int, float, complex)):
        padding_value = aval_of(x).dtype.type(padding_value)
    return bind_checked(pad_p, x, padding_value, padding_config=config)


# concatenate ----------------------------------------------------------------------------------------------------


def _concatenate_shape(*avals: ShapedArray, dimension: int) -> ShapedArray:
    first = avals[0]
    if not first.ndim:
        raise ValueError("concatenate: zero-dimensional arrays cannot be concatenated; use stack")
    if not 0 <= dimension < first.ndim:
        raise ValueError(f"concatenate: dimension {dimension} does not fit shape {first.shape}")
    extent = 0
    for k, a in enumerate(avals):
        if a.dtype != first.dtype:
            raise TypeError(f"concatenate: array 0 has dtype {first.dtype.name}, array {k} has {a.dtype.name}")
        same = a.ndim == first.ndim and all(
            m == n for axis, (m, n) in enumerate(zip(a.shape, first.shape, strict=True)) if axis != dimension
        )
        if not same:
            raise ValueError(
                f"concatenate: array 0 has shape {first.shape} and array {k} {a.shape}; "
                f"all extents but that of dimension {dimension} must agree"
            )
        extent += a.shape[dimension]
    shape = first.shape[:dimension] + (extent,) + first.shape[dimension + 1 :]
    return ShapedArray(shape, first.dtype, all(a.weak_type for a in avals))


def _concatenate_pieces(*avals: ShapedArray, dimension: int) -> list[Piece]:
    out = Layout.contiguous(_concatenate_shape(*avals, dimension=dimension).shape)
    pieces, start = [], 0
    for k, a in enumerate(avals):
        if a.size:
            starts = [start if axis == dimension else 0 for axis in range(a.ndim)]
            pieces.append(Piece(k, Layout.contiguous(a.shape), out.slice(starts, a.shape, [1] * a.ndim)))
        start += a.shape[dimension]
    return pieces


def _concatenate_jvp(primals: Any, tangents: Any, out: Any, *, dimension: int) -> Any:
    parts = [instantiate_zeros(aval_of(p)) if t is ZERO else t for p, t in zip(primals, tangents, strict=True)]
    return concatenate_p.bind(*parts, dimension=dimension)


def _concatenate_transpose(ct: Any, *operands: Any, dimension: int) -> Any:
    cts, start = [], 0
    for x in operands:
        extent = (x.aval.shape if type(x) is Linear else shape_of(x))[dimension]
        cts.append(slice_in_dim(ct, start, start + extent, axis=dimension) if type(x) is Linear else None)
        start += extent
    return cts


def _concatenate_batch(size: int, args: Any, dims: Any, *, dimension: int) -> Any:
    dim = next(d for d in dims if d is not None)
    moved = [batch_axis_to(x, d, size, dim) for x, d in zip(args, dims, strict=True)]
    return concatenate_p.bind(*moved, dimension=dimension + (dimension >= dim)), dim


concatenate_p = Primitive(
    "concatenate",
    impl=lambda *xs, dimension: np.concatenate(xs, axis=dimension),
    shape=_concatenate_shape,
    jvp=_concatenate_jvp,
    transpose=_concatenate_transpose,
    batch=_concatenate_batch,
    lower=Assemble(_concatenate_pieces),
    samples=lambda rng: [
        (tuple([rng.normal(size=s) for s in shapes]), {"dimension": d})
        for shapes, d in [
            (((2, 3), (1, 3), (0, 3)), 0),
            (((2, 3), (2, 1)), 1),
            (((3,),), 0),
            (((2, 2), (2, 2), (2, 2)), 1),
        ]
    ],
)


def concatenate(operands: Sequence[Any], dimension: int) -> Any:
    """Arrays of one dtype, end to end along ``dimension``."""
    if not operands:
        raise ValueError("concatenate: need at least one array")
    rank = len(shape_of(operands[0]))
    if not rank:
        raise ValueError("concatenate: zero-dimensional arrays cannot be concatenated; use stack")
    return bind_checked(concatenate_p, *operands, dimension=canonicalize_axis(dimension, rank, "dimension"))


def stack(operands: Sequence[Any], axis: int = 0) -> Any:
    """Arrays of one shape and dtype, along a new axis at ``axis`` of the result."""
    if not operands:
        raise ValueError("stack: need at least one array")
    shape = shape_of(operands[0])
    for k, x in enumerate(operands):
        if shape_of(x) != shape:
            raise ValueError(f"stack: array 0 has shape {shape}, array {k} {shape_of(x)}; all must agree")
    axis = canonicalize_axis(axis, len(shape) + 1)
    return concatenate([expand_dims(x, (axis,)) for x in operands], axis)


def split(x: Any, sizes: Sequence[int], axis: int = 0) -> list[Any]:
    """Consecutive pieces of ``x`` along ``axis``, of the given extents, which must add up to its own."""
    axis = canonicalize_axis(axis, len(shape_of(x)))
    extent = shape_of(x)[axis]
    if sum(sizes) != extent or any(n < 0 for n in sizes):
        raise ValueError(f"split: sizes {tuple(sizes)} do not add up to the extent {extent} of axis {axis}")
    pieces, start = [], 0
    for n in sizes:
        pieces.append(slice_in_dim(x, start, start + n, axis=axis))
        start += n
    return pieces
