"""Compiled loops and branches against the interpreter: in registers, as inner programs, nested, at their edges."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax
from funcgrad.compiler import lower_jaxpr
from funcgrad.control import interpret
from funcgrad.kernels.graph import Call
from tests.runtime.native import run_script

RNG = np.random.default_rng(7)
W = RNG.normal(size=(24, 24)) / 5
ROWS = RNG.normal(size=(6, 24))
BIG = RNG.normal(size=(300, 500))


def small_scan(x: Any) -> Any:
    return lax.scan(lambda c, t: (np.tanh(c) + t, c * t), np.float64(0.5), x)


def small_scan_of_pairs(x: Any) -> Any:
    def body(c: Any, t: Any) -> Any:
        (a, b), n = c
        return ((b, a + t), n + 1), {"sum": a + b, "count": n}

    return lax.scan(body, ((np.float32(1), np.float32(2)), 3), x.astype(np.float32))


def fibonacci(x: Any) -> Any:
    return lax.fori_loop(0, 30, lambda i, ab: (ab[1], ab[0] + ab[1]), (0, 1))[0] * x[0]


def collatz(x: Any) -> Any:
    n = (np.abs(x[0]) * 100).astype(np.int64) + 7

    def body(c: Any) -> Any:
        n, steps = c
        return np.where(n % 2 == 0, n // 2, 3 * n + 1), steps + 1

    return lax.while_loop(lambda c: c[0] != 1, body, (n, 0))


def rotating_vector(x: Any) -> Any:
    def body(i: Any, v: Any) -> Any:
        v = np.concatenate([v[1:], v[:1]]) * 0.9 + fg.lax.dynamic_index_in_dim(x, i % 6, keepdims=False)[:3]
        return fg.at(v)[i % 3].add(np.cumsum(v)[2])

    return lax.fori_loop(0, 17, body, np.arange(3.0))


def matrices(x: Any) -> Any:
    def body(m: Any, t: Any) -> Any:
        m = m @ np.stack([np.stack([0.5 + 0 * t[0], t[0]]), np.stack([-t[1], t[0] * t[1]])]) + np.eye(2)
        return m, (np.max(m), np.argmin(m, axis=0), m[0, 0] + m[1, 1])

    return lax.scan(body, np.zeros((2, 2)), x[:, :2])


def halves(x: Any) -> Any:
    return lax.scan(lambda c, t: ((c * np.float16(1.1) + t), c > t), np.float16(0), x.astype(np.float16))


def flags(x: Any) -> Any:
    return lax.scan(lambda c, t: (c ^ (t > 0), (c | (t < 0.5), np.any(np.stack([c, c])))), np.True_, x)


def unsigned(x: Any) -> Any:
    x = (np.abs(x) * 1e4).astype(np.uint32)
    return lax.scan(lambda c, t: (c * np.uint32(1664525) + t, c >> np.uint32(3)), np.uint32(1), x)


def branches_in_registers(x: Any) -> Any:
    def body(c: Any, t: Any) -> Any:
        c = lax.cond(t > 0, lambda c: (c[1], c[0]), lambda c: (c[0] + 1, c[1] * 0.5), c)
        return c, lax.switch((t * 3).astype(int), [np.sin, np.cos, lambda x: x * x], t)

    return lax.scan(body, (1.0, 2.0), x)


def newton_in_a_loop(x: Any) -> Any:
    def root(a: Any) -> Any:
        return lax.while_loop(lambda y: np.abs(y * y - a) > 1e-9, lambda y: 0.5 * (y + a / y), a + 1.0)

    return lax.scan(lambda c, t: (c + root(np.abs(t)), root(c + 1.0)), 0.0, x)


def network(x: Any) -> Any:
    return lax.scan(lambda h, t: (np.tanh(W @ h + t), h.sum()), np.zeros(24), x)


def network_backwards(x: Any) -> Any:
    return lax.scan(lambda h, t: (np.tanh(W @ h + t), h[::2]), np.zeros(24), x, reverse=True)


def strided_slices(x: Any) -> Any:
    return lax.scan(lambda h, t: (np.sin(h + t), h), np.zeros(12), x[::-2, ::2])


def columns(x: Any) -> Any:
    return lax.scan(lambda h, t: (h + t, h * t), np.zeros(6), x.T)


def swap(x: Any) -> Any:
    return lax.fori_loop(0, 7, lambda i, ab: (ab[1], ab[0] + 1), (x[0], x[1]))


def in_place(x: Any) -> Any:
    return lax.fori_loop(0, 6, lambda i, u: fg.at(u)[i, 1:-1].add(u[(i + 3) % 6, 1:-1] * 2), x)


def all_in_place(x: Any) -> Any:
    return lax.fori_loop(0, 40, lambda i, u: fg.at(u)[i % 6, i % 24].set(np.float64(7) + u[0, 0]), x)


def passed_through(x: Any) -> Any:
    return lax.fori_loop(0, 5, lambda i, c: (c[0], c[1] + c[0]), (x[0], x[1]))


def no_iterations(x: Any) -> Any:
    return lax.fori_loop(0, 0, lambda i, u: u * 2, x), lax.scan(lambda c, t: (c * 2, t), x[0], x[:0])


def nested_loops(x: Any) -> Any:
    def outer(c: Any, t: Any) -> Any:
        inner = lax.fori_loop(0, 4, lambda i, u: np.tanh(W @ u) + t, c)
        return inner, lax.scan(lambda a, b: (a + b, a * b), np.zeros(()), inner)

    return lax.scan(outer, np.zeros(24), x)


def while_over_arrays(x: Any) -> Any:
    return lax.while_loop(lambda u: np.sum(u * u) < 1e6, lambda u: W @ u * 3 + 1, x[0])


def while_with_constants(x: Any) -> Any:
    limit = x[1].sum() ** 2 + 5
    return lax.while_loop(lambda c: c[0] < limit, lambda c: (c[0] + 1, W @ c[1] + x[2]), (0.0, x[0]))


def branches(x: Any) -> Any:
    def one(i: Any) -> Any:
        return lax.switch(i, [lambda u: (W @ u, u.sum()), lambda u: (u, u[0]), lambda u: (np.sort(u), -u[1])], x[2])

    return [one(i) for i in (np.int64(-5), (x[0, 0] * 0).astype(np.int32), x[0].argmin() * 0 + 1, np.int64(9))]


def large_arrays(x: Any) -> Any:
    big = np.asarray(BIG) + x[0, 0]
    return lax.scan(lambda u, t: (np.tanh(u) * t[0] + u[::-1], np.sum(u)), big, x)


def host_steps(x: Any) -> Any:
    return lax.scan(lambda c, t: (np.nextafter(c + t, 9.0), np.argmax(c)), x[0], x)


IN_REGISTERS: dict[str, tuple[Callable[..., Any], Any]] = {
    "scan": (small_scan, ROWS[0]),
    "scan of pairs": (small_scan_of_pairs, ROWS[0]),
    "fibonacci": (fibonacci, ROWS[0]),
    "collatz": (collatz, ROWS[0]),
    "matrices": (matrices, ROWS),
    "halves": (halves, ROWS[0]),
    "flags": (flags, ROWS[0]),
    "unsigned": (unsigned, ROWS[0]),
    "branches": (branches_in_registers, ROWS[1]),
    "newton": (newton_in_a_loop, ROWS[2]),
}
INNER_PROGRAMS: dict[str, tuple[Callable[..., Any], Any]] = {
    "rotating vector": (rotating_vector, ROWS),
    "network": (network, ROWS),
    "network backwards": (network_backwards, ROWS),
    "strided slices": (strided_slices, ROWS),
    "columns": (columns, ROWS),
    "swap": (swap, ROWS),
    "in place": (in_place, ROWS),
    "all in place": (all_in_place, ROWS),
    "passed through": (passed_through, ROWS),
    "no iterations": (no_iterations, ROWS),
    "nested loops": (nested_loops, ROWS),
    "while over arrays": (while_over_arrays, ROWS),
    "while with constants": (while_with_constants, ROWS),
    "branches": (branches, ROWS),
    "large arrays": (large_arrays, ROWS),
    "host steps": (host_steps, ROWS),
}


def calls(f: Callable[..., Any], x: Any) -> list[str]:
    return [s.kind for s in lower_jaxpr(fg.jit(f).trace(x).jaxpr).steps if isinstance(s, Call)]


def same(f: Callable[..., Any], x: Any) -> None:
    kept = x.copy()
    jitted = fg.jit(f)
    for _ in range(3):  # buffers are used again
        found, expected = jitted(x), f(x)
        assert fg.tree.structure(found) == fg.tree.structure(expected)
        for a, b in zip(fg.tree.leaves(found), fg.tree.leaves(expected), strict=True):
            assert np.asarray(a).dtype == np.asarray(b).dtype
            rtol = 2e-3 if np.asarray(a).dtype == np.float16 else 1e-5 if np.asarray(a).dtype == np.float32 else 1e-11
            np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("name", IN_REGISTERS)
def test_in_registers(name: str) -> None:
    f, x = IN_REGISTERS[name]
    assert calls(f, x) == ["registers"]
    same(f, x)


@pytest.mark.parametrize("name", INNER_PROGRAMS)
def test_inner_programs(name: str) -> None:
    same(*INNER_PROGRAMS[name])


@pytest.mark.parametrize("name", ["network", "nested loops", "swap", "large arrays"])
def test_gradients_run_natively(name: str) -> None:
    f, x = INNER_PROGRAMS[name]
    gradient = fg.grad(lambda x: sum([np.sum(np.sin(y)) for y in fg.tree.leaves(f(x))]))
    np.testing.assert_allclose(fg.jit(gradient)(x), gradient(x), rtol=1e-9, atol=1e-12)
    assert "host" not in calls(gradient, x)


def test_a_loop_longer_than_a_slice() -> None:
    n = 300_001
    found = fg.jit(lambda x: lax.fori_loop(0, n, lambda i, c: (c[0] + i, c[1] + x), (0, 0.0)))(0.5)
    assert found == (n * (n - 1) // 2, n * 0.5)
    found = fg.jit(lambda x: lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] + x), (0, 0.0)))(0.5)
    assert found == (n, n * 0.5)
    xs = np.arange(float(n))
    last, running = fg.jit(lambda xs: lax.scan(lambda c, x: (c + x, c), 0.0, xs))(xs)
    np.testing.assert_array_equal(running, np.cumsum(xs) - xs)
    assert last == xs.sum()


def test_long_loops_are_compiled_without_jit_too() -> None:
    """A million steps would take seconds to interpret."""
    n = 1_000_000
    start = time.perf_counter()
    assert lax.fori_loop(0, n, lambda i, c: (c[0] + i, c[1] * 0.5 + 1.0), (0, 0.0)) == (n * (n - 1) // 2, 2.0)
    last, count = lax.while_loop(lambda c: c[1] < n, lambda c: (c[0] * 0.5 + 1.0, c[1] + 1), (0.0, 0))
    assert (last, count) == (2.0, n)
    slope = fg.grad(lambda a: lax.fori_loop(0, 20_000, lambda i, c: c * a + 1.0, 0.0))(0.5)
    assert abs(slope - 4.0) < 1e-12
    assert time.perf_counter() - start < 20


def test_long_bodies_are_handed_over_after_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(interpret, "PATIENCE", 1)
    monkeypatch.setattr(interpret, "_executor", lambda primitive, args, params: given.append(args))
    assert lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 0.5 + 1.0), (0, 0.0)) == (3, 1.75)
    assert [list(map(float, args)) for args in given] == [[1.0, 1.0]]


def test_a_large_array_is_updated_in_place() -> None:
    """One element of 80 MB changes in each iteration: copies would take minutes."""
    n = 20_000
    f = fg.jit(lambda u: lax.fori_loop(0, n, lambda i, u: fg.at(u)[i].set(u[i - 1] + 1.0), u))
    u = np.zeros(10_000_000)
    start = time.perf_counter()
    found = f(u)
    assert time.perf_counter() - start < 20
    np.testing.assert_array_equal(found[:n], np.arange(1.0, n + 1))
    assert not u.any() and not found[n:].any()


def test_an_exception_inside_a_loop_reaches_the_caller() -> None:
    from funcgrad.ops.elementwise import nextafter_p

    f = fg.jit(lambda x: lax.scan(lambda c, t: (np.nextafter(c + t, 0.0), c), x[0], x)[0])
    expected = f(ROWS)

    def fails(*args: Any, **params: Any) -> Any:
        raise ArithmeticError("no neighbours today")

    impl = nextafter_p.impl
    object.__setattr__(nextafter_p, "impl", fails)
    try:
        with pytest.raises(ArithmeticError, match="no neighbours today"):
            f(ROWS)
    finally:
        object.__setattr__(nextafter_p, "impl", impl)
    np.testing.assert_array_equal(f(ROWS), expected)


ENDLESS = {
    "registers": "lax.while_loop(lambda c: c < 1e9, lambda c: np.cos(c), 0.5 * x)",
    "inner programs": "lax.while_loop(lambda c: c[0] < 1e9, lambda c: np.tanh(c[::-1] * x), np.ones(24))",
}


@pytest.mark.skipif(os.name != "posix", reason="signals are sent to the process by POSIX means")
@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_loop_can_be_interrupted(name: str) -> None:
    """In a process of its own, which is killed after two minutes if it cannot."""
    text = f"""
import os, signal, threading
import numpy as np
import funcgrad as fg
from funcgrad import lax
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    fg.jit(lambda x: {ENDLESS[name]})(0.5)
except KeyboardInterrupt:
    print("interrupted", fg.jit(lambda x: x + 1.0)(1.0))
"""
    assert run_script(text) == "interrupted 2.0"


def test_many_threads_run_the_same_loop() -> None:
    f = fg.jit(network)
    expected = f(ROWS)[0]
    found: list[Any] = []
    workers = [threading.Thread(target=lambda: found.extend(f(ROWS)[0] for _ in range(50))) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 300
    for x in found:
        np.testing.assert_array_equal(x, expected)


def test_texts() -> None:
    lowered = fg.jit(network).trace(ROWS).lower()
    assert "# scan 6 times\n" in lowered.as_text() and "# body\n" in lowered.as_text()
    compiled = fg.jit(while_over_arrays).trace(ROWS).lower().compile()
    assert "# condition\n" in compiled.as_text() and compiled.cost_analysis()["kernels"] >= 2
    np.testing.assert_allclose(fg.jit(network).trace(ROWS).lower().compile(compiler="numba")(ROWS)[0], network(ROWS)[0])
