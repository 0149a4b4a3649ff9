"""Sets of inputs, one for each element of an array: what the analysis of sparsity computes with.

A value of shape ``s`` that depends on ``n`` inputs has ``Rows``: a table of sets (rows of a boolean CSR matrix with
``n`` columns) and an integer array of shape ``s`` that says which of them each element has, -1 for none. What moves
elements (a slice, a transpose, a gather, a broadcast) then only moves integers, and a value of a million elements
that all depend on everything is one row. Sets are unions of sets: ``union`` of operands elementwise, ``gather_sets``
of elements that are added up, which is a product of boolean matrices.

All of it may grow sets and never shrinks them. Where a table would have more than ``LIMIT`` entries, one set, of all
that occur, stands for all of its rows: memory is bounded, and the answer is still an upper bound.

>>> x = identity((3,), 0, 3)
>>> pairs = union([x.moved(lambda w: w[1:]), x.moved(lambda w: w[:-1])], (2,))
>>> pairs.matrix().toarray().astype(int)
array([[1, 1, 0],
       [0, 1, 1]])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..util import prod

__all__ = ["LIMIT", "Rows", "constant_set", "gather_sets", "identity", "selected", "union"]

LIMIT = 1 << 26
"""Entries of one table, at five bytes each."""


def csr(indices: Any, indptr: Any, shape: tuple[int, int]) -> Any:
    """The boolean CSR matrix with these entries."""
    from scipy.sparse import csr_array  # scipy.sparse takes a while to import, and few programs want it

    return csr_array((np.ones(len(indices), np.bool_), indices, indptr), shape=shape)


class Rows:
    """Element ``e`` depends on the inputs in row ``which[e]`` of ``table``, on none where that is -1."""

    __slots__ = ("table", "which")

    def __init__(self, table: Any, which: np.ndarray) -> None:
        self.table = table
        self.which = which

    @property
    def shape(self) -> tuple[int, ...]:
        return self.which.shape

    def moved(self, fun: Callable[[Any], Any]) -> Rows:
        """After an operation that moves, repeats or drops elements: ``fun`` does so to an array of integers."""
        return Rows(self.table, np.asarray(fun(self.which)))

    def masked(self, keep: Any) -> Rows:
        """No dependence where ``keep`` (of a shape that broadcasts) is false."""
        return Rows(self.table, np.where(keep, self.which, -1))

    def matrix(self) -> Any:
        """The sets of all elements in order: a boolean CSR matrix with a row for each."""
        flat = self.which.ravel()
        count = self.table.shape[0]
        if flat.size == count and np.array_equal(flat, np.arange(count)):
            return self.table
        return self._with_empty()[np.where(flat < 0, count, flat)]

    def _with_empty(self) -> Any:
        table = self.table
        return csr(table.indices, np.append(table.indptr, table.indptr[-1]), (table.shape[0] + 1, table.shape[1]))

    def entries(self) -> int:
        """How many entries ``matrix()`` has."""
        lengths = np.append(np.diff(self.table.indptr), 0).astype(np.int64)
        return int(lengths[self.which].sum())

    def is_full(self) -> bool:
        """Whether every element depends on every input."""
        table = self.table
        return bool(table.shape[0] == 1 and table.nnz == table.shape[1] and (self.which >= 0).all())


def identity(shape: Sequence[int], start: int, n: int) -> Rows:
    """An array of inputs ``start, start + 1, ...`` out of ``n``."""
    size = prod(shape)
    table = csr(np.arange(start, start + size, dtype=np.int32), np.arange(size + 1, dtype=np.int32), (size, n))
    return Rows(table, np.arange(size).reshape(shape))


def constant_set(parts: Sequence[Rows], shape: Sequence[int]) -> Rows:
    """Every element of a result may depend on all that occurs in the operands: the bound that always holds."""
    n = parts[0].table.shape[1]
    seen = np.zeros(n, np.bool_)
    for part in parts:
        count = part.table.shape[0]
        used = np.zeros(count + 1, np.bool_)
        used[part.which] = True
        if used[:count].all():
            seen[part.table.indices] = True
        else:
            seen[part.table[np.flatnonzero(used[:count])].indices] = True
    indices = np.flatnonzero(seen).astype(np.int32)
    return Rows(csr(indices, np.array([0, len(indices)], np.int32), (1, n)), np.zeros(tuple(shape), np.intp))


def union(parts: Sequence[Rows | None], shape: tuple[int, ...]) -> Rows | None:
    """Elementwise union; operands broadcast to ``shape``."""
    present = [Rows(p.table, np.broadcast_to(p.which, shape)) for p in parts if p is not None]
    if not present:
        return None
    for part in present:
        if part.is_full():
            return part
    total = present[0]
    for part in present[1:]:
        total = _union(total, part)
    return total


def _union(a: Rows, b: Rows) -> Rows:
    if a.table is b.table and np.array_equal(a.which, b.which):
        return a
    size, rows, columns = a.which.size, a.table.shape[0] + 1, b.table.shape[0] + 1
    if rows * columns <= size:  # few different pairs, whatever the number of elements
        code = np.where(a.which < 0, rows - 1, a.which) * columns + np.where(b.which < 0, columns - 1, b.which)
        occurs = np.zeros(rows * columns, np.bool_)
        occurs[code] = True
        pairs = np.flatnonzero(occurs)
        place = np.cumsum(occurs) - 1
        left, right = Rows(a.table, pairs // columns), Rows(b.table, pairs % columns)
        left.which[left.which == rows - 1] = -1
        right.which[right.which == columns - 1] = -1
        both = _union_all(left, right)
        return Rows(both.table, both.which[place[code]])
    return _union_all(a, b)


def _union_all(a: Rows, b: Rows) -> Rows:
    if a.entries() + b.entries() > LIMIT:
        return constant_set([a, b], a.shape)
    return Rows(a.matrix() + b.matrix(), np.arange(a.which.size).reshape(a.shape))


def gather_sets(rows: Rows, targets: Any, sources: Any, shape: Sequence[int]) -> Rows:
    """The result whose element ``targets[k]`` gets element ``sources[k]`` of ``rows`` added to it, for all ``k``
    (flat positions)."""
    from scipy.sparse import csr_array

    size, count = prod(shape), rows.table.shape[0]
    columns = rows.which.ravel()[sources]
    kept = columns >= 0
    if not kept.all():
        columns, targets = columns[kept], targets[kept]
    sums = csr_array((np.ones(len(columns), np.bool_), (targets, columns)), shape=(size, count))
    parts = np.diff(sums.indptr)
    if not len(columns) or parts.max() <= 1:  # one set for each element: no new ones
        which = np.full(size, -1)
        which[np.flatnonzero(parts)] = sums.indices
        return Rows(rows.table, which.reshape(shape))
    if int(np.diff(rows.table.indptr).astype(np.int64)[sums.indices].sum()) > LIMIT:
        return constant_set([rows], shape)
    table = sums @ rows.table
    table.sort_indices()
    return Rows(table, np.arange(size).reshape(shape))


def selected(parts: Sequence[Rows | None], sizes: Sequence[int], index: Any) -> Rows | None:
    """Elements out of several operands, laid end to end: ``index`` counts through all, -1 for none."""
    from scipy.sparse import vstack

    tables: list[Any] = []
    whichs, start = [], 0
    for part, size in zip(parts, sizes, strict=True):
        if part is None:
            whichs.append(np.full(size, -1))
            continue
        if not any(part.table is t for t in tables):
            tables.append(part.table)
        start = sum(t.shape[0] for t in tables[: next(k for k, t in enumerate(tables) if t is part.table)])
        flat = part.which.ravel()
        whichs.append(np.where(flat < 0, -1, flat + start))
    if not tables:
        return None
    table = tables[0] if len(tables) == 1 else vstack(tables, format="csr")
    return Rows(table, np.concatenate([*whichs, [-1]])[index])
