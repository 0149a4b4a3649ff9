"""Random shapes, axes and dtypes, arrays without elements and without axes among them, against NumPy: traced,
compiled and batched.  The values are small integers, whose sums and products are exact in every dtype, so that any
difference is one of meaning."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import funcgrad as fg
from funcgrad.core.jaxpr import eval_jaxpr

DTYPES = ["?", "i1", "u2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"]
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=3).map(tuple)
REDUCTIONS = ["sum", "prod", "max", "min", "all", "any", "argmax", "argmin"]


def values(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    x = np.random.default_rng(seed).integers(0, 3, shape).astype(dtype)
    return x if dtype in "?u2" else x - np.asarray(1, dtype)


@st.composite
def reductions(draw: st.DrawFn) -> tuple[Any, Any]:
    shape = draw(SHAPES)
    name = draw(st.sampled_from(REDUCTIONS))
    axes = st.one_of(st.none(), st.integers(-len(shape), len(shape) - 1)) if shape else st.none()
    axis: Any = draw(axes)
    if not name.startswith("arg") and shape and draw(st.booleans()):
        chosen = draw(st.permutations(range(len(shape))))[: draw(st.integers(0, len(shape)))]
        axis = tuple([a - draw(st.sampled_from([0, len(shape)])) for a in chosen])
    keepdims = draw(st.booleans())
    return lambda x: getattr(np, name)(x, axis=axis, keepdims=keepdims), values(shape, draw(st.sampled_from(DTYPES)))


@st.composite
def broadcasts(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    shape = draw(SHAPES)
    shapes = []
    for _ in range(2):
        kept = shape[draw(st.integers(0, len(shape))) :]
        shapes.append(tuple([draw(st.sampled_from([1, n])) for n in kept]))
    fun = draw(st.sampled_from([np.add, np.multiply, np.maximum, np.less, lambda x, y: np.where(x > 0, x, y)]))
    first, second = [values(s, draw(st.sampled_from(DTYPES)), k) for k, s in enumerate(shapes)]
    return fun, first, second


def agree(transformed: Any, fun: Any, *args: Any) -> None:
    """Both give the same array, or both refuse."""
    try:
        wanted = np.asarray(fun(*args))
    except ValueError:
        with pytest.raises(ValueError):
            transformed(*args)
        return
    found = transformed(*args)
    assert found.dtype == wanted.dtype and np.shape(found) == wanted.shape
    np.testing.assert_array_equal(found, wanted)


def traced(fun: Any, *args: Any) -> Any:
    closed = fg.make_jaxpr(fun)(*args)
    return eval_jaxpr(closed.jaxpr, closed.consts, *args)[0]


def batched(fun: Any, *args: Any) -> Any:
    """One by one through vmap: the first operand is mapped over an axis of three equal entries, put last."""
    first = np.stack([args[0]] * 3, axis=-1)
    return fg.vmap(fun, in_axes=(-1, *[None] * (len(args) - 1)), out_axes=-1)(first, *args[1:])[..., 1]


@given(reductions())
@settings(max_examples=200)
def test_reductions(case: tuple[Any, Any]) -> None:
    fun, x = case
    agree(partial(traced, fun), fun, x)
    agree(partial(batched, fun), fun, x)


@given(broadcasts())
@settings(max_examples=150)
def test_broadcasting(case: tuple[Any, Any, Any]) -> None:
    fun, x, y = case
    agree(partial(traced, fun), fun, x, y)
    agree(partial(batched, fun), fun, x, y)


@given(reductions())
@settings(max_examples=40)
def test_compiled_reductions(case: tuple[Any, Any]) -> None:
    agree(fg.jit(case[0]), *case)


@given(broadcasts())
@settings(max_examples=40)
def test_compiled_broadcasting(case: tuple[Any, Any, Any]) -> None:
    agree(fg.jit(case[0]), *case)
