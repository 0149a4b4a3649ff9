"""What LLVM said of this machine, remembered: kernels are looked up by it, and LLVM would be loaded for that alone.

It is kept beside the kernels, under what tells this machine from others: the processor as Linux describes it, the boot
(the processor behind a disk that several machines share may be another one tomorrow), and the file of the library.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from funcgrad.codegen.llvm import llvm_library

from .cache import default_cache

__all__ = ["is_remembered", "remembered"]

Description = tuple[str, ...]


@cache
def _key() -> str | None:
    """What tells this machine and this LLVM from others; None where the system does not say."""
    library = llvm_library()
    if sys.platform != "linux" or library is None:
        return None
    try:
        status = library.stat()
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        handle = os.open("/proc/cpuinfo", os.O_RDONLY)
        try:
            processors = os.read(handle, 1 << 14)  # of all of a large machine it would take milliseconds
        finally:
            os.close(handle)
    except OSError:
        return None
    first = processors.split(b"\n\n")[0].split(b"\n")
    # clocks and the number of the core that answers change from moment to moment
    lasting = [x for x in first if x.split(b"\t")[0] in (b"vendor_id", b"cpu family", b"model", b"stepping", b"flags")]
    if len(lasting) != 5:
        return None
    parts = (
        os.fsencode(library),
        b"%d %d" % (status.st_size, status.st_mtime_ns),
        boot,
        *lasting,
        sys.version.encode(),
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _recall() -> Description | None:
    key = _key()
    found = default_cache().recall(key) if key is not None else None
    if found is None:
        return None
    try:
        description = tuple(json.loads(found))
    except ValueError:
        return None
    return description if description and all([isinstance(x, str) for x in description]) else None


def is_remembered() -> bool:
    """Whether kernels have been compiled here before, so that they may all be there."""
    return _recall() is not None


def remembered(describe: Callable[[], Description]) -> Description:
    """What ``describe`` gives, which is asked only where it is not known."""
    found = _recall()
    if found is None:
        found = describe()
        key = _key()
        if key is not None:
            default_cache().remember(key, json.dumps(found).encode())
    return found
