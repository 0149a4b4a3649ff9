"""Matrix products through BLAS against NumPy: dtypes, storage orders, batches, degenerate shapes."""

from __future__ import annotations

import numpy as np
import pytest

from funcgrad.runtime.executor import Program
from funcgrad.runtime.libraries import GEMM_DTYPES, Matrix, gemm_step
from tests.runtime.native import run_script


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


@pytest.mark.parametrize("dtype", GEMM_DTYPES)
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
