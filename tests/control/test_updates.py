"""Random programs that write into arrays inside loops and branches: compiled, they mean what NumPy means.

A program transforms a state of five arrays (two of them alike, so that memory can be confused) by updates at fixed and
computed places, views, folds, sorts and products, in nests of loops and branches. What it means is said by the same
updates on real arrays under Python's ``for`` and ``if``. Compiled programs plan memory, write over what is dead, keep
carried values in place or alternate between two buffers: every mistake in that is a wrong number here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import funcgrad as fg
from funcgrad import lax

State = dict[str, Any]


def _index(s: State, n: int) -> Any:
    """A number in 0 ... n - 1 that depends on data."""
    return (s["k"][0] + s["k"][2]) % n


def _tame(x: Any) -> Any:
    return np.tanh(x) * 2.0


ATOMS: dict[str, Callable[[State], State]] = {
    "set row": lambda s: {"a": fg.at(s["a"])[_index(s, 4)].set(s["a"][0] * 0.5 + 1)},
    "add at": lambda s: {"a": fg.at(s["a"])[s["k"] % 4, 1].add(0.25)},
    "set slice": lambda s: {"b": fg.at(s["b"])[1:, ::2].set(s["a"][:-1, ::2])},
    "exchange": lambda s: {"a": s["b"], "b": s["a"]},
    "transposed": lambda s: {"a": s["b"][:, :4].T @ s["b"] * 0.1},
    "flip": lambda s: {"b": s["a"][::-1] - s["b"]},
    "same twice": lambda s: {"a": s["a"] + 1, "b": s["a"]},
    "roll": lambda s: {"v": np.concatenate([s["v"][2:], s["v"][:2]])},
    "sort": lambda s: {"v": np.sort(_tame(s["v"]))[::-1]},
    "order": lambda s: {"k": np.argsort(s["v"], kind="stable")},
    "cumsum": lambda s: {"v": _tame(np.cumsum(s["v"]))},
    "gather": lambda s: {"v": s["v"][s["k"] % 5]},
    "scatter": lambda s: {"v": fg.at(s["v"])[(s["k"] + 1) % 5].set(s["b"][0])},
    "count": lambda s: {"k": s["k"][::-1] * 3 % 7 + 1},
    "update k": lambda s: {"k": fg.at(s["k"])[_index(s, 5)].add(2)},
    "fold": lambda s: {"v": np.sum(s["a"], axis=0) * 0.1, "f": s["f"] * np.float32(0.5)},
    "single": lambda s: {"f": fg.at(s["f"])[:2].multiply(s["f"][1:] * 0.5) + np.sin(s["v"][:3]).astype(np.float32)},
    "where": lambda s: {"a": np.where(s["a"] > s["b"], s["b"], _tame(s["a"]))},
    "outer": lambda s: {"b": _tame(s["v"][:4, None] * s["v"][None, :] + s["a"])},
    "still": lambda s: {},
}


def _nests(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.tuples(st.just("seq"), inner, inner),
        st.tuples(st.just("cond"), inner, inner),
        st.tuples(st.just("fori"), st.integers(0, 4), inner),
        st.tuples(st.just("scan"), st.booleans(), inner),
        st.tuples(st.just("while"), st.integers(0, 4), inner),
    )


programs = st.recursive(st.sampled_from(sorted(ATOMS)).map(lambda name: ("atom", name)), _nests, max_leaves=8)


def _bounded(s: State) -> State:
    return s | {"a": _tame(s["a"]), "b": _tame(s["b"]), "v": _tame(s["v"]), "f": np.tanh(s["f"])}


def run(program: Any, s: State, compiled: bool) -> State:
    """The program with ``lax``, or with Python's loops and branches."""
    kind, *parts = program
    if kind == "atom":
        return s | ATOMS[parts[0]](s)
    if kind == "seq":
        return run(parts[1], run(parts[0], s, compiled), compiled)
    if kind == "cond":
        going = s["k"][1] % 2 == 0
        if compiled:
            return lax.cond(going, *[lambda s, p=p: run(p, s, True) for p in parts], s)
        return run(parts[0] if going else parts[1], s, False)
    n, body = (3, parts[1]) if kind == "scan" else parts

    def step(s: State, i: Any) -> State:
        s = _bounded(run(body, s, compiled))
        return s | {"v": fg.at(s["v"])[i % 5].add(1.0)}

    if not compiled:
        order = range(n) if kind != "scan" or not parts[0] else reversed(range(n))
        seen = []
        for i in order:
            seen.append(s["a"][1] * i)
            s = step(s, i)
        if kind == "scan":
            seen = seen[::-1] if parts[0] else seen
            s = s | {"b": fg.at(s["b"])[:3].set(np.stack(seen))}
        return s
    if kind == "fori":
        return lax.fori_loop(0, n, lambda i, s: step(s, i), s)
    if kind == "while":
        return lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, step(c[1], c[0])), (0, s))[1]
    s, seen = lax.scan(lambda s, i: (step(s, i), s["a"][1] * i), s, np.arange(n), reverse=parts[0])
    return s | {"b": fg.at(s["b"])[:3].set(seen)}


def start() -> State:
    a = np.linspace(-1.0, 1.3, 20).reshape(4, 5)
    return {
        "a": a,
        "b": np.cos(3 * a),
        "v": np.array([0.3, -0.7, 0.1, 0.9, -0.2]),
        "k": np.array([2, 5, 1, 0, 3]),
        "f": np.array([0.5, -1.5, 0.25], np.float32),
    }


def check(found: State, wanted: State) -> None:
    for name, x in wanted.items():
        tolerance = 1e-5 if name == "f" else 1e-11
        np.testing.assert_allclose(found[name], x, rtol=tolerance, atol=tolerance, err_msg=name)
        assert found[name].dtype == x.dtype, name


@given(programs)
def test_compiled_programs_mean_what_python_means(program: Any) -> None:
    f = lambda s: run(program, s, True)  # noqa: E731
    given_state = start()
    wanted = run(program, start(), False)
    check(fg.jit(f)(given_state), wanted)
    check(given_state, start())  # the arguments are as they were
    check(f(given_state), wanted)
    check(fg.jit(f, donate_argnums=0)(given_state), wanted)


@settings(max_examples=15)
@given(programs)
def test_batches_and_derivatives_of_them(program: Any) -> None:
    def total(a: Any) -> Any:
        s = run(program, start() | {"a": a}, True)
        return np.sum(np.sin(s["a"])) + np.sum(s["b"] * 0.3) + np.sum(s["v"] ** 2)

    def python(a: Any) -> Any:
        s = run(program, start() | {"a": a}, False)
        return np.sum(np.sin(s["a"])) + np.sum(s["b"] * 0.3) + np.sum(s["v"] ** 2)

    a = start()["a"]
    batch = np.stack([a, a[::-1] * 0.9, a + 0.05])
    np.testing.assert_allclose(fg.jit(fg.vmap(total))(batch), [python(x) for x in batch], rtol=1e-10)
    gradient = fg.jit(fg.grad(total))(a)
    np.testing.assert_allclose(gradient, fg.grad(total)(a), rtol=1e-9, atol=1e-11)
    direction = np.cos(np.arange(20.0)).reshape(4, 5)
    slope = fg.jvp(total, (a,), (direction,))[1]
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-8, abs=1e-10)
