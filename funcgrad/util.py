"""Small strict helpers that every layer uses.

The axis helpers turn NumPy's negative axes into plain indices once, at the border, so that everything behind it can
count from zero.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

from numpy.exceptions import AxisError

__all__ = ["canonicalize_axes", "canonicalize_axis", "prod"]


def prod(values: Iterable[int]) -> int:
    """Product of integers as a Python int, which cannot overflow; the empty product is 1.

    >>> prod((2, 3, 4)), prod(())
    (24, 1)
    """
    return math.prod(operator.index(v) for v in values)


def canonicalize_axis(axis: Any, ndim: int, name: str = "axis") -> int:
    """Turn ``axis`` in ``[-ndim, ndim)`` into an index in ``[0, ndim)``; ``name`` is the argument's name.

    >>> canonicalize_axis(-1, 3)
    2
    """
    try:
        index = operator.index(axis)
    except TypeError:
        raise TypeError(f"{name} must be an integer, found {axis!r} of type {type(axis).__name__}") from None
    if not -ndim <= index < ndim:
        if ndim == 0:
            raise AxisError(f"{name} {index} is out of bounds: a 0-dimensional array has no axes")
        raise AxisError(
            f"{name} {index} is out of bounds for array of dimension {ndim}; "
            f"write an integer from {-ndim} to {ndim - 1}"
        )
    return index + ndim if index < 0 else index


def canonicalize_axes(axes: Any, ndim: int, name: str = "axis", *, sort: bool = False) -> tuple[int, ...]:
    """As :func:`canonicalize_axis` for ``None`` (every axis), one integer, or a sequence without repeats.

    >>> canonicalize_axes((0, -1), 3), canonicalize_axes(None, 2), canonicalize_axes(-2, 2)
    ((0, 2), (0, 1), (0,))
    """
    if axes is None:
        return tuple(range(ndim))
    if isinstance(axes, (tuple, list)):
        result = tuple([canonicalize_axis(a, ndim, name) for a in axes])
    else:
        result = (canonicalize_axis(axes, ndim, name),)
    if len(set(result)) != len(result):
        raise ValueError(f"{name} names the same axis twice: {axes!r} for an array of dimension {ndim}")
    return tuple(sorted(result)) if sort else result
