"""Donated arguments: results are written over memory that the caller gave up, and over no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcgrad as fg


def test_update_in_place_returns_the_given_array() -> None:
    f = fg.jit(lambda u, i: fg.at(u)[i].add(1.0), donate_argnums=0)
    u = np.zeros(1000)
    v = f(u, np.array([3, 5, 3]))
    assert v is u
    assert u[3] == 2 and u[5] == 1 and u.sum() == 3
    assert f.lower(u, np.array([3])).executable.memory_analysis()["in_place"] == 1


def test_training_step_over_a_pytree() -> None:
    step = fg.jit(lambda p, g: {k: p[k] - 0.1 * g[k] for k in p}, donate_argnums=(0,))
    p = {"a": np.ones(5), "b": np.ones((2, 2))}
    g = {"a": np.ones(5), "b": np.ones((2, 2))}
    q = step(p, g)
    assert q["a"] is p["a"] and q["b"] is p["b"]
    np.testing.assert_allclose(q["a"], 0.9)
    np.testing.assert_array_equal(g["a"], 1.0)


def test_an_array_that_others_see_is_copied() -> None:
    step = fg.jit(lambda p, g: p - 0.1 * g, donate_argnums=0)
    x = np.ones(5)
    np.testing.assert_allclose(step(x, x), 0.9)
    np.testing.assert_array_equal(x, 1.0)
    whole = np.ones(6)
    np.testing.assert_allclose(step(whole[:5], whole[1:]), 0.9)
    np.testing.assert_array_equal(whole, 1.0)
    fixed = np.ones(5)
    fixed.flags.writeable = False
    np.testing.assert_allclose(step(fixed, np.ones(5)), 0.9)
    np.testing.assert_array_equal(fixed, 1.0)


def test_values_that_are_still_read_are_not_overwritten() -> None:
    x = np.arange(5.0)
    np.testing.assert_array_equal(fg.jit(lambda x: x[::-1] + x, donate_argnums=0)(x.copy()), [4.0] * 5)
    a, b = fg.jit(lambda x, y: (x + y, x * 2), donate_argnums=0)(x.copy(), np.ones(5))
    np.testing.assert_array_equal(a, x + 1)
    np.testing.assert_array_equal(b, x * 2)
    a, b = fg.jit(lambda x: (x, x + 1), donate_argnums=0)(x.copy())
    np.testing.assert_array_equal(a, x)
    np.testing.assert_array_equal(b, x + 1)


def test_by_name_beside_static_arguments() -> None:
    f = fg.jit(lambda n, x: x * n, donate_argnames="x", static_argnums=0)
    x = np.arange(3.0)
    assert f(3, x) is x
    np.testing.assert_array_equal(x, [0, 3, 6])
    y = np.arange(3.0)
    assert f(2, x=y) is y


def test_other_types_are_left_alone() -> None:
    x = np.arange(3.0)
    out = fg.jit(lambda x: x.astype(np.float32), donate_argnums=0)(x)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(x, np.arange(3.0))


@pytest.mark.parametrize(
    ("fun", "x"),
    [
        (lambda x: 2 * x.reshape(2, 2), np.arange(4.0)),
        (lambda x: 2 * x.reshape(4, 1), np.arange(4.0)),
        (lambda x: x.reshape(1, 4), np.arange(4.0)),
        (lambda x: x.T + 1, np.ones((1, 3))),
        (lambda x: x.reshape(()), np.array([3.5])),
        (lambda x: x, np.float64(3.5)),
        (lambda x: x, np.array(3.5)),
        (lambda x: x.reshape(1), np.array(3.5)),
        (lambda x: (x.reshape(1), x + 1), 3.5),
    ],
)
def test_results_have_their_own_shape(fun: Any, x: Any) -> None:
    """In the memory of an argument of another shape, or of none: a number's."""
    given = x.copy() if isinstance(x, np.ndarray) else x
    for got, want in zip(
        fg.tree.leaves(fg.jit(fun, donate_argnums=0)(given)), fg.tree.leaves(fg.jit(fun)(x)), strict=True
    ):
        assert np.shape(got) == np.shape(want) and type(got) is type(want)
        np.testing.assert_array_equal(got, want)


def test_memory_is_taken_over_only_where_the_data_orders_load_and_store() -> None:
    """Generated code says that operands do not overlap: only what is loaded may be stored over itself."""

    def crossed(old: Any, a: Any) -> Any:
        return a * 2, old + 1

    def straight(old: Any, a: Any) -> Any:
        return old + 1, a * 2

    old, a = np.arange(1003.0), np.arange(1003.0) * 3
    for f, in_place in ((crossed, {1: 0}), (straight, {0: 0})):
        compiled = fg.jit(f, donate_argnums=0).trace(old, a).lower().compile()
        assert compiled.executable.plan.donations == in_place
        given = old.copy()
        for found, expected in zip(fg.jit(f, donate_argnums=0)(given, a), f(old, a), strict=True):
            np.testing.assert_array_equal(found, expected)
