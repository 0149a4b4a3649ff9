"""LLVM's library, mapped into the process by a thread while the first function is traced.

It is 180 MB with 150 thousand relocations: 5 to 7 ms in which llvmlite's own import would hold the GIL. Nothing is run
here but the system's loader; llvmlite finds the library there when it asks for it. What goes wrong is left for llvmlite
to find and to say.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading

from funcgrad.codegen.llvm import llvm_library

from .machine import is_remembered

__all__ = ["preload", "wait"]

_threads: list[threading.Thread] = []
_begun: list[bool] = []
"""Not empty once it has been asked for: at another shape there is nothing to load."""


def preload() -> None:
    """Begin, unless that has been done or llvmlite is there.

    Nor where kernels have been compiled before: they may all be in the cache, and then LLVM is not needed.
    """
    if _begun or sys.platform != "linux" or "llvmlite.binding" in sys.modules:
        return
    _begun.append(True)
    if not is_remembered():
        # Not a daemon: the interpreter waits for it, and does not take the process down in the midst of it.
        thread = threading.Thread(target=_load, name="funcgrad preload")
        _threads.append(thread)
        try:
            thread.start()
        except RuntimeError:  # the system allows no more threads, or the interpreter is ending
            _threads[0] = threading.Thread()


def wait() -> None:
    """Until it is done, if it was begun."""
    for thread in _threads:
        if thread.ident is not None:
            thread.join()


def _load() -> None:
    library = llvm_library()
    if library is None:
        return
    try:
        dlopen = ctypes.CDLL(None).dlopen  # ctypes lets go of the GIL for a function that it calls, not for its own
    except (AttributeError, OSError):
        return
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    dlopen(os.fsencode(library), os.RTLD_NOW)


# A fork in the midst of it would leave the loader's lock taken for ever in the child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=wait)
