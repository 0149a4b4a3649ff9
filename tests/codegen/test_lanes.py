"""Kernels of many small matrices: their text is in the language of both compilers, and shown to the user."""

from __future__ import annotations

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.codegen.lanes import LANES, LARGEST, MEDIUM, lane_source, lane_table
from funcgrad.compiler import compile_jaxpr
from funcgrad.core.avals import aval_of
from funcgrad.core.staging import stage
from funcgrad.kernels.rules import SMALL_MATRIX
from funcgrad.runtime.compile import compile_kernels
from funcgrad.runtime.executor import Program, Step
from funcgrad.runtime.libraries import Matrix

la = np.linalg


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_numba_compiles_the_same_text(dtype: str, rng: np.random.Generator) -> None:
    x = (rng.normal(size=(11, 5, 5)) + 4 * np.eye(5)).astype(dtype)
    b = rng.normal(size=(11, 5, 2)).astype(dtype)

    def fun(x: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
        h = x @ np.swapaxes(x, -1, -2)
        factor = la.cholesky(h)
        return [la.solve(x, b), factor, fg.scipy.linalg.solve_triangular(factor, b, lower=True)]

    closed = stage(fun, [aval_of(x), aval_of(b)])
    ours, theirs = (compile_jaxpr(closed, compiler=c)([x, b]) for c in ("llvm", "numba"))
    eps = 64 * np.finfo(dtype).eps
    for found, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=eps, atol=eps)


def test_text_is_shown_and_does_not_depend_on_shapes() -> None:
    f = fg.jit(la.cholesky)
    source = lane_source("cholesky", np.dtype(np.float64), 3)
    assert f.trace(np.stack([np.eye(3)] * 9)).lower().as_text() == source
    assert f.trace(np.stack([np.eye(7)] * 90)).lower().as_text() == source


def test_scratch_holds_the_largest_matrices() -> None:
    assert SMALL_MATRIX <= LARGEST
    for dtype, kind in (("float64", "f64"), ("float32", "f32")):
        for order in (MEDIUM, LARGEST):
            nbytes = LARGEST**2 * LANES[kind, order > MEDIUM] * np.dtype(dtype).itemsize
            assert f"stack({nbytes})" in lane_source("lu", np.dtype(dtype), order) and nbytes <= 1 << 15


@pytest.mark.parametrize("batch", [1, 7, 8, 9, 16, 17])
def test_lanes_without_a_matrix_write_nothing(batch: int, rng: np.random.Generator) -> None:
    """The last tile may be partly filled: memory behind the stack stays as it was."""
    x = rng.normal(size=(batch, 3, 4))
    x = x @ np.swapaxes(x, -1, -2) + np.eye(3)
    out = np.full((batch + 20, 3, 3), 7.0)
    operand, result = Matrix(0, (3, 3), (24, 8), 0, 72), Matrix(1, (3, 3), (24, 8), 0, 72)
    (kernel,) = compile_kernels([lane_source("cholesky", x.dtype, 3)])
    ints, tiles = lane_table("cholesky", x.dtype, [operand], [result], batch, {})
    Program([Step(kernel.address, ints, tiles)], 1, 1)((x,), (out,))
    np.testing.assert_allclose(out[:batch], la.cholesky(x), rtol=1e-13)
    assert (out[batch:] == 7).all()
