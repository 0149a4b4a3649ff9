"""From the text of a kernel to the address of its machine code, by the shortest way that leads there.

A kernel is one function in a flat subset of Numba's Python, which our front end lowers to LLVM IR:

    def kernel(slots, ints, lo, hi):       # four 64-bit integers
        p0 = load(slots + 8 * load(ints + 0))
        ...

LLVM optimises that for our own target machine (see `target`) and emits an object file whose only symbol is
named by the kernel's key: the hash of its text, of what defines the words in it, of the compiler's version and
of the CPU. Three places are asked in turn: this process's table (equal kernels are one kernel), the disk cache
(an object file), the compiler. Numba is imported by none of them.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funcgrad.codegen.frontend import Function, lower_together, parse_signature
from funcgrad.codegen.instruction import Instruction
from funcgrad.codegen.numba_target import compile_with_numba
from funcgrad.codegen.vocabulary import MACHINE_CODE, find_instruction
from funcgrad.record import field, record
from funcgrad.runtime import blocks, butterflies, intrinsics, roots, target, vectors
from funcgrad.runtime.cache import default_cache
from funcgrad.runtime.parallel import in_parallel, prompt_threads

if TYPE_CHECKING:
    from llvmlite.binding import ModuleRef

__all__ = [
    "KERNEL_SIGNATURE",
    "CompileStats",
    "CompiledKernel",
    "compile_all_vectors",
    "compile_kernel",
    "compile_kernels",
    "compile_kernels_with_numba",
    "compile_native",
    "compile_runtime",
    "compile_runtime_kernel",
    "compile_vectors",
    "core_function",
    "fingerprint",
    "stats",
]

Lookup = Callable[[str], Instruction | None]

KERNEL_SIGNATURE = "void(i64, i64, i64, i64)"


@record(frozen=True)
class CompileStats:
    """Counts since the process began: kernels compiled, loaded from the disk, found in memory; and
    milliseconds."""

    compiles: int
    cache_hits: int
    memory_hits: int
    compile_ms: float
    load_ms: float


@record(frozen=True, eq=False)
class _Request:
    """What to compile into one object file: one kernel, or several functions of the runtime's own."""

    functions: tuple[tuple[str, str, str], ...]
    """Of each function its source, name and signature."""
    lookup: Lookup
    glue: bool
    vectors: bool
    key: str

    @property
    def plain(self) -> bool:
        """Whether LLVM's passes over loops have nothing to find in it."""
        return self.glue or self.vectors

    @property
    def symbols(self) -> list[str]:
        """Derived from the hash alone: processes forked from one another would number alike."""
        return [f"fg_{self.key[:40]}{k or ''}" for k in range(len(self.functions))]


@record(frozen=True, eq=False)
class CompiledKernel:
    """Machine code in this process, and where it came from."""

    _request: _Request = field(repr=False)
    addresses: tuple[int, ...]
    from_cache: bool
    compile_ms: float
    owner: Any = field(default=None, repr=False)
    """What must live as long as the machine code, where another compiler holds it."""

    @property
    def address(self) -> int:
        """Of the machine code."""
        return self.addresses[0]

    @property
    def source(self) -> str:
        """The Python text that was compiled."""
        return self._request.functions[0][0]

    @property
    def key(self) -> str:
        """The hash that names it in the cache."""
        return self._request.key

    def llvm(self) -> str:
        """The optimised LLVM IR (made anew: only machine code is kept)."""
        with _lock:
            return str(_optimised(self._request))

    def assembly(self) -> str:
        """The assembly of the machine code (made anew: only machine code is kept)."""
        with _lock:
            return target.assembly_of(_optimised(self._request))


_lock = threading.RLock()
_kernels: dict[str, CompiledKernel] = {}
_counts = {"compiles": 0, "cache_hits": 0, "memory_hits": 0, "compile_ms": 0.0, "load_ms": 0.0}


def compile_kernel(source: str, name: str = "kernel") -> CompiledKernel:
    """The machine code of a generated kernel: `source` defines one function `name(slots, ints, lo, hi)`."""
    return compile_native(source, KERNEL_SIGNATURE, name)


def compile_kernels(sources: Sequence[str]) -> list[CompiledKernel]:
    """The machine code of many kernels, each named ``kernel``; what has to be compiled is compiled in parallel."""
    return _compiled([_request(x, KERNEL_SIGNATURE, "kernel", find_instruction, _kernel_words()) for x in sources])


def compile_kernels_with_numba(sources: Sequence[str]) -> list[CompiledKernel]:
    """As `compile_kernels`, by Numba instead of our front end: ten times slower, not cached, and independent."""
    made: dict[str, CompiledKernel] = {}
    for source in sources:
        if source not in made:
            start = time.perf_counter()
            owner = compile_with_numba(source)
            elapsed = 1e3 * (time.perf_counter() - start)
            request = _request(source, KERNEL_SIGNATURE, "kernel", find_instruction, "numba")
            made[source] = CompiledKernel(request, (owner.address,), False, elapsed, owner)
    return [made[source] for source in sources]


def compile_native(source: str, signature: str, name: str) -> CompiledKernel:
    """As `compile_kernel`, for a function of any signature, such as "i64(i64, f64)"."""
    return _compiled([_request(source, signature, name, find_instruction, _kernel_words())])[0]


def compile_runtime(source: str, name: str, arguments: int, returns: bool = True) -> int:
    """The address of a function of the runtime's own: 64-bit integers in, one (or nothing) out, `intrinsics` known.

    It is compiled as glue; for what loops over data see `compile_runtime_kernel`, for what every program needs see
    `core_function`.
    """
    signature = _integers_to(arguments, returns)
    request = _request(source, signature, name, find_runtime_instruction, _runtime_words(), glue=True)
    return _compiled([request])[0].address


def compile_vectors(source: str, name: str, arguments: int) -> int:
    """As `compile_runtime`, for what is written in vector instructions (`blocks`, `butterflies`), and returns nothing:
    its loops are vectors already, and get LLVM's code generator at its best without the passes before it."""
    return compile_all_vectors([(source, name, arguments)])[0]


def compile_all_vectors(functions: Sequence[tuple[str, str, int]]) -> list[int]:
    """As `compile_vectors` for each of these sources, names and counts of arguments; what has to be compiled is
    compiled in parallel."""
    words = _runtime_words()
    requests = [
        _request(source, _integers_to(arguments, False), name, find_runtime_instruction, words, vectors=True)
        for source, name, arguments in functions
    ]
    return [made.address for made in _compiled(requests)]


def _integers_to(arguments: int, returns: bool) -> str:
    return f"{'i64' if returns else 'void'}({', '.join(['i64'] * arguments)})"


def compile_runtime_kernel(source: str, name: str = "kernel") -> CompiledKernel:
    """As `compile_kernel`, for a hand-written kernel that also uses the runtime's own instructions."""
    return _compiled([_request(source, KERNEL_SIGNATURE, name, find_runtime_instruction, _runtime_words())])[0]


def find_runtime_instruction(name: str) -> Instruction | None:
    """The instruction of this name in the runtime's own sources."""
    return (
        intrinsics.INTRINSICS.get(name)
        or blocks.BLOCKS.get(name)
        or butterflies.BUTTERFLIES.get(name)
        or find_instruction(name)
    )


# -- the core: what nearly every program needs

_core: dict[tuple[str, str, str], int] = {}
"""The functions that were declared so, and their addresses, or 0."""


def core_function(source: str, name: str, arguments: int, returns: bool = True) -> Callable[[], int]:
    """Declare a function as `compile_runtime` compiles them; what comes back gives its address.

    All that are declared are compiled into one object, and beside the first kernels of the process, on another CPU:
    one by one and afterwards they would take 40 ms.
    """
    function = (source, name, _integers_to(arguments, returns))
    _core.setdefault(function, 0)

    def address() -> int:
        if not _core[function]:
            with _lock:
                request = _core_request()
                if request is not None:
                    _compiled([request])
        return _core[function]

    return address


def _core_request() -> _Request | None:
    """What is declared and not there yet."""
    missing = tuple(sorted(function for function, address in _core.items() if not address))
    return _request_of(missing, find_runtime_instruction, _runtime_words(), True) if missing else None


def _compiled(requests: Sequence[_Request]) -> list[CompiledKernel]:
    """The kernels that are asked for, from the three places in turn."""
    missing = [r for r in requests if r.key not in _kernels]
    _counts["memory_hits"] += len(requests) - len(missing)
    if missing:
        with _lock:
            distinct = {r.key: r for r in missing if r.key not in _kernels}
            _counts["memory_hits"] += len(missing) - len(distinct)
            wanted = [r for r in distinct.values() if not _from_disk(r)]
            if wanted:
                core = _core_request()
                if core is not None and core.key not in distinct and not _from_disk(core):
                    wanted.insert(1, core)
                _compile(wanted)
    return [_kernels[r.key] for r in requests]


def _loaded(request: _Request, obj: bytes, from_cache: bool, compile_ms: float) -> None:
    made = CompiledKernel(request, target.addresses_of(request.symbols, obj), from_cache, compile_ms)
    _kernels[request.key] = made
    for function, address in zip(request.functions, made.addresses, strict=True):
        if function in _core:
            _core[function] = address


@cache
def _kernel_words() -> str:
    """The part of a kernel's key that stands for the meaning of the words in its text."""
    return fingerprint(MACHINE_CODE)


@cache
def _runtime_words() -> str:
    return fingerprint(
        [*MACHINE_CODE, *[Path(str(m.__file__)) for m in (blocks, butterflies, intrinsics, roots, vectors)]]
    )


def stats() -> CompileStats:
    """What compiling has been done since the process began."""
    return CompileStats(**_counts)  # type: ignore[arg-type]


def fingerprint(paths: Iterable[str | os.PathLike[str]]) -> str:
    """A hash of the content of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


# -- the key


@cache
def _environment() -> bytes:
    return "\0".join((fingerprint([Path(str(target.__file__))]), *target.describe())).encode()


def _request(
    source: str, signature: str, name: str, lookup: Lookup, words: str, glue: bool = False, vectors: bool = False
) -> _Request:
    return _request_of(((source, name, signature),), lookup, words, glue, vectors)


@lru_cache(maxsize=4096)
def _request_of(
    functions: tuple[tuple[str, str, str], ...], lookup: Lookup, words: str, glue: bool, vectors: bool = False
) -> _Request:
    digest = hashlib.sha256(_environment())
    digest.update(b"\0" + words.encode())
    for source, name, signature in functions:
        for part in (signature, name, source):
            digest.update(b"\0" + part.encode())
    return _Request(functions, lookup, glue, vectors, digest.hexdigest())


# -- the three ways


def _from_disk(request: _Request) -> bool:
    start = time.perf_counter()
    obj = default_cache().load(request.key)
    if obj is None:
        return False
    _loaded(request, obj, True, 0.0)
    _counts["cache_hits"] += 1
    _counts["load_ms"] += 1e3 * (time.perf_counter() - start)
    return True


def _compile(requests: Sequence[_Request]) -> None:
    start = time.perf_counter()
    with prompt_threads():
        objects = in_parallel(_object, ((r, _assembly(r)) for r in requests), len(requests))
    for request, (obj, milliseconds) in zip(requests, objects, strict=True):
        _loaded(request, obj, False, milliseconds)
        default_cache().store(request.key, obj)
    _counts["compiles"] += len(requests)
    _counts["compile_ms"] += 1e3 * (time.perf_counter() - start)


def _object(item: tuple[_Request, str]) -> tuple[bytes, float]:
    """The object file of a kernel, and the milliseconds that LLVM took for it."""
    request, assembly = item
    start = time.perf_counter()
    obj = target.emit(target.optimised(assembly, request.plain), request.glue)
    return obj, 1e3 * (time.perf_counter() - start)


def _assembly(request: _Request) -> str:
    """A kernel in LLVM's assembly, as our front end writes it."""
    functions = [
        Function(source, name, parse_signature(signature), symbol)
        for (source, name, signature), symbol in zip(request.functions, request.symbols, strict=True)
    ]
    return lower_together(functions, request.lookup)


def _optimised(request: _Request) -> ModuleRef:
    return target.optimised(_assembly(request), request.plain)


# A fork while another thread compiles would leave its locks (ours, llvmlite's) taken for ever in the
# child. Whoever compiles holds our lock, so it is enough to wait for that one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
