# ruff: noqa: E731
"""Iterative solvers against LAPACK and SciPy, their derivatives against those of a direct solve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg as ssl

import funcgrad as fg
from funcgrad.scipy.sparse.linalg import bicgstab, cg, gmres

_rng = np.random.default_rng(0)
N = 30
GENERAL = _rng.normal(size=(N, N)) + 12 * np.eye(N)
POSITIVE = GENERAL @ GENERAL.T / N
HERMITIAN = POSITIVE + 1j * (GENERAL - GENERAL.T) / 10
B = _rng.normal(size=N)
SOLVERS = {"cg": (cg, POSITIVE), "bicgstab": (bicgstab, GENERAL), "gmres": (gmres, GENERAL)}
each = pytest.mark.parametrize("name", SOLVERS)


def close(x: Any, y: Any, rtol: float = 1e-8) -> None:
    for p, q in zip(fg.tree.leaves(x), fg.tree.leaves(y), strict=True):
        assert np.shape(p) == np.shape(q) and np.asarray(p).dtype == np.asarray(q).dtype
        np.testing.assert_allclose(p, q, rtol=rtol, atol=1e-9)


@each
def test_solutions(name: str) -> None:
    solver, a = SOLVERS[name]
    for run in (solver, lambda a, b, **k: fg.jit(lambda a, b: solver(a, b, **k))(a, b)):
        x, info = run(a, B, tol=1e-10)
        assert info == 0 and np.linalg.norm(a @ x - B) <= 1e-10 * np.linalg.norm(B)
        x, info = run(a, B, atol=1e-3, tol=0.0)
        assert info == 0 and np.linalg.norm(a @ x - B) <= 1e-3
        x, info = run(a, 0 * B)
        assert info == 0 and not x.any()


@each
def test_as_many_steps_as_scipy(name: str) -> None:
    """Not more than a step beyond SciPy's, for the same tolerance (of GMRES a step is a restart)."""
    solver, a = SOLVERS[name]
    options = {"restart": 4} if name == "gmres" else {}
    steps: list[int] = []
    inner = {"callback_type": "x"} if name == "gmres" else {}
    getattr(ssl, name)(a, B, rtol=1e-8, callback=steps.append, **options, **inner)
    for limit in (len(steps) + 1, max(len(steps) // 2, 1)):
        _, info = solver(a, B, tol=1e-8, maxiter=limit, **options)
        assert info == (0 if limit > len(steps) else limit)


@each
def test_derivatives(name: str) -> None:
    solver, a = SOLVERS[name]
    solve = lambda a, b: solver(a, b, tol=1e-13)[0]
    loss = lambda f: lambda a, b: np.sum(np.sin(f(a, b)))
    small, b = a[:4, :4], B[:4]
    for over in (
        lambda f: fg.grad(f, (0, 1)),
        lambda f: fg.jit(fg.grad(f, (0, 1))),
        lambda f: fg.jacfwd(f, (0, 1)),
        lambda f: fg.jacfwd(fg.grad(f, 1), (0, 1)),
        lambda f: fg.jit(fg.jacrev(fg.jacfwd(f, 1), (0, 1))),
        lambda f: fg.vmap(fg.grad(f, (0, 1)), (None, 0)),
    ):
        rhs = np.stack([b, 2 * b]) if "vmap" in over.__code__.co_names else b
        close(over(loss(solve))(small, rhs), over(loss(np.linalg.solve))(small, rhs), rtol=1e-6)


@each
def test_complex_matrices(name: str) -> None:
    solver, a = SOLVERS[name]
    z = HERMITIAN if name == "cg" else a + 1j * a.T
    solve = lambda z, b: solver(z, b, tol=1e-13)[0]
    close(solve(z, B), np.linalg.solve(z, B))
    loss = lambda f: fg.grad(lambda b: np.sum(np.abs(f(z, b)) ** 2))(B * (1 + 0.5j))
    close(loss(solve), loss(np.linalg.solve))


@each
def test_pytrees_preconditioners_starts_and_precision(name: str) -> None:
    solver, a = SOLVERS[name]
    matvec = lambda x: (lambda v: {"p": v[:10], "q": v[10:].reshape(4, 5)})(
        a @ np.concatenate([x["p"], x["q"].ravel()])
    )
    tree = {"p": B[:10], "q": B[10:].reshape(4, 5)}
    x, info = solver(matvec, tree, tol=1e-12)
    assert info == 0
    close(np.concatenate([x["p"], x["q"].ravel()]), np.linalg.solve(a, B))
    inverse = np.linalg.inv(a)
    for m in (inverse, lambda v: inverse @ v):
        x, info = solver(a, B, tol=1e-10, M=m, maxiter=2)
        assert info == 0
        g = fg.grad(lambda b, m=m: np.sum(solver(a, b, tol=1e-12, M=m, maxiter=3)[0]))(B)
        close(g, np.linalg.solve(a.T, np.ones(N)))
    x, info = solver(a, B, np.linalg.solve(a, B), maxiter=0, tol=1e-10)
    assert info == 0
    single, info = solver(a.astype(np.float32), B.astype(np.float32), rtol=1e-4)
    assert single.dtype == np.float32 and info == 0
    assert solver(a, np.arange(N))[0].dtype == np.float64


def test_what_does_not_converge_says_so() -> None:
    singular = np.diag(np.arange(4.0))
    for solver in (cg, bicgstab, gmres):
        for run in (solver, lambda a, b, s=solver: fg.jit(s)(a, b)):
            assert run(singular, np.ones(4))[1] != 0
        assert solver(POSITIVE, B, maxiter=0)[1] == -1
    infos = fg.vmap(lambda b: bicgstab(GENERAL, b, maxiter=1, tol=1e-12)[1])(np.stack([B, 0 * B]))
    assert infos.tolist() == [1, 0]


def test_restarted_gmres() -> None:
    shift = np.roll(np.eye(6), 1, axis=0)
    x, info = gmres(shift, np.eye(6)[0], restart=6)
    assert info == 0
    close(x, np.linalg.solve(shift, np.eye(6)[0]))
    assert gmres(shift, np.eye(6)[0], restart=5)[1] != 0  # it stagnates, as it must
    x, info = gmres(GENERAL, B, restart=3, tol=1e-11)
    assert info == 0
    close(x, np.linalg.solve(GENERAL, B))


@each
def test_bad_input(name: str) -> None:
    solver, a = SOLVERS[name]
    with pytest.raises(ValueError, match=rf"{name}: A has shape \(2, 3\), but b is a vector of 3 elements"):
        solver(np.ones((2, 3)), np.ones(3))
    with pytest.raises(ValueError, match="A is an array, for which b must be one vector"):
        solver(np.eye(4), np.ones((2, 2)))
    with pytest.raises(TypeError, match="x0 must have the structure of b"):
        solver(a, B, [B])
    with pytest.raises(ValueError, match="x0 has 2 elements and b has 30"):
        solver(a, B, np.ones(2))
    with pytest.raises(TypeError, match="A must be a square array or a function"):
        solver("A", B)
    with pytest.raises(fg.FuncgradError, match="is not linear"):
        solver(lambda x: x**2, B)
    with pytest.raises(TypeError, match="must return the structure of b"):
        solver(lambda x: [x], B)
    with pytest.raises(ValueError, match="must keep the shapes"):
        solver(lambda x: x[:2], B)
    with pytest.raises(TypeError, match="b: 'b'"):
        solver(lambda x: x, "b")


def test_same_as_jax(jax: Any) -> None:
    linalg = pytest.importorskip("jax.scipy.sparse.linalg", reason="JAX is an oracle")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        for name, (solver, a) in SOLVERS.items():
            other = getattr(linalg, name)
            loss = lambda m, s: m.grad(lambda a, b: (s(a, b, tol=1e-12)[0] ** 2).sum(), (0, 1))  # noqa: B023
            close(loss(fg, solver)(a, B), [np.asarray(x) for x in loss(jax, other)(a, B)], rtol=1e-7)
    finally:
        jax.config.update("jax_enable_x64", before)
