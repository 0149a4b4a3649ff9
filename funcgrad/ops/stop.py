"""``stop_gradient``: the identity, held constant by every derivative."""

from __future__ import annotations

from typing import Any

from ..core.avals import aval_of
from ..core.lowering import View
from ..core.primitive import NotLinear, Primitive, ZeroDerivative

__all__ = ["stop_gradient", "stop_gradient_p"]

stop_gradient_p: Primitive = Primitive(
    "stop_gradient",
    impl=lambda x: x,
    shape=lambda x: x,
    jvp=ZeroDerivative("it holds its operand constant"),
    transpose=NotLinear("it is a constant to every derivative"),
    batch=lambda size, args, dims: (stop_gradient_p.bind(args[0]), dims[0]),
    lower=View(lambda layout: layout),
    samples=lambda rng: [((rng.normal(size=(2, 3)),), {}), ((rng.integers(0, 9, size=3),), {})],
)


def stop_gradient(x: Any) -> Any:
    """``x``, treated as a constant by ``grad``, ``jvp`` and every other derivative. Any dtype."""
    return stop_gradient_p.bind(x) if aval_of(x).dtype.kind in "fc" else x
