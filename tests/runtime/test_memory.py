"""Recycled memory: freed blocks are handed out again, blocks in use never are, and the pool is bounded."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from funcgrad.runtime import memory
from funcgrad.runtime.memory import RecycledPool, allocator, empty

F8 = np.dtype(np.float64)


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_freed_memory_is_used_again() -> None:
    pool = RecycledPool()
    first = pool.empty((1000, 50), F8)
    where = address(first)
    assert where % 64 == 0 and first.flags.c_contiguous and first.flags.writeable
    del first
    again = pool.empty((50, 1000), F8)
    assert address(again) == where
    assert address(pool.empty((1000, 50), F8)) != where


@pytest.mark.parametrize(
    "keep", [lambda a: a[10:], lambda a: a[1:, ::2].T, lambda a: a.ravel()[5:][3:], memoryview, lambda a: [a]]
)
def test_memory_in_use_by_any_view_is_not(keep: object) -> None:
    pool = RecycledPool()
    array = pool.empty((100, 100), F8)
    kept, where = keep(array), address(array)  # type: ignore[operator]
    del array
    assert all(address(pool.empty((100, 100), F8)) != where for _ in range(5))
    del kept
    assert where in {address(pool.empty((100, 100), F8)) for _ in range(5)}


def test_similar_sizes_share_and_different_ones_do_not() -> None:
    pool = RecycledPool()
    where = address(pool.empty((100_000,), F8))
    assert address(pool.empty((100_001,), F8)) == where
    assert address(pool.empty((50_000,), F8)) != where


def test_what_is_lent_lies_in_any_free_block_that_is_large_enough() -> None:
    pool = RecycledPool()
    small, large, larger = (pool.empty((n,), np.dtype(np.uint8)) for n in (100_000, 300_000, 900_000))
    places = [address(x) for x in (small, large, larger)]
    taken = pool.lend(200_000)
    assert address(taken) not in places and taken.nbytes == 200_000, "all are in use"
    del small, large, larger
    lent = [pool.lend(200_000) for _ in range(3)]
    assert [address(x) for x in lent][:2] == places[1:], "the smallest that is large enough, never the one in use"
    assert address(lent[2]) not in (*places, address(taken))
    assert address(pool.empty((300_000,), np.dtype(np.uint8))) not in places, "lent memory is in use"
    del lent
    assert address(pool.lend(1000)) == places[0]


def test_the_pool_is_bounded_and_live_arrays_survive_it() -> None:
    pool = RecycledPool(max_bytes=1 << 20)
    arrays = []
    for i in range(200):
        arrays.append(pool.empty((1000 * (1 + i % 7),), F8))
        arrays[-1][:] = i
        assert pool.tracked_bytes <= 1 << 20
    assert all((array == i).all() for i, array in enumerate(arrays))
    large = pool.empty((1 << 20,), F8)
    assert address(large) % 64 == 0 and pool.tracked_bytes <= 1 << 20, "larger than the pool: not kept"
    pool.trim()
    assert pool.tracked_bytes == 0


def test_threads_never_share_a_block() -> None:
    pool, failures = RecycledPool(), []

    def work(mark: int) -> None:
        for _ in range(500):
            array = pool.empty((10_000,), F8)
            array[:] = mark
            if (array != mark).any():
                failures.append(mark)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures and pool.reused


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (4, 200_000)])
@pytest.mark.parametrize("dtype", ["float64", "complex64", "bool", "int8"])
def test_empty_and_allocator(shape: tuple[int, ...], dtype: str) -> None:
    for array in (empty(shape, np.dtype(dtype)), allocator(shape, np.dtype(dtype))()):
        assert type(array) is np.ndarray and array.shape == shape and array.dtype == dtype
        assert array.flags.c_contiguous and array.flags.writeable


def test_trim() -> None:
    empty((100_000,), F8)
    memory.trim()
    assert memory._pool.tracked_bytes == 0
