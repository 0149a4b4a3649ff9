"""Which primitives leave native code under ``jit``: the list is in the README, and this test holds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from funcgrad.compiler import lower_jaxpr
from funcgrad.core.avals import aval_of
from funcgrad.core.primitive import REGISTRY, Primitive
from funcgrad.core.staging import stage
from funcgrad.passes.pipeline import optimize

HOST = {"matrix_function", "nextafter", "polygamma", "sqrtm"}


def uses_host(p: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> bool:
    def fun(*xs: Any) -> list[Any]:
        out = p.bind(*xs, **params)
        return list(out) if p.multiple_results else [out]

    return "# host" in lower_jaxpr(optimize(stage(fun, [aval_of(x) for x in args]))).as_text()


@pytest.mark.parametrize("name", sorted(n for n, p in REGISTRY.items() if p.samples is not None))
def test_real_operands_run_natively(name: str, rng: np.random.Generator) -> None:
    p = REGISTRY[name]
    assert p.samples is not None
    rows = [(a, k) for a, k in p.samples(rng) if all(aval_of(x).dtype.kind != "c" and aval_of(x).size for x in a)]
    assert any(uses_host(p, args, params) for args, params in rows) == (name in HOST)
