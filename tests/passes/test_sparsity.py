"""Patterns of dependence, held to Jacobians: an entry that is not zero must be in the pattern, whatever the values.

Rows are the samples of every primitive, programs with loops and branches walked in each of the three ways, and random
compositions. NaN counts as not zero.
"""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import funcgrad as fg
import funcgrad.ops
from funcgrad import lax
from funcgrad.core.avals import aval_of
from funcgrad.core.primitive import REGISTRY
from funcgrad.passes import dependence as dependence_module
from funcgrad.passes import sparsity_control
from funcgrad.passes.dependence import gather_sets, identity, union
from funcgrad.passes.pipeline import optimize
from funcgrad.passes.sparsity import dependence
from funcgrad.passes.sparsity_control import reach

for _module in pkgutil.iter_modules(funcgrad.ops.__path__, "funcgrad.ops."):
    importlib.import_module(_module.name)


def pattern(fun: Any, *args: Any) -> np.ndarray:
    """Dense pattern of all results with respect to all float arguments, ``(results, inputs)``."""
    floats = [k for k, x in enumerate(args) if aval_of(x).dtype.kind in "fc"]

    def derivative(xs: Any, directions: Any) -> Any:
        return fg.jvp(
            lambda *active: _float_results(fun, xs, floats, active), tuple(xs[k] for k in floats), directions
        )[1]

    directions = tuple(args[k] for k in floats)
    closed = optimize(fg.make_jaxpr(derivative)(args, directions))
    avals = closed.in_avals[len(args) :]
    n = sum(a.size for a in avals)
    starts = np.cumsum([0, *[a.size for a in avals]])
    inputs = [None] * len(args) + [identity(a.shape, int(b), n) for a, b in zip(avals, starts, strict=False)]
    dense = []
    for s, a in zip(dependence(reach, closed, inputs), closed.out_avals, strict=True):
        assert s is None or s.shape == a.shape
        dense.append(np.zeros((a.size, n), bool) if s is None else s.matrix().toarray())
    return np.concatenate(dense) if dense else np.zeros((0, n), bool)


def _float_results(fun: Any, args: Any, places: Any, active: Any) -> list[Any]:
    full = list(args)
    for j, x in zip(places, active, strict=True):
        full[j] = x
    outs = fun(*full)
    return [y for y in (outs if isinstance(outs, (tuple, list)) else [outs]) if aval_of(y).dtype.kind in "fc"]


def nonzeros(fun: Any, *args: Any) -> np.ndarray:
    """Where the Jacobian is not zero (or not finite), column by column in forward mode."""
    floats = [k for k, x in enumerate(args) if aval_of(x).dtype.kind in "fc"]
    columns = []
    for k in floats:
        for e in range(np.size(args[k])):
            direction = [np.zeros(np.shape(args[j]), aval_of(args[j]).dtype)[()] for j in floats]
            v = np.zeros(np.size(args[k]), aval_of(args[k]).dtype)
            v[e] = 1
            direction[floats.index(k)] = v.reshape(np.shape(args[k]))[()]

            _, tangents = fg.jvp(
                lambda *active: _float_results(fun, args, floats, active),
                tuple(args[j] for j in floats),
                tuple(direction),
            )
            columns.append(np.concatenate([np.ravel(t) for t in tangents]) if tangents else np.zeros(0))
    return np.stack(columns, axis=1) != 0 if columns else np.zeros((0, 0), bool)


def assert_covers(fun: Any, *args: Any) -> np.ndarray:
    found, wanted = pattern(fun, *args), nonzeros(fun, *args)
    if wanted.size:
        assert found.shape == wanted.shape
        assert not (wanted & ~found).any()
    return found


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


ROWS = {
    f"{name}-{k}": (primitive, args, params)
    for name, primitive in sorted(REGISTRY.items())
    if primitive.samples is not None and callable(primitive.jvp)
    for k, (args, params) in enumerate(primitive.samples(_rng(name)))
    if any(aval_of(x).dtype.kind in "fc" for x in args) and sum(np.size(x) for x in args) < 200
}


@pytest.mark.parametrize("name", ROWS)
def test_every_primitive(name: str) -> None:
    """Integer operands (indices, permutations) as data that may change, and as captured constants."""
    primitive, args, params = ROWS[name]
    integers = {k for k, x in enumerate(args) if aval_of(x).dtype.kind not in "fc"}
    assert_covers(lambda *xs: primitive.bind(*xs, **params), *args)
    if integers:
        floats = [x for k, x in enumerate(args) if k not in integers]

        def fixed(*xs: Any) -> Any:
            rest = iter(xs)
            return primitive.bind(*[args[k] if k in integers else next(rest) for k in range(len(args))], **params)

        assert_covers(fixed, *floats)


@pytest.mark.parametrize("name", [n for n, (p, args, _) in ROWS.items() if len(args) > 1])
def test_one_operand_of_each_primitive_captured(name: str) -> None:
    """Known operands, zeros among them, may take entries away, and only such as are zero."""
    primitive, args, params = ROWS[name]
    rng = _rng(name)
    for k, x in enumerate(args):
        if aval_of(x).dtype.kind not in "fc":
            continue
        others = [
            y if aval_of(y).dtype.kind not in "f" or primitive.lower.__class__.__name__ not in ("Scalar", "Contract")
            else np.asarray(np.where(rng.uniform(size=np.shape(y)) < 0.5, 0.0, y))[()]
            for y in args
        ]  # fmt: skip
        with np.errstate(all="ignore"):
            assert_covers(
                lambda x, k=k, others=others: primitive.bind(*[*others[:k], x, *others[k + 1 :]], **params), x
            )


X, A = np.linspace(0.3, 1.5, 6), np.diag(np.ones(6)) + np.diag(np.full(5, 0.5), 1)

# program of a vector of 6, and how many entries its pattern has
EXACT = {
    "stencil": (lambda x: x[1:-1] ** 2 * x[2:] + np.sin(x[:-2]), 12),
    "reversed and strided": (lambda x: x[::-2] * 2, 3),
    "transpose of a table": (lambda x: x.reshape(2, 3).T.ravel(), 6),
    "rows summed": (lambda x: x.reshape(2, 3).sum(1), 6),
    "a product with a known matrix": (lambda x: A @ x, 11),
    "the same from the right": (lambda x: x @ A, 11),
    "of a stack": (lambda x: np.stack([A[:3, :3]] * 2) @ x.reshape(2, 3, 1), 10),
    "gathered": (lambda x: x[np.array([0, 3, 3])] * x[1], 6),
    "written": (lambda x: fg.at(x)[np.array([1, 2])].set(x[:2] ** 2), 6),
    "added twice": (lambda x: fg.at(x)[np.array([1, 2, 1])].add(x[:3] ** 2), 9),
    "padded": (lambda x: np.pad(x, 2), 6),
    "concatenated": (lambda x: np.concatenate([x[3:], np.ones(2), x[:1]]), 4),
    "running sum": (np.cumsum, 21),
    "running sum backwards": (lambda x: lax.cumsum(x, 0, reverse=True), 21),
    "convolved": (lambda x: np.convolve(x, np.ones(3), "same"), 16),
    "masked by a constant": (lambda x: np.where(np.arange(6) < 2, x, 0.0) + x * (np.arange(6) > 4), 3),
    "chosen by itself": (lambda x: np.where(x > 1, x, 0.0), 6),
    "locally constant": (lambda x: np.floor(x) + np.sign(x), 0),
    "through integers": (lambda x: x.astype(int) * 1.0, 0),
    "stopped": (lambda x: lax.stop_gradient(x) + x[0], 6),
    "normalised": (lambda x: x - x.mean(), 36),
    "jitted": (fg.jit(lambda x: x * x[0]), 11),
    "mapped": (lambda x: lax.map(lambda a: a * a, x), 6),
    "carried": (lambda x: lax.scan(lambda c, a: (c * a, c + a), 1.0, x)[1], 21),
    "carried backwards": (lambda x: lax.scan(lambda c, a: (c * a, c + a), 1.0, x, reverse=True)[1], 21),
    "rolled three times": (lambda x: lax.fori_loop(0, 3, lambda i, c: c * np.roll(c, 1), x), 24),
    "a known branch": (lambda x: lax.cond(np.True_, lambda x: x, lambda x: x[::-1], x), 6),
    "either branch": (lambda x: lax.cond(x[0] > 0, lambda x: x, lambda x: x[::-1], x), 12),
    "small systems": (lambda x: np.linalg.solve(np.eye(3) + np.zeros((2, 1, 1)), x.reshape(2, 3, 1)), 18),
    "sorted rows": (lambda x: np.sort(x.reshape(2, 3), axis=1), 18),
    "transformed rows": (lambda x: np.abs(np.fft.fft(x.reshape(2, 3), axis=1)), 18),
    "indexed by data": (lambda x: x[np.argmax(x)] * np.ones(2), 12),
    "a window at a place that is data": (lambda x: lax.dynamic_slice(x, (np.argmax(x),), (2,)), 12),
    "a window at a known place": (lambda x: lax.dynamic_slice(x, (np.int64(3),), (2,)), 2),
    "gradient of a chain": (fg.grad(lambda x: np.sum((x[1:] - x[:-1] ** 2) ** 2)), 16),
    "gradient of a linear function": (fg.grad(lambda x: np.sum(A @ x)), 0),
    "gradient of a maximum": (fg.grad(lambda x: np.sum(np.maximum(x, 1.0) ** 2)), 6),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact(name: str) -> None:
    fun, count = EXACT[name]
    assert assert_covers(fun, X).sum() == count


LOOPS = {
    "carried": lambda x: lax.scan(lambda c, a: (c * a, c + a), 1.0, x),
    "carried backwards": lambda x: lax.scan(lambda c, a: (c * a, c + a), 1.0, x, reverse=True)[1],
    "with a constant": lambda x: lax.scan(lambda c, a: (c + a * x[1], np.stack([c, a])), x[0], x[2:]),
    "a carry for ys alone": lambda x: lax.scan(lambda c, a: (a, c), x[0], x * x),
    "no carry": lambda x: lax.map(lambda a: np.concatenate([a * a, x[2:3]]), x.reshape(3, 2)),
    "nothing to carry from": lambda x: lax.scan(lambda c, a: (c + 1.0, c * a), 0.0, x)[1],
    "indexed by the step": lambda x: lax.fori_loop(0, 4, lambda i, c: fg.at(c)[i].add(x[i + 1]), x),
    "rolled": lambda x: lax.fori_loop(0, 3, lambda i, c: c * np.roll(c, 1), x),
    "as long as": lambda x: lax.while_loop(lambda c: c[0] < 9, lambda c: fg.at(2 * c)[1].set(c[0] * x[5]), x),
    "nested": lambda x: lax.scan(lambda c, a: (lax.fori_loop(0, 2, lambda i, d: d * a, c), c), x[:2], x)[1],
    "gradient": fg.grad(lambda x: lax.scan(lambda c, a: (c * a, c + a), 1.0, x)[1].sum()),
    "gradient of while": fg.grad(lambda x: lax.while_loop(lambda c: c[0] < 9, lambda c: c * c[0] + x[0], x)[1]),
    "two carries": lambda x: lax.scan(lambda c, a: ((c[1], c[0] * a), c[0]), (x[:2], x[1:3]), x)[1],
    "an integer beside": lambda x: lax.scan(lambda c, a: ((c[0] + 1, c[1] + a * c[0]), c[1]), (0, x[0]), x)[1],
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_walked_in_every_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step; by the pattern of one step; by what any number of steps can bring: each covers the one before."""
    fun = LOOPS[name]

    def flat(x: Any) -> Any:
        return fg.tree.leaves(fun(x))

    exact = assert_covers(flat, X)
    monkeypatch.setattr(sparsity_control, "EQUATIONS", 0)
    by_steps = assert_covers(flat, X)
    monkeypatch.setattr(sparsity_control, "STEPS", 0)
    closed = assert_covers(flat, X)
    if "index" not in name:  # the step's number is known step by step alone, and is data otherwise
        assert not (exact & ~by_steps).any()
    assert not (by_steps & ~closed).any()


@pytest.mark.parametrize("limit", [0, 5, 20])
@pytest.mark.parametrize("name", [*EXACT, *LOOPS])
def test_bounded_memory_never_misses(name: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fun = EXACT[name][0] if name in EXACT else LOOPS[name]
    for module in (dependence_module, sparsity_control, fg.passes.sparsity):
        monkeypatch.setattr(module, "LIMIT", limit)
    assert_covers(lambda x: fg.tree.leaves(fun(x)), X)


STEPS = [
    lambda x: x[1:],
    lambda x: x[::-1] * 1.5,
    lambda x: np.sin(x) * x[0],
    lambda x: np.concatenate([x, x[:2] ** 2]),
    lambda x: np.where(x > 0.5, x, -x),
    lambda x: np.cumsum(x),
    lambda x: x[np.arange(len(x)) // 2],
    lambda x: np.pad(x, 1)[:-1] + np.pad(x, 1)[1:],
    lambda x: fg.at(x)[1].set(x[0] * 2),
    lambda x: x * (np.arange(len(x)) % 2),
    lambda x: np.max(x) + x,
    lambda x: np.sort(x),
    lambda x: np.repeat(x, 2)[: max(len(x), 2)],
    lambda x: x - lax.stop_gradient(x) + np.floor(3 * x),
    lambda x: (np.eye(len(x)) + np.eye(len(x), k=1)) @ x,
    lambda x: lax.scan(lambda c, a: (a, c * a), 0.5, x)[1],
    lambda x: np.sqrt(np.abs(x) + 0.1),  # 0 times an infinite slope would be NaN
]


@settings(max_examples=40)
@given(st.lists(st.integers(0, len(STEPS) - 1), min_size=1, max_size=5), st.integers(0, 10**6))
def test_random_programs(steps: list[int], seed: int) -> None:
    def fun(x: Any) -> Any:
        for s in steps:
            x = STEPS[s](x)
        return x

    rng = np.random.default_rng(seed)
    values = rng.normal(size=7)
    found = assert_covers(fun, values)
    with np.errstate(all="ignore"):
        other = rng.normal(size=7) * rng.choice([0.0, 1.0, 1e3], size=7)
        assert not (nonzeros(fun, other) & ~found).any()  # the pattern holds for other values
        for k in range(7):  # and what does not depend does not change
            moved = values.copy()
            moved[k] += 0.25
            same = np.isclose(np.asarray(fun(values)), np.asarray(fun(moved)), atol=0, rtol=1e-12, equal_nan=True)
            steep = {5, 13, 4, 10, 11}  # what jumps: floor, and choices
            if not steep & set(steps):
                assert not (~same & ~found[:, k]).any()


def test_sets_by_hand() -> None:
    x = identity((4,), 0, 4)
    half = x.moved(lambda w: w[:2])
    assert union([None, None], (2,)) is None
    assert union([half, None], (3, 2)).matrix().toarray().sum() == 6
    total = gather_sets(x, np.array([0, 0, 1]), np.array([0, 3, 2]), (3,))
    np.testing.assert_array_equal(total.matrix().toarray().astype(int), [[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    assert total.entries() == 3
    assert total.masked(np.array([False, True, True])).entries() == 1


def test_everything_is_one_row() -> None:
    """A million elements that depend on a million inputs take no memory, however they are combined."""
    closed = optimize(
        fg.make_jaxpr(lambda x: np.sin(x / np.linalg.norm(x)).reshape(1000, 1000).T + x[0])(np.ones(10**6))
    )
    (rows,) = dependence(reach, closed, [identity((10**6,), 0, 10**6)])
    assert rows is not None and rows.is_full() and rows.table.shape[0] == 1
