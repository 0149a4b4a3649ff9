"""Random programs: whatever is built from the table below means the same eagerly, jitted, batched and differentiated.

A program is a list of instructions on a growing list of values, so that sharing, fan-out, broadcasting, reductions and
views meet in ways that nobody writes down by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import funcgrad as fg

# every function is smooth and bounded where programs take it, so that finite differences are trustworthy
UNARY = {
    "sin": np.sin,
    "tanh": np.tanh,
    "cos": np.cos,
    "atan": np.arctan,
    "square": lambda x: np.square(x) * 0.3,
    "exp": lambda x: np.exp(-(x**2)),
    "log1p": lambda x: np.log1p(x**2),
    "sqrt": lambda x: np.sqrt(x**2 + 1),
    "neg": lambda x: -x,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
}
BINARY = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - 0.5 * y,
    "mul": lambda x, y: np.tanh(x) * y,
    "div": lambda x, y: x / (2 + y**2),
    "hypot": lambda x, y: np.sqrt(x**2 + y**2 + 1),
    "where": lambda x, y: np.where(np.sin(3 * x) > 2, x, y),
}
REDUCE = {
    "sum": lambda x: np.sum(x, axis=-1, keepdims=True) * 0.3,
    "mean0": lambda x: np.mean(x, axis=0, keepdims=True),
    "logsumexp": lambda x: np.log(np.sum(np.exp(np.tanh(x)), axis=-1, keepdims=True)),
    "softmax": lambda x: np.exp(np.tanh(x)) / np.sum(np.exp(np.tanh(x)), axis=-1, keepdims=True),
    "cumsum": lambda x: np.tanh(np.cumsum(x, axis=-1)),
    "center": lambda x: x - np.mean(x, axis=-1, keepdims=True),
}
SHAPE = {
    "flip": lambda x: x[..., ::-1],
    "roll": lambda x: np.roll(x, 1, axis=-1),
    "reshape": lambda x: np.reshape(np.reshape(x, (-1,)), x.shape),
    "double transpose": lambda x: (x.T * 1.5).T,
    "pad and cut": lambda x: np.pad(x, ((1, 0), (0, 1)))[1:, :-1],
    "halves": lambda x: np.concatenate([x[1:], x[:1]], axis=0),
    "gram": lambda x: np.tanh(x @ x.T) @ x * 0.3,
    "take": lambda x: x[np.arange(x.shape[0])[::-1]],
}
ONE_OPERAND = UNARY | REDUCE | SHAPE


@dataclass(frozen=True)
class Program:
    rows: int
    columns: int
    instructions: tuple[tuple[str, int, int], ...]

    def __call__(self, x: Any) -> Any:
        values = [x, np.sin(2 * x)]
        for name, i, j in self.instructions:
            a, b = values[i % len(values)], values[j % len(values)]
            out = BINARY[name](a, b) if name in BINARY else ONE_OPERAND[name](a)
            values.append(np.broadcast_to(out, x.shape) if out.shape != x.shape else out)
        return values[-1]


programs = st.builds(
    Program,
    st.integers(1, 4),
    st.integers(1, 5),
    st.lists(
        st.tuples(st.sampled_from(sorted(ONE_OPERAND | BINARY)), st.integers(0, 9), st.integers(0, 9)),
        min_size=1,
        max_size=8,
    ).map(tuple),
)


def total(program: Program):
    return lambda x: np.sum(program(x) * np.cos(np.arange(x.shape[1])))


@given(programs, st.integers(0, 2**31))
@settings(max_examples=40)
def test_programs_mean_one_thing(program: Program, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, v = rng.normal(size=(2, program.rows, program.columns))
    f = total(program)
    value = f(x)
    np.testing.assert_allclose(fg.jit(program)(x), program(x), rtol=1e-11, atol=1e-13)

    g = fg.grad(f)(x)
    h = 1e-5
    slope = (f(x + h * v) - f(x - h * v)) / (2 * h)
    np.testing.assert_allclose(np.sum(g * v), slope, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(fg.jvp(f, (x,), (v,))[1], np.sum(g * v), rtol=1e-9, atol=1e-11)

    jitted_value, jitted = fg.jit(fg.value_and_grad(f))(x)
    np.testing.assert_allclose(jitted_value, value, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(jitted, g, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fg.grad(fg.jit(f))(x), g, rtol=1e-9, atol=1e-12)


@given(programs, st.integers(0, 2**31), st.integers(0, 2))
@settings(max_examples=30)
def test_vmap_is_the_loop(program: Program, seed: int, axis: int) -> None:
    xs = np.random.default_rng(seed).normal(size=(3, program.rows, program.columns))
    moved = np.moveaxis(xs, 0, axis)
    expected = np.stack([program(x) for x in xs])
    np.testing.assert_allclose(fg.vmap(program, axis)(moved), expected, rtol=1e-11, atol=1e-13)
    gradients = np.stack([fg.grad(total(program))(x) for x in xs])
    batched = fg.vmap(fg.grad(total(program)), axis, axis)
    np.testing.assert_allclose(batched(moved), np.moveaxis(gradients, 0, axis), rtol=1e-9, atol=1e-12)


@given(programs, st.integers(0, 2**31))
@settings(max_examples=15)
def test_second_derivatives_are_symmetric(program: Program, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, u, v = rng.normal(size=(3, program.rows, program.columns))
    f = total(program)

    def along(direction):
        return fg.jvp(fg.grad(f), (x,), (direction,))[1]

    np.testing.assert_allclose(np.sum(along(u) * v), np.sum(along(v) * u), rtol=1e-8, atol=1e-10)
    jitted = fg.jit(lambda z, d: fg.jvp(fg.grad(f), (z,), (d,))[1])(x, u)
    np.testing.assert_allclose(jitted, along(u), rtol=1e-8, atol=1e-11)
