# ruff: noqa: E731
"""``checkpoint=`` of loops: the same numbers under every transformation, and memory that stays bounded."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax
from funcgrad.control.segments import scan_plan
from funcgrad.ops.transcendental import sin_p

A = np.array([[0.3, -0.5], [0.2, 0.4]])
X = np.array([0.3, -0.5])


def scanned(n: int, reverse: bool = False, **how: Any) -> Any:
    def fun(a: Any, x: Any) -> Any:
        xs = {"t": np.linspace(0.1, 1.0, n), "u": np.outer(np.cos(np.arange(n)), x)}

        def body(c: Any, s: Any) -> Any:
            k, y = c
            y = np.sin(y @ a + s["t"]) + s["u"]
            return (k + 1, y), (np.sum(y), k)

        (k, y), (sums, ks) = lax.scan(body, (0, x), xs, reverse=reverse, **how)
        return y * np.sum(np.tanh(sums) * (1 + ks)) + k

    return fun


def counted(n: int, **how: Any) -> Any:
    return lambda a, x: lax.fori_loop(0, n, lambda i, y: np.sin(y @ a) + 0.1 * i, x, **how)


def traced(n: int, **how: Any) -> Any:
    def fun(a: Any, x: Any) -> Any:
        steps = n + (np.sum(x) > 1e9).astype(int)
        return lax.fori_loop(0, steps, lambda i, y: np.sin(y @ a) + 0.1 * i, x, **how)

    return fun


def conditioned(n: int, **how: Any) -> Any:
    return lambda a, x: lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, np.sin(c[1] @ a) + x), (0, x), **how)[1]


def nested(n: int, **how: Any) -> Any:
    def fun(a: Any, x: Any) -> Any:
        inner = lambda y: lax.scan(lambda c, _: (np.sin(c @ a), None), y, length=n, **how)[0]
        return lax.scan(lambda c, t: (inner(c) * t, c), x, np.linspace(0.5, 1, n), **how)[0]

    return fun


LOOPS = {
    "scan": scanned,
    "scan backwards": lambda n, **how: scanned(n, True, **how),
    "fori": counted,
    "fori of unknown length": traced,
    "while": conditioned,
    "nested": nested,
}
total = lambda f: lambda a, x: np.sum(f(a, x) ** 2)
USES = {
    "value": lambda f: f(A, X),
    "gradient": lambda f: fg.grad(total(f), (0, 1))(A, X),
    "compiled": lambda f: fg.jit(fg.value_and_grad(total(f), (0, 1)))(A, X),
    "batched": lambda f: fg.jit(fg.vmap(fg.grad(total(f), 1), (None, 0)))(A, np.stack([X, 2 * X, X + 1])),
    "gradient of a batch": lambda f: fg.grad(lambda a: np.sum(fg.vmap(f, (None, 0))(a, np.stack([X, 2 * X]))))(A),
    "forward": lambda f: fg.jvp(f, (A, X), (np.cos(A), X)),
    "hessian": lambda f: fg.jit(fg.hessian(lambda x: total(f)(A, x)))(X),
    "reverse over reverse": lambda f: fg.jacrev(fg.grad(lambda x: total(f)(A, x)))(X),
    "linearize": lambda f: fg.linearize(f, A, X)[1](A, X),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("loop", LOOPS)
def test_changes_no_number(loop: str, use: str) -> None:
    second = use in ("hessian", "reverse over reverse")
    for n, checkpoints in ((13, (True,)),) if second else ((0, (True, 6)), (1, (6,)), (30, (True, 12)), (67, (20,))):
        if loop == "nested" and n > 30:
            continue
        expected = fg.tree.leaves(USES[use](LOOPS[loop](n)))
        for checkpoint in checkpoints:
            found = fg.tree.leaves(USES[use](LOOPS[loop](n, checkpoint=checkpoint)))
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=f"{n} steps, checkpoint={checkpoint}")


def temporaries(n: int, checkpoint: Any) -> int:
    """The arrays of a compiled gradient, in carries of 1000 numbers."""
    f = lambda x: np.sum(lax.scan(lambda c, _: (np.sin(c * x), None), x, length=n, checkpoint=checkpoint)[0])
    x = np.linspace(0.5, 1.5, 1000)
    return round(fg.jit(fg.grad(f)).lower(x).executable.memory_analysis()["temporary_bytes"] / x.nbytes)


def test_compiled_memory_stays_bounded() -> None:
    """Up to three values a step without; 8 steps a level with True, and as many as are allowed with a number."""
    assert temporaries(1000, None) >= 1000
    grown = [temporaries(n, True) for n in (10, 100, 1000, 10_000)]
    assert grown[-1] <= 120 and all([b - a <= 40 for a, b in itertools.pairwise(grown)])
    assert temporaries(1000, 65) <= 3 * 65
    assert temporaries(10_000, 65) <= 3 * 65
    assert temporaries(10_000, 300) <= 3 * 300


def test_while_keeps_fewer_states() -> None:
    """However many steps there are. (Loops within loops have second buffers for the slots that they carry.)"""
    x = np.linspace(0.5, 1.5, 1000)

    def arrays(checkpoint: Any, n: int = 1000) -> float:
        step = lambda c: (c[0] + 1, np.sin(c[1] * x))
        f = lambda x: np.sum(lax.while_loop(lambda c: c[0] < n, step, (0, x), checkpoint=checkpoint)[1])
        return fg.jit(fg.grad(f)).lower(x).executable.memory_analysis()["temporary_bytes"] / x.nbytes

    few, default = arrays(True), arrays(None)
    assert default <= 9 * 65 and few <= default / 2 and arrays(30) <= default / 4
    assert arrays(True) == arrays(True, 10**6)


@pytest.mark.parametrize(("n", "checkpoint", "most"), [(64, True, 4), (200, True, 5), (200, 30, 4), (200, 200, 2)])
def test_steps_are_computed_a_few_times(n: int, checkpoint: Any, most: int) -> None:
    """Once for each level of the plan, and once more to begin with."""
    fg.clear_caches()  # or the body of an earlier loop is known, and how to run it
    count = 0
    impl = sin_p.impl

    def noted(x: Any) -> Any:
        nonlocal count
        count += 1
        return impl(x)

    object.__setattr__(sin_p, "impl", noted)  # a frozen record
    try:
        fg.grad(lambda x: lax.fori_loop(0, n, lambda i, y: np.sin(y) * 1.1, x, checkpoint=checkpoint))(0.7)
    finally:
        object.__setattr__(sin_p, "impl", impl)
    assert n <= count <= most * n


def test_plans_reach_all_steps_and_keep_no_more_than_they_may() -> None:
    for n in [*range(2, 200), 1000, 4097, 10**6, 10**9 + 7]:
        for checkpoint in (True, 40, 100):
            try:
                plan = scan_plan(checkpoint, n, "scan")
            except ValueError:
                assert checkpoint == 40 and n > 10**5
                continue
            kept, length = 0, n
            for b in plan[:-1]:
                kept += b + length % b
                length //= b
            kept += length
            assert length >= 1 and kept <= (checkpoint if checkpoint is not True else 12 * np.log2(n) + 8)


ERRORS = {
    "False": (lambda: lax.scan(lambda c, x: (c, x), 0.0, X, checkpoint=False), TypeError, ["found False", "Leave it"]),
    "text": (lambda: lax.fori_loop(0, 3, lambda i, x: x, X, checkpoint="all"), TypeError, ["fori_loop: checkpoint"]),
    "zero": (lambda: lax.scan(lambda c, x: (c, x), 0.0, X, checkpoint=0), ValueError, ["positive integer", "found 0"]),
    "float": (lambda: lax.while_loop(lambda c: c < 3, lambda c: c + 1, 0, checkpoint=2.0), TypeError, ["found 2.0"]),
    "few": (lambda: counted(1000, checkpoint=10)(A, X), ValueError, ["too few for 1000 steps", "at least 21"]),
    "few of unknown": (lambda: conditioned(9, checkpoint=5)(A, X), ValueError, ["while_loop", "at least 6"]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_message(name: str) -> None:
    call, kind, words = ERRORS[name]
    with pytest.raises(kind) as found:
        call()
    for w in words:
        assert w in str(found.value)
