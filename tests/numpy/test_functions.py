"""NumPy's functions on tracers against NumPy itself: values, dtypes and shapes, staged and batched."""
# ruff: noqa: E501  (a row of a table is one line)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
import funcgrad.numpy as jnp
from funcgrad.core.avals import aval_of
from funcgrad.core.jaxpr import check_jaxpr, eval_jaxpr
from funcgrad.core.staging import stage

RNG = np.random.default_rng(5)


def staged(fun: Callable[..., Any], *args: Any) -> list[Any]:
    """``fun`` traced, checked and interpreted: the results as a flat list."""
    closed = stage(lambda *xs: flat(fun(*xs)), [aval_of(x) for x in args])
    check_jaxpr(closed.jaxpr)
    with np.errstate(all="ignore"):
        return eval_jaxpr(closed.jaxpr, closed.consts, *args)


def flat(out: Any) -> list[Any]:
    return [x for o in out for x in flat(o)] if isinstance(out, (tuple, list)) else [out]


def expected(fun: Callable[..., Any], *args: Any) -> list[Any]:
    with np.errstate(all="ignore"):
        return flat(fun(*args))


def assert_same(found: Any, wanted: Any, ulps: float = 8) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.dtype == wanted.dtype, (found.dtype, wanted.dtype)
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    if wanted.dtype.kind in "fc":
        eps = np.finfo(wanted.dtype).eps
        np.testing.assert_allclose(found, wanted, rtol=ulps * eps, atol=ulps * eps)
    else:
        np.testing.assert_array_equal(found, wanted)


A = RNG.normal(size=(3, 4))
B = RNG.normal(size=(3, 4))
V = RNG.normal(size=5)
M = RNG.normal(size=(4, 2))
C = RNG.normal(size=(2, 3)) + 1j * RNG.normal(size=(2, 3))
I = RNG.integers(-5, 6, size=(3, 4))
U = RNG.integers(0, 9, size=7).astype(np.uint8)
P = np.abs(A) + 0.1
T = RNG.normal(size=(2, 3, 4))
Z = np.zeros((0, 3))
N = np.array([[1.0, np.nan, 3.0], [np.nan, -2.0, np.inf]])
MASK = RNG.random((3, 4)) < 0.5
HALF = A.astype(np.float16)
SINGLE = A.astype(np.float32)
S = np.float64(0.7)
Q = A[:3, :3]

# name: function of arrays, and the arrays
ROWS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    # reductions
    "sum": (lambda x: np.sum(x), (A,)),
    "sum int8": (lambda x: np.sum(x, axis=0), (I.astype(np.int8),)),
    "sum uint8": (lambda x: np.sum(x), (U,)),
    "sum bool": (lambda x: np.sum(x, axis=1), (MASK,)),
    "sum half": (lambda x: np.sum(x, axis=1), (HALF,)),
    "sum axes keepdims": (lambda x: np.sum(x, axis=(0, -1), keepdims=True), (T,)),
    "sum dtype": (lambda x: x.sum(dtype=np.float32), (I,)),
    "sum initial where": (lambda x, m: np.sum(x, 1, initial=3, where=m), (A, MASK)),
    "sum empty": (lambda x: [np.sum(x, axis=0), np.sum(x, axis=1), np.sum(x)], (Z,)),
    "sum scalar": (lambda x: [np.sum(x), np.sum(x, axis=())], (S,)),
    "sum no axes": (lambda x: np.sum(x, axis=()), (I.astype(np.int16),)),
    "prod": (lambda x: [np.prod(x), np.prod(x, axis=1), x.prod(axis=0, keepdims=True)], (A,)),
    "prod int": (lambda x: np.prod(x, axis=0), (I.astype(np.int32),)),
    "prod empty": (lambda x: np.prod(x, axis=0), (Z,)),
    "max": (lambda x: [x.max(), np.max(x, 0), np.amax(x, axis=(0, 1), keepdims=True)], (A,)),
    "max initial": (lambda x: [np.max(x, 1, initial=0.5), np.max(x, 1, initial=-9, where=MASK)], (A,)),
    "max empty initial": (lambda x: np.max(x, 0, initial=2.0), (Z,)),
    "min int": (lambda x: [x.min(axis=1), np.min(x)], (I,)),
    "max nan": (lambda x: [np.max(x), np.min(x, axis=0)], (N,)),
    "mean": (lambda x: [np.mean(x), x.mean(0), np.mean(x, axis=(0, 1), keepdims=True)], (A,)),
    "mean int": (lambda x: np.mean(x, axis=1), (I,)),
    "mean bool": (lambda x: x.mean(), (MASK,)),
    "mean half": (lambda x: np.mean(x, axis=0), (HALF,)),
    "mean complex": (lambda x: np.mean(x, axis=0), (C,)),
    "mean where": (lambda x, m: np.mean(x, axis=1, where=m | True), (A, MASK)),
    "mean dtype": (lambda x: np.mean(x, dtype=np.float32), (I,)),
    "var": (lambda x: [np.var(x), x.var(axis=0, ddof=1), np.var(x, axis=1, keepdims=True)], (A,)),
    "var complex": (lambda x: np.var(x, axis=1), (C,)),
    "var int": (lambda x: np.var(x), (I,)),
    "std": (lambda x: [np.std(x), x.std(axis=0, ddof=1)], (A,)),
    "all any": (lambda x: [x.all(), np.any(x, axis=1), np.all(x, axis=0, keepdims=True)], (MASK,)),
    "all any int": (lambda x: [np.all(x), np.any(x, axis=0)], (I,)),
    "count_nonzero": (lambda x: [np.count_nonzero(x, axis=0)], (I,)),
    "argmax": (lambda x: [np.argmax(x), x.argmin(axis=1), np.argmax(x, 0, keepdims=True)], (A,)),
    "ptp": (lambda x: [np.ptp(x), np.ptp(x, axis=1)], (A,)),
    "cumsum": (lambda x: [np.cumsum(x), x.cumsum(axis=1), np.cumprod(x, axis=0)], (A,)),
    "cumsum int": (lambda x: [np.cumsum(x, axis=0), np.cumprod(x[0])], (I.astype(np.int16),)),
    "cumsum bool": (lambda x: np.cumsum(x, axis=1), (MASK,)),
    "cumulative_sum": (lambda x: np.cumulative_sum(x, axis=1, include_initial=True), (A,)),
    "nan sums": (lambda x: [np.nansum(x, axis=0), np.nanprod(x), np.nancumsum(x)], (N,)),
    "nan extremes": (lambda x: [np.nanmax(x, axis=0), np.nanmin(x, axis=1), np.nanargmax(x, axis=1)], (N,)),
    "nan means": (lambda x: [np.nanmean(x, axis=1), np.nanmean(x)], (np.where(np.isinf(N), 0, N),)),
    "nan var": (lambda x: [np.nanvar(x, axis=1), np.nanstd(x)], (np.where(np.isinf(N), 0, N),)),
    # shapes
    "reshape": (lambda x: [np.reshape(x, (2, -1)), x.reshape(4, 3), x.reshape((12,)), np.reshape(x, -1)], (A,)),
    "reshape F": (lambda x: [np.reshape(x, (2, 6), order="F"), x.ravel("F"), x.flatten()], (A,)),
    "ravel": (lambda x: [np.ravel(x), x.ravel(), x.flatten()], (T,)),
    "ravel scalar": (lambda x: [np.ravel(x), x.reshape(1, 1)], (S,)),
    "ravel empty": (lambda x: [np.ravel(x), np.reshape(x, (3, 0))], (Z,)),
    "transpose": (lambda x: [x.T, np.transpose(x, (1, 0, 2)), x.transpose(2, 0, 1), x.mT, x.transpose()], (T,)),
    "swapaxes": (lambda x: [np.swapaxes(x, 0, -1), x.swapaxes(0, 1), np.moveaxis(x, 0, -1)], (T,)),
    "moveaxis": (lambda x: [np.moveaxis(x, (0, 1), (2, 0)), np.rollaxis(x, 2), np.rollaxis(x, 0, 3)], (T,)),
    "expand_dims": (lambda x: [np.expand_dims(x, 0), np.expand_dims(x, (0, -1)), x[:, None]], (A,)),
    "squeeze": (lambda x: [np.squeeze(x[:, :1]), x[:1].squeeze(0), np.squeeze(x[:1, :1])], (A,)),
    "atleast": (lambda x, y, s: [np.atleast_1d(s), np.atleast_2d(x, s), np.atleast_3d(x), np.atleast_3d(y)], (V, A, S)),
    "broadcast": (lambda x, y: [np.broadcast_to(x, (2, 5)), *np.broadcast_arrays(x, y)], (V, V[:, None])),
    "flip": (lambda x: [np.flip(x), np.flip(x, 0), np.fliplr(x), np.flipud(x)], (A,)),
    "rot90": (lambda x: [np.rot90(x, k) for k in range(-1, 5)], (A,)),
    "roll": (lambda x: [np.roll(x, 2), np.roll(x, -1, 1), np.roll(x, (1, 2), (0, 1)), np.roll(x, 7, 0)], (A,)),
    "concatenate": (lambda x, y: [np.concatenate([x, y]), np.concatenate((x, y), 1), np.concatenate([x, y], None)], (A, I)),
    "concatenate mixed": (lambda x: np.concatenate([x, np.ones((1, 4), np.float32), [[1, 2, 3, 4]]]), (SINGLE,)),
    "stack": (lambda x, y: [np.stack([x, y]), np.stack([x, y], -1), np.vstack([x, y]), np.hstack([x, y])], (A, B)),
    "stack vectors": (lambda x: [np.dstack([x, x]), np.column_stack([x, x]), np.hstack([x, x]), np.vstack([x, x])], (V,)),
    "block": (lambda x, y: np.block([[x, y], [y, x]]), (A, B)),
    "append": (lambda x: [np.append(x, 1.0), np.append(x, x, axis=0)], (A,)),
    "split": (lambda x: [*np.split(x, 3), *np.split(x, [1, 3], 1), *np.hsplit(x, 2), *np.vsplit(x, 3)], (A,)),
    "array_split": (lambda x: np.array_split(x, 3), (V,)),
    "unstack": (lambda x: np.unstack(x, axis=1), (A,)),
    "tile": (lambda x: [np.tile(x, 2), np.tile(x, (2, 1, 3)), np.tile(x, ())], (A,)),
    "repeat": (lambda x: [np.repeat(x, 2), np.repeat(x, 3, axis=1), x.repeat([1, 0, 2], axis=0)], (A,)),
    "resize": (lambda x: [np.resize(x, (2, 4)), np.resize(x, 2)], (V,)),
    "pad": (lambda x: [np.pad(x, 1), np.pad(x, ((1, 0), (2, 3)), constant_values=5), np.pad(x, ((1, 2), (0, 0)))], (A,)),
    "pad modes": (lambda x: [np.pad(x, ((1, 2), (2, 1)), mode=m) for m in ("edge", "reflect", "symmetric", "wrap")], (A,)),
    "take": (lambda x: [np.take(x, [0, 2, -1]), x.take([1, 0], axis=1), np.take(x, 1, 0), np.take(x, [5, 9], 0, mode="wrap"),
                        np.take(x, [5, -9], 0, mode="clip")], (A,)),
    "take_along_axis": (lambda x, i: np.take_along_axis(x, i, 1), (A, np.array([[0], [-1], [2]]))),
    "insert delete": (lambda x: [np.insert(x, 1, 9.0), np.insert(x, [0, 2], [7.0, 8.0]), np.delete(x, [0, -1])], (V,)),
    "insert axis": (lambda x: [np.insert(x, 1, 9.0, axis=1), np.insert(x, 1, np.arange(3.0), axis=1), np.delete(x, 1, 0)], (A,)),
    "diag": (lambda x, v: [np.diag(x), np.diag(x, 1), np.diag(v), np.diag(v, -2), np.diagflat(v[:2])], (A, V)),
    "diagonal": (lambda x: [x.diagonal(), np.diagonal(x, 1, 1, 2), x.trace(), np.trace(x, -1, 0, 2)], (T,)),
    "tri": (lambda x: [np.tril(x), np.triu(x, 1), np.tril(x, -1), np.triu(x[0])], (A,)),
    # creation
    "likes": (lambda x: [np.zeros_like(x), np.ones_like(x, dtype=int), np.full_like(x, 7.5), np.zeros_like(x, shape=(2,))], (A,)),
    "array": (lambda x: [np.copy(x), x.copy(), x.astype(np.float32), x.astype(int), x.astype(bool)], (A,)),
    "linspace": (lambda s: [np.linspace(0, s, 5), np.linspace(s, 2, 4, endpoint=False), np.linspace(0, s, 1)], (S,)),
    "linspace arrays": (lambda x, y: [np.linspace(x, y, 4), np.linspace(x, y, 3, axis=-1)], (A, B)),
    "meshgrid": (lambda x, y: [*np.meshgrid(x, y), *np.meshgrid(x, y, indexing="ij", sparse=True)], (V, V[:3])),
    "vander": (lambda x: [np.vander(x), np.vander(x, 3, increasing=True)], (V,)),
    # products
    "dot": (lambda x, y: [np.dot(x, y), x.dot(y), x @ y, np.matmul(x, y), np.inner(x, y.T)], (A, M)),
    "dot vector": (lambda x, v: [np.dot(v, v), np.vdot(v, v), np.outer(v, v), np.inner(v, v), v @ v, x @ x[0]], (A, V)),
    "dot scalar": (lambda x, s: [np.dot(x, s), np.dot(s, x), np.inner(s, s)], (A, S)),
    "vdot complex": (lambda x: [np.vdot(x, x), np.vecdot(x, x)], (C,)),
    "matmul stack": (lambda x, y: [x @ y, np.matmul(x[0], y), x @ y[0]], (T, RNG.normal(size=(2, 4, 5)))),
    "matmul ndarray": (lambda x: [A.T @ x, x @ A.T, np.ones(3) @ x], (A,)),
    "matmul int": (lambda x: x @ x.T, (I,)),
    "matvec": (lambda x, v: [np.matvec(x, v), np.vecmat(v[:3], x)], (A, V[:4])),
    "tensordot": (lambda x, y: [np.tensordot(x, y, 1), np.tensordot(x, y, ((1,), (0,)))], (A, M)),
    "einsum": (lambda x, y: [np.einsum("ij,jk->ik", x, y), np.einsum("ij->", x), np.einsum("ij,jk", x, y)], (A, M)),
    "einsum list": (lambda x, y: np.einsum(x, [0, 1], y, [1, 2], [2, 0]), (A, M)),
    "kron": (lambda x, y: np.kron(x, y), (A, M)),
    "cross": (lambda x: [np.cross(x, x[::-1]), np.cross(x[:2], x[1:], axis=-1)], (RNG.normal(size=(3, 3)),)),
    "norm": (lambda x: [np.linalg.norm(x), np.linalg.norm(x, axis=1), np.linalg.norm(x, 1), np.linalg.norm(x, np.inf, keepdims=True),
                        np.linalg.norm(x, -1), np.linalg.norm(x, "fro", axis=(1, 0))], (A,)),
    "norm vector": (lambda v: [np.linalg.norm(v, p) for p in (None, 0, 1, 2, 3, np.inf, -np.inf, 0.5)], (V,)),
    "norm complex": (lambda x: [np.linalg.norm(x), np.linalg.norm(x, axis=0), np.linalg.norm(x, 1)], (C,)),
    "vector_norm": (lambda x: [np.linalg.vector_norm(x), np.linalg.vector_norm(x, axis=1, ord=1), np.linalg.matrix_norm(x)], (A,)),
    "multi_dot": (lambda x, y: np.linalg.multi_dot([x, y, y.T]), (A, M)),
    "matrix_power": (lambda x: [np.linalg.matrix_power(x, k) for k in (0, 1, 3, 4)], (Q,)),
    "matrix_transpose": (lambda x: [np.matrix_transpose(x), np.linalg.matrix_transpose(x)], (T,)),
    # selection
    "where": (lambda c, x, y: [np.where(c, x, y), np.where(c, x, 0), np.where(c, 1.5, y), np.where(x, 1, 2)], (MASK, A, I)),
    "where weak": (lambda c, x: [np.where(c, x, 0.0), np.where(c, 1, x), np.where(c, x, 2)], (MASK, SINGLE)),
    "select": (lambda x: np.select([x < -0.5, x < 0.5], [x**2, -x], default=3), (A,)),
    "choose": (lambda i, x: np.choose(i, [x, -x, x * 2]), (np.array([0, 2, 1, 1, 0]), V)),
    "clip": (lambda x: [np.clip(x, -0.5, 0.5), x.clip(0), np.clip(x, None, 0.2), np.clip(x, x[0], 3)], (A,)),
    "clip int": (lambda x: np.clip(x, -2, 2), (I.astype(np.int8),)),
    "nan_to_num": (lambda x: [np.nan_to_num(x), np.nan_to_num(x, nan=1, posinf=2)], (N,)),
    "round": (lambda x: [np.round(x), x.round(1), np.round(x * 100, -1), np.around(x, 2)], (A,)),
    "fix": (lambda x: [np.fix(x), np.trunc(x), np.rint(x)], (3 * A,)),
    "sinc": (lambda x: np.sinc(x), (np.array([0.0, 1e-5, 0.003, 0.5, -2.0]),)),
    "real imag": (lambda x: [x.real, x.imag, np.angle(x), np.conj(x), x.conj(), np.abs(x)], (C,)),
    "real of real": (lambda x: [x.real, x.imag, np.conj(x), np.iscomplex(x), np.isreal(x)], (A,)),
    "close": (lambda x, y: [np.isclose(x, x + 1e-9), np.isclose(x, y, equal_nan=True), np.isclose(x, x, rtol=0, atol=0)], (N, N[::-1])),
    "equal": (lambda x, y: [np.array_equal(x, x), np.allclose(x, y), np.array_equiv(x, x[None])], (A, B)),
    "sort": (lambda x: [np.sort(x), np.sort(x, 0), np.sort(x, None), np.argsort(x, 0, stable=True)], (A,)),
    "sort nan": (lambda x: [np.sort(x), np.argsort(x, kind="stable")], (N,)),
    "lexsort": (lambda x, y: np.lexsort((x, y)), (U, U[::-1].copy())),
    "searchsorted": (lambda v: [np.searchsorted(np.sort(V), v), np.searchsorted(np.sort(V), v, side="right")], (V,)),
    "digitize": (lambda x: [np.digitize(x, np.array([-1.0, 0.0, 1.0])), np.digitize(x, np.array([1.0, 0.0, -1.0]), right=True)], (A,)),
    "histogram": (lambda x: [*np.histogram(x, 4), *np.histogram(x, np.array([-1.0, 0.0, 2.0]), density=True)], (A,)),
    "diff": (lambda x: [np.diff(x), np.diff(x, 2, axis=0), np.diff(x, prepend=0.0), np.diff(x > 0), np.diff(x, 9)], (A,)),
    "ediff1d": (lambda x: np.ediff1d(x, to_end=[1.0], to_begin=[2.0, 3.0]), (A,)),
    "trapezoid": (lambda y, x: [np.trapezoid(y), np.trapezoid(y, dx=0.5, axis=0), np.trapezoid(y, x)], (A, np.arange(4.0) ** 2)),
    "gradient": (lambda x: [np.gradient(x, axis=0), *np.gradient(x, 0.5), np.gradient(x, 2.0, axis=1, edge_order=2)], (A,)),
    "unwrap": (lambda x: np.unwrap(5 * x), (A,)),
    "interp": (lambda x: [np.interp(x, [-1.0, 0.0, 0.5], [1.0, 3.0, -2.0]), np.interp(x, [-1.0, 1.0], [0.0, 1.0], left=-9, right=9)], (A,)),
    "convolve": (lambda x, y: [np.convolve(x, y, m) for m in ("full", "same", "valid")], (V, V[:3])),
    "convolve swapped": (lambda x, y: [np.convolve(x, y, m) for m in ("full", "same", "valid")], (V[:2], V)),
    "correlate": (lambda x, y: [np.correlate(x, y, m) for m in ("full", "same", "valid")], (V, V[:2])),
    "poly": (lambda p, x: [np.polyval(p, x), np.polyder(p), np.polyint(p, 2)], (V, A)),
    # statistics
    "average": (lambda x: [np.average(x), np.average(x, 1, weights=np.arange(4.0)), *np.average(x, weights=np.abs(x), returned=True)], (A,)),
    "median": (lambda x: [np.median(x), np.median(x, axis=0), np.median(x, axis=(0, 1), keepdims=True), np.median(x[:, :3], 1)], (A,)),
    "median nan": (lambda x: [np.median(x, axis=1), np.nanmedian(x, axis=1)], (N,)),
    "median int": (lambda x: np.median(x, axis=1), (I,)),
    "quantile": (lambda x: [np.quantile(x, 0.3), np.quantile(x, [0.1, 0.5, 1.0], axis=1), np.percentile(x, 75, axis=0, keepdims=True)], (A,)),
    "quantile methods": (lambda x: [np.quantile(x, 0.37, axis=0, method=m) for m in ("lower", "higher", "midpoint", "nearest")], (A,)),
    "nanquantile": (lambda x: np.nanquantile(x, 0.25, axis=1), (np.array([[1.0, np.nan, 3.0, 2.0], [4.0, 5.0, 6.0, 8.0]]),)),
    "cov": (lambda x, y: [np.cov(x), np.cov(x, rowvar=False), np.cov(x, y, bias=True), np.cov(x[0], y[0])], (A, B)),
    "cov weights": (lambda x: [np.cov(x, aweights=np.arange(1.0, 5)), np.cov(x, fweights=np.array([1, 2, 0, 3]))], (A,)),
    "corrcoef": (lambda x: [np.corrcoef(x), np.corrcoef(x[0], x[1])], (A,)),
    "bincount": (lambda x: np.bincount(x, minlength=9), (U,)),
    "bincount weights": (lambda w: np.bincount([0, 2, 2, 1, 4], weights=w), (V,)),
    "piecewise": (lambda x: np.piecewise(x, [x < 0, x > 1], [lambda t: -t, lambda t: t * 2, 0.5]), (A,)),
    # methods and protocols
    "methods": (lambda x: [divmod(x, 2)[0], divmod(x, 2)[1], abs(-x), +x, x.size * x, x.nbytes + x], (A,)),
    "iteration": (lambda x: [row * 2 for row in x], (A,)),
    "reflected": (lambda x: [A - x, A / x, 2**x, A @ x.T, np.float64(2) * x, [1, 2, 3, 4] + x], (B,)),
    "ufunc methods": (lambda x: [np.add.reduce(x), np.multiply.reduce(x, 1), np.maximum.accumulate(x, 1), np.add.outer(x, x[0]),
                                 np.maximum.reduce(x, axis=(0, 1)), np.logical_or.reduce(x > 0, axis=1)], (A,)),
    "ufunc out where": (lambda x: [np.add(x, 1, out=np.zeros_like(x), where=MASK), np.sqrt(np.abs(x), dtype=np.float32)], (SINGLE,)),
    "modf": (lambda x: [*np.modf(x), *np.divmod(x, 0.7)], (np.array([1.5, -2.25, np.inf, -0.0, 3.0]),)),
    "flat": (lambda x: [x.flat[3], x.flat[2:5], np.stack(list(x.flat))], (A,)),
    "compress": (lambda x: [x.compress([True, False, True], axis=0)], (A,)),
    "lists": (lambda x: [np.stack([x[0, 0], x[1, 1], np.float64(2)]), np.vstack([x[0], [1.0, 2.0, 3.0, 4.0]])], (A,)),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_staged(name: str) -> None:
    fun, args = ROWS[name]
    found, wanted = staged(fun, *args), expected(fun, *args)
    assert len(found) == len(wanted)
    for f, w in zip(found, wanted, strict=True):
        assert_same(f, w, ulps=64)


def _batchable(args: tuple[Any, ...]) -> bool:
    return all(isinstance(x, (np.ndarray, np.generic)) for x in args)


# functions of static values that a batch does not change
NOT_BATCHED = {"searchsorted", "equal", "lists"}


@pytest.mark.parametrize("name", [n for n in ROWS if n not in NOT_BATCHED])
def test_batched(name: str) -> None:
    fun, args = ROWS[name]
    stacked = [np.stack([x, x[::-1] if x.ndim else x]) for x in args]
    with np.errstate(all="ignore"):
        found = fg.vmap(lambda *xs: flat(fun(*xs)))(*stacked)
        rows = [expected(fun, *[s[k] for s in stacked]) for k in range(2)]
    for k, f in enumerate(found):
        assert_same(f, np.stack([np.asarray(rows[0][k]), np.asarray(rows[1][k])]), ulps=64)


UFUNCS = sorted(
    {u for u in vars(jnp).values() if isinstance(u, np.ufunc) and u.signature is None}, key=lambda u: u.__name__
)
SPECIAL = np.array([0.3, -0.7, 1.0, 0.0, -0.0, 2.5, np.inf, -np.inf, np.nan])
OPERANDS = {
    "?": np.array([True, False, True]), "b": np.array([-3, 0, 5], np.int8), "B": np.array([3, 0, 200], np.uint8),
    "i": np.array([-3, 1, 7], np.int32), "l": np.array([-2, 0, 9]), "L": np.array([2, 1, 9], np.uint64),
    "e": SPECIAL.astype(np.float16), "f": SPECIAL.astype(np.float32), "d": SPECIAL,
    "F": np.array([0.5 + 1j, -1 - 2j], np.complex64), "D": np.array([0.5 + 1j, -1 - 2j]),
}  # fmt: skip


def _accepts(call: Callable[..., Any], *args: Any) -> bool:
    try:
        with np.errstate(all="ignore"):
            call(*args)
    except (TypeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("ufunc", [u for u in UFUNCS if u.nin == 1], ids=lambda u: u.__name__)
def test_unary_ufuncs(ufunc: np.ufunc) -> None:
    for x in [*OPERANDS.values(), *[v[0] for v in OPERANDS.values()], np.zeros((0, 2))]:
        if ufunc is np.reciprocal and x.dtype.kind in "iu":
            x = np.where(x == 0, x.dtype.type(2), x)  # NumPy leaves the reciprocal of an integer 0 undefined
        if not _accepts(ufunc, x):
            with pytest.raises(TypeError):
                staged(ufunc, x)
            continue
        for f, w in zip(staged(ufunc, x), expected(ufunc, x), strict=True):
            assert_same(f, w)


PAIRS = [("d", "d"), ("f", "d"), ("e", "f"), ("l", "d"), ("b", "B"), ("i", "f"), ("?", "l"), ("?", "?"), ("L", "l"),
         ("l", "L"), ("D", "f"), ("F", "d"), ("l", "l"), ("B", "B")]  # fmt: skip


@pytest.mark.parametrize("ufunc", [u for u in UFUNCS if u.nin == 2], ids=lambda u: u.__name__)
def test_binary_ufuncs(ufunc: np.ufunc) -> None:
    pairs = [(OPERANDS[a][:2, None], OPERANDS[b][:3]) for a, b in PAIRS]
    for x, y in pairs:
        if not _accepts(ufunc, x, y):
            with pytest.raises((TypeError, ValueError)):
                staged(ufunc, x, y)
            continue
        for f, w in zip(staged(ufunc, x, y), expected(ufunc, x, y), strict=True):
            assert_same(f, w)


@pytest.mark.parametrize("scalar", [2, 2.5, True, 1j, np.float32(1.5), np.int8(3)])
@pytest.mark.parametrize("code", list("?bBile fdFD".replace(" ", "")))
def test_weak_scalars(code: str, scalar: Any) -> None:
    """Python scalars are weak, NumPy's are not: as NumPy says, on both sides and for tracers of scalars."""
    x = OPERANDS[code]
    for fun in (np.add, np.multiply, np.true_divide, np.maximum, np.less):
        for call in (lambda t, fun=fun: fun(t, scalar), lambda t, fun=fun: fun(scalar, t)):
            if _accepts(call, x):
                assert_same(staged(call, x)[0], expected(call, x)[0])


def test_int64_against_uint64() -> None:
    signed = np.array([-1, 0, 2**62, -(2**63)])
    unsigned = np.array([2**64 - 1, 0, 2**62, 2**63], np.uint64)
    for fun in (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal):
        assert_same(staged(fun, signed[:, None], unsigned)[0], fun(signed[:, None], unsigned))
        assert_same(staged(fun, unsigned[:, None], signed)[0], fun(unsigned[:, None], signed))


def test_plain_arrays_are_numpys_own() -> None:
    x = np.arange(6.0).reshape(2, 3)
    assert jnp.sin is np.sin
    assert type(jnp.sum(x)) is np.float64
    assert type(jnp.zeros(3)) is np.ndarray
    assert np.shares_memory(jnp.reshape(x, -1), x)
    assert jnp.array_equal(jnp.nonzero(np.array([0, 1, 0, 2]), size=3, fill_value=-1)[0], [1, 3, -1])


def test_lists_with_tracers() -> None:
    def f(x: Any) -> Any:
        return jnp.array([[x, 1.0], [2.0, x * x]])

    np.testing.assert_array_equal(staged(f, np.float64(3))[0], [[3, 1], [2, 9]])
    np.testing.assert_array_equal(staged(lambda x: jnp.sum([x, x, 1]), np.float64(3))[0], 7.0)


def test_sized_nonzero() -> None:
    x = np.array([[0, 3, 0], [1, 0, 2]])
    rows, columns = staged(lambda v: jnp.nonzero(v, size=4), x)
    np.testing.assert_array_equal(rows, [0, 1, 1, 0])
    np.testing.assert_array_equal(columns, [1, 0, 2, 0])


def test_derivatives_at_the_border() -> None:
    """where does not leak NaN, also to second order; norms and deviations of zeros have the gradient 0."""

    def f(x: Any) -> Any:
        return np.sum(np.where(x > 0, np.sqrt(x), 0))

    x = np.array([0.0, 4.0])
    np.testing.assert_array_equal(fg.grad(f)(x), [0, 0.25])
    np.testing.assert_array_equal(fg.hessian(f)(x), [[0, 0], [0, -1 / 32]])
    np.testing.assert_array_equal(fg.grad(np.linalg.norm)(np.zeros(3)), np.zeros(3))
    np.testing.assert_array_equal(fg.grad(np.std)(np.ones(3)), np.zeros(3))
    assert fg.grad(fg.grad(np.sinc))(0.0) == pytest.approx(-(np.pi**2) / 3, rel=1e-12)


GRADIENTS: dict[str, tuple[Callable[..., Any], Any]] = {
    "norm": (lambda x: np.linalg.norm(x, axis=1), A),
    "norm 3": (lambda x: np.linalg.norm(x, 3), V),
    "var": (lambda x: np.var(x, axis=0, ddof=1), A),
    "median": (lambda x: np.median(x, axis=1), A),
    "quantile": (lambda x: np.quantile(x, [0.2, 0.9], axis=0), A),
    "sort": (lambda x: np.sort(x, axis=None) * np.arange(12), A),
    "cov": (lambda x: np.cov(x), A),
    "interp": (lambda x: np.interp(x, [-2.0, 0.0, 2.5], [1.0, 3.0, -2.0]), A),
    "convolve": (lambda x: np.convolve(x, x[:2]), V),
    "pad": (lambda x: np.pad(x, 2, mode="reflect") ** 2, A),
    "polyval": (lambda x: np.polyval(x, x), V),
    "sinc": (np.sinc, V),
    "kron": (lambda x: np.kron(x, x), Q),
    "cross": (lambda x: np.cross(x, x[::-1]), Q),
    "cumprod": (lambda x: np.cumprod(x), V),
    "trapezoid": (lambda x: np.trapezoid(x, np.cumsum(x**2)), V),
    "diag": (lambda x: np.diag(x) @ x, V),
    "logspace": (lambda x: np.logspace(x[0], x[1], 4, base=2.0), V),
    "multi_dot": (lambda x: np.linalg.multi_dot([x, x.T, x]), A),
    "nanmean": (lambda x: np.nanmean(np.where(x > 0, x, np.nan), axis=1), A),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    """Reverse mode against central differences."""
    fun, x = GRADIENTS[name]

    def loss(v: Any) -> Any:
        y = fun(v)
        return np.sum(y * np.cos(np.arange(np.size(y)).reshape(np.shape(y))))

    found = fg.grad(loss)(x)
    step = 1e-6
    for k in range(x.size):
        d = np.zeros(x.size)
        d[k] = step
        d = d.reshape(x.shape)
        slope = (loss(x + d) - loss(x - d)) / (2 * step)
        assert found.ravel()[k] == pytest.approx(slope, rel=1e-6, abs=1e-6)
