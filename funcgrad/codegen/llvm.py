"""LLVM through llvmlite's library: `binding` gives what stands for ``llvmlite.binding``.

Importing that takes 12 to 16 ms, a third of what the first small kernel of a process costs: it declares several hundred
functions of the library, and comes with temporary files, archives and an IR of its own. We call some forty of them. So
where the library is of a version whose functions are known here, they are declared here, under llvmlite's names; of any
other version, or elsewhere than on x86-64 Linux, llvmlite itself is imported.

Objects belong to whoever made them, and are freed with the Python object. Nothing takes llvmlite's lock: LLVM allows
threads that have a context and a target machine each.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from ctypes import byref, c_bool, c_char_p, c_int, c_size_t, c_uint, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, Final

__all__ = ["KNOWN_VERSIONS", "Binding", "Llvmlite", "binding", "llvm_library"]

KNOWN_VERSIONS: Final = frozenset(["0.50.0"])
"""The versions of llvmlite with which the declarations below have been compared and tested."""

_TEXT: Final = ctypes.POINTER(c_char_p)
_P: Final = c_void_p

# result, then arguments; handles are pointers to what only the library knows
_DECLARATIONS: Final[dict[str, tuple[Any, ...]]] = {
    "AddFunctionAttr": (None, _P, c_uint),
    "ContextCreate": (_P,),
    "ContextDispose": (None, _P),
    "CopyStringRepOfTargetData": (None, _P, _TEXT),
    "CreateNewModulePassManager": (_P,),
    "CreatePassBuilder": (_P, _P, _P),
    "CreatePipelineTuningOptions": (_P,),
    "CreateTargetMachine": (
        _P, _P, c_char_p, c_char_p, c_char_p, c_int, c_char_p, c_char_p, c_int, c_int, c_char_p,
    ),
    "CreateTargetMachineData": (_P, _P),
    "DisposeFunctionsIter": (None, _P),
    "DisposeMemoryBuffer": (None, _P),
    "DisposeModule": (None, _P),
    "DisposeNewModulePassManger": (None, _P),
    "DisposePassBuilder": (None, _P),
    "DisposePipelineTuningOptions": (None, _P),
    "DisposeString": (None, c_char_p),
    "DisposeTargetData": (None, _P),
    "DisposeTargetMachine": (None, _P),
    "FunctionsIterNext": (_P, _P),
    "GetBufferSize": (c_size_t, _P),
    "GetBufferStart": (_P, _P),
    "GetEnumAttributeKindForName": (c_uint, c_char_p, c_size_t),
    "GetHostCPUFeatures": (c_int, _TEXT),
    "GetHostCPUName": (None, _TEXT),
    "GetLinkage": (c_int, _P),
    "GetProcessTriple": (None, _TEXT),
    "GetTargetFromTriple": (_P, c_char_p, _TEXT),
    "GetTargetName": (c_char_p, _P),
    "GetVersionInfo": (c_uint,),
    "InitializeNativeAsmPrinter": (None,),
    "InitializeNativeTarget": (None,),
    "LoadLibraryPermanently": (c_bool, c_char_p, _TEXT),
    "ModuleFunctionsIter": (_P, _P),
    "PTOSetLoopVectorization": (None, _P, c_bool),
    "PTOSetSLPVectorization": (None, _P, c_bool),
    "ParseAssembly": (_P, _P, c_char_p, _TEXT),
    "PrintModuleToString": (None, _P, _TEXT),
    "RunNewModulePassManager": (None, _P, _P, _P),
    "SearchAddressOfSymbol": (_P, c_char_p),
    "SetDataLayout": (None, _P, c_char_p),
    "SetLinkage": (None, _P, c_int),
    "SetTarget": (None, _P, c_char_p),
    "TargetMachineEmitToMemory": (_P, _P, _P, c_int, _TEXT),
    "VerifyModule": (c_bool, _P, _TEXT),
    "buildPerModuleDefaultPipeline": (_P, _P, c_int),
    "module_AddAlwaysInlinerPass": (None, _P),
    "module_AddGlobalDCEPass": (None, _P),
    "module_AddSROAPass": (None, _P),
}  # fmt: skip


@cache
def llvm_library() -> Path | None:
    """The file of llvmlite's library under Linux, found without importing it."""
    try:
        spec = importlib.util.find_spec("llvmlite")
        folders = spec.submodule_search_locations if spec is not None else None
        library = Path(folders[0]) / "binding" / "libllvmlite.so" if folders else None
        return library if library is not None and library.exists() else None
    except (AttributeError, ImportError, OSError, ValueError):
        return None


@cache
def binding() -> Any:
    """`Binding` where the library's functions are known, else `Llvmlite`: the same names either way."""
    library = llvm_library()
    if library is None or not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        return Llvmlite()
    import llvmlite

    if llvmlite.__version__ not in KNOWN_VERSIONS:
        return Llvmlite()
    try:
        return Binding(ctypes.CDLL(str(library)))
    except (AttributeError, OSError):  # llvmlite finds and says what is wrong
        return Llvmlite()


# llvmlite's own ---------------------------------------------------------------------------------------------------


class Llvmlite:
    """``llvmlite.binding``, and two things that it does in its own way."""

    def __init__(self) -> None:
        import llvmlite.binding as llvm
        import llvmlite.binding.newpassmanagers as passes

        self._llvm = llvm
        self._dispose_passes = passes.NewPassManager._dispose

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llvm, name)

    def _unlocked(self, name: str) -> Any:
        """A function of the library, called without the lock that llvmlite puts around all of them. Where it is built
        in another way than we know, the locked function serves as well: threads then take turns."""
        function = getattr(self._llvm.ffi.lib, name)
        return getattr(function, "_cfn", function)

    def run_passes(self, passes: Any, module: Any, builder: Any) -> None:
        """Passes are used up by it, and have to be freed here: llvmlite's own `close` frees nothing of a pass manager
        (the empty method of another base class comes before the one that would), which is 100 kB a kernel."""
        try:
            self._unlocked("LLVMPY_RunNewModulePassManager")(passes, module, builder)
        finally:
            self._dispose_passes(passes)
            passes.detach()

    def emit_object(self, machine: Any, module: Any) -> bytes:
        ffi = self._llvm.ffi
        with ffi.OutputString() as error:
            buffer = self._unlocked("LLVMPY_TargetMachineEmitToMemory")(machine, module, 1, error)
            if not buffer:
                raise RuntimeError(str(error))
        try:
            start, size = ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer)
            return ctypes.string_at(start, size)
        finally:
            ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


# what stands for it -----------------------------------------------------------------------------------------------


class Binding:
    """The library's functions under llvmlite's names."""

    def __init__(self, library: Any) -> None:
        self._lib = _Functions()
        for name, (result, *arguments) in _DECLARATIONS.items():
            function = getattr(library, f"LLVMPY_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self._lib, name, function)
        version = self._lib.GetVersionInfo()
        self.llvm_version_info = tuple([version >> shift & 0xFF for shift in (16, 8, 0)])

    def initialize_native_target(self) -> None:
        self._lib.InitializeNativeTarget()

    def initialize_native_asmprinter(self) -> None:
        self._lib.InitializeNativeAsmPrinter()

    def address_of_symbol(self, name: str) -> int | None:
        found: int | None = self._lib.SearchAddressOfSymbol(name.encode())
        return found

    def load_library_permanently(self, name: str) -> None:
        self._lib.said(self._lib.LoadLibraryPermanently, name.encode(), fails=bool)

    def get_process_triple(self) -> str:
        return self._lib.said(self._lib.GetProcessTriple)

    def get_host_cpu_name(self) -> str:
        return self._lib.said(self._lib.GetHostCPUName)

    def get_host_cpu_features(self) -> Features:
        text = self._lib.said(self._lib.GetHostCPUFeatures)
        return Features({x[1:]: x[0] == "+" for x in text.split(",") if x})

    def create_context(self) -> Handle:
        return Handle(self._lib.ContextCreate(), self._lib.ContextDispose)

    def parse_assembly(self, text: str, context: Handle) -> Module:
        found: list[int] = []

        def parse(error: Any) -> bool:
            found.append(self._lib.ParseAssembly(context, text.encode(), error))
            return not found[0]

        self._lib.said(parse, fails=bool)
        return Module(self._lib, found[0], context)

    @property
    def Target(self) -> Any:
        return Target(self._lib)

    def create_pipeline_tuning_options(self, level: int) -> TuningOptions:
        return TuningOptions(self._lib, level)

    def create_pass_builder(self, machine: Handle, tuning: TuningOptions) -> PassBuilder:
        return PassBuilder(self._lib, machine, tuning)

    def create_new_module_pass_manager(self) -> Passes:
        return Passes(self._lib, self._lib.CreateNewModulePassManager())

    def run_passes(self, passes: Handle, module: Handle, builder: Handle) -> None:
        try:
            self._lib.RunNewModulePassManager(passes, module, builder)
        finally:
            passes.close()

    def emit_object(self, machine: TargetMachine, module: Handle) -> bytes:
        return machine.emit(module, True)


class _Functions:
    """The library's functions as attributes."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def said(self, function: Any, *arguments: Any, fails: Any = None) -> str:
        """What a function writes to its last argument. ``fails`` of its result: whether that is an error's text."""
        out = c_char_p()
        try:
            result = function(*arguments, byref(out))
            text = (out.value or b"").decode()
            if fails is not None and fails(result):
                raise RuntimeError(text)
            return text
        finally:
            if out.value is not None:
                self.DisposeString(out)


class Features(dict[str, bool]):
    def flatten(self) -> str:
        return ",".join([f"{'+' if self[name] else '-'}{name}" for name in sorted(self)])


class Handle:
    """Something of the library's, freed with this object."""

    __slots__ = ("_as_parameter_", "_dispose")

    def __init__(self, pointer: int | None, dispose: Any) -> None:
        if not pointer:
            raise ValueError("LLVM gave nothing")
        self._as_parameter_ = c_void_p(pointer)
        self._dispose = dispose

    def close(self) -> None:
        dispose, self._dispose = self._dispose, None
        if dispose is not None:
            dispose(self)

    def __del__(self) -> None:
        if getattr(self, "_dispose", None) is not None and not sys.is_finalizing():
            self.close()


class Module(Handle):
    __slots__ = ("_context", "_lib")

    def __init__(self, lib: Any, pointer: int, context: Handle) -> None:
        super().__init__(pointer, lib.DisposeModule)
        self._lib, self._context = lib, context

    def set_triple(self, text: str) -> None:
        self._lib.SetTarget(self, text.encode())

    def set_layout(self, text: str) -> None:
        self._lib.SetDataLayout(self, text.encode())

    triple = property(None, set_triple)
    data_layout = property(None, set_layout)

    def verify(self) -> None:
        self._lib.said(self._lib.VerifyModule, self, fails=bool)

    @property
    def functions(self) -> list[Function]:
        iterator = Handle(self._lib.ModuleFunctionsIter(self), self._lib.DisposeFunctionsIter)
        found = []
        while pointer := self._lib.FunctionsIterNext(iterator):
            found.append(Function(self._lib, pointer))
        iterator.close()
        return found

    def __str__(self) -> str:
        return self._lib.said(self._lib.PrintModuleToString, self)


class Function:
    """A function of a module, which owns it."""

    __slots__ = ("_as_parameter_", "_lib")
    NUMBERS: Final = {"external": 0, "weak_odr": 6, "internal": 8}

    def __init__(self, lib: Any, pointer: int) -> None:
        self._lib, self._as_parameter_ = lib, c_void_p(pointer)

    @property
    def linkage(self) -> Any:
        """LLVM's number of it; it is set by name."""
        return self._lib.GetLinkage(self)

    @linkage.setter
    def linkage(self, name: str) -> None:
        self._lib.SetLinkage(self, self.NUMBERS[name])

    def add_function_attribute(self, name: str) -> None:
        kind = self._lib.GetEnumAttributeKindForName(name.encode(), len(name))
        if not kind:
            raise ValueError(f"no such attribute {name!r}")
        self._lib.AddFunctionAttr(self, kind)


class Target:
    """``from_triple`` gives one that a target machine is made of."""

    def __init__(self, lib: Any, pointer: int | None = None, triple: str = "") -> None:
        self._lib, self._pointer, self._triple = lib, pointer, triple

    def from_triple(self, triple: str) -> Target:
        found: list[int] = []

        def look_up(error: Any) -> bool:
            found.append(self._lib.GetTargetFromTriple(triple.encode(), error))
            return not found[0]

        self._lib.said(look_up, fails=bool)
        return Target(self._lib, found[0], triple)

    @property
    def name(self) -> str:
        name: bytes = self._lib.GetTargetName(self._pointer)
        return name.decode()

    def create_target_machine(
        self, cpu: str, features: str, opt: int, reloc: str, codemodel: str, jit: bool
    ) -> TargetMachine:
        texts = [x.encode() for x in (self._triple, cpu, features, reloc, codemodel)]
        made = self._lib.CreateTargetMachine(self._pointer, *texts[:3], opt, *texts[3:], 0, int(jit), b"")
        return TargetMachine(self._lib, made)


class TargetMachine(Handle):
    __slots__ = ("_lib",)

    def __init__(self, lib: Any, pointer: int) -> None:
        super().__init__(pointer, lib.DisposeTargetMachine)
        self._lib = lib

    @property
    def target_data(self) -> str:
        data = Handle(self._lib.CreateTargetMachineData(self), self._lib.DisposeTargetData)
        return self._lib.said(self._lib.CopyStringRepOfTargetData, data)

    def emit_assembly(self, module: Handle) -> str:
        return self.emit(module, False).decode()

    def emit(self, module: Handle, as_object: bool) -> bytes:
        found: list[int] = []

        def write(error: Any) -> bool:
            found.append(self._lib.TargetMachineEmitToMemory(self, module, int(as_object), error))
            return not found[0]

        self._lib.said(write, fails=bool)
        buffer = Handle(found[0], self._lib.DisposeMemoryBuffer)
        return ctypes.string_at(self._lib.GetBufferStart(buffer), self._lib.GetBufferSize(buffer))


class TuningOptions(Handle):
    __slots__ = ("_lib", "level")

    def __init__(self, lib: Any, level: int) -> None:
        super().__init__(lib.CreatePipelineTuningOptions(), lib.DisposePipelineTuningOptions)
        self._lib, self.level = lib, level

    def set_loops(self, on: bool) -> None:
        self._lib.PTOSetLoopVectorization(self, on)

    def set_straight_lines(self, on: bool) -> None:
        self._lib.PTOSetSLPVectorization(self, on)

    loop_vectorization = property(None, set_loops)
    slp_vectorization = property(None, set_straight_lines)


class PassBuilder(Handle):
    __slots__ = ("_lib", "_machine", "_tuning")

    def __init__(self, lib: Any, machine: Handle, tuning: TuningOptions) -> None:
        super().__init__(lib.CreatePassBuilder(machine, tuning), lib.DisposePassBuilder)
        self._lib, self._machine, self._tuning = lib, machine, tuning

    def getModulePassManager(self) -> Passes:
        return Passes(self._lib, self._lib.buildPerModuleDefaultPipeline(self, self._tuning.level))


class Passes(Handle):
    __slots__ = ("_lib",)

    def __init__(self, lib: Any, pointer: int) -> None:
        super().__init__(pointer, lib.DisposeNewModulePassManger)
        self._lib = lib

    def add_sroa_pass(self) -> None:
        self._lib.module_AddSROAPass(self)

    def add_always_inliner_pass(self) -> None:
        self._lib.module_AddAlwaysInlinerPass(self)

    def add_global_dead_code_eliminate_pass(self) -> None:
        self._lib.module_AddGlobalDCEPass(self)
