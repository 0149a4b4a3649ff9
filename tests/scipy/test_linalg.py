"""``scipy.linalg`` on tracers against SciPy: values and types, and derivatives by differences."""
# ruff: noqa: E501  (a row of a table is one line)

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import funcgrad as fg
from tests.ops.test_registry import check_derivatives, hermitian

RNG = np.random.default_rng(3)
L = fg.scipy.linalg


def flat(out: Any) -> list[Any]:
    return [x for o in out for x in flat(o)] if isinstance(out, (tuple, list)) else [out]


def draw(cplx: bool, *shape: int) -> Any:
    return RNG.normal(size=shape) + (1j * RNG.normal(size=shape) if cplx else 0)


def rows(cplx: bool) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    a, tall, wide, b, v = draw(cplx, 4, 4), draw(cplx, 5, 3), draw(cplx, 3, 5), draw(cplx, 4, 2), draw(cplx, 4)
    h = a @ a.conj().T + 4 * np.eye(4)
    g = h.T + np.eye(4)
    return {
        "cholesky": (lambda m, x: [m.cholesky(x), m.cholesky(x, lower=True)], (h,)),
        "cho_solve": (lambda m, x, y: [m.cho_solve(m.cho_factor(x, lower=low), y) for low in (True, False)], (h, b)),
        "cho_solve vector": (lambda m, x, y: m.cho_solve(m.cho_factor(x), y), (h, v)),
        "solve_triangular": (lambda m, x, y: [m.solve_triangular(x, y, trans=t, lower=low, unit_diagonal=u) for t in (0, 1, 2, "C") for low in (0, 1) for u in (0, 1)], (a + 3 * np.eye(4), v)),
        "lu_solve": (lambda m, x, y: [m.lu_solve(m.lu_factor(x), y, trans=t) for t in (0, 1, 2)], (a, b)),
        "lu_factor": (lambda m, x: m.lu_factor(x), (a,)),
        "lu": (lambda m, x: [*m.lu(x), *m.lu(x, permute_l=True), *m.lu(x, p_indices=True)], (tall,)),
        "lu wide": (lambda m, x: m.lu(x), (wide,)),
        "solve": (lambda m, x, y: [m.solve(x, y), m.solve(x, y, assume_a="pos"), m.solve(x, y, assume_a="her", lower=True)], (h, b)),
        "solve transposed": (lambda m, x, y: m.solve(x, y, transposed=True), (a.real, v.real)),
        "solve triangle": (lambda m, x, y: m.solve(x, y, assume_a="lower triangular"), (np.tril(a), b)),
        "inverses": (lambda m, x: [m.inv(x), m.det(x), m.pinv(x)], (a,)),
        "lstsq": (lambda m, x, y: m.lstsq(x, y)[0], (tall, draw(cplx, 5, 2))),
        "qr": (lambda m, x: [*m.qr(x), *m.qr(x, mode="economic"), *m.qr(x, mode="r")], (tall,)),
        "singular values": (lambda m, x: [m.svdvals(x), m.svd(x, compute_uv=False), m.svd(x)[1]], (tall,)),
        "eigh": (lambda m, x, y: [m.eigvalsh(x), m.eigh(x, eigvals_only=True), m.eigh(x, y, eigvals_only=True), m.eigh(x, y, lower=False)[0]], (h, g)),
        "eig": (lambda m, x: [m.eigvals(x), m.norm(x), m.norm(x, "nuc"), *np.abs(m.eig(x)[1])], (a,)),
        "polar": (lambda m, x: [*m.polar(x), *m.polar(x, side="left")], (tall,)),
        "polar wide": (lambda m, x: [*m.polar(x), *m.polar(x, side="left")], (wide,)),
        "expm": (lambda m, x: [m.expm(x), m.expm(20 * x), m.expm(0.01 * x), m.expm(0 * x)], (a,)),
        "block_diag": (lambda m, x, y: m.block_diag(x, y, x, 2.0), (tall, b)),
        "toeplitz": (lambda m, x, y: [m.toeplitz(x), m.toeplitz(x, y), m.hankel(x), m.hankel(x, y), m.circulant(x)], (v, draw(cplx, 3))),
    }  # fmt: skip


ROWS = {f"{name}{' complex' if cplx else ''}": row for cplx in (False, True) for name, row in rows(cplx).items()}


@pytest.mark.parametrize("name", ROWS)
def test_values(name: str) -> None:
    fun, args = ROWS[name]
    wanted = flat(fun(scipy.linalg, *args))
    for found in (fg.jit(lambda *xs: fun(L, *xs))(*args), fun(L, *args)):
        for x, y in zip(map(np.asarray, flat(found)), map(np.asarray, wanted), strict=True):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9 * max(1, np.abs(y).max()))


def test_generalized_eigenvectors() -> None:
    h, g = ROWS["eigh complex"][1]
    w, v = fg.jit(L.eigh)(h, g)
    np.testing.assert_allclose(h @ v, g @ v * w, atol=1e-10)
    np.testing.assert_allclose(v.conj().T @ g @ v, np.eye(4), atol=1e-10)


def log_likelihood(m: ModuleType, x: Any, y: Any) -> Any:
    factor = m.cho_factor(hermitian(x), lower=True)
    return y @ m.cho_solve(factor, y) + np.sum(np.log(np.diagonal(factor[0])))


A, V = ROWS["lu_solve"][1][0], RNG.normal(size=4)
H = ROWS["cholesky"][1][0]
SMOOTH: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "likelihood": (lambda x, y: log_likelihood(L, x, y), (H, V)),
    "expm": (lambda x: L.expm(x), (A,)),
    "expm scaled": (lambda x: L.expm(12 * x / np.abs(x).sum()), (A,)),
    "lu_solve": (lambda x, y: L.lu_solve(L.lu_factor(x), y, trans=1), (A, V)),
    "solve positive": (lambda x, y: L.solve(hermitian(x), y, assume_a="pos"), (H, V)),
    "solve symmetric": (lambda x, y: L.solve(x, y, assume_a="sym"), (H, V)),
    "triangular": (lambda x, y: L.solve_triangular(x, y, trans=1, lower=True), (A + 3 * np.eye(4), V)),
    "polar": (lambda x: list(L.polar(x)), (A,)),
    "generalized": (lambda x, y: L.eigvalsh(hermitian(x), hermitian(y)), (H, H.T + np.diag(np.arange(1.0, 5)))),
    "toeplitz": (lambda x: L.toeplitz(x) @ L.circulant(x), (V,)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives(name: str, rng: np.random.Generator) -> None:
    fun, args = SMOOTH[name]

    def results(*xs: Any) -> list[Any]:
        out = fun(*xs)
        return list(out) if isinstance(out, (tuple, list)) else [out]

    check_derivatives(rng, results, list(args), 2, lambda x: x)


def test_stacks_where_scipy_has_none() -> None:
    stack = np.stack([H, 2 * H, H + np.eye(4)] * 4)
    found = fg.jit(fg.vmap(lambda x: log_likelihood(L, x, V)))(stack)
    np.testing.assert_allclose(found, [log_likelihood(scipy.linalg, x, V) for x in stack], rtol=1e-12)


def test_exponentials_of_huge_matrices_are_nan() -> None:
    assert np.isnan(fg.jit(L.expm)(np.full((2, 2), 1e9))).all()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda x: L.qr(x, pivoting=True), ValueError, "without pivoting"),
        (lambda x: L.eigh(x, subset_by_index=[0, 1]), TypeError, "subset_by_index"),
        (lambda x: L.polar(x, side="up"), ValueError, "'right' or 'left'"),
        (lambda x: L.solve(x, x, assume_a="nice"), ValueError, "'nice' is not known"),
        (lambda x: L.pinv(x, atol=1.0), TypeError, "give rtol"),
        (lambda x: L.expm(x[:2]), np.linalg.LinAlgError, "square"),
    ],
)
def test_errors(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fg.jit(call)(H)
