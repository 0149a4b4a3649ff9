"""Positions of extremes and running extremes, compiled, against NumPy: blocks, ties, NaN, every dtype and axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcgrad as fg

DTYPES = ["float64", "float32", "float16", "int64", "int8", "uint8", "uint64", "bool"]
SIZES = [1, 2, 5, 511, 513, 5000, 70_000]  # within a searched block, over several, over parallel blocks


def values(rng: np.random.Generator, shape: Any, dtype: str) -> Any:
    return rng.integers(0, 100, shape).astype(dtype) if dtype[0] == "u" else (rng.normal(size=shape) * 50).astype(dtype)


def check(fun: Any, x: Any) -> None:
    found, wanted = fg.jit(fun)(x), fun(x)
    assert np.asarray(found).dtype == np.asarray(wanted).dtype
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions(name: str, dtype: str, rng: np.random.Generator) -> None:
    fun = getattr(np, name)
    for n in SIZES:
        x = values(rng, n, dtype)
        rows = [x, np.sort(x), np.sort(x)[::-1], np.zeros(n, dtype), np.ones(n, dtype)]
        if x.dtype.kind == "f":
            holes = x.copy()
            holes[rng.integers(0, n, 2)] = np.nan
            low = np.full(n, -np.inf, dtype)
            late = low.copy()
            late[-1] = np.nan
            rows += [holes, low, -low, late, np.where(np.arange(n) % 2, 0.0, -0.0).astype(dtype)]
        for row in rows:
            check(fun, row)


@pytest.mark.parametrize("shape", [(3, 40_000), (40_000, 3), (7, 9, 11), (300, 700), (3, 9000, 4)])
def test_positions_along_axes_and_in_expressions(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = rng.normal(size=shape).round(2)  # with ties
    for axis in range(len(shape)):
        check(lambda x, a=axis: np.argmax(x, a), x)
        check(lambda x, a=axis: np.argmin(np.abs(x) - 1, a), x)
        check(lambda x, a=axis: np.argmax(x[::-1, ::2], a), x)
    check(np.argmax, x)
    check(lambda x: (np.argmax(np.abs(x)), np.max(np.abs(x)), np.argmin(np.abs(x)), np.sum(x > 0))[0], x)


def test_position_value_and_sum_share_a_walk(rng: np.random.Generator) -> None:
    x = rng.normal(size=(50, 3000))
    x[3, 2000] = np.nan
    both = fg.jit(lambda x: (np.argmax(x, 1), np.max(x, 1), np.argmin(x, 1), np.sum(x, 1)))
    found = both(x)
    np.testing.assert_array_equal(found[0], np.argmax(x, 1))
    np.testing.assert_array_equal(found[1], np.max(x, 1))
    np.testing.assert_array_equal(found[2], np.argmin(x, 1))
    np.testing.assert_allclose(found[3], np.sum(x, 1), atol=1e-10)
    assert both.trace(x).lower().compile().cost_analysis()["launches"] == 1


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int32", "bool"])
def test_running_extremes(dtype: str, rng: np.random.Generator) -> None:
    for shape in [(1,), (7,), (4000,), (5, 6), (6, 700)]:
        x = values(rng, shape, dtype)
        holes = x.copy()
        if x.dtype.kind == "f":
            holes.flat[rng.integers(0, x.size, 2)] = np.nan
        for row in (x, holes):
            for axis in range(len(shape)):
                for ours, theirs in ((fg.lax.cummax, np.maximum), (fg.lax.cummin, np.minimum)):
                    wanted = theirs.accumulate(row, axis=axis)
                    np.testing.assert_array_equal(fg.jit(lambda x, f=ours, a=axis: f(x, a))(row), wanted)
                    wanted = np.flip(theirs.accumulate(np.flip(row, axis), axis=axis), axis)
                    found = fg.jit(lambda x, f=ours, a=axis: f(x, a, reverse=True))(row)
                    np.testing.assert_array_equal(found, wanted)
