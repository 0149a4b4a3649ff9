"""Generated scalar code against NumPy: every elementwise primitive, every dtype that it takes, awkward values."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import funcgrad
from funcgrad.compiler import Executable, compile_jaxpr
from funcgrad.core.avals import aval_of
from funcgrad.core.lowering import Scalar
from funcgrad.core.primitive import REGISTRY, Primitive
from funcgrad.core.staging import stage
from funcgrad.kernels.graph import Call
from funcgrad.ops.reduce import argmax_p, argmin_p, reduce_max_p, reduce_min_p, reduce_prod_p
from funcgrad.ops.structural import reduce_sum_p

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES = [np.dtype(t) for t in ["bool", *INTEGERS, "float16", "float32", "float64", "complex64", "complex128"]]
TOLERANCE = {"e": 2e-3, "f": 5e-7, "d": 1e-14, "F": 2e-6, "D": 1e-13}


NOT_HERE = {("integer_pow", "b")}
ZERO_OF_EITHER_SIGN = {"lgamma", "erf_inv"}
"""SciPy gives erfinv(-0.0) = +0.0."""


def values(dtype: np.dtype[Any], rng: np.random.Generator) -> np.ndarray:
    """Ordinary numbers, and the ends of the range."""
    if dtype.kind == "b":
        return np.array([False, True, True, False] * 6)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        ends = np.array([info.min, info.max, 0, 1, info.max // 2, info.min + 1], dtype)
        return np.concatenate([ends, rng.integers(max(info.min, -9), 10, size=18).astype(dtype)])
    ends = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5], np.float64)
    real = np.concatenate([ends, rng.normal(size=16) * 3])
    if dtype.kind == "c":
        finite = real[np.isfinite(real)]
        return (finite[:24] + 1j * np.roll(finite, 5)[:24]).astype(dtype)
    return real.astype(dtype)


def elementwise() -> list[tuple[str, np.dtype[Any]]]:
    rows = []
    for name, p in REGISTRY.items():
        if not isinstance(p.lower, Scalar) or name in ("convert", "nextafter", "polygamma"):
            continue
        rows += [(name, d) for d in DTYPES if operand_avals(p, d) is not None and (name, d.kind) not in NOT_HERE]
    return rows


def operand_avals(p: Primitive, dtype: np.dtype[Any]) -> list[np.ndarray] | None:
    """Arrays of this dtype that the primitive takes, or None."""
    rng = np.random.default_rng(3)
    x = values(dtype, rng)
    y = np.roll(values(dtype, rng), 7)
    mask = np.arange(x.size) % 3 == 0
    arity = len(p.samples(rng)[0][0])
    args = [[x], [x, y], [mask, x, y]][arity - 1]
    try:
        p.shape(*[aval_of(a) for a in args], **params_of(p))
    except TypeError:
        return None
    return args


def params_of(p: Primitive) -> dict[str, Any]:
    return {"y": 3} if p.name == "integer_pow" else {}


def compiled(p: Primitive, args: list[np.ndarray], **params: Any) -> Executable:
    return compile_jaxpr(stage(lambda *a: [p.bind(*a, **params)], [aval_of(a) for a in args]))


@pytest.mark.parametrize(("name", "dtype"), elementwise(), ids=lambda x: str(x))
def test_scalar_function(name: str, dtype: np.dtype[Any]) -> None:
    p = REGISTRY[name]
    args = operand_avals(p, dtype)
    assert args is not None
    if name in ("shift_left", "shift_right"):
        args[1] = np.abs(args[1] % np.array(np.iinfo(dtype).bits + 3, dtype))
    if name == "pow" and dtype.kind == "i":
        args[1] = np.abs(args[1] % np.array(9, dtype))
    if name == "lgamma":  # at -inf C has inf and SciPy -inf
        args = [np.where(args[0] == -np.inf, args[0].dtype.type(1), args[0])]
    with np.errstate(all="ignore"):
        expected = np.asarray(p.impl(*args, **params_of(p)))
    (found,) = compiled(p, args, **params_of(p))(args)
    assert found.dtype == expected.dtype
    if expected.dtype.kind not in "fc":
        np.testing.assert_array_equal(found, expected)
    else:
        tolerance = TOLERANCE[expected.dtype.char]
        tiny = 0 if expected.dtype.kind == "c" or dtype.char in "fd" else tolerance * 1e-2
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tiny or tolerance * 1e-2)
        if expected.dtype.kind == "f" and name not in ZERO_OF_EITHER_SIGN:
            zero = expected == 0
            np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(expected[zero]))


@pytest.mark.parametrize("target", DTYPES, ids=str)
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_conversion(source: np.dtype[Any], target: np.dtype[Any]) -> None:
    rng = np.random.default_rng(5)
    x = values(source, rng)
    if source.kind in "fc" and target.kind in "iu":  # beyond the range C leaves the result open
        with np.errstate(all="ignore"):
            limits = np.iinfo(target)
            x = x[np.isfinite(x.real) & (x.real > max(limits.min, -99)) & (x.real < min(limits.max, 99))]
    with np.errstate(all="ignore"):
        expected = (x.real if source.kind == "c" and target.kind not in "cb" else x).astype(target)
    (found,) = compiled(REGISTRY["convert"], [x], dtype=target, weak=False)([x])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.kind in "iu"], ids=str)
def test_conversion_of_what_does_not_fit_terminates(dtype: np.dtype[Any]) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300, 3e10, -5.0])
    (found,) = compiled(REGISTRY["convert"], [x], dtype=dtype, weak=False)([x])
    assert found.dtype == dtype


REDUCTIONS = [
    (p, dtype)
    for p in (reduce_sum_p, reduce_prod_p, reduce_max_p, reduce_min_p)
    for dtype in DTYPES
    if dtype.kind != "b" or p in (reduce_max_p, reduce_min_p)  # sums count booleans as integers: ops converts first
]


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize(("p", "dtype"), REDUCTIONS, ids=str)
def test_reduction(p: Primitive, dtype: np.dtype[Any], axes: tuple[int, ...], rng: np.random.Generator) -> None:
    x = rng.integers(0, 4, size=(6, 7)).astype(dtype)
    if dtype.kind == "c":
        x = (x + 1j * rng.integers(0, 3, size=x.shape)).astype(dtype)
    with np.errstate(all="ignore"):
        expected = p.impl(x, axes=axes)
    (found,) = compiled(p, [x], axes=axes)([x])
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE.get(dtype.char, 0))
    assert np.asarray(found).dtype == expected.dtype


@pytest.mark.parametrize("p", [reduce_max_p, reduce_min_p], ids=str)
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=str)
def test_extremes_propagate_nan(p: Primitive, axes: tuple[int, ...], rng: np.random.Generator) -> None:
    x = rng.normal(size=(40, 300))
    x[3, 77] = np.nan
    (found,) = compiled(p, [x], axes=axes)([x])
    np.testing.assert_array_equal(found, p.impl(x, axes=axes))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("p", [argmax_p, argmin_p], ids=str)
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.kind != "c"], ids=str)
def test_first_extreme(p: Primitive, dtype: np.dtype[Any], axis: int, rng: np.random.Generator) -> None:
    x = rng.integers(0, 5, size=(9, 50)).astype(dtype)
    if dtype.kind == "f":
        x[2, 5] = x[2, 9] = np.nan
        x[4] = -np.inf
        x[5] = np.inf
    (found,) = compiled(p, [x], axis=axis)([x])
    np.testing.assert_array_equal(found, p.impl(x, axis=axis))


def test_integers_do_not_trap() -> None:
    least = np.array([np.iinfo(np.int64).min, 5, -5, 7], np.int64)
    by = np.array([-1, 0, 0, -2], np.int64)
    for name in ("floor_divide", "remainder", "fmod"):
        (found,) = compiled(REGISTRY[name], [least, by])([least, by])
        assert found[1] == found[2] == 0


@pytest.mark.parametrize("n", [10**4, 3 * 10**5])
def test_long_sums_are_accurate(n: int, rng: np.random.Generator) -> None:
    """As good as NumPy's pairwise sums, whether by rows, by columns or by blocks."""
    x = rng.uniform(0, 1, size=n).astype(np.float32)
    exact = np.sum(x, dtype=np.float64)
    for shape, axes in [((n,), (0,)), ((2, n // 2), (1,)), ((n // 2, 2), (0,))]:
        (found,) = compiled(reduce_sum_p, [x.reshape(shape)], axes=axes)([x.reshape(shape)])
        assert abs(np.sum(found, dtype=np.float64) - exact) <= 4e-6 * exact


def test_a_product_is_rounded_but_where_it_is_summed() -> None:
    """A difference of equal products is zero, whichever of them a machine could leave unrounded; a sum of products
    takes each exactly: 2**-60 is lost where the product is rounded first."""
    x = 1 + 2.0**-30 * np.arange(1, 40)
    y = x[::-1].copy()
    assert (funcgrad.jit(lambda x, y: x * y - y * x)(x, y) == 0).all()
    assert (funcgrad.jit(lambda x, y: x * y + -(x * y))(x, y) == 0).all()
    features = pytest.importorskip("llvmlite.binding").get_host_cpu_features()
    if not features.get("fma"):
        pytest.skip("this machine cannot fuse a product with a sum")
    a, b = np.zeros((512, 3)), np.zeros((512, 3))  # the two terms go into one lane, however many there are
    a[0], b[0] = -1, 1 + 2.0**-29
    a[256], b[256] = 1 + 2.0**-30, 1 + 2.0**-30
    for axis in (0, 1):
        assert funcgrad.jit(lambda a, b, axis=axis: np.sum(a * b, axis))(a, b)[0] == 2.0**-60, axis
        a, b = a.T.copy(), b.T.copy()


VECTORISED = {
    "elementwise": (lambda x: [REGISTRY["tanh"].bind(x)], (100,)),
    "row sum": (lambda x: [reduce_sum_p.bind(x, axes=(1,))], (10, 100)),
    "row max": (lambda x: [reduce_max_p.bind(x, axes=(1,))], (10, 100)),
    "column sum": (lambda x: [reduce_sum_p.bind(x, axes=(0,))], (10, 100)),
    "full sum": (lambda x: [reduce_sum_p.bind(x, axes=(0, 1))], (1000, 100)),
}


@pytest.mark.parametrize("name", VECTORISED)
def test_hot_loops_are_vectorised(name: str) -> None:
    f, shape = VECTORISED[name]
    executable = compile_jaxpr(stage(f, [aval_of(np.zeros(shape))]))
    text = executable.kernels[0].llvm()
    word = {"row max": r"@llvm\.v?.*maximum.*<\d+ x double>"}.get(name, r"(fadd|fmul|fma).*<\d+ x double>")
    assert re.search(word, text), "no vector arithmetic in the kernel"


def test_what_has_no_code_runs_in_python_and_says_so() -> None:
    x = np.array([1 + 2j, 0.5 - 1j])
    executable = compiled(REGISTRY["tan"], [x])
    assert [s.kind for s in executable.lowered.steps if isinstance(s, Call)] == ["host"]
    assert "host tan" in executable.as_text()
    np.testing.assert_allclose(executable([x])[0], np.tan(x), rtol=1e-14)


def test_kernels_differ_where_their_constants_do_to_the_bit() -> None:
    """-0.0 equals 0.0 in Python, and a kernel's text is looked up by equality."""
    x = np.ones(5)
    for zero in (0.0, -0.0, 0.0):
        found = funcgrad.jit(lambda x, zero=zero: np.copysign(x, zero))(x)
        np.testing.assert_array_equal(found, np.copysign(x, zero))
    z = np.ones(3, complex)
    for zero in (
        complex(0.0, 0.0),
        complex(0.0, -0.0),
        complex(-0.0, 0.0),
        complex(np.inf, -0.0),
        complex(np.inf, 0.0),
    ):
        (found,) = compile_jaxpr(stage(lambda z, zero=zero: [np.where(z == 0, z, zero)], [aval_of(z)]))([z])
        assert [(np.signbit(v.real), np.signbit(v.imag)) for v in found] == [
            (np.signbit(zero.real), np.signbit(zero.imag))
        ] * 3
