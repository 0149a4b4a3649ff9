# ruff: noqa: B002
"""Passes change a program, never what it computes: random programs bit for bit, and what each pass must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import funcgrad as fg
from funcgrad import lax
from funcgrad.control import live
from funcgrad.control.live import eliminate_dead_code
from funcgrad.core.jaxpr import ClosedJaxpr, check_jaxpr, eval_jaxpr
from funcgrad.passes.pipeline import PASSES, optimize

SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, np.inf, -np.inf, np.nan, 5e-324, 1e308]
STEPS = {
    "neg": lambda x, y: -x,
    "double neg": lambda x, y: -(-x),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "times one": lambda x, y: 1.0 * x * 1.0,
    "over one": lambda x, y: x / 1.0,
    "over root": lambda x, y: 0.25 / np.sqrt(x) - 1.0 / np.sqrt(x),
    "gradient of root": lambda x, y: fg.grad(lambda a: np.sum(y * np.sqrt(a) - np.sqrt(a)))(x),
    "gradient of inverse root": lambda x, y: fg.grad(lambda a: np.sum(y / np.sqrt(a) - 1.0 / np.sqrt(a)))(x),
    "gradient of logarithm": lambda x, y: fg.grad(lambda a: -np.sum(y * np.log(np.exp(a)) - np.log(a)))(x),
    "gradient of inverse": lambda x, y: fg.grad(lambda a: np.sum(1.0 / a) + np.sum(-1.0 * (y / a)))(x),
    "plus zero": lambda x, y: x + 0.0,
    "plus minus zero": lambda x, y: x + -0.0,
    "minus zero": lambda x, y: x - 0.0,
    "times zero": lambda x, y: x * 0.0,
    "transposes": lambda x, y: x.T.T,
    "transpose": lambda x, y: np.swapaxes(np.transpose(x), 0, 1) * 1,
    "reshapes": lambda x, y: x.reshape(-1).reshape(3, 2).reshape(x.shape),
    "converts": lambda x, y: x.astype(np.float32).astype(float),
    "convert to its own": lambda x, y: x.astype(float),
    "integers": lambda x, y: np.sign(x).astype(np.int8) * np.int8(1) + x,
    "where": lambda x, y: np.where(x > y, x, y),
    "where true": lambda x, y: np.where(True, x, y),
    "where false": lambda x, y: np.where(False, x, y),
    "where same": lambda x, y: np.where(x > 0, y, y),
    "call": lambda x, y: fg.jit(lambda a, b: (a * b, b, 1.0))(x, y)[0],
    "call of call": lambda x, y: fg.jit(lambda a: fg.jit(lambda b: b - y)(a * 1.0))(x),
    "call returns its input": lambda x, y: fg.jit(lambda a, b: b)(y, x),
    "call returns a constant": lambda x, y: x + fg.jit(lambda a: (np.float64(-0.0), a))(y)[0],
    "checkpoint": lambda x, y: fg.checkpoint(lambda a: np.minimum(a, y))(x),
    "gradient": lambda x, y: fg.grad(lambda a: np.sum(a * y - a * a))(x),
    "logaddexp": lambda x, y: np.logaddexp(x, y),
    "captured": lambda x, y: x * np.arange(6.0).reshape(2, 3),
}


def same_bits(a, b) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    nan = (a != a) & (b != b)  # which NaN an operation gives is not specified
    return a.dtype == b.dtype and a.shape == b.shape and bool(np.all((a.view("V8") == b.view("V8")) | nan))


STEP = st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9), st.integers(0, 9))


@given(
    steps=st.lists(STEP, min_size=1, max_size=12),
    values=st.lists(st.sampled_from(SPECIAL), min_size=12, max_size=12),
)
def test_passes_preserve_every_bit(steps, values) -> None:
    x, y = np.array(values).reshape(2, 2, 3)

    def program(x, y):
        known = [x, y]
        for name, i, j in steps:
            known.append(STEPS[name](known[i % len(known)], known[j % len(known)]))
        return known[-1], known[len(known) // 2]

    closed = fg.make_jaxpr(program)(x, y)
    check_jaxpr(closed.jaxpr)
    optimized = optimize(closed, check=True)
    with np.errstate(all="ignore"):
        expected = eval_jaxpr(closed.jaxpr, closed.consts, x, y)
        found = eval_jaxpr(optimized.jaxpr, optimized.consts, x, y)
    for a, b in zip(expected, found, strict=True):
        assert same_bits(a, b), f"{closed}\n{optimized}\n{a}\n{b}"
    assert len(optimize(optimized).eqns) == len(optimized.eqns)


def names(closed: ClosedJaxpr) -> list[str]:
    return [e.primitive.name for e in closed.eqns]


@pytest.mark.parametrize(
    ("fun", "left"),
    [
        (lambda x: -(-x), []),
        (lambda x: x.T.T, []),
        (lambda x: x * 1.0 / 1.0, []),
        (lambda x: np.where(True, x, 0.0), []),
        (lambda x: x.astype(float), []),
        (lambda x: np.sin(x) + np.sin(x), ["sin", "add"]),
        (lambda x: (np.sin(x), x + 0.0)[1], ["add"]),
        (lambda x: fg.jit(fg.jit(np.sin))(x), ["sin"]),
        (lambda x: x * 0.0, ["mul"]),
        (lambda x: x - x, ["sub"]),
        (lambda x: 1.0 / np.sqrt(x) + 0.5 / np.sqrt(x), ["rsqrt", "mul", "add"]),
        (lambda x: 3.0 / np.sqrt(x), ["sqrt", "div"]),
        (lambda x: fg.vjp(np.log, x)[1](np.ones_like(x))[0], ["div", "add"]),
        (lambda x: fg.vjp(lambda y: 1.0 / y, x)[1](np.ones_like(x))[0], ["div", "mul", "add", "neg"]),
        (lambda x: np.sum(x + x, axis=0), ["reduce_sum", "add"]),
        (lambda x: fg.grad(lambda y: np.sum(1.0 / np.sqrt(y)))(x), ["rsqrt", "mul", "mul", "mul", "sub"]),
        (lambda x: (x + 0.0, x + -0.0), ["add", "add"]),
        (lambda x: (x * np.float64(np.nan), x * np.float64(np.nan)), ["mul"]),
    ],
)
def test_what_is_left(fun, left) -> None:
    assert names(optimize(fg.make_jaxpr(fun)(np.ones((2, 3))), check=True)) == left


def test_signature_stays_and_unused_constants_go() -> None:
    big = np.ones(1000)

    def fun(x, unused):
        np.sum(big * x)
        return x, 2.0, x

    closed = eliminate_dead_code(fg.make_jaxpr(fun)(1.0, np.ones(3)))
    assert not closed.eqns and not closed.consts and len(closed.in_avals) == 2
    assert closed.jaxpr.outvars[0] is closed.jaxpr.outvars[2]


@pytest.mark.parametrize("name", [name for name, _ in PASSES])
def test_each_pass_leaves_its_argument_alone(name) -> None:
    closed = fg.make_jaxpr(lambda x: (np.sin(x) * 1.0 + np.sin(x), fg.jit(np.cos)(x), -(-x)))(1.0)
    before = str(closed)
    for key, run in PASSES:
        if key == name:
            check_jaxpr(run(closed).jaxpr)
    assert str(closed) == before


def test_deep_programs_take_linear_time_and_no_recursion() -> None:
    def nested(x, depth):
        return x if depth == 0 else fg.jit(lambda y: nested(y * 1.0 + 1.0, depth - 1))(x)

    closed = optimize(fg.make_jaxpr(lambda x: nested(x, 30))(1.0), check=True)
    assert names(closed) == ["add"] * 30

    def chain(x):
        for _ in range(20_000):
            x = -(-x) * 1.0 + 1.0
        return x

    closed = optimize(fg.make_jaxpr(chain)(1.0))
    assert names(closed) == ["add"] * 20_000


PRODUCTS = {
    # name: function, transposes that remain
    "turned": (lambda x, y: (x @ y).T * 2.0, 0),
    "turned with more axes": (lambda x, y: np.transpose(np.tensordot(x, y, 1), (1, 0)), 0),
    "a batch": (lambda x, y: np.swapaxes(np.stack([x, x]) @ np.stack([y, y]), 1, 2), 0),
    "batches move too": (lambda x, y: (np.stack([x, x]) @ np.stack([y, y])).T, 1),
    "also read as it is": (lambda x, y: (lambda p: (p, p.T * 1.5))(x @ y), 1),
    "the result is the product": (lambda x, y: (x @ y).T, 0),
    "gradient of weights": (lambda x, y: fg.grad(lambda w: np.sum(np.sin(x @ w)))(y), 0),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_read_transposed_are_computed_transposed(name: str) -> None:
    fun, remain = PRODUCTS[name]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(4, 5))
    closed = fg.make_jaxpr(fun)(x, y)
    optimized = optimize(closed, check=True)
    names = [e.primitive.name for e in optimized.eqns]
    assert names.count("transpose") == remain
    assert names.count("dot_general") == [e.primitive.name for e in closed.eqns].count("dot_general")
    for a, b in zip(
        eval_jaxpr(closed.jaxpr, closed.consts, x, y), eval_jaxpr(optimized.jaxpr, optimized.consts, x, y), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_dead_code_of_nested_loops_takes_time_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each body is gone through once for each set of its results, however deep it lies."""
    calls: list[int] = []
    trim = live._trim
    monkeypatch.setattr(live, "_trim", lambda *args: (calls.append(1), trim(*args))[1])

    def nested(depth: int, x: Any) -> Any:
        if not depth:
            return np.sin(x)
        return lax.while_loop(lambda x: x < 3.0, lambda x: nested(depth - 1, x) + 1.0, x)

    closed = fg.make_jaxpr(lambda x: nested(9, x))(1.0)
    calls.clear()
    eliminate_dead_code(closed)
    assert len(calls) < 60
