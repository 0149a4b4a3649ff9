"""Windows written out as maps over whole arrays: what ``reduce_window`` and its relatives are compiled as.

The ``k``-th *tap* of a window is the array of the ``k``-th elements of all windows: a strided slice. A fold is a tree
of maps over taps, and fuses into one loop with what is around it. Writing back is the same seen from the other side:
the elements of the operand fall into *phases*, by their distance from the stride's grid, and all elements of a phase
are met by the same taps, of windows at fixed distances; so no two writes ever meet, and nothing is written twice.

Windows of more than ``TAPS`` elements are folded axis by axis, and along an axis by doubling.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..util import prod
from .create import broadcasted_iota, full
from .elementwise import add, eq, ge, le, mul, select
from .indexing import gather_p, scatter_add_p
from .interleave import interleave, phase_extents
from .reduce import reduce_and, reduce_max, reduce_min, reduce_or, reduce_prod
from .shape import pad, strided_slice
from .structural import reduce_sum, reshape, shape_of

__all__ = ["fold_taps", "gather_selected", "product_tangent", "scatter_selected", "sum_phases", "tap", "woven_phases"]

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]

TAPS = 32
"""Elements of a window up to which taps are written out."""

_WHOLE: dict[str, Callable[..., Any]] = {
    "add": reduce_sum, "mul": reduce_prod, "max": reduce_max, "min": reduce_min, "and": reduce_and, "or": reduce_or,
}  # fmt: skip


def tap(x: Any, place: Ints, strides: Ints, spread: Ints, out: Ints) -> Any:
    """The elements number ``place`` of all windows over a padded array."""
    starts = [k * e for k, e in zip(place, spread, strict=True)]
    limits = [b + (m - 1) * s + 1 if m else b for b, m, s in zip(starts, out, strides, strict=True)]
    if 0 in out:  # then a window may be longer than the axis
        starts, limits = [0] * len(out), list(out)
    return strided_slice(x, starts, limits, strides)


def _tree(function: Callable[..., Any], values: list[Any]) -> Any:
    while len(values) > 1:
        values = [function(*values[k : k + 2]) if k + 1 < len(values) else values[k] for k in range(0, len(values), 2)]
    return values[0]


def fold_taps(
    monoid: str, function: Callable[..., Any], x: Any, window: Ints, strides: Ints, spread: Ints, out: Ints
) -> Any:
    """The fold over windows of a padded array."""
    if 0 in out:
        return full(out, 0, aval_of(x).dtype)
    if prod(window) > TAPS:
        return _fold_axes(monoid, function, x, window, strides, spread, out)
    return _tree(function, [tap(x, k, strides, spread, out) for k in np.ndindex(*window)])


def _along(rank: int, axis: int, value: int, other: int = 1) -> Ints:
    return tuple([value if a == axis else other for a in range(rank)])


def _fold_axes(
    monoid: str, function: Callable[..., Any], x: Any, window: Ints, strides: Ints, spread: Ints, out: Ints
) -> Any:
    rank = len(window)
    alone = [a for a in range(rank) if out[a] == 1 and window[a] > 1]
    if alone:  # one window along these axes: a plain reduction
        limits = [(window[a] - 1) * spread[a] + 1 if a in alone else n for a, n in enumerate(shape_of(x))]
        x = strided_slice(x, (0,) * rank, limits, [spread[a] if a in alone else 1 for a in range(rank)])
        kept = [1 if a in alone else n for a, n in enumerate(shape_of(x))]
        x = reshape(_WHOLE[monoid](x, alone), kept)
        window = tuple([1 if a in alone else k for a, k in enumerate(window)])
    for a in sorted(range(rank), key=lambda a: out[a] - shape_of(x)[a]):  # what shrinks the array most, first
        if window[a] == 1 and strides[a] == 1:
            continue
        extents = tuple([out[a] if b == a else n for b, n in enumerate(shape_of(x))])
        x = _fold_axis(function, x, a, window[a], strides[a], spread[a], extents)
    return x


def _fold_axis(function: Callable[..., Any], x: Any, axis: int, n: int, stride: int, spread: int, out: Ints) -> Any:
    """Along one axis: taps if few, else sums of two, four, eight, ... neighbours, put together."""
    rank = len(out)
    steps = _along(rank, axis, stride)
    if n <= TAPS:
        taps = [tap(x, _along(rank, axis, k, 0), steps, _along(rank, axis, spread), out) for k in range(n)]
        return _tree(function, taps)
    total, start, power, length = None, 0, x, 1
    while True:
        if n & length:
            part = tap(power, _along(rank, axis, start, 0), steps, _along(rank, axis, spread), out)
            total = part if total is None else function(total, part)
            start += length
        if 2 * length > n:
            return total
        size = shape_of(power)[axis] - length * spread
        halves = [
            strided_slice(power, _along(rank, axis, b, 0), [b + size if a == axis else m for a, m in
                                                            enumerate(shape_of(power))])
            for b in (0, length * spread)
        ]  # fmt: skip
        power, length = function(*halves), 2 * length


def product_tangent(x: Any, t: Any, window: Ints, strides: Ints, spread: Ints, out: Ints) -> Any:
    """The tangent of the product over windows: ``d(ab) = da b + a db`` at every node of a tree."""

    def product(left: Any, right: Any) -> Any:
        (a, da), (b, db) = left, right
        return mul(a, b), add(mul(da, b), mul(a, db))

    if 0 in out:
        return full(out, 0, aval_of(x).dtype)
    pairs = [(tap(x, k, strides, spread, out), tap(t, k, strides, spread, out)) for k in np.ndindex(*window)]
    return _tree(product, pairs)[1]


# writing back ---------------------------------------------------------------------------------------------------


def woven_phases(
    term: Callable[[Ints, int], Any], out: Ints, shape: Ints, window: Ints, strides: Ints, lows: Ints, spread: Ints,
    dtype: Any,
) -> Any:  # fmt: skip
    """The array of ``shape`` to whose element ``i * stride + k * spread - low`` window ``i`` adds ``term(k)[i]``.

    ``term`` gets the tap ``k`` and its number.
    """
    pieces = []
    numbers = {k: n for n, k in enumerate(np.ndindex(*window))}
    for phase in itertools.product(*[range(s) for s in strides]):
        # element j * stride + phase is met by tap k of window j - (k * spread - low - phase) / stride
        taps = [
            [(k, (k * e - low - r) // s) for k in range(n) if (k * e - low - r) % s == 0]
            for r, n, s, low, e in zip(phase, window, strides, lows, spread, strict=True)
        ]
        terms, counts = [], phase_extents(shape, strides, phase)
        for each in itertools.product(*taps):
            k = tuple([place for place, _ in each])
            shift = [by for _, by in each]
            config = [(by, c - m - by, 0) for by, c, m in zip(shift, counts, out, strict=True)]
            terms.append(pad(term(k, numbers[k]), dtype.type(0), config))
        pieces.append(_tree(add, terms) if terms else full(counts, 0, dtype))
    return interleave(pieces, shape, strides)


def sum_phases(x: Any, window: Ints, padding: Padding, base: Ints, spread: Ints) -> Any:
    """The sum over windows, in steps of one, of a dilated array: elements of the result fall into phases, of which
    each meets the array's own elements, and never a zero between them, with some of the taps."""
    out = []
    for n, k, (lo, hi), d, e in zip(shape_of(x), window, padding, base, spread, strict=True):
        out.append(max(0, ((n - 1) * d + 1 if n else 0) + lo + hi - (k - 1) * e))
    if 0 in out or 0 in shape_of(x):
        return full(out, 0, aval_of(x).dtype)
    # result j meets element (j + k * spread - low) / base: seen from the element, the taps are in reverse
    lows = tuple([(k - 1) * e - lo for k, e, (lo, _) in zip(window, spread, padding, strict=True)])
    return woven_phases(lambda k, n: x, shape_of(x), tuple(out), window, base, lows, spread, aval_of(x).dtype)


_KEEPS = {"ge": ge, "le": le}


def _better(select_name: str, best: Any, other: Any) -> Any:
    """Where the best so far stays: also at ties, so that the first one wins."""
    return _KEEPS[select_name](best, other)


def gather_selected(t: Any, x: Any, name: str, window: Ints, strides: Ints, spread: Ints, out: Ints) -> Any:
    """Of padded arrays: the elements of ``t`` where ``x`` attains the extreme of each window."""
    if 0 in out:
        return full(out, 0, aval_of(t).dtype)
    if prod(window) > TAPS:
        places = _positions(x, name, window, strides, spread, out)
        return gather_p.bind(reshape(t, (-1,)), places, axes=(0,), mode="promise_in_bounds")
    best = value = None
    for k in np.ndindex(*window):
        x_k, t_k = tap(x, k, strides, spread, out), tap(t, k, strides, spread, out)
        if best is None:
            best, value = x_k, t_k
        else:
            keep = _better(name, best, x_k)
            best, value = select(keep, best, x_k), select(keep, value, t_k)
    return value


def scatter_selected(
    t: Any, x: Any, shape: Ints, name: str, window: Ints, strides: Ints, padding: Padding, spread: Ints
) -> Any:
    """``t``, one element per window, added where the padded array ``x`` attains the extreme; of the unpadded shape."""
    out, dtype = shape_of(t), aval_of(t).dtype
    lows = tuple([lo for lo, _ in padding])
    if 0 in out or 0 in shape:
        return full(shape, 0, dtype)
    if prod(window) > TAPS:
        places = _positions(x, name, window, strides, spread, out)
        zeros = full((prod(shape_of(x)),), 0, dtype)
        made = scatter_add_p.bind(zeros, t, places, axes=(0,), mode="promise_in_bounds", unique=False)
        made = reshape(made, shape_of(x))
        return pad(made, dtype.type(0), [(-lo, -hi, 0) for lo, hi in padding])
    best, number, index = None, None, np.dtype(np.int32)
    for n, k in enumerate(np.ndindex(*window)):
        x_k = tap(x, k, strides, spread, out)
        if best is None:
            best, number = x_k, full(out, 0, index)
        else:
            keep = _better(name, best, x_k)
            best, number = select(keep, best, x_k), select(keep, number, full(out, n, index))

    def term(k: Ints, n: int) -> Any:
        if prod(window) == 1:
            return t
        return select(eq(number, full(out, n, index)), t, full(out, 0, dtype))

    return woven_phases(term, out, shape, window, strides, lows, spread, dtype)


def _positions(x: Any, name: str, window: Ints, strides: Ints, spread: Ints, out: Ints) -> Any:
    """Where in the flattened padded array each window has its extreme: axis by axis, from the last one on, so that of
    equal elements the first in row-major order wins."""
    rank = len(window)
    places = reshape(broadcasted_iota(np.int64, (prod(shape_of(x)),), 0), shape_of(x))
    for a in reversed(range(rank)):
        extents = tuple([out[a] if b == a else n for b, n in enumerate(shape_of(x))])
        steps, gaps = _along(rank, a, strides[a]), _along(rank, a, spread[a])
        best = where = None
        for k in range(window[a]):
            x_k, at = (tap(v, _along(rank, a, k, 0), steps, gaps, extents) for v in (x, places))
            if best is None:
                best, where = x_k, at
            else:
                keep = _better(name, best, x_k)
                best, where = select(keep, best, x_k), select(keep, where, at)
        x, places = best, where
    return places
