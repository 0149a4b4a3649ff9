"""Memory for generated kernels: loads and stores by address.

Every operand of a kernel is its own alias scope, so that LLVM knows that a store through one does not change what is
loaded through another and vectorises without checks at run time. (An output may take over the memory of an operand
that dies in the kernel only where what is loaded goes into what is stored, element for element, so that the data keeps
their order: see ``kernels.plan``.)

float16 lives in memory as halves and in registers as float32; booleans are bytes in memory, complex numbers pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from .instruction import IMMEDIATE, Instruction
from .vecmath.expr import B1, COMPLEX, F32, I64, KINDS, Body, Kind, Scalar

__all__ = ["MEMORY"]

_DOMAIN = "funcgrad"
_MOST_SCOPES = 32
"""Operands beyond this number get no alias information."""

MEMORY_KINDS: Final[dict[str, Kind]] = {"f16": F32, **KINDS}
"""By the names that loads and stores use: the kind of the value in registers."""


def _stored_type(body: Body, name: str) -> Any:
    """The type in memory, of a part if complex."""
    if name == "f16":
        return body.ir.HalfType()
    if name == "b1":
        return body.ir.IntType(8)
    kind = KINDS[name]
    return body.llvm_type(kind.part if kind.code == "c" else kind)


# alias scopes ---------------------------------------------------------------------------------------------------


def _scopes(body: Body, operand: int) -> tuple[Any, Any]:
    """(the scope list of ``operand``, the list of all scopes but its own): operands are numbered from zero."""
    module = body.module
    domain = module.add_metadata([_DOMAIN])
    count = getattr(module, "operand_count", _MOST_SCOPES)
    scopes = [module.add_metadata([f"x{k}", domain]) for k in range(min(count, _MOST_SCOPES))]
    return module.add_metadata([scopes[operand]]), module.add_metadata(scopes[:operand] + scopes[operand + 1 :])


def _mark(body: Body, instruction: Any, operand: int) -> Any:
    if operand < _MOST_SCOPES:
        known = body.module.__dict__.setdefault("_fg_scopes", {})
        if operand not in known:
            known[operand] = _scopes(body, operand)
        own, others = known[operand]
        instruction.set_metadata("alias.scope", own)
        instruction.set_metadata("noalias", others)
    return instruction


# addresses ------------------------------------------------------------------------------------------------------


def element(body: Body, kind: Any, address: Any, index: Any) -> Any:
    """The pointer to an element of an LLVM type, counted from an address that is an integer."""
    builder = body.builder
    pointer = builder.inttoptr(address, body.ir.PointerType())
    return builder.gep(pointer, [index], inbounds=True, source_etype=kind)


def _place(body: Body, table: Scalar, index: Any) -> Any:
    """The pointer to a word of a table that the kernel got as an argument: one pointer to the table serves all."""
    i64, value = body.ir.IntType(64), table.value
    if not isinstance(value, body.ir.Argument):
        return element(body, i64, value, index)
    known = body.__dict__.setdefault("_fg_tables", {})
    pointer = known.get(value.name)
    if pointer is None:
        with body.builder.goto_entry_block():
            pointer = known[value.name] = body.builder.inttoptr(value, body.ir.PointerType())
    return body.builder.gep(pointer, [index], inbounds=True, source_etype=i64)


def _word(body: Body, table: Scalar, index: int) -> Any:
    i64 = body.ir.IntType(64)
    return body.builder.load(_place(body, table, i64(index)), typ=i64)


def _from_memory(body: Body, name: str, raw: Any) -> Any:
    if name == "b1":
        return body.builder.icmp_unsigned("!=", raw, raw.type(0))
    return body.builder.fpext(raw, body.ir.FloatType()) if name == "f16" else raw


def _pair(body: Body, kind: Kind, real: Any, imag: Any) -> Scalar:
    empty = body.ir.Constant(body.llvm_type(kind), body.ir.Undefined)
    value = body.builder.insert_value(body.builder.insert_value(empty, real, 0), imag, 1)
    return Scalar(body, kind, value)


# loads and stores -----------------------------------------------------------------------------------------------


def _read(body: Body, name: str, address: Any, index: Any, operand: int) -> Scalar:
    kind, stored = MEMORY_KINDS[name], _stored_type(body, name)
    builder = body.builder

    def part(at: Any) -> Any:
        return _mark(body, builder.load(element(body, stored, address, at), typ=stored), operand)

    if kind.code == "c":
        twice = builder.shl(index, index.type(1))
        return _pair(body, kind, part(twice), part(builder.or_(twice, index.type(1))))
    return Scalar(body, kind, _from_memory(body, name, part(index)))


def _load(name: str) -> Callable[..., Scalar]:
    """``load_f64(address, element, operand)``."""
    return lambda body, address, index, operand: _read(body, name, address.value, index.value, operand)


def _guarded_load(name: str) -> Callable[..., Scalar]:
    """``load_f64_if(guard, address, element, operand)`` gives zero and touches nothing where the guard is false."""

    def emit(body: Body, guard: Scalar, address: Scalar, index: Scalar, operand: int) -> Scalar:
        builder = body.builder
        before = builder.block
        inside, after = builder.append_basic_block("inside"), builder.append_basic_block("after")
        builder.cbranch(guard.value, inside, after)
        builder.position_at_end(inside)
        value = _read(body, name, address.value, index.value, operand)
        builder.branch(after)
        builder.position_at_end(after)
        merged = builder.phi(value.value.type)
        merged.add_incoming(body.ir.Constant(value.value.type, None), before)
        merged.add_incoming(value.value, inside)
        return Scalar(body, value.kind, merged)

    return emit


def _store(name: str) -> Callable[..., None]:
    """``store_f64(address, element, operand, value)``."""

    def emit(body: Body, address: Scalar, index: Scalar, operand: int, value: Scalar) -> None:
        builder, stored = body.builder, _stored_type(body, name)

        def write(at: Any, x: Any) -> None:
            _mark(body, builder.store(x, element(body, stored, address.value, at)), operand)

        if value.kind.code == "c":
            one = index.value.type(1)
            twice = builder.shl(index.value, one)
            write(twice, builder.extract_value(value.value, 0))
            write(builder.or_(twice, one), builder.extract_value(value.value, 1))
        elif name == "b1":
            write(index.value, builder.zext(value.value, stored))
        else:
            write(index.value, builder.fptrunc(value.value, stored) if name == "f16" else value.value)

    return emit


def _constant(name: str) -> Callable[..., Scalar]:
    """``const_f64(ints, j)``: a scalar from its bits in the table of integers, from word ``j`` on."""

    def emit(body: Body, ints: Scalar, j: int) -> Scalar:
        builder, kind, stored = body.builder, MEMORY_KINDS[name], _stored_type(body, name)
        i64 = body.ir.IntType(64)
        first = _place(body, ints, i64(j))
        raw = builder.load(first, typ=stored)
        if kind.code == "c":
            second = builder.gep(first, [i64(1)], source_etype=stored)
            return _pair(body, kind, raw, builder.load(second, typ=stored))
        return Scalar(body, kind, _from_memory(body, name, raw))

    return emit


# the frame of a kernel ------------------------------------------------------------------------------------------


def _base(body: Body, slots: Scalar, ints: Scalar, slot: int, offset: int) -> Scalar:
    """``base(slots, ints, k, j)``: the address of the buffer whose slot is ``ints[k]``, moved by ``ints[j]`` bytes."""
    i64 = body.ir.IntType(64)
    place = _place(body, slots, _word(body, ints, slot))
    address = body.builder.add(body.builder.load(place, typ=i64), _word(body, ints, offset))
    return Scalar(body, I64, address)


def _stack(body: Body, size: int) -> Scalar:
    """``stack(bytes)``: the address of memory of this call, on a cache line."""
    with body.builder.goto_entry_block():
        place = body.builder.alloca(body.ir.IntType(8), body.ir.IntType(64)(size))
        place.align = 64
    return Scalar(body, I64, body.builder.ptrtoint(place, body.ir.IntType(64)))


def _allocate(body: Body, size: Scalar) -> Scalar:
    return body.call(body.declare("malloc", I64, [I64]), I64, [size])


def _release(body: Body, address: Scalar) -> None:
    function = body.module.globals.get("free")
    if function is None:
        kind = body.ir.FunctionType(body.ir.VoidType(), [body.ir.IntType(64)])
        function = body.ir.Function(body.module, kind, "free")
    body.builder.call(function, [address.value])


def _out_of_memory(body: Body, slots: Scalar) -> None:
    """``out_of_memory(slots)``: set the program's status, the word before its slots; the executor stops there."""
    i64 = body.ir.IntType(64)
    body.builder.store(i64(1), element(body, i64, slots.value, i64(-1)))


# complex numbers and halves -------------------------------------------------------------------------------------


def _make(body: Body, real: Scalar, imag: Scalar) -> Scalar:
    kind = KINDS["c64" if real.kind == F32 else "c128"]
    return _pair(body, kind, real.value, imag.value)


def _component(index: int) -> Callable[..., Scalar]:
    return lambda body, z: Scalar(body, z.kind.part, body.builder.extract_value(z.value, index))


def _choose(body: Body, condition: Scalar, yes: Scalar, no: Scalar) -> Scalar:
    return Scalar(body, yes.kind, body.builder.select(condition.value, yes.value, no.value))


def _round_half(body: Body, x: Scalar) -> Scalar:
    """A float32 rounded to the nearest half."""
    half = body.builder.fptrunc(x.value, body.ir.HalfType())
    return Scalar(body, F32, body.builder.fpext(half, body.ir.FloatType()))


def _instructions() -> Iterable[Instruction]:
    integer = lambda body, ints, j: Scalar(body, I64, _word(body, ints, j))  # noqa: E731
    yield Instruction("base", _base, (I64, I64, IMMEDIATE, IMMEDIATE), I64)
    yield Instruction("integer", integer, (I64, IMMEDIATE), I64)
    yield Instruction("stack", _stack, (IMMEDIATE,), I64)
    yield Instruction("allocate", _allocate, (I64,), I64)
    yield Instruction("release", _release, (I64,), None)
    yield Instruction("out_of_memory", _out_of_memory, (I64,), None)
    yield Instruction("round_f16", _round_half, (F32,), F32)
    for name, kind in MEMORY_KINDS.items():
        yield Instruction(f"load_{name}", _load(name), (I64, I64, IMMEDIATE), kind, operand=2)
        yield Instruction(f"load_{name}_if", _guarded_load(name), (B1, I64, I64, IMMEDIATE), kind, operand=3)
        yield Instruction(f"store_{name}", _store(name), (I64, I64, IMMEDIATE, kind), None, operand=2)
        yield Instruction(f"const_{name}", _constant(name), (I64, IMMEDIATE), kind)
    for kind in COMPLEX:
        yield Instruction(f"make_{kind.name}", _make, (kind.part, kind.part), kind)
        yield Instruction(f"real_{kind.name}", _component(0), (kind,), kind.part)
        yield Instruction(f"imag_{kind.name}", _component(1), (kind,), kind.part)
        yield Instruction(f"select_{kind.name}", _choose, (B1, kind, kind), kind)


MEMORY: Final[dict[str, Instruction]] = {x.name: x for x in _instructions()}
"""Everything here by the names that kernels use."""
