"""``numpy.linalg`` on tracers: NumPy itself for values, types and shapes, a loop for ``vmap``, differences for
derivatives of both orders."""
# ruff: noqa: E501  (a row of a table is one line)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from tests.ops.test_registry import check_derivatives, hermitian

la = np.linalg
RNG = np.random.default_rng(11)


def positive(n: int, *stack: int, cplx: bool = False) -> Any:
    x = RNG.normal(size=(*stack, n, n + 1)) + (1j * RNG.normal(size=(*stack, n, n + 1)) if cplx else 0)
    return x @ np.conj(np.swapaxes(x, -1, -2)) + np.eye(n)


A = RNG.normal(size=(3, 3)) + 2 * np.diag([1.0, -1.0, 2.0])
Z = A + 1j * RNG.normal(size=(3, 3))
H, HZ = positive(3), positive(3, cplx=True)
TALL, WIDE = RNG.normal(size=(5, 3)), RNG.normal(size=(3, 5))
TALLZ = TALL + 1j * RNG.normal(size=(5, 3))
STACK = RNG.normal(size=(2, 3, 3)) + 2 * np.eye(3)
B, V = RNG.normal(size=(3, 2)), RNG.normal(size=3)
T6 = RNG.normal(size=(2, 3, 6))
INTEGERS = np.array([[2, 1], [1, 3]])


def flat(out: Any) -> list[Any]:
    return [x for o in out for x in flat(o)] if isinstance(out, (tuple, list)) else [out]


ROWS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "solve": (la.solve, (A, B)),
    "solve vector": (la.solve, (A, V)),
    "solve stack": (la.solve, (STACK, B)),
    "solve complex": (la.solve, (Z, B)),
    "inv": (lambda x, y: [la.inv(x), la.inv(y)], (A, STACK)),
    "det": (lambda x, y, i: [la.det(x), la.det(y), la.det(x[:2, :2]), la.det(x[:1, :1]), la.det(i)], (A, STACK, INTEGERS)),
    "det of order 5": (lambda x: la.det(x @ x.T), (TALL,)),
    "det complex": (la.det, (Z,)),
    "slogdet": (lambda x, z: [la.slogdet(x), la.slogdet(z)], (STACK, Z)),
    "slogdet singular": (lambda x: la.slogdet(x[:, :1] @ np.zeros((1, 3))), (A,)),
    "cholesky": (lambda x: [la.cholesky(x), la.cholesky(x, upper=True)], (H,)),
    "cholesky complex": (lambda x: [la.cholesky(x), la.cholesky(x, upper=True)], (HZ,)),
    "cholesky reads a triangle": (lambda x: [la.cholesky(np.tril(x)), la.cholesky(np.triu(x), upper=True)], (H,)),
    "qr": (lambda x, y: [la.qr(x), la.qr(y), la.qr(x, "complete"), la.qr(y, "r")], (TALL, WIDE)),
    "qr complex": (la.qr, (TALLZ,)),
    "eigh": (lambda x: [la.eigh(x), la.eigh(x, "U"), la.eigvalsh(x), la.eigvalsh(np.triu(x), "U")], (H,)),
    "eigvalsh complex": (la.eigvalsh, (HZ,)),
    "eig": (lambda x: la.eigvals(x + 0j), (A,)),
    "svd": (lambda x, y: [la.svd(x), la.svd(y, full_matrices=False), la.svd(x, compute_uv=False), la.svdvals(y)], (TALL, WIDE)),
    "svd hermitian": (lambda x: [*la.svd(x, hermitian=True), la.svd(x, compute_uv=False, hermitian=True)], (H - 3 * np.eye(3),)),
    "pinv": (lambda x, y: [la.pinv(x), la.pinv(y), la.pinv(x, rtol=0.3), la.pinv(x, 0.3)], (TALL, WIDE)),
    "lstsq": (lambda x, y: la.lstsq(x, y), (TALL, RNG.normal(size=5))),
    "lstsq wide": (lambda x, y: la.lstsq(x, y), (WIDE, B)),
    "matrix_rank": (lambda x, v: [la.matrix_rank(x), la.matrix_rank(x @ x.T), la.matrix_rank(v), la.matrix_rank(x, tol=1.0)], (TALL, V)),
    "cond": (lambda x: [la.cond(x, p) for p in (None, 2, -2, 1, np.inf, "fro")], (A,)),
    "norm": (lambda x, t: [la.norm(x, p) for p in (2, -2, "nuc")] + [la.norm(x, 2, keepdims=True), la.norm(t, "nuc", axis=(0, 2)), la.matrix_norm(t, ord=2)], (TALL, T6)),
    "matrix_power": (lambda x: [la.matrix_power(x, k) for k in (-3, -1, 0, 2)], (A,)),
    "tensorinv": (lambda t: [la.tensorinv(t), la.tensorinv(t.reshape(6, 2, 3), ind=1)], (T6,)),
    "tensorsolve": (lambda t, b: [la.tensorsolve(t, b), la.tensorsolve(np.moveaxis(t, 2, 0), b, axes=(0,))], (T6, RNG.normal(size=(2, 3)))),
    "last axes": (lambda t: [la.trace(t), la.diagonal(t, offset=1), la.trace(t, offset=-1)], (STACK,)),
    "products": (lambda x: [la.matmul(x, x), la.vecdot(x, x), la.cross(x, x[::-1]), la.outer(x[0], x[1])], (A,)),
    "integers": (lambda i: [la.inv(i), la.solve(i, i), la.cholesky(i), la.eigvalsh(i), la.slogdet(i)], (INTEGERS,)),
    "single precision": (lambda x, b: [la.solve(x, b), la.inv(x), la.eigvalsh(x), la.svdvals(b)], (H.astype(np.float32), B.astype(np.float32))),
    "mixed precision": (lambda x, b: la.solve(x, b), (H.astype(np.float32), B)),
    "order 1": (lambda x: [la.inv(x), la.cholesky(x), la.slogdet(x), la.eigh(x), la.svd(x), la.qr(x), la.det(x)], (np.array([[4.0]]),)),
    "empty": (lambda x, y: [la.inv(x), la.cholesky(x), la.det(x), la.slogdet(x), la.eigvalsh(x), la.svdvals(y), la.solve(x, y), la.qr(y)], (np.zeros((0, 0)), np.zeros((0, 2)))),
    "empty stack": (lambda x: [la.inv(x), la.cholesky(x), la.det(x), la.slogdet(x), la.eigh(x), la.svd(x), la.qr(x)], (np.zeros((0, 2, 2)),)),
}  # fmt: skip


def assert_same(found: Any, wanted: Any) -> None:
    assert len(flat(found)) == len(flat(wanted))
    for x, y in zip(map(np.asarray, flat(found)), map(np.asarray, flat(wanted)), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        tolerance = 1e-11 if np.finfo(y.dtype if y.dtype.kind in "fc" else float).bits == 64 else 3e-5
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ROWS)
def test_compiled(name: str) -> None:
    fun, args = ROWS[name]
    with np.errstate(divide="ignore"):
        wanted = fun(*args)
    found = fg.jit(fun)(*args)
    for x, y in zip(found, wanted, strict=True) if isinstance(wanted, (list, tuple)) else [(found, wanted)]:
        assert type(x) is type(y) or np.ndim(y) == 0  # named tuples
    assert_same(found, wanted)


@pytest.mark.parametrize("name", ROWS)
def test_batched(name: str) -> None:
    fun, args = ROWS[name]
    stacked = [np.stack([x, x, x + x]) for x in args]
    with np.errstate(divide="ignore"):
        each = [flat(fun(*[x[k] for x in stacked])) for k in range(3)]
        assert_same(flat(fg.vmap(fun)(*stacked)), [np.stack(x) for x in zip(*each, strict=True)])
        partly = [stacked[0], *args[1:]]
        each = [flat(fun(stacked[0][k], *args[1:])) for k in range(3)]
        found = fg.vmap(fun, in_axes=(0, *[None] * (len(args) - 1)))(*partly)
        assert_same(flat(found), [np.stack(x) for x in zip(*each, strict=True)])


# What does not depend on signs and phases.
def spectral_function(x: Any) -> Any:
    w, v = la.eigh(hermitian(x))
    return (v * np.exp(w / 5)[None, :]) @ np.conj(v.T)


def isometry(x: Any) -> Any:
    u, s, vh = la.svd(x, full_matrices=False)
    return u @ vh + np.sum(np.sin(s))


def projector(x: Any) -> Any:
    q = la.qr(x, "complete")[0][:, : x.shape[1]]
    return q @ np.conj(q.T)


SMOOTH: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "solve": (la.solve, (A, B)),
    "solve vector": (la.solve, (A, V)),
    "solve complex": (la.solve, (Z, B + 1j * B[::-1])),
    "solve stack": (la.solve, (STACK, B)),
    "inv": (la.inv, (A,)),
    "inv complex": (la.inv, (Z,)),
    "det 1": (la.det, (A[:1, :1],)),
    "det 2": (la.det, (A[:2, :2],)),
    "det 3": (la.det, (A,)),
    "det 4": (la.det, (RNG.normal(size=(4, 4)),)),
    "det complex": (la.det, (RNG.normal(size=(4, 4)) + 1j * RNG.normal(size=(4, 4)),)),
    "slogdet": (lambda x: la.slogdet(x)[1], (STACK,)),
    "slogdet complex": (lambda x: list(la.slogdet(x)), (Z,)),
    "cholesky": (lambda x: la.cholesky(hermitian(x)), (H,)),
    "cholesky upper": (lambda x: la.cholesky(hermitian(x), upper=True), (H,)),
    "cholesky complex": (lambda x: la.cholesky(hermitian(x)), (HZ,)),
    "qr": (lambda x: list(la.qr(x)), (TALL,)),
    "qr wide": (lambda x: list(la.qr(x)), (WIDE,)),
    "qr complete": (projector, (TALL,)),
    "qr complex": (lambda x: list(la.qr(x)), (TALLZ,)),
    "eigvalsh": (lambda x: la.eigvalsh(hermitian(x)), (H,)),
    "eigvalsh complex": (lambda x: la.eigvalsh(hermitian(x)), (HZ,)),
    "eigh function": (spectral_function, (H,)),
    "eigh function complex": (spectral_function, (HZ,)),
    "eigenvalues": (la.eigvals, (np.array([[1.0, 2.0, 0.5], [-1.5, 1.2, 0.3], [0.2, 0.1, -2.0]]),)),
    "eigenvectors": (lambda x: np.abs(la.eig(x)[1]), (np.array([[1.0, 2.0, 0.5], [0.3, 3.2, 0.3], [0.2, 0.1, -2.0]]),)),
    "svd": (isometry, (TALL,)),
    "svd wide": (isometry, (WIDE,)),
    "svd complex": (isometry, (TALLZ,)),
    "svd full": (lambda x: la.svd(x)[0][:, 3:] @ la.svd(x)[0][:, 3:].T, (TALL,)),
    "svdvals": (la.svdvals, (TALLZ,)),
    "pinv": (la.pinv, (TALL,)),
    "pinv wide": (la.pinv, (WIDE,)),
    "pinv complex": (la.pinv, (TALLZ,)),
    "lstsq": (lambda x, y: list(la.lstsq(x, y)[:2]), (TALL, RNG.normal(size=(5, 2)))),
    "cond": (lambda x: [la.cond(x), la.cond(x, 1)], (A,)),
    "norms": (lambda x: [la.norm(x, p) for p in (2, -2, "nuc")], (TALL,)),
    "matrix_power": (lambda x: la.matrix_power(x, -2), (A,)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives(name: str, rng: np.random.Generator) -> None:
    fun, args = SMOOTH[name]

    def scaled(*xs: Any) -> list[Any]:
        out = fun(*xs)
        return list(out) if isinstance(out, (tuple, list)) else [out]

    check_derivatives(rng, scaled, list(args), 2, lambda x: x)


@pytest.mark.parametrize("name", SMOOTH)
def test_compiled_gradients(name: str, rng: np.random.Generator) -> None:
    """Compiled and batched, the gradient is the interpreter's."""
    fun, args = SMOOTH[name]

    def scalar(*xs: Any) -> Any:
        return sum(np.sum(np.real(x) * np.cos(np.arange(x.size).reshape(x.shape))) for x in flat(fun(*xs)))

    arguments = tuple(range(len(args)))
    wanted = fg.grad(scalar, arguments)(*args)
    scale = 1 + max(float(np.max(np.abs(x))) for x in wanted)
    for found in (
        fg.jit(fg.grad(scalar, arguments))(*args),
        [x[1] for x in fg.jit(fg.vmap(fg.grad(scalar, arguments)))(*[np.stack([x] * 9) for x in args])],
    ):
        for x, y in zip(found, wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10 * scale)
