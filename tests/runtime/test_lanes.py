"""Fourier transforms side by side in lanes: against SciPy's in extended precision, on any registers and threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.fft

import funcgrad as fg
from funcgrad.core.layout import Layout
from funcgrad.kernels import fourier_rules
from funcgrad.kernels.fourier_plan import LANES, LONGEST, PRIMES, factors, smooth
from funcgrad.runtime import fourier, lanes
from funcgrad.runtime.roots import root, roots

EXTENDED = np.finfo(np.longdouble).eps < 1e-18
needs_extended = pytest.mark.skipif(not EXTENDED, reason="long double is double on this platform")
DTYPES = [np.complex128, np.complex64]
EASY = [*range(2, 17), 22, 26, 39, 49, 64, 77, 90, 120, 121, 143, 169, 210, 729, 1000, 1024]
"""Every radix, every prime, one to five stages."""


def normal(rng: np.random.Generator, dtype: Any, *shape: int) -> Any:
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)


def exact(fun: Any, x: Any, axis: int = -1) -> Any:
    return getattr(scipy.fft, fun.__name__)(x.astype(np.clongdouble), axis=axis)


def error(found: Any, wanted: Any) -> float:
    return float(np.linalg.norm((found - wanted).ravel()) / np.linalg.norm(wanted.ravel()))


def kinds_of(fun: Any, x: Any) -> list[bool]:
    """Of the steps of a compiled function, whether each is one of lanes."""
    return [step.address == lanes._driver() for step in fg.jit(fun).lower(x).executable.program.steps]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", EASY)
def test_lengths(n: int, dtype: Any, rng: np.random.Generator) -> None:
    """Columns and rows, some more than there are lanes, so that the last tile repeats some of the one before."""
    x = normal(rng, dtype, n, LANES + 5)
    for fun in (np.fft.fft, np.fft.ifft):
        for axis, operand in ((0, x), (1, np.ascontiguousarray(x.T))):
            f = fg.jit(lambda x, f=fun, a=axis: f(x, axis=a))
            assert kinds_of(f, operand) == [True]
            found = f(operand)
            assert found.dtype == dtype
            assert error(found, exact(fun, operand, axis)) < 1.5 * np.finfo(dtype).eps


@needs_extended
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [256, 1001, 2**14, 3**10, 5**7, 65_520, 2**17, 500_000])
def test_one_long_transform_is_as_accurate_as_pocketfft(n: int, dtype: Any, rng: np.random.Generator) -> None:
    x = normal(rng, dtype, n)
    for fun in (np.fft.fft, np.fft.ifft):
        wanted, same = exact(fun, x), getattr(scipy.fft, fun.__name__)(x)  # NumPy's algorithm, in single precision too
        assert same.dtype == dtype
        assert error(fg.jit(fun)(x), wanted) < 1.2 * error(same, wanted)
    two = min(factors(n)) >= LANES
    assert kinds_of(np.fft.fft, x) == ([True, True] if two else [False])


@pytest.mark.parametrize("shape", [(3, 5000), (20, 4200), (2, 3, 8192), (1, 4096), (4100, 1), (8190, 21), (16384, 9)])
def test_batches_of_long_transforms(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = normal(rng, complex, *shape)
    for axis in range(-len(shape), 0):
        for fun in (np.fft.fft, np.fft.ifft):
            found = fg.jit(lambda x, f=fun, a=axis: f(x, axis=a))(x)
            np.testing.assert_allclose(found, fun(x, axis=axis), rtol=1e-12, atol=1e-12)


VIEWS = {
    "reversed": lambda x: x[:, ::-1],
    "every other": lambda x: x[:, ::2],
    "rows left out": lambda x: x[::3],
    "an offset": lambda x: x[1:, 8:],
    "transposed": lambda x: x.T,
    "repeated": lambda x: np.broadcast_to(x[0], x.shape),
    "middle axis": lambda x: x.reshape(4, -1, 32),
    "real": lambda x: x.real,
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(name: str, rng: np.random.Generator) -> None:
    x = normal(rng, complex, 60, 1024)
    for axes in [(0,), (1,), (0, 1), (1, 0)]:
        for fun in (np.fft.fftn, np.fft.ifftn):

            def f(x: Any, fun: Any = fun, axes: Any = axes) -> Any:
                return fun(VIEWS[name](x), axes=axes)

            np.testing.assert_allclose(fg.jit(f)(x), f(x), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
def test_on_narrow_registers(dtype: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "wide", lambda: False)
    for shape, axis in [((90, 21), 0), ((21, 90), 1), ((3000,), 0), ((5, 5, 9), 1)]:
        x = normal(rng, dtype, *shape)
        for fun in (np.fft.fft, np.fft.ifft):
            f = fg.jit(lambda x, f=fun, a=axis: f(x, axis=a))
            assert error(f(x), fun(x.astype(complex), axis=axis)) < 3 * np.finfo(dtype).eps
            assert all(kinds_of(f, x))


def test_results_have_the_same_bits_for_any_number_of_threads(rng: np.random.Generator) -> None:
    before = fg.get_num_threads()
    try:
        for shape in [(300_000,), (500, 333), (7, 20_000)]:
            x, found = normal(rng, complex, *shape), set()
            for n in (1, 2, 3, 8):
                fg.set_num_threads(n)
                found |= {fg.jit(lambda x: np.fft.fftn(np.fft.ifft(x)))(x).tobytes() for _ in range(3)}
            assert len(found) == 1
    finally:
        fg.set_num_threads(before)


def test_a_transform_has_the_same_bits_in_any_lane(rng: np.random.Generator) -> None:
    x = normal(rng, complex, 1, 210)
    found = fg.jit(lambda x: np.fft.fft(x, axis=1))(np.repeat(x, LANES + 3, 0))
    assert all(row.tobytes() == found[0].tobytes() for row in found)


def test_not_numbers_stay_in_their_transform(rng: np.random.Generator) -> None:
    x = normal(rng, complex, 40, 64)
    x[3, 5], x[17, 0] = np.nan, np.inf
    found = fg.jit(lambda x: np.fft.fft(x, axis=1))(x)
    broken = ~np.isfinite(found).all(axis=1)
    assert broken.nonzero()[0].tolist() == [3, 17]


def test_within_a_loop(rng: np.random.Generator) -> None:
    x = normal(rng, complex, 3000)
    f = fg.jit(lambda x: fg.lax.fori_loop(0, 3, lambda i, y: np.fft.ifft(np.fft.fft(y) * 1j), x))
    for _ in range(3):
        np.testing.assert_allclose(f(x), -1j * x, atol=1e-13)


def test_factors_beyond_the_longest_tile_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    for n, two in ((LONGEST * LONGEST, True), (4 * LONGEST * LONGEST, False)):
        way = fourier_rules._way("FFT", n, 0, Layout.contiguous((n,)))
        assert (way is fourier_rules._in_two_passes) == two
    with pytest.raises(AssertionError, match="factors for its results"):
        monkeypatch.setattr(fourier, "lane_step", lambda *args: None)
        fg.jit(np.fft.fft)(np.ones(1 << 12, complex))


def test_plan() -> None:
    for n in range(2, 3000):
        stages = lanes.radices(n)
        assert (stages is not None) == smooth(n)
        assert stages is None or (np.prod(stages) == n and max(stages) <= 16)
    assert not any(smooth(p) for p in (17, 19, 34, 17 * 17))
    assert all(smooth(p) for p in PRIMES)


@needs_extended
@pytest.mark.parametrize("n", [1, 2, 3, 8, 12, 1000, 999_983, 1 << 26])
def test_roots_are_rounded_correctly_but_for_one_bit(n: int, rng: np.random.Generator) -> None:
    k = np.concatenate([np.arange(min(n, 20)), rng.integers(0, n * n, 500)])
    turns = (k % n).astype(np.longdouble) / n
    angle = 8 * np.arctan(np.longdouble(1)) * turns
    found = roots(k, n, np.dtype(np.float64))
    wanted = np.stack([np.cos(angle), -np.sin(angle)], -1)
    assert np.abs(found - wanted).max() < 1.2e-16
    single = np.array([root(int(i), n) for i in k])
    assert np.abs(single - wanted).max() < 0.56e-16
    quarters = 4 * (k % n) % n == 0
    assert set(np.abs(found[quarters]).ravel()) <= {0.0, 1.0}
