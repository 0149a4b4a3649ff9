"""A team of threads in native code: one loop `lo..hi` at a time, cut into chunks that whoever is free takes next.

Why our own: OpenMP stalls for milliseconds when another process holds a core, and Numba's workqueue aborts
when two Python threads enter it at once. Here

* the caller works too, and chunks are claimed one by one, so a worker that loses its core delays one chunk and nothing
  else. Each thread begins with a share of its own, the same one in every loop of that length, whose data its cache
  may still hold, and then helps with the others';
* workers that sleep are woken for a long loop, or when the caller has been working alone for some tens of microseconds
  with little in between: a short loop now and then would be done before they are up;
* a worker that has lost its core in the midst of a chunk gets the caller's: when there is nothing left to claim, the
  caller looks whether each busy worker's CPU time moves, and if one's does not, puts it onto the CPU on which it
  itself is about to sleep (the scheduler would let it wait for the end of the other process's time, 4 ms);
* a second thread that finds the pool taken runs its loop by itself: nobody waits for the pool, nothing can
  lock up;
* a chunk is a slice of the outermost axis, and its bounds are multiples of 64 where it is long, so vector
  bodies and remainders fall where they would in one thread: results do not depend on the number of threads;
* a worker that wakes up on the caller's own CPU, where Linux likes to put it and may leave it for seconds,
  moves to another one before it takes work (that is, its affinity is narrowed for an instant, not for good);
* workers spin for some tens of microseconds after a loop and then sleep; they never hold the GIL and know no
  Python.

The pool is a block of 64-bit words. A loop is published by writing its description and then OPEN; a worker
first adds itself to ACTIVE and then reads OPEN, the caller first clears OPEN and then waits for ACTIVE to
fall to zero: so no worker can read a description that is no longer, or not yet, valid. SLEEPERS/EPOCH and
WAITING/ACTIVE are the same two-sided handshake, for the two ways of falling asleep. All of it is sequentially
consistent.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import numpy as np

from funcgrad.runtime.compile import core_function

__all__ = ["Pool", "posix_threads"]

_SPIN = 2000  # about 40 us of `pause`
_LOOK = 500  # about 10 us between two looks at a thread's CPU time
_NAP = 500_000  # ns between two such pairs of looks
_MOST_SHARES = 16
_WORTH_WAKING = 20  # grains of a loop that workers are woken for at once
_ALONE_AT_MOST = 65_000  # cycles, about 25 us, that a caller works alone before it wakes anybody
_GAP = 100_000  # cycles, about 40 us, between two loops after which it begins to count again

# Words of the pool, in bytes; what different threads write lies on different cache lines.
_BUSY, _EPOCH, _ACTIVE, _OPEN = 0, 64, 192, 256
_FN, _SLOTS, _INTS, _CHUNK, _SHARES, _CALLER_CPU, _ALONE, _ENDED = 320, 328, 336, 344, 352, 360, 368, 376
_SLEEPERS, _WAITING, _INDEX = 384, 448, 512
_LIMIT, _STOP, _HANDED_OVER = 576, 584, 592
_LOCK, _UNLOCK, _WAIT, _TIMED_WAIT, _WAKE = 640, 648, 656, 664, 672
_GETCPU, _SETAFFINITY, _GETTID, _GETTIME, _CLAIM_FN, _HAND_OVER_FN = 680, 688, 696, 704, 712, 720
_MUTEX, _WORK, _DONE = 768, 896, 1024
_TIME, _TARGET, _ALLOWED, _NEXT = 1152, 1216, 1344, 1472
_SIZE = _NEXT + 64 * _MOST_SHARES
# Of each worker, behind the pool: a set of CPUs to work out, its thread's number, whether it is in a loop.
_CPUS, _TID, _WORKING, _WORKER_SIZE = 0, 128, 192, 256
_MASK_BYTES = 128  # a set of CPUs: `_TARGET` and `_ALLOWED`, the process's own one, are others

_PTHREAD = {
    _LOCK: "pthread_mutex_lock",
    _UNLOCK: "pthread_mutex_unlock",
    _WAIT: "pthread_cond_wait",
    _TIMED_WAIT: "pthread_cond_timedwait",
    _WAKE: "pthread_cond_broadcast",
}
_LINUX = {_GETCPU: "sched_getcpu", _SETAFFINITY: "sched_setaffinity", _GETTID: "gettid", _GETTIME: "clock_gettime"}

_CLAIM = f"""
def claim(pool, index):
    fn = load(pool + {_FN})
    slots = load(pool + {_SLOTS})
    ints = load(pool + {_INTS})
    chunk = load(pool + {_CHUNK})
    shares = load(pool + {_SHARES})
    for k in range(shares):
        at = (index + k) % shares
        next = pool + {_NEXT} + 64 * at
        end = load(next + 8)
        lo = atomic_load(next)
        while lo < end:
            lo = atomic_add(next, chunk)
            if lo < end:
                call_kernel(fn, slots, ints, lo, min(lo + chunk, end))
    return 0
"""

# The clock of a thread's CPU time has the number that Linux makes of the thread's: it stands still while the thread
# does not run, and is an error when there is no such thread.
_HAND_OVER = f"""
def hand_over(pool):
    if load(pool + {_GETTID}) == 0:
        return 0
    gettime = load(pool + {_GETTIME})
    now = pool + {_TIME}
    for index in range(1, load(pool + {_LIMIT})):
        worker = pool + {_SIZE} + index * {_WORKER_SIZE}
        if atomic_load(worker + {_WORKING}) != 0:
            tid = load(worker + {_TID})
            clock = ~tid << 3 | 6
            failed = call2(gettime, clock, now) & {0xFFFFFFFF}
            before = load(now) * 1000000000 + load(now + 8)
            for _ in range({_LOOK}):
                pause()
            failed = failed | call2(gettime, clock, now) & {0xFFFFFFFF}
            if failed == 0 and load(now) * 1000000000 + load(now + 8) == before:
                cpu = call0(load(pool + {_GETCPU})) & {8 * _MASK_BYTES - 1}
                for at in range(0, {_MASK_BYTES}, 8):
                    store(pool + {_TARGET} + at, 0)
                store(pool + {_TARGET} + cpu // 64 * 8, 1 << cpu % 64)
                call3(load(pool + {_SETAFFINITY}), tid, {_MASK_BYTES}, pool + {_TARGET})
                call3(load(pool + {_SETAFFINITY}), tid, {_MASK_BYTES}, pool + {_ALLOWED})
                store(pool + {_HANDED_OVER}, load(pool + {_HANDED_OVER}) + 1)
                return 1
    return 0
"""

_PARALLEL_FOR = f"""
def parallel_for(pool, fn, slots, ints, extent, grain):
    threads = load(pool + {_LIMIT})
    if threads < 2 or atomic_swap_if(pool + {_BUSY}, 0, 1) == 0:
        call_kernel(fn, slots, ints, 0, extent)
        return 0
    chunks = min(8 * threads, max(2, extent // grain))
    if chunks > threads:
        chunks = chunks // threads * threads
    chunk = (extent + chunks - 1) // chunks
    if chunk > 64:
        chunk = (chunk + 63) // 64 * 64
    first = 0
    if grain > 1 and extent < {_WORTH_WAKING} * grain and atomic_load(pool + {_SLEEPERS}) == load(pool + {_INDEX}):
        now = cycles()
        alone = 0 if now - load(pool + {_ENDED}) > {_GAP} else load(pool + {_ALONE})
        while first < extent and alone < {_ALONE_AT_MOST}:
            call_kernel(fn, slots, ints, first, min(first + chunk, extent))
            first += chunk
            before = now
            now = cycles()
            alone += now - before
        store(pool + {_ENDED}, now)
        store(pool + {_ALONE}, alone)
        if first >= extent:
            atomic_store(pool + {_BUSY}, 0)
            return 0
        store(pool + {_ALONE}, 0)
    store(pool + {_FN}, fn)
    store(pool + {_SLOTS}, slots)
    store(pool + {_INTS}, ints)
    store(pool + {_CHUNK}, chunk)
    shares = min(threads, {_MOST_SHARES})
    share = ((extent - first + chunk - 1) // chunk + shares - 1) // shares * chunk
    store(pool + {_SHARES}, shares)
    for at in range(shares):
        store(pool + {_NEXT} + 64 * at, first + at * share)
        store(pool + {_NEXT} + 64 * at + 8, min(first + (at + 1) * share, extent))
    if load(pool + {_GETCPU}) != 0:
        store(pool + {_CALLER_CPU}, call0(load(pool + {_GETCPU})) & {8 * _MASK_BYTES - 1})
    atomic_store(pool + {_OPEN}, 1)
    atomic_add(pool + {_EPOCH}, 1)
    if atomic_load(pool + {_SLEEPERS}) > 0:
        call1(load(pool + {_LOCK}), pool + {_MUTEX})
        call1(load(pool + {_WAKE}), pool + {_WORK})
        call1(load(pool + {_UNLOCK}), pool + {_MUTEX})
    call2(load(pool + {_CLAIM_FN}), pool, 0)
    atomic_store(pool + {_OPEN}, 0)
    spins = 0
    while atomic_load(pool + {_ACTIVE}) != 0:
        if spins < {_SPIN}:
            spins += 1
            pause()
        else:
            call1(load(pool + {_HAND_OVER_FN}), pool)
            call1(load(pool + {_LOCK}), pool + {_MUTEX})
            atomic_store(pool + {_WAITING}, 1)
            if load(pool + {_GETTID}) == 0:
                while atomic_load(pool + {_ACTIVE}) != 0:
                    call2(load(pool + {_WAIT}), pool + {_DONE}, pool + {_MUTEX})
            elif atomic_load(pool + {_ACTIVE}) != 0:
                call2(load(pool + {_GETTIME}), 0, pool + {_TIME})
                then = load(pool + {_TIME} + 8) + {_NAP}
                store(pool + {_TIME}, load(pool + {_TIME}) + then // 1000000000)
                store(pool + {_TIME} + 8, then % 1000000000)
                call3(load(pool + {_TIMED_WAIT}), pool + {_DONE}, pool + {_MUTEX}, pool + {_TIME})
            atomic_store(pool + {_WAITING}, 0)
            call1(load(pool + {_UNLOCK}), pool + {_MUTEX})
    atomic_store(pool + {_BUSY}, 0)
    return 1
"""

_WORKER = f"""
def worker(pool):
    index = atomic_add(pool + {_INDEX}, 1) + 1
    seen = 0
    me = pool + {_SIZE} + index * {_WORKER_SIZE}
    mask = me + {_CPUS}
    if load(pool + {_GETTID}) != 0:
        store(me + {_TID}, call0(load(pool + {_GETTID})) & {0xFFFFFFFF})
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
                        store(mask + at, load(pool + {_ALLOWED} + at))
                    word = mask + cpu // 64 * 8
                    store(word, load(word) & ~(1 << cpu % 64))
                    call3(load(pool + {_SETAFFINITY}), 0, {_MASK_BYTES}, mask)
                    call3(load(pool + {_SETAFFINITY}), 0, {_MASK_BYTES}, pool + {_ALLOWED})
            atomic_store(me + {_WORKING}, 1)
            atomic_add(pool + {_ACTIVE}, 1)
            if atomic_load(pool + {_OPEN}) != 0:
                call2(load(pool + {_CLAIM_FN}), pool, index)
            atomic_store(me + {_WORKING}, 0)
            if atomic_add(pool + {_ACTIVE}, -1) == 1 and atomic_load(pool + {_WAITING}) != 0:
                call1(load(pool + {_LOCK}), pool + {_MUTEX})
                call1(load(pool + {_WAKE}), pool + {_DONE})
                call1(load(pool + {_UNLOCK}), pool + {_MUTEX})
"""


_claim_address = core_function(_CLAIM, "claim", 2)
_hand_over_address = core_function(_HAND_OVER, "hand_over", 1)
_parallel_for_address = core_function(_PARALLEL_FOR, "parallel_for", 6)
_worker_address = core_function(_WORKER, "worker", 1)


def posix_threads() -> Any | None:
    """The C library with its threads, or None where they are not POSIX ones (loops then run serially)."""
    if os.name != "posix":
        return None
    libc = ctypes.CDLL(None)
    needed = ("pthread_create", "pthread_join", "pthread_mutex_init", "pthread_cond_init", *_PTHREAD.values())
    return libc if all(hasattr(libc, name) for name in needed) else None


class Pool:
    """A pool of native threads; none of which runs before `start`.

    Its words outlive the interpreter's own end, as the threads may.
    """

    def __init__(self, libc: Any, most_workers: int) -> None:
        self.words = _immortal_words(_SIZE + (most_workers + 1) * _WORKER_SIZE)
        self.address: int = self.words.ctypes.data
        self.parallel_for = _parallel_for_address()
        self._libc, self._threads = libc, list[Any]()
        self._worker = _worker_address()
        self[_CLAIM_FN], self[_HAND_OVER_FN] = _claim_address(), _hand_over_address()
        for word, name in _PTHREAD.items():
            self[word] = _address_of(libc, name)
        if sys.platform == "linux":
            self._know_the_cpus()
        libc.pthread_mutex_init(ctypes.c_void_p(self.address + _MUTEX), None)
        for condition in (_WORK, _DONE):
            libc.pthread_cond_init(ctypes.c_void_p(self.address + condition), None)

    def __getitem__(self, word: int) -> int:
        return int(self.words[word // 8])

    def __setitem__(self, word: int, value: int) -> None:
        self.words[word // 8] = value

    def _know_the_cpus(self) -> None:
        found = {word: _address_of(self._libc, name) for word, name in _LINUX.items()}
        if not all(found.values()):
            found[_GETTID] = 0  # of a C library before 2020: a worker that has lost its core waits for it
        for word, address in found.items():
            self[word] = address
        allowed = self.words[_ALLOWED // 8 : (_ALLOWED + _MASK_BYTES) // 8].view(np.uint64)
        for cpu in os.sched_getaffinity(0):
            allowed[cpu // 64 % len(allowed)] |= np.uint64(1 << cpu % 64)

    def start(self, count: int) -> None:
        """Begin with this many workers, or with as many as the system allows."""
        for _ in range(count):
            thread = ctypes.c_void_p()
            entry, argument = ctypes.c_void_p(self._worker), ctypes.c_void_p(self.address)
            if self._libc.pthread_create(ctypes.byref(thread), None, entry, argument):
                break
            self._threads.append(thread)
        self.limit = len(self._threads) + 1

    def stop(self) -> None:
        """End the workers and wait for that. The pool stays usable, by the caller alone."""
        self[_STOP] = 1
        self._libc.pthread_mutex_lock(ctypes.c_void_p(self.address + _MUTEX))
        self._libc.pthread_cond_broadcast(ctypes.c_void_p(self.address + _WORK))
        self._libc.pthread_mutex_unlock(ctypes.c_void_p(self.address + _MUTEX))
        for thread in self._threads:
            self._libc.pthread_join(thread, None)
        self._threads.clear()

    @property
    def workers(self) -> int:
        return len(self._threads)

    @property
    def limit(self) -> int:
        """How many threads work on one loop, the caller included: at most one more than there are workers."""
        return self[_LIMIT]

    @limit.setter
    def limit(self, threads: int) -> None:
        self[_LIMIT] = threads

    @property
    def shared(self) -> int:
        """How many loops more than one thread could work on."""
        return self[_EPOCH]

    @property
    def handed_over(self) -> int:
        """How often a caller has given its CPU to a worker that had lost its own."""
        return self[_HANDED_OVER]


def _immortal_words(nbytes: int) -> np.ndarray:
    """Zeroed int64 words on a cache line, which outlive the interpreter's own end."""
    words = np.zeros(nbytes // 8 + 8, np.int64)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(words))
    return words[(-words.ctypes.data % 64) // 8 :]


def _address_of(libc: Any, name: str) -> int:
    """Of a function of the C library; 0 if it has none of this name."""
    return ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0 if hasattr(libc, name) else 0
