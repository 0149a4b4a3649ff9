"""Matrix products through BLAS against NumPy: dtypes, storage orders, batches, degenerate shapes, tiles and
threads."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import numpy as np
import pytest

from funcgrad.runtime import libraries, threads
from funcgrad.runtime.cython_api import cython_module, openblas_threads
from funcgrad.runtime.executor import Program
from funcgrad.runtime.libraries import GEMM_DTYPES, Matrix, gemm_step
from tests.runtime.native import run_script


@pytest.fixture(autouse=True)
def _on_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product goes to BLAS, as it does where registers are short; test_products tests our own."""
    monkeypatch.setattr(libraries, "product_step", lambda *arguments: None)


def matrix(slot: int, array: np.ndarray) -> Matrix:
    """The last two axes; a third one is the batch."""
    batch = array.strides[0] if array.ndim == 3 else 0
    return Matrix(slot, array.shape[-2:], array.strides[-2:], 0, batch)


def product(a: np.ndarray, b: np.ndarray, c: np.ndarray, **scalars: complex) -> np.ndarray:
    batch = len(c) if c.ndim == 3 else 1
    step = gemm_step(a.dtype, matrix(0, a), matrix(1, b), matrix(2, c), batch, **scalars)
    Program([step], 2, 1)((a, b), (c,))
    return c


def draw(rng: np.random.Generator, dtype: str, shape: tuple[int, ...], order: str) -> np.ndarray:
    """C order, F order, or a window of a larger array in C order."""
    values = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if dtype[0] == "c" else 0)
    values = values.astype(dtype)
    if order == "F":
        return np.swapaxes(np.swapaxes(values, -1, -2).copy(), -1, -2)
    if order == "window":
        larger = np.zeros((*shape[:-2], shape[-2] + 2, shape[-1] + 3), dtype)
        larger[..., : shape[-2], : shape[-1]] = values
        return larger[..., : shape[-2], : shape[-1]]
    return values


SHAPES = [(4, 5, 6), (1, 5, 6), (4, 1, 6), (4, 5, 1), (1, 1, 6), (1, 5, 1), (4, 1, 1), (70, 65, 80)]


@pytest.mark.parametrize("dtype", [str(t) for t in GEMM_DTYPES])
@pytest.mark.parametrize("orders", ["C C C", "F C C", "C F C", "F F F", "window window window", "C C F"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products(rng: np.random.Generator, dtype: str, orders: str, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    order_a, order_b, order_c = orders.split()
    a, b = draw(rng, dtype, (m, k), order_a), draw(rng, dtype, (k, n), order_b)
    c = draw(rng, dtype, (m, n), order_c)
    start = c.copy()
    rtol = 2e-5 if np.finfo(dtype).bits == 32 else 1e-12
    scale = np.abs(a) @ np.abs(b) + np.abs(start)
    assert (np.abs(product(a, b, c) - a @ b) <= rtol * scale).all()
    c[...] = start
    expected = 0.5 * (a @ b) - 2 * start
    assert (np.abs(product(a, b, c, alpha=0.5, beta=-2.0) - expected) <= 3 * rtol * scale).all()


@pytest.mark.parametrize("batch", [1, 2, 7, 300])
@pytest.mark.parametrize("orders", ["C C", "F C", "C F"])
@pytest.mark.parametrize("n", [1, 6])
def test_batches(rng: np.random.Generator, batch: int, orders: str, n: int) -> None:
    order_a, order_b = orders.split()
    a, b = draw(rng, "float64", (batch, 20, 5), order_a), draw(rng, "float64", (batch, 5, n), order_b)
    c = np.empty((batch, 20, n))
    np.testing.assert_allclose(product(a, b, c), a @ b, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(product(a[0], b, c), a[0] @ b, rtol=1e-12, atol=1e-14)


def test_beta_zero_does_not_read_the_output(rng: np.random.Generator) -> None:
    for n in (1, 3):
        a, b, c = rng.standard_normal((4, 5)), rng.standard_normal((5, n)), np.full((4, n), np.nan)
        np.testing.assert_allclose(product(a, b, c), a @ b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(0, 3, 4), (4, 3, 0), (0, 0, 0), (4, 0, 5), (4, 0, 1), (1, 0, 4)], ids=str)
def test_empty_products(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    c = np.full((m, n), 7.0)
    np.testing.assert_array_equal(product(np.ones((m, k)), np.ones((k, n)), c), np.zeros((m, n)))


def test_strided_vectors(rng: np.random.Generator) -> None:
    a, x, y = rng.standard_normal((6, 5)), rng.standard_normal((5, 3))[:, 1:2], np.zeros((6, 4))
    product(a, x, y[:, 2:3])
    np.testing.assert_allclose(y[:, 2], a @ x[:, 0], rtol=1e-12, atol=1e-14)
    assert not y[:, [0, 1, 3]].any()


def test_complex_scalars(rng: np.random.Generator) -> None:
    a, b = draw(rng, "complex128", (3, 4), "C"), draw(rng, "complex128", (4, 5), "C")
    c = np.zeros((3, 5), complex)
    np.testing.assert_allclose(product(a, b, c, alpha=2 - 1j), (2 - 1j) * (a @ b), rtol=1e-12)


def test_bad_operands_are_value_errors() -> None:
    a, c = np.ones((4, 4)), np.ones((4, 4))
    with pytest.raises(ValueError, match="copy the operand first"):
        product(np.ones((8, 8))[::2, ::2], a, c)
    with pytest.raises(ValueError, match=r"A\[4, 4\] @ B\[3, 4\] does not give C\[4, 4\]"):
        product(a, np.ones((3, 4)), c)
    with pytest.raises(ValueError, match="dtype must be one of float32"):
        product(a.astype(int), a.astype(int), c.astype(int))
    with pytest.raises(ValueError, match="copy the operand first"):
        product(np.broadcast_to(np.ones(4), (4, 4)), a, c)


def test_scipy_is_not_imported_for_its_functions_and_works_afterwards() -> None:
    text = """
import sys
from funcgrad.runtime.compile import compile_kernel
from funcgrad.runtime.cython_api import cython_function
compile_kernel("def kernel(slots, ints, lo, hi):\\n    pass\\n")
assert cython_function("cython_blas", "ddot") > 0 and cython_function("cython_lapack", "dpotrf") > 0
assert not any(name.startswith("scipy.linalg") for name in sys.modules)
import numba, numpy as np, scipy.linalg, scipy.linalg.cython_blas
assert scipy.linalg.blas.ddot([1.0, 2.0], [3.0, 4.0]) == 11.0
assert "dgemm" in scipy.linalg.cython_blas.__pyx_capi__
solve = numba.njit(lambda a, b: np.linalg.solve(a, a @ b))
print(solve(np.eye(2) * 2, np.ones(2)))
"""
    assert run_script(text, FUNCGRAD_CACHE="0") == "[1. 1.]"


# -- tiles, and who owns the threads

LARGE = [  # (batch, m, k, n)
    (1, 1000, 40, 333),
    (1, 333, 50, 1000),
    (1, 257, 300, 250),
    (3, 300, 70, 260),
    (20, 90, 80, 100),
    (1, 1003, 1100, 1),
    (1, 1, 1100, 1003),
    (2, 2100, 300, 1),
]


@pytest.fixture
def pool_size() -> Iterator[Callable[[int], None]]:
    before = threads.get_num_threads()
    yield threads.set_num_threads
    threads.set_num_threads(before)


@pytest.fixture
def blas_threads() -> Iterator[tuple[Callable[[], int], Callable[[int], None]]]:
    """OpenBLAS's own functions that get and set its number of threads."""
    if openblas_threads() is None:
        pytest.skip("the BLAS behind SciPy is not an OpenBLAS with threads of its own")
    library = ctypes.CDLL(cython_module("cython_blas").__file__)
    prefix = "scipy_" if hasattr(library, "scipy_openblas_get_num_threads") else ""
    get, put = (getattr(library, f"{prefix}openblas_{name}_num_threads") for name in ("get", "set"))
    before = get()
    yield get, put
    put(before)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("orders", ["C C C", "F C C", "C F F", "F F C"])
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_tiles_give_the_same_bits_for_any_number_of_threads(
    rng: np.random.Generator,
    pool_size: Callable[[int], None],
    dtype: str,
    orders: str,
    shape: tuple[int, int, int, int],
) -> None:
    batch, m, k, n = shape
    order_a, order_b, order_c = orders.split()
    a, b = draw(rng, dtype, (batch, m, k), order_a), draw(rng, dtype, (batch, k, n), order_b)
    results = []
    for count in (1, 2, 5):
        pool_size(count)
        c = draw(rng, dtype, (batch, m, n), order_c)
        c[...] = np.nan
        results.append(product(a, b, c).tobytes())
    rtol = 2e-5 if dtype == "float32" else 1e-12
    assert (np.abs(c - a @ b) <= rtol * (np.abs(a) @ np.abs(b))).all()
    assert results[0] == results[1] == results[2]


def test_tiles_cover_the_whole_and_nothing_more() -> None:
    for whole in (1, 7, 63, 64, 65, 300, 1000, 1003, 4096):
        for most in (0, 1, 2, 3, 8, 31, 64):
            for unit in (1, 4, 8):
                tiles = libraries._cut(whole, min(most, whole // unit), unit)
                size, last = tiles.sizes(whole)
                assert 1 <= tiles.count <= max(most, 1) and 1 <= last <= size
                assert (tiles.count - 1) * size + last == whole


@pytest.mark.parametrize("cpus", [2, 4, 64])
def test_what_is_cut_and_what_is_not(blas_threads: object, monkeypatch: pytest.MonkeyPatch, cpus: int) -> None:
    monkeypatch.setattr(libraries, "_cpus", lambda: cpus)
    few = min(cpus, 8)

    def extent(m: int, k: int, n: int, batch: int = 1) -> int:
        row, size = Matrix(0, (m, k), (8 * k, 8), 0, 8 * m * k), 8
        step = gemm_step(
            np.dtype(float), row, Matrix(1, (k, n), (size * n, size)), Matrix(2, (m, n), (size * n, size)), batch
        )
        return step.extent if step.grain else -step.extent

    assert extent(64, 64, 64) == -1  # small: on the calling thread
    assert extent(128, 128, 128) == 2
    assert extent(1024, 512, 512) == extent(512, 512, 1024) == max(few, 4)
    assert extent(8192, 512, 512) == 32
    assert extent(512, 512, 512, batch=100) == 100  # the batch alone is enough
    assert extent(512, 512, 512, batch=2) == 2 * max(few // 2, 2)
    assert extent(4096, 4096, 1) == 16
    assert extent(1, 4096, 4096) == 8  # stored across the product: pieces of a page
    assert extent(100, 100, 1) == -1


def test_without_openblas_a_large_product_is_one_call(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "single_threaded", lambda: 0)
    for m, k, n in ((1000, 300, 200), (2000, 1000, 1)):
        a, b, c = rng.standard_normal((m, k)), rng.standard_normal((k, n)), np.empty((m, n))
        step = gemm_step(a.dtype, matrix(0, a), matrix(1, b), matrix(2, c))
        assert (step.extent, step.grain) == (1, 0)
        np.testing.assert_allclose(product(a, b, c), a @ b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_openblas_gets_its_threads_back(
    rng: np.random.Generator, blas_threads: tuple[Callable[[], int], Callable[[int], None]], number: int
) -> None:
    get, put = blas_threads
    put(number)
    for shape in ((600, 300, 200), (3000, 400, 1), (20, 20, 20)):
        m, k, n = shape
        product(rng.standard_normal((m, k)), rng.standard_normal((k, n)), np.empty((m, n)))
        assert get() == number


def test_openblas_gets_its_threads_back_from_many_python_threads(
    rng: np.random.Generator,
    pool_size: Callable[[int], None],
    blas_threads: tuple[Callable[[], int], Callable[[int], None]],
) -> None:
    get, put = blas_threads
    put(2)
    pool_size(2)
    a, b = rng.standard_normal((300, 200)), rng.standard_normal((200, 150))
    expected = product(a, b, np.empty((300, 150)))

    def work() -> bool:
        return all(np.array_equal(product(a, b, np.empty((300, 150))), expected) for _ in range(50))

    with ThreadPoolExecutor(6) as executor:
        assert all(task.result() for task in [executor.submit(work) for _ in range(12)])
    assert get() == 2


def test_blas_runs_in_one_thread_and_a_number_set_meanwhile_stays(
    rng: np.random.Generator, blas_threads: tuple[Callable[[], int], Callable[[int], None]]
) -> None:
    get, put = blas_threads
    put(2)
    a = rng.standard_normal((800, 800))
    c = np.empty_like(a)
    seen_one = Event()

    def work() -> None:
        while not seen_one.is_set():
            product(a, a, c)

    worker = Thread(target=work)
    worker.start()
    try:
        end = time.monotonic() + 30
        while (number := get()) != 1 and time.monotonic() < end:
            pass
        put(3)
    finally:
        seen_one.set()
        worker.join()
    assert number == 1
    assert get() == 3
    np.testing.assert_allclose(c, a @ a, rtol=1e-9, atol=1e-9)


def test_a_forked_child_gets_the_user_s_number_and_can_multiply(blas_threads: object) -> None:
    text = """
import ctypes, os, threading
import numpy as np
from funcgrad.runtime.cython_api import openblas_threads
from funcgrad.runtime.executor import Program
from funcgrad.runtime.libraries import Matrix, gemm_step
number = ctypes.c_int.from_address(openblas_threads())
number.value = 2
a = np.random.default_rng(0).standard_normal((300, 300)) + 1j  # complex products are BLAS's
square = Matrix(0, a.shape, a.strides)
step = gemm_step(a.dtype, square, square, Matrix(1, a.shape, a.strides))
program = Program([step], 1, 1)
def multiply():
    c = np.empty_like(a)
    program((a,), (c,))
    return c
expected = multiply()
done = False
def loop():
    while not done:
        multiply()
thread = threading.Thread(target=loop)
thread.start()
codes = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        good = number.value == 2 and np.array_equal(multiply(), expected) and number.value == 2
        os._exit(0 if good else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done = True
thread.join()
print(sum(codes), number.value)
"""
    assert run_script(text) == "0 2"
