"""Every primitive compiled, against the interpreter: on its samples, in double and single precision.

Both run the same jaxpr. Elementary functions may differ in the last places, integers and booleans in none.
"""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from typing import Any

import numpy as np
import pytest

import funcgrad.ops
from funcgrad.compiler import compile_jaxpr
from funcgrad.core import lowering
from funcgrad.core.avals import aval_of
from funcgrad.core.jaxpr import eval_jaxpr
from funcgrad.core.primitive import REGISTRY, Primitive
from funcgrad.core.staging import stage

for _module in pkgutil.iter_modules(funcgrad.ops.__path__, "funcgrad.ops."):
    importlib.import_module(_module.name)


def rows(primitive: Primitive) -> list[Any]:
    assert primitive.samples is not None
    return list(primitive.samples(np.random.default_rng(zlib.crc32(primitive.name.encode()))))


@pytest.mark.parametrize("precision", [np.float64, np.float32])
@pytest.mark.parametrize("name", [name for name, p in sorted(REGISTRY.items()) if p.samples is not None])
def test_compiled(name: str, precision: Any) -> None:
    primitive = REGISTRY[name]
    for args, params in rows(primitive):
        inputs = [np.asarray(x) for x in args]
        inputs = [x.astype(precision)[()] if x.dtype == np.float64 else x[()] for x in inputs]

        check(primitive, inputs, params)


# Elementwise operations bring complex samples; vectors of complex decompositions have a phase, which rounding chooses.
ARRAY_OPERATIONS = [
    name
    for name, p in sorted(REGISTRY.items())
    if p.samples is not None
    and not isinstance(p.lower, lowering.Scalar)
    and name not in ("eig", "eigh", "svd", "qr", "cumlogsumexp")
]


@pytest.mark.parametrize("precision", [np.complex128, np.complex64])
@pytest.mark.parametrize("name", ARRAY_OPERATIONS)
def test_compiled_complex(name: str, precision: Any) -> None:
    primitive, taken = REGISTRY[name], 0
    for args, params in rows(primitive):
        inputs = [np.asarray(x) for x in args]
        inputs = [(x * (1 + 0.25j)).astype(precision) if x.dtype.kind in "fc" else x for x in inputs]
        if name == "cholesky":
            inputs = [x.real.astype(precision) for x in inputs]
        try:
            primitive.shape(*[aval_of(x) for x in inputs], **params)
        except (TypeError, ValueError):
            continue  # it takes real operands only
        check(primitive, [x[()] for x in inputs], params)
        taken += 1
    if not taken:
        pytest.skip("real operands only")


def check(primitive: Primitive, inputs: list[Any], params: Any) -> None:
    def fun(*xs: Any) -> list[Any]:
        out = primitive.bind(*xs, **params)
        return list(out) if primitive.multiple_results else [out]

    closed = stage(fun, [aval_of(x) for x in inputs])
    wanted = eval_jaxpr(closed.jaxpr, closed.consts, *inputs)
    found = compile_jaxpr(closed)([np.ascontiguousarray(x) if np.ndim(x) else x for x in inputs])
    for x, y in zip(found, wanted, strict=True):
        assert np.shape(x) == np.shape(y) and np.asarray(x).dtype == np.asarray(y).dtype
        if np.asarray(y).dtype.kind in "biu":
            np.testing.assert_array_equal(x, y)
        else:
            rounding = 64 * np.finfo(np.asarray(y).dtype).eps
            np.testing.assert_allclose(x, y, rtol=rounding, atol=rounding * max(1, np.abs(y).max(initial=0)))
