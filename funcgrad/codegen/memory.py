"""Memory for generated kernels: loads and stores by address, as Numba intrinsics.

Every operand of a kernel is its own alias scope, so that LLVM knows that a store through one does not change what is
loaded through another and vectorises without checks at run time. (An output may take over the memory of an operand
that dies in the kernel; element for element the load then feeds the store, so their order is kept.)

float16 lives in memory as halves and in registers as float32; booleans are bytes in memory, complex numbers pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

from .basic import BASIC
from .vecmath.numba_target import _typing

__all__ = ["memory_functions"]

_DOMAIN = "funcgrad"


class _Numba:
    """What is used of Numba and llvmlite, imported when it is first used."""

    @cached_property
    def ir(self) -> Any:
        import llvmlite.ir

        return llvmlite.ir

    @cached_property
    def types(self) -> Any:
        import numba.types

        return numba.types

    @cached_property
    def intrinsic(self) -> Any:
        import numba.extending

        return numba.extending.intrinsic

    @cached_property
    def struct(self) -> Any:
        import numba.core.cgutils

        return numba.core.cgutils.create_struct_proxy

    @cached_property
    def i64(self) -> Any:
        return self.ir.IntType(64)

    @cached_property
    def i8(self) -> Any:
        return self.ir.IntType(8)


nb = _Numba()


@cache
def _kinds() -> dict[str, tuple[Any, Any]]:
    """By the names that kernels use: the type in registers and the type in memory (of a part, if complex)."""
    t, ir = nb.types, nb.ir
    return {
        "b1": (t.boolean, nb.i8),
        "f16": (t.float32, ir.HalfType()),
        "f32": (t.float32, ir.FloatType()),
        "f64": (t.float64, ir.DoubleType()),
        "c64": (t.complex64, ir.FloatType()),
        "c128": (t.complex128, ir.DoubleType()),
        **{f"i{w}": (getattr(t, f"int{w}"), ir.IntType(w)) for w in (8, 16, 32, 64)},
        **{f"u{w}": (getattr(t, f"uint{w}"), ir.IntType(w)) for w in (8, 16, 32, 64)},
    }


_SCOPES = 32
"""Operands beyond this number get no alias information."""


def _scopes(module: Any, operand: int) -> tuple[Any, Any]:
    """(the scope list of ``operand``, the list of all scopes but its own): operands are numbered from zero."""
    domain = module.add_metadata([_DOMAIN])
    scopes = [module.add_metadata([f"x{k}", domain]) for k in range(_SCOPES)]
    return module.add_metadata([scopes[operand]]), module.add_metadata(scopes[:operand] + scopes[operand + 1 :])


def _mark(builder: Any, instruction: Any, operand: int) -> Any:
    if operand < _SCOPES:
        cache = builder.module.__dict__.setdefault("_fg_scopes", {})
        if operand not in cache:
            cache[operand] = _scopes(builder.module, operand)
        own, others = cache[operand]
        instruction.set_metadata("alias.scope", own)
        instruction.set_metadata("noalias", others)
    return instruction


def _element(builder: Any, kind: Any, address: Any, index: Any) -> Any:
    pointer = builder.inttoptr(address, kind.as_pointer())
    return builder.gep(pointer, [index], inbounds=True)


def _load(name: str, guarded: bool) -> Any:
    """``load_f64(address, element, operand)``; ``load_f64_if(guard, ...)`` gives zero and touches nothing if false."""
    numba_type, kind = _kinds()[name]

    def read(builder: Any, context: Any, address: Any, element: Any, operand: int) -> Any:
        def part(index: Any) -> Any:
            return _mark(builder, builder.load(_element(builder, kind, address, index)), operand)

        if name in ("c64", "c128"):
            twice = builder.shl(element, nb.i64(1))
            value = nb.struct(numba_type)(context, builder)
            value.real, value.imag = part(twice), part(builder.or_(twice, nb.i64(1)))
            return value._getvalue()
        raw = part(element)
        if name == "b1":
            return builder.icmp_unsigned("!=", raw, nb.i8(0))
        return builder.fpext(raw, nb.ir.FloatType()) if name == "f16" else raw

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return read(builder, context, args[0], args[1], signature.args[2].literal_value)

    def guarded_codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        guard, address, element, _ = args
        before = builder.block
        inside, after = builder.append_basic_block("inside"), builder.append_basic_block("after")
        builder.cbranch(guard, inside, after)
        builder.position_at_end(inside)
        value = read(builder, context, address, element, signature.args[3].literal_value)
        builder.branch(after)
        builder.position_at_end(after)
        merged = builder.phi(value.type)
        merged.add_incoming(nb.ir.Constant(value.type, None), before)
        merged.add_incoming(value, inside)
        return merged

    def typer(typingctx: Any, address: Any, element: Any, operand: Any) -> Any:
        if not isinstance(operand, nb.types.IntegerLiteral):
            return None
        return numba_type(nb.types.int64, nb.types.int64, operand), codegen

    def guarded_typer(typingctx: Any, guard: Any, address: Any, element: Any, operand: Any) -> Any:
        if not isinstance(operand, nb.types.IntegerLiteral):
            return None
        return numba_type(nb.types.boolean, nb.types.int64, nb.types.int64, operand), guarded_codegen

    return nb.intrinsic(prefer_literal=True)(guarded_typer if guarded else typer)


def _store(name: str) -> Any:
    numba_type, kind = _kinds()[name]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        operand = signature.args[2].literal_value
        address, index, _, value = args

        def write(at: Any, x: Any) -> None:
            _mark(builder, builder.store(x, _element(builder, kind, address, at)), operand)

        if name in ("c64", "c128"):
            twice = builder.shl(index, nb.i64(1))
            parts = nb.struct(numba_type)(context, builder, value)
            write(twice, parts.real)
            write(builder.or_(twice, nb.i64(1)), parts.imag)
        elif name == "b1":
            write(index, builder.zext(value, nb.i8))
        else:
            write(index, builder.fptrunc(value, kind) if name == "f16" else value)
        return context.get_dummy_value()

    def typer(typingctx: Any, address: Any, index: Any, operand: Any, value: Any) -> Any:
        if not isinstance(operand, nb.types.IntegerLiteral):
            return None
        return nb.types.void(nb.types.int64, nb.types.int64, operand, numba_type), codegen

    return nb.intrinsic(prefer_literal=True)(typer)


def _word(builder: Any, table: Any, index: int) -> Any:
    return builder.load(builder.gep(builder.inttoptr(table, nb.i64.as_pointer()), [nb.i64(index)]))


def _base() -> Any:
    """``base(slots, ints, k, j)``: the address of the buffer whose slot is ``ints[k]``, moved by ``ints[j]`` bytes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        slot, offset = (_word(builder, args[1], signature.args[k].literal_value) for k in (2, 3))
        address = builder.load(builder.gep(builder.inttoptr(args[0], nb.i64.as_pointer()), [slot]))
        return builder.add(address, offset)

    def typer(typingctx: Any, slots: Any, ints: Any, slot: Any, offset: Any) -> Any:
        if not (isinstance(slot, nb.types.IntegerLiteral) and isinstance(offset, nb.types.IntegerLiteral)):
            return None
        return nb.types.int64(nb.types.int64, nb.types.int64, slot, offset), codegen

    return nb.intrinsic(prefer_literal=True)(typer)


def _constant(name: str) -> Any:
    """``const_f64(ints, j)``: a scalar from its bits in the table."""
    numba_type, kind = _kinds()[name]

    def part(builder: Any, table: Any, index: int) -> Any:
        pointer = builder.gep(builder.inttoptr(table, nb.i64.as_pointer()), [nb.i64(index)])
        return builder.load(builder.bitcast(pointer, kind.as_pointer()))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        index = signature.args[1].literal_value
        if name == "c64":
            value = nb.struct(numba_type)(context, builder)
            pointer = builder.gep(builder.inttoptr(args[0], nb.i64.as_pointer()), [nb.i64(index)])
            halves = builder.bitcast(pointer, kind.as_pointer())
            value.real = builder.load(halves)
            value.imag = builder.load(builder.gep(halves, [nb.i64(1)]))
            return value._getvalue()
        if name == "c128":
            value = nb.struct(numba_type)(context, builder)
            value.real, value.imag = part(builder, args[0], index), part(builder, args[0], index + 1)
            return value._getvalue()
        raw = part(builder, args[0], index)
        if name == "b1":
            return builder.icmp_unsigned("!=", raw, nb.i8(0))
        return builder.fpext(raw, nb.ir.FloatType()) if name == "f16" else raw

    def typer(typingctx: Any, ints: Any, index: Any) -> Any:
        if not isinstance(index, nb.types.IntegerLiteral):
            return None
        return numba_type(nb.types.int64, index), codegen

    return nb.intrinsic(prefer_literal=True)(typer)


def _integer() -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _word(builder, args[0], signature.args[1].literal_value)

    def typer(typingctx: Any, ints: Any, index: Any) -> Any:
        if not isinstance(index, nb.types.IntegerLiteral):
            return None
        return nb.types.int64(nb.types.int64, index), codegen

    return nb.intrinsic(prefer_literal=True)(typer)


def _stack() -> Any:
    """``stack(bytes)``: the address of memory of this call, on a cache line."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        size = signature.args[0].literal_value
        with builder.goto_entry_block():
            place = builder.alloca(nb.i8, nb.i64(size))
            place.align = 64
        return builder.ptrtoint(place, nb.i64)

    def typer(typingctx: Any, size: Any) -> Any:
        if not isinstance(size, nb.types.IntegerLiteral):
            return None
        return nb.types.int64(size), codegen

    return nb.intrinsic(prefer_literal=True)(typer)


def _libc(name: str, result: Any, numba_result: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = builder.module.globals.get(name)
        if function is None:
            function = nb.ir.Function(builder.module, nb.ir.FunctionType(result, [nb.i64]), name)
        made = builder.call(function, args)
        return context.get_dummy_value() if numba_result is nb.types.void else made

    def typer(typingctx: Any, argument: Any) -> Any:
        return numba_result(nb.types.int64), codegen

    return nb.intrinsic(typer)


def _out_of_memory() -> Any:
    """``out_of_memory(slots)``: set the program's status, the word before its slots; the executor stops there."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        status = builder.gep(builder.inttoptr(args[0], nb.i64.as_pointer()), [nb.i64(-1)])
        builder.store(nb.i64(1), status)
        return context.get_dummy_value()

    return nb.intrinsic(lambda typingctx, slots: (nb.types.void(nb.types.int64), codegen))


def _complex(numba_type: Any) -> dict[str, Callable[..., Any]]:
    part = numba_type.underlying_float
    suffix = "c64" if numba_type is nb.types.complex64 else "c128"

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = nb.struct(numba_type)(context, builder)
        value.real, value.imag = args
        return value._getvalue()

    def component(name: str) -> Callable[..., Any]:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(nb.struct(numba_type)(context, builder, args[0]), name)

        return lambda typingctx, z: (part(numba_type), codegen)

    def choose(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return {
        f"make_{suffix}": nb.intrinsic(lambda typingctx, re, im: (numba_type(part, part), make)),
        f"real_{suffix}": nb.intrinsic(component("real")),
        f"imag_{suffix}": nb.intrinsic(component("imag")),
        f"select_{suffix}": nb.intrinsic(
            lambda typingctx, c, x, y: (numba_type(nb.types.boolean, numba_type, numba_type), choose)
        ),
    }


def _round_half() -> Any:
    """``round_f16(x)``: a float32 rounded to the nearest half."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.fptrunc(args[0], nb.ir.HalfType()), nb.ir.FloatType())

    return nb.intrinsic(lambda typingctx, x: (nb.types.float32(nb.types.float32), codegen))


@cache
def basic_function(name: str) -> Any:
    """A definition of ``basic`` as an intrinsic."""
    return nb.intrinsic(_typing(BASIC[name]))


@cache
def memory_functions() -> dict[str, Any]:
    """Everything here by the names that kernels use, with the names of Numba's scalar types for literals."""
    made: dict[str, Any] = {
        "base": _base(), "integer": _integer(), "stack": _stack(), "round_f16": _round_half(),
        "allocate": _libc("malloc", nb.i64, nb.types.int64), "release": _libc("free", nb.ir.VoidType(), nb.types.void),
        "out_of_memory": _out_of_memory(), **_complex(nb.types.complex64), **_complex(nb.types.complex128),
    }  # fmt: skip
    for name, (numba_type, _) in _kinds().items():
        made[f"load_{name}"] = _load(name, False)
        made[f"load_{name}_if"] = _load(name, True)
        made[f"store_{name}"] = _store(name)
        made[f"const_{name}"] = _constant(name)
        made[name] = numba_type
    return made
