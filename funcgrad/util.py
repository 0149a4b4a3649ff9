"""Small strict helpers that every layer uses.

Python's ``zip`` stops silently at the shortest argument; in code that pairs variables with values that hides
real bugs, so the strict forms here raise instead.  The axis helpers turn NumPy's negative axes into plain
indices once, at the border, so that everything behind it can count from zero.
"""
from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from numpy.exceptions import AxisError

__all__ = [
    "canonicalize_axes",
    "canonicalize_axis",
    "merge_lists",
    "partition_list",
    "prod",
    "safe_map",
    "safe_zip",
    "split_list",
    "unzip2",
    "unzip3",
]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


def _same_length(name: str, columns: Sequence[Sequence[Any]]) -> None:
    lengths = [len(c) for c in columns]
    if lengths and lengths.count(lengths[0]) != len(lengths):
        raise ValueError(f"{name}: the arguments have different lengths: {lengths}")


def safe_zip(*args: Iterable[Any]) -> list[tuple[Any, ...]]:
    """``list(zip(...))`` that insists on equal lengths.

    >>> safe_zip([1, 2], "ab")
    [(1, 'a'), (2, 'b')]
    """
    columns = [a if isinstance(a, (list, tuple)) else list(a) for a in args]
    _same_length("safe_zip", columns)
    return list(zip(*columns, strict=True))


def safe_map(f: Callable[..., B], *args: Iterable[Any]) -> list[B]:
    """``list(map(f, ...))`` that insists on equal lengths.

    >>> safe_map(max, [1, 5], [3, 2])
    [3, 5]
    """
    columns = [a if isinstance(a, (list, tuple)) else list(a) for a in args]
    _same_length("safe_map", columns)
    return list(builtins.map(f, *columns))


def unzip2(pairs: Iterable[tuple[A, B]]) -> tuple[list[A], list[B]]:
    """Split pairs into two lists; no pairs give two empty lists.

    >>> unzip2([(1, 'a'), (2, 'b')])
    ([1, 2], ['a', 'b'])
    """
    firsts: list[A] = []
    seconds: list[B] = []
    for first, second in pairs:
        firsts.append(first)
        seconds.append(second)
    return firsts, seconds


def unzip3(triples: Iterable[tuple[A, B, C]]) -> tuple[list[A], list[B], list[C]]:
    """Split triples into three lists; no triples give three empty lists.

    >>> unzip3([(1, 'a', True)])
    ([1], ['a'], [True])
    """
    firsts: list[A] = []
    seconds: list[B] = []
    thirds: list[C] = []
    for first, second, third in triples:
        firsts.append(first)
        seconds.append(second)
        thirds.append(third)
    return firsts, seconds, thirds


def split_list(values: Sequence[A], sizes: Sequence[int]) -> list[list[A]]:
    """Cut ``values`` into pieces of the given sizes and one last piece with the rest.

    >>> split_list([1, 2, 3, 4, 5], [2, 1])
    [[1, 2], [3], [4, 5]]
    """
    total = 0
    for size in sizes:
        if size < 0:
            raise ValueError(f"split_list: a size is negative: {list(sizes)}")
        total += size
    if total > len(values):
        raise ValueError(f"split_list: sizes {list(sizes)} need {total} values, found {len(values)}")
    pieces = []
    start = 0
    for size in sizes:
        pieces.append(list(values[start:start + size]))
        start += size
    pieces.append(list(values[start:]))
    return pieces


def partition_list(choose_second: Sequence[bool], values: Sequence[A]) -> tuple[list[A], list[A]]:
    """Deal ``values`` into two lists: where the flag is false into the first, where true into the second.

    >>> partition_list([False, True, False], ['a', 'b', 'c'])
    (['a', 'c'], ['b'])
    """
    _same_length("partition_list", [choose_second, values])
    lists: tuple[list[A], list[A]] = ([], [])
    for second, value in zip(choose_second, values, strict=True):
        lists[bool(second)].append(value)
    return lists


def merge_lists(choose_second: Sequence[bool], first: Sequence[A], second: Sequence[A]) -> list[A]:
    """The inverse of :func:`partition_list`.

    >>> merge_lists([False, True, False], ['a', 'c'], ['b'])
    ['a', 'b', 'c']
    """
    n_second = sum(1 for flag in choose_second if flag)
    n_first = len(choose_second) - n_second
    if (n_first, n_second) != (len(first), len(second)):
        raise ValueError(f"merge_lists: the flags ask for {n_first} and {n_second} values, "
                         f"found {len(first)} and {len(second)}")
    sources = (iter(first), iter(second))
    return [next(sources[bool(flag)]) for flag in choose_second]


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
        raise AxisError(f"{name} {index} is out of bounds for array of dimension {ndim}; "
                        f"write an integer from {-ndim} to {ndim - 1}")
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
