"""Loops that are one kernel though they carry large arrays or solve linear systems: against the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax
from tests.control.test_native import calls, same

N = 50
X = np.random.default_rng(8).normal(size=N)
TABLE = np.random.default_rng(9).normal(size=(N, 3))


def _at(a: Any, i: Any) -> Any:
    return lax.dynamic_index_in_dim(a, i, 0, keepdims=False)


def _put(a: Any, x: Any, i: Any) -> Any:
    return lax.dynamic_update_index_in_dim(a, x, i, 0)


def prefix_sums(x: Any) -> Any:
    """Each element is read where an earlier step has written it."""
    return lax.fori_loop(1, N, lambda i, a: _put(a, _at(a, i) + _at(a, i - 1), i), x)


def rows(x: Any) -> Any:
    """Rows of a constant, added into rows of what is carried; starts are clamped."""

    def body(c: Any) -> Any:
        i, a, total = c
        row = _at(TABLE, 3 * i - 7)
        return i + 1, _put(a, row * x[0] + _at(a, N - i), 2 * i), total + row.sum()

    return lax.while_loop(lambda c: (c[0] < 40) & (_at(c[1], c[0])[0] < 50.0), body, (0, TABLE, 0.0))[1:]


def blocks(x: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        block = lax.dynamic_slice(a, (i, i // 2), (2, 2))
        return lax.dynamic_update_slice(a, block.T + 1.0, (i + 1, i // 3))

    return lax.fori_loop(0, 20, body, x[:1] * TABLE)


def nested(x: Any) -> Any:
    """A loop in the loop sorts by exchanging neighbours."""

    def exchange(j: Any, a: Any) -> Any:
        p, q = _at(a, j), _at(a, j + 1)
        return _put(_put(a, np.minimum(p, q), j), np.maximum(p, q), j + 1)

    return lax.fori_loop(0, N, lambda i, a: lax.fori_loop(0, N - 1 - i, exchange, a), x)


def flags_and_numbers(x: Any) -> Any:
    def body(c: Any, k: Any) -> Any:
        (seen, order), found = c, _at(c[1], k)
        return (_put(seen, _at(seen, k) ^ (_at(x, k) > 0), k), _put(order, k, N - 1 - k)), found

    start = (np.zeros(N, bool), np.zeros(N, np.int32))
    return lax.scan(body, start, np.arange(N, dtype=np.int32) * 3 % N)


def solves(x: Any) -> Any:
    """With pivoting, of each order up to four; forwards, transposed in the derivative, and in forward mode."""

    def body(c: Any, t: Any) -> Any:
        found = []
        for n in (1, 2, 3, 4):
            a = TABLE[:n, :1] * t + np.eye(n)[::-1] * (4.0 + c) + np.sin(np.arange(n * n).reshape(n, n) + t)
            b = np.arange(1.0, n + 1) + t
            found.append(np.linalg.solve(a, b).sum())
        return np.tanh(sum(found)), np.stack(found)

    return lax.scan(body, 0.3, x)


IN_REGISTERS: dict[str, tuple[Callable[..., Any], Any]] = {
    "prefix sums": (prefix_sums, X),
    "rows": (rows, X),
    "blocks": (blocks, X),
    "nested": (nested, X),
    "flags and numbers": (flags_and_numbers, X),
    "solves": (solves, X),
}


@pytest.mark.parametrize("name", IN_REGISTERS)
def test_one_kernel(name: str) -> None:
    f, x = IN_REGISTERS[name]
    assert calls(f, x) == ["registers"]
    same(f, x)


@pytest.mark.parametrize("name", ["prefix sums", "rows", "solves"])
def test_derivatives(name: str) -> None:
    f, x = IN_REGISTERS[name]
    value = lambda x: sum([np.sum(np.sin(y)) for y in fg.tree.leaves(f(x))])  # noqa: E731
    found, (_, moved) = fg.jit(fg.grad(value))(x), fg.jvp(fg.jit(value), (x,), (np.ones(N),))
    numeric = [(value(x + 1e-6 * e) - value(x - 1e-6 * e)) / 2e-6 for e in np.eye(N)]
    np.testing.assert_allclose(found, numeric, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(moved, found.sum(), rtol=1e-8)


def old_version(x: Any) -> Any:
    """What is read of the old array after the new one exists."""

    def body(i: Any, a: Any) -> Any:
        b = _put(a, 2.0 * _at(a, i), i)
        return _put(b, _at(a, i) + _at(b, i), (i * 7) % N)

    return lax.fori_loop(0, N, body, x)


def constant_too(x: Any) -> Any:
    """The array that is carried is also a constant of an inner loop."""

    def body(i: Any, a: Any) -> Any:
        return lax.fori_loop(0, 3, lambda j, b: _put(b, _at(a, j) + 1.0, j + 1), a)

    return lax.fori_loop(0, 4, body, x)


def twice(x: Any) -> Any:
    """Two carried values begin as one array, and are exchanged."""
    return lax.fori_loop(0, 9, lambda i, c: (_put(c[1], c[1].min(), i), _put(c[0], _at(c[1], i + 1), i)), (x, x))


def doubled(x: Any) -> Any:
    """An inner loop carries the same array twice."""

    def body(i: Any, a: Any) -> Any:
        p, q = lax.fori_loop(0, 3, lambda j, c: (_put(c[0], 5.0, j), _put(c[1], _at(c[0], j), j + 1)), (a, a))
        return _put(p, _at(q, i), i)

    return lax.fori_loop(0, 5, body, x)


def chosen(x: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        return lax.cond(_at(a, i) > 0, lambda a: _put(a, -1.0, i + 1), lambda a: _put(a, 1.0, i + 2), a)

    return lax.fori_loop(0, N, body, x)


def returned_unchanged(x: Any) -> Any:
    """The array as it was at the last step is kept beside the new one."""
    return lax.fori_loop(0, 6, lambda i, c: (_put(c[0], 1.0 + i, i), c[0]), (x, 2 * x))


@pytest.mark.parametrize("f", [old_version, constant_too, twice, doubled, chosen, returned_unchanged])
def test_arrays_with_two_states_are_values_still(f: Callable[..., Any]) -> None:
    """These cannot be updated in place alone; whatever is done, the result is that of values."""
    same(f, X)


def test_singular_systems_are_not_finite() -> None:
    f = fg.jit(
        lambda x: lax.scan(lambda c, t: (c, np.linalg.solve(t * np.ones((2, 2)), np.array([1.0, 2.0]))), 0.0, x)[1]
    )
    assert not np.isfinite(f(np.ones(3))).any()


@pytest.mark.parametrize("n", [2, 3])
def test_a_zero_pivot_leaves_zeros_below_it(n: int) -> None:
    def f(a: Any) -> Any:
        def body(c: Any, t: Any) -> Any:
            sign, size = np.linalg.slogdet(a * t)
            return c + sign, (size, fg.scipy.linalg.lu_factor(a * t)[0])

        return lax.scan(body, 0.0, np.arange(1.0, N))

    first_column_zero = np.arange(float(n * n)).reshape(n, n) ** 2
    first_column_zero[:, 0] = 0.0
    for a in (np.zeros((n, n)), first_column_zero):
        assert calls(f, a) == ["registers"]
        same(f, a)
