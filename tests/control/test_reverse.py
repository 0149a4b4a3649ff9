"""Reverse mode through loops of unknown length: any number of steps, whatever the slots, in fixed memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax
from funcgrad.control import reverse
from funcgrad.control.derived import clear_derived
from funcgrad.ops.transcendental import sin_p


def loop(x: Any, a: Any, n: Any) -> Any:
    def body(c: Any) -> Any:
        i, x, y = c
        return i + 1, np.sin(x) * a + 0.1 * y, y * 0.9 + x[::-1] * 0.2

    return lax.while_loop(lambda c: c[0] < n, body, (0, x, x * a))


def unrolled(x: Any, a: Any, n: int) -> Any:
    y = x * a
    for _ in range(n):
        x, y = np.sin(x) * a + 0.1 * y, y * 0.9 + x[::-1] * 0.2
    return n, x, y


def total(run: Any, n: int) -> Any:
    def fun(x: Any, a: Any) -> Any:
        _, x, y = run(x, a, n)
        return np.sum(x * y) + np.sum(y)

    return fun


X, A = np.array([0.3, -0.5]), 0.9


@pytest.fixture(params=[2, 4, 64])
def slots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(reverse, "SLOTS", request.param)
    clear_derived()
    n: int = request.param
    return n


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 70, 140])
def test_any_number_of_steps(n: int, slots: int) -> None:
    """All levels and spacings, also where the last level is too coarse to keep every state."""
    wanted = fg.grad(total(unrolled, n), (0, 1))(X, A)
    for gradient in (fg.grad(total(loop, n), (0, 1)), fg.jit(fg.grad(total(loop, n), (0, 1)))):
        for found, w in zip(gradient(X, A), wanted, strict=True):
            np.testing.assert_allclose(found, w, rtol=1e-11, atol=1e-13)


def test_each_its_own_number_of_steps(slots: int) -> None:
    def fun(x: Any, a: Any, n: Any) -> Any:
        return np.sum(lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, np.sin(c[1]) * a), (0, x))[1])

    def one(x: Any, a: Any, n: int) -> Any:
        for _ in range(n):
            x = np.sin(x) * a
        return np.sum(x)

    ns, xs = np.array([0, 3, 11]), np.stack([X, 2 * X, X + 1])
    each = [fg.grad(one, (0, 1))(x, A, int(n)) for x, n in zip(xs, ns, strict=True)]
    for gradient in (fg.vmap(fg.grad(fun, (0, 1)), (0, None, 0)), fg.jit(fg.vmap(fg.grad(fun, (0, 1)), (0, None, 0)))):
        gx, ga = gradient(xs, A, ns)
        np.testing.assert_allclose(gx, [g for g, _ in each], rtol=1e-12)
        np.testing.assert_allclose(ga, [g for _, g in each], rtol=1e-12)
    along = fg.grad(lambda xs: np.sum(fg.vmap(fun, (0, None, 0))(xs, A, ns)))(xs)
    np.testing.assert_allclose(along, [g for g, _ in each], rtol=1e-12)


def test_memory_does_not_grow() -> None:
    """The arrays of the backward program are the same for any number of steps."""
    shapes = []
    for n in (10, 100_000):
        program = str(fg.make_jaxpr(fg.jit(fg.grad(total(loop, n))))(X, A))
        shapes.append(program.replace(f"{n}:i64[]", "n:i64[]"))
    assert shapes[0] == shapes[1]


def test_steps_are_computed_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, snapshots, and two levels below: at most five times, for a number of steps that needs all levels."""
    monkeypatch.setattr(reverse, "SLOTS", 8)
    count = 0

    def noted(x: Any) -> Any:
        nonlocal count
        count += 1
        return np.sin(x)

    n = 200
    f = lambda x: lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, np.sin(c[1]) * 1.1), (0, x))[1]  # noqa: E731
    clear_derived()
    impl = sin_p.impl
    object.__setattr__(sin_p, "impl", noted)  # a frozen record
    try:
        fg.grad(f)(0.7)
    finally:
        object.__setattr__(sin_p, "impl", impl)
    assert n * 2 <= count <= n * 5


def test_condition_must_not_depend_on_what_is_linear() -> None:
    f = lambda x: lax.while_loop(lambda c: c < 9, lambda c: 2 * c, x)  # noqa: E731
    with pytest.raises(fg.FuncgradError, match="how often it runs depends"):
        fg.linear_transpose(f, 1.0)(1.0)


def test_linear_loop_of_known_condition() -> None:
    f = lambda v, n: lax.fori_loop(0, n, lambda i, c: c * 2 + v * i, v)  # noqa: E731
    transposed = fg.jit(lambda n: fg.linear_transpose(lambda v: f(v, n), 1.0)(1.0))(4)
    np.testing.assert_allclose(transposed, (f(1.0, 4),))
