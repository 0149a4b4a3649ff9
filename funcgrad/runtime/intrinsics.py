"""The machine's own words for the runtime's native functions: memory by address, calls by pointer, atomics.

Instructions like those of generated kernels (see ``codegen.instruction``). All values are 64-bit integers; atomic
operations are sequentially consistent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from funcgrad.codegen.instruction import Instruction
from funcgrad.codegen.llvm import binding
from funcgrad.codegen.vecmath.expr import I64, Body, Scalar

__all__ = ["INTRINSICS"]

_MOST_ARGUMENTS = 20
"""Of a call by address: LAPACK's drivers take nearly as many."""


def _pointer(body: Body, address: Scalar, width: int = 64) -> Any:
    # llvmlite's atomics ask a pointer for the type it points to
    return body.builder.inttoptr(address.value, body.ir.IntType(width).as_pointer())


def _load(width: int) -> Callable[..., Scalar]:
    """``load(address)``; narrower integers keep their sign."""

    def emit(body: Body, address: Scalar) -> Scalar:
        value = body.builder.load(_pointer(body, address, width))
        return Scalar(body, I64, value if width == 64 else body.builder.sext(value, body.ir.IntType(64)))

    return emit


def _store(width: int) -> Callable[..., None]:
    def emit(body: Body, address: Scalar, value: Scalar) -> None:
        word = value.value if width == 64 else body.builder.trunc(value.value, body.ir.IntType(width))
        body.builder.store(word, _pointer(body, address, width))

    return emit


def _function(body: Body, address: Scalar, result: Any, arguments: int) -> Any:
    kind = body.ir.FunctionType(result, [body.ir.IntType(64)] * arguments)
    return body.builder.inttoptr(address.value, kind.as_pointer())


def _call(body: Body, function: Scalar, *arguments: Scalar) -> Scalar:
    """``callN(function, *arguments)``: a C function of N int64 arguments returning int64, by its address."""
    pointer = _function(body, function, body.ir.IntType(64), len(arguments))
    return Scalar(body, I64, body.builder.call(pointer, [a.value for a in arguments]))


def _call_kernel(body: Body, function: Scalar, *arguments: Scalar) -> None:
    pointer = _function(body, function, body.ir.VoidType(), len(arguments))
    body.builder.call(pointer, [a.value for a in arguments])


def _atomic_load(body: Body, address: Scalar) -> Scalar:
    value = body.builder.load_atomic(_pointer(body, address), "seq_cst", 8)
    return Scalar(body, I64, value)


def _atomic_store(body: Body, address: Scalar, value: Scalar) -> None:
    body.builder.store_atomic(value.value, _pointer(body, address), "seq_cst", 8)


def _atomic_add(body: Body, address: Scalar, value: Scalar) -> Scalar:
    return Scalar(body, I64, body.builder.atomic_rmw("add", _pointer(body, address), value.value, "seq_cst"))


def _atomic_swap_if(body: Body, address: Scalar, old: Scalar, new: Scalar) -> Scalar:
    """1 where the word was ``old`` and has become ``new``, else 0."""
    pair = body.builder.cmpxchg(_pointer(body, address), old.value, new.value, "seq_cst", "seq_cst")
    return Scalar(body, I64, body.builder.zext(body.builder.extract_value(pair, 1), body.ir.IntType(64)))


def _copy_memory(body: Body, target: Scalar, source: Scalar, nbytes: Scalar) -> None:
    """``copy_memory(target, source, nbytes)``; the two may not overlap, unless they are the same."""
    ir = body.ir
    kinds = [ir.PointerType(), ir.PointerType(), ir.IntType(64)]
    move = body.module.declare_intrinsic("llvm.memmove", kinds)
    pointers = [body.builder.inttoptr(x.value, ir.PointerType()) for x in (target, source)]
    body.builder.call(move, [*pointers, nbytes.value, ir.IntType(1)(0)])


def _load_byte(body: Body, address: Scalar) -> Scalar:
    """The byte at an address, as a number from 0 to 255."""
    value = body.builder.load(_pointer(body, address, 8))
    return Scalar(body, I64, body.builder.zext(value, body.ir.IntType(64)))


def _fail(body: Body, slots: Scalar) -> None:
    """``fail(slots)``: set the program's status, the word before its slots; the executor stops there."""
    status = body.builder.sub(slots.value, slots.value.type(8))
    body.builder.store(status.type(1), _pointer(body, Scalar(body, I64, status)))


def _cycles(body: Body) -> Scalar:
    """A clock, of the order of the CPU's."""
    ir, builder = body.ir, body.builder
    kind = ir.FunctionType(ir.IntType(64), [])
    if _machine() in ("x86_64", "i686"):
        return Scalar(body, I64, builder.call(body.module.declare_intrinsic("llvm.readcyclecounter", fnty=kind), []))
    ticks = builder.call(body.module.declare_intrinsic("llvm.readsteadycounter", fnty=kind), [])
    return Scalar(body, I64, builder.shl(ticks, ticks.type(5)))


def _machine() -> str:
    triple: str = binding().get_process_triple()
    return triple.partition("-")[0]


def _pause(body: Body) -> None:
    """Tell the CPU that this is a waiting loop."""
    ir, builder, machine = body.ir, body.builder, _machine()
    if machine in ("x86_64", "i686"):
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(body.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=kind), [])
    elif machine in ("aarch64", "arm64"):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
        builder.call(body.module.declare_intrinsic("llvm.aarch64.hint", fnty=kind), [kind.args[0](1)])


def _integers(name: str, emit: Callable[..., Scalar | None], arguments: int, returns: bool = True) -> Instruction:
    return Instruction(name, emit, (I64,) * arguments, I64 if returns else None)


INTRINSICS: Final[dict[str, Instruction]] = {
    x.name: x
    for x in (
        _integers("load", _load(64), 1),
        _integers("store", _store(64), 2, returns=False),
        _integers("load_i32", _load(32), 1),
        _integers("store_i32", _store(32), 2, returns=False),
        _integers("atomic_load", _atomic_load, 1),
        _integers("atomic_store", _atomic_store, 2, returns=False),
        _integers("atomic_add", _atomic_add, 2),
        _integers("atomic_swap_if", _atomic_swap_if, 3),
        _integers("pause", _pause, 0, returns=False),
        _integers("load_byte", _load_byte, 1),
        _integers("copy_memory", _copy_memory, 3, returns=False),
        _integers("fail", _fail, 1, returns=False),
        _integers("cycles", _cycles, 0),
        _integers("call_kernel", _call_kernel, 5, returns=False),
        *[_integers(f"call{n}", _call, 1 + n) for n in range(_MOST_ARGUMENTS + 1)],
    )
}
"""By the names by which the runtime's native sources know these operations."""
