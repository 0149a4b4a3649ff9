"""Instructions of AVX-512 for which LLVM has no operation, as functions of one number.

LLVM's vectoriser takes no loop with an instruction of one CPU in it. So each becomes a scalar function that names
vector variants of itself, like the long ways of `rare`, and a variant is the instruction itself. The scalar function
is `weak`, so that nothing may put it in place before the vectoriser has seen it; `target` makes it `internal`
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ...record import record
from ..llvm import binding
from .expr import F32, Body, Kind, Scalar
from .rare import register_bits, vector_widths


@cache
def available() -> bool:
    """Whether this machine has them, in vectors of every width."""
    return register_bits() == 512 and bool(binding().get_host_cpu_features().get("avx512vl"))


@record(frozen=True)
class _Lanes:
    """Where the vector form of an instruction is written: the builder, and the vectors of one width."""

    body: Body
    builder: Any
    kind: Kind
    width: int

    @property
    def bits(self) -> int:
        return self.width * self.kind.width

    @property
    def vector(self) -> Any:
        return self.vector_of(self.kind, self.width)

    def vector_of(self, kind: Kind, width: int) -> Any:
        return self.body.ir.VectorType(self.body.llvm_type(kind), width)

    def constant(self, values: Sequence[float]) -> Any:
        ir, element = self.body.ir, self.body.llvm_type(self.kind)
        return ir.Constant(self.vector_of(self.kind, len(values)), [ir.Constant(element, v) for v in values])

    def integer(self, bits: int, value: int) -> Any:
        return self.body.ir.Constant(self.body.ir.IntType(bits), value)

    def call(self, name: str, *arguments: Any) -> Any:
        made = self.body.module.globals.get(name)
        if made is None:
            signature = self.body.ir.FunctionType(self.vector, [a.type for a in arguments])
            made = self.body.ir.Function(self.body.module, signature, name)
        return self.builder.call(made, arguments)

    def masked(self, name: str, *arguments: Any, rounding: bool = True) -> Any:
        """For all lanes an instruction that takes a mask in LLVM, and where it has 512 bits a mode of rounding too."""
        last = [self.integer(32, 4)] if rounding and self.bits == 512 else []
        letter = "s" if self.kind == F32 else "d"
        none, every = self.constant([0.0] * self.width), self.integer(max(self.width, 8), -1)
        return self.call(f"llvm.x86.avx512.{name}.p{letter}.{self.bits}", *arguments, none, every, *last)

    def picked(self, vector: Any, lanes: Sequence[int]) -> Any:
        """These lanes of a vector."""
        ir = self.body.ir
        index = ir.IntType(32)
        order = ir.Constant(ir.VectorType(index, len(lanes)), [ir.Constant(index, i) for i in lanes])
        return self.builder.shuffle_vector(vector, vector, order)


_Emit = Callable[..., Any]


def _function(name: str, result: Kind, emit: _Emit, *arguments: Scalar) -> Scalar:
    """A call of the function ``name``, made once per module; ``emit(lanes, *vectors)`` writes one width of it."""
    body = arguments[0].body
    function = body.module.globals.get(name)
    if function is None:
        kinds = [a.kind for a in arguments]
        function = body.declare(name, result, kinds)
        function.linkage = "weak"
        shape = "v" * len(arguments)
        variants = ",".join(
            f"_ZGV_LLVM_N{w}{shape}_{name}({_variant(body, name, result, emit, kinds, w)})"
            for w in vector_widths(result)
        )
        set.add(function.attributes, f'"vector-function-abi-variant"="{variants}"')
        body.define(function, lambda *one: _one(result, emit, *one), kinds)
    return body.call(function, result, arguments)


def _one(result: Kind, emit: _Emit, *arguments: Scalar) -> Scalar:
    """The first lane of the shortest vector."""
    body = arguments[0].body
    ir, builder = body.ir, body.builder
    lanes = _Lanes(body, builder, result, 128 // result.width)
    zero = ir.IntType(32)(0)
    vectors = []
    for a in arguments:
        element = body.llvm_type(a.kind)
        empty = ir.Constant(ir.VectorType(element, lanes.width), [ir.Constant(element, 0)] * lanes.width)
        vectors.append(builder.insert_element(empty, a.value, zero))
    return Scalar(body, result, builder.extract_element(emit(lanes, *vectors), zero))


def _variant(body: Body, scalar: str, result: Kind, emit: _Emit, kinds: Sequence[Kind], width: int) -> str:
    """The name of the function of ``width`` lanes."""
    ir = body.ir
    name = f"{scalar}_v{width}"
    vectors = [ir.VectorType(body.llvm_type(k), width) for k in kinds]
    function = ir.Function(body.module, ir.FunctionType(ir.VectorType(body.llvm_type(result), width), vectors), name)
    function.linkage = "weak_odr"  # until the vectoriser has chosen
    function.attributes.add("alwaysinline")
    function.attributes.add("nounwind")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    builder.ret(emit(_Lanes(body, builder, result, width), *function.args))
    return name


def inverse_root_estimate(x: Scalar) -> Scalar:
    """1 / sqrt(x) to 14 bits; of zeros and infinities exactly."""
    return _function(
        f"fg.rsqrt14_{x.kind.name}", x.kind, lambda lanes, v: lanes.masked("rsqrt14", v, rounding=False), x
    )


def exponent(x: Scalar) -> Scalar:
    """floor(log2 |x|), of subnormal numbers too; -inf of zeros, inf of infinities, NaN of NaN."""
    return _function(f"fg.getexp_{x.kind.name}", x.kind, lambda lanes, v: lanes.masked("mask.getexp", v), x)


def significand(x: Scalar) -> Scalar:
    """|x| 2**-n within [3/4, 3/2), for an integer n; 1 of zeros and infinities, NaN of NaN."""

    def emit(lanes: _Lanes, v: Any) -> Any:
        return lanes.masked("mask.getmant", v, lanes.integer(32, 0b0111))

    return _function(f"fg.getmant_{x.kind.name}", x.kind, emit, x)


def scale(x: Scalar, n: Scalar) -> Scalar:
    """x 2**floor(n) rounded once, for any n."""
    return _function(f"fg.scalef_{x.kind.name}", x.kind, lambda lanes, *v: lanes.masked("mask.scalef", *v), x, n)


def entry(name: str, table: Sequence[float], index: Scalar) -> Scalar:
    """table[index % 16] of 16 numbers in float32, for an index in int32; `name` names the table."""

    def emit(lanes: _Lanes, i: Any) -> Any:
        if lanes.width == 16:
            return lanes.call("llvm.x86.avx512.permvar.sf.512", lanes.constant(table), i)
        if lanes.width == 4:
            wide = _Lanes(lanes.body, lanes.builder, F32, 8)
            return lanes.picked(emit(wide, lanes.picked(i, (0, 1, 2, 3) * 2)), range(4))
        low, high = lanes.constant(table[:8]), lanes.constant(table[8:])
        return lanes.call("llvm.x86.avx512.vpermi2var.ps.256", low, i, high)

    return _function(f"fg.entry_{name}", F32, emit, index)
