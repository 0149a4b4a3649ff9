"""Memory for results: freed memory is used again, because fresh pages cost more than the arithmetic on them.

The first write to each page of a fresh allocation is a page fault: in an 80 MB result these take 7 ms, more
than a fused loop over that memory does. So large arrays are views of blocks that a pool keeps. A block is
free again when nobody but the pool refers to it: an array made with `buffer=block` refers to it as its base,
and so does every view of that array, so the reference count is the whole bookkeeping. Blocks are on cache
lines.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

__all__ = ["RecycledPool", "aligned", "allocator", "empty", "lend", "trim"]

ALIGNMENT = 64
MIN_BYTES = 1 << 20  # below, malloc recycles well enough by itself, and faster
MAX_TRACKED_BYTES = 1 << 29
_BLOCKS_PER_SIZE = 16
_BYTES = np.dtype(np.uint8)


def aligned(nbytes: int) -> np.ndarray:
    """Fresh uint8 memory that begins on a cache line."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def _size_class(nbytes: int) -> int:
    """The size rounded up so that there are eight sizes to a power of two: few lists, at most 1/8 unused."""
    step = 1 << max(nbytes.bit_length() - 4, 6)
    return -(-nbytes // step) * step


class RecycledPool:
    """Blocks by size, the ones in use among them. A block is dropped from the pool, not freed, to keep
    bounds."""

    def __init__(self, max_bytes: int = MAX_TRACKED_BYTES) -> None:
        self.max_bytes = max_bytes
        self.tracked_bytes = 0
        self.reused = 0
        self._blocks: dict[int, list[tuple[np.ndarray, int]]] = {}  # with the offset of a cache line
        self._lock = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """An uninitialised array in C order on recycled memory; `shape` and `dtype` give at least one
        byte."""
        return self.take(_size_class(math.prod(shape) * dtype.itemsize), shape, dtype)

    def take(self, size: int, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """`empty` for who has worked out the size class."""
        if size > self.max_bytes:
            block = np.empty(size + ALIGNMENT, np.uint8)
            return np.ndarray(shape, dtype, block, -block.ctypes.data % ALIGNMENT)
        with self._lock:
            block, offset = self._free(size) or self._fresh(size)
            # The base is the block itself, which owns its memory: views of views refer to it as well.
            return np.ndarray(shape, dtype, block, offset)

    def lend(self, nbytes: int) -> np.ndarray:
        """Memory for a moment: any block that is large enough, the smallest of them, before fresh pages."""
        size = _size_class(nbytes)
        if size > self.max_bytes:
            return self.take(size, (nbytes,), _BYTES)
        with self._lock:
            found = self._free(size)
            if found is None:
                larger = sorted([n for n in self._blocks if n > size])
                found = next((x for x in map(self._free, larger) if x is not None), None) or self._fresh(size)
            block, offset = found
            return np.ndarray((nbytes,), _BYTES, block, offset)

    def _free(self, size: int) -> tuple[np.ndarray, int] | None:
        """A block of that size that nobody uses."""
        blocks = self._blocks.get(size, ())
        for i in range(len(blocks)):
            if sys.getrefcount(blocks[i][0]) == _UNUSED:
                self.reused += 1
                return blocks[i]
        return None

    def _fresh(self, size: int) -> tuple[np.ndarray, int]:
        block = np.empty(size + ALIGNMENT, np.uint8)
        offset = -block.ctypes.data % ALIGNMENT
        self._track(size, block, offset)
        return block, offset

    def trim(self) -> None:
        """Forget all blocks: the free ones return to the system, the others when their arrays are gone."""
        with self._lock:
            self._blocks.clear()
            self.tracked_bytes = 0

    def _track(self, size: int, block: np.ndarray, offset: int) -> None:
        while self._blocks and self.tracked_bytes + size > self.max_bytes:
            oldest = next(iter(self._blocks))
            self.tracked_bytes -= oldest
            del self._blocks[oldest][0]
            if not self._blocks[oldest]:
                del self._blocks[oldest]
        blocks = self._blocks.pop(size, [])  # popped and put back: the sizes stay in order of their last use
        if len(blocks) >= _BLOCKS_PER_SIZE:
            del blocks[0]
            self.tracked_bytes -= size
        blocks.append((block, offset))
        self._blocks[size] = blocks
        self.tracked_bytes += size

    def _unlock_in_child(self) -> None:
        self._lock = threading.Lock()


def _unused_count() -> int:
    """What `sys.getrefcount(blocks[i][0])` says of a block that only the pool refers to."""
    blocks = [(np.empty(1, np.uint8), 0)]
    return sys.getrefcount(blocks[0][0])


_UNUSED = _unused_count()
_pool = RecycledPool()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool._unlock_in_child)


def empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """As np.empty, for results: large arrays come from the pool of recycled memory."""
    if math.prod(shape) * dtype.itemsize < MIN_BYTES:
        return np.empty(shape, dtype)
    return _pool.empty(shape, dtype)


def lend(nbytes: int) -> np.ndarray:
    """Memory from the pool that is given back soon, as the arena of a call is: see `RecycledPool.lend`."""
    return _pool.lend(nbytes)


def allocator(shape: Sequence[int], dtype: np.dtype) -> Callable[[], np.ndarray]:
    """`empty` of one shape and dtype, decided beforehand, for a call that makes the same result every
    time."""
    shape, dtype = tuple(shape), np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < MIN_BYTES:
        return partial(np.empty, shape, dtype)
    return partial(_pool.take, _size_class(nbytes), shape, dtype)


def trim() -> None:
    """Give the memory kept for later results back to the system."""
    _pool.trim()
