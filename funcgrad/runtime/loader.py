"""Object files of kernels, loaded without LLVM: a kernel that lies in the cache needs no compiler.

LLVM's own loader comes with 180 MB of library, which takes 20 ms and 75 MB of memory to begin with. What it does for a
kernel is little: put the sections into memory, write addresses into the code, and make it executable. On x86-64 under
Linux our objects ask for one kind of relocation, the absolute address of a symbol, which may be in another section or
in the C library.

Whatever else an object may hold, another format or processor, another relocation, writable data, a symbol that nobody
has: then the answer is None, and LLVM loads it.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

__all__ = ["load_object"]

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QQq")
_IDENTITY: Final = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
_RELOCATABLE, _X86_64 = 1, 62
_PROGBITS, _SYMTAB, _RELA, _NOBITS, _REL = 1, 2, 4, 8, 9
_WRITE, _ALLOC, _TLS = 1, 2, 0x400
_ABSOLUTE_64: Final = 1
_UNDEFINED: Final = 0
_MOST_BYTES: Final = 1 << 28  # more is no kernel but a damaged number
_DATA_OR_CODE: Final = (0, 1, 2, 3)  # types of symbols: none, object, function, section


class _UnknownError(Exception):
    """Something that is left to LLVM."""


class _Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


def load_object(obj: bytes, symbols: Sequence[str]) -> tuple[int, ...] | None:
    """Load an object file into the process, for good, and return the addresses of these symbols of it.

    None: this is not an object that is understood here.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        return _load(obj, symbols)
    except (_UnknownError, struct.error, IndexError, ValueError):
        return None


def _load(obj: bytes, wanted: Sequence[str]) -> tuple[int, ...]:
    sections = _sections(obj)
    offsets, size = _places(sections)
    image = bytearray(size)
    for k, at in offsets.items():
        section = sections[k]
        if section.type == _PROGBITS:
            _check(section.offset + section.size <= len(obj))
            image[at : at + section.size] = obj[section.offset : section.offset + section.size]
    base = _memory(size)
    try:
        found = _relocate(obj, sections, offsets, image, base)
        _check(all([name in found for name in wanted]))
        ctypes.memmove(base, bytes(image), size)
        _check(_libc().mprotect(base, size, mmap.PROT_READ | mmap.PROT_EXEC) == 0)
    except BaseException:
        _libc().munmap(base, size)
        raise
    return tuple([found[name] for name in wanted])


def _check(condition: bool) -> None:
    if not condition:
        raise _UnknownError


def _sections(obj: bytes) -> list[_Section]:
    identity, kind, machine, _, _, _, start, _, _, _, _, entry, count, _ = _HEADER.unpack_from(obj)
    _check(identity.startswith(_IDENTITY) and kind == _RELOCATABLE and machine == _X86_64 and entry == _SECTION.size)
    return [_Section(*_SECTION.unpack_from(obj, start + k * entry)) for k in range(count)]


def _places(sections: Sequence[_Section]) -> tuple[dict[int, int], int]:
    """Where each section goes that is needed at run time, and the size of all, in whole pages."""
    offsets: dict[int, int] = {}
    at = 0
    for k, section in enumerate(sections):
        _check(section.type != _REL and not section.flags & _TLS)
        if section.flags & _ALLOC and section.size:
            _check(section.type in (_PROGBITS, _NOBITS) and not section.flags & _WRITE)
            alignment = max(section.alignment, 1)
            _check(alignment <= mmap.PAGESIZE)
            at = -(-at // alignment) * alignment
            offsets[k] = at
            at += section.size
    _check(0 < at <= _MOST_BYTES)
    return offsets, -(-at // mmap.PAGESIZE) * mmap.PAGESIZE


def _relocate(
    obj: bytes, sections: Sequence[_Section], offsets: dict[int, int], image: bytearray, base: int
) -> dict[str, int]:
    """Write the addresses of symbols into the image; the addresses of those that the object defines by name."""
    (table,) = [s for s in sections if s.type == _SYMTAB]
    names = sections[table.link].offset
    addresses: list[int] = []
    undefined: dict[int, str] = {}
    found: dict[str, int] = {}
    for at in range(table.offset, table.offset + table.size, _SYMBOL.size):
        name_at, info, _, section, value, _ = _SYMBOL.unpack_from(obj, at)
        known = section in offsets and info & 15 in _DATA_OR_CODE
        address = base + offsets[section] + value if known else 0
        addresses.append(address)
        name = obj[names + name_at : obj.index(b"\0", names + name_at)].decode("ascii")
        if section == _UNDEFINED:
            undefined[len(addresses) - 1] = name
        elif known and info >> 4:  # not local
            found[name] = address
    for relocations in [s for s in sections if s.type == _RELA]:
        if relocations.info not in offsets:
            continue  # of debugging sections
        first, size = offsets[relocations.info], sections[relocations.info].size
        for at in range(relocations.offset, relocations.offset + relocations.size, _RELOCATION.size):
            place, info, addend = _RELOCATION.unpack_from(obj, at)
            number = info >> 32
            _check(info & 0xFFFFFFFF == _ABSOLUTE_64 and place + 8 <= size)
            address = addresses[number] if number not in undefined else _outside(undefined[number])
            _check(address > 0)
            struct.pack_into("<Q", image, first + place, (address + addend) % 2**64)
    return found


# the system -----------------------------------------------------------------------------------------------------


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc


def _memory(size: int) -> int:
    """Fresh pages. They are never given back: a thread may be inside a kernel until the process ends."""
    protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    base = _libc().mmap(None, size, protection, flags, -1, 0)
    _check(base not in (None, ctypes.c_void_p(-1).value))
    return int(base)


@cache
def _outside(name: str) -> int:
    """The address of a function of the C library or its mathematics."""
    for library in (None, "libm.so.6"):
        try:
            address = ctypes.cast(ctypes.CDLL(library)[name], ctypes.c_void_p).value
        except (AttributeError, OSError):
            continue
        if address:
            return address
    raise _UnknownError
