"""Places in sorted arrays, by binary search without branches.

The answer is built bit by bit: a bit is set if the element that far along still comes before the value. All values take
the same steps, one gather each, so that a search is elementwise code that fuses and batches like any other. Up to
``LINEAR`` elements it is quicker to compare with all of them, in vector registers. NaN comes last, as in sorting.
"""

from __future__ import annotations

from typing import Any

from ..core.avals import aval_of
from .create import full
from .elementwise import (
    add,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    convert_element_type,
    is_nan,
    le,
    lt,
    select,
)
from .elementwise import sub as subtract
from .indexing import INDEX, gather, scatter_add
from .stop import stop_gradient
from .structural import broadcast_in_dim, expand_dims, reduce_sum, shape_of

__all__ = ["count_places", "searchsorted"]

LINEAR = 256


def _less(x: Any, y: Any) -> Any:
    """``x < y`` in the order of sorting."""
    less = lt(x, y)
    if aval_of(x).dtype.kind != "f":
        return less
    return bitwise_or(less, bitwise_and(is_nan(y), bitwise_not(is_nan(x))))


def searchsorted(a: Any, v: Any, right: bool) -> Any:
    """How many elements of the sorted vector ``a`` come before each of ``v`` (or are equal to it, if ``right``).

    Both have one real dtype.

    >>> import numpy as np
    >>> searchsorted(np.array([1.0, 2.0, 2.0]), np.array([2.0, 3.0]), right=False)
    array([1, 3])
    """
    a, v = stop_gradient(a), stop_gradient(v)
    (n,), shape = shape_of(a), shape_of(v)
    if n <= LINEAR:
        whole = (*shape, n)
        x = broadcast_in_dim(a, whole, (len(shape),))
        y = broadcast_in_dim(expand_dims(v, (len(shape),)), whole, range(len(whole)))
        before = bitwise_not(_less(y, x)) if right else _less(x, y)
        return reduce_sum(convert_element_type(before, INDEX), (len(shape),))
    place = full(shape, 0, INDEX)
    for bit in range(n.bit_length() - 1, -1, -1):
        further = add(place, full(shape, 1 << bit, INDEX))
        probe = gather(a, [subtract(further, full(shape, 1, INDEX))], (0,), "clip")
        before = bitwise_not(_less(v, probe)) if right else _less(probe, v)
        place = select(bitwise_and(before, le(further, full(shape, n, INDEX))), further, place)
    return place


def count_places(places: Any, values: Any, length: int) -> Any:
    """The sum of the ``values`` at each of the places ``0 .. length - 1``; others are left out."""
    zeros = full((length,), 0, aval_of(values).dtype)
    return scatter_add(zeros, values, [places], (0,))
