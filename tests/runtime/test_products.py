"""Matrix products of our own against NumPy: storage orders, remainders of blocks, batches, threads and tiles."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator
from itertools import product as combinations

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.runtime import products, threads
from funcgrad.runtime.executor import Program, Step
from funcgrad.runtime.libraries import Matrix, gemm_step
from funcgrad.runtime.products import suits
from funcgrad.runtime.target import wide

pytestmark = pytest.mark.skipif(not wide(), reason="registers of this CPU are shorter than 512 bits")


@pytest.fixture
def pool_size() -> Iterator[Callable[[int], None]]:
    before = threads.get_num_threads()
    yield threads.set_num_threads
    threads.set_num_threads(before)


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to BLAS."""
    monkeypatch.setattr(products, "BLAS_SMALL", 0)
    monkeypatch.setattr(products, "LEAST_USE", 0.0)


def matrix(slot: int, array: np.ndarray) -> Matrix:
    return Matrix(slot, array.shape[-2:], array.strides[-2:], 0, array.strides[0] if array.ndim == 3 else 0)


def step_of(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Step:
    return gemm_step(a.dtype, matrix(0, a), matrix(1, b), matrix(2, c), len(c) if c.ndim == 3 else 1)


def product(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    c[...] = np.nan
    Program([step_of(a, b, c)], 2, 1)((a, b), (c,))
    return c


def draw(rng: np.random.Generator, dtype: str, shape: tuple[int, ...], order: str) -> np.ndarray:
    """C order, F order, or a window of a larger array in C order, which has NaN around it."""
    values = rng.standard_normal(shape).astype(dtype)
    if order == "F":
        return np.swapaxes(np.swapaxes(values, -1, -2).copy(), -1, -2)
    if order == "window":
        larger = np.full((*shape[:-2], shape[-2] + 2, shape[-1] + 3), np.nan, dtype)
        larger[..., : shape[-2], : shape[-1]] = values
        return larger[..., : shape[-2], : shape[-1]]
    return values


def holds(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> bool:
    exact = a.astype(float) @ b.astype(float)
    scale = np.abs(a.astype(float)) @ np.abs(b.astype(float))
    return bool((np.abs(c - exact) <= (1e-14 if a.dtype == "float64" else 3e-6) * scale).all())


SHAPES = [  # (m, n, k): every shape of block, their remainders, sums of several depths
    (1, 1, 1), (2, 3, 1), (6, 32, 8), (7, 33, 9), (8, 24, 16), (12, 16, 17), (14, 8, 5), (15, 7, 300), (13, 47, 257),
    (64, 64, 64), (100, 31, 513), (130, 65, 70), (33, 300, 40),
]  # fmt: skip


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("orders", [" ".join(x) for x in combinations(("C", "F", "window"), repeat=3)])
def test_blocks_and_their_remainders(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, dtype: str, orders: str
) -> None:
    order_a, order_b, order_c = orders.split()
    for packed in (False, True):
        if packed:
            for name in ("TURNED", "LARGE", "LARGE_ROWS"):
                monkeypatch.setattr(products, name, 0)
        for m, n, k in SHAPES:
            a, b = draw(rng, dtype, (m, k), order_a), draw(rng, dtype, (k, n), order_b)
            c = draw(rng, dtype, (m, n), order_c)
            around = c.base if order_c == "window" else None
            assert holds(a, b, product(a, b, c)), (m, n, k)
            if around is not None:  # a window's surroundings stay as they are
                assert np.isnan(around[m:]).all() and np.isnan(around[:, n:]).all()


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("orders", ["C C", "F C", "C F", "F F"])
def test_batches_and_matrices_shared_by_them(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, orders: str
) -> None:
    monkeypatch.setattr(products, "TURNED", 0)
    order_a, order_b = orders.split()
    for batch in (1, 2, 5):
        a, b = draw(rng, "float64", (batch, 20, 70), order_a), draw(rng, "float64", (batch, 70, 45), order_b)
        c = np.empty((batch, 20, 45))
        for x, y in ((a, b), (a[0], b), (a, b[0])):
            assert holds(x, y, product(x, y, c))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("orders", ["C C", "F C", "C F", "F F"])
@pytest.mark.parametrize(
    "shape", [(1, 300, 270, 600), (1, 1030, 200, 300), (7, 130, 90, 100), (1, 40, 900, 520)], ids=str
)
def test_results_have_the_same_bits_for_any_threads_and_tiles(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, pool_size: Callable[[int], None], dtype: str,
    orders: str, shape: tuple[int, int, int, int],
) -> None:  # fmt: skip
    batch, m, n, k = shape
    order_a, order_b = orders.split()
    a, b = draw(rng, dtype, (batch, m, k), order_a), draw(rng, dtype, (batch, k, n), order_b)
    assert suits(a.dtype, m, n, k)
    results = set()
    for count, tiles, columns in ((1, 16, 256), (2, 16, 256), (5, 16, 256), (2, 1, 256), (3, 300, 64)):
        pool_size(count)
        monkeypatch.setattr(products, "TILES", tiles)
        monkeypatch.setattr(products, "COLUMNS", columns)
        monkeypatch.setattr(products, "LARGE", 0 if columns == 64 else 1 << 20)
        c = product(a, b, np.empty((batch, m, n), dtype))
        results.add(c.tobytes())
    assert holds(a, b, c)
    assert len(results) == 1


def test_large_products_are_shared_and_small_ones_are_not() -> None:
    def extent(n: int) -> int:
        a, c = np.empty((n, n)), np.empty((n, n))
        step = step_of(a, a, c)
        return step.extent if step.grain else 1

    assert extent(64) == 1
    assert extent(128) >= 8 and extent(512) >= 16


def test_errors_are_no_greater_than_numpy_s(rng: np.random.Generator) -> None:
    for dtype, k in (("float32", 3000), ("float64", 3000), ("float32", 200)):
        a, b = draw(rng, dtype, (150, k), "C"), draw(rng, dtype, (k, 130), "C")
        exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
        own, numpy = (
            np.sqrt(np.mean(np.square(c - exact))) for c in (product(a, b, np.empty((150, 130), dtype)), a @ b)
        )
        assert own <= 1.3 * numpy


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_beyond_an_operand_is_read(rng: np.random.Generator, dtype: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    keep = []

    def at_the_end(x: np.ndarray) -> np.ndarray:
        """A copy right before a page that cannot be touched."""
        whole = -(-x.nbytes // page) * page
        area = mmap.mmap(-1, whole + page)
        keep.append(area)
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        assert libc.mprotect(ctypes.c_void_p(start + whole), ctypes.c_size_t(page), 0) == 0
        moved = np.frombuffer(area, x.dtype, x.size, whole - x.nbytes).reshape(x.shape)
        moved[...] = x
        return moved

    for m, n, k in ((7, 33, 9), (13, 31, 3), (64, 65, 31)):
        for turned_a, turned_b in combinations((False, True), repeat=2):
            x = at_the_end(rng.standard_normal((k, m) if turned_a else (m, k)).astype(dtype))
            y = at_the_end(rng.standard_normal((n, k) if turned_b else (k, n)).astype(dtype))
            c = at_the_end(np.zeros((m, n), dtype))
            a, b = x.T if turned_a else x, y.T if turned_b else y
            assert holds(a, b, product(a, b, c))


def test_products_under_jit(rng: np.random.Generator) -> None:
    a, b, c = (rng.standard_normal(shape) for shape in ((130, 300), (300, 120), (130, 120)))

    def loss(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (np.tanh(a @ b) * c).sum()

    got = fg.jit(fg.grad(loss, argnums=(0, 1)))(a, b)  # A Bᵀ and Aᵀ B
    for x, y in zip(got, fg.grad(loss, argnums=(0, 1))(a, b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
    square = rng.standard_normal((120, 120))
    turn = rng.standard_normal((120, 120)) / 10
    body = fg.jit(lambda x: fg.lax.fori_loop(0, 3, lambda _, x: x @ turn.T, x))
    np.testing.assert_allclose(body(square), square @ turn.T @ turn.T @ turn.T, rtol=1e-10, atol=1e-12)
