"""BLAS and LAPACK by function pointer, from the table that SciPy's Cython modules publish (`__pyx_capi__`),
and, where that is OpenBLAS, the variable that holds its number of threads."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import itertools
import os
import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["cython_function", "cython_module", "libc", "openblas_threads"]

_OPENMP = 2  # openblas_get_parallel(): 0 none, 1 threads of its own, 2 OpenMP


@cache
def cython_function(module: str, name: str) -> int:
    """The address of a function of `scipy.linalg.cython_blas` or `scipy.linalg.cython_lapack`."""
    capsule = cython_module(module).__pyx_capi__[name]
    signature = ctypes.pythonapi.PyCapsule_GetName
    signature.restype, signature.argtypes = ctypes.c_char_p, (ctypes.py_object,)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    address: int = pointer(capsule, signature(capsule))
    return address


@cache
def cython_module(name: str) -> Any:
    """The extension module by itself: 2 ms, where importing the package scipy.linalg around it takes 100."""
    full = f"scipy.linalg.{name}"
    return sys.modules.get(full) or _load_alone(full) or importlib.import_module(full)


def _load_alone(full: str) -> ModuleType | None:
    import scipy  # the package alone; it prepares the search for its libraries on some platforms

    package, _, name = full.rpartition(".")
    folder = Path(scipy.__file__).parent / package.split(".")[1]
    for suffix in EXTENSION_SUFFIXES:
        file = folder / (name + suffix)
        spec = importlib.util.spec_from_file_location(full, file) if file.exists() else None
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            # Cython registers the module by itself; without its package around it, it should not be found.
            sys.modules.pop(full, None)
            return module
    return None


@cache
def libc() -> dict[str, int]:
    """The addresses of what native code takes from the C library."""
    library = ctypes.CDLL(None if os.name == "posix" else "msvcrt")
    return {
        name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in ("malloc", "free", "memcpy")
    }


@cache
def openblas_threads() -> int | None:
    """The address of the C int that says on how many threads the OpenBLAS behind `cython_blas` runs; None where
    that is not OpenBLAS, keeps it to itself, or runs on OpenMP.

    We write the variable, not through `set_num_threads`: after a fork that function first starts all threads
    anew, under a lock, and the next fork may leave the lock taken for ever in the child. With OpenMP the number
    belongs to the calling thread and to all of its OpenMP code, so it is not ours to change.
    """
    path = getattr(cython_module("cython_blas"), "__file__", None)
    if os.name != "posix" or path is None:
        return None
    # A symbol is searched for in the module and then in the libraries it is linked with, and only there.
    library = ctypes.CDLL(path)
    for prefix, suffix in itertools.product(("scipy_", ""), ("", "64_", "_64")):
        get, parallel = (
            getattr(library, f"{prefix}openblas_{name}{suffix}", None) for name in ("get_num_threads", "get_parallel")
        )
        if get is not None and parallel is not None and hasattr(library, "blas_cpu_number"):
            number = ctypes.c_int.in_dll(library, "blas_cpu_number")
            return ctypes.addressof(number) if parallel() != _OPENMP and get() == number.value else None
    return None
