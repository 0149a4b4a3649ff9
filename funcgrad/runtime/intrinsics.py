"""The machine's own words for Numba code that runs the runtime: memory by address, calls by pointer, atomics.

Importing this module imports Numba; it is only asked for when the runtime's own native code is not in the
cache. All values are 64-bit integers. Atomic operations are sequentially consistent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["namespace"]

_I64 = ir.IntType(64)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _I64.as_pointer())


def _integers(count: int, emit: Callable[[Any, list[Any]], Any]) -> Callable[..., Any]:
    """An intrinsic of `count` int64 arguments that returns an int64: what `emit(builder, arguments)`
    gives."""

    def codegen(context: Any, builder: Any, signature: Any, args: list[Any]) -> Any:
        result = emit(builder, args)
        return ir.Constant(_I64, 0) if result is None else result

    signature = types.int64(*[types.int64] * count)
    # Numba reads the number of arguments from the function's own parameter list.
    names = [f"a{i}" for i in range(count)]
    scope = {"signature": signature, "codegen": codegen}
    exec(f"def typer({', '.join(['typingctx', *names])}): return signature, codegen", scope)
    return intrinsic(scope["typer"])


def _call(count: int) -> Callable[..., Any]:
    """`call(function, *arguments)`: a C function of `count` int64 arguments returning int64, by its
    address."""

    def emit(builder: Any, args: list[Any]) -> Any:
        kind = ir.FunctionType(_I64, [_I64] * count)
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return _integers(count + 1, emit)


def _call_kernel(builder: Any, args: list[Any]) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_I64] * 4)
    builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])


def _store(builder: Any, args: list[Any]) -> None:
    builder.store(args[1], _pointer(builder, args[0]))


def _load_i32(builder: Any, args: list[Any]) -> Any:
    return builder.sext(builder.load(builder.inttoptr(args[0], ir.IntType(32).as_pointer())), _I64)


def _store_i32(builder: Any, args: list[Any]) -> None:
    half = ir.IntType(32)
    builder.store(builder.trunc(args[1], half), builder.inttoptr(args[0], half.as_pointer()))


def _atomic_load(builder: Any, args: list[Any]) -> Any:
    return builder.load_atomic(_pointer(builder, args[0]), "seq_cst", 8)


def _atomic_store(builder: Any, args: list[Any]) -> None:
    builder.store_atomic(args[1], _pointer(builder, args[0]), "seq_cst", 8)


def _atomic_add(builder: Any, args: list[Any]) -> Any:
    return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "seq_cst")


def _atomic_swap_if(builder: Any, args: list[Any]) -> Any:
    pair = builder.cmpxchg(_pointer(builder, args[0]), args[1], args[2], "seq_cst", "seq_cst")
    return builder.zext(builder.extract_value(pair, 1), _I64)


def _pause(builder: Any, args: list[Any]) -> None:
    """Tell the CPU that this is a waiting loop."""
    machine = llvm.get_process_triple().partition("-")[0]
    if machine in ("x86_64", "i686"):
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=kind), [])
    elif machine in ("aarch64", "arm64"):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
        builder.call(builder.module.declare_intrinsic("llvm.aarch64.hint", fnty=kind), [kind.args[0](1)])


_NAMES: dict[str, Any] = {
    "load": _integers(1, lambda b, a: b.load(_pointer(b, a[0]))),
    "store": _integers(2, _store),
    "load_i32": _integers(1, _load_i32),
    "store_i32": _integers(2, _store_i32),
    "atomic_load": _integers(1, _atomic_load),
    "atomic_store": _integers(2, _atomic_store),
    "atomic_add": _integers(2, _atomic_add),
    "atomic_swap_if": _integers(3, _atomic_swap_if),
    "pause": _integers(0, _pause),
    "call_kernel": _integers(5, _call_kernel),
    "call0": _call(0),
    "call1": _call(1),
    "call2": _call(2),
    "call3": _call(3),
    "call6": _call(6),
    "call11": _call(11),
    "call13": _call(13),
}


def namespace() -> dict[str, Any]:
    """The names by which the runtime's native sources know these operations."""
    return dict(_NAMES)
