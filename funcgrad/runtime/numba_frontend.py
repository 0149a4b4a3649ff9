"""Numba's front end alone: Python function -> unoptimised LLVM module. Importing this module imports Numba.

Of Numba's pipeline only what a kernel needs is run: bytecode, SSA, types, lowering. Kernels hold no arrays
and raise nothing, so there is no reference counting to prune, no wrapper for Python, and no use for its cheap
LLVM passes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from numba.core import compiler, registry, sigutils, typed_passes, types, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager

from funcgrad.runtime.cython_api import cython_module

__all__ = ["lower"]


class _RawLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Collects modules as they are lowered, unoptimised."""

    def _optimize_functions(self, ll_module: llvm.ModuleRef) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def linked_module(self) -> llvm.ModuleRef:
        """The module together with the functions it calls."""
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        return self._final_module


class _KernelCompiler(compiler.CompilerBase):  # type: ignore[misc]
    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("kernel")
        for step in (
            untyped_passes.TranslateByteCode,
            untyped_passes.FixupArgs,
            untyped_passes.IRProcessing,
            untyped_passes.RewriteSemanticConstants,
            untyped_passes.GenericRewrites,
            untyped_passes.ReconstructSSA,
            typed_passes.NopythonTypeInference,
            typed_passes.PreLowerStripPhis,
            typed_passes.IRLegalization,
            typed_passes.NativeLowering,
            typed_passes.NoPythonBackend,
        ):
            passes.add_pass(step, step._name)
        passes.finalize()
        return [passes]


def _register() -> None:
    """Fill Numba's tables of typed functions, which its first compile would do.

    That asks whether SciPy's BLAS can be imported, and so imports all of scipy.linalg (100 ms). For as long
    as it asks, we put in its way the one module that it wants to see, which takes 2 ms to load by itself.
    """
    name = "scipy.linalg.cython_blas"
    lent = name not in sys.modules
    if lent:
        sys.modules[name] = cython_module("cython_blas")
    try:
        registry.cpu_target.target_context.refresh()
        registry.cpu_target.typing_context.refresh()
    finally:
        if lent and "scipy.linalg" not in sys.modules:
            sys.modules.pop(name, None)


with global_compiler_lock:
    _register()

_call_types: dict[Any, Any] = {}


@contextmanager
def _remembered_calls() -> Iterator[None]:
    """Let `operator.add` of two float64 be resolved once per process, not twice at each place of a kernel.

    Numba tries every overload anew for each call it types and again for each it lowers: a third of its time.
    """
    original = types.Function.get_call_type

    def get_call_type(self: Any, context: Any, args: Any, kws: Any) -> Any:
        if kws:
            return original(self, context, args, kws)
        key = (self, tuple(args))
        found = _call_types.get(key)
        if found is None:
            found = original(self, context, args, kws)
            if all(isinstance(arg, types.Number | types.Boolean) for arg in args):
                _call_types[key] = found
        return found

    types.Function.get_call_type = get_call_type  # type: ignore[method-assign]
    try:
        yield
    finally:
        types.Function.get_call_type = original  # type: ignore[method-assign]


def _flags() -> Any:
    flags = compiler.Flags()
    flags.no_cpython_wrapper = True
    flags.no_compile = True
    flags.no_rewrites = True
    flags.error_model = "numpy"
    flags.nrt = False
    return flags


@global_compiler_lock
def lower(function: Callable[..., Any], signature: str, symbol: str) -> llvm.ModuleRef:
    """An LLVM module whose one external symbol, `symbol`, is `function` with the C signature `signature`."""
    args, return_type = sigutils.normalize_signature(signature)
    cpu = registry.cpu_target
    library = _RawLibrary(cpu.target_context.codegen(), function.__name__)
    library.enable_object_caching()
    with _remembered_calls():
        result = compiler.compile_extra(
            cpu.typing_context, cpu.target_context, function, args, return_type, _flags(), {},
            library=library, pipeline_class=_KernelCompiler,
        )  # fmt: skip
    module = library.linked_module()
    entry = result.fndesc.llvm_cfunc_wrapper_name
    for defined in module.functions:
        if not defined.is_declaration:
            defined.linkage = "external" if defined.name == entry else "internal"
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    module.get_function(entry).name = symbol
    module.verify()
    return module
