"""checkpoint: the same numbers under every transformation, and fewer residuals kept."""

from __future__ import annotations

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax
from funcgrad.transforms.linear import linearize_flat


def body(x, scale=2.0, *, shift=0.0):
    return np.sin(np.tanh(x * scale) + shift)


X = np.array([[0.3, -1.2, 0.8], [0.1, 0.5, -0.4]])
USES = {
    "gradient": lambda f: fg.grad(lambda x: np.sum(f(x) ** 2))(X),
    "second derivative": lambda f: fg.hessian(lambda x: np.sum(f(x) ** 2))(X[0]),
    "third derivative": lambda f: fg.jacfwd(fg.hessian(lambda x: np.sum(f(x))))(X[0]),
    "both arguments": lambda f: fg.grad(lambda x, s: np.sum(f(x, s, shift=s)), (0, 1))(X, 1.5),
    "jit": lambda f: fg.jit(fg.grad(lambda x: np.sum(f(x))))(X),
    "under jit and vmap": lambda f: fg.vmap(fg.jit(fg.grad(lambda x: np.sum(f(x)))))(X),
    "forward": lambda f: fg.jvp(fg.jit(f), (X,), (np.cos(X),)),
    "linearize": lambda f: fg.vmap(fg.linearize(f, X[0])[1])(np.eye(3)),
    "nested": lambda f: fg.grad(lambda x: np.sum(fg.checkpoint(lambda y: f(f(y)))(x)))(X),
    "collective": lambda f: fg.grad(
        lambda z: np.sum(fg.vmap(fg.jit(lambda r: f(r / lax.psum(r * r, "i"))), axis_name="i")(z))
    )(X),
}


@pytest.mark.parametrize("name", USES)
def test_changes_no_number(name) -> None:
    found, expected = USES[name](fg.checkpoint(body)), USES[name](body)
    for a, b in zip(fg.tree.leaves(found), fg.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14)


def test_static_arguments_integers_and_structures() -> None:
    power = fg.checkpoint(lambda x, n: {"y": x**n, "n": np.arange(n)}, static_argnums=1)
    assert fg.grad(lambda x: power(x, 3)["y"])(2.0) == 12
    np.testing.assert_array_equal(power(2.0, 3)["n"], [0, 1, 2])
    pick = fg.checkpoint(lambda x, k: (np.sum(x[k]), k))
    np.testing.assert_array_equal(fg.grad(lambda x: pick(x, np.array([0, 0, 2]))[0])(np.ones(3)), [2, 0, 1])


def test_constant_results_belong_to_the_caller() -> None:
    constant = np.ones(3)
    result = fg.checkpoint(lambda x: constant)(1.0)
    result[0] = 5
    assert constant[0] == 1


def test_residuals_are_the_inputs_alone() -> None:
    def residuals(f):
        return len(linearize_flat(lambda x: [f(x)], [X])[1].to_jaxpr()[1])

    deep = lambda x: body(body(body(body(x))))  # noqa: E731
    assert residuals(fg.checkpoint(deep)) == 1 and residuals(deep) >= 8
