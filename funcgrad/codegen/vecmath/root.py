"""1 / sqrt(x) without a root and without a division.

The unit that divides and takes roots takes a vector at a time, for ten to forty cycles, while multiplications go
through two at a cycle. AVX-512 has an estimate of 1 / sqrt(x) that is good to 14 bits, for subnormal numbers too; a
few fused steps make it as good as a rounded quotient of a rounded root. Pairwise distances, forces and normalisations
are bound by just this.

LLVM has no operation for the estimate, so that its vectoriser would take no loop with one: like the long ways of
`rare`, it is a scalar function that names vector variants of itself. It is `weak`, so that nothing may put it in place
before the vectoriser has seen it; `target` makes it `internal` afterwards.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ..llvm import binding
from .expr import F32, Body, Kind, Scalar, fma, select, sqrt
from .rare import register_bits, vector_widths
from .registry import function


@cache
def has_estimate() -> bool:
    """Whether this machine estimates 1 / sqrt(x), in vectors of every width."""
    return register_bits() == 512 and bool(binding().get_host_cpu_features().get("avx512vl"))


@function()
def rsqrt(x: Scalar) -> Scalar:
    """Within 1.4 ulp: y (1 - e)**-1/2 for the estimate y and e = 1 - x y**2, as a series in e, |e| < 2**-13."""
    if not has_estimate():
        return 1.0 / sqrt(x)
    y = x.body.call(_estimate(x.body, x.kind), x.kind, [x])
    e = fma(-(x * y), y, 1.0)
    if x.kind == F32:
        better = fma(y * 0.5, e, y)
    else:
        better = fma(y * e, fma(fma(e, 0.3125, 0.375), e, 0.5), y)
    return select(e.eq(e), better, y)  # of zeros and infinities the estimate is the value


def _estimate(body: Body, kind: Kind) -> Any:
    """The estimate as a function of the module, made once."""
    name = f"fg.rsqrt14_{kind.name}"
    function = body.module.globals.get(name)
    if function is None:
        function = body.declare(name, kind, [kind])
        function.linkage = "weak"
        variants = ",".join([f"_ZGV_LLVM_N{w}v_{name}({_variant(body, kind, w)})" for w in vector_widths(kind)])
        set.add(function.attributes, f'"vector-function-abi-variant"="{variants}"')
        body.define(function, _estimate_one, [kind])
    return function


def _estimate_one(x: Scalar) -> Scalar:
    ir, builder = x.body.ir, x.body.builder
    element, size = x.body.llvm_type(x.kind), 128 // x.kind.width
    vector, mask, zero = ir.VectorType(element, size), ir.IntType(8), ir.IntType(32)(0)
    name = f"llvm.x86.avx512.rsqrt14.{'ss' if x.kind == F32 else 'sd'}"
    function = _declared(x.body, name, vector, [vector, vector, vector, mask])
    empty = ir.Constant(vector, [ir.Constant(element, 0.0)] * size)
    given = builder.insert_element(empty, x.value, zero)
    return Scalar(
        x.body, x.kind, builder.extract_element(builder.call(function, [given, given, empty, mask(-1)]), zero)
    )


def _variant(body: Body, kind: Kind, width: int) -> str:
    """The name of the estimate of ``width`` lanes."""
    ir = body.ir
    element, mask = body.llvm_type(kind), ir.IntType(max(width, 8))
    lanes = ir.VectorType(element, width)
    name = f"fg.rsqrt14_{kind.name}_v{width}"
    function = ir.Function(body.module, ir.FunctionType(lanes, [lanes]), name)
    function.linkage = "weak_odr"  # until the vectoriser has chosen
    function.attributes.add("alwaysinline")
    function.attributes.add("nounwind")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    instruction = f"llvm.x86.avx512.rsqrt14.p{'s' if kind == F32 else 'd'}.{width * kind.width}"
    estimate = _declared(body, instruction, lanes, [lanes, lanes, mask])
    empty = ir.Constant(lanes, [ir.Constant(element, 0.0)] * width)
    builder.ret(builder.call(estimate, [function.args[0], empty, mask(-1)]))
    return name


def _declared(body: Body, name: str, result: Any, arguments: list[Any]) -> Any:
    made = body.module.globals.get(name)
    return made if made is not None else body.ir.Function(body.module, body.ir.FunctionType(result, arguments), name)
