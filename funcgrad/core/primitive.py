"""Primitives: everything that is known of one operation, in one declaration.

``Primitive`` is a frozen record of rules. Array operands are positional and everything static is a keyword, so an
application is determined by ``(primitive, operand avals, params)``. Rules:

``impl(*arrays, **params)``
    NumPy's meaning of the operation: an array or scalar, or a tuple of them if ``multiple_results``.
``shape(*avals, **params)``
    The result's aval (a tuple of them if ``multiple_results``); raises on operands that do not fit.
``jvp(primals, tangents, out, **params)``
    Output tangent(s), linear in ``tangents``, of which at least one is not ``ZERO``. ``out`` is the primal result.
    A value of ``ZeroDerivative`` (locally constant) or ``NotDifferentiable`` (says why) stands where there is no rule.
``transpose(ct, *operands, **params)``
    For operations linear in some operands, which arrive as ``Linear(aval)``: a cotangent per operand, or None.
``batch(size, args, dims, **params)``
    ``(out, dim)``; ``dims`` holds each operand's batch axis or None, ``size`` the batch size.
``needs_axis`` (for primitives that own a jaxpr)
    ``batch`` gets ``(size, axis_name)`` in place of ``size``: collectives inside the jaxpr want the name.
``lower``
    A value of ``core.lowering``: how it is compiled.
``linearize(nonzero, primals, **params)`` (optional; for primitives that own a jaxpr)
    ``(outs, apply)``: ``apply(*tangents of the nonzero operands)`` gives a tangent (or ``ZERO``) per result and binds
    linear primitives only.
``forward(primals, tangents, **params)`` (optional; for primitives that own a jaxpr)
    ``(outs, tangents)``: what ``jvp`` gives together with the results, computed in one sweep.

Unset fields are values with a reason, and a test goes through the registry to find them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..errors import FuncgradError
from ..record import field, record
from .avals import ShapedArray
from .lowering import Lowering
from .trace import STATE

__all__ = [
    "REGISTRY",
    "ZERO",
    "Linear",
    "NotDifferentiable",
    "NotLinear",
    "Primitive",
    "Zero",
    "ZeroDerivative",
    "not_linear",
]


class Zero:
    """The tangent or cotangent that is known to be zero, of any shape. There is one: ``ZERO``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ZERO"

    def __reduce__(self) -> str:
        return "ZERO"


ZERO: Final = Zero()


class Linear:
    """Stands for an operand in which the operation is linear, in transpose rules: it has an aval and no value."""

    __slots__ = ("_operand",)

    def __init__(self, operand: Any) -> None:
        self._operand = operand

    @property
    def aval(self) -> ShapedArray:
        aval: ShapedArray = self._operand.aval  # a tangent works its aval out on demand
        return aval


@record(frozen=True, slots=True)
class ZeroDerivative:
    """The operation is locally constant: its derivative is zero wherever it exists."""

    reason: str


@record(frozen=True, slots=True)
class NotDifferentiable:
    """Asking for the derivative is an error that gives ``reason``."""

    reason: str


@record(frozen=True, slots=True)
class NotLinear:
    """The operation is linear in no operand, so that it has no transpose."""

    reason: str = "it is not a linear operation"


def not_linear(primitive: Any, rule: NotLinear) -> FuncgradError:
    return FuncgradError(
        f"{primitive} cannot be transposed: {rule.reason}. The function given to linear_transpose must be linear in "
        "its arguments; for the gradient of another function use vjp or grad."
    )


REGISTRY: Final[dict[str, Primitive]] = {}


@record(frozen=True, eq=False)
class Primitive:
    name: str
    impl: Callable[..., Any]
    shape: Callable[..., Any]
    jvp: Callable[..., Any] | ZeroDerivative | NotDifferentiable
    transpose: Callable[..., Any] | NotLinear
    batch: Callable[..., Any]
    lower: Lowering
    multiple_results: bool = False
    has_effect: bool = False
    needs_axis: bool = False
    linearize: Callable[..., Any] | None = None
    forward: Callable[..., Any] | None = None
    collective: Callable[..., Any] | None = None
    """Batching over the axis that ``params["axis_name"]`` names: ``(size, args, dims, **params)``."""
    samples: Callable[..., Any] | None = field(default=None, repr=False)
    """Rows for the generated tests: ``samples(rng)`` yields ``(args, params)`` where all rules must hold."""

    def __post_init__(self) -> None:
        if self.name in REGISTRY:
            raise ValueError(f"a primitive named {self.name!r} exists already")
        REGISTRY[self.name] = self

    def bind(self, *args: Any, **params: Any) -> Any:
        """Apply to arrays or tracers, in the trace that is current."""
        return STATE.trace.process(self, args, params)

    def __repr__(self) -> str:
        return self.name
