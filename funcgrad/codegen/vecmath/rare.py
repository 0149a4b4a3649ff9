"""Values that a function needs a long way round for, once in a blue moon, without spoiling the loop around it.

LLVM's vectoriser takes no loop with a call in it, unless the called function names vector variants of itself
(`vector-function-abi-variant`). So the long way becomes a scalar function of its own, with variants for every vector
width. A variant tests all lanes at once and, but for the blue moon, is done. A call per vector would still cost as much
as the mathematics around it, since it leaves no vector register untouched: so `target` puts the variants in place once
the vectoriser has chosen one (they are the functions with linkage `weak_odr`), and what remains is a compare and a
branch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..llvm import binding
from .expr import Body, Kind, Scalar, fabs


@cache
def register_bits() -> int:
    """The widest vector register of this machine."""
    features = binding().get_host_cpu_features()
    return 512 if features.get("avx512f") else 256 if features.get("avx") else 128


def vector_widths(kind: Kind) -> list[int]:
    """The numbers of lanes a loop with this kind in it may get.

    Its widest element, at most 64 bits, fills a register; LLVM prefers 256 bits on some machines that have 512.
    """
    most = register_bits()
    least = min(most, 256)
    return [w for w in (2, 4, 8, 16) if least <= w * 64 and w * kind.width <= most]


def beyond(x: Scalar, limit: float, common: Scalar, name: str, rare: Callable[..., Scalar], *more: Scalar) -> Scalar:
    """`common` where |x| < limit, else (NaN included) `rare(x, *more)`; `name` names the function it becomes.

    All are of one kind. `rare` may be run on any arguments, and its value thrown away.
    """
    body = x.body
    builder = body.builder
    function = _outlined(body, f"fg.{name}_{x.kind.name}", limit, rare, x, 1 + len(more))
    before = builder.block
    slow = builder.append_basic_block("rare")
    done = builder.append_basic_block("done")
    builder.cbranch((fabs(x) < limit).value, done, slow).set_weights([1 << 20, 1])
    builder.position_at_end(slow)
    other = body.call(function, x.kind, [x, *more])
    builder.branch(done)
    builder.position_at_end(done)
    merged = builder.phi(common.value.type)
    merged.add_incoming(common.value, before)
    merged.add_incoming(other.value, slow)
    return Scalar(body, common.kind, merged)


def choose(condition: Scalar, yes: Callable[[], Scalar], no: Callable[[], Scalar]) -> Scalar:
    """The value of one of two, of one kind, by a branch: for the long way itself, which no loop is built around."""
    builder = condition.body.builder
    blocks = [builder.append_basic_block(n) for n in ("yes", "no", "chosen")]
    builder.cbranch(condition.value, *blocks[:2])
    made = []
    for block, emit in zip(blocks, (yes, no), strict=False):
        builder.position_at_end(block)
        value = emit()
        made.append((value, builder.block))
        builder.branch(blocks[2])
    builder.position_at_end(blocks[2])
    merged = builder.phi(made[0][0].value.type)
    for value, block in made:
        merged.add_incoming(value.value, block)
    return Scalar(condition.body, made[0][0].kind, merged)


def _outlined(body: Body, name: str, limit: float, rare: Callable[..., Scalar], x: Scalar, arity: int) -> Any:
    """`rare` as a function that is never inlined, with its vector variants, made once per module."""
    function = body.module.globals.get(name)
    if function is None:
        function = body.declare(name, x.kind, [x.kind] * arity)
        function.linkage = "weak_odr"  # an internal one might lose arguments, and with them its variants
        function.attributes.add("noinline")
        function.attributes.add("optnone")
        widths = vector_widths(x.kind)
        shape = "v" * arity
        variants = ",".join(
            f"_ZGV_LLVM_N{w}{shape}_{name}({_variant(body, function, x.kind, limit, w)})" for w in widths
        )
        # llvmlite knows no attributes of the form "key"="value", but prints what is in the set.
        set.add(function.attributes, f'"vector-function-abi-variant"="{variants}"')
        body.define(function, rare, [x.kind] * arity)
    return function


def _variant(body: Body, scalar: Any, kind: Kind, limit: float, width: int) -> str:
    """The name of a function over `width` lanes: the scalar for each lane that is beyond the limit."""
    ir = body.ir
    element, mask_type = body.llvm_type(kind), ir.IntType(width)
    lanes = ir.VectorType(element, width)
    name = f"{scalar.name}_v{width}"
    function = ir.Function(body.module, ir.FunctionType(lanes, [lanes] * len(scalar.args)), name)
    # Nothing calls a variant until the vectoriser does: an internal one would have been deleted by then.
    function.linkage = "weak_odr"
    function.attributes.add("alwaysinline")
    function.attributes.add("nounwind")
    arguments = function.args
    argument = arguments[0]
    entry, lane, done = (function.append_basic_block(n) for n in ("entry", "lane", "done"))

    builder = ir.IRBuilder(entry)
    magnitude = _declared(body, f"llvm.fabs.v{width}{kind.name}", lanes, lanes)
    trailing_zeros = _declared(body, f"llvm.cttz.i{width}", mask_type, mask_type, ir.IntType(1))
    limits = ir.Constant(lanes, [ir.Constant(element, limit)] * width)
    far = builder.fcmp_unordered(">=", builder.call(magnitude, [argument]), limits)
    mask = builder.bitcast(far, mask_type)
    zero, one = ir.Constant(mask_type, 0), ir.Constant(mask_type, 1)
    builder.cbranch(builder.icmp_unsigned("!=", mask, zero), lane, done).set_weights([1, 1 << 20])

    builder.position_at_end(lane)
    left, values = builder.phi(mask_type), builder.phi(lanes)
    index = builder.call(trailing_zeros, [left, ir.Constant(ir.IntType(1), 1)])
    index = builder.zext(index, ir.IntType(32)) if width < 32 else index
    value = builder.call(scalar, [builder.extract_element(a, index) for a in arguments])
    changed = builder.insert_element(values, value, index)
    rest = builder.and_(left, builder.sub(left, one))
    builder.cbranch(builder.icmp_unsigned("!=", rest, zero), lane, done)
    for phi, first, then in ((left, mask, rest), (values, argument, changed)):
        phi.add_incoming(first, entry)
        phi.add_incoming(then, lane)

    builder.position_at_end(done)
    result = builder.phi(lanes)
    result.add_incoming(argument, entry)
    result.add_incoming(changed, lane)
    builder.ret(result)
    return name


def _declared(body: Body, name: str, result: Any, *arguments: Any) -> Any:
    made = body.module.globals.get(name)
    return made if made is not None else body.ir.Function(body.module, body.ir.FunctionType(result, arguments), name)
