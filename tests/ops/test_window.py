"""Folds over windows and pooling against JAX, differences and loops, compiled and evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax, nn

FOLDS = {"add": 0.0, "mul": 1.0, "max": -np.inf, "min": np.inf}


def close(found: Any, wanted: Any, tolerance: float = 1e-12) -> None:
    assert np.shape(found) == np.shape(wanted)
    np.testing.assert_allclose(found, np.asarray(wanted), rtol=tolerance, atol=tolerance)


def random_case(rng: np.random.Generator, ties: bool, dilates: bool = True) -> tuple[Any, tuple[Any, ...]]:
    """An array and ``(window, strides, padding, base_dilation, window_dilation)``."""
    rank = int(rng.integers(1, 4))
    shape = rng.integers(3, 8, rank).tolist()
    window, strides = rng.integers(1, 4, rank).tolist(), rng.integers(1, 4, rank).tolist()
    padding: Any = ("VALID", "SAME", "SAME_LOWER", rng.integers(0, 3, (rank, 2)).tolist())[rng.integers(0, 4)]
    padding = padding if isinstance(padding, str) else [tuple(p) for p in padding]
    base, spread = ([1] * rank if not dilates else rng.integers(1, 3, rank).tolist() for _ in range(2))
    x = rng.integers(-2, 3, shape).astype(np.float64) if ties else rng.normal(size=shape)
    return x, (window, strides, padding, base, spread)


def folded(module: Any, name: str, params: tuple[Any, ...], init: Any = None) -> Any:
    function = getattr(module, name)
    return lambda x: module.reduce_window(x, FOLDS[name] if init is None else init, function, *params)


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("name", FOLDS)
def test_jax_agrees(name: str, number: int, rng: np.random.Generator, jax: Any) -> None:
    x, params = random_case(rng, ties=number % 2 == 0)
    ours, wanted = folded(lax, name, params), folded(jax.lax, name, params)(x)
    close(ours(x), wanted)
    close(fg.jit(ours)(x), wanted)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("name", ["add", "max", "min"])
def test_gradients_agree_also_at_ties(name: str, number: int, rng: np.random.Generator, jax: Any) -> None:
    """Of equal elements the first has the whole derivative. (JAX has no gradient of dilated windows of maxima.)"""
    x, params = random_case(rng, ties=name != "add" and number % 2 == 0, dilates=name == "add")
    ours = folded(lax, name, params)
    wanted, pull = jax.vjp(folded(jax.lax, name, params), x)
    ct, v = rng.normal(size=wanted.shape), rng.normal(size=x.shape)
    (gradient,) = pull(ct)
    for way in (lambda f: f, fg.jit):
        close(way(lambda x, ct: fg.vjp(ours, x)[1](ct)[0])(x, ct), gradient)
        tangent = way(lambda x, v: fg.jvp(ours, (x,), (v,))[1])(x, v)
        assert np.sum(tangent * ct) == pytest.approx(float(np.sum(np.asarray(gradient) * v)), abs=1e-10)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", FOLDS)
def test_second_order(name: str, number: int, rng: np.random.Generator) -> None:
    x, params = random_case(rng, ties=False)
    keep = folded(lax, name, params)(x)
    finite = np.isfinite(keep)

    def loss(x: Any) -> Any:
        return np.sum(np.tanh(np.where(finite, folded(lax, name, params)(x), 0.0)))

    gradient, v, h = fg.grad(loss), rng.normal(size=x.shape), 1e-6
    numeric = (loss(x + h * v) - loss(x - h * v)) / (2 * h)
    assert np.sum(gradient(x) * v) == pytest.approx(numeric, rel=1e-5, abs=1e-7)
    found = fg.jit(lambda x: fg.jvp(gradient, (x,), (v,))[1])(x)
    close(found, (gradient(x + h * v) - gradient(x - h * v)) / (2 * h), 1e-6)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", FOLDS)
def test_vmap_is_a_loop(name: str, axis: int, rng: np.random.Generator) -> None:
    x, params = random_case(rng, ties=True)
    stack = np.stack([x, -x, x + 0.5], axis)
    for f in (folded(lax, name, params), fg.grad(lambda x: np.sum(folded(lax, name, params)(x)))):
        each = np.stack([f(np.take(stack, k, axis)) for k in range(3)])
        close(fg.vmap(f, in_axes=axis)(stack), each)
        close(fg.jit(fg.vmap(f, in_axes=axis))(stack), each)


LARGE = {
    "long": ((300,), (100,), (3,), [(20, 30)]),
    "longer than taps, dilated": ((200,), (37,), (1,), "SAME"),
    "box": ((2, 20, 21), (1, 7, 8), (1, 3, 2), [(0, 0), (2, 1), (3, 3)]),
    "whole": ((3, 9, 8, 4), (1, 9, 8, 1), (1, 1, 1, 1), "VALID"),
}


@pytest.mark.parametrize("case", LARGE)
@pytest.mark.parametrize("name", ["add", "max", "min"])
def test_large_windows(name: str, case: str, rng: np.random.Generator, jax: Any) -> None:
    shape, *params = LARGE[case]
    x = np.round(rng.normal(size=shape), 1)  # with ties
    ours, theirs = folded(lax, name, tuple(params)), folded(jax.lax, name, tuple(params))
    wanted, pull = jax.vjp(theirs, x)
    ct = rng.normal(size=wanted.shape)
    close(fg.jit(ours)(x), wanted, 1e-11)
    close(fg.jit(lambda x, ct: fg.vjp(ours, x)[1](ct)[0])(x, ct), pull(ct)[0], 1e-11)


@pytest.mark.parametrize("name", FOLDS)
def test_init_value_counts_once(name: str, rng: np.random.Generator, jax: Any) -> None:
    x, init = rng.normal(size=(5, 4)), 0.75
    params = ((2, 3), (2, 1), [(1, 0), (1, 2)])
    wanted = folded(jax.lax, name, params, init)(x)
    close(folded(lax, name, params, init)(x), wanted)
    close(fg.jit(lambda x, s: folded(lax, name, params, s)(x))(x, init), wanted)


def test_any_other_fold(rng: np.random.Generator) -> None:
    """A function that is none of the known folds is applied to arrays, and has its own derivative."""
    x = rng.normal(size=(6,))

    def soft(x: Any) -> Any:
        return lax.reduce_window(x, -np.inf, np.logaddexp, (3,), (1,), [(1, 0)])

    terms = np.exp(np.pad(x, (1, 0), constant_values=-np.inf))
    wanted = np.log(terms[:-2] + terms[1:-1] + terms[2:])
    close(soft(x), wanted)
    close(fg.jit(soft)(x), wanted)
    v, h = rng.normal(size=6), 1e-6
    close(fg.jvp(soft, (x,), (v,))[1], (soft(x + h * v) - soft(x - h * v)) / (2 * h), 1e-8)


@pytest.mark.parametrize(("function", "init"), [(np.add, 0), (np.maximum, -128), (np.multiply, 1)])
def test_integers(function: Any, init: int, rng: np.random.Generator) -> None:
    x = rng.integers(-5, 6, (4, 5)).astype(np.int8)
    seen = np.lib.stride_tricks.sliding_window_view(x, (2, 2))
    wanted = function.reduce(function.reduce(seen, -1, dtype=np.int8), -1, dtype=np.int8)
    for way in (lambda f: f, fg.jit):
        out = way(lambda x: lax.reduce_window(x, init, function, (2, 2)))(x)
        assert out.dtype == np.int8
        np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("function", [lax.bitwise_and, lax.bitwise_or, np.logical_and, np.logical_or])
def test_booleans(function: Any, rng: np.random.Generator) -> None:
    x = rng.random((4, 5)) < 0.5
    is_and = "and" in function.__name__
    seen = np.lib.stride_tricks.sliding_window_view(x, (2, 3))
    wanted = (np.all if is_and else np.any)(seen, (-1, -2))
    np.testing.assert_array_equal(lax.reduce_window(x, is_and, function, (2, 3)), wanted)
    np.testing.assert_array_equal(fg.jit(lambda x: lax.reduce_window(x, is_and, function, (2, 3)))(x), wanted)


def test_nan_is_an_extreme() -> None:
    x = np.array([1.0, np.nan, 0.0, 2.0])
    for way in (lambda f: f, fg.jit):
        out = way(lambda x: lax.reduce_window(x, -np.inf, np.maximum, (2,)))(x)
        np.testing.assert_array_equal(out, [np.nan, np.nan, 2.0])


# pooling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["VALID", "SAME", [(1, 0), (0, 1)]])
@pytest.mark.parametrize("strides", [None, (2, 1)])
def test_pooling(padding: Any, strides: Any, rng: np.random.Generator, jax: Any) -> None:
    x = rng.normal(size=(2, 5, 6, 3))
    steps = (1, *(strides or (1, 1)), 1)
    pads = padding if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]
    for pool, function, init in ((nn.max_pool, jax.lax.max, -np.inf), (nn.min_pool, jax.lax.min, np.inf)):
        close(pool(x, (3, 2), strides, padding), jax.lax.reduce_window(x, init, function, (1, 3, 2, 1), steps, pads))
    total, count = (jax.lax.reduce_window(v, 0.0, jax.lax.add, (1, 3, 2, 1), steps, pads) for v in (x, np.ones_like(x)))
    close(nn.avg_pool(x, (3, 2), strides, padding), total / 6)
    close(nn.avg_pool(x, (3, 2), strides, padding, count_include_pad=False), total / count)


def test_max_pool_gradient_is_one_kernel(rng: np.random.Generator) -> None:
    """Where windows do not overlap, the gradient reads the image once and writes it once."""
    x = rng.normal(size=(4, 8, 8, 3))
    f = fg.grad(lambda x: np.sum(nn.max_pool(x, (2, 2), (2, 2)) * 3.0))
    assert fg.jit(f).trace(x).lower().compile().cost_analysis()["launches"] == 1


def test_a_jitted_network_trains(rng: np.random.Generator) -> None:
    """Convolution, activation, pooling and their gradients compose: the loss falls, natively."""
    x, labels = rng.normal(size=(8, 8, 8, 1)), rng.integers(0, 3, 8)
    params = [rng.normal(size=(3, 3, 1, 4)) / 3, rng.normal(size=(64, 3)) / 8]

    def loss(params: Any) -> Any:
        h = lax.conv_general_dilated(x, params[0], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        h = nn.max_pool(nn.relu(h), (2, 2), (2, 2)).reshape(8, -1)
        return np.mean(nn.softmax_cross_entropy_with_integer_labels(h @ params[1], labels))

    step = fg.jit(lambda p: (loss(p), [w - 0.3 * g for w, g in zip(p, fg.grad(loss)(p), strict=True)]))
    assert "# host" not in step.trace(params).lower().as_text()
    losses = []
    for _ in range(60):
        value, params = step(params)
        losses.append(value)
    assert losses[-1] < 0.1 < losses[0]


X = np.zeros((4, 5))
ERRORS: dict[str, tuple[Any, str]] = {
    "window": (lambda: lax.reduce_window(X, 0.0, np.add, (2,)), "window_dimensions.*2 axes"),
    "empty window": (lambda: lax.reduce_window(X, 0.0, np.add, (2, 0)), "positive"),
    "strides": (lambda: lax.reduce_window(X, 0.0, np.add, (2, 2), (1,)), "window_strides.*2 axes"),
    "padding": (lambda: lax.reduce_window(X, 0.0, np.add, (2, 2), (1, 1), "HALF"), "'HALF'"),
    "pairs": (lambda: lax.reduce_window(X, 0.0, np.add, (2, 2), (1, 1), [(1, 1)]), "pair"),
    "cropping": (lambda: lax.reduce_window(X, 0.0, np.add, (1, 1), (1, 1), [(-3, -3), (0, 0)]), "crops more"),
    "init": (lambda: lax.reduce_window(X, np.zeros(3), np.add, (2, 2)), "must be a scalar"),
    "select": (lambda: lax.select_and_scatter_add(X, X, "gt", (1, 1)), "lax.ge or lax.le"),
    "source": (lambda: lax.select_and_scatter_add(X, X, lax.ge, (2, 2)), "one element per window"),
    "pool": (lambda: nn.max_pool(X, (2, 2)), "spatial axes"),
    "pool strides": (lambda: nn.max_pool(np.zeros((1, 4, 4, 1)), (2, 2), (2,)), "strides"),
    "pool padding": (lambda: nn.max_pool(np.zeros((1, 4, 4, 1)), (2, 2), None, [(1, 1)]), "pair"),
}


TYPE_ERRORS: dict[str, tuple[Any, str]] = {
    "infinity of integers": (lambda: lax.reduce_window(np.arange(4), -np.inf, np.maximum, (2,)), "np.iinfo"),
    "fraction": (lambda: lax.reduce_window(np.arange(4), 2.5, np.add, (2,)), "2.5 is no value"),
    "no function": (lambda: lax.reduce_window(X, 0.0, "add", (2, 2)), "function of two values"),
    "no window": (lambda: lax.reduce_window(X, 0.0, np.add, 2), "window_dimensions must be 2 integers"),
    "fractional stride": (lambda: lax.reduce_window(X, 0.0, np.add, (2, 2), (1.0, 1)), "window_strides"),
    "no padding": (lambda: lax.reduce_window(X, 0.0, np.add, (2, 2), (1, 1), None), "'SAME'.*pair"),
}


@pytest.mark.parametrize("name", TYPE_ERRORS)
def test_type_errors(name: str) -> None:
    call, words = TYPE_ERRORS[name]
    with pytest.raises(TypeError, match=words):
        call()


def test_a_whole_number_may_begin_a_fold_of_integers() -> None:
    out = lax.reduce_window(np.arange(4), 2.0, np.add, (2,))
    assert out.dtype == np.int64 and out.tolist() == [3, 5, 7]


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    call, words = ERRORS[name]
    with pytest.raises(ValueError, match=words):
        call()


def test_mean_of_integers_is_refused() -> None:
    with pytest.raises(TypeError, match="floating point"):
        nn.avg_pool(np.zeros((1, 4, 4, 1), np.int64), (2, 2))
