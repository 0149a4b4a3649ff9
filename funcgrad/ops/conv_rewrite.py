"""Convolutions that are compiled as something simpler, and how.

``simpler`` looks at one application of ``conv`` and gives a function of its operands that computes the same with other
primitives, or with a ``conv`` that is nearer to plain; or None, for the convolutions that are products of a matrix of
patches with the kernel, which is the compiler's own matter.

With many channels and few features, products come first and the kernel's elements are added up afterwards. Else a
dilated ``lhs`` is cut into phases, so that no product with a zero between its elements is ever computed. Without
dilation or padding, a kernel of one element is a plain matrix product; and where a group has few channels and features
(a depthwise convolution, or its gradient), matrices would be degenerate, and what is left is a sum of few products of
whole arrays, which fuse into one loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import gcd
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.primitive import Primitive
from ..util import prod
from .create import full
from .dot import dot_general
from .elementwise import add, mul
from .interleave import interleave, phase_extents
from .shape import stack, strided_slice
from .structural import broadcast_in_dim, moveaxis, reduce_sum, reshape, shape_of, transpose
from .window_taps import woven_phases

__all__ = ["simpler"]

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]

FEW = 4
"""Channels times features of a group up to which products of whole arrays beat matrices."""
TERMS = 64
"""Up to so many such products are written out."""


def simpler(
    conv: Primitive, x: ShapedArray, w: ShapedArray, *, strides: Ints, padding: Padding, lhs_dilation: Ints,
    rhs_dilation: Ints,
) -> Callable[..., Any] | None:  # fmt: skip
    """A function of ``(x, w)`` written with simpler operations, or None."""
    rank = len(strides)
    kernel, channels, features = w.shape[1:-2], w.shape[-2], w.shape[-1]
    few = features <= FEW and channels >= 2 * FEW and prod(kernel) * features <= 4 * channels
    if few and 1 < prod(kernel) <= TERMS and all(s == 1 for s in strides):
        return lambda x, w: _taps_after(x, w, padding, lhs_dilation, rhs_dilation)
    if any(d > 1 for d in lhs_dilation) and all(s == 1 for s in strides):
        return lambda x, w: _phases(conv, x, w, padding, lhs_dilation, rhs_dilation)
    if any(d > 1 for d in lhs_dilation) or any(any(p) for p in padding):
        return None
    extents = zip(x.shape[2:-1], kernel, strides, rhs_dilation, strict=True)
    out = [(n - (k - 1) * e - 1) // s + 1 for n, k, s, e in extents]
    if prod(kernel) == 1:
        return lambda x, w: _pointwise(_window(x, (0,) * rank, tuple(out), strides), w)
    if channels * features <= FEW and prod(kernel) * channels <= TERMS:
        return lambda x, w: _by_taps(x, w, tuple(out), strides, rhs_dilation)
    if x.shape[1] * features <= FEW and x.shape[1] * prod(out) <= TERMS:
        return lambda x, w: _by_results(x, w, tuple(out), strides, rhs_dilation)
    return None


def _window(x: Any, start: Ints, extents: Ints, steps: Ints) -> Any:
    """The elements of the spatial axes from ``start`` on, ``extents`` of them, in steps."""
    shape = shape_of(x)
    limits = [b + (m - 1) * s + 1 for b, m, s in zip(start, extents, steps, strict=True)]
    return strided_slice(x, (0, 0, *start, 0), (*shape[:2], *limits, shape[-1]), (1, 1, *steps, 1))


def _pointwise(x: Any, w: Any) -> Any:
    """A kernel of one element: a matrix product over channels."""
    groups, channels, features = shape_of(w)[0], shape_of(w)[-2], shape_of(w)[-1]
    w = reshape(w, (groups, channels, features))
    last = len(shape_of(x)) - 1
    if groups == 1:
        return reshape(
            dot_general(reshape(x, shape_of(x)[1:]), reshape(w, (channels, features)), (((last - 1,), (0,)), ((), ()))),
            (*shape_of(x)[:-1], features),
        )
    return dot_general(x, w, (((last,), (1,)), ((0,), (0,))))


# products of whole arrays ---------------------------------------------------------------------------------------


def _groups_last(x: Any) -> Any:
    """Groups behind the spatial axes: neighbours in memory, where the group was cut from the channels."""
    return moveaxis(x, 0, len(shape_of(x)) - 2)


def _sum(terms: list[Any]) -> Any:
    """Pairwise, so that rounding errors stay small and no chain is long."""
    while len(terms) > 1:
        terms = [add(*terms[k : k + 2]) if k + 1 < len(terms) else terms[k] for k in range(0, len(terms), 2)]
    return terms[0]


def _by_taps(x: Any, w: Any, out: Ints, strides: Ints, rhs_dilation: Ints) -> Any:
    """The sum over the kernel's elements and channels of shifted images, each scaled."""
    rank = len(out)
    kernel, channels, features = shape_of(w)[1:-2], shape_of(w)[-2], shape_of(w)[-1]
    groups, images = shape_of(x)[:2]
    shape = (images, *out, groups, features)
    terms = []
    for k in np.ndindex(*kernel):
        start = tuple([i * e for i, e in zip(k, rhs_dilation, strict=True)])
        seen = _groups_last(_window(x, start, out, strides))
        for c in range(channels):
            scale = strided_slice(w, (0, *k, c, 0), (groups, *[i + 1 for i in k], c + 1, features))
            scale = broadcast_in_dim(reshape(scale, (groups, features)), shape, (rank + 1, rank + 2))
            image = strided_slice(seen, (0,) * (rank + 2) + (c,), (*shape[:-1], c + 1))
            terms.append(mul(broadcast_in_dim(image, shape, range(rank + 3)), scale))
    return moveaxis(_sum(terms), rank + 1, 0)


def _by_results(x: Any, w: Any, out: Ints, strides: Ints, rhs_dilation: Ints) -> Any:
    """Per element of the result, the sum of the kernel times what lies under it: the images are few and small, the
    kernel is large. Images and channels run along with the kernel's own axes."""
    rank = len(out)
    kernel, channels, features = shape_of(w)[1:-2], shape_of(w)[-2], shape_of(w)[-1]
    groups, images = shape_of(x)[:2]
    shape = (channels, *kernel, groups, features)
    weights = transpose(w, (rank + 1, *range(1, rank + 1), 0, rank + 2))
    rows = []
    for n in range(images):
        for t in np.ndindex(*out):
            start = tuple([i * s for i, s in zip(t, strides, strict=True)])
            seen = _window(x, start, kernel, rhs_dilation)
            seen = strided_slice(seen, (0, n, *[0] * rank, 0), (groups, n + 1, *kernel, channels))
            seen = transpose(reshape(seen, (groups, *kernel, channels)), (rank + 1, *range(1, rank + 1), 0))
            seen = broadcast_in_dim(seen, shape, range(rank + 2))
            rows.append(reduce_sum(mul(seen, weights), range(rank + 1)))
    made = reshape(stack(rows), (images, *out, groups, features))
    return moveaxis(made, rank + 1, 0)


# many channels, few features --------------------------------------------------------------------------------------


def _taps_after(x: Any, w: Any, padding: Padding, lhs_dilation: Ints, rhs_dilation: Ints) -> Any:
    """The product over channels first, one for each element of the kernel, of all images as they are; then the sum of
    what the elements give, each at its own distance. Nothing is gathered, and no column of a matrix is almost alone."""
    rank, dtype = len(padding), aval_of(x).dtype
    (groups, images, *spatial, _), kernel, features = shape_of(x), shape_of(w)[1:-2], shape_of(w)[-1]
    products = dot_general(w, x, (((rank + 1,), (rank + 2,)), ((0,), (0,))))  # (G, *K, O, N, *S)
    out, lows = [], []
    for n, k, (lo, hi), d, e in zip(spatial, kernel, padding, lhs_dilation, rhs_dilation, strict=True):
        out.append(((n - 1) * d + 1 if n else 0) + lo + hi - (k - 1) * e)
        lows.append((k - 1) * e - lo)

    def term(place: Ints, number: int) -> Any:
        k = [m - 1 - i for m, i in zip(kernel, place[3:], strict=True)]  # an image's element meets them in reverse
        part = strided_slice(products, (0, *k, 0, 0, *[0] * rank), (groups, *[i + 1 for i in k], *shape))
        return reshape(part, (groups, *shape))

    shape, ones = (features, images, *spatial), (1, 1, 1)
    made = woven_phases(
        term, (groups, *shape), (groups, features, images, *out), (*ones, *kernel), (*ones, *lhs_dilation),
        (0, 0, 0, *lows), (*ones, *rhs_dilation), dtype,
    )  # fmt: skip
    return moveaxis(made, 1, rank + 2)


# phases ---------------------------------------------------------------------------------------------------------


def _progression(phase: int, low: int, extent: int, lhs_dilation: int, rhs_dilation: int) -> tuple[int, int, int, int]:
    """For results ``phase + j * lhs_dilation`` along an axis, which elements of the kernel meet elements of ``lhs``:
    the first, their step, how many, and where in ``lhs`` the first of them is for ``j = 0``."""
    step = lhs_dilation // gcd(lhs_dilation, rhs_dilation)
    for first in range(min(step, extent)):
        place = phase + first * rhs_dilation - low
        if place % lhs_dilation == 0:
            return first, step, -(-(extent - first) // step), place // lhs_dilation
    return 0, step, 0, 0


def _phases(conv: Primitive, x: Any, w: Any, padding: Padding, lhs_dilation: Ints, rhs_dilation: Ints) -> Any:
    """Results ``r + j * lhs_dilation`` need only every so-many-th element of the kernel and are a convolution of the
    undilated ``lhs``; the results of all phases ``r`` are then interleaved."""
    rank, dtype = len(padding), aval_of(x).dtype
    spatial, kernel, features = shape_of(x)[2:-1], shape_of(w)[1:-2], shape_of(w)[-1]
    out = []
    for n, k, (lo, hi), d, e in zip(spatial, kernel, padding, lhs_dilation, rhs_dilation, strict=True):
        out.append(((n - 1) * d + 1 if n else 0) + lo + hi - (k - 1) * e)
    pieces = []
    for phase in itertools.product(*[range(d) for d in lhs_dilation]):
        taps = [
            _progression(r, p[0], k, d, e)
            for r, p, k, d, e in zip(phase, padding, kernel, lhs_dilation, rhs_dilation, strict=True)
        ]
        counts = phase_extents(out, lhs_dilation, phase)
        if any(not t[2] for t in taps):
            pieces.append(full((*shape_of(x)[:2], *counts, features), 0, dtype))
            continue
        firsts, steps, numbers, places = ([t[k] for t in taps] for k in range(4))
        part = strided_slice(
            w,
            (0, *firsts, 0, 0),
            (shape_of(w)[0], *[f + (m - 1) * s + 1 for f, s, m in zip(firsts, steps, numbers, strict=True)],
             *shape_of(w)[-2:]),
            (1, *steps, 1, 1),
        )  # fmt: skip
        dilation = tuple([s * e // d for s, e, d in zip(steps, rhs_dilation, lhs_dilation, strict=True)])
        pads = tuple([
            (-place, count - 1 + (m - 1) * e + 1 - n + place)
            for place, count, m, e, n in zip(places, counts, numbers, dilation, spatial, strict=True)
        ])  # fmt: skip
        ones = (1,) * rank
        pieces.append(conv.bind(x, part, strides=ones, padding=pads, lhs_dilation=ones, rhs_dilation=dilation))
    return interleave(pieces, (*shape_of(x)[:2], *out, features), (1, 1, *lhs_dilation, 1))
