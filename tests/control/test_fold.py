# ruff: noqa: E731
"""lax.reduce against a Python loop, NumPy and JAX, under every transformation; reduce_xor; named_call."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 4))
K = RNG.integers(0, 9, size=(3, 5, 4))
B = X > 0


def affine(f: Any, g: Any) -> Any:
    """Composition: associative, but it does not commute."""
    return {"a": f["a"] * g["a"], "b": f["b"] * g["a"] + g["b"]}


def log_sum(f: Any, g: Any) -> Any:
    """Log-sum-exp as a running maximum and a sum scaled by it."""
    m = np.maximum(f[0], g[0])
    return m, f[1] * np.exp(f[0] - m) + g[1] * np.exp(g[0] - m)


def argmax(f: Any, g: Any) -> Any:
    keep = f[0] >= g[0]
    return np.where(keep, f[0], g[0]), np.where(keep, f[1], g[1])


ROWS: dict[str, Any] = {
    # operands, initial values, computation, and whether it is one reduction
    "sum": (X, 0.0, np.add, "reduce_sum"),
    "sum from 2": (X, 2.0, lambda a, b: a + b, "reduce_sum"),
    "product": (X, 1.0, lax.mul, "reduce_prod"),
    "maximum": (X, -np.inf, lax.max, "reduce_max"),
    "maximum from 0.5": (X, 0.5, np.maximum, "reduce_max"),
    "minimum of integers": (K, np.iinfo(np.int64).max, np.minimum, "reduce_min"),
    "and": (K, -1, np.bitwise_and, "reduce_and"),
    "or": (B, False, np.logical_or, None),
    "or of bits": (B, False, lambda a, b: a | b, "reduce_or"),
    "xor": (K, 0, lax.bitwise_xor, "reduce_xor"),
    "xor from 5": (K, 5, lambda a, b: a ^ b, "reduce_xor"),
    "affine": ({"a": X, "b": X + 1}, {"a": 1.0, "b": 0.5}, affine, None),
    "log-sum-exp": ((X, np.ones(X.shape)), (-50.0, 0.0), log_sum, None),
    "argmax": ((X, K), (-np.inf, -1), argmax, None),
    "single precision": (X.astype(np.float32), np.float32(3), lambda a, b: a + b * 1, None),
}
DIMENSIONS = [(0,), (1,), (2,), (0, 2), (0, 1, 2), (-1,), ()]


def loop(operands: Any, init: Any, computation: Any, dimensions: Any) -> Any:
    """Element after element."""
    leaves, treedef = fg.tree.flatten(operands)
    starts = fg.tree.leaves(init)
    axes = sorted([d % 3 for d in dimensions])
    kept = [a for a in range(3) if a not in axes]
    rows = [np.transpose(x, (*kept, *axes)).reshape(*[x.shape[a] for a in kept], -1) for x in leaves]
    outs = [np.empty(rows[0].shape[:-1], x.dtype) for x in leaves]
    for place in np.ndindex(*rows[0].shape[:-1]):
        elements = [treedef.unflatten([r[place][k] for r in rows]) for k in range(rows[0].shape[-1])]
        begin = treedef.unflatten([x.dtype.type(s) for x, s in zip(leaves, starts, strict=True)])
        for out, value in zip(outs, fg.tree.leaves(functools.reduce(computation, elements, begin)), strict=True):
            out[place] = value
    return treedef.unflatten(outs)


def assert_same(found: Any, expected: Any, rtol: float = 1e-6) -> None:
    for a, b in zip(fg.tree.leaves(found), fg.tree.leaves(expected), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_values(name: str) -> None:
    operands, init, computation, _ = ROWS[name]
    for dimensions in DIMENSIONS:
        fun = lambda x, d=dimensions: lax.reduce(x, init, computation, d)
        expected = loop(operands, init, computation, dimensions)
        for f in (fun, fg.jit(fun)):
            assert_same(f(operands), expected)
        within = [d % 3 for d in dimensions]
        batched = fg.jit(fg.vmap(lambda x, d=within: lax.reduce(x, init, computation, d)))
        twice = fg.tree.map(lambda x: np.stack([x, x[::-1]]), operands)
        second = loop(fg.tree.map(lambda x: x[::-1], operands), init, computation, dimensions)
        assert_same(batched(twice), fg.tree.map(lambda a, b: np.stack([a, b]), expected, second))


@pytest.mark.parametrize("name", [n for n, row in ROWS.items() if row[3]])
def test_known_folds_are_one_reduction(name: str) -> None:
    operands, init, computation, primitive = ROWS[name]
    eqns = fg.make_jaxpr(lambda x: lax.reduce(x, init, computation, (0, 1)))(operands).jaxpr.eqns
    assert [e.primitive.name for e in eqns if "reduce" in e.primitive.name] == [primitive]
    assert len(eqns) <= 2


@pytest.mark.parametrize("name", ["sum from 2", "product", "maximum", "affine", "log-sum-exp"])
def test_derivatives(name: str) -> None:
    """Against differences, also of the initial value; forward and reverse, compiled or not."""
    operands, init, computation, _ = ROWS[name]
    init = fg.tree.map(lambda x: np.float64(max(x, -3.0)), init)

    def fun(x: Any, start: Any) -> Any:
        outs = lax.reduce(x, start, computation, (1,))
        return sum([np.sum(np.cos(y)) for y in fg.tree.leaves(outs)])

    direction = fg.tree.map(lambda x: np.cos(3 * x), (operands, init))
    shifted = lambda h: fun(*fg.tree.map(lambda x, v: x + h * v, (operands, init), direction))
    slope = (shifted(1e-6) - shifted(-1e-6)) / 2e-6
    for f in (fun, fg.jit(fun)):
        assert abs(fg.jvp(f, (operands, init), direction)[1] - slope) < 1e-6
        pulled = fg.grad(f, (0, 1))(operands, init)
        products = [np.sum(g * v) for g, v in zip(fg.tree.leaves(pulled), fg.tree.leaves(direction), strict=True)]
        assert abs(sum(products) - slope) < 1e-6


def test_captured_values_and_empty_arrays() -> None:
    scale = lambda s: lax.reduce(X, 0.0, lambda a, b: a + b + s * a * b, (0, 1, 2))
    slope = (scale(0.1 + 1e-7) - scale(0.1 - 1e-7)) / 2e-7
    np.testing.assert_allclose(fg.jit(fg.grad(scale))(0.1), slope, rtol=1e-5)
    np.testing.assert_array_equal(lax.reduce(np.zeros((0, 2)), 4.0, np.maximum, (0,)), [4, 4])
    np.testing.assert_array_equal(lax.reduce(np.zeros((0, 2)), 4.0, np.hypot, (0,)), [4, 4])
    assert lax.reduce(np.zeros((2, 0)), 4.0, np.hypot, (0,)).shape == (0,)


def test_against_jax(jax: Any) -> None:
    for name in ("sum from 2", "maximum", "affine", "log-sum-exp", "xor"):
        operands, init, _, _ = ROWS[name]
        of = lambda np, lax, name=name: {
            "sum from 2": lax.add,
            "maximum": lax.max,
            "xor": lax.bitwise_xor,
            "affine": affine,
            "log-sum-exp": lambda f, g: (
                m := np.maximum(f[0], g[0]),
                f[1] * np.exp(f[0] - m) + g[1] * np.exp(g[0] - m),
            ),
        }[name]
        expected = jax.lax.reduce(operands, init, of(jax.numpy, jax.lax), (0, 2))
        assert_same(lax.reduce(operands, init, of(np, lax), (0, 2)), fg.tree.map(np.asarray, expected))


ERRORS = {
    "structure": (lambda: lax.reduce((X, X), 0.0, affine, (0,)), TypeError, ["init_values must have the structure"]),
    "shapes": (lambda: lax.reduce((X, X[0]), (0.0, 0.0), argmax, (0,)), ValueError, ["operands[1] has (5, 4)"]),
    "initial array": (lambda: lax.reduce(X, X, np.add, (0,)), ValueError, ["must be a scalar", "(3, 5, 4)"]),
    "initial dtype": (lambda: lax.reduce(K, 0.5, np.add, (0,)), TypeError, ["float64", "int64", ".astype('int64')"]),
    "infinity": (lambda: lax.reduce(K, -np.inf, np.maximum, (0,)), TypeError, ["np.iinfo('int64').min"]),
    "axis twice": (lambda: lax.reduce(X, 0.0, np.add, (0, -3)), ValueError, ["name an axis twice"]),
    "axis": (lambda: lax.reduce(X, 0.0, np.add, (3,)), ValueError, ["3", "dimensions"]),
    "result dtype": (lambda: lax.reduce(K, 0, lambda a, b: a / b, (0,)), TypeError, ["returns f64[]", "i64[]"]),
    "result structure": (lambda: lax.reduce(K, 0, lambda a, b: (a, b), (0,)), TypeError, ["return the structure"]),
    "no function": (lambda: lax.reduce(K, 0, "add", (0,)), TypeError, ["reduce: computation", "'add'"]),
    "no array": (lambda: lax.reduce("x", 0, np.add, (0,)), TypeError, ["reduce: operands: 'x'"]),
    "name": (lambda: fg.named_call(np.sin, name=3), TypeError, ["named_call: name", "3"]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_message(name: str) -> None:
    call, kind, words = ERRORS[name]
    with pytest.raises(kind) as found:
        call()
    for w in words:
        assert w in str(found.value)


def test_named_call() -> None:
    f = fg.named_call(lambda x, y: {"a": np.sin(x) * y, "b": (x, 3)}, name="layer")
    assert f(2.0, 3.0) == {"a": np.sin(2.0) * 3, "b": (2.0, 3)}
    loss = lambda x: np.sum(f(x, np.cos(x))["a"])
    plain = lambda x: np.sum(np.sin(x) * np.cos(x))
    for use in (fg.grad, fg.hessian, lambda g: fg.jit(fg.grad(g)), lambda g: fg.vmap(fg.grad(g)), fg.jacfwd):
        np.testing.assert_allclose(use(loss)(X[0, 0] if use is not fg.vmap else X[0]), use(plain)(X[0, 0]), atol=1e-14)
    text = str(fg.make_jaxpr(fg.vmap(fg.grad(loss)))(X[0]))
    assert "name=vmap(layer)" in text and "name=vmap(transpose(linear(layer)))" in text
