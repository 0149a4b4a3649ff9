# ruff: noqa: E731
"""Solvers against SciPy's on standard problems; derivatives of solutions against differences of SciPy's solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize as so

import funcgrad as fg
from funcgrad.scipy.optimize import bisect, brentq, minimize, root, root_scalar

METHODS = ("BFGS", "L-BFGS")


def rosenbrock(x):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def matyas(x):
    return 0.26 * (x[0] ** 2 + x[1] ** 2) - 0.48 * x[0] * x[1]


def powell(x):
    a, b, c, d = x[0], x[1], x[2], x[3]
    return (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4


def beale(x):
    a, b = x[0], x[1]
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


def eggholder(x):
    a, b = x[0], x[1]
    return -(b + 47) * np.sin(np.sqrt(np.abs(a / 2 + b + 47))) - a * np.sin(np.sqrt(np.abs(a - b - 47)))


def badly_scaled(x):
    return (x[0] - 1e3) ** 2 + (x[1] - 1e-3) ** 2 * 1e6 + (x[0] * x[1] - 1) ** 2


def logistic(x):
    data = np.linspace(-2, 2, 9)
    return np.mean(np.log1p(np.exp(-(x[0] * data + x[1]) * np.sign(data + 0.3)))) + 0.01 * np.sum(x**2)


MINIMA = {
    "rosenbrock": (rosenbrock, [-1.2, 1.0]),
    "rosenbrock of 12": (rosenbrock, np.linspace(-1, 1, 12)),
    "himmelblau": (himmelblau, [1.0, 1.0]),
    "matyas": (matyas, [1.0, 2.0]),
    "powell": (powell, [3.0, -1.0, 0.0, 1.0]),
    "beale": (beale, [1.0, 1.0]),
    "eggholder": (eggholder, [100.0, 100.0]),
    "badly scaled": (badly_scaled, [1.0, 1.0]),
    "logistic": (logistic, [0.0, 0.0]),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MINIMA)
def test_minima(name: str, method: str) -> None:
    fun, start = MINIMA[name]
    x0 = np.array(start)
    wanted = so.minimize(fun, x0, jac=fg.grad(fun), method="BFGS", options={"gtol": 1e-7})
    eager = minimize(fun, x0, method=method, tol=1e-7)
    jitted = fg.jit(lambda x: minimize(fun, x, method=method, tol=1e-7))(x0)
    for found in (eager, jitted):
        assert found.success and found.status == 0 and found.njev == found.nfev
        assert np.abs(found.jac).max() <= 1e-7
        np.testing.assert_allclose(found.jac, fg.grad(fun)(found.x), atol=1e-9)
        np.testing.assert_allclose(found.fun, wanted.fun, rtol=1e-9, atol=1e-9)
        if name != "powell":  # whose minimum is flat
            np.testing.assert_allclose(found.x, wanted.x, rtol=2e-5, atol=2e-5)
        assert found.nfev <= 2.5 * wanted.nfev + 10


@pytest.mark.parametrize("method", METHODS)
def test_batches(method: str) -> None:
    starts = np.random.default_rng(0).normal(size=(5, 2))
    solve = lambda x: minimize(rosenbrock, x, method=method)
    for over in (fg.vmap(solve), fg.jit(fg.vmap(solve))):
        found = over(starts)
        each = [solve(x) for x in starts]
        assert found.success.all()
        np.testing.assert_allclose(found.x, [r.x for r in each], atol=1e-6)
        assert found.nit.tolist() == [int(r.nit) for r in each]


def test_inverse_hessian() -> None:
    a = np.array([[3.0, 1.0], [1.0, 2.0]])
    found = minimize(lambda x: 0.5 * x @ a @ x - x[0], np.array([3.0, -1.0]), tol=1e-10)
    np.testing.assert_allclose(found.hess_inv, np.linalg.inv(a), rtol=1e-2)
    assert minimize(matyas, np.ones(2), method="L-BFGS").hess_inv is None


def test_pytrees_scalars_and_precision() -> None:
    fun = lambda p, c: np.sum((p["w"] - c) ** 2) + (p["b"] - 1) ** 4
    found = minimize(fun, {"w": np.zeros((2, 2)), "b": 0}, (3.0,), tol=1e-9)
    assert found.success and found.x["w"].shape == found.jac["w"].shape == (2, 2)
    np.testing.assert_allclose(found.x["w"], 3.0)
    np.testing.assert_allclose(found.x["b"], 1.0, atol=1e-2)
    assert minimize(lambda x: (x - 2) ** 2, 0).x == pytest.approx(2.0)
    single = minimize(lambda x: np.sum((x - 1) ** 2 + x**4), np.zeros(2, np.float32))
    assert single.success and single.x.dtype == single.fun.dtype == np.float32
    found = minimize(rosenbrock, np.zeros(2), jac=fg.jacfwd(rosenbrock), method="L-BFGS-B")
    np.testing.assert_allclose(found.x, np.ones(2), atol=1e-4)


def test_minimisation_that_fails_says_so() -> None:
    limited = minimize(rosenbrock, np.zeros(2), options={"maxiter": 3})
    assert (bool(limited.success), int(limited.status), int(limited.nit)) == (False, 1, 3)
    assert "largest number of iterations" in limited.message
    nan = minimize(lambda x: np.sum(np.log(x)), np.array([-1.0, 1.0]))
    assert (bool(nan.success), int(nan.status)) == (False, 3)
    wrong = minimize(lambda x: np.sum(x**2), np.ones(2), jac=lambda x: -2 * x)
    assert (bool(wrong.success), int(wrong.status)) == (False, 2) and "lower point" in wrong.message
    assert not minimize(lambda x: np.sum(x), np.ones(2), options={"maxiter": 20}).success
    kink = minimize(lambda x: np.sum(np.abs(x)), np.array([0.3, -0.7]))
    assert not kink.success and kink.fun < 1e-6
    assert fg.jit(lambda x: minimize(rosenbrock, x, options={"maxiter": 3}).status)(np.zeros(2)) == 1
    loose = minimize(rosenbrock, np.zeros(2), options={"ftol": 1e-2, "gtol": 1e-12})
    assert loose.success and loose.nit < 20
    with pytest.raises(TypeError, match="message wants one concrete status"):
        fg.vmap(lambda x: minimize(matyas, x))(np.ones((2, 2))).message


# derivatives of solutions -------------------------------------------------------------------------------------------

A = np.array([[3.0, 1.0], [1.0, 2.0]])
START, PARAMETER = np.zeros(2), np.array([1.0, 0.5])


def quartic(x, a):
    return np.sum((x - a) ** 4) + 0.5 * x @ A @ x + np.sin(a[0]) * x[1] + x[0] * x[1] * a[1]


def system(x, a):
    return np.stack([x[0] ** 3 + x[0] * a[1] + x[1] - a[0], np.tanh(x[1]) + x[1] - x[0] * a[0] + a[1] ** 2])


def scipy_minimum(a):
    return so.minimize(quartic, START, (a,), jac=fg.grad(quartic), options={"gtol": 1e-12}).x


def scipy_root(a):
    return so.root(system, START, (a,), jac=fg.jacfwd(system), tol=1e-14).x


SOLUTIONS = {
    "BFGS": (lambda a: minimize(quartic, START, (a,), tol=1e-11).x, scipy_minimum),
    "L-BFGS": (lambda a: minimize(quartic, START, (a,), "L-BFGS", tol=1e-11).x, scipy_minimum),
    "captured": (lambda a: minimize(lambda x: quartic(x, a), START, tol=1e-11).x, scipy_minimum),
    "root": (lambda a: root(system, START, (a,)).x, scipy_root),
    "captured root": (lambda a: root(lambda x: system(x, a), START).x, scipy_root),
}


def difference(fun: Any, a: Any, h: float = 1e-4) -> Any:
    return np.stack([(fun(a + h * e) - fun(a - h * e)) / (2 * h) for e in np.eye(len(a))], axis=-1)


@pytest.mark.parametrize("name", SOLUTIONS)
def test_implicit_derivatives(name: str) -> None:
    solve, reference = SOLUTIONS[name]
    np.testing.assert_allclose(solve(PARAMETER), reference(PARAMETER), rtol=1e-8)
    first = difference(reference, PARAMETER)
    for d in (fg.jacfwd, fg.jacrev):
        np.testing.assert_allclose(d(solve)(PARAMETER), first, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(fg.jit(d(solve))(PARAMETER), first, rtol=1e-5, atol=1e-7)
        batch = fg.jit(fg.vmap(d(solve)))(np.stack([PARAMETER, 2 * PARAMETER]))
        np.testing.assert_allclose(batch[1], d(solve)(2 * PARAMETER), rtol=1e-8, atol=1e-10)
    second = difference(fg.jit(fg.jacfwd(solve)), PARAMETER)
    modes = (fg.jacfwd, fg.jacrev)
    for a, b in [(a, b) for a in modes for b in modes] if name in ("BFGS", "root") else [modes]:
        np.testing.assert_allclose(fg.jit(a(b(solve)))(PARAMETER), second, rtol=1e-5, atol=1e-7)


def test_the_value_has_the_envelope_derivative() -> None:
    value = lambda a: minimize(quartic, START, (a,), tol=1e-11).fun
    g = fg.jit(fg.grad(value))(PARAMETER)
    np.testing.assert_allclose(g, fg.grad(quartic, 1)(scipy_minimum(PARAMETER), PARAMETER), rtol=1e-8)
    reference = lambda a: np.array([quartic(scipy_minimum(a), a)])
    np.testing.assert_allclose(g, difference(reference, PARAMETER)[0], rtol=1e-6)
    assert not fg.grad(lambda x: np.sum(minimize(quartic, x, (PARAMETER,)).x))(START).any()


def test_nested_problems() -> None:
    """The best parameter of a problem whose own solution is a minimum."""
    inner = lambda a: minimize(lambda x: np.sum((x - a) ** 4) + np.sum(x**2), START, tol=1e-11).x
    outer = minimize(lambda a: np.sum((inner(a) - 0.25) ** 2), np.ones(2), tol=1e-9)
    assert outer.success
    np.testing.assert_allclose(inner(outer.x), 0.25, atol=1e-7)


# systems ------------------------------------------------------------------------------------------------------------


def helix(x):
    turns = np.where(x[0] > 0, np.arctan(x[1] / x[0]), np.arctan(x[1] / x[0]) + np.pi) / (2 * np.pi)
    return np.stack([10 * (x[2] - 10 * turns), 10 * (np.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


def broyden(x):
    zero = np.zeros(1)
    left, right = np.concatenate([zero, x[:-1]]), np.concatenate([x[1:], zero])
    return (3 - 2 * x) * x - left - 2 * right + 1


def powell_badly_scaled(x):
    return np.stack([1e4 * x[0] * x[1] - 1, np.exp(-x[0]) + np.exp(-x[1]) - 1.0001])


ROOTS = {
    "rosenbrock": (lambda x: np.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]), [-1.2, 1.0]),
    "helix": (helix, [-1.0, 0.0, 0.0]),
    "broyden": (broyden, -np.ones(10)),
    "exponential": (lambda x: np.stack([np.exp(x[0]) * np.cos(x[1]) - 3, x[0] ** 2 + x[1] ** 3 - 2]), [1.0, 1.0]),
    "badly scaled": (powell_badly_scaled, [0.0, 1.0]),
    "linear": (lambda x: A @ x - 1, [5.0, 5.0]),
}


@pytest.mark.parametrize("name", ROOTS)
def test_roots(name: str) -> None:
    fun, start = ROOTS[name]
    x0 = np.array(start)
    wanted = so.root(fun, x0, jac=fg.jacfwd(fun))
    for found in (root(fun, x0), fg.jit(lambda x: root(fun, x))(x0)):
        assert found.success and found.status == 0 and np.abs(found.fun).max() < 1e-10
        np.testing.assert_allclose(found.x, wanted.x, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found.jac, fg.jacfwd(fun)(found.x))
        assert found.nfev <= wanted.nfev + 5
    starts = np.stack([x0, x0 + 0.1])
    batch = fg.vmap(lambda x: root(fun, x))(starts)
    np.testing.assert_allclose(batch.x, [root(fun, x).x for x in starts], rtol=1e-9, atol=1e-12)


def test_singular_jacobians() -> None:
    found = root(lambda x: np.stack([x[0] + x[1] - 1, 2 * x[0] + 2 * x[1] - 2]), np.zeros(2))
    assert found.success and found.x.sum() == pytest.approx(1.0)
    double = root(lambda x: (x - 1) ** 2, np.array([3.0]), tol=1e-12)
    assert double.success and double.x[0] == pytest.approx(1.0, abs=1e-5)


def test_systems_that_fail_say_so() -> None:
    no_root = root(lambda x: np.stack([x[0] ** 2 + 1, x[1]]), np.ones(2))
    assert (bool(no_root.success), int(no_root.status)) == (False, 2) and "minimum of their norm" in no_root.message
    limited = root(helix, np.array([-1.0, 0.0, 0.0]), options={"maxiter": 2})
    assert (bool(limited.success), int(limited.status), int(limited.nit)) == (False, 1, 2)
    assert int(root(np.log, np.array([-1.0])).status) == 3
    statuses = fg.jit(fg.vmap(lambda x: root(lambda x: x**2 - x[0] + 1, x).status))(np.array([[1.0], [2.0]]))
    assert statuses.tolist() == [2, 2]


def test_systems_of_pytrees() -> None:
    fun = lambda x, c: {"u": x["u"] ** 2 - c, "v": x["v"] - x["u"] * np.ones((2, 1))}
    found = root(fun, {"u": 1.0, "v": np.zeros((2, 1))}, 4.0)
    assert found.success and found.x["v"].shape == (2, 1)
    assert found.x["u"] == pytest.approx(2.0)
    g = fg.grad(lambda c: np.sum(root(fun, {"u": 1.0, "v": np.zeros((2, 1))}, (c,)).x["v"]))(4.0)
    assert g == pytest.approx(0.5)


# scalars ------------------------------------------------------------------------------------------------------------

BRACKETS = {
    "cubic": (lambda x: x**3 - 2, 0.0, 10.0),
    "cosine": (lambda x: np.cos(x) - x, 0.0, 2.0),
    "decay": (lambda x: np.exp(-x) - 1e-3, 0.0, 100.0),
    "at an end": (lambda x: x - 1, 1.0, 3.0),
    "reversed": (lambda x: x**3 - 2, 10, 0),
    "steep": (lambda x: np.tanh(50 * (x - 0.7)) + 0.1 * x, -3.0, 4.0),
}


@pytest.mark.parametrize("name", BRACKETS)
def test_brackets(name: str) -> None:
    fun, a, b = BRACKETS[name]
    wanted = so.root_scalar(fun, bracket=(a, b), method="brentq")
    for found in (root_scalar(fun, bracket=(a, b)), fg.jit(lambda a, b: root_scalar(fun, bracket=(a, b)))(a, b)):
        assert found.converged and found.flag == 0
        assert found.root == pytest.approx(wanted.root, rel=1e-11)
        assert found.function_calls <= wanted.function_calls + 1
    assert brentq(fun, a, b) == pytest.approx(wanted.root, rel=1e-11)
    halved = root_scalar(fun, bracket=(a, b), method="bisect")
    assert halved.converged and halved.root == pytest.approx(wanted.root, rel=1e-10)
    assert bisect(fun, a, b) == halved.root
    newton = root_scalar(fun, x0=wanted.root + 0.01)
    assert newton.converged and newton.root == pytest.approx(wanted.root, rel=1e-9)


def test_scalar_derivatives() -> None:
    cube = lambda x, a: x**3 - a
    solvers = [
        lambda a: brentq(cube, 0.0, 10.0, (a,)),
        lambda a: bisect(lambda x: cube(x, a), 0.0, 10.0),
        lambda a: root_scalar(cube, (a,), x0=2.0).root,
        lambda a: root_scalar(cube, a, bracket=(0.0, 10.0)).root,
    ]
    values = np.array([1.0, 8.0, 30.0])
    for solve in solvers:
        for d in (fg.grad, fg.jacfwd):
            np.testing.assert_allclose(fg.vmap(d(solve))(values), values ** (-2 / 3) / 3, rtol=1e-9)
            np.testing.assert_allclose(fg.jit(fg.vmap(d(d(solve))))(values), -2 / 9 * values ** (-5 / 3), rtol=1e-9)


def test_scalar_roots_that_fail_say_so() -> None:
    no_root = lambda x: x**2 + 1
    for solver in (brentq, bisect):
        with pytest.raises(ValueError, match="must have different signs"):
            solver(no_root, 0.0, 1.0)
        with pytest.raises(RuntimeError, match="not converged after 2 iterations"):
            solver(lambda x: x**3 - 2, 0.0, 10.0, maxiter=2)
        assert np.isnan(fg.jit(lambda a, s=solver: s(no_root, a, 1.0))(0.0))
        assert np.isnan(fg.jit(lambda a, s=solver: s(lambda x: x**3 - 2, a, 10.0, maxiter=2))(0.0))
        value, report = solver(lambda x: x**3 - 2, 0.0, 10.0, maxiter=2, full_output=True)
        assert value == report.root and not report.converged and report.flag == 1
        with pytest.raises(ValueError, match=r"an end of the bracket.* is not finite"):
            solver(lambda x: np.exp(x) - 1, -np.inf, 3.0)
        assert np.isnan(fg.jit(lambda a, s=solver: s(lambda x: np.exp(x) - 1, a, 3.0))(-np.inf))
    report = root_scalar(no_root, bracket=(0.0, 1.0))
    assert np.isnan(report.root) and not report.converged and report.flag == 2
    assert root_scalar(no_root, x0=0.0).flag == 2
    assert root_scalar(lambda x: np.log(x), x0=-1.0).flag == 3
    assert root_scalar(no_root, x0=0.5).flag == 1
    assert root_scalar(lambda x: np.sqrt(x - 5), bracket=(0.0, 10.0)).flag == 3


BAD = {
    "no gradient": (lambda: minimize(matyas, np.ones(2), jac=True), TypeError, "jac must be a function .* found True"),
    "method": (lambda: minimize(matyas, np.ones(2), method="cg"), ValueError, "must be 'BFGS' or 'L-BFGS', found 'cg'"),
    "option": (lambda: minimize(matyas, np.ones(2), options={"a": 1}), ValueError, "option 'a'; there are ftol, gtol"),
    "vector": (lambda: minimize(lambda x: x, np.ones(2)), TypeError, r"must return a real scalar, found f64\[2\]"),
    "complex": (lambda: minimize(matyas, 1j * np.ones(2)), TypeError, "x0 is complex; give its real and imaginary"),
    "no array": (lambda: minimize(matyas, {"a": "b"}), TypeError, r"x0\['a'\]: 'b'"),
    "empty": (lambda: minimize(matyas, ()), ValueError, "x0 holds no arrays"),
    "no function": (lambda: minimize(3, np.ones(2)), TypeError, "minimize expects a function"),
    "jac": (lambda: minimize(matyas, np.ones(2), jac=lambda x: x[0]), ValueError, r"jac must return the shapes of x0"),
    "root shape": (lambda: root(lambda x: x[0], np.ones(2)), ValueError, r"must return the shapes of x0, \[\(2,\)\]"),
    "root tree": (lambda: root(lambda x: (x,), np.ones(2)), TypeError, "must return the structure of x0"),
    "root method": (lambda: root(np.sin, np.ones(2), method="lm"), ValueError, "method must be 'hybr', found 'lm'"),
    "no bracket": (lambda: root_scalar(np.sin), ValueError, r"give a bracket \(a, b\), or x0"),
    "bracket": (lambda: root_scalar(np.sin, bracket=(1.0,)), ValueError, r"wants bracket=\(a, b\)"),
    "scalar": (
        lambda: brentq(np.sin, np.ones(2), 3.0),
        TypeError,
        r"a must be a real scalar, found f64\[2\]; use v",
    ),
    "value": (lambda: brentq(lambda x: np.ones(2), 0.0, 1.0), TypeError, "must return a real scalar"),
    "scalar method": (lambda: root_scalar(np.sin, method="ridder"), ValueError, "found 'ridder'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    run, error, message = BAD[name]
    with pytest.raises(error, match=message):
        run()
