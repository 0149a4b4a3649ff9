"""``funcgrad.scipy.signal`` against SciPy, and its derivatives against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import signal as theirs

import funcgrad as fg
from funcgrad.scipy import signal as ours

SHAPES = [((7,), (3,)), ((3,), (8,)), ((5, 6), (2, 3)), ((2, 2), (4, 5)), ((4, 3, 5), (2, 3, 1)), ((4, 9), (4, 9))]


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("name", ["convolve", "correlate", "convolve2d", "correlate2d"])
def test_scipy_agrees(name: str, mode: str, complex_: bool, rng: np.random.Generator) -> None:
    for s, t in SHAPES:
        if name.endswith("2d") and len(s) != 2:
            continue
        x, y = (rng.normal(size=n) + (1j * rng.normal(size=n) if complex_ else 0) for n in (s, t))
        fun, v, h = (lambda a, b: getattr(ours, name)(a, b, mode)), rng.normal(size=s), 1e-6
        wanted = getattr(theirs, name)(x, y, mode)
        for found in (fun(x, y), fg.jit(fun)(x, y)):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
        tangent = fg.jvp(lambda a, y=y, fun=fun: fun(a, y), (x,), (v + 0 * x,))[1]
        np.testing.assert_allclose(tangent, (fun(x + h * v, y) - fun(x - h * v, y)) / (2 * h), rtol=1e-7, atol=1e-7)


def test_fillvalue(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(4, 5)), rng.normal(size=(3, 2))
    for name in ("convolve2d", "correlate2d"):
        for mode in ("full", "same"):
            wanted = getattr(theirs, name)(x, y, mode, "fill", 1.5)
            np.testing.assert_allclose(getattr(ours, name)(x, y, mode, "fill", 1.5), wanted, rtol=1e-12)


def test_dtypes() -> None:
    assert ours.convolve(np.ones(3, np.int32), np.ones(2, np.int32)).dtype == np.int32
    assert ours.convolve(np.ones(3, np.float32), np.ones(2, np.float32)).dtype == np.float32
    both = np.array([True, False, True])
    np.testing.assert_array_equal(ours.convolve(both, both), np.convolve(both, both))


ERRORS: dict[str, tuple[Any, type[Exception], str]] = {
    "ranks": (lambda: ours.convolve(np.ones(3), np.ones((3, 3))), ValueError, "equally many axes"),
    "matrices": (lambda: ours.convolve2d(np.ones(3), np.ones(3)), ValueError, "2 axes"),
    "empty": (lambda: ours.convolve(np.ones(0), np.ones(3)), ValueError, "not be empty"),
    "mode": (lambda: ours.correlate(np.ones(4), np.ones(3), "half"), ValueError, "'half'"),
    "method": (lambda: ours.correlate(np.ones(4), np.ones(3), method="slow"), ValueError, "'slow'"),
    "valid": (lambda: ours.convolve(np.ones((4, 2)), np.ones((2, 4)), "valid"), ValueError, "at least as large"),
    "boundary": (
        lambda: ours.convolve2d(np.ones((4, 2)), np.ones((2, 1)), boundary="wrap"), NotImplementedError, "np.pad",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    call, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        call()
