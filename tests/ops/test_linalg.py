"""Dense linear algebra beyond the registry's rows: one factorisation for all derivatives, undetermined parts,
singular matrices, failures, storage orders, many small matrices, threads."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.kernels.rules import SMALL_MATRIX, SMALL_STACK
from funcgrad.ops import lu
from funcgrad.ops.cholesky import cholesky, triangular_solve
from funcgrad.ops.spectral import eigh, qr, svd

la = np.linalg


def random(rng: np.random.Generator, dtype: str, *shape: int) -> Any:
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape) if dtype[0] == "c" else x).astype(dtype)


def adjoint(x: Any) -> Any:
    return np.conj(np.swapaxes(x, -1, -2))


def positive(rng: np.random.Generator, dtype: str, *shape: int) -> Any:
    x = random(rng, dtype, *shape)
    return x @ adjoint(x) + shape[-1] * np.eye(shape[-1], dtype=dtype)


# derivatives reuse the factors --------------------------------------------------------------------------------------

A = np.array([[3.0, 1.0, 0.2], [1.0, -2.0, 0.4], [0.1, 0.3, 1.5]])
B = np.array([1.0, -2.0, 0.5])
DERIVED = {
    "gradient": lambda f: fg.grad(f, (0, 1)),
    "value and gradient": lambda f: fg.value_and_grad(f, (0, 1)),
    "jvp": lambda f: lambda a, b: fg.jvp(f, (a, b), (b * a, b)),
    "jacobian": lambda f: fg.jacrev(lambda a, b: la.solve(a, b)),
    "hessian": lambda f: fg.hessian(f),
    "hessian vector product": lambda f: lambda a, b: fg.grad(lambda x: np.vdot(fg.grad(f)(x, b), a))(a),
    "batch": lambda f: fg.vmap(fg.grad(f), in_axes=(None, 0)),
}


@pytest.mark.parametrize("name", DERIVED)
def test_one_factorisation(name: str) -> None:
    derived = DERIVED[name](lambda a, b: np.sum(la.solve(a, b) ** 2))
    b = np.stack([B, 2 * B]) if name == "batch" else B
    text = fg.jit(derived).trace(A, b).lower().as_text()
    assert text.count("# library lu\n") == 1


def test_log_determinant_shares_the_factorisation_of_the_system() -> None:
    def loss(a: Any, b: Any) -> Any:
        return la.slogdet(a)[1] + b @ la.solve(a, b)

    assert fg.jit(fg.grad(loss)).trace(A, B).lower().as_text().count("# library lu\n") == 1


# undetermined parts are zero ----------------------------------------------------------------------------------------


def spread(values: Any, rng: np.random.Generator) -> Any:
    q = la.qr(rng.normal(size=(len(values),) * 2))[0]
    x = q @ np.diag(values) @ q.T
    return (x + x.T) / 2


@pytest.mark.parametrize("values", [(1, 1, 1), (1, 1, 2), (0, 0, 0), (0, 0, 3), (2, 2, 2, -1, -1)], ids=str)
def test_equal_eigenvalues(values: tuple[float, ...], rng: np.random.Generator) -> None:
    x = spread(np.array(values, float), rng) if any(values) else np.zeros((3, 3))
    direction = rng.normal(size=x.shape)
    direction = direction + direction.T
    for weight in (lambda v: np.sum(v * np.arange(v.size).reshape(v.shape)), lambda v: np.sum(v**3)):

        def loss(x: Any, weight: Any = weight) -> Any:
            w, v = la.eigh(x)
            return weight(v) + np.sum(w**2)

        first = fg.grad(loss)(x)
        second = fg.jvp(fg.grad(loss), (x,), (direction,))[1]
        assert np.isfinite(first).all() and np.isfinite(second).all()
        assert np.abs(first).max() < 100 and np.isfinite(fg.jit(fg.grad(loss))(x)).all()
    # symmetric functions of the eigenvalues do not depend on the choice of vectors
    np.testing.assert_allclose(fg.grad(lambda x: np.sum(la.eigh(x)[0] ** 3))(x), 3 * x @ x, atol=1e-12)
    np.testing.assert_allclose(fg.grad(lambda x: np.sum(la.eigvalsh(x) ** 2))(x), 2 * x, atol=1e-12)


def test_projector_on_equal_eigenvalues(rng: np.random.Generator) -> None:
    """The space that belongs to a group of equal eigenvalues is determined, though no vector in it is."""
    x = spread(np.array([1.0, 1.0, 1.0, 4.0, 4.0]), rng)
    v = rng.normal(size=(5, 5))
    v = v + v.T

    def projector(x: Any) -> Any:
        vectors = la.eigh(x)[1][:, :3]
        return vectors @ vectors.T

    h = 1e-6
    wanted = (projector(x + h * v) - projector(x - h * v)) / (2 * h)
    np.testing.assert_allclose(fg.jvp(projector, (x,), (v,))[1], wanted, atol=1e-8)


@pytest.mark.parametrize("kind", ["identity", "zero", "rank 1", "tall orthonormal"])
def test_equal_and_vanishing_singular_values(kind: str, rng: np.random.Generator) -> None:
    x = {
        "identity": np.eye(3), "zero": np.zeros((3, 2)), "rank 1": np.outer(rng.normal(size=3), rng.normal(size=4)),
        "tall orthonormal": la.qr(rng.normal(size=(4, 3)))[0],
    }[kind]  # fmt: skip

    def loss(x: Any) -> Any:
        u, s, vh = la.svd(x, full_matrices=False)
        return np.sum(u**3) + np.sum(s**2) + np.sum(vh * np.arange(vh.size).reshape(vh.shape))

    assert np.isfinite(fg.grad(loss)(x)).all() and np.abs(fg.grad(loss)(x)).max() < 1e3
    assert np.isfinite(fg.jvp(fg.grad(loss), (x,), (rng.normal(size=x.shape),))[1]).all()
    np.testing.assert_allclose(fg.grad(lambda x: np.sum(la.svdvals(x) ** 2))(x), 2 * x, atol=1e-12)


# singular matrices --------------------------------------------------------------------------------------------------


def cofactors(x: Any) -> Any:
    out = np.empty_like(x)
    for i, j in np.ndindex(x.shape):
        minor = np.delete(np.delete(x, i, 0), j, 1)
        out[i, j] = (-1) ** (i + j) * la.det(minor)
    return out


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_determinant_of_singular_matrices(n: int, missing: int, rng: np.random.Generator) -> None:
    x = rng.integers(-3, 4, size=(n, n)).astype(float)
    x[:, :missing] = 0  # exactly singular, with its zero pivots first
    np.testing.assert_allclose(fg.grad(la.det)(x), cofactors(x), atol=1e-9)
    np.testing.assert_allclose(fg.jit(fg.grad(la.det))(x), cofactors(x), atol=1e-9)
    stack = np.stack([x, x.T, np.eye(n)] * 3)
    wanted = np.stack([cofactors(y) for y in stack])
    np.testing.assert_allclose(fg.jit(fg.vmap(fg.grad(la.det)))(stack), wanted, atol=1e-9)


def test_second_derivative_of_singular_determinants() -> None:
    x, v = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 1.0, 5.0]]), np.ones((3, 3)) + np.eye(3)
    h = 1e-4
    wanted = (cofactors(x + h * v) - cofactors(x - h * v)) / (2 * h)
    np.testing.assert_allclose(fg.jvp(fg.grad(la.det), (x,), (v,))[1], wanted, atol=1e-6)


def minors_of_two(x: Any) -> Any:
    """The second derivative of the determinant: signed minors without two rows and two columns."""
    n = len(x)
    out = np.zeros((n,) * 4, x.dtype)
    for i, j, k, l in np.ndindex(out.shape):
        if i != k and j != l:
            minor = np.delete(np.delete(x, [i, k], 0), [j, l], 1)
            out[i, j, k, l] = (-1) ** (i + j + k + l) * (1 if (i < k) == (j < l) else -1) * la.det(minor)
    return out


@pytest.mark.parametrize(
    ("n", "rank"), [(4, 4), (4, 3), (4, 2), (4, 1), (4, 0), (5, 4), (5, 3), (5, 1), (6, 4), (6, 2)]
)
@pytest.mark.parametrize("kind", ["product", "zero columns", "complex"])
def test_second_derivative_of_larger_singular_determinants(n: int, rank: int, kind: str, rng: Any) -> None:
    x = rng.normal(size=(n, n))
    if kind == "zero columns":
        x[:, rank:] = 0
    else:
        x = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, n))
    if kind == "complex":
        x = x + 1j * (rng.normal(size=(n, rank)) @ x[:rank])
    wanted = minors_of_two(x)
    for hessian in (
        fg.jacfwd(fg.jacrev(la.det, holomorphic=kind == "complex"), holomorphic=kind == "complex"),
        fg.jacrev(fg.jacfwd(la.det, holomorphic=kind == "complex"), holomorphic=kind == "complex"),
    ):
        np.testing.assert_allclose(hessian(x), wanted, atol=1e-9)
        np.testing.assert_allclose(fg.jit(hessian)(x), wanted, atol=1e-9)
    if kind == "product":
        stack = np.stack([x, x.T, np.eye(n)])
        wanted = np.stack([minors_of_two(y) for y in stack])
        np.testing.assert_allclose(fg.jit(fg.vmap(hessian))(stack), wanted, atol=1e-9)


# failures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 20])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_not_positive_definite(n: int, dtype: str, rng: np.random.Generator) -> None:
    """Concrete: an error, also under grad and vmap. Compiled: NaN, and in no other matrix of the stack."""
    stack = positive(rng, dtype, 9, n, n)
    stack[4] -= 100 * n * np.eye(n, dtype=dtype)
    for fun in (fg.vmap(la.cholesky), fg.grad(lambda x: np.sum(np.real(la.cholesky(x))))):
        with pytest.raises(la.LinAlgError):
            fun(stack)
    found = fg.jit(la.cholesky)(stack)
    assert np.isnan(found[4]).all()
    np.testing.assert_allclose(found[:4], la.cholesky(stack[:4]), rtol=1e-4, atol=1e-4)
    assert np.isnan(fg.jit(la.cholesky)(stack[4])).all()


@pytest.mark.parametrize("batch", [(), (9,)])
def test_singular_systems(batch: tuple[int, ...]) -> None:
    x, b = np.ones((*batch, 2, 2)), np.arange(1.0, 3) * np.ones((*batch, 2, 2))
    for fun in (la.solve, lambda x, b: la.inv(x)):
        with pytest.raises(la.LinAlgError):
            fg.grad(lambda x, fun=fun: np.sum(fun(x, b)))(x)
        assert not np.isfinite(fg.jit(fun)(x, b)).any(axis=(-1, -2)).all()
    sign, logarithm = fg.jit(la.slogdet)(x)
    assert (sign == 0).all() and (logarithm == -np.inf).all()
    assert (fg.jit(la.det)(x) == 0).all()


@pytest.mark.parametrize("fun", [la.eigvalsh, la.svdvals, lambda x: la.eigh(x)[1], lambda x: la.svd(x)[0], la.eigvals])
def test_nan_in_nan_out(fun: Any) -> None:
    x = np.stack([np.eye(20), np.full((20, 20), np.nan)])
    found = fg.jit(fun)(x)
    assert np.isnan(found[1]).all() and np.isfinite(found[0]).all()
    assert np.isnan(np.diagonal(fg.jit(la.cholesky)(x)[1])).all()


def test_pivots_that_name_no_row() -> None:
    """Compiled code clamps them: it writes nowhere else."""
    pivots = np.array([100000, -5, 2], np.int32)
    found = fg.jit(lambda p: lu.pivots_to_permutation(p, 3))(pivots)
    np.testing.assert_array_equal(found, lu.pivots_to_permutation(np.array([2, 0, 2], np.int32), 3))


@pytest.mark.parametrize("batch, n", [(1, 30), (9, 4)])
def test_factors_of_nan_are_in_bounds(batch: int, n: int) -> None:
    x = np.full((batch, n, n), np.nan)
    _, pivots, order = fg.jit(lu.lu)(x)
    assert (pivots >= 0).all() and (pivots < n).all()
    np.testing.assert_array_equal(np.sort(order, axis=-1), np.broadcast_to(np.arange(n), order.shape))
    assert np.isnan(fg.jit(la.solve)(x, x)).all() and np.isnan(fg.jit(la.det)(x)).all()


# storage orders, and many small matrices ----------------------------------------------------------------------------

VIEWS = {
    "rows": lambda x: x,
    "columns": lambda x: np.swapaxes(x, -1, -2),
    "window": lambda x: x[..., 1:, :-1],
    "strided": lambda x: x[..., ::-1, ::-1],
    "computed": lambda x: x * 2 + 1,
    "repeated": lambda x: np.broadcast_to(x[:1], x.shape),
}


def near(found: Any, wanted: Any, dtype: str) -> None:
    tolerance = 2e-3 if np.finfo(dtype).bits == 32 else 1e-10
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


STACKS = [(1, 3), (2, 20), (SMALL_STACK - 1, 4), (SMALL_STACK, 1), (SMALL_STACK + 3, 5), (19, SMALL_MATRIX),
          (9, SMALL_MATRIX + 1), (33, 2)]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("batch, n", STACKS)
def test_compiled_routines(batch: int, n: int, view: str, dtype: str, rng: np.random.Generator) -> None:
    see = VIEWS[view]
    grown = n + (view == "window")
    x = random(rng, dtype, batch, grown, grown)
    shift = np.eye(n, dtype=dtype) * 2 * n

    def systems(x: Any, b: Any) -> Any:
        a = see(x)
        return la.solve(a + shift, b), la.det(a / n), la.inv(a + shift), lu.lu(a)

    b = random(rng, dtype, batch, n, 3)
    for found, wanted in zip(fg.jit(systems)(x, b)[:3], systems(x, b)[:3], strict=True):
        near(found, wanted, dtype)
    packed, pivots, order = fg.jit(lambda x: lu.lu(see(x)))(x)
    a = see(x)
    lower, upper = np.tril(packed, -1) + np.eye(n, dtype=dtype), np.triu(packed)
    near(lower @ upper, np.take_along_axis(a, order[..., None].astype(int), -2), dtype)
    assert np.abs(np.tril(packed, -1)).max(initial=0) <= 1.5  # the largest pivots (complex: by |re| + |im|)
    np.testing.assert_array_equal(lu.pivots_to_permutation(pivots, n), order)

    def factor(x: Any) -> Any:
        a = see(x)
        h = a @ adjoint(a) + shift
        return cholesky(h), h

    found, h = fg.jit(factor)(x)
    near(found @ adjoint(found), h, dtype)
    assert not np.triu(found, 1).any()
    read_only_below = fg.jit(lambda h: cholesky(np.tril(h)))(h)
    near(read_only_below, found, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128"])
@pytest.mark.parametrize("batch, n, k", [(2, 5, 3), (2, 5, 1), (9, 5, 1), (9, 1, 4), (20, 16, 3), (3, 40, 200)])
@pytest.mark.parametrize("turned", [False, True])
def test_compiled_triangular_systems(
    batch: int, n: int, k: int, turned: bool, dtype: str, rng: np.random.Generator
) -> None:
    a = random(rng, dtype, batch, n, n) / n + 2 * np.eye(n, dtype=dtype)
    for left, lower, transposed, conjugated, unit in itertools.product((True, False), repeat=5):
        b = random(rng, dtype, batch, n, k) if left else random(rng, dtype, batch, k, n)
        params = dict(
            left_side=left, lower=lower, transpose_a=transposed, conjugate_a=conjugated, unit_diagonal=unit
        )  # fmt: skip

        def fun(a: Any, b: Any, params: Any = params) -> Any:
            return triangular_solve(np.swapaxes(a, -1, -2) if turned else a, b, **params)

        x = fg.jit(fun)(a, b)
        op = np.swapaxes(a, -1, -2) if turned else a
        op = np.tril(op) if lower else np.triu(op)
        if unit:
            op = op - op * np.eye(n) + np.eye(n, dtype=dtype)
        op = np.conj(op) if conjugated else op
        op = np.swapaxes(op, -1, -2) if transposed else op
        near(op @ x if left else x @ op, b, dtype)
        near(fun(a, b), x, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128", "complex64"])
@pytest.mark.parametrize("shape", [(4, 4), (7, 3), (3, 7), (40, 25), (25, 40)], ids=str)
def test_compiled_decompositions(shape: tuple[int, int], dtype: str, rng: np.random.Generator) -> None:
    x = random(rng, dtype, 3, *shape)
    k = min(shape)
    for full in (False, True):
        q, r = fg.jit(lambda x, full=full: qr(x, full))(x)
        near(q @ r, x, dtype)
        near(adjoint(q) @ q, np.broadcast_to(np.eye(q.shape[-1]), (3, *[q.shape[-1]] * 2)), dtype)
        near(np.tril(r, -1), np.zeros_like(r), dtype)
        near(q[..., :k], qr(x)[0][..., :k], dtype)  # LAPACK's signs
        u, s, vh = fg.jit(lambda x, full=full: svd(x, full))(x)
        near((u[..., :k] * s[..., None, :]) @ vh[..., :k, :], x, dtype)
        near(adjoint(u) @ u, np.broadcast_to(np.eye(u.shape[-1]), (3, *[u.shape[-1]] * 2)), dtype)
        near(vh @ adjoint(vh), np.broadcast_to(np.eye(vh.shape[-2]), (3, *[vh.shape[-2]] * 2)), dtype)
        near(s, la.svdvals(x), dtype)
    h = x @ adjoint(x)
    for lower in (True, False):
        garbage = np.tril(h) if lower else np.triu(h)
        w, v = fg.jit(lambda h, lower=lower: eigh(h, lower))(garbage)
        near((v * w[..., None, :]) @ adjoint(v) / shape[1], h / shape[1], dtype)
        near(w / shape[1], la.eigvalsh(h) / shape[1], dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128", "complex64"])
@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_compiled_general_eigenvalues(n: int, dtype: str, rng: np.random.Generator) -> None:
    """Real eigenvalues and complex pairs in all orders, and vectors of length 1."""
    x = random(rng, dtype, 4, n, n)
    w, v = fg.jit(la.eig)(x)
    wanted, vectors = la.eig(x)
    assert w.dtype == v.dtype == np.result_type(dtype, np.complex64)
    near(x @ v, v * w[..., None, :], dtype)
    near(la.norm(v, axis=-2), np.ones(w.shape), dtype)
    near(fg.jit(la.eigvals)(x), w, dtype)
    near(w.sum(axis=-1), np.trace(x, axis1=-2, axis2=-1), dtype)
    if n < 30 and np.finfo(dtype).bits == 64:  # LAPACK's order and phases
        near(w, wanted, dtype)
        near(v, vectors, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128"])
@pytest.mark.parametrize("m, k, n", [(2, 2, 2), (3, 5, 7), (8, 8, 8), (16, 16, 16), (17, 4, 4), (4, 17, 4)])
def test_many_small_products(m: int, k: int, n: int, dtype: str, rng: np.random.Generator) -> None:
    x, y = random(rng, dtype, 50, m, k), random(rng, dtype, 50, k, n)
    near(fg.jit(np.matmul)(x, y), x @ y, dtype)
    near(
        fg.jit(lambda x, y: np.exp(x) @ np.swapaxes(y, -1, -2))(x, np.swapaxes(y, -1, -2).copy()), np.exp(x) @ y, dtype
    )


def test_small_matrices_call_no_library() -> None:
    def fun(x: Any, b: Any) -> Any:
        return la.cholesky(x), la.solve(x, b), la.det(x), la.inv(x), x @ x

    def text(batch: int, n: int) -> str:
        x = np.stack([np.eye(n)] * batch)
        return fg.jit(fun).trace(x, x).lower().as_text()

    for n in (4, SMALL_MATRIX):
        assert "#" not in text(SMALL_STACK, n)
    assert "# library lu" in text(SMALL_STACK - 1, 4) and "# gemm" in text(SMALL_STACK, SMALL_MATRIX + 1)


# memory and threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch, n", [(1, 30), (12, 4)])
def test_inputs_are_not_written(batch: int, n: int, rng: np.random.Generator) -> None:
    """Routines that work in place do so on memory of their own."""
    x = positive(rng, "float64", batch, n, n)
    b = rng.normal(size=(batch, n, 2))
    kept, kept_b = x.copy(), b.copy()

    def fun(x: Any, b: Any) -> Any:
        y = x + 1.0
        return la.cholesky(x), la.solve(x, b), la.eigh(x)[0], la.svdvals(x), la.qr(x)[1], la.cholesky(y), la.inv(y), y

    for found, wanted in zip(fg.jit(fun)(x, b), fun(x, b), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(b, kept_b)


FACTORS = {"cholesky": la.cholesky, "lu": lambda x: lu.lu(x)[0], "eigh": lambda x: la.eigh(x)[1] ** 2}


@pytest.mark.parametrize("name", FACTORS)
def test_dying_operands_are_written_over(name: str) -> None:
    """A matrix that is made for its factor is factored where it lies."""
    fun, x = FACTORS[name], np.diag(np.arange(30.0)) + 1
    f = fg.jit(lambda x: np.sum(fun(x + 1.0)))
    assert f.trace(x).lower().compile().memory_analysis()["temporary_bytes"] < 1.5 * 30 * 30 * 8
    np.testing.assert_allclose(f(x), np.sum(fun(x + 1.0)), rtol=1e-9, atol=1e-9)


def test_results_do_not_depend_on_the_number_of_threads(rng: np.random.Generator) -> None:
    x = positive(rng, "float64", 700, 700)
    stack = positive(rng, "float64", 3000, 6, 6)
    b = rng.normal(size=(700, 600))
    before = fg.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            fg.set_num_threads(count)
            f = fg.jit(lambda x, s, b: (la.solve(x, b), la.cholesky(s), la.inv(s), la.eigvalsh(s)))
            results.append(f(x, stack, b))
    finally:
        fg.set_num_threads(before)
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(x, y)
