"""Colourings of sparse patterns: which columns (or rows) of a Jacobian one product can compute together.

Columns that share no row may be summed in one product with the Jacobian and be told apart afterwards (Curtis, Powell
and Reid, 1974): they get one colour. Rows that share no column, likewise, in products from the left. Rows with very
many entries would make every column conflict with every other, and get products from the left of their own, while the
others are computed from the right; or the same with columns.

A symmetric matrix has each entry twice, and it is enough that either can be told: a *star colouring* of its graph,
in which neighbours differ and every path of four vertices has three colours (Coleman and Moré, 1984; the algorithm is
the one of Gebremedhin, Manne and Pothen, SIAM Review 47, 2005).

All take the first colour that is free, in the order of the columns, in loops of native code.

>>> import numpy as np
>>> from scipy.sparse import diags_array
>>> tridiagonal = diags_array([np.ones(5), np.ones(6), np.ones(5)], offsets=[-1, 0, 1], format="csr").astype(bool)
>>> color_matrix(tridiagonal).columns
array([0, 1, 2, 0, 1, 2])
>>> color_symmetric(tridiagonal).columns
array([0, 1, 0, 2, 0, 1])
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from ..record import record
from .compile import compile_runtime_kernel

__all__ = ["Coloring", "color_matrix", "color_symmetric"]

# indptr and indices by rows | the same by columns | colours | marks, one for each colour | number of colours
_GREEDY = """
def color_columns(slots, ints, lo, hi):
    row_start = load(ints)
    row = load(ints + 8)
    column_start = load(ints + 16)
    column = load(ints + 24)
    colors = load(ints + 32)
    marks = load(ints + 40)
    most = 0
    for j in range(lo, hi):
        for a in range(load(column_start + 8 * j), load(column_start + 8 * j + 8)):
            i = load(column + 8 * a)
            for b in range(load(row_start + 8 * i), load(row_start + 8 * i + 8)):
                taken = load(colors + 8 * load(row + 8 * b))
                if taken >= 0:
                    store(marks + 8 * taken, j)
        color = 0
        while load(marks + 8 * color) == j:
            color = color + 1
        store(colors + 8 * j, color)
        most = max(most, color + 1)
    store(load(ints + 48), most)
"""

# indptr and indices of a graph without loops | colours | marks | number of colours
_STAR = """
def color_stars(slots, ints, lo, hi):
    start = load(ints)
    edge = load(ints + 8)
    colors = load(ints + 16)
    marks = load(ints + 24)
    most = 0
    for v in range(lo, hi):
        for a in range(load(start + 8 * v), load(start + 8 * v + 8)):
            w = load(edge + 8 * a)
            near = load(colors + 8 * w)
            if near >= 0:
                store(marks + 8 * near, v)
            for b in range(load(start + 8 * w), load(start + 8 * w + 8)):
                x = load(edge + 8 * b)
                far = load(colors + 8 * x)
                if far >= 0:
                    if near < 0:
                        store(marks + 8 * far, v)
                    else:
                        for c in range(load(start + 8 * x), load(start + 8 * x + 8)):
                            y = load(edge + 8 * c)
                            if y != w and load(colors + 8 * y) == near:
                                store(marks + 8 * far, v)
                                break
        color = 0
        while load(marks + 8 * color) == v:
            color = color + 1
        store(colors + 8 * v, color)
        most = max(most, color + 1)
    store(load(ints + 32), most)
"""

_STAR_WORK = 1_000_000_000
"""Paths of four vertices up to which a star colouring is looked for (a few nanoseconds each)."""
_TWICE = 100_000_000
"""Up to which both orders are tried."""
_TABLE = 1 << 24
"""Entries of a table of all pairs of a row and a colour."""


@record(frozen=True, eq=False)
class Coloring:
    """``columns[j]`` is the colour of column ``j`` in products with the matrix from the right, ``rows[i]`` that of row
    ``i`` in those from the left; -1 where it takes no part. ``index`` says for each entry of the pattern, in CSR order,
    where its value lies among the results of all products, laid end to end: ``(n_columns, m)``, then ``(n_rows, n)``.
    """

    columns: np.ndarray
    rows: np.ndarray
    n_columns: int
    n_rows: int
    index: np.ndarray

    def __repr__(self) -> str:
        return (
            f"Coloring({self.n_columns} forward for {len(self.columns)} columns, "
            f"{self.n_rows} reverse for {len(self.rows)} rows)"
        )


@cache
def _function(name: str) -> Any:
    kernel = compile_runtime_kernel({"color_columns": _GREEDY, "color_stars": _STAR}[name], name)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    return kind(kernel.address)


def _run(name: str, arrays: list[np.ndarray], n: int) -> tuple[np.ndarray, int]:
    """Colours of ``n`` columns or vertices, and how many there are."""
    colors, marks, count = np.full(n, -1, np.int64), np.full(n + 1, -1, np.int64), np.zeros(1, np.int64)
    # arrays are named here, so that they live as long as their addresses are in use
    held = [np.ascontiguousarray(a, np.int64) for a in arrays] + [colors, marks, count]
    ints = np.array([a.ctypes.data for a in held], np.int64)
    _function(name)(0, ints.ctypes.data, 0, n)
    return colors, int(count[0])


def _color_columns(pattern: Any) -> tuple[np.ndarray, int]:
    """Columns with a row in common get different colours."""
    n = pattern.shape[1]
    if len(pattern.indptr) > 1 and np.diff(pattern.indptr).max() == n:  # a full row: all differ
        return np.arange(n), n
    by_columns = pattern.tocsc()
    arrays = [pattern.indptr, pattern.indices, by_columns.indptr, by_columns.indices]
    return _run("color_columns", arrays, n)


def _cheapest(counts: np.ndarray) -> tuple[int, int]:
    """How many of the rows with most entries to leave out, so that these and the colours that the rest needs at least
    are few; and that number of colours."""
    ordered = np.append(np.sort(counts)[::-1], 0)
    bound = np.arange(len(ordered)) + ordered
    best = int(np.argmin(bound))
    return best, int(bound[best])


def _split(pattern: Any, left_out: int) -> tuple[np.ndarray, np.ndarray, int, np.ndarray, int]:
    """Without the ``left_out`` fullest rows: which these are, colours of columns, and their own colours as rows."""
    counts = np.diff(pattern.indptr)
    full = np.zeros(pattern.shape[0], np.bool_)
    if left_out:
        full[np.argsort(-counts, kind="stable")[:left_out]] = True
    colors, n_colors = _color_columns(pattern[~full] if left_out else pattern)
    own = np.full(pattern.shape[0], -1)
    n_own = 0
    if left_out:
        own[full], n_own = _color_columns(pattern[full].T.tocsr())
    return full, colors, n_colors, own, n_own


def color_matrix(pattern: Any) -> Coloring:
    """A colouring of the columns or rows of a boolean CSR matrix, or of both, with few colours altogether."""
    m, n = pattern.shape
    by_rows = pattern.T.tocsr()
    forward, reverse = _cheapest(np.diff(pattern.indptr)), _cheapest(np.diff(by_rows.indptr))
    order = [False, True] if forward[1] <= reverse[1] else [True, False]
    best: Any = None
    for transposed in order:
        left_out, bound = reverse if transposed else forward
        if best is not None and bound >= best[0]:
            break
        found = _split(by_rows if transposed else pattern, left_out)
        if best is None or found[2] + found[4] < best[0]:
            best = (found[2] + found[4], transposed, found)
    _, transposed, (full, colors, n_colors, own, n_own) = best
    i, j = np.repeat(np.arange(m), np.diff(pattern.indptr)), pattern.indices.astype(np.int64)
    if transposed:
        start = n_own * m
        index = np.where(full[j], own[j] * m + i, start + colors[i] * n + j)
        return Coloring(own, colors, n_own, n_colors, index)
    start = n_colors * m
    index = np.where(full[i], start + own[i] * n + j, colors[j] * m + i)
    return Coloring(colors, own, n_colors, n_own, index)


def color_symmetric(pattern: Any) -> Coloring:
    """A colouring of the columns of a symmetric boolean CSR matrix from whose products every entry, or the one
    opposite, can be read."""
    n = pattern.shape[0]
    graph = pattern.tocoo()
    off = graph.row != graph.col
    graph = type(graph)((graph.data[off], (graph.row[off], graph.col[off])), shape=(n, n)).tocsr()
    degrees = np.diff(graph.indptr).astype(np.float64)
    hubs = np.zeros(n, np.bool_)
    if degrees @ (graph.astype(np.float64) @ degrees) > _STAR_WORK:
        hubs[np.argsort(-degrees, kind="stable")[: _cheapest(np.diff(graph.indptr))[0]]] = True
    rest = graph[~hubs][:, ~hubs] if hubs.any() else graph
    degrees = np.diff(rest.indptr).astype(np.float64)
    work = degrees @ (rest.astype(np.float64) @ degrees)
    if work <= _STAR_WORK:
        colors, n_colors = _color_stars(rest, degrees, both=work <= _TWICE)
    else:
        inner = pattern[~hubs][:, ~hubs] if hubs.any() else pattern
        colors, n_colors = _color_columns(inner)
    columns = np.empty(n, np.int64)
    columns[~hubs] = colors
    n_hubs = int(hubs.sum())
    columns[hubs] = np.arange(n_colors, n_colors + n_hubs)
    n_colors += n_hubs
    return Coloring(columns, np.full(n, -1), n_colors, 0, _symmetric_index(pattern, columns, n_colors))


def _color_stars(graph: Any, degrees: np.ndarray, both: bool) -> tuple[np.ndarray, int]:
    """By falling degree (the neighbours of a vertex that is coloured late all have to differ); with ``both`` also in
    the given order, which suits meshes."""
    n = graph.shape[0]
    order = np.argsort(-degrees, kind="stable")
    ordered = graph[order][:, order]
    found, count = _run("color_stars", [ordered.indptr, ordered.indices], n)
    colors = np.empty(n, np.int64)
    colors[order] = found
    if both and not np.array_equal(order, np.arange(n)):
        other, other_count = _run("color_stars", [graph.indptr, graph.indices], n)
        if other_count <= count:
            return other, other_count
    return colors, count


def _symmetric_index(pattern: Any, columns: np.ndarray, n_colors: int) -> np.ndarray:
    """Entry (i, j) is what column j's product has in row i, if no other entry of row i has that colour; else what
    column i's has in row j."""
    n = pattern.shape[0]
    i, j = np.repeat(np.arange(n), np.diff(pattern.indptr)), pattern.indices.astype(np.int64)
    key = i * n_colors + columns[j]
    if n * n_colors <= _TABLE:
        alone = np.bincount(key, minlength=n * n_colors)[key] == 1
    else:
        _, place, counts = np.unique(key, return_inverse=True, return_counts=True)
        alone = counts[place] == 1
    return np.where(alone, columns[j] * n + i, columns[i] * n + j)
