"""Our loader of object files against LLVM's: the same code at another address; what it does not know it leaves."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.compiler import lower_jaxpr
from funcgrad.passes.pipeline import optimize
from funcgrad.runtime import compile as compiling
from funcgrad.runtime import machine, target
from funcgrad.runtime.cache import DiskCache
from funcgrad.runtime.loader import load_object
from tests.runtime.native import run_script

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or target.describe()[0].split("-")[0] != "x86_64", reason="objects of x86-64 under Linux"
)


def objects(fun: Callable[..., Any], args: tuple[Any, ...]) -> list[tuple[list[str], bytes]]:
    """The object files of a function's kernels, compiled anew, with their symbols."""
    found = []
    for source in lower_jaxpr(optimize(fg.jit(fun).trace(*args).jaxpr)).stages.texts():
        request = compiling._request(source, compiling.KERNEL_SIGNATURE, "kernel", compiling.find_instruction, "")
        found.append((request.symbols, compiling._object((request, compiling._assembly(request)))[0]))
    return found


X = np.linspace(-3.0, 3.0, 50)

# what is in the object besides code
ROWS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "nothing": (lambda x: x + x, (X,)),
    "numbers": (lambda x: np.tanh(x) * 3.25 + np.exp(x), (X,)),
    "numbers of 32 bits": (lambda x: np.sin(x) * np.cbrt(x), (X.astype(np.float32),)),
    "fmod": (lambda x: np.fmod(x, 0.7), (X,)),
    "lgamma": (lambda x: fg.scipy.special.gammaln(x), (X,)),
    "memset": (lambda x: np.zeros(50), (X,)),
    "a loop in registers": (lambda x: fg.lax.fori_loop(0, 9, lambda i, c: np.sin(c) * 1.5, x[:3]), (X,)),
    "rows": (lambda x: np.exp(x - x.max(1, keepdims=True)) / 3.7, (X.reshape(5, 10),)),
}


def relocations(obj: bytes) -> int:
    start, count = struct.unpack_from("<Q", obj, 40)[0], struct.unpack_from("<H", obj, 60)[0]
    sections = [struct.unpack_from("<IIQQQQIIQQ", obj, start + 64 * k) for k in range(count)]
    return sum([s[5] // 24 for s in sections if s[1] == 4])


@pytest.mark.parametrize("row", ROWS)
def test_everything_that_kernels_have_is_understood(row: str) -> None:
    for symbols, obj in objects(*ROWS[row]):
        assert obj.startswith(b"\x7fELF")
        assert load_object(obj, symbols) is not None
        assert relocations(obj) or row in ("nothing", "memset", "rows")


@pytest.mark.parametrize("row", ROWS)
def test_same_results_as_from_llvms_loader(row: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fun, args = ROWS[row]
    results, loaded = [], []
    for load in (load_object, lambda obj, symbols: None):

        def watched(obj: bytes, symbols: Any, load: Any = load) -> Any:
            loaded.append(load(obj, symbols) is not None)
            return load(obj, symbols)

        monkeypatch.setattr(target, "load_object", watched)
        monkeypatch.setattr(compiling, "_kernels", {})
        results.append(fg.jit(lambda x: fun(x))(*args))
    assert True in loaded and False in loaded
    np.testing.assert_array_equal(results[0], results[1])


def test_a_function_of_the_runtime() -> None:
    source = "def seventh(x):\n    return x * 7 + 2\n"
    request = compiling._request(source, "i64(i64)", "seventh", compiling.find_runtime_instruction, "", glue=True)
    obj, _ = compiling._object((request, compiling._assembly(request)))
    addresses = load_object(obj, request.symbols)
    assert addresses is not None
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(addresses[0])(5) == 37


def changed(at: int, kind: str, value: int) -> Callable[[bytes], bytes]:
    def change(obj: bytes) -> bytes:
        data = bytearray(obj)
        struct.pack_into(kind, data, at, value)
        return bytes(data)

    return change


def with_relocation(change: Callable[[int, int, int], tuple[int, int, int]]) -> Callable[[bytes], bytes]:
    def changed(obj: bytes) -> bytes:
        start, count = struct.unpack_from("<Q", obj, 40)[0], struct.unpack_from("<H", obj, 60)[0]
        sections = [struct.unpack_from("<IIQQQQIIQQ", obj, start + 64 * k) for k in range(count)]
        at = next(s[4] for s in sections if s[1] == 4)
        data = bytearray(obj)
        struct.pack_into("<QQq", data, at, *change(*struct.unpack_from("<QQq", obj, at)))
        return bytes(data)

    return changed


UNKNOWN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda obj: b"",
    "no object": lambda obj: b"\x7fELF" + bytes(200),
    "Mach-O": lambda obj: b"\xcf\xfa\xed\xfe" + obj[4:],
    "32 bits": changed(4, "B", 1),
    "a shared library": changed(16, "<H", 3),
    "another processor": changed(18, "<H", 183),
    "sections behind the end": changed(40, "<Q", 10**9),
    "another kind of relocation": with_relocation(lambda at, info, addend: (at, info & ~0xFFFFFFFF | 2, addend)),
    "a relocation outside of its section": with_relocation(lambda at, info, addend: (10**6, info, addend)),
    "a symbol that is not there": with_relocation(lambda at, info, addend: (at, 10**6 << 32 | 1, addend)),
    "a function that nobody has": lambda obj: obj.replace(b"\0fmod\0", b"\0fmox\0"),
}


@pytest.mark.parametrize("row", UNKNOWN)
def test_what_is_not_known_is_left_to_llvm(row: str) -> None:
    ((symbols, obj),) = objects(*ROWS["fmod"])
    assert load_object(obj, symbols) is not None
    other = UNKNOWN[row](obj)
    assert other != obj
    assert load_object(other, symbols) is None


def test_another_name() -> None:
    ((_, obj),) = objects(*ROWS["fmod"])
    assert load_object(obj, ["other"]) is None


def test_cut_short() -> None:
    """Checksums catch this before; here it must not raise."""
    ((symbols, obj),) = objects(*ROWS["numbers"])
    for length in range(0, len(obj), 7):
        assert load_object(obj[:length], symbols) is None or length > len(obj) - 64


SCRIPT = """
import sys
import numpy as np
import funcgrad as fg
from pathlib import Path
f = fg.jit(fg.value_and_grad(lambda x: np.sum(np.exp(np.sin(x)) @ x)))
print(repr(f(np.linspace(0.0, 1.0, 9))[0]), "libllvmlite" in Path("/proc/self/maps").read_text(),
      "llvmlite" in sys.modules)
"""


def test_a_second_process_does_not_load_llvm(tmp_path: Path) -> None:
    first, second = (run_script(SCRIPT, FUNCGRAD_CACHE_DIR=str(tmp_path)).split() for _ in range(2))
    assert first[1:] == ["True", "True"] and second == [first[0], "False", "False"]


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_note_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    first = run_script(SCRIPT, FUNCGRAD_CACHE_DIR=str(tmp_path)).split()
    (note,) = (tmp_path / "kernels").glob("*.note")
    written = note.read_bytes()
    if damage is None:
        note.unlink()
    else:
        note.write_bytes(damage)
    assert (
        run_script(
            "import warnings; warnings.simplefilter('ignore')" + SCRIPT, FUNCGRAD_CACHE_DIR=str(tmp_path)
        ).split()
        == first
    )
    assert note.read_bytes() == written


def test_a_note_of_another_machine_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, answers = DiskCache(tmp_path / "kernels"), iter([("a", "b"), ("c", "d")])
    monkeypatch.setattr(machine, "default_cache", lambda: cache)
    for key, want in (("1" * 64, ("a", "b")), ("2" * 64, ("c", "d")), ("1" * 64, ("a", "b"))):
        monkeypatch.setattr(machine, "_key", lambda key=key: key)
        assert machine.remembered(lambda: next(answers)) == want
    monkeypatch.setattr(machine, "_key", lambda: None)
    assert machine.remembered(lambda: ("e",)) == ("e",) and not machine.is_remembered()
    assert cache.info().entries == cache.info().hits == cache.info().misses == 0
    for content in ("[1, 2]", "{", "[]"):
        monkeypatch.setattr(machine, "_key", lambda: "3" * 64)
        cache.remember("3" * 64, content.encode())
        assert machine.remembered(lambda: ("f",)) == ("f",)
    assert json.loads(cache.recall("3" * 64) or b"") == ["f"]


@pytest.mark.parametrize("path", ["/proc/cpuinfo", "/proc/sys/kernel/random/boot_id"])
def test_the_key_tells_boots_and_processors_apart(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_key = machine._key.__wrapped__
    key, open_file, read_bytes = make_key(), os.open, Path.read_bytes
    assert key is not None and make_key() == key
    other = tmp_path / "other"
    other.write_bytes(Path(path).read_bytes().replace(b"avx", b"xva").replace(b"-", b"0"))
    monkeypatch.setattr("os.open", lambda p, *a: open_file(other if p == path else p, *a))
    monkeypatch.setattr(Path, "read_bytes", lambda self: read_bytes(other if str(self) == path else self))
    assert make_key() not in (None, key)
    other.unlink()
    assert make_key() is None
