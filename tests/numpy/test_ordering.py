"""Sorting and searching under ``jit``: NumPy's order with NaN, ties and every dtype; derivatives; batches; errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcgrad as fg
import funcgrad.numpy as jnp
from funcgrad.runtime import merging

RNG = np.random.default_rng(17)
HOLES = np.array([1.0, np.nan, 0.0, -0.0, np.inf, -np.inf, np.nan, -2.5] * 5)


def arrays() -> dict[str, Any]:
    rows = {f"{dtype}": RNG.integers(0, 5, (6, 70)).astype(dtype) for dtype in "?bBhHiIqQ"}
    rows |= {dtype: RNG.normal(size=(6, 70)).astype(dtype) for dtype in "efd"}
    rows |= {"ties": RNG.normal(size=(3, 400)).round(1), "holes": HOLES, "holes f4": HOLES.astype(np.float32)}
    rows |= {"long": RNG.normal(size=3000), "large": np.array([2**64 - 1, 5, 2**63, 5, 0], np.uint64)}
    rows |= {"least": np.array([-(2**63), 2**63 - 1, 0, -(2**63)]), "one": np.ones((1, 3)), "none": np.zeros((0, 3))}
    rows |= {
        "complex": (RNG.normal(size=(4, 9)) + 1j * RNG.normal(size=(4, 9))).round(0),
        "cube": RNG.normal(size=(3, 4, 5)),
    }
    return rows


ARRAYS = arrays()


@pytest.mark.parametrize("name", ARRAYS)
def test_sort_and_argsort(name: str) -> None:
    x = ARRAYS[name]
    for axis in range(-x.ndim, x.ndim):
        np.testing.assert_array_equal(fg.jit(lambda x, a=axis: np.sort(x, a))(x), np.sort(x, axis))
        found = fg.jit(lambda x, a=axis: np.argsort(x, a))(x)
        np.testing.assert_array_equal(found, np.argsort(x, axis, kind="stable"))
        assert found.dtype == np.intp
    np.testing.assert_array_equal(fg.jit(lambda x: np.sort(x, None))(x), np.sort(x, None))


def long_rows() -> dict[str, Any]:
    """Rows that are sorted in two runs, or in four."""
    rng = np.random.default_rng(3)
    n = (1 << 17) + 7
    x = rng.normal(size=n)
    rows = {dtype: rng.integers(0, 2**31 - 1, n).astype(dtype) * (3 if dtype in "qQ" else 1) for dtype in "iIqQ"}
    rows |= {"d": x, "f": x.astype("f"), "exactly": x[: 1 << 17], "two rows": rng.normal(size=(2, 1 << 21))}
    rows |= {"sorted": np.sort(x), "reversed": np.sort(x)[::-1].copy(), "ties": x.round(1), "equal": np.ones(n)}
    rows |= {"holes": np.resize(np.append(HOLES, -np.array(np.nan)), n), "four runs": rng.permutation(1 << 21)}
    rows |= {"large": rng.integers(0, 2**64 - 1, n, np.uint64), "wide": rng.integers(-(2**63), 2**63 - 1, n)}
    rows["upper half below"] = np.concatenate([x[: n // 2] + 100, x[n // 2 :]])
    return rows


LONG = long_rows()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", LONG)
def test_long_rows(name: str, threads: int) -> None:
    x, before = LONG[name], fg.get_num_threads()
    try:
        fg.set_num_threads(threads)
        found = fg.jit(lambda x: np.sort(x))(x)
    finally:
        fg.set_num_threads(before)
    np.testing.assert_array_equal(found, np.sort(x))
    if x.dtype.kind == "f":
        zeros = np.signbit(found[found == 0])
        assert np.array_equal(zeros, np.sort(zeros)[::-1])  # -0.0 before 0.0


def test_a_row_is_sorted_if_the_number_of_threads_changes_while_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    for sorting in (1, 2):
        monkeypatch.setattr(merging, "get_num_threads", lambda n=sorting: n)
        for name in ("d", "f", "two rows", "sorted", "upper half below"):
            np.testing.assert_array_equal(fg.jit(lambda x: np.sort(x))(LONG[name]), np.sort(LONG[name]))


def test_long_rows_without_numpys_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "sort_functions", lambda dtype: None)
    for name in ("d", "f", "I", "q", "holes", "large", "four runs"):
        np.testing.assert_array_equal(fg.jit(lambda x: np.sort(x))(LONG[name]), np.sort(LONG[name]))


@np.errstate(all="ignore")
def close_keys() -> dict[str, Any]:
    """Eight-byte keys that agree in their upper bits, so that lower ones decide."""
    rng = np.random.default_rng(5)
    steps = 1.0 + np.finfo(float).eps * rng.permutation(3000)
    groups = np.repeat(rng.normal(size=60), 50) * (1 + np.finfo(float).eps * rng.integers(0, 4, 3000))
    holes = np.where(rng.random(3000) < 0.1, np.nan, np.where(rng.random(3000) < 0.1, -0.0, groups))
    holes[::7] = 0.0
    wide = rng.integers(-(2**62), 2**62, 3000) // 2**40 * 2**40 + rng.integers(0, 9, 3000)
    rows = {
        "narrow": steps,
        "one far away": np.append(steps, -1e300),  # too much for insertion
        "ties, one far away": np.append(np.repeat(steps[:1500], 2), -1e300),
        "groups": groups,
        "holes": holes,
        "infinite": np.append(groups, [np.inf, -np.inf, np.inf, np.finfo(float).max, 5e-324, -5e-324]),
        "negative nan": np.append(groups, -np.array([np.nan, 1.0, np.nan])),
        "wide integers": wide,
        "wide, unsigned": wide.astype(np.uint64),
        "extremes": np.append(wide, [2**63 - 1, -(2**63), 2**63 - 1, -(2**63)]),
        "descending": np.arange(3000.0)[::-1] * 1e-300,
    }
    return rows | {"single: " + name: x.astype(np.float32) for name, x in rows.items() if x.dtype == float}


CLOSE = close_keys()


@pytest.mark.parametrize("name", CLOSE)
def test_keys_that_agree_in_their_upper_bits(name: str) -> None:
    x = CLOSE[name]
    np.testing.assert_array_equal(fg.jit(np.argsort)(x), np.argsort(x, kind="stable"))
    rows = np.stack([x, np.flip(x), np.roll(x, 100)])
    np.testing.assert_array_equal(fg.jit(np.argsort)(rows), np.argsort(rows, kind="stable"))


def test_sort_of_views_and_expressions() -> None:
    x = ARRAYS["cube"]
    for fun in (
        lambda x: np.sort(x[::-1, 1:], axis=1),
        lambda x: np.sort(np.abs(x).T, axis=0) * 2,
        lambda x: np.argsort(x.transpose(2, 0, 1), axis=1),
        lambda x: np.sort(np.broadcast_to(x[0], (2, 4, 5)), axis=0),
    ):
        np.testing.assert_array_equal(fg.jit(fun)(x), fun(x))


@pytest.mark.parametrize("dtype", ["int8", "float32", "float64", "uint64"])
def test_several_keys(dtype: str) -> None:
    keys = [RNG.integers(0, 3, (2, 300)).astype(dtype) for _ in range(3)]
    found = fg.jit(lambda *k: np.lexsort(k, axis=-1))(*keys)
    np.testing.assert_array_equal(found, np.lexsort(keys, axis=-1))
    values = RNG.normal(size=(2, 300))
    wanted = fg.lax.sort((*keys, values), 1, num_keys=2)
    found = fg.jit(lambda *x: fg.lax.sort(x, 1, num_keys=2))(*keys, values)
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(x, y)
    key, value = fg.jit(fg.lax.sort_key_val)(keys[0], values)
    order = np.argsort(keys[0], axis=1, kind="stable")
    np.testing.assert_array_equal(key, np.take_along_axis(keys[0], order, 1))
    np.testing.assert_array_equal(value, np.take_along_axis(values, order, 1))


@pytest.mark.parametrize("name", ["ties", "d", "i", "holes", "cube"])
def test_top_k(name: str) -> None:
    x = ARRAYS[name]
    for k in (0, 1, 3):
        values, places = fg.jit(lambda x, k=k: fg.lax.top_k(x, k))(x)
        order = np.argsort(np.flip(x, -1), axis=-1, kind="stable")
        wanted = x.shape[-1] - 1 - np.flip(order, -1)[..., :k]
        np.testing.assert_array_equal(places, wanted)
        np.testing.assert_array_equal(values, np.take_along_axis(x, wanted, -1))
    with pytest.raises(ValueError, match="top_k: k is"):
        fg.lax.top_k(x, x.shape[-1] + 1)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int8", "uint16"])
@pytest.mark.parametrize(("n", "k"), [(20_000, 1), (20_011, 7), (50_000, 30), (5000, 4)])
def test_few_of_many(n: int, k: int, dtype: str) -> None:
    """Found in blocks: with ties, with NaN and without, where all are equal, in any axis."""
    x = RNG.integers(0, 100, n).astype(dtype) if dtype != "float64" else RNG.normal(size=n)
    rows = [x, np.sort(x), np.sort(x)[::-1].copy(), np.zeros_like(x)]
    if dtype.startswith("f"):
        holes = x.copy()
        holes[RNG.integers(0, n, 3)] = np.nan
        rows += [holes, np.full_like(x, -np.inf)]
    fun = fg.jit(lambda x: fg.lax.top_k(x, k))
    for row in rows:
        values, places = fun(row)
        wanted = n - 1 - np.argsort(row[::-1], kind="stable")[::-1][:k]
        np.testing.assert_array_equal(places, wanted)
        np.testing.assert_array_equal(values, row[wanted])
    both = np.stack(rows, axis=1)
    values, places = fg.jit(lambda x: fg.lax.top_k(x, k, axis=0))(both)
    np.testing.assert_array_equal(places, np.stack([fun(row)[1] for row in rows], axis=1))
    batched = fg.jit(fg.vmap(lambda x: fg.lax.top_k(x, k)[0], 1, 1))(both)
    np.testing.assert_array_equal(values, batched)


def test_top_k_gradient() -> None:
    x = RNG.permutation(20_000) / 7.0
    gradient = fg.jit(fg.grad(lambda x: np.sum(fg.lax.top_k(x, 3)[0] ** 2 * np.arange(1.0, 4.0))))(x)
    wanted = np.zeros_like(x)
    order = np.argsort(-x)[:3]
    wanted[order] = 2 * x[order] * np.arange(1.0, 4.0)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-14)


@pytest.mark.parametrize("size", [0, 1, 7, 256, 257, 1000, 4096, 5000])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int16"])
def test_searchsorted(dtype: str, size: int) -> None:
    """Both ways, comparing with all and the binary search, at every boundary, with ties and NaN."""
    a = np.sort(RNG.integers(0, max(size // 2, 1) + 1, size).astype(dtype))
    v = np.concatenate([np.arange(-1, size // 2 + 3), RNG.integers(0, size + 1, 50)]).astype(dtype)
    if dtype != "int16":
        a[size - size // 10 :] = np.nan
        v[::7] = np.nan
    for side in ("left", "right"):
        found = fg.jit(lambda a, v, s=side: np.searchsorted(a, v, s))(a, v)
        np.testing.assert_array_equal(found, np.searchsorted(a, v, side))
        assert found.dtype == np.intp


def test_searchsorted_promotes_batches_and_takes_a_sorter() -> None:
    a, v = np.sort(RNG.integers(0, 99, 300)), RNG.normal(size=(4, 5)) * 50
    np.testing.assert_array_equal(fg.jit(np.searchsorted)(a, v), np.searchsorted(a, v))
    order = RNG.permutation(300)
    inverse = np.argsort(order)
    found = fg.jit(lambda a, v: np.searchsorted(a, v, sorter=inverse))(a[order], v)
    np.testing.assert_array_equal(found, np.searchsorted(a, v))
    rows = np.sort(RNG.normal(size=(3, 400)), axis=1)
    found = fg.jit(fg.vmap(np.searchsorted, (0, None)))(rows, v)
    np.testing.assert_array_equal(found, [np.searchsorted(r, v) for r in rows])
    np.testing.assert_array_equal(fg.jit(np.searchsorted)(a, 50), np.searchsorted(a, 50))


STATISTICS = {
    "median": lambda x: np.median(x, axis=-1),
    "quantile": lambda x: np.quantile(x, np.array([0.0, 0.3, 1.0]), axis=0),
    "percentile": lambda x: np.percentile(x, 40, axis=-1, method="lower"),
    "nanmedian": lambda x: np.nanmedian(np.where(x > 0.8, np.nan, x), axis=-1),
    "nanquantile": lambda x: np.nanquantile(np.where(x > 0.8, np.nan, x), 0.7, axis=-1),
    "nan": lambda x: np.median(np.where(x > 0.8, np.nan, x), axis=-1),
    "partition": lambda x: np.partition(x, 3, axis=-1)[..., 3],
    "argpartition": lambda x: np.take_along_axis(x, np.argpartition(x, 2, axis=-1), -1)[..., 2],
    "histogram": lambda x: np.histogram(x, 7)[0],
    "histogram of a range": lambda x: np.histogram(x, 300, (-0.5, 1.0))[0],
    "histogram edges": lambda x: np.histogram(x, np.array([-1.0, 0.1, 0.2, 2.0]), weights=np.abs(x))[0],
    "density": lambda x: np.histogram(x, 5, density=True)[0],
    "integer weights": lambda x: np.histogram(x, 5, weights=(x > 0).astype(np.int32))[0],
    "digitize": lambda x: np.digitize(x, np.linspace(-2, 2, 400)),
    "digitize down": lambda x: np.digitize(x, np.linspace(2, -2, 9), right=True),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics(name: str) -> None:
    fun, x = STATISTICS[name], RNG.normal(size=(5, 40))
    found, wanted = fg.jit(fun)(x), fun(x)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-13)


def test_bincount() -> None:
    x, w = RNG.integers(0, 40, 1000), RNG.normal(size=1000)
    np.testing.assert_array_equal(fg.jit(lambda x: jnp.bincount(x, length=50))(x), np.bincount(x, minlength=50))
    found = fg.jit(lambda x, w: jnp.bincount(x, w, length=40))(x.astype(np.int8), w)
    np.testing.assert_allclose(found, np.bincount(x, w, 40), rtol=1e-12)
    short = fg.jit(lambda x: jnp.bincount(x, length=10))(x)  # what lies beyond is left out
    np.testing.assert_array_equal(short, np.bincount(x)[:10])
    gradient = fg.jit(fg.grad(lambda w: np.sum(jnp.bincount(x, w, length=40) * np.arange(40.0))))(w)
    np.testing.assert_array_equal(gradient, x)
    batch = np.stack([x, x[::-1] // 2])
    found = fg.jit(fg.vmap(lambda x: jnp.bincount(x, length=40)))(batch)
    np.testing.assert_array_equal(found, [np.bincount(row, minlength=40) for row in batch])


@pytest.mark.parametrize("name", ["ties", "i", "B", "?", "holes", "d", "complex", "one"])
def test_unique(name: str) -> None:
    x = ARRAYS[name]
    count = len(np.unique(x))
    for size in (count, count + 3, max(count - 2, 1), 1):
        fun = fg.jit(lambda x, n=size: jnp.unique(x, True, True, True, size=n))
        values, index, inverse, counts = fun(x)
        wanted = np.unique(x, True, True, True)
        kept = min(size, count)
        for found, full in zip((values, index, counts), (wanted[0], wanted[1], wanted[3]), strict=True):
            assert found.shape == (size,) and found.dtype == full.dtype
            np.testing.assert_array_equal(found[:kept], full[:kept])
        assert np.all(values[kept:] == wanted[0][0]) and np.all(counts[kept:] == 0)
        np.testing.assert_array_equal(inverse, wanted[2])
    filled = fg.jit(lambda x: jnp.unique(x, size=count + 2, fill_value=1))(x)
    np.testing.assert_array_equal(filled, np.append(np.unique(x), np.ones(2, x.dtype)))


def test_unique_keeps_nans_apart_on_demand() -> None:
    found = fg.jit(lambda x: jnp.unique(x, equal_nan=False, size=6))(np.array([np.nan, 1.0, np.nan, 2.0]))
    np.testing.assert_array_equal(found, [1.0, 2.0, np.nan, np.nan, 1.0, 1.0])
    gradient = fg.grad(lambda x: np.sum(jnp.unique(x, size=2) ** 2))(np.array([3.0, 1.0, 3.0, 1.0]))
    np.testing.assert_array_equal(gradient, [6.0, 2.0, 0.0, 0.0])


def test_nonzero_of_many() -> None:
    x = RNG.integers(0, 2, (30, 40))
    count = int(np.sum(x))
    for size in (count, count + 5, 7):
        found = fg.jit(lambda x, n=size: jnp.nonzero(x, size=n, fill_value=-1))(x)
        for axis, full in zip(found, np.nonzero(x), strict=True):
            np.testing.assert_array_equal(axis[:count], full[:size])
            assert np.all(axis[count:] == -1)


DIFFERENTIABLE = {
    "sort": lambda np, x: np.sum(np.sort(x, axis=0) ** 3 * np.arange(1.0, 5.0)),
    "argsort": lambda np, x: np.sum(np.take_along_axis(np.sin(x), np.argsort(x, axis=1), 1) * np.arange(4.0)),
    "median": lambda np, x: np.sum(np.median(x, axis=1) ** 2),
    "quantile": lambda np, x: np.sum(np.quantile(x, np.array([0.1, 0.8]), axis=0) ** 3),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives_agree_with_jax(name: str, jax: Any) -> None:
    fun, x = DIFFERENTIABLE[name], RNG.permutation(20).reshape(5, 4) / 7.0
    for transform, theirs in ((fg.grad, jax.grad), (fg.hessian, jax.hessian)):
        found = fg.jit(transform(lambda x: fun(np, x)))(x)
        np.testing.assert_allclose(found, theirs(lambda x: fun(jax.numpy, x))(x), rtol=1e-10, atol=1e-12)


def test_results_do_not_depend_on_threads() -> None:
    x, before = RNG.normal(size=(200, 700)).round(2), fg.get_num_threads()
    fun = fg.jit(lambda x: (np.sort(x, 1), np.argsort(x, 0)))
    try:
        results = []
        for n in (1, 2, 3):
            fg.set_num_threads(n)
            results.append(fun(x))
        for other in results[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))
    finally:
        fg.set_num_threads(before)


def test_nothing_runs_in_python() -> None:
    x = np.ones((3, 4))
    text = fg.jit(lambda x: (np.sort(x), np.argsort(x), np.fft.rfft(x))).lower(x).as_text()
    assert "# host" not in text and text.count("# ") == 3


ERRORS: dict[str, tuple[Any, type[Exception], str]] = {
    "axis": (lambda x: np.sort(x, axis=2), np.exceptions.AxisError, "2 is out of bounds"),
    "side": (lambda x: np.searchsorted(x[0], x, "middle"), ValueError, "side must be 'left' or 'right'"),
    "rank": (lambda x: np.searchsorted(x, x), ValueError, "must have one axis"),
    "complex": (lambda x: np.searchsorted(x[0] * 1j, x), TypeError, "complex numbers cannot be searched"),
    "length": (lambda x: np.bincount(x[0].astype(int)), ValueError, "pass length=n"),
    "floats": (lambda x: jnp.bincount(x[0], length=3), TypeError, "a vector of integers, found float64"),
    "weights": (lambda x: np.histogram(x, 3, weights=x[0]), ValueError, "weights of 4 elements do not fit 12 values"),
    "unique": (lambda x: np.unique(x), fg.errors.ConcretizationError, "Pass size=n"),
    "unique axis": (lambda x: jnp.unique(x, axis=0, size=2), NotImplementedError, "along axis 0"),
    "unique of nothing": (lambda x: jnp.unique(x[:0], size=2), ValueError, "the array is empty"),
    "keys": (lambda x: fg.lax.sort((x, x), num_keys=3), ValueError, "num_keys is 3 for 2 operands"),
    "shapes": (lambda x: fg.lax.sort((x, x[0])), ValueError, "they must agree"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    fun, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        fg.jit(fun)(np.ones((3, 4)))
