"""The kernel cache on disk: object files that a second process loads instead of compiling.

An entry is one file, named by the SHA-256 of everything that determines its machine code (source text,
compiler versions, CPU). Its content is a magic number, the checksum of the payload, and the payload (an
object file), so an entry that was cut short or damaged is noticed and compiled again. Files are written aside
and moved into place, so any number of processes may share the directory.

The files are native code that will be run, so they live in a directory of the user's own (mode 0700). A
directory or an entry that belongs to somebody else, or that others may write to, is never trusted: the
process then keeps its kernels in memory and says so once.

    FUNCGRAD_CACHE_DIR   where to keep it (default: the platform's user cache directory)
    FUNCGRAD_CACHE=0     no cache on disk
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from funcgrad.errors import FuncgradWarning
from funcgrad.record import record

__all__ = ["CacheInfo", "CacheWarning", "DiskCache", "clear", "default_cache", "info"]

MAX_BYTES = 512 * 2**20
_MAGIC = b"fgkern1\n"
_HEADER = len(_MAGIC) + hashlib.sha256().digest_size
_SUFFIX = ".o"
_NOTE = ".note"
_STORES_BETWEEN_SWEEPS = 64
_TOUCH_AFTER = 24 * 3600.0  # a hit renews an entry's age at most once a day
_ABANDONED_AFTER = 3600.0  # a temporary file this old was left by a process that died
_FORGOTTEN_AFTER = 30 * 24 * 3600.0  # a note that nobody has read for so long


class CacheWarning(FuncgradWarning):
    """The kernel cache on disk cannot be used, or an entry of it was bad. Results are not affected."""


@record(frozen=True)
class CacheInfo:
    """What `info()` reports: the place, its content now, and this process's traffic with it."""

    path: str | None
    enabled: bool
    writable: bool
    entries: int
    bytes: int
    max_bytes: int
    hits: int
    misses: int


class DiskCache:
    """A directory of checksummed object files, bounded in size, shared by processes."""

    def __init__(self, path: Path | None, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self.warned: set[str] = set()
        self._readable: bool | None = None  # unknown until the first use
        self._writable = True
        self._stores = 0

    # -- using it

    def load(self, key: str) -> bytes | None:
        """The payload stored under `key`, or None. A damaged entry is removed, with one warning."""
        payload = self._get(key, _SUFFIX)
        if payload is None:
            self.misses += 1
        else:
            self.hits += 1
        return payload

    def store(self, key: str, payload: bytes) -> bool:
        """Keep `payload` under `key`; False (and at most one warning) where that is not possible."""
        if not self._put(key, _SUFFIX, payload):
            return False
        if self._stores % _STORES_BETWEEN_SWEEPS == 0:
            self.sweep()
        self._stores += 1
        return True

    def recall(self, key: str) -> bytes | None:
        """As `load`, of a note: something small that is no kernel and does not count as one."""
        return self._get(key, _NOTE)

    def remember(self, key: str, payload: bytes) -> bool:
        """As `store`, of a note."""
        return self._put(key, _NOTE, payload)

    def _get(self, key: str, suffix: str) -> bytes | None:
        if not self._usable():
            return None
        file = self._file(key, suffix)
        try:
            return self._read(file)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._warn("read", f"cannot read the kernel cache entry {file}: {error}; compiling instead")
        except ValueError as error:
            with contextlib.suppress(OSError):
                file.unlink()
            self._warn("corrupt", f"the kernel cache entry {file} is {error}; compiling it again")
        return None

    def _put(self, key: str, suffix: str, payload: bytes) -> bool:
        if not (self._usable() and self._writable):
            return False
        assert self.path is not None
        try:
            temporary = self.path / f"{key[:16]}{os.urandom(8).hex()}.tmp"
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(_MAGIC + hashlib.sha256(payload).digest() + payload)
                os.replace(temporary, self._file(key, suffix))
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            self._writable = False
            self._warn("write", f"cannot write the kernel cache in {self.path}: {error}; new kernels stay in memory")
            return False
        return True

    def sweep(self) -> None:
        """Remove abandoned temporary files and, beyond the size bound, the least recently used entries."""
        now = time.time()
        for suffix, age in ((".tmp", _ABANDONED_AFTER), (_NOTE, _FORGOTTEN_AFTER)):
            for file, status in self._scan(suffix):
                if now - status.st_mtime > age:
                    with contextlib.suppress(OSError):
                        file.unlink()
        entries = sorted(self._scan(_SUFFIX), key=lambda entry: entry[1].st_mtime)
        excess = sum(status.st_size for _, status in entries) - self.max_bytes
        if excess <= 0:
            return
        excess += self.max_bytes // 10  # make room, so that the next store does not sweep in vain
        for file, status in entries:
            if excess <= 0:
                break
            with contextlib.suppress(OSError):  # another process may have removed it
                file.unlink()
                excess -= status.st_size

    def clear(self) -> int:
        """Remove every entry; returns how many. Kernels loaded by running processes go on working."""
        removed = 0
        if self._usable():
            for suffix in (_SUFFIX, ".tmp", _NOTE):
                for file, _ in self._scan(suffix):
                    with contextlib.suppress(OSError):
                        file.unlink()
                        removed += suffix == _SUFFIX
        return removed

    def info(self) -> CacheInfo:
        """The place, the number and size of its entries, and this process's hits and misses."""
        usable = self._usable()
        sizes = [status.st_size for _, status in self._scan(_SUFFIX)] if usable else []
        return CacheInfo(
            path=None if self.path is None else str(self.path),
            enabled=usable,
            writable=usable and self._writable and os.access(str(self.path), os.W_OK),
            entries=len(sizes),
            bytes=sum(sizes),
            max_bytes=self.max_bytes,
            hits=self.hits,
            misses=self.misses,
        )

    # -- the directory

    def _file(self, key: str, suffix: str = _SUFFIX) -> Path:
        assert self.path is not None
        return self.path / (key + suffix)

    def _usable(self) -> bool:
        if self._readable is None:
            self._readable = self.path is not None and self._prepare(self.path)
        return self._readable

    def _prepare(self, path: Path) -> bool:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = os.lstat(path)
        except OSError as error:
            self._warn(
                "dir",
                f"cannot make the kernel cache directory {path}: {error}; kernels stay in "
                "memory (set FUNCGRAD_CACHE_DIR to a directory of yours, or FUNCGRAD_CACHE=0)",
            )
            return False
        fault = "not a directory" if not stat.S_ISDIR(status.st_mode) else _distrust(status)
        if fault:
            self._warn(
                "trust",
                f"the kernel cache directory {path} is {fault}; it holds native code, "
                "so it is not used and kernels stay in memory "
                "(set FUNCGRAD_CACHE_DIR to a directory of yours)",
            )
            return False
        return True

    def _read(self, file: Path) -> bytes:
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as source:
            status = os.fstat(handle)
            fault = _distrust(status)
            if fault:
                raise ValueError(fault)
            data = source.read()
        if len(data) < _HEADER or not data.startswith(_MAGIC):
            raise ValueError("truncated or no cache entry")
        payload = data[_HEADER:]
        if hashlib.sha256(payload).digest() != data[len(_MAGIC) : _HEADER]:
            raise ValueError("truncated or corrupt")
        if time.time() - status.st_mtime > _TOUCH_AFTER:
            with contextlib.suppress(OSError):
                os.utime(file)
        return payload

    def _scan(self, suffix: str) -> Iterator[tuple[Path, os.stat_result]]:
        assert self.path is not None
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if entry.name.endswith(suffix):
                        with contextlib.suppress(OSError):
                            yield Path(entry.path), entry.stat(follow_symlinks=False)
        except OSError:
            return

    def _warn(self, topic: str, message: str) -> None:
        if topic not in self.warned:
            self.warned.add(topic)
            warnings.warn(message, CacheWarning, stacklevel=2)


def _distrust(status: os.stat_result) -> str:
    """Why a file must not be trusted with native code; empty where nothing speaks against it."""
    if not hasattr(os, "geteuid"):
        return ""
    if status.st_uid != os.geteuid():
        return "owned by another user"
    if status.st_mode & 0o022:
        return "writable by other users"
    return ""


def _user_cache_dir() -> Path | None:
    try:
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return Path(local) if local else Path.home() / "AppData" / "Local"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches"
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        return Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache"
    except RuntimeError:  # no home directory
        return None


def directory() -> Path | None:
    """Where kernels are kept, following FUNCGRAD_CACHE and FUNCGRAD_CACHE_DIR; None: nowhere."""
    if os.environ.get("FUNCGRAD_CACHE", "1").strip().lower() in ("0", "off", "false", "no"):
        return None
    chosen = os.environ.get("FUNCGRAD_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute() / "kernels"
    parent = _user_cache_dir()
    return None if parent is None else parent / "funcgrad" / "kernels"


_default: DiskCache | None = None


def default_cache() -> DiskCache:
    """The process's cache, made at its first use from the environment of that moment."""
    global _default
    if _default is None:
        _default = DiskCache(directory())
    return _default


def info() -> CacheInfo:
    """Where compiled kernels are kept, how many and how large, and this process's hits and misses."""
    return default_cache().info()


def clear() -> int:
    """Remove every compiled kernel from the disk; returns how many there were."""
    return default_cache().clear()
