"""vmap against the Python loop it replaces."""

from __future__ import annotations

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax


def loop(f, *args, axes=0):
    axes = axes if isinstance(axes, tuple) else (axes,) * len(args)
    n = next(a.shape[k] for a, k in zip(args, axes, strict=True) if k is not None)
    return np.stack(
        [f(*[a if k is None else np.take(a, i, axis=k) for a, k in zip(args, axes, strict=True)]) for i in range(n)]
    )


def f2(a, b):
    return np.tanh(a @ b) + np.sum(a) * b[0]


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (1, 0), (-1, None), (2, 1)])
def test_in_axes(rng, axes) -> None:
    shapes = [(2, 3), (3, 4)]
    sizes = []
    for s, k in zip(shapes, axes, strict=True):
        s = list(s)
        if k is not None:
            s.insert(k if k >= 0 else len(s) + 1 + k, 5)
        sizes.append(s)
    a, b = (rng.normal(size=s) for s in sizes)
    found = fg.vmap(f2, in_axes=axes)(a, b)
    np.testing.assert_allclose(found, loop(f2, a, b, axes=axes), rtol=1e-13)


@pytest.mark.parametrize("out_axes", [0, 1, 2, -1, -2])
def test_out_axes(rng, out_axes) -> None:
    a, b = rng.normal(size=(5, 2, 3)), rng.normal(size=(3, 4))
    found = fg.vmap(f2, (0, None), out_axes)(a, b)
    np.testing.assert_allclose(found, np.moveaxis(loop(f2, a, b, axes=(0, None)), 0, out_axes), rtol=1e-13)


def test_pytree_prefixes_keywords_and_unmapped_results(rng) -> None:
    tree = {"a": rng.normal(size=(3, 2)), "b": (rng.normal(size=(2, 3)), 5.0)}
    f = lambda t, *, k: {"s": t["a"] * t["b"][1] + k, "c": t["b"][1] * 2, "r": t["b"][0] + 1}  # noqa: E731
    out = fg.vmap(f, in_axes=({"a": 0, "b": (1, None)},), out_axes={"s": 1, "c": None, "r": 0})(tree, k=np.arange(3.0))
    np.testing.assert_allclose(out["s"], (tree["a"] * 5 + np.arange(3.0)[:, None]).T)
    assert out["c"] == 10.0
    np.testing.assert_allclose(out["r"], tree["b"][0].T + 1)


def test_unbatched_result_is_repeated() -> None:
    np.testing.assert_array_equal(fg.vmap(lambda x: np.ones(2))(np.zeros(3)), np.ones((3, 2)))
    np.testing.assert_array_equal(fg.vmap(lambda: 1.0, axis_size=4)(), np.ones(4))


def test_nested(rng) -> None:
    a, b = rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    outer = fg.vmap(lambda x: fg.vmap(lambda y: np.dot(x, y))(b))(a)
    np.testing.assert_allclose(outer, a @ b.T)


def test_with_derivatives(rng) -> None:
    w, xs = rng.normal(size=4), rng.normal(size=(6, 4))
    f = lambda w, x: np.tanh(np.dot(w, x)) ** 2  # noqa: E731
    per_example = fg.vmap(fg.grad(f), (None, 0))(w, xs)
    np.testing.assert_allclose(per_example, np.stack([fg.grad(f)(w, x) for x in xs]), rtol=1e-12)
    whole = fg.grad(lambda w: np.sum(fg.vmap(f, (None, 0))(w, xs)))(w)
    np.testing.assert_allclose(whole, per_example.sum(0), rtol=1e-12)
    np.testing.assert_allclose(
        fg.vmap(fg.hessian(f), (None, 0))(w, xs)[2], fg.hessian(f)(w, xs[2]), rtol=1e-11, atol=1e-13
    )


def test_zero_size_batch() -> None:
    assert fg.vmap(lambda x: np.sum(x**2))(np.ones((0, 3))).shape == (0,)


def test_collectives(rng) -> None:
    x = rng.normal(size=(4, 3))
    normalised = fg.vmap(lambda r: r / lax.psum(r, "i"), axis_name="i")(x)
    np.testing.assert_allclose(normalised, x / x.sum(0))
    np.testing.assert_allclose(fg.vmap(lambda r: lax.pmean(r, "i"), axis_name="i")(x), np.tile(x.mean(0), (4, 1)))
    np.testing.assert_array_equal(fg.vmap(lambda r: lax.pmax(r, "i"), axis_name="i")(x), np.tile(x.max(0), (4, 1)))
    np.testing.assert_array_equal(fg.vmap(lambda r: lax.axis_index("i"), axis_name="i")(x), np.arange(4))
    np.testing.assert_array_equal(fg.vmap(lambda r: lax.all_gather(r, "i"), axis_name="i")(x), np.stack([x] * 4))
    shifted = fg.vmap(lambda r: lax.ppermute(r, "i", [(k, (k + 1) % 4) for k in range(4)]), axis_name="i")(x)
    np.testing.assert_array_equal(shifted, np.roll(x, 1, axis=0))
    square = rng.normal(size=(4, 4, 2))
    swapped = fg.vmap(lambda r: lax.all_to_all(r, "i", 0, 0), axis_name="i")(square)
    np.testing.assert_array_equal(swapped, np.swapaxes(square, 0, 1))
    g = fg.grad(lambda z: np.sum(fg.vmap(lambda r: r * lax.psum(r, "i"), axis_name="i")(z)))(x[:, 0])
    np.testing.assert_allclose(g, np.full(4, 2 * x[:, 0].sum()))


def test_collective_inside_jit_and_nested_names(rng) -> None:
    x = rng.normal(size=(2, 3))
    inner = fg.jit(lambda r: lax.psum(r, "i") + lax.axis_index("j"))
    found = fg.vmap(fg.vmap(inner, axis_name="i"), axis_name="j")(x)
    np.testing.assert_allclose(found, np.tile(x.sum(1, keepdims=True), (1, 3)) + np.arange(2)[:, None])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: fg.vmap(lambda a, b: a)(np.ones(3), {"k": np.ones(4)}),
            ValueError,
            r"size 3: axis 0 of argument 'a', shape \(3,\).*size 4: axis 0 of argument 'b'\['k'\], shape \(4,\)",
        ),
        (lambda: fg.vmap(lambda a: a, in_axes=(0, 0))(np.ones(3)), ValueError, "in_axes has 2 entries.*1 positional"),
        (lambda: fg.vmap(lambda a: a, in_axes=({"x": 0},))({"y": np.ones(3)}), ValueError, "in_axes must be a prefix"),
        (lambda: fg.vmap(lambda a: a, in_axes=1)(np.ones(3)), ValueError, r"axis 1 of argument 'a'"),
        (lambda: fg.vmap(lambda a: a)(1.0), ValueError, "a scalar has no axis"),
        (lambda: fg.vmap(lambda a: a, in_axes="x"), TypeError, "in_axes must be"),
        (lambda: fg.vmap(lambda a: a, in_axes=None)(np.ones(3)), ValueError, "no argument has a mapped axis"),
        (lambda: fg.vmap(lambda a: a, out_axes=None)(np.ones(3)), ValueError, "out_axes is None, but"),
        (lambda: fg.vmap(lambda a: a, out_axes=3)(np.ones(3)), ValueError, "out_axes asks for axis 3"),
        (lambda: fg.vmap(lambda a: a, axis_size=2)(np.ones(3)), ValueError, "size 2: axis_size"),
        (lambda: lax.psum(1.0, "nowhere"), NameError, "nowhere"),
        (lambda: fg.vmap(lambda a: a)({"k": "s"}), TypeError, r"vmap: argument 'a'\['k'\] of <lambda>: 's'"),
        (lambda: fg.vmap(lambda a, b: a)(np.ones(3), b=1.0), ValueError, "keyword arguments are always mapped"),
        (lambda: fg.vmap(lambda a: a, None, axis_size=-1), TypeError, "axis_size must be a non-negative integer"),
        (lambda: fg.vmap(lambda a: a, None, axis_size="2"), TypeError, "axis_size must be a non-negative integer"),
        (lambda: fg.vmap(lambda a: a, axis_name=[]), TypeError, "axis_name must be hashable"),
    ],
)
def test_errors_name_the_argument(call, error, text) -> None:
    with pytest.raises(error, match=f"(?s){text}"):
        call()
