"""Small matrices, many at a time: kernels whose innermost loop runs over matrices.

A call of LAPACK costs more than the arithmetic of a matrix of order 8. Here a tile of ``LANES`` matrices lies element
by element next to each other in a scratch array on the stack, so that every scalar operation of the algorithm is a
loop over lanes that LLVM turns into vector instructions. The parallel axis counts tiles; the last one repeats its last
matrix in lanes that have none.

Orders are run-time integers (at most ``LARGEST``, what the scratch holds), so a kernel is compiled once for all. Every
operand has a byte stride per axis: transposes, triangles and sides are exchanges of strides, and an upper triangle is
a lower one read backwards.

Pivoting is a choice per lane: no row moves, each lane selects. Where a matrix is not positive definite its factor is
NaN in every element, as with the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from ..record import replace

__all__ = ["LANES", "LARGEST", "MEDIUM", "lane_source", "lane_table"]

LARGEST: Final = 16
LANES: Final = {("f64", False): 8, ("f64", True): 8, ("f32", False): 16, ("f32", True): 8}
"""Matrices in a tile, by kind and whether their order is above ``MEDIUM``: 16 of order 16 take more than the cache."""
MEDIUM: Final = 8
_SIZES: Final = {"f64": 8, "f32": 4}
_KINDS: Final = {"float64": "f64", "float32": "f32"}


def _text(body: str, kind: str, lanes: int) -> str:
    """``@`` stands for the kind, ``LANES`` and ``SQUARE``, ``LINE``, ``ONE`` for the lanes and bytes of scratch."""
    body = body.replace("SQUARE", str(LARGEST * LARGEST * lanes * _SIZES[kind]))
    body = body.replace("LINE", str(LARGEST * lanes * _SIZES[kind])).replace("ONE", str(lanes * _SIZES[kind]))
    return body.replace("LANES", str(lanes)).replace("@", kind).lstrip("\n")


def _kernel(operands: int, words: str, body: str) -> str:
    """``body`` under its head. The table is: the operands' slots, their byte offsets, ``words``."""
    lines = [f"    p{k} = base(slots, ints, {k}, {operands + k})" for k in range(operands)]
    lines += [f"    {word} = integer(ints, {2 * operands + k})" for k, word in enumerate(words.split())]
    return "\n".join(["def kernel(slots, ints, lo, hi):", *lines, body.strip("\n"), ""])


_CHOLESKY = _kernel(
    2,
    "batch n step0 down0 right0 step1",
    """
    m = stack(SQUARE)
    t = stack(LINE)
    r = stack(ONE)
    bad = stack(ONE)
    for tile in range(lo, hi):
        first = tile * LANES
        for i in range(n):
            for j in range(i + 1):
                for l in range(LANES):
                    at = p0 + min_i64(first + l, batch - 1) * step0 + i * down0 + j * right0
                    store_@(m, (i * n + j) * LANES + l, 2, load_@(at, 0, 0))
        for l in range(LANES):
            store_@(bad, l, 5, @(0.0))
        for j in range(n):
            for i in range(j, n):
                for l in range(LANES):
                    store_@(t, i * LANES + l, 3, load_@(m, (i * n + j) * LANES + l, 2))
                for k in range(j):
                    for l in range(LANES):
                        a = load_@(m, (i * n + k) * LANES + l, 2)
                        b = load_@(m, (j * n + k) * LANES + l, 2)
                        c = load_@(t, i * LANES + l, 3)
                        store_@(t, i * LANES + l, 3, c - a * b)
            for l in range(LANES):
                d = load_@(t, j * LANES + l, 3)
                store_@(bad, l, 5, select_@(gt_@(d, @(0.0)), load_@(bad, l, 5), @(nan)))
                store_@(r, l, 4, div_@(@(1.0), sqrt_@(d)))
            for i in range(j, n):
                for l in range(LANES):
                    v = load_@(t, i * LANES + l, 3) * load_@(r, l, 4)
                    store_@(m, (i * n + j) * LANES + l, 2, v)
        for l in range(min_i64(LANES, batch - first)):
            at = p1 + (first + l) * step1
            w = load_@(bad, l, 5)
            for i in range(n):
                for j in range(i + 1):
                    store_@(at, i * n + j, 1, load_@(m, (i * n + j) * LANES + l, 2) + w)
                for j in range(i + 1, n):
                    store_@(at, i * n + j, 1, w)
""",
)


def _cholesky(operands: Any, results: Any, batch: int, params: Any) -> list[int]:
    (a,), (x,) = operands, results
    return [a.slot, x.slot, a.offset, x.offset, batch, a.shape[0], a.batch_stride, *a.strides, x.batch_stride]


# A lower triangle f, forwards: t is the right-hand side that is worked on, y the solution.
_FORWARD = """
            for j in range(n):
                for l in range(LANES):
                    v = load_@(t, j * LANES + l, 4) * load_@(r, j * LANES + l, 6)
                    store_@(y, j * LANES + l, 5, v)
                for i in range(j + 1, n):
                    for l in range(LANES):
                        v = load_@(f, (i * n + j) * LANES + l, 3) * load_@(y, j * LANES + l, 5)
                        store_@(t, i * LANES + l, 4, load_@(t, i * LANES + l, 4) - v)
"""

_TRIANGULAR = _kernel(
    3,
    "batch n columns step0 down0 right0 step1 down1 right1 step2 down2 right2 unit",
    """
    f = stack(SQUARE)
    t = stack(LINE)
    y = stack(LINE)
    r = stack(LINE)
    for tile in range(lo, hi):
        first = tile * LANES
        for i in range(n):
            for j in range(i + 1 - unit):
                for l in range(LANES):
                    at = p0 + min_i64(first + l, batch - 1) * step0 + i * down0 + j * right0
                    store_@(f, (i * n + j) * LANES + l, 3, load_@(at, 0, 0))
            for l in range(LANES):
                store_@(r, i * LANES + l, 6, @(1.0))
            if unit == 0:
                for l in range(LANES):
                    store_@(r, i * LANES + l, 6, div_@(@(1.0), load_@(f, (i * n + i) * LANES + l, 3)))
        for c in range(columns):
            for i in range(n):
                for l in range(LANES):
                    at = p1 + min_i64(first + l, batch - 1) * step1 + i * down1 + c * right1
                    store_@(t, i * LANES + l, 4, load_@(at, 0, 1))
"""
    + _FORWARD
    + """
            for l in range(min_i64(LANES, batch - first)):
                at = p2 + (first + l) * step2 + c * right2
                for i in range(n):
                    store_@(at + i * down2, 0, 2, load_@(y, i * LANES + l, 5))
""",
)


def _triangular_solve(operands: Any, results: Any, batch: int, params: Any) -> list[int]:
    (a, b), (x,) = operands, results
    lower = params["lower"]
    if params["transpose_a"] == params["left_side"]:  # on the right it is of xᵀ op(a)ᵀ = bᵀ
        a, lower = a.T, not lower
    if not params["left_side"]:
        b, x = b.T, x.T
    if not lower:
        a, b, x = _backwards(a, True), _backwards(b, False), _backwards(x, False)
    every = (a, b, x)
    return [
        *[v.slot for v in every], *[v.offset for v in every], batch, *b.shape, a.batch_stride, *a.strides,
        b.batch_stride, *b.strides, x.batch_stride, *x.strides, int(params["unit_diagonal"]),
    ]  # fmt: skip


def _backwards(x: Any, columns: bool) -> Any:
    """A matrix whose rows, and columns too, are read from the last to the first."""
    (m, n), (down, right) = x.shape, x.strides
    offset = x.offset + (m - 1) * down + ((n - 1) * right if columns else 0)
    return replace(x, offset=offset, strides=(-down, -right if columns else right))


# Each lane has a pivot of its own: every row takes part in every exchange, and selects.
_LU = _kernel(
    4,
    "batch n step0 down0 right0 step1 step2 step3",
    """
    m = stack(SQUARE)
    order = stack(LINE)
    pivot = stack(LINE)
    best = stack(ONE)
    own = stack(ONE)
    new = stack(ONE)
    r = stack(ONE)
    u = stack(LINE)
    for tile in range(lo, hi):
        first = tile * LANES
        for i in range(n):
            for j in range(n):
                for l in range(LANES):
                    at = p0 + min_i64(first + l, batch - 1) * step0 + i * down0 + j * right0
                    store_@(m, (j * n + i) * LANES + l, 4, load_@(at, 0, 0))
        for i in range(n):
            for l in range(LANES):
                store_@(order, i * LANES + l, 5, i64_to_@(i))
        for k in range(n):
            for l in range(LANES):
                store_@(pivot, k * LANES + l, 6, i64_to_@(k))
                store_@(best, l, 7, abs_@(load_@(m, (k * n + k) * LANES + l, 4)))
            for i in range(k + 1, n):
                for l in range(LANES):
                    v = abs_@(load_@(m, (k * n + i) * LANES + l, 4))
                    more = gt_@(v, load_@(best, l, 7))
                    store_@(best, l, 7, select_@(more, v, load_@(best, l, 7)))
                    store_@(pivot, k * LANES + l, 6, select_@(more, i64_to_@(i), load_@(pivot, k * LANES + l, 6)))
            for j in range(n):
                for l in range(LANES):
                    v = load_@(m, (j * n + k) * LANES + l, 4)
                    store_@(own, l, 8, v)
                    store_@(new, l, 9, v)
                for i in range(k + 1, n):
                    for l in range(LANES):
                        here = eq_@(load_@(pivot, k * LANES + l, 6), i64_to_@(i))
                        v = load_@(m, (j * n + i) * LANES + l, 4)
                        store_@(new, l, 9, select_@(here, v, load_@(new, l, 9)))
                        store_@(m, (j * n + i) * LANES + l, 4, select_@(here, load_@(own, l, 8), v))
                for l in range(LANES):
                    store_@(m, (j * n + k) * LANES + l, 4, load_@(new, l, 9))
            for l in range(LANES):
                store_@(own, l, 8, load_@(order, k * LANES + l, 5))
                store_@(new, l, 9, load_@(order, k * LANES + l, 5))
            for i in range(k + 1, n):
                for l in range(LANES):
                    here = eq_@(load_@(pivot, k * LANES + l, 6), i64_to_@(i))
                    v = load_@(order, i * LANES + l, 5)
                    store_@(new, l, 9, select_@(here, v, load_@(new, l, 9)))
                    store_@(order, i * LANES + l, 5, select_@(here, load_@(own, l, 8), v))
            for l in range(LANES):
                store_@(order, k * LANES + l, 5, load_@(new, l, 9))
                d = load_@(m, (k * n + k) * LANES + l, 4)
                store_@(r, l, 10, div_@(@(1.0), select_@(eq_@(d, @(0.0)), @(1.0), d)))
            for i in range(k + 1, n):
                for l in range(LANES):
                    v = load_@(m, (k * n + i) * LANES + l, 4) * load_@(r, l, 10)
                    store_@(u, i * LANES + l, 11, v)
                    store_@(m, (k * n + i) * LANES + l, 4, v)
            for j in range(k + 1, n):
                for l in range(LANES):
                    store_@(own, l, 8, load_@(m, (j * n + k) * LANES + l, 4))
                for i in range(k + 1, n):
                    for l in range(LANES):
                        v = load_@(u, i * LANES + l, 11) * load_@(own, l, 8)
                        store_@(m, (j * n + i) * LANES + l, 4, load_@(m, (j * n + i) * LANES + l, 4) - v)
        for l in range(min_i64(LANES, batch - first)):
            for e in range(n * n):
                store_@(p1 + (first + l) * step1, e, 1, load_@(m, e * LANES + l, 4))
            for i in range(n):
                store_i32(p2 + (first + l) * step2, i, 2, @_to_i32(load_@(pivot, i * LANES + l, 6)))
                store_i32(p3 + (first + l) * step3, i, 3, @_to_i32(load_@(order, i * LANES + l, 5)))
""",
)


def _lu(operands: Any, results: Any, batch: int, params: Any) -> list[int]:
    every = [*operands, *results]
    return [
        *[x.slot for x in every], *[x.offset for x in every], batch, operands[0].shape[0],
        operands[0].batch_stride, *operands[0].strides, *[x.batch_stride for x in results],
    ]  # fmt: skip


# f holds L below and U above, or their transposes; the second half reads it backwards.
_SYSTEM = _kernel(
    4,
    "batch n columns step0 down0 right0 step1 step2 down2 right2 step3 transposed",
    """
    f = stack(SQUARE)
    t = stack(LINE)
    y = stack(LINE)
    r = stack(LINE)
    d = stack(LINE)
    for tile in range(lo, hi):
        first = tile * LANES
        for i in range(n):
            for j in range(n):
                for l in range(LANES):
                    at = p0 + min_i64(first + l, batch - 1) * step0 + i * down0 + j * right0
                    store_@(f, (i * n + j) * LANES + l, 3, load_@(at, 0, 0))
            for l in range(LANES):
                v = div_@(@(1.0), load_@(f, (i * n + i) * LANES + l, 3))
                store_@(r, i * LANES + l, 6, @(1.0))
                store_@(d, i * LANES + l, 7, v)
            if transposed != 0:
                for l in range(LANES):
                    store_@(r, i * LANES + l, 6, load_@(d, i * LANES + l, 7))
                    store_@(d, i * LANES + l, 7, @(1.0))
        for c in range(columns):
            for i in range(n):
                for l in range(LANES):
                    q = min_i64(first + l, batch - 1)
                    row = i
                    if transposed == 0:
                        row = i32_to_i64(load_i32(p1 + q * step1, i, 1))
                    store_@(t, i * LANES + l, 4, load_@(p2 + q * step2 + row * down2 + c * right2, 0, 2))
"""
    + _FORWARD
    + """
            for s in range(n):
                j = n - 1 - s
                for l in range(LANES):
                    v = load_@(y, j * LANES + l, 5) * load_@(d, j * LANES + l, 7)
                    store_@(t, j * LANES + l, 4, v)
                for i in range(j):
                    for l in range(LANES):
                        v = load_@(f, (i * n + j) * LANES + l, 3) * load_@(t, j * LANES + l, 4)
                        store_@(y, i * LANES + l, 5, load_@(y, i * LANES + l, 5) - v)
            for l in range(min_i64(LANES, batch - first)):
                q = first + l
                for i in range(n):
                    row = i
                    if transposed != 0:
                        row = i32_to_i64(load_i32(p1 + q * step1, i, 1))
                    store_@(p3 + q * step3, row * columns + c, 8, load_@(t, i * LANES + l, 4))
""",
)


def _linear_solve(operands: Any, results: Any, batch: int, params: Any) -> list[int]:
    (f, order, b), (x,) = operands, results
    every = (f, order, b, x)
    down, right = f.strides[::-1] if params["transpose"] else f.strides
    return [
        *[v.slot for v in every], *[v.offset for v in every], batch, *b.shape, f.batch_stride, down, right,
        order.batch_stride, b.batch_stride, *b.strides, x.batch_stride, int(params["transpose"]),
    ]  # fmt: skip


_ROUTINES: Final[dict[str, tuple[str, Callable[..., list[int]]]]] = {
    "cholesky": (_CHOLESKY, _cholesky),
    "triangular_solve": (_TRIANGULAR, _triangular_solve),
    "lu": (_LU, _lu),
    "linear_solve": (_SYSTEM, _linear_solve),
}


def _lanes(dtype: np.dtype[Any], order: int) -> tuple[str, int]:
    kind = _KINDS[np.dtype(dtype).name]
    return kind, LANES[kind, order > MEDIUM]


def lane_source(routine: str, dtype: np.dtype[Any], order: int) -> str:
    """The kernel of a routine, for matrices of float32 or float64.

    Of the order, at most ``LARGEST``, it depends on nothing but whether it is above ``MEDIUM``.
    """
    return _text(_ROUTINES[routine][0], *_lanes(dtype, order))


def lane_table(
    routine: str,
    dtype: np.dtype[Any],
    operands: Sequence[Any],
    results: Sequence[Any],
    batch: int,
    params: Mapping[str, Any],
) -> tuple[list[int], int]:
    """The kernel's table and the extent of its parallel axis. Operands are of the kind ``runtime.libraries.Matrix``."""
    _, lanes = _lanes(dtype, operands[0].shape[0])
    return _ROUTINES[routine][1](operands, results, batch, params), -(-batch // lanes)
