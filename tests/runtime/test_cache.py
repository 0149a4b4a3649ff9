"""The kernel cache: a second process compiles nothing, and nothing that is wrong with the disk is ever
fatal."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from funcgrad.runtime.cache import CacheWarning, DiskCache
from funcgrad.runtime.compile import compile_kernel, compile_kernels, stats
from funcgrad.runtime.executor import run_address
from tests.runtime.native import ADD, ROOT, kernel, run_script

RUN = """
import sys, warnings
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from native import ADD, kernel
    from funcgrad.runtime.compile import stats
    from funcgrad.runtime.executor import Program, Step
    from funcgrad.runtime import cache
    x, y = np.arange(10), np.empty(10, np.int64)
    for _ in range(2):
        Program([Step(kernel(ADD).address, [0, 1, 5], 10)], 1, 1)((x,), (y,))
    kernel(ADD.replace("+ load(ints + 16)", "- 3"))
    assert (y == x + 5).all()
s = stats()
warned = [w for w in caught if w.category is cache.CacheWarning]
print(s.compiles, s.cache_hits, "numba" in sys.modules, len(warned))
for w in caught:
    print(w.message)
"""


def run(**environment: str) -> tuple[int, int, bool, int, str]:
    first, _, rest = run_script(RUN, **environment).partition("\n")
    compiles, hits, numba, warned = first.split()
    return int(compiles), int(hits), numba == "True", int(warned), rest


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory that one process has filled."""
    path = tmp_path_factory.mktemp("warm")
    compiles, hits, numba, warned, _ = run(FUNCGRAD_CACHE_DIR=str(path))
    assert compiles == 3 and hits == 0 and not numba and warned == 0  # two kernels and the core
    return path


def entries(path: Path) -> list[Path]:
    return sorted((path / "kernels").glob("*.o"))


def test_a_second_process_compiles_nothing(warm: Path) -> None:
    assert run(FUNCGRAD_CACHE_DIR=str(warm)) == (0, 3, False, 0, "")
    assert (warm / "kernels").stat().st_mode & 0o777 == 0o700
    assert len(entries(warm)) == 3
    assert not list((warm / "kernels").glob("*.tmp"))


@pytest.mark.parametrize("damage", ["truncated", "header", "flipped", "empty", "foreign text"])
def test_damaged_entries_are_compiled_again_with_one_warning(warm: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "kernels"
    copy.mkdir(mode=0o700)
    for file in entries(warm):
        data = bytearray(file.read_bytes())
        if damage == "truncated":
            data = data[: len(data) // 2]
        elif damage == "header":
            data = data[:20]
        elif damage == "flipped":
            data[len(data) // 2] ^= 64
        elif damage == "empty":
            data = bytearray()
        else:
            data = bytearray(b"#!/bin/sh\n" * 100)
        (copy / file.name).write_bytes(data)
        (copy / file.name).chmod(0o600)
    compiles, hits, _, warned, text = run(FUNCGRAD_CACHE_DIR=str(tmp_path))
    assert (compiles, hits, warned) == (3, 0, 1), text
    assert "compiling it again" in text
    assert run(FUNCGRAD_CACHE_DIR=str(tmp_path))[:4] == (0, 3, False, 0)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    compiles, _, _, warned, text = run(FUNCGRAD_CACHE_DIR=str(tmp_path / "file"))
    assert compiles == 3 and warned == 1 and "cannot make the kernel cache directory" in text


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX owners")
def test_a_directory_others_may_write_to_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels").chmod(0o777)
    compiles, _, _, warned, text = run(FUNCGRAD_CACHE_DIR=str(tmp_path))
    assert compiles == 3 and warned == 1 and "writable by other users" in text
    assert not entries(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX owners")
def test_entries_and_directories_of_other_users_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DiskCache(tmp_path / "kernels")
    assert cache.store("a" * 64, b"code")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.warns(CacheWarning, match="owned by another user"):
        assert cache.load("a" * 64) is None
    other = DiskCache(tmp_path / "kernels")
    with pytest.warns(CacheWarning, match="is owned by another user; it holds native code"):
        assert not other.store("b" * 64, b"code")
    assert other.load("b" * 64) is None  # silent: said once


def test_a_symbolic_link_is_no_entry(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "kernels")
    assert cache.store("a" * 64, b"code")
    (tmp_path / "kernels" / ("b" * 64 + ".o")).symlink_to(tmp_path / "kernels" / ("a" * 64 + ".o"))
    with pytest.warns(CacheWarning, match="cannot read"):
        assert cache.load("b" * 64) is None


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only file system (where the tests run as root, permissions would not hold)."""
    cache = DiskCache(tmp_path / "kernels")
    assert cache.store("a" * 64, b"code")

    open_file = os.open

    def refuse(path: Path, flags: int, *args: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(30, "Read-only file system")
        return open_file(path, flags, *args)

    monkeypatch.setattr("os.open", refuse)
    with pytest.warns(CacheWarning, match="Read-only file system; new kernels stay in memory"):
        assert not cache.store("b" * 64, b"code")
    assert not cache.store("c" * 64, b"code")  # silent
    assert cache.load("a" * 64) == b"code"
    assert not cache.info().writable


@pytest.mark.parametrize("value", ["0", "off"])
def test_the_cache_can_be_switched_off(tmp_path: Path, value: str) -> None:
    assert run(FUNCGRAD_CACHE_DIR=str(tmp_path), FUNCGRAD_CACHE=value)[:4] == (3, 0, False, 0)
    assert not list(tmp_path.iterdir())


def test_two_processes_at_once(tmp_path: Path) -> None:
    paths = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "FUNCGRAD_CACHE_DIR": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in started:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert out.split()[3] == "0", out
    assert run(FUNCGRAD_CACHE_DIR=str(tmp_path))[:4] == (0, 3, False, 0)


def test_size_bound_evicts_the_least_recently_used(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "kernels", max_bytes=10_000)
    now = time.time()
    for i in range(10):
        assert cache.store(f"{i:064d}", b"x" * 2000)
        os.utime(cache._file(f"{i:064d}"), (now - 100 + i, now - 100 + i))
    abandoned = tmp_path / "kernels" / "left.tmp"
    abandoned.write_bytes(b"")
    os.utime(abandoned, (now - 1e5, now - 1e5))
    cache.sweep()
    left = sorted(int(file.name[:-2]) for file in (tmp_path / "kernels").iterdir())
    assert left == [6, 7, 8, 9]
    assert cache.info().bytes <= 10_000


def test_info_and_clear(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "kernels")
    assert cache.load("a" * 64) is None
    cache.store("a" * 64, b"some code")
    assert cache.load("a" * 64) == b"some code"
    info = cache.info()
    assert (info.entries, info.hits, info.misses, info.writable, info.enabled) == (1, 1, 1, True, True)
    assert info.path == str(tmp_path / "kernels") and info.bytes > 9
    assert cache.clear() == 1
    assert cache.info().entries == 0
    nowhere = DiskCache(None).info()
    assert nowhere.path is None and not nowhere.enabled and not nowhere.writable


# -- compiling


def test_equal_kernels_are_one_even_from_many_threads() -> None:
    source = ADD.replace("+ load(ints + 16)", f"+ {time.time_ns() % 10**9}")
    run_address()  # the core, which is compiled beside the first kernel
    before, found = stats().compiles, []
    workers = [threading.Thread(target=lambda: found.append(kernel(source))) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert stats().compiles == before + 1
    assert len({k.address for k in found}) == 1 and len(found) == 6


def test_the_meaning_of_the_words_is_part_of_the_key() -> None:
    source = "def kernel(slots, ints, lo, hi):\n    pass\n"
    assert compile_kernel(source).key != kernel(source).key


def test_inspection() -> None:
    made = kernel(ADD)
    assert made.source == ADD and len(made.key) == 64
    assert "fg_" + made.key[:40] in made.llvm()
    assert "fg_" + made.key[:40] in made.assembly()


def test_a_source_without_the_function_is_an_error() -> None:
    with pytest.raises(ValueError, match="defines no function named 'kernel'"):
        compile_kernel("def other(slots, ints, lo, hi): pass")


def test_libm_calls_survive_the_cache(tmp_path: Path) -> None:
    """An object that calls the C library's mathematics loads in a process that compiles nothing."""
    text = """
import ctypes, math
from funcgrad.runtime.compile import compile_native, stats
k = compile_native("def f(x):\\n    return lgamma_f64(x)\\n", "f64(f64)", "f")
f = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(k.address)
assert abs(f(4.5) - math.lgamma(4.5)) < 1e-14
print(stats().compiles)
"""
    assert run_script(text, FUNCGRAD_CACHE_DIR=str(tmp_path)) == "2"  # and the core
    assert run_script(text, FUNCGRAD_CACHE_DIR=str(tmp_path)) == "0"


def test_many_kernels_are_compiled_together_and_an_error_in_one_is_raised() -> None:
    empty = "def kernel(slots, ints, lo, hi):\n    pass\n"
    unique = [empty + f"# {time.time_ns()} {k % 3}" for k in range(6)]
    run_address()
    before = stats().compiles
    found = compile_kernels(unique)
    assert [k.source for k in found] == unique and stats().compiles == before + 6
    assert [k.address for k in compile_kernels(unique)] == [k.address for k in found]
    with pytest.raises(SyntaxError, match="there is no instruction named nothing"):
        compile_kernels([*[x + "again" for x in unique], empty.replace("pass", "nothing(lo)")])
