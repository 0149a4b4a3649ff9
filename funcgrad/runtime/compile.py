"""From the text of a kernel to the address of its machine code, by the shortest way that leads there.

A kernel is plain Python, one function, that Numba's front end types and lowers to LLVM IR:

    def kernel(slots, ints, lo, hi):       # four 64-bit integers
        p0 = load_i64(slots + 8 * load_i64(ints + 0))
        ...

We then optimise that IR ourselves, for our own target machine (see `target`), which halves the LLVM part of
Numba's time, and emit an object file whose only symbol is named by the kernel's key: the hash of its text, of
the compilers' versions and of the CPU. Three places are asked in turn: this process's table (equal kernels
are one kernel), the disk cache (an object file, loaded by llvmlite alone: Numba is not imported), the
compiler.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funcgrad.runtime import target
from funcgrad.runtime.cache import default_cache

if TYPE_CHECKING:
    from llvmlite.binding import ModuleRef

__all__ = [
    "KERNEL_SIGNATURE",
    "CompileStats",
    "CompiledKernel",
    "compile_kernel",
    "compile_native",
    "compile_runtime",
    "fingerprint",
    "stats",
]

Namespace = Callable[[], Mapping[str, Any]]

KERNEL_SIGNATURE = "void(intp,intp,intp,intp)"


@dataclass(frozen=True)
class CompileStats:
    """Counts since the process began: kernels compiled, loaded from the disk, found in memory; and
    milliseconds."""

    compiles: int
    cache_hits: int
    memory_hits: int
    compile_ms: float
    load_ms: float


@dataclass(frozen=True, eq=False)
class _Request:
    """What to compile."""

    source: str
    name: str
    signature: str
    namespace: Namespace
    key: str

    @property
    def symbol(self) -> str:
        """Derived from the hash alone: processes forked from one another would number alike."""
        return "fg_" + self.key[:40]


@dataclass(frozen=True, eq=False)
class CompiledKernel:
    """Machine code in this process, and where it came from."""

    _request: _Request = field(repr=False)
    address: int
    from_cache: bool
    compile_ms: float

    @property
    def source(self) -> str:
        """The Python text that was compiled."""
        return self._request.source

    @property
    def key(self) -> str:
        """The hash that names it in the cache."""
        return self._request.key

    def llvm(self) -> str:
        """The optimised LLVM IR (made anew: only machine code is kept)."""
        with _lock:
            return str(_lower(self._request))

    def assembly(self) -> str:
        """The assembly of the machine code (made anew: only machine code is kept)."""
        with _lock:
            return target.target_machine().emit_assembly(_lower(self._request))


_lock = threading.RLock()
_kernels: dict[str, CompiledKernel] = {}
_counts = {"compiles": 0, "cache_hits": 0, "memory_hits": 0, "compile_ms": 0.0, "load_ms": 0.0}


def compile_kernel(
    source: str, name: str = "kernel", namespace: Namespace = dict, namespace_key: str = ""
) -> CompiledKernel:
    """The machine code of a kernel: `source` defines one function `name(slots, ints, lo, hi)`.

    `namespace()` gives the global names the source uses (intrinsics, njit functions); it is called only if
    there is something to compile, so Numba need not be imported before. `namespace_key` stands for its
    content in the cache key: the `fingerprint` of the files that define it.
    """
    return compile_native(source, KERNEL_SIGNATURE, name, namespace, namespace_key)


def compile_native(
    source: str, signature: str, name: str, namespace: Namespace = dict, namespace_key: str = ""
) -> CompiledKernel:
    """As `compile_kernel`, for a function of any C signature in Numba's notation, such as "intp(intp,
    float64)"."""
    key = _key(source, signature, name, namespace_key)
    found = _kernels.get(key)
    if found is not None:
        _counts["memory_hits"] += 1
        return found
    with _lock:
        found = _kernels.get(key)
        if found is not None:
            _counts["memory_hits"] += 1
            return found
        request = _Request(source, name, signature, namespace, key)
        kernel = _kernels[key] = _from_disk(request) or _compile(request)
        return kernel


def compile_runtime(source: str, name: str, arguments: int, returns: bool = True) -> int:
    """The address of a function of the runtime's own: 64-bit integers in, one (or nothing) out, `intrinsics`
    known."""
    signature = f"{'intp' if returns else 'void'}({','.join(['intp'] * arguments)})"
    return compile_native(source, signature, name, _intrinsics, _intrinsics_key()).address


def _intrinsics() -> Mapping[str, Any]:
    from funcgrad.runtime.intrinsics import namespace  # imports Numba

    return namespace()


@cache
def _intrinsics_key() -> str:
    return fingerprint([Path(__file__).with_name("intrinsics.py")])


def stats() -> CompileStats:
    """What compiling has been done since the process began."""
    return CompileStats(**_counts)  # type: ignore[arg-type]


def fingerprint(paths: Iterable[str | os.PathLike[str]]) -> str:
    """A hash of the content of files: what a namespace defined there contributes to its kernels' keys."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


# -- the key


@cache
def _environment() -> bytes:
    from importlib.metadata import version  # slow to import, and only needed here

    pipeline = fingerprint(Path(__file__).with_name(name) for name in ("target.py", "numba_frontend.py"))
    parts = (pipeline, version("numba"), version("llvmlite"), *target.describe())
    return "\0".join(parts).encode()


def _key(source: str, signature: str, name: str, namespace_key: str) -> str:
    digest = hashlib.sha256(_environment())
    for part in (signature, name, namespace_key, source):
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()


# -- the three ways


def _from_disk(request: _Request) -> CompiledKernel | None:
    start = time.perf_counter()
    obj = default_cache().load(request.key)
    if obj is None:
        return None
    address = target.address_of(request.symbol, obj)
    _counts["cache_hits"] += 1
    _counts["load_ms"] += 1e3 * (time.perf_counter() - start)
    return CompiledKernel(request, address, True, 0.0)


def _compile(request: _Request) -> CompiledKernel:
    start = time.perf_counter()
    module = _lower(request)
    obj = target.emit(module)
    address = target.address_of(request.symbol, obj)
    elapsed = 1e3 * (time.perf_counter() - start)
    _counts["compiles"] += 1
    _counts["compile_ms"] += elapsed
    if _self_contained(module):
        default_cache().store(request.key, obj)
    return CompiledKernel(request, address, False, elapsed)


def _self_contained(module: ModuleRef) -> bool:
    """Whether the code runs in a process without Numba, whose helpers bear these names (libm and libc are
    fine)."""
    names = [f.name for f in module.functions if f.is_declaration]
    names += [g.name for g in module.global_variables if g.is_declaration]
    return not any(n.startswith(("numba", "NRT_", "Py", "_Py", ".numba", "_ZN")) for n in names)


def _lower(request: _Request) -> ModuleRef:
    from funcgrad.runtime.numba_frontend import lower  # imports Numba, and readies it

    names = dict(request.namespace())
    exec(compile(request.source, f"<funcgrad {request.name}>", "exec"), names)
    function = names.get(request.name)
    if not callable(function):
        raise ValueError(f"the kernel source defines no function named {request.name!r}")
    module = lower(function, request.signature, request.symbol)
    target.optimise(module)
    return module


# A fork while another thread compiles would leave its locks (ours, Numba's, LLVM's) taken for ever in the
# child. Whoever compiles holds our lock, so it is enough to wait for that one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
