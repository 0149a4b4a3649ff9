"""The machine kernels are compiled for, and the one engine that holds their code.

llvmlite itself (70 ms) is imported at the first kernel, so that importing funcgrad stays cheap.

Numba's own target machine lets LLVM prefer 256-bit vectors. Ours asks for 512-bit ones where the CPU runs
them without slowing down (AVX-512 with VBMI2: Ice Lake, Zen 4 and later): 1.6 times the speed on a
compute-bound loop.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llvmlite.binding import ModuleRef, TargetMachine

__all__ = ["address_of", "assembly_of", "describe", "emit", "optimised", "wide"]


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
    version = ".".join(map(str, llvm.llvm_version_info))
    return (llvm.get_process_triple(), llvm.get_host_cpu_name(), _features(), pointer, version)


def wide() -> bool:
    """Whether kernels are compiled for registers of 512 bits."""
    return "-prefer-256-bit" in describe()[2]


def _new_target_machine(opt: int) -> TargetMachine:
    llvm = _llvm()
    triple, cpu, features, *_ = describe()
    target = llvm.Target.from_triple(triple)
    relocation = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(
        cpu=cpu, features=features, opt=opt, reloc=relocation, codemodel="jitdefault", jit=True
    )


class _Machines(threading.local):
    """LLVM's description of this CPU, for each thread its own: emitting code writes to it."""

    def __init__(self) -> None:
        self.loops = _new_target_machine(3)
        self.glue = _new_target_machine(0)


@cache
def _machines() -> _Machines:
    return _Machines()


# from LLVM's assembly to machine code ---------------------------------------------------------------------------


def optimised(assembly: str, glue: bool = False) -> ModuleRef:
    """A module from LLVM assembly, in a context of its own, after LLVM's passes.

    Loops get -O3 with both vectorisers. ``glue``, code that only calls other code, gets the three passes that make
    it plain, and a fifth of the time.
    """
    llvm = _llvm()
    machine = _machines().glue if glue else _machines().loops
    module = llvm.parse_assembly(assembly, llvm.create_context())
    module.triple = describe()[0]
    module.data_layout = str(machine.target_data)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(1 if glue else 3)
    tuning.loop_vectorization = tuning.slp_vectorization = not glue
    builder = llvm.create_pass_builder(machine, tuning)
    if glue:
        passes = llvm.create_new_module_pass_manager()
        passes.add_sroa_pass()
        passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
        passes.add_always_inliner_pass()
    else:
        passes = builder.getModulePassManager()
    run = _unlocked("LLVMPY_RunNewModulePassManager")
    run(passes, module, builder)
    if not glue and _inline_variants(module):
        passes = llvm.create_new_module_pass_manager()
        passes.add_always_inliner_pass()
        passes.add_global_dead_code_eliminate_pass()
        run(passes, module, builder)
    return module


def _inline_variants(module: ModuleRef) -> bool:
    """Let go of the vector variants of functions (see `codegen.vecmath.rare`), if there are any: once the vectoriser
    has chosen among them, the chosen ones go where they are called and the others away."""
    variants = [f for f in module.functions if f.linkage is f.linkage.weak_odr]
    for f in variants:
        f.linkage = "internal"
    return bool(variants)


def emit(module: ModuleRef, glue: bool = False) -> bytes:
    """The module as an object file."""
    import llvmlite.binding.ffi as ffi

    machine = _machines().glue if glue else _machines().loops
    with ffi.OutputString() as error:
        buffer = _unlocked("LLVMPY_TargetMachineEmitToMemory")(machine, module, 1, error)
        if not buffer:
            raise RuntimeError(str(error))
    try:
        start, size = ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer)
        return ctypes.string_at(start, size)
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def assembly_of(module: ModuleRef) -> str:
    """The module as the CPU's assembly."""
    return _machines().loops.emit_assembly(module)


def _unlocked(name: str) -> Callable[..., Any]:
    """A function of llvmlite's library, called without the lock that llvmlite puts around all of them.

    LLVM itself allows threads that have a context and a target machine each. Where llvmlite is built in another way
    than we know, the locked function serves as well: threads then take turns.
    """
    import llvmlite.binding.ffi as ffi

    function = getattr(ffi.lib, name)
    return getattr(function, "_cfn", function)


# code in this process -------------------------------------------------------------------------------------------


@cache
def _engine() -> Any:
    machine = _new_target_machine(3)
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
