"""NumPy's functions by pointer: that they are found here, what they do, and what happens where they are not."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.compiler import compile_jaxpr
from funcgrad.core.avals import aval_of
from funcgrad.core.staging import stage
from funcgrad.runtime import fourier, numpy_loops, sorting

CPYTHON = sys.implementation.name == "cpython" and ctypes.sizeof(ctypes.c_void_p) == 8
KINDS = ["fft", "ifft", "irfft", "rfft_n_even", "rfft_n_odd"]


@pytest.mark.skipif(not CPYTHON, reason="the layout of objects is that of 64-bit CPython")
def test_found_on_this_platform() -> None:
    assert all(numpy_loops.fft_loop(name, dtype) for name in KINDS for dtype in ("float32", "float64"))
    for dtype in ["bool", "int8", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64", "complex128"]:
        assert numpy_loops.sort_functions(dtype)


def test_ufuncs_that_are_not_as_expected_are_refused() -> None:
    loops = numpy_loops._loops_of(np.add)
    assert loops is None or set(loops) == set(np.add.types)
    found = numpy_loops._fft_loops()
    if found is not None:  # a loop that does something else does not pass the trial
        assert not numpy_loops._transforms("fft", "d", found["ifft", "d"])
        assert not numpy_loops._transforms("rfft_n_odd", "d", found["rfft_n_even", "d"])


FUNCTIONS = {
    "rows": lambda x: np.fft.fft(x),
    "columns": lambda x: np.fft.rfft(x, axis=0),
    "several": lambda x: np.fft.irfftn(np.fft.rfftn(x * 2)),
    "middle": lambda x: np.fft.ifft(x.reshape(4, 5, 6), axis=1),
    "sort": lambda x: np.sort(x, axis=0),
    "argsort": lambda x: np.argsort(x.round(0), axis=1),
    "keys": lambda x: np.lexsort((x, x.round(0))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_without_them_numpy_is_asked(name: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setattr(fourier, "fft_loop", lambda *args: None)
    monkeypatch.setattr(fourier, "lane_step", lambda *args: None)
    monkeypatch.setattr(sorting, "sort_functions", lambda *args: None)
    fun, x = FUNCTIONS[name], rng.normal(size=(12, 10))
    (found,) = compile_jaxpr(stage(lambda x: [fun(x)], [aval_of(x)]))([x])
    wanted = np.argsort(x.round(0), axis=1, kind="stable") if name == "argsort" else fun(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
@pytest.mark.parametrize("n", [1 << 17, 3 * 5 * 7 * 11 * 13 * 17, 400 * 17 * 19, 131_101])
def test_long_transforms(n: int, dtype: Any, rng: np.random.Generator) -> None:
    """By factors where there are any; the error is that of the precision, against NumPy in double precision."""
    x = (rng.normal(size=n) + 1j * rng.normal(size=n)).astype(dtype)
    for fun in (np.fft.fft, np.fft.ifft):
        found, wanted = fg.jit(fun)(x), fun(x.astype(complex))
        assert found.dtype == dtype
        assert np.linalg.norm(found - wanted) < 4 * np.finfo(dtype).eps * np.linalg.norm(wanted)


def test_long_transforms_along_any_axis(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 1 << 17, 2)) + 0j
    np.testing.assert_allclose(fg.jit(lambda x: np.fft.fft(x, axis=1))(x), np.fft.fft(x, axis=1), atol=1e-10)
    text = fg.jit(np.fft.fft).lower(x[0, :, 0].copy()).as_text()
    assert text.count("# fft") == 2  # columns and rows of a matrix


@pytest.mark.parametrize("shape", [(40, 2000), (2000, 40), (3, 500, 64), (1000, 9)])
def test_columns_in_tiles(shape: tuple[int, ...], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that do not divide the columns, every pair of element sizes."""
    monkeypatch.setattr(fourier, "lane_step", lambda *args: None)
    x = rng.normal(size=shape)
    axis = len(shape) - 2
    for dtype, tolerance in ((np.float64, 1e-11), (np.float32, 1e-2)):
        half = np.fft.rfft(x, axis=axis).astype(np.complex64 if dtype == np.float32 else complex)
        for fun, operand in ((np.fft.rfft, x.astype(dtype)), (np.fft.fft, half), (np.fft.irfft, half)):
            found, wanted = fg.jit(lambda x, f=fun: f(x, axis=axis))(operand), fun(operand, axis=axis)
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted, atol=tolerance)
