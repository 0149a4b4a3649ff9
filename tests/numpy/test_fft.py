"""``np.fft`` on tracers: values and dtypes against NumPy, derivatives against differences, JAX and a dense matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
import funcgrad.numpy as jnp

RNG = np.random.default_rng(3)
R = RNG.normal(size=(4, 6, 5))
C = R + 1j * RNG.normal(size=(4, 6, 5))
NORMS = [None, "backward", "ortho", "forward"]
ONE_AXIS = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
SEVERAL = ["fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn"]


def same(found: Any, wanted: Any) -> None:
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    tolerance = 1e-5 if wanted.dtype in (np.float32, np.complex64) else 1e-13
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=10 * tolerance)


def operand_of(name: str) -> Any:
    return R if name.startswith(("rfft", "ihfft")) else C


@pytest.mark.parametrize("n", [None, 1, 2, 5, 9])
@pytest.mark.parametrize("name", ONE_AXIS)
def test_one_axis(name: str, n: int | None) -> None:
    fun, x = getattr(np.fft, name), operand_of(name)
    for axis in (0, 1, -1):
        for norm in NORMS:
            same(fg.jit(lambda x, a=axis, m=norm: fun(x, n, a, m))(x), fun(x, n, axis, norm))


@pytest.mark.parametrize("name", SEVERAL)
def test_several_axes(name: str) -> None:
    fun, x = getattr(np.fft, name), operand_of(name)
    two = name.endswith("2")
    rows: list[dict[str, Any]] = [{}, {"axes": (0, 1)}, {"s": (3, 8), "axes": (2, 0)}, {"s": (5, -1), "axes": (-1, 1)}]
    rows += [{"norm": norm} for norm in NORMS] + ([] if two else [{"axes": (1,)}, {"axes": (2, 0, 1)}])
    for row in rows:
        same(fg.jit(lambda x, row=row: fun(x, **row))(x), fun(x, **row))


ROWS: dict[str, tuple[Callable[..., Any], Any]] = {
    "float32": (np.fft.fft, R.astype(np.float32)),
    "complex64": (np.fft.ifftn, C.astype(np.complex64)),
    "float16": (np.fft.rfft, R.astype(np.float16)),
    "integers": (np.fft.fft, np.arange(6)),
    "booleans": (np.fft.rfft, np.arange(6) % 2 == 0),
    "real to several": (np.fft.fft2, R),
    "a list": (lambda x: jnp.fft.fft([x[0, 0, 0], 2.0, x[0, 0, 1]]), R),
    "transposed": (lambda x: np.fft.fft(x.T), C),
    "strided": (lambda x: np.fft.fft(x[:, ::2, ::-2], axis=1), C),
    "window of a view": (lambda x: np.fft.fft(x[1:, 1:4], axis=1), C),
    "of an expression": (lambda x: np.fft.fft2(np.sin(x) * 2), C),
    "broadcast": (lambda x: np.fft.fft(np.broadcast_to(x[0, 0], (3, 5)), axis=0), C),
    "a constant": (lambda x: np.fft.fft(np.ones(4)) * x[0, 0, 0], C),
    "no batch elements": (lambda x: np.fft.fft(x[:0]), C),
    "no axes": (lambda x: np.fft.fftn(x, axes=()), C),
    "twice the same axis": (lambda x: np.fft.fftn(x, axes=(1, 1)), C),
    "shift": (lambda x: np.fft.fftshift(x), R),
    "shift of axes": (lambda x: np.fft.fftshift(x, axes=(0, 2)), R),
    "shift back": (lambda x: np.fft.ifftshift(x, 1), R),
    "frequencies": (lambda x: np.fft.fftfreq(5, x[0, 0, 0]), R),
    "real frequencies": (lambda x: np.fft.rfftfreq(6, x[0, 0, 0]), R),
    "long prime": (np.fft.fft, RNG.normal(size=1009) + 0j),
    "many columns": (lambda x: np.fft.rfft(x, axis=0), RNG.normal(size=(64, 333))),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str) -> None:
    fun, x = ROWS[name]
    same(fg.jit(fun)(x), fun(x))


def test_out() -> None:
    def f(x: Any) -> Any:
        out = np.zeros_like(x)
        np.fft.fft(x, out=out)
        return out

    same(fg.jit(f)(C), np.fft.fft(C))


def test_all_functions_are_there() -> None:
    assert set(np.fft.__all__) <= set(jnp.fft.__all__)


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_transposes_are_those_of_the_matrices(n: int) -> None:
    """Real and imaginary parts as separate real inputs and outputs: the pullback is the transposed matrix."""
    half = n // 2 + 1
    forward = np.fft.rfft(np.eye(n), axis=0)
    ct = RNG.normal(size=half) + 1j * RNG.normal(size=half)
    (found,) = fg.vjp(np.fft.rfft, np.zeros(n))[1](ct)
    np.testing.assert_allclose(found, np.real(ct @ forward), atol=1e-14)
    real, imaginary = (np.fft.irfft(unit * np.eye(half), n, axis=0) for unit in (1, 1j))
    ct = RNG.normal(size=n)
    (found,) = fg.vjp(lambda x: np.fft.irfft(x, n), np.zeros(half, complex))[1](ct)
    np.testing.assert_allclose(found, ct @ real - 1j * (ct @ imaginary), atol=1e-14)


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "rfft2", "irfftn", "ifft2", "hfft"])
def test_gradients_agree_with_jax(name: str, jax: Any) -> None:
    x, w = operand_of(name)[:2], RNG.normal(size=30)

    def loss(m: Any, x: Any) -> Any:
        y = m.ravel(m.abs(getattr(m.fft, name)(m.sin(x))) ** 2)
        return m.sum(y[:30] * w)

    found = fg.jit(fg.grad(lambda x: loss(np, x)))(x)
    np.testing.assert_allclose(found, jax.grad(lambda x: loss(jax.numpy, x))(x), rtol=1e-10, atol=1e-10)


def test_second_derivatives_and_batches() -> None:
    def f(x: Any) -> Any:
        return np.sum(np.fft.irfft(np.fft.rfft(x) ** 3, 7) ** 2)

    x, h = RNG.normal(size=7), 1e-5
    hessian = fg.jit(fg.hessian(f))(x)
    gradient = fg.grad(f)
    columns = [(gradient(x + h * e) - gradient(x - h * e)) / (2 * h) for e in np.eye(7)]
    np.testing.assert_allclose(hessian, np.stack(columns, axis=1), rtol=1e-6, atol=1e-4)
    batch = RNG.normal(size=(3, 7))
    np.testing.assert_allclose(fg.jit(fg.vmap(gradient, 1, 1))(batch.T).T, [gradient(r) for r in batch], rtol=1e-12)


def test_results_do_not_depend_on_threads() -> None:
    x = RNG.normal(size=(300, 512)) + 1j
    fun, before = fg.jit(np.fft.fft2), fg.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3):
            fg.set_num_threads(n)
            results.append(fun(x))
        assert all(np.array_equal(results[0], r) for r in results)
    finally:
        fg.set_num_threads(before)


ERRORS: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "norm": (lambda x: np.fft.fft(x, norm="unit"), ValueError, "fft: norm must be"),
    "norm of hfft": (lambda x: np.fft.hfft(x, norm="unit"), ValueError, "hfft: norm must be"),
    "length": (lambda x: np.fft.fft(x, 0), ValueError, "fft: invalid number of data points"),
    "axis": (lambda x: np.fft.fft(x, axis=3), np.exceptions.AxisError, "axis 3 is out of bounds"),
    "axes": (lambda x: np.fft.fftn(x, (2, 2), (0,)), ValueError, "s has 2 lengths and axes has 1"),
    "complex": (lambda x: np.fft.rfft(x * 1j), TypeError, "rfft: the input is complex"),
    "too short": (lambda x: np.fft.irfft(x[..., :1]), ValueError, "invalid number of data points"),
    "twice": (lambda x: np.fft.rfftn(x, axes=(1, 1)), ValueError, "an axis occurs twice"),
    "no axes": (lambda x: np.fft.rfftn(x, axes=()), ValueError, "at least 1 axis"),
    "lax kind": (lambda x: fg.lax.fft(x, "DFT", (5,)), ValueError, "fft_type must be one of FFT"),
    "lax lengths": (lambda x: fg.lax.fft(x, "fft", (4,)), ValueError, "wants trailing axes"),
    "lax rank": (lambda x: fg.lax.fft(x, "fft", ()), ValueError, "0 lengths"),
    "lax complex": (lambda x: fg.lax.fft(x * 1j, "RFFT", (5,)), TypeError, "RFFT takes float32 or float64"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    fun, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        fg.jit(fun)(R)
