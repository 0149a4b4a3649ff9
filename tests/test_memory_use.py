"""Memory: what ``memory_analysis`` says is what the process takes, plans need no more than they must, nothing leaks."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.runtime import memory

SCRIPT = Path(__file__).with_name("memory_programs.py")
sys.path.insert(0, str(SCRIPT.parent))
import memory_programs  # noqa: E402

sys.path.pop(0)

linux_only = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks are read from Linux's /proc/self"
)


def in_process(*arguments: object, **extra: str) -> list[str]:
    env = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent), "OPENBLAS_NUM_THREADS": "1"} | extra
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@linux_only
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in ("mlp step", "host step") else pytest.mark.long) for n in memory_programs.NAMES],
)
def test_analysis_agrees_with_the_peak_of_the_process(name: str) -> None:
    growth, said = map(int, in_process(SCRIPT, name, 3000))
    slack = 2 << 20  # of pages that belong to nobody in particular; the arrays are 72 MB
    assert 0.9 * said - slack < growth < 1.1 * said + slack


def test_scratch_memory_of_kernels_is_counted() -> None:
    fun, args = memory_programs.build("scratch", 1000)
    analysis = fg.jit(fun).lower(*args).executable.memory_analysis()
    assert analysis["scratch_bytes"] >= 8 * 1000
    assert analysis["peak_bytes"] == sum(
        [analysis[k] for k in ("input_bytes", "output_bytes", "constant_bytes", "temporary_bytes", "scratch_bytes")]
    )


def test_captured_arrays_are_counted() -> None:
    table = np.arange(1000.0)
    analysis = fg.jit(lambda x: x * table).lower(np.ones(1000)).executable.memory_analysis()
    assert analysis["constant_bytes"] == 8000 and analysis["temporary_bytes"] == 0


# -- memory is used again


def test_arena_and_results_are_recycled() -> None:
    """After the first calls, a call takes all of its memory from what earlier calls gave back."""
    f = fg.jit(lambda x: np.sort((x @ x) @ x, axis=-1) @ x)
    x = np.random.default_rng(0).random((600, 600))
    assert f.lower(x).executable.memory_analysis()["temporary_bytes"] > memory.MIN_BYTES
    for _ in range(3):
        out = f(x)
    gc.collect()
    pool = memory._pool
    reused, tracked = pool.reused, pool.tracked_bytes
    for _ in range(5):
        out = f(x)
    assert pool.reused == reused + 5 * 2  # the arena and the result
    assert pool.tracked_bytes <= tracked + 2 * out.nbytes


def test_small_arenas_stay_with_their_program() -> None:
    f = fg.jit(lambda x: (x @ x) @ (x @ x))
    x = np.ones((50, 50))
    f(x)
    program = f.lower(x).executable.program
    for _ in range(3):
        program([x], [np.empty((50, 50))])
    assert len(program._free) == 1


# -- plans

X = np.ones((300, 300))
PLANS = {
    # name: function, arguments, temporaries in units of X
    "product and its update": (lambda w, x: w - 0.1 * (x.T @ x), (X, X), 0),
    "transposed product and its update": (lambda w, x: w - 0.1 * (x.T @ x).T, (X, X), 0),
    "chain of products, odd": (lambda x: ((x @ x) @ x) @ x, (X,), 1),
    "chain of products, even": (lambda x: (((x @ x) @ x) @ x) @ x, (X,), 1),
    "two folds along different axes": (lambda x: np.cumsum(np.cumsum(x, axis=0), axis=1), (X,), 0),
    "update of a dead value": (lambda x, i: fg.at(np.sort(x))[i].add(1.0), (X, np.arange(5)), 0),
    "five updates": (lambda x, i: fg.at(fg.at(fg.at(x)[i].add(1.0))[i].mul(2.0))[i].add(3.0), (X, np.arange(5)), 0),
    "a result and what it is made of": (lambda x: (y := x @ x, np.tanh(y)), (X,), 0),
    "steps of a stencil": (
        lambda x: [x := fg.at(x)[1:-1].add(0.1 * (x[2:] - 2 * x[1:-1] + x[:-2])) for _ in range(6)][-1],
        (X,),
        1,
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans_need_no_more_than_they_must(name: str) -> None:
    fun, args, units = PLANS[name]
    f = fg.jit(fun)
    needed = f.lower(*args).executable.memory_analysis()["temporary_bytes"]
    assert needed <= units * X.nbytes * 1.01 + 64 * 16
    expected, found = fun(*args), f(*args)
    for a, b in zip(np.atleast_3d(expected), np.atleast_3d(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_plans_of_gradients_against_jax(monkeypatch: pytest.MonkeyPatch, jax: Any) -> None:
    """Never more temporary memory than XLA's plan for the same function, but for small change."""
    jnp = jax.numpy
    n = 256
    rng = np.random.default_rng(0)
    x, w = rng.random((n, n)), rng.random((n, n))

    def deep(np):
        def loss(w, x):
            for _ in range(6):
                x = np.tanh(x @ w)
            return np.sum(x**2)

        return loss

    def layer_norm(np):
        def loss(x, w):
            d = x - np.mean(x, axis=-1, keepdims=True)
            return np.sum((d / np.sqrt(np.mean(d * d, axis=-1, keepdims=True) + 1e-5) * w) ** 2)

        return loss

    def pairwise(np):
        return lambda p, _: np.sum(1 / np.sqrt(np.sum((p[:, None, :3] - p[None, :, :3]) ** 2, axis=-1) + 0.1))

    def chain(np):
        return lambda x, w: np.sum(np.sin(x) * w + np.exp(-x))

    step = memory_programs.mlp_step
    p = (w, x[0], w, x[0])
    rows = [
        (f"gradient of {m.__name__}", fg.grad(m(np)), jax.grad(m(jnp)), (x, w))
        for m in (deep, layer_norm, pairwise, chain)
    ]
    rows += [("step", step(np, fg.grad), step(jnp, jax.grad), (p, x, w))]
    for name, ours, theirs, args in rows:
        found = fg.jit(ours).lower(*args).executable.memory_analysis()["temporary_bytes"]
        oracle = jax.jit(theirs).lower(*args).compile().memory_analysis().temp_size_in_bytes
        assert found <= 1.02 * oracle + 4096, (name, found, oracle)


# -- leaks

CALLS = """
import sys, gc
import numpy as np
import funcgrad as fg
def pages():
    return int(open('/proc/self/statm').read().split()[1]) * 4096
calls, functions, distinct = map(int, sys.argv[1:4])
f = fg.jit(lambda p, y: {'a': np.sin(p['a']) + y, 'b': np.sum(p['a'] * y), 'c': np.sort(y)})
g = fg.jit(lambda u, i: fg.at(u)[i].add(1.0), donate_argnums=0)
p, y, u, i = {'a': np.ones(10)}, np.ones(10), np.ones(10), np.arange(3)
def call(n):
    global u
    for _ in range(n):
        f(p, y)
        u = g(u, i)
call(3000)
gc.collect()
before = pages()
call(calls)
gc.collect()
print(pages() - before)
def equal(k):
    return fg.jit(fg.grad(lambda x: np.sum(np.tanh(x) * k)))
for k in range(20):
    equal(float(k))(y)
gc.collect()
before = pages()
for k in range(functions):
    equal(float(k))(y)
gc.collect()
print(pages() - before)
def different(k):
    ops = (np.sin, np.cos, np.tanh, np.exp)
    def h(x):
        for digit in range(8):
            x = ops[(k >> (2 * digit)) & 3](x)
        return x
    return fg.jit(h)
for k in range(5):
    different(k)(y)
gc.collect()
before = pages()
for k in range(distinct):
    different(1000 + k)(y)
gc.collect()
print(pages() - before)
"""
MB = 1 << 20
KEPT_PER_KERNEL = 100 * 1024
"""Bound for what stays of a distinct kernel: its machine code and its text. README says it."""


def leaks(calls: int, functions: int, distinct: int) -> None:
    of_calls, of_equal, of_different = map(int, in_process("-c", CALLS, calls, functions, distinct, FUNCGRAD_CACHE="0"))
    assert of_calls < 2 * MB
    assert of_equal < 4 * MB
    assert of_different < 4 * MB + distinct * KEPT_PER_KERNEL


linux_pages = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="sizes are read from Linux's /proc")


@linux_pages
def test_nothing_leaks() -> None:
    leaks(100_000, 100, 5)


@linux_pages
@pytest.mark.long
def test_nothing_leaks_for_long() -> None:
    leaks(1_000_000, 1_000, 50)


def test_programs_die_with_their_functions() -> None:
    import weakref

    f = fg.jit(lambda x: np.tanh(x) * 2)
    f(np.ones(3))
    (entry,) = f._entries.values()
    alive = weakref.ref(entry.executable)
    del f, entry
    gc.collect()
    assert alive() is None
