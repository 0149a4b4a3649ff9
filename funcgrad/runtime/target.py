"""The machine kernels are compiled for, and the one engine that holds their code.

llvmlite itself (15 to 60 ms) is imported at the first kernel, so that importing funcgrad stays cheap.

Numba's own target machine lets LLVM prefer 256-bit vectors. Ours asks for 512-bit ones where the CPU runs
them without slowing down (AVX-512 with VBMI2: Ice Lake, Zen 4 and later): 1.6 times the speed on a
compute-bound loop.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from funcgrad.codegen.llvm import binding

from . import preload
from .loader import load_object
from .machine import remembered

if TYPE_CHECKING:
    from llvmlite.binding import ModulePassManager, ModuleRef, PassBuilder, TargetMachine

__all__ = ["addresses_of", "assembly_of", "describe", "emit", "optimised", "wide"]


@cache
def _llvm() -> Any:
    # While the library is being loaded: what llvmlite imports besides.

    preload.wait()
    llvm = binding()
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
    return remembered(_described)


def _described() -> tuple[str, ...]:
    llvm = _llvm()
    pointer = str(ctypes.sizeof(ctypes.c_void_p))
    version = ".".join(map(str, llvm.llvm_version_info))
    return (llvm.get_process_triple(), llvm.get_host_cpu_name(), _features(), pointer, version)


def wide() -> bool:
    """Whether kernels are compiled for registers of 512 bits."""
    return "-prefer-256-bit" in describe()[2]


def _relocation() -> str:
    return "static" if describe()[0].startswith(("x86", "i386", "i686")) else "default"


def _new_target_machine(opt: int) -> TargetMachine:
    llvm = _llvm()
    triple, cpu, features, *_ = describe()
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(
        cpu=cpu, features=features, opt=opt, reloc=_relocation(), codemodel="jitdefault", jit=True
    )


class _Tools:
    """What makes machine code of a module: LLVM's description of this CPU, and what is wanted of the passes.

    To use them is to write to them, so a thread borrows a set and puts it back.
    """

    def __init__(self, glue: bool) -> None:
        llvm = _llvm()
        self.glue = glue
        self.machine = _new_target_machine(0 if glue else 3)
        self.layout = str(self.machine.target_data)
        self.tuning = llvm.create_pipeline_tuning_options(1 if glue else 3)
        self.tuning.loop_vectorization = self.tuning.slp_vectorization = not glue

    def run(self, passes: Callable[[PassBuilder], ModulePassManager], module: ModuleRef) -> None:
        """Run over a module the passes that are made of a builder.

        Both are for one run. The builder keeps callbacks into what lives only during a run: a second one would read
        freed memory.
        """
        builder = _llvm().create_pass_builder(self.machine, self.tuning)
        try:
            _llvm().run_passes(passes(builder), module, builder)
        finally:
            builder.close()


def _of_loops(builder: PassBuilder) -> ModulePassManager:
    """LLVM's own pipeline."""
    return builder.getModulePassManager()


def _of_glue(builder: PassBuilder) -> ModulePassManager:
    """Glue is plain once its variables are in registers."""
    passes = _llvm().create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_always_inliner_pass()
    return passes


def _of_variants(builder: PassBuilder) -> ModulePassManager:
    passes = _llvm().create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_global_dead_code_eliminate_pass()
    return passes


_unused: dict[bool, list[_Tools]] = {False: [], True: []}


@contextlib.contextmanager
def _borrowed(glue: bool) -> Iterator[_Tools]:
    try:
        tools = _unused[glue].pop()
    except IndexError:
        tools = _Tools(glue)
    try:
        yield tools
    finally:
        _unused[glue].append(tools)


# from LLVM's assembly to machine code ---------------------------------------------------------------------------


def optimised(assembly: str, glue: bool = False) -> ModuleRef:
    """A module from LLVM assembly, in a context of its own, after LLVM's passes.

    Loops get -O3 with both vectorisers. ``glue``, code that only calls other code, gets the two passes that make it
    plain, and a tenth of the time.
    """
    llvm = _llvm()
    with _borrowed(glue) as tools:
        module = llvm.parse_assembly(assembly, llvm.create_context())
        module.triple = describe()[0]
        module.data_layout = tools.layout
        module.verify()
        tools.run(_of_glue if glue else _of_loops, module)
        if "weak_odr" in assembly:
            _release_variants(module)
            tools.run(_of_variants, module)
    return module


_WEAK_ANY, _WEAK_ODR = 5, 6
"""LLVM's numbers for them."""


def _release_variants(module: ModuleRef) -> None:
    """Let go of functions with vector variants, and of these (see `codegen.vecmath.rare` and `avx512`): once the
    vectoriser has chosen among them, the chosen ones go where they are called and the others away."""
    for f in module.functions:
        linkage = f.linkage
        if linkage == _WEAK_ANY:  # what only the vectoriser was to see as a function
            f.add_function_attribute("alwaysinline")
        if linkage in (_WEAK_ANY, _WEAK_ODR):
            f.linkage = "internal"


def emit(module: ModuleRef, glue: bool = False) -> bytes:
    """The module as an object file."""
    with _borrowed(glue) as tools:
        obj: bytes = _llvm().emit_object(tools.machine, module)
    return obj


def assembly_of(module: ModuleRef) -> str:
    """The module as the CPU's assembly."""
    with _borrowed(False) as tools:
        return tools.machine.emit_assembly(module)


# code in this process -------------------------------------------------------------------------------------------


@cache
def _engine() -> Any:
    import llvmlite.binding as llvm

    _llvm()  # which makes the library ready
    triple, cpu, features, *_ = describe()
    machine = llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=3, reloc=_relocation(), codemodel="jitdefault", jit=True
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(f'target triple = "{triple}"'), machine)
    # Never freed: at the interpreter's end a daemon thread may still be inside a kernel.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    return engine


def addresses_of(symbols: Sequence[str], obj: bytes) -> tuple[int, ...]:
    """Load an object file into the process, for good, and return the addresses of these symbols of it."""
    found = load_object(obj, symbols)
    if found is not None:
        return found
    engine = _engine()
    import llvmlite.binding as llvm

    engine.add_object_file(llvm.ObjectFileRef.from_data(obj))
    engine.finalize_object()
    addresses = tuple([engine.get_function_address(symbol) for symbol in symbols])
    if not all(addresses):
        raise ValueError(f"the object file defines no {symbols[addresses.index(0)]}")
    return addresses
