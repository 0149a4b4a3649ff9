# ruff: noqa: E731
"""fg.jet: derivatives of any order along a curve, against mpmath, JAX and nested JVPs, under every transformation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax
from funcgrad.jet import jet
from funcgrad.passes.pipeline import optimize

mpmath = pytest.importorskip("mpmath", reason="mpmath is the witness")
m = mpmath.mp

FUNCTIONS = {
    # ours, mpmath's, and a place
    "exp": (np.exp, m.exp, 0.3),
    "exp2": (np.exp2, lambda x: m.power(2, x), 0.3),
    "expm1": (np.expm1, m.expm1, 0.3),
    "log": (np.log, m.log, 0.7),
    "log2": (np.log2, lambda x: m.log(x, 2), 0.7),
    "log1p": (np.log1p, m.log1p, 0.7),
    "sin": (np.sin, m.sin, 0.4),
    "cos": (np.cos, m.cos, 0.4),
    "tan": (np.tan, m.tan, 0.4),
    "arcsin": (np.arcsin, m.asin, 0.4),
    "arccos": (np.arccos, m.acos, 0.4),
    "arctan": (np.arctan, m.atan, 0.4),
    "sinh": (np.sinh, m.sinh, 0.4),
    "cosh": (np.cosh, m.cosh, 0.4),
    "tanh": (np.tanh, m.tanh, 0.4),
    "arcsinh": (np.arcsinh, m.asinh, 0.4),
    "arccosh": (np.arccosh, m.acosh, 1.7),
    "arctanh": (np.arctanh, m.atanh, 0.4),
    "sqrt": (np.sqrt, m.sqrt, 1.3),
    "rsqrt": (lax.rsqrt, lambda x: 1 / m.sqrt(x), 1.3),
    "cbrt": (np.cbrt, m.cbrt, 1.3),
    "reciprocal": (np.reciprocal, lambda x: 1 / x, 1.3),
    "square": (np.square, lambda x: x * x, 1.3),
    "seventh power": (lambda x: x**7, lambda x: x**7, 0.9),
    "inverse cube": (lambda x: x**-3, lambda x: x**-3, 0.9),
    "power": (lambda x: x**2.5, lambda x: x ** m.mpf(2.5), 0.9),
    "varying power": (lambda x: x**x, lambda x: x**x, 0.9),
    "logistic": (lax.logistic, lambda x: 1 / (1 + m.exp(-x)), 0.6),
    "erf": (lax.erf, m.erf, 0.6),
    "erfc": (lax.erfc, m.erfc, 0.6),
    "erf_inv": (lax.erf_inv, m.erfinv, 0.3),
    "lgamma": (lax.lgamma, m.loggamma, 1.8),
    "digamma": (lax.digamma, m.digamma, 1.8),
    "quotient": (lambda x: np.sin(x) / (1 + x * x), lambda x: m.sin(x) / (1 + x * x), 0.4),
    "arctan2": (lambda x: np.arctan2(x, np.cos(x)), lambda x: m.atan2(x, m.cos(x)), 0.4),
    "logaddexp": (lambda x: np.logaddexp(x, x * x), lambda x: m.log(m.exp(x) + m.exp(x * x)), 0.4),
    "hypot": (lambda x: np.hypot(x, np.exp(x)), lambda x: m.sqrt(x * x + m.exp(2 * x)), 0.4),
    "composition": (lambda x: np.exp(np.sin(x) ** 2), lambda x: m.exp(m.sin(x) ** 2), 0.4),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_mpmath(name: str) -> None:
    """Order 7, along a line; un-jitted and compiled."""
    ours, theirs, x = FUNCTIONS[name]
    with m.workdps(40):
        wanted = [float(c * m.factorial(k)) for k, c in enumerate(m.taylor(theirs, m.mpf(x), 7))]
    line = [1.0, *[0.0] * 6]
    for run in (jet, lambda f, p, s: fg.jit(lambda p, s: jet(f, p, s))(p, s)):
        y, terms = run(ours, (x,), (line,))
        np.testing.assert_allclose([y, *terms], wanted, rtol=1e-9)


W = np.array([[0.3, -0.5, 0.2], [0.2, 0.4, -0.1], [0.1, 0.2, 0.6]])
X = np.array([0.3, -0.5, 0.8])
TERMS = [np.array([0.2, 0.5, -0.4]), np.array([-0.3, 0.1, 0.4]), np.array([0.6, -0.2, 0.1])]


def scanned(x: Any) -> Any:
    def body(c: Any, t: Any) -> Any:
        k, y = c
        y = np.sin(W @ y) * t
        return (k + 1, y), (y, k)

    (_, y), (ys, _) = lax.scan(body, (0, x), np.linspace(0.5, 1.0, 4))
    return y * np.sum(ys)


PROGRAMS = {
    "dense": lambda x: np.tanh(W @ x) @ W + np.sum(x),
    "softmax": lambda x: np.exp(x - np.max(x)) / np.sum(np.exp(x - np.max(x))),
    "where": lambda x: np.where(x > 0, np.sin(x), x**2) * np.abs(x),
    "extremes": lambda x: np.maximum(x, 0.1) * np.minimum(x, 0.2) + np.sort(x),
    "moving": lambda x: np.concatenate([x[::-1], x[1:], np.pad(x, 1)]).reshape(2, 5) ** 2,
    "indexing": lambda x: fg.at(x[np.array([0, 2, 2])])[1].multiply(x[0]),
    "cumulative": lambda x: np.cumsum(x) * np.cumprod(x) + lax.cummax(x),
    "solve": lambda x: np.linalg.solve(W + np.diag(x), x),
    "convolution": lambda x: np.convolve(x, np.sin(x)),
    "complex": lambda x: np.real(np.exp(1j * x) * (x + 2j)),
    "constant": lambda x: np.ones(3),
    "jit": lambda x: fg.jit(lambda y: {"a": np.sin(y), "b": 3.0})(x)["a"] * 2,
    "named": fg.named_call(lambda x: np.sin(x) * x),
    "checkpoint": fg.checkpoint(lambda x: np.sin(np.exp(x))),
    "scan": scanned,
    "fori": lambda x: lax.fori_loop(0, 3, lambda i, y: np.sin(y) * (1 + i), x),
    "while": lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, np.sin(c[1]) * x), (0, x))[1],
    "cond": lambda x: lax.cond(x[0] > 0, lambda x: (np.sin(x), X), lambda x: (X, np.cos(x)), x)[0],
    "switch": lambda x: lax.switch(1, [np.sin, lambda x: np.exp(x) * x, np.cos], x),
    "stopped": lambda x: x * lax.stop_gradient(np.sin(x)),
    "grad": lambda x: fg.grad(lambda x: np.sum(np.sin(x) ** 3))(x),
    "jacobian of a loop": lambda x: fg.jacrev(scanned)(x),
    "vmap": lambda x: fg.vmap(lambda a: np.sin(a * x))(x),
}


def nested_jvps(f: Any, order: int) -> list[Any]:
    """The derivatives along the curve of TERMS."""

    def at(t: Any) -> Any:
        return f(X + sum([term * (t**k / math.factorial(k)) for k, term in enumerate(TERMS[:order], 1)]))

    found = []
    for _ in range(order + 1):
        found.append(at(0.0))
        at = (lambda g: lambda t: fg.jvp(g, (t,), (1.0,))[1])(at)
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    f = PROGRAMS[name]
    wanted = nested_jvps(f, 3)
    for run in (f, fg.jit(f)):
        y, terms = jet(run, (X,), (TERMS,))
        for a, b in zip([y, *terms], wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    compiled = fg.jit(lambda x, s: jet(f, (x,), (s,)))(X, TERMS)
    for a, b in zip([compiled[0], *compiled[1]], wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["dense", "softmax", "scan", "cond", "jit", "while", "solve"])
def test_nested_in_transformations(name: str) -> None:
    """Batched, and differentiated forwards and backwards."""
    f = PROGRAMS[name]
    third = lambda x: jet(f, (x,), (TERMS,))[1][2]
    xs = np.stack([X, X + 0.1])
    np.testing.assert_allclose(fg.jit(fg.vmap(third))(xs), [third(x) for x in xs], rtol=1e-10)
    h = 1e-6
    slope = (third(X + h * TERMS[0]) - third(X - h * TERMS[0])) / (2 * h)
    np.testing.assert_allclose(fg.jvp(third, (X,), (TERMS[0],))[1], slope, rtol=2e-5, atol=1e-6)
    gradient = fg.jit(fg.grad(lambda x: np.sum(third(x))))(X)
    np.testing.assert_allclose(gradient @ TERMS[0], np.sum(slope), rtol=2e-5, atol=1e-6)
    inner = jet(lambda x: jet(f, (x,), ([TERMS[0]],))[1][0], (X,), ([TERMS[0]],))[1][0]
    straight = jet(f, (X,), ([TERMS[0], 0 * X],))[1][1]
    np.testing.assert_allclose(inner, straight, rtol=1e-10, atol=1e-12)


def test_structures_and_scaling() -> None:
    f = lambda p, c: {"y": np.sin(p["a"]) * c[0] * p["b"], "n": 3}
    primals = ({"a": X, "b": 2.0}, (X + 1,))
    terms = ([{"a": t, "b": 0.5} for t in TERMS], [(t,) for t in TERMS])
    y, found = jet(f, primals, terms)
    wanted = nested_jvps(lambda x: x, 0)
    assert fg.tree.structure(y) == fg.tree.structure(f(*primals)) and len(wanted) == 1
    assert len(found["y"]) == 3 and all([t.shape == (3,) for t in found["y"]])

    def at(t: Any) -> Any:
        moved = lambda x, s: x + sum([v * (t**k / math.factorial(k)) for k, v in enumerate(s, 1)])
        return f({"a": moved(X, TERMS), "b": moved(2.0, [0.5] * 3)}, (moved(X + 1, TERMS),))["y"]

    for term in found["y"]:
        at = (lambda g: lambda t: fg.jvp(g, (t,), (1.0,))[1])(at)
        np.testing.assert_allclose(term, at(0.0), rtol=1e-10)
    coefficients = [t / math.factorial(k) for k, t in enumerate(TERMS, 1)]
    y, scaled = jet(np.exp, (X,), (coefficients,), factorial_scaled=False)
    _, plain = jet(np.exp, (X,), (TERMS,))
    for k, (a, b) in enumerate(zip(scaled, plain, strict=True), 1):
        np.testing.assert_allclose(a, b / math.factorial(k))
    x = np.float32(0.5)
    y, terms = jet(np.exp, (x,), ([1.0, 0.0],))
    assert y.dtype == terms[0].dtype == terms[1].dtype == np.float32
    (_, terms) = jet(lambda x, k: x * k, (X, np.arange(3)), ([X, X], [np.zeros(3, fg.float0)] * 2))
    np.testing.assert_array_equal(terms[1], X * np.arange(3))


def test_results_belong_to_the_caller() -> None:
    first = X.copy()
    y, terms = jet(lambda x: x, (X,), ([first, first],))
    terms[0][:] = 9
    y[:] = 9
    assert first[0] == X[0] == 0.3 and terms[1][0] == 0.3


@pytest.mark.filterwarnings("ignore")
def test_against_jax(jax: Any) -> None:
    from jax.experimental.jet import jet as theirs

    jnp = jax.numpy
    rows = [
        lambda np: lambda x: np.tanh(W @ x) @ W,
        lambda np: lambda x: np.exp(x) / np.sum(np.exp(x)),
        lambda np: lambda x: np.log(np.cosh(x)) * np.where(x > 0, x, 0.5 * x),
    ]
    for row in rows:
        y, terms = jet(row(np), (X,), (TERMS,))
        wanted, wanted_terms = theirs(row(jnp), (X,), (TERMS,))
        for a, b in zip([y, *terms], [wanted, *wanted_terms], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)


def test_work_is_polynomial() -> None:
    """Equations of a program: about the square of the order, where nested JVPs double them each time."""

    def count(order: int) -> int:
        program = fg.make_jaxpr(fg.jit(lambda x, s: jet(lambda x: np.tanh(np.sin(x) * x), (x,), (s,))))
        return len(optimize(program(X, [X] * order)).jaxpr.eqns)

    assert count(4) < 4.5 * count(2) and count(8) < 4.5 * count(4)


ERRORS = {
    "no tuple": (lambda: jet(np.sin, 1.0, ([1.0],)), TypeError, ["must be tuples or lists", "float"]),
    "count": (lambda: jet(np.sin, (1.0,), ([1.0], [1.0])), ValueError, ["1 primals and 2 series"]),
    "no list": (lambda: jet(np.sin, (1.0,), (1.0,)), TypeError, ["series[0]", "list of terms"]),
    "lengths": (lambda: jet(np.add, (1.0, 1.0), ([1.0], [1.0, 2.0])), ValueError, ["same number of terms", "1, 2"]),
    "no terms": (lambda: jet(np.sin, (1.0,), ([],)), ValueError, ["at least one"]),
    "shape": (lambda: jet(np.sin, (X,), ([X, 1.0],)), ValueError, ["series[0][1]", "()", "(3,)"]),
    "dtype": (lambda: jet(np.sin, (X,), ([X.astype("f4")],)), TypeError, ["float32", ".astype('float64')"]),
    "structure": (lambda: jet(lambda p: p[0], ((X, X),), ([X],)), TypeError, ["series[0][0]", "structure"]),
    "integers": (lambda: jet(lambda k: k, (3,), ([1],)), TypeError, ["int64", "float0"]),
    "text": (lambda: jet(np.sin, ("x",), ([1.0],)), TypeError, ["jet", "'x'"]),
    "no derivative": (lambda: jet(lambda x: lax.nextafter(x, 2.0), (1.0,), ([1.0],)), fg.NonDifferentiableError,
                      ["steps through floats"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_message(name: str) -> None:
    call, kind, words = ERRORS[name]
    with pytest.raises(kind) as found:
        call()
    for w in words:
        assert w in str(found.value)
