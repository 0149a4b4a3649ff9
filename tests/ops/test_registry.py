"""Every primitive, held to its meaning by rows that its own declaration supplies (``samples``).

The witnesses are independent of the rules under test: ``impl`` (NumPy) for shapes and dtypes, finite differences for
JVPs, the pairing <ct, J v> = <J^T ct, v> for transposes, both again on the derivative for second order, a Python loop
for batching, direct evaluation for staged programs.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import zlib
from typing import Any

import numpy as np
import pytest

import funcgrad.ops
from funcgrad.core import lowering
from funcgrad.core.avals import aval_of
from funcgrad.core.jaxpr import check_jaxpr, eval_jaxpr
from funcgrad.core.primitive import REGISTRY, ZERO, NotDifferentiable, NotLinear, Primitive, ZeroDerivative
from funcgrad.core.staging import stage
from funcgrad.errors import NonDifferentiableError
from funcgrad.transforms.batch import batch_flat
from funcgrad.transforms.forward import jvp_flat, tangent_zeros
from funcgrad.transforms.linear import linearize_flat

for _module in pkgutil.walk_packages(funcgrad.__path__, "funcgrad."):
    importlib.import_module(_module.name)

# Operands along which an operation has no derivative although their dtype could have one.
# Matrices that come with their factors: values follow the factors, derivatives the matrix; see tests/ops/test_linalg.
CONSTANT_OPERANDS = {
    "polygamma": {0},
    "linear_solve": {0, 1},
    "cofactors": {0, 1},
    "det": {0, 1},
    "slogdet": {0, 1},
    "sylvester": {0, 1, 2, 3, 4, 5},
}


def hermitian(x: Any) -> Any:
    return (x + np.conj(np.swapaxes(x, -1, -2))) / 2


# Operations on matrices of a kind: directions, like the operands, are of that kind.
STRUCTURE = {"cholesky": hermitian, "eigh": hermitian, "eigvalsh": hermitian}
# Operations on matrices whose eigenvalues lie in a domain: variants of the operands are multiples of them.
DOMAINS = {"sylvester", "trsyl", "sqrtm", "matrix_function", "matrix_function_derivative"}


class Row:
    """One application of a primitive to arrays, as a function of those that have tangents."""

    def __init__(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> None:
        self.primitive = primitive
        self.args = args
        self.params = params
        constant = CONSTANT_OPERANDS.get(primitive.name, ())
        self.active = [k for k, x in enumerate(args) if aval_of(x).dtype.kind in "fc" and k not in constant]

    def all_results(self, *args: Any) -> list[Any]:
        out = self.primitive.bind(*args, **self.params)
        return list(out) if self.primitive.multiple_results else [out]

    def __call__(self, *active: Any) -> list[Any]:
        args = list(self.args)
        for k, x in zip(self.active, active, strict=True):
            args[k] = x
        return [x for x in self.all_results(*args) if aval_of(x).dtype.kind in "fc"]

    @property
    def primals(self) -> list[Any]:
        return [self.args[k] for k in self.active]

    def cast(self, dtype: Any) -> Row:
        args = [np.asarray(x, dtype)[()] if np.asarray(x).dtype == np.float64 else x for x in self.args]
        return Row(self.primitive, tuple(args), self.params)

    def is_double(self) -> bool:
        return all(np.asarray(x).dtype in (np.float64, np.complex128) for x in [*self.primals, *self(*self.primals)])


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


ROWS = {
    f"{name}-{k}": Row(primitive, args, params)
    for name, primitive in sorted(REGISTRY.items())
    if primitive.samples is not None
    for k, (args, params) in enumerate(primitive.samples(_rng(name)))
}
SMOOTH = {
    name: row
    for name, row in ROWS.items()
    if callable(row.primitive.jvp) and row.active and row(*row.primals) and row.is_double()
}


def random_like(rng: np.random.Generator, x: Any) -> Any:
    x = np.asarray(x)
    v = rng.normal(size=x.shape)
    if x.dtype.kind == "c":
        v = v + 1j * rng.normal(size=x.shape)
    return v.astype(x.dtype)[()]


def pairing(xs: list[Any], ys: list[Any]) -> float:
    """Real part of the bilinear pairing: what transposition preserves, also for complex numbers."""
    return sum(float(np.real(np.sum(np.multiply(x, y)))) for x, y in zip(xs, ys, strict=True) if y is not ZERO)


def instantiated(tangents: list[Any], outs: list[Any]) -> list[Any]:
    return [tangent_zeros(aval_of(o)) if t is ZERO else t for t, o in zip(tangents, outs, strict=True)]


def jvp(fun: Any, primals: list[Any], tangents: list[Any]) -> list[Any]:
    outs, out_tangents = jvp_flat(fun, primals, tangents)
    return instantiated(out_tangents, outs)


def vjp(fun: Any, primals: list[Any], cts: list[Any]) -> list[Any]:
    _, linear = linearize_flat(fun, primals)
    return instantiated(linear.transpose(cts), primals)


def difference(fun: Any, primals: list[Any], direction: list[Any], h: float = 1e-5) -> list[Any]:
    """The central difference quotient along a direction."""
    after = fun(*[np.asarray(x + h * v)[()] for x, v in zip(primals, direction, strict=True)])
    before = fun(*[np.asarray(x - h * v)[()] for x, v in zip(primals, direction, strict=True)])
    return [(a - b) / (2 * h) for a, b in zip(after, before, strict=True)]


def assert_close(found: list[Any], wanted: list[Any], rtol: float, atol: float) -> None:
    assert len(found) == len(wanted)
    for x, y in zip(found, wanted, strict=True):
        assert np.shape(x) == np.shape(y)
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=atol)


def structure(row: Row) -> Any:
    return STRUCTURE.get(row.primitive.name, lambda x: x)


def check_derivatives(rng: np.random.Generator, fun: Any, primals: list[Any], order: int, kind: Any) -> None:
    """JVP against differences, VJP against the JVP, then the same of both; along directions of a kind."""
    v = [kind(random_like(rng, x)) for x in primals]
    tangents = jvp(fun, primals, v)
    assert_close(tangents, difference(fun, primals, v), rtol=2e-6, atol=2e-7)
    cts = [random_like(rng, y) for y in tangents]
    pulled = vjp(fun, primals, cts)
    for x, c in zip(primals, pulled, strict=True):
        assert np.shape(c) == np.shape(x) and np.asarray(c).dtype == np.asarray(x).dtype
    scale = 1 + sum(float(np.abs(np.multiply(c, t)).sum()) for c, t in zip(cts, tangents, strict=True))
    assert pairing(pulled, v) == pytest.approx(pairing(cts, tangents), abs=1e-10 * scale)
    if order > 1:
        check_derivatives(rng, lambda *xs: jvp(fun, list(xs), v), primals, order - 1, kind)
        check_derivatives(rng, lambda *xs: vjp(fun, list(xs), cts), primals, order - 1, kind)


@pytest.mark.parametrize("name", REGISTRY)
def test_declaration_is_whole(name: str) -> None:
    p = REGISTRY[name]
    assert callable(p.impl) and callable(p.shape) and callable(p.batch)
    assert callable(p.jvp) or (isinstance(p.jvp, (ZeroDerivative, NotDifferentiable)) and p.jvp.reason)
    assert callable(p.transpose) or (isinstance(p.transpose, NotLinear) and p.transpose.reason)
    assert isinstance(p.lower, lowering.Lowering)
    assert isinstance(p.lower, lowering.Host) is bool(getattr(p.lower, "reason", ""))
    first_order = p.linearize is None and p.collective is None
    module = getattr(p.shape, "__module__", "")
    assert p.samples is not None or not first_order or not module.startswith("funcgrad.ops"), "no samples"


@pytest.mark.parametrize("name", ROWS)
def test_shape_rule(name: str) -> None:
    """NumPy's result has the shape and dtype that the rule says, in double and single precision."""
    row = ROWS[name]
    for r in (row, row.cast(np.float32)):
        out = r.primitive.shape(*[aval_of(x) for x in r.args], **r.params)
        avals = out if r.primitive.multiple_results else (out,)
        for x, aval in zip(r.all_results(*r.args), avals, strict=True):
            assert np.shape(x) == aval.shape
            assert np.asarray(x).dtype == aval.dtype


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives(name: str, rng: np.random.Generator) -> None:
    check_derivatives(rng, SMOOTH[name], SMOOTH[name].primals, 2, structure(SMOOTH[name]))


REAL_FFT = {"RFFT", "IRFFT"}  # from or to real numbers, whatever the operand
REAL_ONLY = {"cumlogsumexp", "eig", "eigh", "eigvals", "svd"}  # complex vectors have a phase, which rounding chooses
ARRAY_OPERATIONS = [
    name
    for name, row in SMOOTH.items()
    if not isinstance(row.primitive.lower, lowering.Scalar)
    and row.primitive.name not in REAL_ONLY
    and row.params.get("fft_type") not in REAL_FFT
]


@pytest.mark.parametrize("name", ARRAY_OPERATIONS)
def test_complex_derivatives(name: str, rng: np.random.Generator) -> None:
    """Operations that move and fold elements do so with complex ones; elementwise ones bring complex samples."""
    row = SMOOTH[name]
    args = list(row.args)
    for k in row.active:
        args[k] = structure(row)(np.asarray(args[k] + 0.3j * rng.normal(size=np.shape(args[k])))[()])
    row = Row(row.primitive, tuple(args), row.params)
    check_derivatives(rng, row, row.primals, 2, structure(row))


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_keep_single_precision(name: str, rng: np.random.Generator) -> None:
    row = SMOOTH[name].cast(np.float32)
    outs = row(*row.primals)
    tangents = jvp(row, row.primals, [random_like(rng, x) for x in row.primals])
    assert [np.asarray(t).dtype for t in tangents] == [np.asarray(x).dtype for x in outs]
    pulled = vjp(row, row.primals, [random_like(rng, x) for x in outs])
    assert [np.asarray(t).dtype for t in pulled] == [np.asarray(x).dtype for x in row.primals]


@pytest.mark.parametrize("name", [n for n, r in ROWS.items() if not callable(r.primitive.jvp) and r.active])
def test_no_derivative(name: str, rng: np.random.Generator) -> None:
    """Locally constant operations give zero tangents, others refuse with their reason."""
    row = ROWS[name]
    v = [random_like(rng, x) for x in row.primals]
    if isinstance(row.primitive.jvp, NotDifferentiable):
        with pytest.raises(NonDifferentiableError, match=row.primitive.jvp.reason):
            jvp_flat(row, row.primals, v)
        return
    _, tangents = jvp_flat(row, row.primals, v)
    assert all(t is ZERO for t in tangents)


SIZE = 3


def variants(rng: np.random.Generator, row: Row, x: Any) -> list[Any]:
    """Different values of the same kind, all inside the domain of the operation."""
    x = np.asarray(x)
    if row.primitive.name in STRUCTURE or row.primitive.name in DOMAINS:
        return [x * (1 + 0.1 * k) for k in range(SIZE)]
    if x.ndim and x.dtype.kind in "iu":  # within rows: permutations remain permutations
        return [x] + [rng.permuted(x, axis=-1) for _ in range(SIZE - 1)]
    if x.ndim:
        return [x] + [rng.permutation(x.ravel()).reshape(x.shape) for _ in range(SIZE - 1)]
    if x.dtype.kind in "iu":
        return [x + k for k in range(SIZE)]
    return [x if x.dtype.kind == "b" else (x * (1 - 0.02 * k)).astype(x.dtype) for k in range(SIZE)]


def batch_dims(rng: np.random.Generator, args: tuple[Any, ...]) -> list[tuple[int | None, ...]]:
    """Every combination of: not batched, batched at the front, at the end; a sample of them if they are many."""
    choices = [(None, 0, np.ndim(x)) if np.ndim(x) else (None, 0) for x in args]
    every = [dims for dims in itertools.product(*choices) if any(d is not None for d in dims)]
    if len(every) > 26:
        every = [every[k] for k in sorted(rng.permutation(len(every))[:26])]
    return every


@pytest.mark.parametrize("name", [n for n, r in ROWS.items() if r.args])
def test_batching(name: str, rng: np.random.Generator) -> None:
    row = ROWS[name]
    values = [variants(rng, row, x) for x in row.args]
    for dims in batch_dims(rng, row.args):
        args = [x[0] if d is None else np.stack(x, axis=d) for x, d in zip(values, dims, strict=True)]
        out = batch_flat(row.all_results, SIZE, args, dims, lambda n: [0] * n)
        each = [
            row.all_results(*[x[0 if d is None else k] for x, d in zip(values, dims, strict=True)]) for k in range(SIZE)
        ]
        for found, wanted in zip(out, map(np.stack, zip(*each, strict=True)), strict=True):
            assert np.asarray(found).dtype == wanted.dtype
            assert np.shape(found) == wanted.shape, f"batched at {dims}"
            np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-13, err_msg=f"batched at {dims}")


@pytest.mark.parametrize("name", [n for n, r in SMOOTH.items() if r.args])
def test_batched_gradient(name: str, rng: np.random.Generator) -> None:
    """The VJP, batched over all operands and cotangents, against a loop."""
    row = SMOOTH[name]
    values = [variants(rng, row, x) for x in row.args]
    columns = [np.stack(x) for x in values]
    first = row.all_results(*[x[0] for x in values])
    cts = [np.stack([random_like(rng, y) for _ in range(SIZE)]) for y in first if np.asarray(y).dtype.kind in "fc"]

    def pullback(*args: Any) -> list[Any]:
        r = Row(row.primitive, args[: len(columns)], row.params)
        r.active = row.active
        return vjp(r, r.primals, list(args[len(columns) :]))

    every = [*columns, *cts]
    out = batch_flat(pullback, SIZE, every, [0] * len(every), lambda n: [0] * n)
    each = [pullback(*[np.asarray(x[k])[()] for x in every]) for k in range(SIZE)]
    for found, wanted in zip(out, map(np.stack, zip(*each, strict=True)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ROWS)
def test_staged(name: str) -> None:
    """A jaxpr of the operation checks, and evaluates to what the operation gives directly."""
    row = ROWS[name]
    closed = stage(row.all_results, [aval_of(x) for x in row.args])
    check_jaxpr(closed.jaxpr)
    found = eval_jaxpr(closed.jaxpr, closed.consts, *row.args)
    for x, y in zip(found, row.all_results(*row.args), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", SMOOTH)
def test_staged_gradient(name: str, rng: np.random.Generator) -> None:
    """Rules work on tracers that know only shapes; the staged pullback checks and evaluates to the direct one."""
    row = SMOOTH[name]
    cts = [random_like(rng, x) for x in row(*row.primals)]
    n = len(row.active)

    def pullback(*args: Any) -> list[Any]:
        return vjp(row, list(args[:n]), list(args[n:]))

    everything = [*row.primals, *cts]
    closed = stage(pullback, [aval_of(x) for x in everything])
    check_jaxpr(closed.jaxpr)
    found = eval_jaxpr(closed.jaxpr, closed.consts, *everything)
    for x, y in zip(found, pullback(*everything), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-13, atol=1e-13)
