"""Gather, scatter, windows and sorting against NumPy; ties, duplicates, bounds and degenerate shapes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import funcgrad.ops.operators  # noqa: F401  (attaches the operators that rules are written with)
from funcgrad.core.avals import aval_of
from funcgrad.core.primitive import ZERO
from funcgrad.core.staging import stage
from funcgrad.ops.create import broadcasted_iota, full, iota
from funcgrad.ops.cumulative import cumlogsumexp, cummax, cumprod, cumsum
from funcgrad.ops.dynamic import dynamic_slice, dynamic_update_slice
from funcgrad.ops.indexing import (
    gather,
    scatter,
    scatter_add,
    scatter_max,
    scatter_min,
    scatter_mul,
    take,
    take_along_axis,
)
from funcgrad.ops.reduce import argmax, argmin, reduce_max, reduce_min, reduce_prod
from funcgrad.ops.shape import concatenate, pad, rev, slice_in_dim, split, stack, strided_slice
from funcgrad.ops.sort import argsort, sort
from funcgrad.ops.stop import stop_gradient
from funcgrad.transforms.forward import jvp_flat, tangent_zeros
from funcgrad.transforms.linear import linearize_flat


def gradient(fun: Any, *xs: Any, ct: Any = None) -> Any:
    (y,), linear = linearize_flat(lambda *v: [fun(*v)], xs)
    out = linear.transpose([np.ones(np.shape(y)) if ct is None else ct])
    out = [tangent_zeros(aval_of(x)) if c is ZERO else c for c, x in zip(out, xs, strict=True)]
    return out[0] if len(out) == 1 else out


def numeric(fun: Any, x: Any, h: float = 1e-6) -> Any:
    """The gradient of the sum of ``fun``, by central differences."""
    out = np.zeros_like(x)
    for k in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[k] = h
        out[k] = (np.sum(fun(x + e)) - np.sum(fun(x - e))) / (2 * h)
    return out


# reading and writing --------------------------------------------------------------------------------------------


@st.composite
def indexing_case(draw: Any) -> Any:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    axes = sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    window = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    indices = [rng.integers(-2, shape[a] + 2, size=window) for a in axes]
    return rng.normal(size=shape), indices, tuple(axes), rng


def _front(x: Any, axes: Any) -> Any:
    return np.moveaxis(x, axes, range(len(axes)))


@given(indexing_case())
def test_gather(case: Any) -> None:
    x, indices, axes, _ = case
    clipped = tuple([np.clip(i, 0, x.shape[a] - 1) for i, a in zip(indices, axes, strict=True)])
    inside = np.all([i == c for i, c in zip(indices, clipped, strict=True)], axis=0)
    wanted = _front(x, axes)[clipped]
    np.testing.assert_array_equal(gather(x, indices, axes), wanted)
    rest = (1,) * (x.ndim - len(axes))
    for mode, missing in [("fill", np.nan), ("zero", 0.0)]:
        found = gather(x, indices, axes, mode)
        np.testing.assert_array_equal(found, np.where(np.reshape(inside, inside.shape + rest), wanted, missing))


@given(indexing_case(), st.sampled_from(["drop", "clip"]))
def test_scatter(case: Any, mode: str) -> None:
    """Against a loop over the index tuples in order."""
    x, indices, axes, rng = case
    u = rng.normal(size=np.shape(gather(x, indices, axes)))
    combine = {
        scatter: lambda old, new: new,
        scatter_add: np.add,
        scatter_mul: np.multiply,
        scatter_max: np.maximum,
        scatter_min: np.minimum,
    }
    for function, fold in combine.items():
        wanted = x.copy()
        target = _front(wanted, axes)
        for k in np.ndindex(indices[0].shape):
            at = tuple([int(i[k]) for i in indices])
            if mode == "clip":
                at = tuple([min(max(i, 0), x.shape[a] - 1) for i, a in zip(at, axes, strict=True)])
            elif any(not 0 <= i < x.shape[a] for i, a in zip(at, axes, strict=True)):
                continue
            target[at] = fold(target[at], u[k])
        np.testing.assert_allclose(function(x, u, indices, axes, mode), wanted, rtol=1e-14)


def test_unsigned_and_small_indices() -> None:
    x = np.arange(5.0)
    for dtype in (np.uint8, np.int8, np.uint64, np.int32):
        np.testing.assert_array_equal(gather(x, (np.array([1, 4, 120], dtype),), (0,)), [1, 4, 4])
    huge = np.array([2**63 + 5], np.uint64)
    assert gather(x, (huge,), (0,), "clip") == 4 and np.isnan(gather(x, (huge,), (0,), "fill"))[0]


def test_fill_values() -> None:
    i = (np.array([7]),)
    assert gather(np.arange(3, dtype=np.int16), i, (0,), "fill") == -(2**15)
    assert gather(np.arange(3, dtype=np.uint8), i, (0,), "fill") == 255
    assert not gather(np.ones(3, bool), i, (0,), "fill")[0]
    assert np.isnan(gather(np.ones(3, np.complex64), i, (0,), "fill"))[0]
    assert gather(np.ones(3, np.float32), i, (0,), "fill").dtype == np.float32


def test_empty_axes() -> None:
    x = np.zeros((0, 2))
    assert gather(x, (np.zeros(0, int),), (0,)).shape == (0, 2)
    assert np.isnan(gather(x, (np.zeros(3, int),), (0,), "fill")).all()
    assert scatter(x, np.ones((3, 2)), (np.zeros(3, int),), (0,)).shape == (0, 2)
    for fun in (lambda x: gather(x, (np.zeros(3, int),), (0,)), lambda x: scatter(x, 1.0, ([0],), (0,), "clip")):
        with pytest.raises(IndexError, match="out of bounds for axis 0 with size 0"):
            fun(x)
        with pytest.raises(IndexError, match="out of bounds for axis 0 with size 0"):
            stage(lambda x, fun=fun: [fun(x)], [aval_of(x)])


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda x: gather(x, ([0.5],), (0,)), TypeError, "integer dtype, found float64"),
        (lambda x: gather(x, ([0],), (0, 1)), ValueError, "1 index arrays for axes"),
        (lambda x: gather(x, ([0], [1]), (1, -1)), ValueError, "distinct axes"),
        (lambda x: gather(x, ([0],), (0,), "wrap"), ValueError, "mode must be one of"),
        (lambda x: scatter(x, np.ones((2, 2)), ([0],), (0,)), ValueError, "does not broadcast|more axes"),
        (lambda x: scatter(x, np.ones(3, np.float32), ([0],), (0,)), TypeError, "updates of dtype float32"),
        (lambda x: dynamic_slice(x, (0, 0), (3, 1)), ValueError, "does not fit into shape"),
        (lambda x: dynamic_slice(x, (0,), (1,)), ValueError, "one start and one size per axis"),
        (lambda x: dynamic_slice(x, (0.5, 0), (1, 1)), TypeError, "integer scalars"),
        (lambda x: strided_slice(x, (0, 0), (3, 3)), ValueError, "does not fit axis 0"),
        (lambda x: pad(x, 0.0, [(0, -9, 0), (0, 0, 0)]), ValueError, "does not fit axis 0"),
        (lambda x: pad(x, np.int64(0), [(1, 0, 0), (0, 0, 0)]), TypeError, "dtype int64"),
        (lambda x: concatenate([x, np.ones((2, 2))], 0), ValueError, r"array 0 has shape \(2, 3\) and array 1"),
        (lambda x: concatenate([x, np.ones((2, 3), int)], 0), TypeError, "array 1 has int64"),
        (lambda x: reduce_max(slice_in_dim(x, 0, 0), (0,)), ValueError, "zero-size array to reduction operation"),
        (lambda x: argmax(slice_in_dim(x, 0, 0), 0), ValueError, "empty sequence"),
        (lambda x: sort((x, slice_in_dim(x, 0, 1))), ValueError, "they must agree"),
    ],
)
def test_errors(call: Any, error: Any, words: str) -> None:
    """Staging finds them by the shape rules; eagerly NumPy may be first, but nothing passes."""
    x = np.ones((2, 3))
    with pytest.raises(error, match=words):
        stage(lambda x: [call(x)], [aval_of(x)])
    with pytest.raises((error, ValueError, TypeError, IndexError)):
        call(x)


def test_duplicate_writes() -> None:
    """Of several updates of one element the last remains, and only it has a derivative."""
    i = (np.array([1, 0, 1]),)
    x, u = np.zeros(3), np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(scatter(x, u, i, (0,)), [2, 3, 0])
    ct_x, ct_u = gradient(lambda x, u: scatter(x, u, i, (0,)), x, u, ct=np.array([5.0, 7.0, 11.0]))
    np.testing.assert_array_equal(ct_x, [0, 0, 11])
    np.testing.assert_array_equal(ct_u, [0, 5, 7])


@pytest.mark.parametrize("zeros", [(), (0,), (0, 1), (0, 1, 3)])
def test_duplicate_products_with_zeros(zeros: Any) -> None:
    u = np.array([2.0, 3.0, 5.0, 7.0])
    u[list(zeros)] = 0
    i = (np.array([1, 1, 0, 1]),)
    x = np.array([1.5, 2.5, 3.5])
    found = gradient(lambda x, u: scatter_mul(x, u, i, (0,)), x, u)
    np.testing.assert_allclose(found[0], numeric(lambda x: scatter_mul(x, u, i, (0,)), x), atol=1e-7)
    np.testing.assert_allclose(found[1], numeric(lambda u: scatter_mul(x, u, i, (0,)), u), atol=1e-6)


def test_scatter_extremes_share_ties() -> None:
    i = (np.array([0, 0, 1]),)
    found = gradient(lambda x, u: scatter_max(x, u, i, (0,)), np.array([3.0, 1.0]), np.array([3.0, 2.0, 1.0]))
    np.testing.assert_array_equal(found[0], [0.5, 0.5])
    np.testing.assert_array_equal(found[1], [0.5, 0.0, 0.5])


def test_fill_has_zero_derivative() -> None:
    i = (np.array([0, 9]),)
    np.testing.assert_array_equal(gradient(lambda x: gather(x, i, (0,), "fill"), np.ones(2)), [1, 0])
    _, (t,) = jvp_flat(lambda x: [gather(x, i, (0,), "fill")], [np.ones(2)], [np.ones(2)])
    np.testing.assert_array_equal(t, [1, 0])


def test_take() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    i = np.array([[0, 2], [1, 1]])
    for axis in (0, 1, 2, -1):
        np.testing.assert_array_equal(take(x, i % x.shape[axis], axis), np.take(x, i % x.shape[axis], axis))
    order = np.argsort(-x, axis=1)
    np.testing.assert_array_equal(take_along_axis(x, order, 1), np.take_along_axis(x, order, 1))
    first = np.zeros((1, 2, 4), int)
    np.testing.assert_array_equal(take_along_axis(x, first, 1), np.take_along_axis(x, first, 1))


def test_windows() -> None:
    x = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(dynamic_slice(x, (9, -5), (2, 2)), x[1:3, 0:2])
    np.testing.assert_array_equal(dynamic_slice(x, (np.uint8(1), 1), (1, 3)), x[1:2, 1:4])
    wanted = x.copy()
    wanted[1:3, 2:4] = -1
    np.testing.assert_array_equal(dynamic_update_slice(x, -np.ones((2, 2)), (1, 3)), wanted)


# folds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [(), (1,), (1, 3), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize(
    "fun",
    [
        lambda x: reduce_prod(x, (0, 1)),
        lambda x: reduce_prod(x, (1,)),
        lambda x: cumprod(x, 1),
        lambda x: cumprod(x, 0, reverse=True),
    ],
)
def test_products_with_zeros(fun: Any, zeros: Any) -> None:
    x = np.array([[1.5, -2.0, 3.0], [0.7, 1.1, -0.4]])
    x.ravel()[list(zeros)] = 0
    np.testing.assert_allclose(gradient(fun, x), numeric(fun, x), atol=1e-8)
    # second derivatives too
    second = gradient(lambda x: gradient(fun, x), x)
    np.testing.assert_allclose(second, numeric(lambda x: gradient(fun, x), x), atol=1e-7)


def test_extremes_share_ties_evenly() -> None:
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_allclose(gradient(lambda x: reduce_max(x, (1,)), x), [[0, 0.5, 0.5], [1 / 3] * 3])
    np.testing.assert_allclose(gradient(lambda x: reduce_min(x, (0, 1)), x), [[1, 0, 0], [0, 0, 0]])


def test_nan_in_folds() -> None:
    x = np.array([1.0, np.nan, 3.0])
    assert np.isnan(reduce_max(x, (0,))) and argmax(x, 0) == 1 and argmin(x, 0) == 1
    assert np.isnan(gradient(lambda x: reduce_max(x, (0,)), x)).all()
    np.testing.assert_array_equal(cummax(x), [1, np.nan, np.nan])
    np.testing.assert_array_equal(sort(x), [1, 3, np.nan])


def test_running_extreme_passes_on_the_last_of_ties() -> None:
    x = np.array([1.0, 3.0, 2.0, 3.0, 0.0])
    np.testing.assert_array_equal(gradient(cummax, x), [1, 2, 0, 2, 0])


def test_running_log_sum_exp() -> None:
    x = np.array([-np.inf, -np.inf, 800.0, 1.0, -900.0, 800.0])
    found = cumlogsumexp(x)
    np.testing.assert_allclose(found, np.logaddexp.accumulate(x))
    slope = gradient(cumlogsumexp, x, ct=np.array([0.0, 0, 0, 0, 0, 1]))
    np.testing.assert_allclose(slope, [0, 0, 0.5, 0, 0, 0.5], atol=1e-12)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.integers(-3, 2), st.booleans())
def test_cumulative_shapes(shape: Any, axis: int, reverse: bool) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    if not -x.ndim <= axis < x.ndim:
        with pytest.raises(ValueError, match="out of bounds"):
            cumsum(x, axis)
        return
    flip = (lambda v: np.flip(v, axis)) if reverse else (lambda v: v)
    np.testing.assert_allclose(cumsum(x, axis, reverse), flip(np.cumsum(flip(x), axis)), atol=1e-14)
    np.testing.assert_allclose(cumprod(x, axis, reverse), flip(np.cumprod(flip(x), axis)), atol=1e-14)


def test_small_dtypes_are_kept() -> None:
    x = np.array([1, 2, 3], np.int8)
    assert cumsum(x).dtype == np.int8 and reduce_prod(x, (0,)).dtype == np.int8
    assert reduce_max(np.float16([1, 2]), (0,)).dtype == np.float16


# shape ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 4), st.integers(-5, 5), st.integers(-5, 5), st.integers(0, 3))
def test_pad(n: int, low: int, high: int, interior: int) -> None:
    """Against its definition: dilate, then extend or crop each end."""
    x = np.arange(1.0, n + 1)
    dilated = np.full(n + max(n - 1, 0) * interior, -1.0)
    dilated[:: interior + 1] = x
    if len(dilated) + low + high < 0:
        with pytest.raises(ValueError, match="does not fit axis 0"):
            stage(lambda x: [pad(x, -1.0, [(low, high, interior)])], [aval_of(x)])
        return
    room = np.full(len(dilated) + 40, -1.0)
    room[20 : 20 + len(dilated)] = dilated
    wanted = room[20 - low : 20 + len(dilated) + high]
    found = pad(x, -1.0, [(low, high, interior)])
    np.testing.assert_array_equal(found, wanted)
    ct = np.arange(len(wanted)) + 0.5
    pulled, at_value = gradient(lambda x, v: pad(x, v, [(low, high, interior)]), x, np.float64(-1.0), ct=ct)
    assert np.sum(pulled * x) - np.sum(at_value) == pytest.approx(np.sum(ct * wanted))


def test_slices() -> None:
    x = np.arange(24.0).reshape(4, 6)
    np.testing.assert_array_equal(slice_in_dim(x, -3, None, 2, axis=1), x[:, -3::2])
    np.testing.assert_array_equal(slice_in_dim(x, 3, 1), x[3:1])
    np.testing.assert_array_equal(rev(x, (0, -1)), x[::-1, ::-1])
    pieces = split(x, (1, 0, 3))
    assert [p.shape for p in pieces] == [(1, 6), (0, 6), (3, 6)]
    np.testing.assert_array_equal(concatenate(pieces, 0), x)
    np.testing.assert_array_equal(stack([x, x + 1], -1), np.stack([x, x + 1], -1))
    with pytest.raises(ValueError, match="do not add up"):
        split(x, (1, 2))
    with pytest.raises(ValueError, match="use stack"):
        concatenate([np.float64(1), np.float64(2)], 0)


def test_constants() -> None:
    np.testing.assert_array_equal(iota(np.int32, 4), np.arange(4, dtype=np.int32))
    np.testing.assert_array_equal(broadcasted_iota(float, (2, 3), 1), [[0, 1, 2], [0, 1, 2]])
    assert full((2,), 7, np.float32).dtype == np.float32
    with pytest.raises(TypeError, match="cannot count"):
        iota(bool, 2)


def test_stop_gradient() -> None:
    np.testing.assert_array_equal(gradient(lambda x: x * stop_gradient(x), np.array([3.0])), [3.0])
    assert stop_gradient(3) == 3


# sorting --------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan, -np.inf]), max_size=8))
def test_sort(values: Any) -> None:
    x = np.array(values)
    np.testing.assert_array_equal(sort(x), np.sort(x))
    np.testing.assert_array_equal(argsort(x), np.argsort(x, kind="stable"))
    down = argsort(x, descending=True)
    finite = x[~np.isnan(x)]
    np.testing.assert_array_equal(x[down], np.concatenate([x[np.isnan(x)], -np.sort(-finite)]))
    assert all(a < b for a, b in itertools.pairwise(down) if x[a] == x[b])


def test_sort_by_several_keys() -> None:
    a, b, c = np.array([1, 0, 1, 0]), np.array([2.0, 3.0, 1.0, 3.0]), np.array([10, 20, 30, 40])
    out = sort((a, b, c), num_keys=2)
    np.testing.assert_array_equal(out[0], [0, 0, 1, 1])
    np.testing.assert_array_equal(out[1], [3, 3, 1, 2])
    np.testing.assert_array_equal(out[2], [20, 40, 30, 10])
