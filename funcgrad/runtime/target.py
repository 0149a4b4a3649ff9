"""The machine kernels are compiled for, and the one engine that holds their code. LLVM only: no Numba here.

llvmlite itself (70 ms) is imported at the first kernel, so that importing funcgrad stays cheap.

Numba's own target machine lets LLVM prefer 256-bit vectors. Ours asks for 512-bit ones where the CPU runs
them without slowing down (AVX-512 with VBMI2: Ice Lake, Zen 4 and later): 1.6 times the speed on a
compute-bound loop.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llvmlite.binding import ModuleRef, TargetMachine

__all__ = ["address_of", "describe", "emit", "optimise", "target_machine"]


@cache
def _llvm() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # A kernel may call libm (pow, fmod); the interpreter need not be linked to it.
    if not llvm.address_of_symbol("pow") and sys.platform != "win32":
        llvm.load_library_permanently("libm.dylib" if sys.platform == "darwin" else "libm.so.6")
    return llvm


@cache
def _features() -> str:
    try:
        features = _llvm().get_host_cpu_features()
    except RuntimeError:  # LLVM cannot tell on this platform
        return ""
    flat = features.flatten()
    return flat + ",-prefer-256-bit" if features.get("avx512vbmi2") else flat


@cache
def describe() -> tuple[str, ...]:
    """Everything about the machine that generated code depends on; part of every kernel's cache key."""
    llvm = _llvm()
    pointer = str(ctypes.sizeof(ctypes.c_void_p))
    return (llvm.get_process_triple(), llvm.get_host_cpu_name(), _features(), pointer)


@cache
def target_machine() -> TargetMachine:
    """LLVM's description of this CPU, for code that stays in this process (or in its cache)."""
    llvm = _llvm()
    triple, cpu, features, _ = describe()
    target = llvm.Target.from_triple(triple)
    relocation = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(
        cpu=cpu, features=features, opt=3, reloc=relocation, codemodel="jitdefault", jit=True
    )


def optimise(module: ModuleRef) -> None:
    """LLVM's -O3 with both vectorisers, in place."""
    llvm = _llvm()
    tuning = llvm.create_pipeline_tuning_options(3)
    tuning.loop_vectorization = True
    tuning.slp_vectorization = True
    builder = llvm.create_pass_builder(target_machine(), tuning)
    builder.getModulePassManager().run(module, builder)


def emit(module: ModuleRef) -> bytes:
    """The module as an object file."""
    return target_machine().emit_object(module)


@cache
def _engine() -> Any:
    machine = target_machine()
    llvm = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(f'target triple = "{describe()[0]}"'), machine)
    # Never freed: at the interpreter's end a daemon thread may still be inside a kernel.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    return engine


def address_of(symbol: str, obj: bytes) -> int:
    """Load an object file into the process, for good, and return the address of `symbol` in it."""
    engine = _engine()
    engine.add_object_file(_llvm().ObjectFileRef.from_data(obj))
    engine.finalize_object()
    address = engine.get_function_address(symbol)
    if not address:
        raise ValueError(f"the object file defines no {symbol}")
    return address
