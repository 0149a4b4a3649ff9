"""Convolution: the primitive ``conv``, on one canonical arrangement of axes, and its rules.

    lhs (G, N, *S, C)   rhs (G, *K, C, O)   ->   out (G, N, *T, O)
    out[g, n, t, o] = sum over k, c of  x[g, n, t * stride + k * rhs_dilation, c] * rhs[g, k, c, o]

where ``x`` is ``lhs`` with ``lhs_dilation - 1`` zeros put between its elements and ``padding`` around them. The
arrangements of the user's arrays, feature groups and batch groups are views of this one (``ops.conv_dims``): a group is
an index that runs in parallel, whichever axis it was cut from, and so is a batch axis that both operands have.

It is bilinear, and both transposes are convolutions again. With respect to ``lhs``, the cotangent is dilated by the
stride and meets the kernel reversed; with respect to ``rhs``, images and channels change places and the cotangent is
the kernel, dilated by the stride, while the stride is the kernel's dilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Convolve
from ..core.primitive import ZERO, Linear, Primitive
from ..util import prod
from .conv_rewrite import simpler
from .create import instantiate_zeros
from .elementwise import add
from .shape import batch_axis_to, pad, pad_p, rev
from .structural import moveaxis, reshape, shape_of, transpose

__all__ = ["conv_p"]

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]

_PATCH_BYTES = 1 << 26
"""Up to this size the impl gathers all patches into one matrix; beyond it adds up one product per element of the
kernel (or makes one per element of the result, if these are fewer)."""


def dilated(extent: int, dilation: int) -> int:
    """The extent of an axis with zeros between its elements."""
    return (extent - 1) * dilation + 1 if extent else 0


def result_extents(
    spatial: Ints, kernel: Ints, strides: Ints, padding: Padding, lhs_dilation: Ints, rhs_dilation: Ints
) -> Ints:
    """How often the dilated kernel fits into the dilated and padded axes, in steps of the stride."""
    extents = []
    for n, k, s, (lo, hi), d, e in zip(spatial, kernel, strides, padding, lhs_dilation, rhs_dilation, strict=True):
        extents.append(max(0, (lo + hi + dilated(n, d) - dilated(k, e)) // s + 1))
    return tuple(extents)


def _conv_shape(
    x: ShapedArray, w: ShapedArray, *, strides: Ints, padding: Padding, lhs_dilation: Ints, rhs_dilation: Ints
) -> ShapedArray:
    rank = len(strides)
    if x.dtype != w.dtype:
        raise TypeError(f"conv: operands have dtypes {x.dtype.name} and {w.dtype.name}; convert one of them")
    if x.dtype.kind not in "iufc":
        raise TypeError(f"conv does not take operands of dtype {x.dtype.name}")
    if x.ndim != rank + 3 or w.ndim != rank + 3 or any(len(p) != rank for p in (padding, lhs_dilation, rhs_dilation)):
        raise ValueError(
            f"conv: {rank} strides go with operands of {rank + 3} axes and as many paddings and dilations; found "
            f"shapes {x.shape} and {w.shape}, padding {padding}, dilations {lhs_dilation} and {rhs_dilation}"
        )
    if x.shape[0] != w.shape[0] or x.shape[-1] != w.shape[-2]:
        raise ValueError(f"conv: groups and channels of shapes {x.shape} and {w.shape} differ")
    spatial, kernel = x.shape[2:-1], w.shape[1:-2]
    if any(k < 1 for k in (*kernel, *strides, *lhs_dilation, *rhs_dilation)):
        raise ValueError(
            f"conv: strides {strides}, dilations {lhs_dilation} and {rhs_dilation} and the kernel's spatial extents "
            f"{kernel} must be positive"
        )
    for n, (lo, hi), d in zip(spatial, padding, lhs_dilation, strict=True):
        if lo + hi + dilated(n, d) < 0:
            raise ValueError(f"conv: padding ({lo}, {hi}) crops more than an axis of {dilated(n, d)} elements has")
    out = result_extents(spatial, kernel, strides, padding, lhs_dilation, rhs_dilation)
    return ShapedArray((*x.shape[:2], *out, w.shape[-1]), x.dtype)


def pad_config(padding: Padding, lhs_dilation: Ints) -> tuple[tuple[int, int, int], ...]:
    """The padding of a whole ``lhs``, as ``pad`` wants it."""
    inner = [(lo, hi, d - 1) for (lo, hi), d in zip(padding, lhs_dilation, strict=True)]
    return ((0, 0, 0), (0, 0, 0), *inner, (0, 0, 0))


def _conv_impl(
    x: Any, w: Any, *, strides: Ints, padding: Padding, lhs_dilation: Ints, rhs_dilation: Ints
) -> Any:  # fmt: skip
    x, w = np.asarray(x), np.asarray(w)
    kernel, channels, features = w.shape[1:-2], w.shape[-2], w.shape[-1]
    out = result_extents(x.shape[2:-1], kernel, strides, padding, lhs_dilation, rhs_dilation)
    shape = (*x.shape[:2], *out, features)
    config = pad_config(padding, lhs_dilation)
    if any(any(c) for c in config):
        x = pad_p.impl(x, x.dtype.type(0), padding_config=config)
    if 0 in shape or not channels:
        return np.zeros(shape, x.dtype)
    groups, images, *space = x.strides
    *space, channel = space
    steps = [s * k for s, k in zip(space, strides, strict=True)]
    taps = [s * e for s, e in zip(space, rhs_dilation, strict=True)]
    rows, columns = prod(shape[1:-1]), prod(kernel) * channels
    if shape[0] * rows * columns * x.itemsize <= _PATCH_BYTES or prod(kernel) == 1:
        patches = as_strided(x, (*shape[:-1], *kernel, channels), (groups, images, *steps, *taps, channel))
        return _patches_times(patches, w, len(out)).reshape(shape)
    if prod(kernel) <= prod(out):
        total = np.zeros((shape[0], rows, features), x.dtype)
        for k in np.ndindex(*kernel):
            corner = tuple([slice(i * e, None) for i, e in zip(k, rhs_dilation, strict=True)])
            seen = as_strided(x[(slice(None), slice(None), *corner)], (*shape[:-1], channels),
                              (groups, images, *steps, channel))  # fmt: skip
            total += np.matmul(seen.reshape(shape[0], rows, channels), w[(slice(None), *k)])
        return total.reshape(shape)
    made = np.empty(shape, x.dtype)
    right = w.reshape(shape[0], columns, features)
    for t in np.ndindex(*out):
        corner = tuple([slice(i * s, None) for i, s in zip(t, strides, strict=True)])
        seen = as_strided(x[(slice(None), slice(None), *corner)], (*shape[:2], *kernel, channels),
                          (groups, images, *taps, channel))  # fmt: skip
        made[(slice(None), slice(None), *t)] = np.matmul(seen.reshape(*shape[:2], columns), right)
    return made


def _patches_times(patches: Any, w: Any, rank: int) -> Any:
    """``(G, N, *T, *K, C)`` times ``(G, *K, C, O)``. The matrix of patches is gathered in the order in which the
    elements lie in memory, whichever way round that is."""
    groups, features = w.shape[0], w.shape[-1]

    def by_stride(axes: Any) -> list[int]:
        return sorted(axes, key=lambda a: -abs(patches.strides[a]))

    rows, columns = by_stride(range(1, rank + 2)), by_stride(range(rank + 2, 2 * rank + 3))
    m, k = (prod([patches.shape[a] for a in axes]) for axes in (rows, columns))
    if abs(patches.strides[rows[-1]]) < abs(patches.strides[columns[-1]]):
        left = patches.transpose((0, *columns, *rows)).reshape(groups, k, m).transpose(0, 2, 1)
    else:
        left = patches.transpose((0, *rows, *columns)).reshape(groups, m, k)
    right = w.transpose((0, *[a - rank - 1 for a in columns], rank + 2)).reshape(groups, k, features)
    out = np.matmul(left, right).reshape((groups, *[patches.shape[a] for a in rows], features))
    return out.transpose((0, *[1 + rows.index(a) for a in sorted(rows)], rank + 2))


def _conv_jvp(primals: Any, tangents: Any, out: Any, **params: Any) -> Any:
    (x, w), (tx, tw) = primals, tangents
    parts = []
    if tx is not ZERO:
        parts.append(conv_p.bind(tx, w, **params))
    if tw is not ZERO:
        parts.append(conv_p.bind(x, tw, **params))
    return parts[0] if len(parts) == 1 else add(*parts)


def _swapped(x: Any, a: int, b: int) -> Any:
    order = list(range(len(shape_of(x))))
    order[a], order[b] = order[b], order[a]
    return transpose(x, order)


def _transpose_lhs(
    ct: Any, x: ShapedArray, w: Any, strides: Ints, padding: Padding, lhs_dilation: Ints, rhs_dilation: Ints
) -> Any:
    spatial, out, kernel = x.shape[2:-1], shape_of(ct)[2:-1], shape_of(w)[1:-2]
    rank = len(strides)
    pads = []
    for n, t, k, s, (lo, _), d, e in zip(
        spatial, out, kernel, strides, padding, lhs_dilation, rhs_dilation, strict=True
    ):
        low = dilated(k, e) - 1 - lo
        pads.append((low, (n - 1) * d + dilated(k, e) - dilated(t, s) - low))
    w = rev(_swapped(w, rank + 1, rank + 2), range(1, 1 + rank))
    return conv_p.bind(
        ct, w, strides=lhs_dilation, padding=tuple(pads), lhs_dilation=strides, rhs_dilation=rhs_dilation
    )


def _transpose_rhs(
    ct: Any, x: Any, w: ShapedArray, strides: Ints, padding: Padding, lhs_dilation: Ints, rhs_dilation: Ints
) -> Any:
    spatial, out, kernel = shape_of(x)[2:-1], shape_of(ct)[2:-1], w.shape[1:-2]
    last = len(shape_of(x)) - 1
    pads = []
    for n, t, k, s, (lo, _), d, e in zip(
        spatial, out, kernel, strides, padding, lhs_dilation, rhs_dilation, strict=True
    ):
        pads.append((lo, (k - 1) * e + dilated(t, s) - dilated(n, d) - lo))
    images = _swapped(x, 1, last)  # channels as images: (G, C, *S, N)
    kernels = moveaxis(ct, 1, last - 1)  # (G, *T, N, O)
    made = conv_p.bind(
        images, kernels, strides=rhs_dilation, padding=tuple(pads), lhs_dilation=lhs_dilation, rhs_dilation=strides
    )
    return moveaxis(made, 1, last - 1)


def _conv_transpose(ct: Any, x: Any, w: Any, **params: Any) -> Any:
    linear = x if type(x) is Linear else w
    if 0 in shape_of(ct):  # no result depends on anything; and a kernel of no elements is none
        zeros = instantiate_zeros(linear.aval)
        return (zeros, None) if linear is x else (None, zeros)
    if linear is x:
        return _transpose_lhs(ct, x.aval, w, **params), None
    return None, _transpose_rhs(ct, x, w.aval, **params)


def _conv_batch(size: int, args: Any, dims: Any, **params: Any) -> Any:
    """Batched with ``lhs`` alone: more images. With ``rhs`` alone: more features. With both: more groups."""
    (x, w), (dx, dw) = args, dims
    if dw is None:
        x = batch_axis_to(x, dx, size, 1)
        groups, _, images, *rest = shape_of(x)
        out = conv_p.bind(reshape(x, (groups, size * images, *rest)), w, **params)
        return reshape(out, (groups, size, images, *shape_of(out)[2:])), 1
    if dx is None:
        last = len(shape_of(w)) - 2
        w = batch_axis_to(w, dw, size, last)
        features = shape_of(w)[-1]
        out = conv_p.bind(x, reshape(w, (*shape_of(w)[:-2], size * features)), **params)
        return reshape(out, (*shape_of(out)[:-1], size, features)), last
    x, w = batch_axis_to(x, dx, size), batch_axis_to(w, dw, size)
    groups = shape_of(x)[1]
    x, w = (reshape(v, (size * groups, *shape_of(v)[2:])) for v in (x, w))
    out = conv_p.bind(x, w, **params)
    return reshape(out, (size, groups, *shape_of(out)[1:])), 0


def _samples(rng: np.random.Generator) -> list[Any]:
    rows: list[tuple[Sequence[int], Sequence[int], Ints, Padding, Ints, Ints]] = [
        ((1, 2, 5, 2), (1, 3, 2, 3), (1,), ((0, 0),), (1,), (1,)),
        ((2, 1, 6, 1), (2, 2, 1, 2), (2,), ((1, 2),), (1,), (2,)),
        ((1, 2, 3, 2), (1, 2, 2, 1), (1,), ((1, 1),), (3,), (1,)),
        ((1, 1, 4, 1), (1, 3, 1, 2), (3,), ((2, -1),), (2,), (2,)),
        ((1, 2, 4, 5, 3), (1, 3, 2, 3, 2), (2, 1), ((1, 1), (0, 1)), (1, 1), (1, 2)),
        ((3, 1, 4, 4, 1), (3, 2, 2, 1, 1), (1, 1), ((0, 1), (1, 0)), (1, 1), (1, 1)),
        ((1, 2, 3, 4, 2), (1, 1, 1, 2, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1)),
        ((1, 1, 2, 3, 2, 1), (1, 2, 2, 1, 1, 2), (1, 2, 1), ((0, 0), (1, 1), (0, 0)), (1, 1, 1), (1, 1, 1)),
        ((1, 2, 3), (1, 3, 2), (), (), (), ()),
        ((1, 2, 2, 1), (1, 3, 1, 1), (1,), ((0, 0),), (1,), (1,)),
        ((1, 0, 3, 2), (1, 2, 2, 2), (1,), ((0, 0),), (1,), (1,)),
        ((1, 2, 3, 0), (1, 2, 0, 2), (1,), ((1, 0),), (1,), (1,)),
    ]
    return [
        (
            (rng.normal(size=x), rng.normal(size=w)),
            {"strides": s, "padding": p, "lhs_dilation": d, "rhs_dilation": e},
        )
        for x, w, s, p, d, e in rows
    ]


conv_p: Primitive = Primitive(
    "conv",
    impl=_conv_impl,
    shape=_conv_shape,
    jvp=_conv_jvp,
    transpose=_conv_transpose,
    batch=_conv_batch,
    lower=Convolve(lambda x, w, **params: simpler(conv_p, x, w, **params), pad),
    samples=_samples,
)


def conv(x: Any, w: Any, strides: Ints, padding: Padding, lhs_dilation: Ints, rhs_dilation: Ints) -> Any:
    """The primitive, after its shape rule has spoken."""
    params = {"strides": strides, "padding": padding, "lhs_dilation": lhs_dilation, "rhs_dilation": rhs_dilation}
    conv_p.shape(aval_of(x), aval_of(w), **params)
    return conv_p.bind(x, w, **params)
