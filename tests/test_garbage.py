"""While a program is compiled Python's collector comes rarely; before and after, it is as the user has set it."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.garbage import YOUNG, rarely_collected


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    saved = gc.get_threshold()
    gc.set_threshold(700, 11, 12)
    yield
    gc.set_threshold(*saved)


def test_the_users_thresholds_come_back() -> None:
    with rarely_collected:
        assert gc.get_threshold() == (YOUNG, 11, 12)
        with rarely_collected:
            assert gc.get_threshold() == (YOUNG, 11, 12)
        assert gc.get_threshold() == (YOUNG, 11, 12)
    assert gc.get_threshold() == (700, 11, 12)
    with pytest.raises(ZeroDivisionError), rarely_collected:
        1 / 0
    assert gc.get_threshold() == (700, 11, 12)


@pytest.mark.parametrize("young", [0, 2 * YOUNG])
def test_who_collects_as_rarely_is_left_alone(young: int) -> None:
    gc.set_threshold(young)
    with rarely_collected:
        assert gc.get_threshold()[0] == young
    assert gc.get_threshold()[0] == young


def test_what_the_traced_function_sets_stays() -> None:
    @fg.jit
    def f(x: np.ndarray) -> np.ndarray:
        gc.set_threshold(123, 4, 5)
        return x + 1

    f(np.ones(3))
    assert gc.get_threshold() == (123, 4, 5)


def test_threads_leave_in_any_order() -> None:
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with rarely_collected:
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=stay)
    with rarely_collected:
        other.start()
        assert inside.wait(10)
    assert gc.get_threshold() == (YOUNG, 11, 12), "the other thread is still at it"
    leave.set()
    other.join()
    assert gc.get_threshold() == (700, 11, 12)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning", "ignore:os.fork:RuntimeWarning")
def test_a_child_forked_inside_is_as_the_user_has_set_it() -> None:
    with rarely_collected:
        child = os.fork()
        if child == 0:
            fine = gc.get_threshold() == (700, 11, 12)
            with rarely_collected:
                fine &= gc.get_threshold() == (YOUNG, 11, 12)
            os._exit(0 if fine and gc.get_threshold() == (700, 11, 12) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_no_collection_comes_between() -> None:
    """A trace of two hundred operations makes some ten thousand objects; the collector would come every 700."""
    runs: list[int] = []

    @fg.jit
    def f(x: np.ndarray) -> np.ndarray:
        gc.callbacks.append(count)
        for _ in range(200):
            x = np.sin(x) + x
        return x

    def count(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            runs.append(gc.get_threshold()[0])

    try:
        f(np.ones(3))
    finally:
        while count in gc.callbacks:
            gc.callbacks.remove(count)
    assert YOUNG not in runs
