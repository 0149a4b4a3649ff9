"""Integrators against exact solutions, SciPy, JAX and finite differences; how they fail; what they compile to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.integrate

import funcgrad as fg
from funcgrad.ode.loop import Control, integrate
from funcgrad.ode.methods import METHODS

odeint, solve_ivp = fg.scipy.integrate.odeint, fg.scipy.integrate.solve_ivp
T = np.linspace(0.0, 3.0, 7)
BOTH = pytest.mark.parametrize("method", METHODS)


def lotka_volterra(y: Any, t: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    return np.stack([a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - c * y[1]])


def forced(y: Any, t: Any, rate: Any) -> Any:
    return rate * np.cos(t) - y * np.stack([t + 0.0, y[0]])


def robertson(y: Any, t: Any, k: Any) -> Any:
    slow, fast, quick = k[0] * y[0], k[1] * y[1] * y[2], k[2] * y[1] ** 2
    return np.stack([fast - slow, slow - fast - quick, quick])


def van_der_pol(y: Any, t: Any, mu: Any) -> Any:
    return np.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])


def reference(f: Any, y0: Any, t: Any, *args: Any) -> Any:
    options = {"method": "Radau", "rtol": 1e-11, "atol": 1e-13, "t_eval": t}
    return scipy.integrate.solve_ivp(lambda t, y: f(y, t, *args), (t[0], t[-1]), y0, **options).y.T


PARAMS = tuple(np.float64(x) for x in (1.5, 1.0, 3.0, 1.0))
STIFF = (np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.4, 40.0, 4000.0]), np.array([0.04, 1e4, 3e7]))

ROWS = {
    "lotka-volterra": (lotka_volterra, np.array([1.0, 1.0]), T, PARAMS, "dopri5", 1e-5),
    "lotka-volterra, rodas5p": (lotka_volterra, np.array([1.0, 1.0]), T, PARAMS, "rodas5p", 1e-5),
    "forced": (forced, np.array([1.0, 0.5]), T, (0.7,), "dopri5", 1e-6),
    "forced, rodas5p": (forced, np.array([1.0, 0.5]), T, (0.7,), "rodas5p", 1e-6),
    "robertson": (robertson, *STIFF[:2], (STIFF[2],), "rodas5p", 1e-5),
    "van der pol": (van_der_pol, np.array([2.0, 0.0]), np.array([0.0, 500.0, 1500.0]), (1e3,), "rodas5p", 1e-4),
}


@pytest.mark.parametrize("name", ROWS)
def test_solutions(name: str) -> None:
    f, y0, t, args, method, tolerance = ROWS[name]
    found, info = fg.jit(lambda y0: odeint(f, y0, t, *args, method=method, full_output=True))(y0)
    assert int(info.status) == 0 and info.message == "success"
    np.testing.assert_allclose(found, reference(f, y0, t, *args), rtol=tolerance, atol=1e-9)


@BOTH
def test_order(method: str) -> None:
    """Steps of a fixed size: half the size leaves at most about 1/32 of the error, and 1/16 between the ends."""
    exact = lambda t: np.stack([np.sin(t), np.cos(t)])  # noqa: E731
    f = lambda y, t: np.stack([y[1], -y[0]]) + 0.1 * (y * y * y - exact(t) ** 3)  # noqa: E731
    ends, inside = [], []
    for n in (8, 16, 32):
        control = Control(METHODS[method], 1e3, 1e3, 2.0 / n, 1000)
        times = np.concatenate([[0.0], 2.0 / n * (np.arange(n - 1) + 0.37), [2.0]])
        ys = integrate(f, exact(0.0), times, control).ys
        ends.append(np.abs(ys[-1] - exact(2.0)).max())
        inside.append(np.abs(ys[1:-1] - exact(times[1:-1]).T).max())
    assert all(a / b > 24 for a, b in pairwise(ends)), ends
    assert all(a / b > 12 for a, b in pairwise(inside)), inside


def loss(method: str, adjoint: str, **options: Any) -> Any:
    weights = np.random.default_rng(0).normal(size=(len(T), 2))

    def value(y0: Any, t: Any, rate: Any) -> Any:
        return np.sum(weights * odeint(forced, y0, t, rate, method=method, adjoint=adjoint, **options))

    return value


@BOTH
@pytest.mark.parametrize("adjoint", ["discrete", "continuous"])
def test_gradients(method: str, adjoint: str) -> None:
    """With respect to the state, every time and the parameters, against differences of a tight solution."""
    at = (np.array([1.0, 0.5]), T, np.float64(0.7))
    found = fg.jit(fg.grad(loss(method, adjoint, rtol=1e-10, atol=1e-10), argnums=(0, 1, 2)))(*at)
    flat, unravel = fg.flatten_util.ravel_pytree(at)
    tight = fg.jit(lambda x: loss("dopri5", "discrete", rtol=1e-13, atol=1e-13)(*unravel(x)))
    h = 1e-5
    wanted = [(tight(flat + h * e) - tight(flat - h * e)) / (2 * h) for e in np.eye(len(flat))]
    np.testing.assert_allclose(fg.flatten_util.ravel_pytree(found)[0], wanted, rtol=1e-6, atol=2e-7)


@BOTH
def test_reverse_is_forward(method: str) -> None:
    """The discrete gradient is that of the numbers computed, whatever the tolerance."""
    at = (np.array([1.0, 0.5]), T, np.float64(0.7))
    f = loss(method, "discrete", rtol=1e-2, atol=1e-2)
    reverse = fg.jit(fg.jacrev(f, argnums=(0, 1, 2)))(*at)
    forward = fg.jit(fg.jacfwd(f, argnums=(0, 1, 2)))(*at)
    for a, b in zip(reverse, forward, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@BOTH
def test_thinned_records(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record with fewer slots than there are steps: segments are run again."""
    f = lambda r: np.sum(odeint(lotka_volterra, np.ones(2), T, r, *PARAMS[1:], method=method, mxstep=100) ** 2)  # noqa: E731
    wanted = fg.jit(fg.grad(f))(1.5)
    monkeypatch.setattr("funcgrad.ode.solve._slots", lambda *_: 16)
    steps = odeint(lotka_volterra, np.ones(2), T, *PARAMS, method=method, full_output=True)[1].steps
    assert steps > 32
    np.testing.assert_allclose(fg.jit(fg.grad(lambda r: f(r)))(1.5), wanted, rtol=1e-11)


def test_hessian() -> None:
    f = lambda p: np.sum(odeint(lotka_volterra, np.ones(2), T, *p, rtol=1e-10, atol=1e-10)[-1])  # noqa: E731
    p = np.array(PARAMS)
    slope = fg.jit(fg.grad(f))
    wanted = [(slope(p + 1e-5 * e) - slope(p - 1e-5 * e)) / 2e-5 for e in np.eye(4)]
    np.testing.assert_allclose(fg.jit(fg.hessian(f))(p), wanted, rtol=1e-5, atol=1e-5)


@BOTH
def test_vmap(method: str) -> None:
    """Each element takes its own steps."""
    f = lambda r, y: odeint(lotka_volterra, y, T, r, *PARAMS[1:], method=method)  # noqa: E731
    rates, ys = np.array([0.5, 1.5, 2.5]), np.array([[1.0, 1.0], [0.3, 2.0], [4.0, 0.1]])
    np.testing.assert_allclose(
        fg.jit(fg.vmap(f))(rates, ys), [f(r, y) for r, y in zip(rates, ys, strict=True)], rtol=1e-9
    )
    g = fg.grad(lambda r, y: np.sum(f(r, y) ** 2))
    wanted = [g(r, y) for r, y in zip(rates, ys, strict=True)]
    np.testing.assert_allclose(fg.jit(fg.vmap(g))(rates, ys), wanted, rtol=1e-8)


def test_pytrees_closures_and_integers() -> None:
    """What the function captures is differentiated; integers are carried along."""
    w = np.array([[0.0, 1.0], [-1.0, 0.0]])

    def f(w: Any, power: Any = 2) -> Any:
        field = lambda y, t, n: {"x": w @ y["x"], "s": -(y["s"] ** n)}  # noqa: E731
        return odeint(field, {"x": np.array([1.0, 0.0]), "s": 1}, np.array([0, 1, 2]), power)

    ys = fg.jit(f)(w)
    np.testing.assert_allclose(ys["x"], np.stack([np.cos([0, 1, 2]), -np.sin([0, 1, 2])], 1), atol=1e-7)
    np.testing.assert_allclose(ys["s"], 1 / np.array([1.0, 2.0, 3.0]), atol=1e-7)
    g = lambda w: f(w)["x"][-1, 0]  # noqa: E731
    numeric = [[(g(w + 1e-5 * e) - g(w - 1e-5 * e)) / 2e-5 for e in row] for row in np.eye(4).reshape(2, 2, 2, 2)]
    np.testing.assert_allclose(fg.grad(g)(w), numeric, atol=1e-5)


@pytest.mark.parametrize("times", [[2.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0], [3.0]])
def test_times(times: list[float]) -> None:
    """Decreasing, equal, alone; known and traced."""
    t = np.array(times)
    decay = lambda t: odeint(lambda y, t: -y, 1.0, t)  # noqa: E731
    for f in (decay, fg.jit(decay)):
        np.testing.assert_allclose(f(t), np.exp(t[0] - t), atol=1e-7)
        slopes = fg.jacrev(f)(t)
        wanted = np.diag(-np.exp(t[0] - t))
        wanted[:, 0] += np.exp(t[0] - t)
        np.testing.assert_allclose(slopes, wanted, atol=1e-6)


def test_float32() -> None:
    f = lambda y, t: odeint(lambda y, t: -y * t, y, t, rtol=1e-5, atol=1e-5)  # noqa: E731
    out = fg.jit(f)(np.ones(2, np.float32), T.astype(np.float32))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[:, 0], np.exp(-(T**2) / 2), atol=1e-4)
    assert fg.jit(fg.grad(lambda y: np.sum(f(y, T))))(np.ones(2, np.float32)).dtype == np.float32


FAILURES = {
    "steps": (lambda y, t: -1e5 * (y - np.cos(t)), 1, {"mxstep": 50}),
    "blows up": (lambda y, t: y * y, 2, {"mxstep": 100_000}),
    "not finite": (lambda y, t: np.log(-1.0 - y * y), 2, {}),
}


@pytest.mark.filterwarnings("error")
@BOTH
@pytest.mark.parametrize("name", FAILURES)
def test_failures(name: str, method: str) -> None:
    """NaN from then on, a status, NaN gradients, and an end."""
    f, status, options = FAILURES[name]
    if method == "rodas5p" and name == "steps":
        f = lambda y, t: np.sin(1e4 * t) * 1e4  # noqa: E731  (it does not mind the stiffness)
    times = np.array([0.0, 0.0, 2.0, 3.0])
    run = lambda y: odeint(f, y, times, method=method, full_output=True, **options)  # noqa: E731
    for solved in (run, fg.jit(run)):
        ys, info = solved(1.0)
        assert np.isfinite(ys[:2]).all() and np.isnan(ys[2:]).all()
        assert int(info.status) == status and info.message != "success"
    assert np.isnan(fg.jit(fg.grad(lambda y: run(y)[0][1]))(1.0))


def test_times_that_turn_round_are_nan_where_they_are_traced() -> None:
    ys, info = fg.jit(lambda t: odeint(lambda y, t: -y, 1.0, t, full_output=True))(np.array([0.0, 1.0, 0.5]))
    assert np.isnan(ys).all() and int(info.status) == 3


field = lambda y, t: -y  # noqa: E731
ERRORS = {
    "shape": (lambda: odeint(lambda y, t: np.zeros(3), np.ones(2), T), ValueError, r"y0 has shape \(2,\).*\(3,\)"),
    "structure": (lambda: odeint(lambda y, t: (y["a"],), {"a": 1.0}, T), TypeError, "structure of y0"),
    "complex": (lambda: odeint(field, 1j, T), TypeError, "real and imaginary parts"),
    "not an array": (lambda: odeint(field, {"a": "x"}, T), TypeError, r"y0\['a'\]"),
    "empty": (lambda: odeint(field, np.ones(0), T), ValueError, "no elements"),
    "times": (lambda: odeint(field, 1.0, [0.0, 1.0, 0.5]), ValueError, r"t\[1\] = 1.0 and t\[2\] = 0.5"),
    "time": (lambda: odeint(field, 1.0, 0.5), ValueError, "vector"),
    "times not finite": (lambda: odeint(field, 1.0, [0.0, np.inf]), ValueError, "finite"),
    "method": (lambda: odeint(field, 1.0, T, method="euler"), ValueError, "'dopri5'"),
    "stiff method": (lambda: solve_ivp(field, (0, 1), [1.0], method="Radau"), ValueError, "Rodas5P"),
    "adjoint": (lambda: odeint(field, 1.0, T, adjoint="exact"), ValueError, "'continuous'"),
    "tolerance": (lambda: odeint(field, 1.0, T, rtol=-1e-3), ValueError, "rtol"),
    "no tolerance": (lambda: odeint(field, 1.0, T, rtol=0, atol=0), ValueError, "both be zero"),
    "mxstep": (lambda: odeint(field, 1.0, T, mxstep=0), ValueError, "mxstep"),
    "hmax": (lambda: odeint(field, 1.0, T, hmax=0.0), ValueError, "longest step"),
    "span": (lambda: solve_ivp(field, (0, 1, 2), [1.0]), ValueError, "t_span"),
    "outside": (lambda: solve_ivp(field, (0, 1), [1.0], t_eval=[2.0]), ValueError, "within t_span"),
    "dense": (lambda: solve_ivp(field, (0, 1), [1.0], dense_output=True), NotImplementedError, "t_eval"),
    "args": (lambda: solve_ivp(field, (0, 1), [1.0], args=2.0), TypeError, r"args=\(x,\)"),
    "not callable": (lambda: odeint(1.0, 1.0, T), TypeError, "func"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    call, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)])
def test_solve_ivp_as_scipy(span: tuple[float, float]) -> None:
    f = lambda t, y, rate: [y[1], -rate * y[0] + t]  # noqa: E731
    options: dict[str, Any] = {"t_eval": np.linspace(*span, 5), "args": (2.0,), "rtol": 1e-9, "atol": 1e-9}
    found = fg.jit(lambda y: solve_ivp(f, span, y, **options))(np.array([1.0, 0.0]))
    wanted = scipy.integrate.solve_ivp(f, span, [1.0, 0.0], **options)
    assert found.success and found.y.shape == wanted.y.shape
    np.testing.assert_allclose(found.y, wanted.y, atol=1e-7)
    np.testing.assert_array_equal(found.t, wanted.t)


@BOTH
def test_small_systems_are_one_kernel(method: str) -> None:
    """The solution, and the way back."""
    f = lambda p: np.sum(odeint(lotka_volterra, np.ones(2), T, *p, method=method))  # noqa: E731
    report = fg.explain(fg.grad(f), np.array(PARAMS))
    loops = [s for s in report.steps if s.kind == "loop"]
    assert len(loops) == 2 and all("one kernel" in s.reason for s in loops), [s.reason for s in loops]
    assert not [s for s in report.steps if s.kind.startswith("host")]


def test_large_systems_run_natively() -> None:
    a = np.random.default_rng(1).normal(size=(40, 40)) / 10 - np.eye(40)
    for method in METHODS:
        f = lambda y, m=method: odeint(lambda y, t: a @ y, y, T, method=m)  # noqa: E731
        y0 = np.ones(40)
        wanted = np.stack([scipy.linalg.expm(a * t) @ y0 for t in T])
        np.testing.assert_allclose(fg.jit(f)(y0), wanted, atol=1e-6)
        slope = fg.jit(fg.grad(lambda y, f=f: np.sum(f(y)[-1])))(y0)
        np.testing.assert_allclose(slope, np.ones(40) @ scipy.linalg.expm(a * T[-1]), atol=1e-6)


def test_jax_agrees(jax: Any) -> None:
    ode = pytest.importorskip("jax.experimental.ode", reason="JAX is an oracle")
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy

    def same(y: Any, t: Any, rate: Any) -> Any:
        return rate * jnp.cos(t) - y * jnp.stack([t + 0.0, y[0]])

    w = np.random.default_rng(2).normal(size=(len(T), 2))
    at = (np.array([1.0, 0.5]), T, 0.7)
    wanted = jax.grad(lambda y, t, r: jnp.sum(w * ode.odeint(same, y, t, r)), argnums=(0, 1, 2))(*at)
    for adjoint in ("discrete", "continuous"):
        f = lambda y, t, r, a=adjoint: np.sum(w * odeint(forced, y, t, r, adjoint=a))  # noqa: E731
        for a, b in zip(fg.jit(fg.grad(f, argnums=(0, 1, 2)))(*at), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
