"""Sums over either axis of a (anti)symmetric array: the same values, and one walk where both are wanted."""

from __future__ import annotations

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.core.jaxpr import check_jaxpr, eval_jaxpr
from funcgrad.passes.pipeline import optimize
from funcgrad.passes.symmetry import share_symmetric_sums


def difference(x):
    return x[:, None] - x[None, :]


def pairs(x):
    """All pairs of points in space, one per row of x[n, 3]."""
    return x[:, None, :] - x[None, :, :]


def mask(x):
    d = difference(x)
    return np.where(np.abs(d) < 1.0, d, 0.0 * d)


# name, what is made of x, its symmetry: 1, -1, or 0 for none
ARRAYS = {
    "difference": (difference, -1),
    "square": (lambda x: difference(x) * difference(x), 1),
    "distance": (lambda x: np.abs(difference(x)), 1),
    "sum": (lambda x: x[:, None] + x[None, :], 1),
    "product": (lambda x: x[:, None] * x[None, :], 1),
    "scaled": (lambda x: -2.5 * difference(x), -1),
    "kernel": (lambda x: np.exp(-0.5 * difference(x) ** 2), 1),
    "force": (lambda x: difference(x) / (0.1 + difference(x) ** 2), -1),
    "cube": (lambda x: difference(x) * difference(x) * difference(x), -1),
    "inverse": (lambda x: 1.0 / np.sqrt(0.1 + difference(x) ** 2), 1),
    "where": (mask, -1),
    "with transpose": (lambda x: np.outer(x, np.sin(x)) + np.outer(x, np.sin(x)).T, 1),
    "less transpose": (lambda x: np.outer(x, np.sin(x)) - np.outer(x, np.sin(x)).T, -1),
    "unknown array": (lambda x: difference(x) + np.arange(49.0).reshape(7, 7), 0),
    "greatest": (lambda x: np.maximum(x[:, None], x[None, :]), 1),
    "shifted": (lambda x: difference(x) + 1.0, 0),
    "weighed": (lambda x: difference(x) * x[:, None], 0),
    "order": (lambda x: np.where(x[:, None] < x[None, :], 1.0, 0.0), 0),
    "two sources": (lambda x: x[:, None] - np.sin(x)[None, :], 0),
    # Where x[i] = x[j] both differences are +0: the pole has the same sign on both sides of the diagonal.
    "pole": (lambda x: 1.0 / difference(x), 0),
    "pole of a product": (lambda x: 1.0 / (difference(x) * difference(x * x)), 0),
    "sign of zero": (lambda x: np.copysign(1.0, difference(x)), 0),
    "angle": (lambda x: np.arctan2(difference(x), difference(x * x)), 0),
}


def axes_summed(closed) -> set[tuple[int, ...]]:
    return {e.params["axes"] for e in closed.jaxpr.eqns if e.primitive.name == "reduce_sum"}


@pytest.mark.parametrize("name", ARRAYS)
def test_sums_over_rows_and_columns(name: str) -> None:
    make, symmetry = ARRAYS[name]
    x = np.random.default_rng(3).normal(size=7)
    x[4] = x[2]  # a zero off the diagonal
    for order in ((0, 1), (1, 0)):

        def both(x, order=order):
            return tuple([np.sum(make(x), axis=a) for a in order])

        with np.errstate(all="ignore"):
            want = both(x)
            plain = fg.make_jaxpr(both)(x)
            closed = optimize(plain, check=True)
            got = eval_jaxpr(closed.jaxpr, closed.consts, x)
            compiled = fg.jit(both)(x)
        turned = axes_summed(closed) == {(1,)}
        assert turned == (symmetry != 0), closed
        for w, g, c in zip(want, got, compiled, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-13, atol=1e-13)
            np.testing.assert_allclose(c, w, rtol=1e-13, atol=1e-13)


def test_extremes_of_a_symmetric_array() -> None:
    def both(x):
        d = np.abs(difference(x))
        return np.max(d, axis=0), np.min(d, axis=1), np.max(difference(x), axis=0)

    x = np.random.default_rng(0).normal(size=5)
    closed = optimize(fg.make_jaxpr(both)(x), check=True)
    assert [e.params["axes"] for e in closed.jaxpr.eqns if e.primitive.name.startswith("reduce")] == [(1,), (1,), (0,)]
    for got, want in zip(eval_jaxpr(closed.jaxpr, closed.consts, x), both(x), strict=True):
        np.testing.assert_array_equal(got, want)


def test_differences_of_unsigned_integers_have_no_negative() -> None:
    def both(x):
        d = np.abs(difference(x)).astype(float)
        return np.sum(d, axis=0), np.sum(d, axis=1)

    x = np.array([1, 5, 200, 7, 9], np.uint8)
    for got, want in zip(fg.jit(both)(x), both(x), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_in_space(dtype) -> None:
    """The gradient of a pairwise energy sums over either point, over the coordinates, and back."""

    def energy(x):
        r = np.sum(pairs(x) ** 2, axis=-1)
        return np.sum(1.0 / np.sqrt(dtype(0.1) + r)) + np.sum(np.exp(-r))

    x = np.random.default_rng(1).normal(size=(6, 3)).astype(dtype)
    gradient = fg.grad(energy)
    closed = optimize(fg.make_jaxpr(gradient)(x), check=True)
    assert (0,) not in axes_summed(closed)
    want = fg.grad(lambda x: energy(x))(x)  # the interpreter runs no passes
    np.testing.assert_allclose(fg.jit(gradient)(x), want, rtol=2e-5 if dtype == np.float32 else 1e-12)
    one = fg.jit(gradient).lower(x)
    assert one.as_text().count("def kernel") <= 2, one.as_text()


def test_batched_and_of_other_extents() -> None:
    def both(x):
        d = x[:, :, None] - x[:, None, :]
        return d.sum(1), d.sum(2)

    x = np.random.default_rng(2).normal(size=(3, 5))
    assert axes_summed(optimize(fg.make_jaxpr(both)(x), check=True)) == {(2,)}
    want = both(x)
    for got, w in zip(fg.jit(both)(x), want, strict=True):
        np.testing.assert_allclose(got, w, rtol=1e-13)

    def apart(x, y):
        d = x[:, None] - y[None, :]
        return d.sum(0), d.sum(1)

    assert axes_summed(optimize(fg.make_jaxpr(apart)(x[0], x[1]), check=True)) == {(0,), (1,)}


def test_a_sum_of_zeros_has_its_sign() -> None:
    def columns(x):
        return difference(x).sum(0)

    x = np.ones(3)
    assert not np.signbit(columns(x)).any()
    assert not np.signbit(fg.jit(columns)(x)).any()


def test_deep_programs_take_no_recursion() -> None:
    def deep(x):
        d = difference(x)
        for _ in range(3000):
            d = d * 0.999
        return d.sum(0)

    closed = fg.make_jaxpr(deep)(np.ones(3))
    turned = share_symmetric_sums(closed)
    check_jaxpr(turned.jaxpr)
    assert axes_summed(turned) == {(1,)}
