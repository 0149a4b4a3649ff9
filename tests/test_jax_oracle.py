"""JAX as an oracle (bench extra): the same function text under both libraries, values and derivatives compared."""

from __future__ import annotations

import numpy as np
import pytest

import funcgrad as fg

jax = pytest.importorskip("jax", reason="JAX is an oracle, installed with the bench extra only")
jnp = pytest.importorskip("jax.numpy", reason="JAX is an oracle, installed with the bench extra only")


REAL = {
    "softmax entropy": lambda np: (
        lambda x: -np.sum(np.exp(x) / np.sum(np.exp(x)) * np.log(np.exp(x) / np.sum(np.exp(x))))
    ),
    "power": lambda np: lambda x: np.sum(np.abs(x) ** 1.7 + x**3 - 2.0**x),
    "quotients": lambda np: lambda x: np.sum(np.arctan2(x, x[::-1] + 3) / (1 + x**2)),
    "norm": lambda np: lambda x: np.linalg.norm(x) * np.linalg.norm(x, 1),
    "einsum": lambda np: lambda x: np.einsum("i,j,ij->", x, np.sin(x), np.outer(x, np.cos(x))),
    "sorting": lambda np: lambda x: np.sum(np.sort(x) * np.arange(1.0, 7.0)),
    "cumulative": lambda np: lambda x: np.sum(np.cumsum(np.sin(x)) * np.cumprod(np.cos(x))),
    "maxima": lambda np: lambda x: np.max(x) * np.min(x) + np.sum(np.maximum(x, 0.3)) + np.prod(x),
    "indexing": lambda np: lambda x: np.sum(x[np.array([0, 0, 3, 5])] ** 2) + x[-1] * x[2:5].sum(),
    "where": lambda np: lambda x: np.sum(np.where(x > 0, np.sqrt(np.abs(x)), x**2)),
    "moments": lambda np: lambda x: np.var(x) + np.std(x, ddof=1) + np.mean(x**3),
    "matrix": lambda np: lambda x: np.sum(np.tanh(x.reshape(2, 3) @ x.reshape(3, 2))) + np.trace(np.outer(x, x)),
    "clip and round": lambda np: lambda x: np.sum(np.clip(x, -0.5, 0.5) * np.round(3 * x)),
    "hyperbolic": lambda np: lambda x: np.sum(np.arcsinh(x) + np.log1p(np.cosh(x)) * np.expm1(-np.abs(x))),
    "stacking": lambda np: lambda x: np.sum(np.concatenate([x[:2], np.stack([x, x**2])[1, 2:]]) * np.flip(x)),
    "padding": lambda np: lambda x: np.sum(np.pad(x.reshape(2, 3), ((1, 0), (0, 2)), mode="constant") ** 3),
}


def _positive(np, x):
    x = x.reshape(2, 3)
    return x.T @ x + np.eye(3) + np.diag(x[0]) * 0.1


REAL.update(
    {
        "solve and inv": lambda np: lambda x: (
            np.linalg.solve(_positive(np, x), x[:3]) @ np.linalg.inv(_positive(np, x))[0]
        ),
        "determinants": lambda np: lambda x: np.linalg.det(_positive(np, x)) + np.linalg.slogdet(_positive(np, x))[1],
        "cholesky": lambda np: lambda x: np.sum(np.sin(np.linalg.cholesky(_positive(np, x)))),
        "gradient of cholesky": lambda np: lambda x: np.sum(np.linalg.cholesky(_positive(np, x)) ** 3),
        "eigenvalues": lambda np: lambda x: np.sum(np.linalg.eigvalsh(_positive(np, x)) ** 2 * np.arange(3.0)),
        "eigenvectors": lambda np: lambda x: np.sum(np.linalg.eigh(_positive(np, x))[1] ** 4),
        "singular values": lambda np: lambda x: np.sum(np.linalg.svd(x.reshape(2, 3), compute_uv=False) ** 3),
        "singular vectors": lambda np: lambda x: np.sum(np.linalg.svd(x.reshape(3, 2), full_matrices=False)[0] ** 4),
        "qr": lambda np: lambda x: np.sum(np.sin(np.linalg.qr(x.reshape(3, 2))[1])),
        "pinv and norms": lambda np: lambda x: (
            np.sum(np.linalg.pinv(x.reshape(3, 2))[0] ** 2) + np.linalg.norm(x.reshape(2, 3), 2)
        ),
    }
)  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_functions(name, rng) -> None:
    x, v = rng.normal(size=(2, 6))
    ours, theirs = REAL[name](np), REAL[name](jnp)
    checks = {
        "value": (ours(x), theirs(x)),
        "gradient": (fg.grad(ours)(x), jax.grad(theirs)(x)),
        "jitted gradient": (fg.jit(fg.grad(ours))(x), jax.grad(theirs)(x)),
        "jvp": (fg.jvp(ours, (x,), (v,))[1], jax.jvp(theirs, (x,), (v,))[1]),
        "hessian": (fg.hessian(ours)(x), jax.hessian(theirs)(x)),
        "jitted hessian": (fg.jit(fg.hessian(ours))(x), jax.hessian(theirs)(x)),
    }
    for what, (found, expected) in checks.items():
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9, err_msg=what)


COMPLEX = {
    "real part": lambda np: lambda w: np.real(w * w),
    "modulus": lambda np: lambda w: np.abs(w) ** 2,
    "exponential": lambda np: lambda w: np.real(np.exp(1j * w) * np.conj(w)),
    "logarithm": lambda np: lambda w: np.real(np.log(w) * np.sqrt(w)),
    "quotient": lambda np: lambda w: np.imag((1 + w) / (w * w + 2j)),
    "power": lambda np: lambda w: np.real(w ** (0.3 + 1j)),
    "tanh": lambda np: lambda w: np.abs(np.tanh(w) * np.sin(w)),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_gradients_follow_the_same_convention(name) -> None:
    z = 1.2 - 0.7j
    ours, theirs = COMPLEX[name](np), COMPLEX[name](jnp)
    expected = jax.grad(theirs)(z)
    np.testing.assert_allclose(fg.grad(ours)(z), expected, rtol=1e-12)
    np.testing.assert_allclose(fg.jit(fg.grad(ours))(z), expected, rtol=1e-12)


def test_gradient_of_cholesky_is_symmetric_as_in_jax(rng) -> None:
    x = rng.normal(size=(4, 4))
    x = x @ x.T + np.eye(4)
    weights = rng.normal(size=(4, 4))
    found = fg.grad(lambda x: np.sum(np.linalg.cholesky(x) * weights))(x)
    np.testing.assert_allclose(found, jax.grad(lambda x: jnp.sum(jnp.linalg.cholesky(x) * weights))(x), rtol=1e-10)
    found = fg.grad(lambda x: np.sum(np.linalg.eigh(x)[0] ** 3 * weights[0]))(x)
    expected = jax.grad(lambda x: jnp.sum(jnp.linalg.eigh(x)[0] ** 3 * weights[0]))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


LAX = {
    "cholesky": lambda lax: lambda x: lax.linalg.cholesky(x @ x.mT + 1.0),
    "triangular_solve": lambda lax: lambda x: lax.linalg.triangular_solve(x + 3.0, x, lower=True, transpose_a=True),
    "triangular_solve left": lambda lax: lambda x: lax.linalg.triangular_solve(x + 3.0, x, left_side=True),
    "lu": lambda lax: lambda x: lax.linalg.lu(x),
    "pivots": lambda lax: lambda x: lax.linalg.lu_pivots_to_permutation(lax.linalg.lu(x)[1], 5),
    "qr": lambda lax: lambda x: lax.linalg.qr(x, full_matrices=False),
    "svd": lambda lax: lambda x: lax.linalg.svd(x, compute_uv=False),
    "eigh": lambda lax: lambda x: lax.linalg.eigh(x)[1],
}


@pytest.mark.parametrize("name", LAX)
def test_lax_linalg(name, rng) -> None:
    x = rng.normal(size=(2, 4, 4))
    ours, theirs = fg.jit(LAX[name](fg.lax))(x), jax.jit(LAX[name](jax.lax))(x)
    for found, expected in zip(fg.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.asarray(found).dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
