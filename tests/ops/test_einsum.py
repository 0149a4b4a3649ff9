"""Contractions against NumPy: einsum over random subscripts, matmul, tensordot, dot over random shapes."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import funcgrad.ops.operators  # noqa: F401  (attaches the operators that rules are written with)
from funcgrad.ops.dot import dot, inner, matmul, outer, tensordot, vdot
from funcgrad.ops.einsum import diagonal, einsum
from funcgrad.transforms.forward import jvp_flat
from funcgrad.transforms.linear import linearize_flat

EXTENTS = dict(zip(string.ascii_lowercase, [2, 3, 1, 4, 2, 3], strict=False))


def arrays(subscripts: str, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    left = subscripts.partition("->")[0].replace(" ", "")
    shapes = []
    for term in left.split(","):
        before, dots, after = term.partition("...")
        hidden = (2, 3) if dots else ()
        shapes.append((*[EXTENTS[c] for c in before], *hidden, *[EXTENTS[c] for c in after]))
    return [np.asarray(rng.normal(size=s))[()] for s in shapes]


FIXED = [
    "ab,bc->ac",
    "ab,bc",
    "ba,b",
    "a,a->",
    "a,b->ab",
    "aa->a",
    "aa",
    "aab->b",
    "aba->ba",
    "abc->cab",
    "ab->",
    "a,a->a",
    "ab,ab->a",
    "ab,ba->",
    "abd,bde->ade",
    "abd,dbf->af",
    "...a,ab->...b",
    "a...,a...->...",
    "...->...",
    "...ab->...ba",
    "...a,...a",
    "ab,bd,df->af",
    "ab,ab,ab->ab",
    "a,b,d,a->bd",
    "ab,bd,da->",
    ",a->a",
    "ab,->",
    "d,ab,a,bd->",
    "abdf,abdf->bd",
    "aab,abb->ab",
    " a b , b d -> d a ",
    "bad->bad",
]


@pytest.mark.parametrize("subscripts", FIXED)
def test_einsum_fixed(subscripts: str) -> None:
    xs = arrays(subscripts)
    np.testing.assert_allclose(einsum(subscripts, *xs), np.einsum(subscripts, *xs), rtol=1e-12, atol=1e-12)


@st.composite
def subscripts(draw: Any) -> str:
    terms = draw(st.lists(st.text("abcdef", max_size=3), min_size=1, max_size=4))
    used = sorted(set("".join(terms)))
    output = draw(st.permutations(used))[: draw(st.integers(0, len(used)))]
    return ",".join(terms) + "->" + "".join(output)


@given(subscripts(), st.integers(0, 3))
def test_einsum_random(text: str, seed: int) -> None:
    xs = arrays(text, seed)
    found = einsum(text, *xs)
    np.testing.assert_allclose(found, np.einsum(text, *xs), rtol=1e-11, atol=1e-11)
    # it is multilinear: the derivative along x itself, in the first operand, is the result
    _, (t,) = jvp_flat(lambda x: [einsum(text, x, *xs[1:])], xs[:1], xs[:1])
    np.testing.assert_allclose(t, found, rtol=1e-11, atol=1e-11)
    _, linear = linearize_flat(lambda *v: [einsum(text, *v)], xs)
    ct = np.random.default_rng(seed).normal(size=np.shape(found))
    for x, c in zip(xs, linear.transpose([ct]), strict=True):
        assert np.sum(np.multiply(c, x)) == pytest.approx(np.sum(ct * found), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("s, t", [((2, 1), (3, 4)), ((1, 3), (3, 4)), ((2, 3), (1, 4))])
def test_einsum_stretches_extent_one(s: Any, t: Any) -> None:
    x, y = np.ones(s), np.arange(float(np.prod(t))).reshape(t)
    np.testing.assert_array_equal(einsum("ab,bc->ac", x, y), np.einsum("ab,bc->ac", x, y))


def test_einsum_sublists_and_dtypes() -> None:
    x, y = np.arange(6).reshape(2, 3), np.arange(12, dtype=np.float32).reshape(3, 4)
    found = einsum(x, [0, 1], y, [1, 2], [2, 0])
    wanted = np.einsum(x, [0, 1], y, [1, 2], [2, 0])
    assert found.dtype == wanted.dtype == np.float64
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(einsum(x, [Ellipsis, 1]), np.einsum(x, [Ellipsis, 1]))
    assert einsum("ab,b->a", y.T, np.float32([1, 2, 3])).dtype == np.float32


@pytest.mark.parametrize(
    "text, shapes, words",
    [
        ("ab,bc->ac", [(2, 3), (4, 5)], "label 'b'.*extents 3 and 4"),
        ("ab->a", [(2,)], "operand 0 has 1 axes"),
        ("ab,b->a", [(2, 3)], "terms for 2 operands, found 1"),
        ("ab->ac", [(2, 3)], "output label 'c'.*no operand"),
        ("ab->aa", [(2, 3)], "appears twice"),
        ("a$->a", [(2, 3)], "letters, commas"),
        ("aa->a", [(2, 3)], "label 'a'"),
        ("...a->a", [(2, 3)], "sums over the axes"),
        ("abc...", [(2, 3)], "do not fit operand 0"),
    ],
)
def test_einsum_errors(text: str, shapes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        einsum(text, *[np.ones(s) for s in shapes])


stacks = st.sampled_from([(), (1,), (2,), (3, 1), (1, 2), (3, 2), (0,)])


@given(stacks, stacks, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans())
def test_matmul(left: Any, right: Any, m: int, k: int, n: int, row: bool, column: bool) -> None:
    x = np.random.default_rng(0).normal(size=(k,) if row else (*left, m, k))
    y = np.random.default_rng(1).normal(size=(k,) if column else (*right, k, n))
    try:
        wanted = np.matmul(x, y)
    except ValueError:
        with pytest.raises(ValueError, match="matmul: shapes"):
            matmul(x, y)
        return
    found = matmul(x, y)
    assert np.shape(found) == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_matmul_errors() -> None:
    for s, t in [((2, 3), (2, 3)), ((3,), (2,)), ((), (2,)), ((2, 2, 2), (3, 2, 2))]:
        with pytest.raises(ValueError, match="matmul: shapes"):
            matmul(np.ones(s), np.ones(t))


@pytest.mark.parametrize(
    "s, t", [((2, 3), (3, 4)), ((3,), (3,)), ((2, 3), (4, 3, 5)), ((), (3,)), ((2, 2), ()), ((0,), (0,))]
)
def test_dot(s: Any, t: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=s), rng.normal(size=t)
    np.testing.assert_allclose(dot(x, y), np.dot(x, y), rtol=1e-13)
    np.testing.assert_allclose(outer(x, y), np.outer(x, y), rtol=1e-13)


def test_the_other_products() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 3, 5))
    np.testing.assert_allclose(tensordot(x, y, ((2, 1), (0, 1))), np.tensordot(x, y, ((2, 1), (0, 1))), rtol=1e-12)
    np.testing.assert_allclose(tensordot(x, y, (2, 0)), np.tensordot(x, y, (2, 0)), rtol=1e-12)
    np.testing.assert_allclose(tensordot(x, y, 0), np.tensordot(x, y, 0), rtol=1e-12)
    np.testing.assert_allclose(inner(x, x[0]), np.inner(x, x[0]), rtol=1e-12)
    z = x + 1j
    np.testing.assert_allclose(vdot(z, 1j * z, np.conj), np.vdot(z, 1j * z), rtol=1e-12)
    np.testing.assert_array_equal(diagonal(x, 1, 2), np.diagonal(x, 0, 1, 2))
    np.testing.assert_array_equal(diagonal(y, 0, 1), np.diagonal(y, 0, 0, 1))
    with pytest.raises(ValueError, match="differ along the summed axes"):
        tensordot(x, y, 1 + 1)


def test_integers_and_booleans() -> None:
    x = np.arange(6, dtype=np.int8).reshape(2, 3)
    assert dot(x, x.T).dtype == np.int8
    b = x > 2
    np.testing.assert_array_equal(dot(b, b.T), np.dot(b, b.T))
