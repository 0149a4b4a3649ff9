"""Plans of memory: no two values that are needed at the same time share memory, found by walking the steps anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.compiler import Executable
from funcgrad.kernels.assemble import Launch
from funcgrad.kernels.graph import Value

from .programs import WHOLE

X = np.random.default_rng(0).random((40, 40))


def accesses(step: Any) -> list[tuple[Value, bool]]:
    if isinstance(step, Launch):
        return [(x.value, x.stored) for x in step.accesses]
    return [(x.value, False) for x in step.operands] + [(x, True) for x in step.outputs]


def conflicts(executable: Executable) -> list[str]:
    """Values whose memory overlaps while both are needed."""
    lowered, plan = executable.lowered, executable.plan
    graph, steps = lowered.graph, lowered.steps
    inputs, outputs = len(graph.inputs), len(graph.outputs)
    first = inputs + outputs + len(graph.constants)
    begin: dict[int, int] = {v.index: -1 for v in (*graph.inputs, *[v for v, _ in graph.constants])}
    end: dict[int, int] = {}
    values: dict[int, Value] = {v.index: v for v in (*graph.inputs, *[v for v, _ in graph.constants])}
    for number, step in enumerate(steps):
        for value, _ in accesses(step):
            values[value.index] = value
            begin.setdefault(value.index, number)
            end[value.index] = number
    for v in graph.outputs:
        end[v.index] = len(steps)

    def memory(value: Value) -> tuple[Any, int, int]:
        slot = plan.slots[value.index]
        if inputs <= slot < inputs + outputs and slot - inputs in plan.donations:
            slot = plan.donations[slot - inputs]
        if slot >= first:
            return "arena", plan.offsets[slot - first], plan.offsets[slot - first] + value.nbytes
        return slot, 0, value.nbytes

    found = []
    items = [v for v in values.values() if v.index in end]
    for i, a in enumerate(items):
        for b in items[i + 1 :]:
            place, lo, hi = memory(a)
            other, lo2, hi2 = memory(b)
            if place != other or hi <= lo2 or hi2 <= lo:
                continue
            old, new = (a, b) if begin[a.index] <= begin[b.index] else (b, a)
            if end[old.index] < begin[new.index]:
                continue
            step = steps[begin[new.index]]
            if end[old.index] == begin[new.index] and _written_over(step, old, new):
                continue
            found.append(f"{old} and {new} share memory in step {begin[new.index]}")
    for value in items:
        place, _, hi = memory(value)
        limit = plan.arena_bytes if place == "arena" else max(
            [v.nbytes for v in items if plan.slots[v.index] == plan.slots[value.index]], default=0
        )  # fmt: skip
        if hi > limit:
            found.append(f"{value} reaches beyond its memory")
    return found


def _written_over(step: Any, old: Value, new: Value) -> bool:
    """Whether this step may write ``new`` over ``old``: element for element, or when Python has returned."""
    if not isinstance(step, Launch):
        return step.kind == "host" and len(step.outputs) == 1
    (read,) = [x for x in step.accesses if x.value is old]
    (write,) = [x for x in step.accesses if x.value is new]
    return read.walk == write.walk and not read.index_strides and read.use.last_load <= write.use.first_store


def layers(n: int) -> Callable[..., Any]:
    def loss(w: Any, x: Any) -> Any:
        for _ in range(n):
            x = np.tanh(x @ w)
        return np.sum(x**2)

    return loss


def attention(q: Any, k: Any, v: Any) -> Any:
    s = q @ k.T
    e = np.exp(s - np.max(s, axis=-1, keepdims=True))
    return np.sum(((e / np.sum(e, axis=-1, keepdims=True)) @ v) ** 2)


PROGRAMS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    **WHOLE,
    "gradient of layers": (fg.grad(layers(5), argnums=(0, 1)), (X, X)),
    "gradient of attention": (fg.grad(attention, argnums=(0, 1, 2)), (X, X, X)),
    "donated step": (
        fg.jit(lambda w, x: w - 0.1 * fg.grad(layers(3))(w, x), donate_argnums=0),
        (X, X),
    ),
    "sorts": (lambda x: np.sort(np.cumsum(np.sort(np.sin(x) @ x), axis=0), axis=0) @ x, (X,)),
    "results of many sizes": (lambda x: (x @ x, (x @ x)[:5] @ x, np.sum((x.T @ x) @ x, 0), np.tanh(x @ x @ x)), (X,)),
    "updates": (lambda x, i: fg.at(fg.at(np.sort(x @ x))[i].add(1.0) @ x)[i].set(0.5), (X, np.arange(5))),
    "ping-pong": (lambda x: [x := np.cumsum(np.sort(x), axis=k % 2) @ X for k in range(7)][-1], (X,)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_that_is_needed_is_overwritten(name: str) -> None:
    fun, args = PROGRAMS[name]
    function = fun if hasattr(fun, "lower") else fg.jit(fun)
    assert conflicts(function.lower(*args).executable) == []


def test_the_walk_notices_a_conflict() -> None:
    executable = fg.jit(fg.grad(layers(3))).lower(X, X).executable
    offsets = executable.plan.offsets
    assert len(set(offsets)) > 1
    executable.plan.offsets = [0] * len(offsets)
    assert conflicts(executable) != []


RANDOM_STEPS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda a, b: np.tanh(a @ b) * 0.1,
    lambda a, b: np.cumsum(a, axis=0) * 0.05,
    lambda a, b: np.sort(a, axis=-1),
    lambda a, b: fg.at(a)[3:7].add(b[:4]),
    lambda a, b: a.T + b,
    lambda a, b: a - np.mean(b, axis=0),
)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_are_planned_without_conflict(seed: int) -> None:
    """Products, sorts, scans and updates on a growing list of values: what is stored, and for how long, is random."""
    rng = np.random.default_rng(seed)
    choices = rng.integers(0, len(RANDOM_STEPS), size=14)
    picks = rng.integers(0, 1000, size=(14, 2))
    kept = sorted({int(k) for k in rng.integers(0, 14, size=3)} | {13})

    def program(x: Any) -> Any:
        known = [x, x * 0.5]
        for choice, (i, j) in zip(choices, picks, strict=True):
            known.append(RANDOM_STEPS[choice](known[i % len(known)], known[j % len(known)]))
        return [known[2 + k] for k in kept]

    f = fg.jit(program)
    assert conflicts(f.lower(X).executable) == []
    for a, b in zip(program(X), f(X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def _views_of_an_update(x: Any) -> Any:
    y = fg.at(x)[0].set(7.0)
    view, other = y.reshape(2, 3), y.reshape(3, 2)
    return fg.at(view)[0, 1].set(5.0), fg.at(other)[0, 1].set(9.0), y + 1, y[::-1]


def _both_results_of_a_call(x: Any) -> Any:
    def twice(y: Any) -> Any:
        z = fg.at(y)[1].set(3.0)
        return z, z

    a, b = fg.jit(twice, inline=True)(x)
    return fg.at(a)[0].set(5.0), b * 2


def _an_update_inside_a_call(x: Any) -> Any:
    y = fg.at(x)[0].set(7.0)
    return fg.jit(lambda z: (fg.at(z)[1].set(3.0), z + 1), inline=True)(y)


@pytest.mark.parametrize("program", [_views_of_an_update, _both_results_of_a_call, _an_update_inside_a_call])
def test_an_update_that_is_seen_elsewhere_is_not_written_over(program: Any) -> None:
    x = np.arange(6.0)
    for got, want in zip(fg.jit(program)(x), program(x), strict=True):
        np.testing.assert_array_equal(got, want)


def test_an_update_of_an_update_s_only_view_stays_in_place() -> None:
    fun = fg.jit(lambda x: fg.at(fg.at(x)[0].set(7.0).reshape(20, 80))[3].set(5.0))
    assert fun.lower(X).executable.memory_analysis()["temporary_bytes"] == 0


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_arrays_reach_library_steps_and_loops(shape: tuple[int, ...]) -> None:
    """Nothing writes an array without elements, which has a place all the same."""

    def program(x: Any) -> Any:
        rows = np.stack([x, x], 1)[:, 0]
        product = lambda c, row: (c + np.sum(np.outer(row, row)), np.outer(row, row))  # noqa: E731
        return fg.lax.scan(product, 0.0, rows), np.sort(np.concatenate([x, x]))

    x = np.ones(shape)
    for got, want in zip(fg.tree.leaves(fg.jit(program)(x)), fg.tree.leaves(program(x)), strict=True):
        assert np.shape(got) == np.shape(want)
        np.testing.assert_array_equal(got, want)
