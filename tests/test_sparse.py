"""Sparse Jacobians and Hessians against dense ones, and in the hands of SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse as sp
from scipy.optimize import least_squares, minimize, root
from scipy.sparse.linalg import spsolve

import funcgrad as fg
from funcgrad import lax
from funcgrad import sparse as sparse_module

N = 7


def stencil(u: Any) -> Any:
    p = np.pad(u, 1)
    return 4 * u - p[:-2, 1:-1] - p[2:, 1:-1] - p[1:-1, :-2] - p[1:-1, 2:] + np.exp(u)


def rosenbrock(x: Any) -> Any:
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def arrow(x: Any) -> Any:
    return np.concatenate([x[1:] * x[0], np.sum(x**2)[None]])


FUNCTIONS = {
    "stencil": (stencil, (5, 4)),
    "three in a row": (lambda x: x[1:-1] ** 2 * x[2:] + np.sin(x[:-2]), (N,)),
    "an arrow": (arrow, (N,)),
    "a full row below": (lambda x: np.concatenate([x[:-1] * x[1:], [np.prod(x)]]), (N,)),
    "sums in groups": (lambda x: np.sum(x.reshape(3, 4) ** 2, axis=1), (12,)),
    "a scalar": (rosenbrock, (N,)),
    "from a scalar": (lambda x: np.sin(x) * np.arange(4.0), ()),
    "full": (lambda x: np.outer(np.sin(x), x[:3]), (4,)),
    "constant": (lambda x: np.zeros(3), (N,)),
    "nothing in": (lambda x: np.concatenate([x, np.ones(2)]), (0,)),
    "nothing out": (lambda x: x[:0] * 2, (3,)),
    "a loop": (lambda x: lax.scan(lambda c, a: (c * a, c + a), 1.0, x)[1], (N,)),
    "rows": (lambda x: np.sort(np.exp(x), axis=1) / np.sum(x, axis=1, keepdims=True), (3, 4)),
    "systems": (lambda x: np.linalg.solve(x + 5 * np.eye(2), np.ones((3, 2, 1))), (3, 2, 2)),
    "jitted": (fg.jit(stencil), (3, 3)),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_jacobian(name: str, dtype: Any, rng: np.random.Generator) -> None:
    fun, shape = FUNCTIONS[name]
    x = rng.uniform(0.5, 1.5, size=shape).astype(dtype)
    jacobian = fg.sparse_jacobian(fun)
    value, found = jacobian.value_and(x)
    wanted = fg.jacfwd(fun)(x)
    assert isinstance(found, sp.csr_array) and found.has_canonical_format
    assert found.dtype == wanted.dtype and found.shape == (np.size(value), x.size)
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(found.toarray(), wanted.reshape(found.shape), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(value, fun(x), rtol=tolerance)
    assert np.shape(value) == np.shape(fun(x)) and value.dtype == fun(x).dtype
    pattern = jacobian.pattern(x)
    assert pattern.dtype == bool and (pattern != (found.astype(bool) + pattern)).nnz == 0


ENERGIES = {
    "a chain": (rosenbrock, (N,)),
    "a plate": (lambda u: np.sum(stencil(u) ** 2), (4, 5)),
    "a hub": (lambda x: np.sum(x[1:] ** 2 * x[0]), (N,)),
    "linear": (lambda x: np.sum(x * np.arange(7.0)), (N,)),
    "separable": (lambda x: np.sum(np.exp(x)), (N,)),
    "a kink": (lambda x: np.sum(np.maximum(x, 1.0) ** 2 + np.abs(x)), (N,)),
    "groups": (lambda x: np.sum(np.linalg.norm(x, axis=1)), (4, 3)),
    "log-sum-exp": (lambda x: np.log(np.sum(np.exp(x))), (5,)),
    "a known matrix": (lambda x: x @ (np.eye(7) + np.eye(7, k=2)) @ x, (N,)),
    "a loop": (lambda x: lax.scan(lambda c, a: (np.sin(c) + a, c * a), 0.3, x)[0], (5,)),
    "a scalar": (lambda x: x**3, ()),
    "log det": (lambda x: np.sum(np.linalg.slogdet(x + 5 * np.eye(2))[1]), (3, 2, 2)),
}


@pytest.mark.parametrize("name", ENERGIES)
def test_hessian(name: str, rng: np.random.Generator) -> None:
    fun, shape = ENERGIES[name]
    x = rng.uniform(0.5, 1.5, size=shape)
    gradient, found = fg.sparse_hessian(fun).gradient_and(x)
    wanted = fg.hessian(fun)(x).reshape(x.size, x.size)
    np.testing.assert_allclose(found.toarray(), wanted, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gradient, fg.grad(fun)(x), rtol=1e-12, atol=1e-14)
    pattern = fg.sparse_hessian(fun).pattern(x)
    assert (pattern != pattern.T).nnz == 0


def test_linear_terms_do_not_interact() -> None:
    assert fg.sparse_hessian(ENERGIES["linear"][0])(np.ones(N)).nnz == 0
    assert fg.sparse_hessian(ENERGIES["separable"][0])(np.ones(N)).nnz == N


def test_pytrees_argnums_and_keywords(rng: np.random.Generator) -> None:
    """Rows and columns are the leaves' elements, one leaf after the other."""

    def fun(scale: float, params: Any, power: float = 1.0) -> Any:
        return {"out": scale * params["a"][1:] * params["b"] ** power, "more": params["a"][:1]}

    params = {"a": rng.uniform(1, 2, size=4), "b": rng.uniform(1, 2, size=3)}
    jacobian = fg.sparse_jacobian(fun, argnums=1)
    found = jacobian(2.0, params, power=3.0).toarray()
    blocks = fg.jacfwd(fun, argnums=1)(2.0, params, power=3.0)
    wanted = np.block([[blocks[o][i].reshape(-1, params[i].size) for i in ("a", "b")] for o in ("more", "out")])
    np.testing.assert_allclose(found, wanted, rtol=1e-13)
    value, _ = jacobian.value_and(2.0, params, power=3.0)
    assert value.keys() == {"out", "more"}


def test_plans_are_kept_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []

    def fun(x: Any) -> Any:
        traced.append(x.shape)
        return x[1:] * x[:-1]

    jacobian = fg.sparse_jacobian(fun)
    jacobian(np.ones(5))
    first = len(traced)
    for k in range(3):
        assert jacobian(np.full(5, float(k))).data[0] == k
    assert len(traced) == first
    assert jacobian(np.ones(6)).shape == (5, 6)
    assert len(traced) == 2 * first
    assert jacobian.pattern(fg.ShapeDtypeStruct((6,), np.float64)).nnz == 10
    assert len(traced) == 2 * first
    monkeypatch.setattr(sparse_module, "_PLANS", 2)
    for n in (7, 8, 9):
        jacobian(np.ones(n))
    assert len(jacobian._plans) == 2


def test_results_belong_to_the_caller() -> None:
    jacobian = fg.sparse_jacobian(lambda x: x[1:] * x[:-1])
    first = jacobian(np.ones(5))
    first.data[:] = 0
    first.indices[:] = 0
    first.indptr[:] = 0
    jacobian.pattern(np.ones(5)).indices[:] = 0
    np.testing.assert_array_equal(jacobian(np.ones(5)).toarray(), np.eye(4, 5) + np.eye(4, 5, 1))


@pytest.mark.parametrize("name", ["stencil", "an arrow", "full", "a full row below"])
def test_products_in_several_parts(name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    fun, shape = FUNCTIONS[name]
    x = rng.uniform(0.5, 1.5, size=shape)
    monkeypatch.setattr(sparse_module, "_CHUNK", 2 * x.size)
    found = fg.sparse_jacobian(fun)(x)
    np.testing.assert_allclose(found.toarray(), fg.jacfwd(fun)(x).reshape(found.shape), rtol=1e-12)


def test_given_sparsity() -> None:
    def moved(x: Any) -> Any:
        return x[np.argsort(x)] * 1.0  # found: full

    x = np.arange(6.0)
    assert fg.sparse_jacobian(moved).pattern(x).nnz == 36
    for given in (np.eye(6), sp.eye_array(6), sp.eye_array(6, format="coo"), np.eye(6, dtype=bool)):
        jacobian = fg.sparse_jacobian(moved, sparsity=given)
        np.testing.assert_array_equal(jacobian(x).toarray(), np.eye(6))
        assert jacobian.coloring(x).n_columns == 1
    upper = np.triu(np.tril(np.ones((N, N)), 1))
    hessian = fg.sparse_hessian(rosenbrock, sparsity=upper)
    np.testing.assert_allclose(hessian(np.ones(N)).toarray(), fg.hessian(rosenbrock)(np.ones(N)))


def test_custom_seams_of_the_derivative() -> None:
    """The pattern is the derivative's: what is stopped does not count, and the dead half of a max does."""
    found = fg.sparse_jacobian(lambda x: lax.stop_gradient(x) * x[::-1])(np.arange(1.0, 4))
    np.testing.assert_array_equal(found.toarray(), [[0, 0, 1], [0, 2, 0], [3, 0, 0]])


def test_rules_of_ones_own() -> None:
    """A rule's pattern is the rule's, not the function's: here the function is locally constant."""

    @fg.custom_jvp
    def rounded(x: Any) -> Any:
        return np.rint(x)

    rounded.defjvp(lambda primals, tangents: (np.rint(primals[0]), tangents[0] + 2.0 * tangents[0][::-1]))
    found = fg.sparse_jacobian(lambda x: rounded(x) * x[0])(np.arange(1.0, 4))
    np.testing.assert_array_equal(found.toarray(), fg.jacfwd(lambda x: rounded(x) * x[0])(np.arange(1.0, 4)))
    assert found.nnz == 6

    @fg.custom_vjp
    def scaled(x: Any) -> Any:
        return np.sin(x)

    scaled.defvjp(lambda x: (np.sin(x), x), lambda x, ct: (7.0 * ct * x,))
    x = np.linspace(1.0, 2.0, 5)
    for fun in (lambda x: scaled(x)[1:] * x[:-1], lambda x: np.sum(scaled(x))[None]):
        np.testing.assert_allclose(fg.sparse_jacobian(fun)(x).toarray(), fg.jacrev(fun)(x), rtol=1e-13)


def test_newton_by_spsolve() -> None:
    jacobian = fg.sparse_jacobian(lambda u: stencil(u) - 1.0)
    u = np.zeros((9, 9))
    for _ in range(6):
        residual, matrix = jacobian.value_and(u)
        u = u - spsolve(matrix.tocsc(), residual.ravel()).reshape(u.shape)
    assert np.abs(stencil(u) - 1.0).max() < 1e-12


def test_scipy_optimize() -> None:
    start = np.full(20, 0.5)
    residuals = lambda x: np.concatenate([10.0 * (x[1:] - x[:-1] ** 2), 1.0 - x[:-1]])  # noqa: E731
    fitted = least_squares(residuals, start, jac=fg.sparse_jacobian(residuals), tr_solver="lsmr")
    np.testing.assert_allclose(fitted.x, 1.0, atol=1e-6)
    found = minimize(rosenbrock, start, method="trust-constr", jac=fg.grad(rosenbrock),
                     hess=fg.sparse_hessian(rosenbrock), options={"gtol": 1e-8, "maxiter": 300})  # fmt: skip
    np.testing.assert_allclose(found.x, 1.0, atol=1e-5)
    flat = lambda u: (stencil(u.reshape(3, 3)) - 1.0).ravel()  # noqa: E731
    solved = root(flat, np.zeros(9), jac=lambda u: fg.sparse_jacobian(flat)(u).toarray())
    assert solved.success


SINES = fg.sparse_jacobian(np.sin)
ERRORS = {
    "no function": (lambda: fg.sparse_jacobian(3), TypeError, "expects a function"),
    "several argnums": (lambda: fg.sparse_jacobian(np.sin, argnums=(0, 1)), TypeError, "a tuple of them"),
    "argnums too large": (lambda: fg.sparse_jacobian(np.sin, argnums=1)(np.ones(2)), ValueError, "argument 1"),
    "integers": (lambda: fg.sparse_jacobian(lambda x: x * 1.0)(np.arange(3)), TypeError, "argument 'x'.*int64.*astype"),
    "complex": (lambda: fg.sparse_jacobian(lambda x: x)(np.ones(3) * 1j), TypeError, "complex128.*real and imag"),
    "complex result": (lambda: fg.sparse_jacobian(lambda x: x * 1j)(np.ones(3)), TypeError, "the result.*complex128"),
    "integer result": (lambda: fg.sparse_jacobian(lambda x: x > 1)(np.ones(3)), TypeError, "the result.*bool"),
    "no array": (lambda: fg.sparse_jacobian(lambda x: "a")(np.ones(3)), TypeError, "not an array"),
    "no array given": (lambda: fg.sparse_jacobian(lambda x: x)("a"), TypeError, "sparse_jacobian.*'x'"),
    "no arguments": (lambda: fg.sparse_jacobian(lambda: 1.0)(), ValueError, "argument 0"),
    "no scalar": (lambda: fg.sparse_hessian(lambda x: x)(np.ones(3)), TypeError, "scalar"),
    "inside of jit": (lambda: fg.jit(lambda x: SINES(x).data)(np.ones(3)), TypeError, "jvp and vjp"),
    "inside of vmap": (lambda: fg.vmap(lambda x: SINES(x).data)(np.ones((2, 3))), TypeError, "vmap"),
    "a shape that does not fit": (
        lambda: fg.sparse_jacobian(np.sin, sparsity=np.eye(3))(np.ones(4)), ValueError, r"\(3, 3\).*\(4, 4\)"),
    "not two axes": (lambda: fg.sparse_jacobian(np.sin, sparsity=np.ones(3)), ValueError, "two axes"),
    "no matrix": (lambda: fg.sparse_jacobian(np.sin, sparsity="banded"), TypeError, "sparsity must be"),
    "not square": (lambda: fg.sparse_hessian(rosenbrock, sparsity=np.ones((2, 3))), ValueError, "square"),
    "not sparse": (
        lambda: fg.sparse_jacobian(lambda x: x / np.sum(x))(np.ones(10**5)), ValueError, "10,000,000,000.*sparsity="),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    call, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        call()


def test_large_problems_stay_sparse() -> None:
    """10^5 unknowns: the pattern takes no more than its entries, and full rows do not spoil the colours."""
    n = 10**5
    x = np.linspace(0.5, 1.5, n)
    hessian = fg.sparse_hessian(rosenbrock)
    found = hessian(x)
    assert found.nnz == 3 * n - 2 and hessian.coloring(x).n_columns == 3
    v = np.cos(np.arange(n))
    np.testing.assert_allclose(found @ v, fg.jvp(fg.grad(rosenbrock), (x,), (v,))[1], rtol=1e-10)
    jacobian = fg.sparse_jacobian(lambda x: np.append(x[1:] * x[:-1] * x[0], np.sum(x**2)))
    c = jacobian.coloring(x)
    assert c.n_columns + c.n_rows <= 5
    np.testing.assert_allclose((jacobian(x) @ v)[-1], 2 * x @ v)
