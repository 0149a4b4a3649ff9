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
        "roots and logarithms": (lambda m, x: [y.astype(complex) for y in (m.sqrtm(x), m.logm(x), m.fractional_matrix_power(x, 0.3), m.fractional_matrix_power(x, -1.5))], (h,)),
        "roots of matrices that have complex ones": (lambda m, x: [y.astype(complex) for y in (m.sqrtm(x), m.logm(x))], (a,)),
        "whole powers": (lambda m, x: [m.fractional_matrix_power(x, 3), m.fractional_matrix_power(x, -2.0)], (a,)),
        "circular functions": (lambda m, x: [f(x / 3) for f in (m.cosm, m.sinm, m.tanm, m.coshm, m.sinhm, m.tanhm)], (a,)),
        "expm_frechet": (lambda m, x, y: [*m.expm_frechet(x, y), m.expm_frechet(x, y, compute_expm=False)], (a, h)),
        "solve_sylvester": (lambda m, x, y, q: m.solve_sylvester(x, y, q), (a + 5 * np.eye(4), draw(cplx, 2, 2), b)),
        "lyapunov": (lambda m, x, y: [m.solve_continuous_lyapunov(x, y), m.solve_lyapunov(x, y), m.solve_discrete_lyapunov(x / 9, y), m.solve_discrete_lyapunov(x / 9, y, method="bilinear")], (a + 5 * np.eye(4), h)),
        "schur": (lambda m, x: [np.abs(np.diagonal(m.schur(x, output="complex")[0])).sum(), m.schur(x)[1] @ m.schur(x)[0] @ m.schur(x)[1].conj().T], (a,)),
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
NEGATIVE = np.random.default_rng(0).normal(size=(4, 4))  # has the eigenvalue -0.67, and two complex ones
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
    "sqrtm": (lambda x: L.sqrtm(x).real, (H,)),
    "sqrtm of complex eigenvalues": (lambda x: L.sqrtm(x), (A,)),
    "sqrtm of a multiple of one": (lambda x: L.sqrtm(x), (3 * np.eye(3),)),
    "logm": (lambda x: L.logm(x), (H / 4,)),
    "logm of a multiple of one": (lambda x: L.logm(x), (3 * np.eye(3),)),
    "logm on its cut": (lambda x: L.logm(x), (NEGATIVE,)),
    "power on its cut": (lambda x: L.fractional_matrix_power(x, -1.5), (NEGATIVE,)),
    "logm undoes expm": (lambda x: L.logm(L.expm(x)), (A / 4,)),
    "power": (lambda x: L.fractional_matrix_power(x, 0.3), (H,)),
    "solve_sylvester": (L.solve_sylvester, (A + 5 * np.eye(4), A[:2, :2], A[:, :2])),
    "lyapunov": (
        lambda x, y: [L.solve_continuous_lyapunov(x, y), L.solve_discrete_lyapunov(x / 9, y)],
        (A + 5 * np.eye(4), H),
    ),
    "circular functions": (lambda x: [L.cosm(x), L.sinm(x), L.tanm(x / 9)], (A / 3,)),
    "expm_frechet": (lambda x, y: L.expm_frechet(x, y), (A / 3, H)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives(name: str, rng: np.random.Generator) -> None:
    fun, args = SMOOTH[name]

    def results(*xs: Any) -> list[Any]:
        out = fun(*xs)
        return list(out) if isinstance(out, (tuple, list)) else [out]

    check_derivatives(rng, results, list(args), 2, lambda x: x)


SQUARE = {
    "sqrtm": (L.sqrtm, lambda x: x @ x),
    "logm": (L.logm, lambda x: scipy.linalg.expm(x)),
    "power": (lambda x: L.fractional_matrix_power(x, 0.5), lambda x: x @ x),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("name", SQUARE)
def test_inverse_functions_undo(name: str, dtype: str, rng: np.random.Generator) -> None:
    """Stacks, singly and doubly batched, in every precision."""
    fun, back = SQUARE[name]
    x = (rng.normal(size=(2, 3, 4, 4)) / 4 + 2 * np.eye(4)).astype(dtype)
    for found in (fg.jit(fun)(x), fg.jit(fg.vmap(fg.vmap(fun)))(x), fg.vmap(fun, 1, 1)(x)):
        assert found.dtype == np.result_type(dtype, np.complex64)
        tolerance = 1e-4 if np.finfo(dtype).eps > 1e-10 else 1e-11
        np.testing.assert_allclose([[back(y) for y in line] for line in found], x, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("transpose", [False, True])
def test_compiled_sylvester(dtype: str, transpose: bool, rng: np.random.Generator) -> None:
    """LAPACK's routines, whichever way the operands lie, and the equation of the transposed matrices in reverse mode."""
    a, b, q = (rng.normal(size=s).astype(dtype) for s in [(5, 6, 6), (5, 3, 3), (5, 6, 3)])
    a = a + np.eye(6, dtype=dtype) * 8
    if transpose:
        a, b = np.swapaxes(a.copy(order="F"), -1, -2), np.asfortranarray(b)
    x, pull = fg.vjp(lambda a, b, q: fg.jit(L.solve_sylvester)(a, b, q), a, b, q)
    tolerance = 2e-4 if np.finfo(dtype).eps > 1e-10 else 1e-11
    np.testing.assert_allclose(a @ x + x @ b, q, rtol=tolerance, atol=tolerance)
    ct = rng.normal(size=x.shape).astype(dtype)
    _, _, dq = pull(ct)
    swapped = [np.swapaxes(m, -1, -2) for m in (a, b)]
    np.testing.assert_allclose(swapped[0] @ dq + dq @ swapped[1], ct, rtol=tolerance, atol=tolerance)


def test_one_factorisation_of_each_matrix() -> None:
    """All derivatives of a Sylvester equation use the Schur forms of its value."""
    gradient = fg.grad(lambda a, b, q: np.sum(L.solve_sylvester(a, b, q) ** 2), argnums=(0, 1, 2))
    names = [e.primitive.name for e in fg.make_jaxpr(gradient)(np.eye(3), np.eye(2), np.ones((3, 2))).eqns]
    assert names.count("schur") == 2 and names.count("sylvester") == 2


def test_singular_equations_and_roots() -> None:
    one, q = np.eye(2), np.ones((2, 2))
    assert np.isnan(fg.jit(L.solve_sylvester)(one, -one, q)).all()
    with pytest.raises(np.linalg.LinAlgError, match="eigenvalue in common"):
        fg.jvp(L.solve_sylvester, (one, -one, q), (one, one, q))
    with pytest.raises(np.linalg.LinAlgError, match="eigenvalue in common"):
        fg.jvp(lambda x: L.sqrtm(x), (np.diag([1.0, -1e-300]),), (one,))
    with pytest.warns(Warning, match="exactly singular"):
        assert np.isfinite(fg.jit(L.logm)(np.ones((2, 2)))).all()  # as SciPy: very negative numbers
    assert np.isnan(fg.jit(lambda x: [L.sqrtm(x), L.logm(x)])(np.full((2, 2), np.nan))).all()
    assert np.isnan(fg.jit(lambda x: np.diagonal(L.schur(x)[0]))(np.full((2, 2), np.nan))).all()


def test_host_steps_are_explained() -> None:
    report = fg.explain(lambda x: L.sqrtm(x).real, H)
    assert "no C interface" in str(report)
    kinds = [s.kind for s in fg.explain(lambda x: L.solve_sylvester(x, x, x), H).steps]
    assert "host" not in kinds and kinds.count("library") == 2


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
        (lambda x: L.sqrtm(x[:2]), np.linalg.LinAlgError, "sqrtm: takes square matrices"),
        (lambda x: L.logm(x[0]), np.linalg.LinAlgError, "logm: a matrix has two axes"),
        (lambda x: L.solve_sylvester(x, x[:2, :2], x), ValueError, "4 rows and 2 columns"),
        (lambda x: L.fractional_matrix_power(x, x[0, 0]), TypeError, "expm"),
        (lambda x: L.schur(x, output="upper"), ValueError, "'real' or 'complex'"),
        (lambda x: L.schur(x, sort="lhp"), NotImplementedError, "sort"),
        (fg.grad(lambda x: L.schur(x)[0].sum()), fg.NonDifferentiableError, "one of many"),
        (lambda x: L.solve_discrete_lyapunov(x, x, method="fast"), ValueError, "'direct' or 'bilinear'"),
    ],
)
def test_errors(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fg.jit(call)(H)
