"""Collectives over a vmapped axis: against operations along the batch axis, and their derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcgrad.ops.operators  # noqa: F401  (attaches the operators that rules are written with)
from funcgrad.core.avals import aval_of
from funcgrad.core.jaxpr import check_jaxpr, eval_jaxpr
from funcgrad.core.staging import stage
from funcgrad.core.trace import axis_environment
from funcgrad.ops.collective import (
    all_gather,
    all_to_all,
    axis_index,
    axis_size,
    pmax,
    pmean,
    pmin,
    ppermute,
    pshuffle,
    psum,
    pswapaxes,
)
from funcgrad.transforms.batch import batch_flat
from funcgrad.transforms.forward import jvp_flat
from funcgrad.transforms.linear import linearize_flat

N = 3
X = np.random.default_rng(0).normal(size=(N, N, 4))


def mapped(fun: Any, *xs: Any, name: Any = "i", dims: Any = None, size: int = N) -> Any:
    (out,) = batch_flat(lambda *v: [fun(*v)], size, xs, dims or [0] * len(xs), [0], axis_name=name)
    return out


def each(value: Any) -> Any:
    return np.broadcast_to(value, (N, *np.shape(value)))


PERM = [(0, 1), (1, 2)]
ROWS = {
    "psum": (lambda x: psum(x, "i"), lambda X: each(X.sum(0))),
    "pmean": (lambda x: pmean(x, "i"), lambda X: each(X.mean(0))),
    "pmax": (lambda x: pmax(x, "i"), lambda X: each(X.max(0))),
    "pmin": (lambda x: pmin(x, "i"), lambda X: each(X.min(0))),
    "all_gather": (lambda x: all_gather(x, "i"), each),
    "all_gather 1": (lambda x: all_gather(x, "i", axis=1), lambda X: each(np.moveaxis(X, 0, 1))),
    "all_gather -1": (lambda x: all_gather(x, "i", axis=-1), lambda X: each(np.moveaxis(X, 0, -1))),
    "all_gather tiled": (lambda x: all_gather(x, "i", axis=1, tiled=True), lambda X: each(np.concatenate(list(X), 1))),
    "ppermute": (lambda x: ppermute(x, "i", PERM), lambda X: np.stack([0 * X[0], X[0], X[1]])),
    "pshuffle": (lambda x: pshuffle(x, "i", [2, 0, 1]), lambda X: X[[2, 0, 1]]),
    "all_to_all 0 0": (lambda x: all_to_all(x, "i", 0, 0), lambda X: np.swapaxes(X, 0, 1)),
    "all_to_all 0 1": (lambda x: all_to_all(x, "i", 0, 1), lambda X: np.transpose(X, (1, 2, 0))),
    "all_to_all tiled": (
        lambda x: all_to_all(x, "i", 0, 1, tiled=True),
        lambda X: np.stack([np.concatenate([x[j : j + 1] for x in X], 1) for j in range(N)]),
    ),
    "pswapaxes": (lambda x: pswapaxes(x, "i", 0), lambda X: np.swapaxes(X, 0, 1)),
    "axis_index": (lambda x: x * 0 + axis_index("i"), lambda X: X * 0 + np.arange(N)[:, None, None]),
}


@pytest.mark.parametrize("name", ROWS)
def test_values(name: str) -> None:
    fun, wanted = ROWS[name]
    np.testing.assert_allclose(mapped(fun, X), wanted(X), rtol=1e-13)
    np.testing.assert_allclose(mapped(fun, np.moveaxis(X, 0, 2), dims=[2]), wanted(X), rtol=1e-13)
    # the same in every instance: the operand is not mapped
    np.testing.assert_allclose(mapped(lambda x, y: fun(y), X, X[0], dims=[0, None]), wanted(each(X[0])), rtol=1e-13)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_under_another_vmap(name: str, dim: int) -> None:
    """An inner vmap of another name batches the collective before the outer one, which owns the name, replaces it."""
    fun, wanted = ROWS[name]
    many = np.stack([X, 2 * X + 1], axis=dim + 1)

    def inner(x: Any) -> Any:
        return mapped(fun, x, name="j", dims=[dim], size=2)

    found = mapped(inner, many)
    np.testing.assert_allclose(found, np.stack([wanted(X), wanted(2 * X + 1)], axis=1), rtol=1e-13)


def inner_product(a: Any, b: Any) -> float:
    return float(np.sum(np.multiply(a, b)))


@pytest.mark.parametrize("name", [n for n in ROWS if n != "axis_index"])
def test_derivatives_inside(name: str) -> None:
    """JVP and transpose taken inside of the mapped function, against differences of the whole."""
    fun, wanted = ROWS[name]
    rng = np.random.default_rng(1)
    v = rng.normal(size=X.shape)
    ct = rng.normal(size=wanted(X).shape)

    def pushed(x: Any, t: Any) -> Any:
        return jvp_flat(lambda x: [fun(x)], [x], [t])[1][0]

    def pulled(x: Any, c: Any) -> Any:
        _, linear = linearize_flat(lambda x: [fun(x)], [x])
        return linear.transpose([c])[0]

    tangent = mapped(pushed, X, v)
    h = 1e-6
    np.testing.assert_allclose(tangent, (wanted(X + h * v) - wanted(X - h * v)) / (2 * h), atol=1e-8)
    assert inner_product(mapped(pulled, X, ct), v) == pytest.approx(inner_product(ct, tangent))


@pytest.mark.parametrize("name", [n for n in ROWS if n != "axis_index"])
def test_derivatives_outside(name: str) -> None:
    fun, wanted = ROWS[name]
    ct = np.random.default_rng(1).normal(size=wanted(X).shape)
    _, linear = linearize_flat(lambda x: [mapped(fun, x)], [X])
    (pulled,) = linear.transpose([ct])
    h, v = 1e-6, np.random.default_rng(2).normal(size=X.shape)
    tangent = (wanted(X + h * v) - wanted(X - h * v)) / (2 * h)
    assert inner_product(pulled, v) == pytest.approx(inner_product(ct, tangent), abs=1e-7)


def test_gradients_as_in_jax() -> None:
    """``vmap(grad(lambda x: psum(x, 'i') ** 2))``: every instance pulls back the sum of all cotangents."""
    x = np.arange(1.0, 4.0)

    def grad_of(fun: Any) -> Any:
        return mapped(lambda x: linearize_flat(lambda x: [fun(x)], [x])[1].transpose([np.float64(1)])[0], x)

    np.testing.assert_allclose(grad_of(lambda x: psum(x * x, "i")), [6, 12, 18])
    np.testing.assert_allclose(grad_of(lambda x: psum(x, "i") ** 2), [36, 36, 36])
    np.testing.assert_allclose(grad_of(lambda x: pmean(x, "i") ** 2), [4, 4, 4])


def test_several_names() -> None:
    x = np.arange(6.0).reshape(2, 3)

    def over_both(fun: Any) -> Any:
        return mapped(lambda row: mapped(fun, row, name="j", size=3), x, name="i", size=2)

    np.testing.assert_array_equal(over_both(lambda x: psum(x, ("i", "j"))), np.full((2, 3), 15.0))
    np.testing.assert_array_equal(over_both(lambda x: pmean(x, ("i", "j"))), np.full((2, 3), 2.5))
    np.testing.assert_array_equal(over_both(lambda x: pmax(x, ("j", "i"))), np.full((2, 3), 5.0))
    np.testing.assert_array_equal(over_both(lambda x: psum(x, "j")), x * 0 + x.sum(1, keepdims=True))
    np.testing.assert_array_equal(over_both(lambda x: axis_index(("i", "j"))), np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(over_both(lambda x: axis_index(("j", "i"))), [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(over_both(lambda x: all_gather(x, ("i", "j")))[1, 2], np.arange(6.0))
    assert over_both(lambda x: x * 0 + axis_size(("i", "j")))[0, 0] == 6


def test_numbers_and_integers() -> None:
    x = np.arange(3)
    np.testing.assert_array_equal(mapped(lambda x: x * psum(1, "i"), x), 3 * x)
    assert mapped(lambda x: pmean(x, "i"), x).dtype == np.float64
    assert mapped(lambda x: psum(x > 0, "i"), x)[0] == 2


def test_staged() -> None:
    """A jaxpr with collectives checks outside of the scope of its names, and evaluates inside."""
    with axis_environment("i", N):
        fun, wanted = ROWS["all_gather 1"]
        closed = stage(lambda x: [psum(fun(x), "i")], [aval_of(X[0])])
    check_jaxpr(closed.jaxpr)
    found = mapped(lambda x: eval_jaxpr(closed.jaxpr, closed.consts, x)[0], X)
    np.testing.assert_allclose(found, N * wanted(X))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda x: psum(x, "nowhere"), NameError, r"unbound axis name 'nowhere'.*'i'"),
        (lambda x: ppermute(x, "i", [(0, 1), (0, 2)]), ValueError, "senders .* distinct"),
        (lambda x: ppermute(x, ("i", "j"), []), ValueError, "one axis at a time"),
        (lambda x: pshuffle(x, "i", [0, 0, 1]), ValueError, "not a permutation"),
        (lambda x: all_to_all(x, "i", 1, 0), ValueError, "must have the size 3 of axis 'i'"),
    ],
)
def test_errors(call: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        mapped(call, X)


def test_outside_of_any_vmap() -> None:
    with pytest.raises(NameError, match="names in scope here: none"):
        psum(np.ones(3), "i")
