"""Index arithmetic: how an iteration domain walks through an array.

A *walk* is a stride per domain axis and an offset, in elements of some array's linear (row-major) index space. When
the array is not in memory but an expression of others, a walk through it becomes one through each of its operands:
split it into the array's own axes (``decompose``), then apply the operand's strides (``compose``).

>>> walk = Walk((1, 3), 0)                         # the transpose of a (2, 3) array, walked over a (3, 2) domain
>>> compose(walk, (3, 2), (2, 3), Layout((2, 3), (0, 1)))   # ... which is itself a row, broadcast
Walk(strides=(1, 0), offset=0, origin=None)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from typing import NamedTuple

from ..core.layout import Layout

__all__ = ["Origin", "Walk", "compose", "contiguous_strides", "merge_axes", "split_padded", "split_walk"]


class Origin(NamedTuple):
    """A walk taken apart: per domain axis the step along each axis of ``shape``, and the index it begins at."""

    shape: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    base: tuple[int, ...]


class Walk(NamedTuple):
    """``origin`` is there where the walk leaves the array (a guard then keeps it from being used outside), so that it
    could not be taken apart again."""

    strides: tuple[int, ...]
    offset: int
    origin: Origin | None = None


@lru_cache(maxsize=4096)
def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    strides.reverse()
    return tuple(strides)


def _decompose(walk: Walk, extents: Sequence[int], shape: tuple[int, ...]) -> tuple[list[list[int]], list[int]] | None:
    """Per domain axis the step along each axis of ``shape``, and the first index; None where it is not affine."""
    strides = contiguous_strides(shape)
    base, rest = [], walk.offset
    for c in strides:
        base.append(rest // c)
        rest -= base[-1] * c
    low, high = base[:], base[:]
    rows = []
    for step, extent in zip(walk.strides, extents, strict=True):
        row = []
        for k, c in enumerate(strides):
            q = abs(step) // c
            if step < 0:
                q = -q
            step -= q * c
            row.append(q)
            if q > 0:
                high[k] += q * (extent - 1)
            else:
                low[k] += q * (extent - 1)
        rows.append(row)
    if all(a >= 0 and b < n for a, b, n in zip(low, high, shape, strict=True)):
        return rows, base
    return None


def merge_axes(shape: Sequence[int], layouts: Sequence[Layout]) -> tuple[tuple[int, ...], list[Layout]]:
    """The fewest axes over which all ``layouts`` of ``shape`` are still uniform, and the layouts over them."""
    keep: list[list[int]] = []
    for axis in range(len(shape)):
        if keep and all(x.strides[axis - 1] == x.strides[axis] * shape[axis] for x in layouts):
            keep[-1].append(axis)
        else:
            keep.append([axis])
    merged = []
    for run in keep:
        extent = 1
        for axis in run:
            extent *= shape[axis]
        merged.append(extent)
    new = tuple(merged)
    return new, [Layout(new, tuple([x.strides[run[-1]] for run in keep]), x.offset) for x in layouts]


@lru_cache(maxsize=4096)
def split_walk(
    walk: Walk, extents: tuple[int, ...], shape: tuple[int, ...], layouts: tuple[Layout, ...]
) -> Sequence[Walk] | None:
    """The walks through operands that lie over ``shape`` by ``layouts``, given one through the array itself.

    None where no strides express it: the array must then be put into memory. Whoever places a value, claims and builds
    it asks for the same walks.
    """
    if shape == extents and walk.offset == 0 and walk.strides == contiguous_strides(shape):
        return [Walk(x.strides, x.offset) for x in layouts]
    origin = walk.origin
    if origin is not None:
        if origin.shape != shape:
            return None
        return [along(origin, x) for x in layouts]
    parts = _decompose(walk, extents, shape)
    if parts is None:
        merged, fewer = merge_axes(shape, layouts)
        if len(merged) == len(shape):
            return None
        parts = _decompose(walk, extents, merged)
        if parts is None:
            return None
        layouts = tuple(fewer)
    return [_apply(*parts, x) for x in layouts]


def _apply(rows: Sequence[Sequence[int]], base: Sequence[int], x: Layout) -> Walk:
    steps = x.strides
    return Walk(tuple([sum(map(mul, row, steps)) for row in rows]), x.offset + sum(map(mul, base, steps)))


def along(origin: Origin, x: Layout) -> Walk:
    """The walk through an operand that lies over ``origin.shape``; it keeps its origin if the operand does too."""
    whole = x.offset == 0 and x.strides == contiguous_strides(origin.shape)
    walk = _apply(origin.rows, origin.base, x)
    return walk._replace(origin=origin) if whole else walk


@lru_cache(maxsize=4096)
def split_padded(
    walk: Walk, extents: tuple[int, ...], shape: tuple[int, ...], lows: tuple[int, ...], inner: Layout
) -> tuple[Origin, Walk] | None:
    """For an array of ``shape`` that holds another (seen through ``inner``) from index ``lows`` on: the walk taken
    apart over ``shape``, and the walk through the other array, valid where it is inside."""
    if walk.origin is not None:
        if walk.origin.shape != shape:
            return None
        rows, base = [list(r) for r in walk.origin.rows], list(walk.origin.base)
    else:
        parts = _decompose(walk, extents, shape)
        if parts is None:
            return None
        rows, base = parts
    outer = Origin(shape, tuple([tuple(r) for r in rows]), tuple(base))
    shifted = Origin(inner.shape, outer.rows, tuple([b - low for b, low in zip(base, lows, strict=True)]))
    return outer, along(shifted, inner)


def compose(walk: Walk, extents: tuple[int, ...], shape: tuple[int, ...], layout: Layout) -> Walk | None:
    walks = split_walk(walk, extents, shape, (layout,))
    return None if walks is None else walks[0]
