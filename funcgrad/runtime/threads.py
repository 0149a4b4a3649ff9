"""A thread pool in native code: one loop `lo..hi` at a time, cut into chunks that whoever is free takes next.

Why our own: OpenMP stalls for milliseconds when another process holds a core, and Numba's workqueue aborts
when two Python threads enter it at once. Here

* the caller works too, and chunks are claimed one by one from an atomic counter, so a worker that loses its
  core delays one chunk and nothing else;
* a second thread that finds the pool taken runs its loop by itself: nobody waits for the pool, nothing can
  lock up;
* a chunk is a slice of the outermost axis, and its bounds are multiples of 64 where it is long, so vector
  bodies and remainders fall where they would in one thread: results do not depend on the number of threads;
* a worker that wakes up on the caller's own CPU, where Linux likes to put it and may leave it for seconds,
  moves to another one before it takes work (that is, its affinity is narrowed for an instant, not for good);
* workers spin for some tens of microseconds after a loop and then sleep; they never hold the GIL and know no
  Python;
* they are stopped before a fork (of which a child keeps only the calling thread) and at exit, and started
  again by the next parallel loop.

The pool is a block of 64-bit words. A loop is published by writing its description and then OPEN; a worker
first adds itself to ACTIVE and then reads OPEN, the caller first clears OPEN and then waits for ACTIVE to
fall to zero: so no worker can read a description that is no longer, or not yet, valid. SLEEPERS/EPOCH and
WAITING/ACTIVE are the same two-sided handshake, for the two ways of falling asleep. All of it is sequentially
consistent.

    FUNCGRAD_NUM_THREADS   how many threads work on one loop, the caller included (default: the CPUs we may use, by
                           affinity and by the quota of our control group)
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from funcgrad.runtime.compile import core_function

__all__ = ["available_cpus", "cgroup_cpus", "get_num_threads", "pool_cell", "set_num_threads", "start", "stop"]

MAX_THREADS = 512
_SPIN = 2000  # about 40 us of `pause`

# Words of the pool, in bytes; what different threads write lies on different cache lines.
_BUSY, _EPOCH, _NEXT, _ACTIVE, _OPEN = 0, 64, 128, 192, 256
_FN, _SLOTS, _INTS, _EXTENT, _CHUNK = 320, 328, 336, 344, 352
_SLEEPERS, _WAITING, _INDEX = 384, 448, 512
_LIMIT, _STOP = 576, 584
_LOCK, _UNLOCK, _WAIT, _WAKE, _CLAIM_FN = 640, 648, 656, 664, 672
_GETCPU, _SETAFFINITY, _CALLER_CPU = 680, 688, 360
_MUTEX, _WORK, _DONE, _SIZE = 704, 832, 960, 1088
_MASK_BYTES = 128  # a set of CPUs; behind the pool lie the process's own one, and one for each worker to work out

_PTHREAD = {
    _LOCK: "pthread_mutex_lock",
    _UNLOCK: "pthread_mutex_unlock",
    _WAIT: "pthread_cond_wait",
    _WAKE: "pthread_cond_broadcast",
}

_CLAIM = f"""
def claim(pool):
    fn = load(pool + {_FN})
    slots = load(pool + {_SLOTS})
    ints = load(pool + {_INTS})
    extent = load(pool + {_EXTENT})
    chunk = load(pool + {_CHUNK})
    while True:
        lo = atomic_add(pool + {_NEXT}, chunk)
        if lo >= extent:
            return 0
        call_kernel(fn, slots, ints, lo, min(lo + chunk, extent))
"""

_PARALLEL_FOR = f"""
def parallel_for(pool, fn, slots, ints, extent, grain):
    threads = load(pool + {_LIMIT})
    if threads < 2 or atomic_swap_if(pool + {_BUSY}, 0, 1) == 0:
        call_kernel(fn, slots, ints, 0, extent)
        return 0
    chunk = max(grain, (extent + 8 * threads - 1) // (8 * threads))
    if chunk > 64:
        chunk = (chunk + 63) // 64 * 64
    store(pool + {_FN}, fn)
    store(pool + {_SLOTS}, slots)
    store(pool + {_INTS}, ints)
    store(pool + {_EXTENT}, extent)
    store(pool + {_CHUNK}, chunk)
    if load(pool + {_GETCPU}) != 0:
        store(pool + {_CALLER_CPU}, call0(load(pool + {_GETCPU})) & {8 * _MASK_BYTES - 1})
    atomic_store(pool + {_NEXT}, 0)
    atomic_store(pool + {_OPEN}, 1)
    atomic_add(pool + {_EPOCH}, 1)
    if atomic_load(pool + {_SLEEPERS}) > 0:
        call1(load(pool + {_LOCK}), pool + {_MUTEX})
        call1(load(pool + {_WAKE}), pool + {_WORK})
        call1(load(pool + {_UNLOCK}), pool + {_MUTEX})
    call1(load(pool + {_CLAIM_FN}), pool)
    atomic_store(pool + {_OPEN}, 0)
    spins = 0
    while atomic_load(pool + {_ACTIVE}) != 0:
        if spins < {_SPIN}:
            spins += 1
            pause()
        else:
            call1(load(pool + {_LOCK}), pool + {_MUTEX})
            atomic_store(pool + {_WAITING}, 1)
            while atomic_load(pool + {_ACTIVE}) != 0:
                call2(load(pool + {_WAIT}), pool + {_DONE}, pool + {_MUTEX})
            atomic_store(pool + {_WAITING}, 0)
            call1(load(pool + {_UNLOCK}), pool + {_MUTEX})
    atomic_store(pool + {_BUSY}, 0)
    return 1
"""

_WORKER = f"""
def worker(pool):
    index = atomic_add(pool + {_INDEX}, 1) + 1
    seen = 0
    mask = pool + {_SIZE} + index * {_MASK_BYTES}
    while True:
        spins = 0
        while atomic_load(pool + {_EPOCH}) == seen and atomic_load(pool + {_STOP}) == 0:
            if spins < {_SPIN}:
                spins += 1
                pause()
            else:
                call1(load(pool + {_LOCK}), pool + {_MUTEX})
                atomic_add(pool + {_SLEEPERS}, 1)
                while atomic_load(pool + {_EPOCH}) == seen and atomic_load(pool + {_STOP}) == 0:
                    call2(load(pool + {_WAIT}), pool + {_WORK}, pool + {_MUTEX})
                atomic_add(pool + {_SLEEPERS}, -1)
                call1(load(pool + {_UNLOCK}), pool + {_MUTEX})
        if atomic_load(pool + {_STOP}) != 0:
            return 0
        seen = atomic_load(pool + {_EPOCH})
        if index < load(pool + {_LIMIT}):
            if load(pool + {_GETCPU}) != 0:
                cpu = call0(load(pool + {_GETCPU})) & {8 * _MASK_BYTES - 1}
                if cpu == load(pool + {_CALLER_CPU}):
                    for at in range(0, {_MASK_BYTES}, 8):
                        store(mask + at, load(pool + {_SIZE} + at))
                    word = mask + cpu // 64 * 8
                    store(word, load(word) & ~(1 << cpu % 64))
                    call3(load(pool + {_SETAFFINITY}), 0, {_MASK_BYTES}, mask)
                    call3(load(pool + {_SETAFFINITY}), 0, {_MASK_BYTES}, pool + {_SIZE})
            atomic_add(pool + {_ACTIVE}, 1)
            if atomic_load(pool + {_OPEN}) != 0:
                call1(load(pool + {_CLAIM_FN}), pool)
            if atomic_add(pool + {_ACTIVE}, -1) == 1 and atomic_load(pool + {_WAITING}) != 0:
                call1(load(pool + {_LOCK}), pool + {_MUTEX})
                call1(load(pool + {_WAKE}), pool + {_DONE})
                call1(load(pool + {_UNLOCK}), pool + {_MUTEX})
"""


_claim_address = core_function(_CLAIM, "claim", 1)
_parallel_for_address = core_function(_PARALLEL_FOR, "parallel_for", 6)
_worker_address = core_function(_WORKER, "worker", 1)


# -- how many


_CGROUPS = Path("/sys/fs/cgroup")


def cgroup_cpus(root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> float:
    """The CPU quota of our control group and of those around it, in CPUs; infinite where there is none.

    Version 2 has one tree below ``root``, version 1 one for each set of controllers. In a container the path that
    ``membership`` names is often that of the host, and what we see of the tree begins further down: so the root, too,
    is asked, and files that are not there set no limit.
    """
    limits = [float("inf")]
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            limits += [_quota_v2(folder) for folder in _upwards(root, path)]
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                limits += [_quota_v1(folder) for folder in _upwards(root / name, path)]
    limits += [_quota_v2(root), _quota_v1(root / "cpu")]
    return min(limits)


def _upwards(root: Path, path: str) -> list[Path]:
    """The folder of a control group, and those around it up to ``root``."""
    parts = [p for p in path.split("/") if p not in ("", "..")]
    return [root.joinpath(*parts[:n]) for n in range(len(parts), -1, -1)]


def _quota_v2(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")


def _quota_v1(folder: Path) -> float:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else float("inf")
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")


def available_cpus() -> int:
    """The CPUs this process may use: its affinity, and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, int(min(cpus, cgroup_cpus())))


def _initial() -> int:
    text = os.environ.get("FUNCGRAD_NUM_THREADS", "").strip()
    if not text:
        return min(available_cpus(), MAX_THREADS)
    if not text.isdecimal() or not 1 <= int(text) <= MAX_THREADS:
        raise ValueError(f"FUNCGRAD_NUM_THREADS must be an integer from 1 to {MAX_THREADS}, not {text!r}")
    return int(text)


def get_num_threads() -> int:
    """How many threads work on one parallel loop, the calling one included.

    By default the CPUs that this process may use; the environment's `FUNCGRAD_NUM_THREADS` says otherwise. Raises
    ValueError if that is not an integer from 1 to 512.
    """
    global _num_threads
    if _num_threads == 0:
        _num_threads = _initial()
    return _num_threads


def set_num_threads(n: int) -> None:
    """Let `n` threads work on one parallel loop, the calling one included; 1 starts none.

    Results do not depend on it, bit for bit. Raises ValueError unless `n` is an integer from 1 to 512.

    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    global _num_threads
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= MAX_THREADS:
        raise ValueError(f"set_num_threads: n must be an integer from 1 to {MAX_THREADS}, not {n!r}")
    with _lock:
        _num_threads = int(n)
        if pool_cell[0] and n - 1 > len(_workers):
            _stop()
        elif pool_cell[0]:
            _pools[-1][_LIMIT // 8] = n


# -- the pool


def _libc() -> Any | None:
    """The C library with its threads, or None where they are not POSIX ones (loops then run serially)."""
    if os.name != "posix":
        return None
    libc = ctypes.CDLL(None)
    needed = ("pthread_create", "pthread_join", "pthread_mutex_init", "pthread_cond_init", *_PTHREAD.values())
    return libc if all(hasattr(libc, name) for name in needed) else None


_lock = threading.RLock()
_num_threads = 0
_workers: list[Any] = []
_pools: list[np.ndarray] = []  # a stopped pool is kept: another thread may be in the midst of a loop of it
pool_cell = np.zeros(2, np.int64)
"""Address of the running pool and of its `parallel_for`; zeros while no worker runs. The executor reads
it."""


def _immortal_words(nbytes: int) -> np.ndarray:
    """Zeroed int64 words on a cache line, which outlive the interpreter's own end."""
    words = np.zeros(nbytes // 8 + 8, np.int64)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(words))
    return words[(-words.ctypes.data % 64) // 8 :]


def start() -> None:
    """Make sure that the workers run (a no-op if they do, or if one thread is all that was asked for)."""
    if pool_cell[0]:
        return
    with _lock:
        if not pool_cell[0] and get_num_threads() > 1:
            _start(get_num_threads() - 1)


def stop() -> None:
    """End the workers and wait for that; the next parallel loop starts new ones."""
    with _lock:
        _stop()


def _start(count: int) -> None:
    libc = _libc()
    if libc is None:
        return
    claim, parallel_for, worker = _claim_address(), _parallel_for_address(), _worker_address()
    words = _immortal_words(_SIZE + (count + 1) * _MASK_BYTES)
    _pools.append(words)
    address = words.ctypes.data
    for word, name in _PTHREAD.items():
        words[word // 8] = ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0
    words[_CLAIM_FN // 8] = claim
    if sys.platform == "linux":
        words[_GETCPU // 8] = ctypes.cast(libc.sched_getcpu, ctypes.c_void_p).value or 0
        words[_SETAFFINITY // 8] = ctypes.cast(libc.sched_setaffinity, ctypes.c_void_p).value or 0
        allowed = words[_SIZE // 8 : (_SIZE + _MASK_BYTES) // 8].view(np.uint64)
        for cpu in os.sched_getaffinity(0):
            allowed[cpu // 64 % len(allowed)] |= np.uint64(1 << cpu % 64)
    libc.pthread_mutex_init(ctypes.c_void_p(address + _MUTEX), None)
    libc.pthread_cond_init(ctypes.c_void_p(address + _WORK), None)
    libc.pthread_cond_init(ctypes.c_void_p(address + _DONE), None)
    try:
        for _ in range(count):
            thread = ctypes.c_void_p()
            entry, argument = ctypes.c_void_p(worker), ctypes.c_void_p(address)
            if libc.pthread_create(ctypes.byref(thread), None, entry, argument):
                break  # the system allows no more threads: work with those we have
            _workers.append(thread)
        words[_LIMIT // 8] = len(_workers) + 1
    finally:  # an interrupt must not leave workers that nobody can stop
        pool_cell[1] = parallel_for
        pool_cell[0] = address


def _stop() -> None:
    libc = _libc()
    if libc is None or not pool_cell[0]:
        return
    pool_cell[0] = 0
    words = _pools[-1]
    words[_STOP // 8] = 1
    address = words.ctypes.data
    libc.pthread_mutex_lock(ctypes.c_void_p(address + _MUTEX))
    libc.pthread_cond_broadcast(ctypes.c_void_p(address + _WORK))
    libc.pthread_mutex_unlock(ctypes.c_void_p(address + _MUTEX))
    for thread in _workers:
        libc.pthread_join(thread, None)
    _workers.clear()


def _after_fork_in_child() -> None:
    pool_cell[:] = 0
    _workers.clear()
    _lock.release()


def _before_fork() -> None:
    _lock.acquire()
    _stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_after_fork_in_child)
atexit.register(stop)
