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

__all__ = ["canonicalize_axes", "canonicalize_axis", "check_format", "prod"]


def prod(values: Iterable[int]) -> int:
    """Product of integers as a Python int, which cannot overflow; the empty product is 1.

    >>> prod((2, 3, 4)), prod(())
    (24, 1)
    """
    return math.prod(map(operator.index, values))


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


def check_format(fmt: Any, n_args: int, names: Any, what: str) -> None:
    """Raise where a format string and its arguments do not fit."""
    if not isinstance(fmt, str):
        raise TypeError(f"{what}: the first argument must be a format string, found {type(fmt).__name__}")
    used: set[int | str] = set()
    automatic = 0
    fields = [field for _, field, spec, _ in _fields(fmt) if field is not None]
    for field in fields:
        head = field.split(".")[0].split("[")[0]
        if head == "":
            used.add(automatic)
            automatic += 1
        else:
            used.add(int(head) if head.isdigit() else head)
    known = {*range(n_args), *names}
    missing, unused = used - known, known - used
    if missing:
        listed = ", ".join([f"{{{name}}}" for name in sorted(missing, key=str)])
        raise ValueError(
            f"{what}: the format string {fmt!r} names {listed}, which was not given: pass the values behind it, as in "
            '("x = {x}", x=x)'
        )
    if unused:
        listed = ", ".join([f"argument {x}" if isinstance(x, int) else f"{x}=" for x in sorted(unused, key=str)])
        raise ValueError(
            f"{what}: the format string {fmt!r} does not use {listed}. Write a place for it, {{}} or {{name}}; an "
            "f-string would format the tracer instead of its value"
        )


def _fields(fmt: str) -> list[Any]:
    """The replacement fields, those inside of format specifications included."""
    import string  # half a millisecond

    found = []
    for item in string.Formatter().parse(fmt):
        found.append(item)
        if item[2]:
            found += _fields(item[2])
    return found
