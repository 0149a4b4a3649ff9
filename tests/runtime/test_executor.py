"""The native executor: programs of hand-written kernels against NumPy, and all that can go wrong around
them."""

from __future__ import annotations

import ctypes
import os
import threading
import time

import numpy as np
import pytest

from funcgrad.runtime import executor, threads
from funcgrad.runtime.executor import ARRAY, SCALAR, Program, Step
from funcgrad.runtime.host import Operand, host_step
from tests.runtime.native import ADD, MIX, kernel, run_script

COPY_WORD = """
def kernel(slots, ints, lo, hi):
    store(load(slots + 8 * load(ints + 8)), load(load(slots + 8 * load(ints))))
"""

F8 = np.dtype(np.float64)


def two_steps(**options: object) -> Program:
    """y = (x + 5) + 7 through a temporary."""
    address = kernel(ADD).address
    steps = [Step(address, [0, 2, 5], 10), Step(address, [2, 1, 7], 10)]
    return Program(steps, 1, 1, temporaries=[0], arena_bytes=80, **options)


@pytest.mark.parametrize("release_gil", [True, False])
def test_two_steps_and_a_temporary(release_gil: bool) -> None:
    x, y = np.arange(10), np.empty(10, np.int64)
    program = two_steps(release_gil=release_gil)
    for _ in range(3):
        program((x,), (y,))
        np.testing.assert_array_equal(y, x + 12)


def test_constants_and_arenas_of_every_size() -> None:
    constant, y = np.arange(10) * 3, np.empty(10, np.int64)
    address = kernel(ADD).address
    for arena, at in ((80, 0), (4096, 1024), (3 << 20, 2 << 20)):
        program = Program([Step(address, [1, 2, 1], 10), Step(address, [2, 0, 1], 10)], 0, 1, [constant], [at], arena)
        for _ in range(2):
            program((), (y,))
            np.testing.assert_array_equal(y, constant + 2)


def test_arena_is_on_a_cache_line() -> None:
    frame = two_steps().new_frame()
    assert frame[-1] % 64 == 0


SCALARS = [1.25, -0.0, np.float64(2.5), np.float32(1.5), np.int64(-3), np.int32(7), np.bool_(True), 2 - 1j,
           np.complex64(1 + 2j), np.float16(0.5), np.uint8(200)]  # fmt: skip


@pytest.mark.parametrize("value", SCALARS, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("portable", [False, True], ids=["native", "portable"])
def test_scalar_inputs_are_read_in_place(value: object, portable: bool) -> None:
    program = Program([Step(kernel(COPY_WORD).address, [0, 1])], 1, 1, input_kinds=[SCALAR])
    if portable:
        program._entry = executor._portable_entry()
    word = np.zeros(2, np.int64)
    program((value,), (word,))
    expected = np.asarray(value)
    size = min(expected.nbytes, 8)
    assert word.tobytes()[:size] == expected.tobytes()[:size]


def test_the_layout_of_objects_is_the_expected_one() -> None:
    assert executor.layout_holds()


def test_wrong_arguments_are_type_errors() -> None:
    program, x, y = two_steps(), np.arange(10), np.empty(10, np.int64)
    with pytest.raises(TypeError, match="takes 1 inputs and 1 outputs, not 2 and 1"):
        program((x, x), (y,))
    with pytest.raises(TypeError, match=r"input 0 of the program must be an np\.ndarray, not int"):
        program((3,), (y,))
    with pytest.raises(TypeError, match=r"output 0 of the program must be an np\.ndarray, not list"):
        program((x,), ([],))
    program((x,), (y,))
    np.testing.assert_array_equal(y, x + 12)


def test_bad_programs_are_value_errors() -> None:
    with pytest.raises(ValueError, match="input_kinds must hold 2 values"):
        Program([], 2, 0, input_kinds=[ARRAY])
    with pytest.raises(ValueError, match="beyond the arena of 64 bytes"):
        Program([], 0, 0, temporaries=[128], arena_bytes=64)


def test_a_program_runs_without_python_from_a_frame() -> None:
    program, x, y = two_steps(), np.arange(10), np.zeros(10, np.int64)
    frame = program.new_frame()
    frame[8:10] = x.ctypes.data, y.ctypes.data
    run = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_ssize_t)(executor.run_address())
    assert run(frame.ctypes.data) == 0
    np.testing.assert_array_equal(y, x + 12)


def test_one_program_in_many_python_threads() -> None:
    program = two_steps()
    failures: list[object] = []

    def work(seed: int) -> None:
        x, y = np.arange(10) * seed, np.empty(10, np.int64)
        for _ in range(2000):
            program((x,), (y,))
            if not (y == x + 12).all():
                failures.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


# -- host steps


def host_program(function: object, n_in: int = 1, **options: object) -> Program:
    inputs = [Operand(i, (2, 3), F8) for i in range(n_in)]
    return Program([host_step(function, inputs, [Operand(n_in, (2, 3), F8)], **options)], n_in, 1)


def test_host_step_between_native_ones() -> None:
    add = kernel(ADD).address
    i8 = np.dtype(np.int64)
    steps = [
        Step(add, [0, 2, 1], 6),
        host_step(np.sort, [Operand(2, (6,), i8)], [Operand(3, (6,), i8)]),
        Step(add, [3, 1, 1], 6),
    ]
    program = Program(steps, 1, 1, temporaries=[0, 64], arena_bytes=128)
    x, y = np.array([5, 3, 9, -1, 0, 2]), np.empty(6, np.int64)
    program((x,), (y,))
    np.testing.assert_array_equal(y, np.sort(x + 1) + 1)


def test_host_operands_with_strides_offsets_and_no_elements() -> None:
    x, y = np.arange(12.0).reshape(3, 4), np.empty((2, 3))
    flipped = Operand(0, (2, 3), F8, offset=8 * 11, strides=(-8, -32))
    program = Program([host_step(lambda a, e: a + e.size, [flipped, Operand(0, (0, 5), F8)],
                                 [Operand(1, (2, 3), F8)])], 1, 1)  # fmt: skip
    program((x,), (y,))
    np.testing.assert_array_equal(y, x.T[::-1, ::-1][:2])


@pytest.mark.parametrize("portable", [False, True], ids=["native", "portable"])
@pytest.mark.parametrize("release_gil", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_host_errors_reach_the_caller_and_stop_the_program(error: type, release_gil: bool, portable: bool) -> None:
    raised = error("from the host")

    def fail(x: np.ndarray) -> np.ndarray:
        raise raised

    out = np.zeros(3)
    steps = [
        host_step(fail, [Operand(0, (3,), F8)], [Operand(1, (3,), F8)]),
        host_step(np.negative, [Operand(0, (3,), F8)], [Operand(1, (3,), F8)]),
    ]
    program = Program(steps, 1, 1, release_gil=release_gil)
    if portable:
        program._entry = executor._portable_entry()
    with pytest.raises(error) as caught:
        program((np.ones(3),), (out,))
    assert caught.value is raised
    assert any(entry.name == "fail" for entry in caught.traceback)
    assert not out.any(), "the step after the failing one must not run"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[0], r"returned float64\[3\] as result 0 where float64\[2, 3\] was declared"),
        (lambda x: x.astype(np.float32), r"returned float32\[2, 3\] as result 0"),
        (lambda x: (x, x), "returned 2 arrays where 1 were declared"),
    ],
)
def test_host_results_are_checked(function: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        host_program(function)((np.ones((2, 3)),), (np.empty((2, 3)),))


def test_host_inputs_are_read_only_and_copied_on_request() -> None:
    def overwrite(x: np.ndarray) -> np.ndarray:
        x[...] = 0
        return x

    x, y = np.ones((2, 3)), np.empty((2, 3))
    with pytest.raises(ValueError, match="read-only"):
        host_program(overwrite)((x,), (y,))
    host_program(overwrite, copy_inputs=True)((x,), (y,))
    assert x.all() and not y.any()


def test_a_program_within_itself() -> None:
    """Re-entrance: a host step calls the program it belongs to; each call in flight has its own frame."""
    depth: list[int] = []

    def step(x: np.ndarray) -> np.ndarray:
        if len(depth) == 5:
            return x + 100
        depth.append(1)
        inner = np.empty((2, 3))
        program((x + 1,), (inner,))
        return inner

    program = host_program(step)
    y = np.empty((2, 3))
    program((np.zeros((2, 3)),), (y,))
    np.testing.assert_array_equal(y, 105.0)


def test_ctrl_c_during_native_work_is_not_lost() -> None:
    text = """
import os, signal, threading, time
import numpy as np
from native import MIX, kernel
from funcgrad.runtime.executor import Program, Step
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where the tests run
x, y = np.arange(4000), np.empty(4000, np.int64)
program = Program([Step(kernel(MIX).address, [0, 1, 40000], 4000)], 1, 1)
threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
start = time.perf_counter()
try:
    while time.perf_counter() - start < 20:
        program((x,), (y,))
    print("lost")
except KeyboardInterrupt:
    print("caught")
"""
    assert run_script(text) == "caught"


# -- parallel loops


def parallel(n: int, repeat: int, grain: int) -> Program:
    return Program([Step(kernel(MIX).address, [0, 1, repeat], n, grain)], 1, 1)


@pytest.fixture
def thread_count():
    before = threads.get_num_threads()
    yield threads.set_num_threads
    threads.set_num_threads(before)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1000, 4097])
@pytest.mark.parametrize("grain", [1, 7, 64, 5000])
def test_any_number_of_threads_gives_the_same(n: int, grain: int, thread_count) -> None:
    x = np.arange(n) * 7919
    results = []
    for count in (1, 2, 5, 3):
        thread_count(count)
        results.append(np.zeros(n, np.int64))
        parallel(n, 3, grain)((x,), (results[-1],))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


WHO = """
def kernel(slots, ints, lo, hi):
    y = load(slots + 8 * load(ints))
    v = lo
    for k in range(load(ints + 16)):
        v = (v * 6364136223846793005 + 1442695040888963407) ^ (v >> 13)
    for i in range(lo, hi):
        store(y + 8 * i, call0(load(ints + 8)))
    if v == 1:  # never: but the loop above must be run
        store(y + 8 * lo, 0)
"""


@pytest.mark.skipif(os.name != "posix", reason="loops are serial without POSIX threads")
def test_several_threads_take_part_and_no_more_than_were_asked_for(thread_count) -> None:
    pthread_self = ctypes.cast(ctypes.CDLL(None).pthread_self, ctypes.c_void_p).value
    who = np.empty(64, np.int64)
    program = Program([Step(kernel(WHO).address, [0, pthread_self, 20_000], 64, 1)], 0, 1)
    for count in (3, 2, 1):
        thread_count(count)
        seen = set()
        for _ in range(200):  # on a busy machine a worker may come late to many loops
            program((), (who,))
            seen |= set(who.tolist())
            if len(seen) == count > 1:
                break
        assert len(seen) == count


def test_parallel_loops_from_many_python_threads(thread_count) -> None:
    thread_count(3)
    x = np.arange(5000)
    expected = np.empty(5000, np.int64)
    Program([Step(kernel(MIX).address, [0, 1, 5], 5000)], 1, 1)((x,), (expected,))
    program = parallel(5000, 5, 16)
    failures: list[int] = []

    def work(index: int) -> None:
        y = np.empty(5000, np.int64)
        for _ in range(300):
            y[:] = 0
            program((x,), (y,))
            if not (y == expected).all():
                failures.append(index)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_stopping_and_restarting_under_load(thread_count) -> None:
    thread_count(2)
    x, y = np.arange(20000), np.empty(20000, np.int64)
    expected = x.copy()
    Program([Step(kernel(MIX).address, [0, 1, 4], 20000)], 1, 1)((x,), (expected,))
    program, done = parallel(20000, 4, 64), threading.Event()

    def disturb() -> None:
        count = 0
        while not done.is_set():
            count += 1
            threads.stop() if count % 2 else threads.set_num_threads(2 + count % 3)

    other = threading.Thread(target=disturb)
    other.start()
    try:
        for _ in range(150):
            y[:] = 0
            program((x,), (y,))
            np.testing.assert_array_equal(y, expected)
    finally:
        done.set()
        other.join()


def test_sleeping_workers_wake_up(thread_count) -> None:
    thread_count(2)
    x, y = np.arange(50000), np.empty(50000, np.int64)
    program = parallel(50000, 10, 64)
    expected = None
    for _ in range(10):
        program((x,), (y,))
        expected = y.copy() if expected is None else expected
        np.testing.assert_array_equal(y, expected)
        time.sleep(0.01)


FORK = """
import os, warnings
import numpy as np
from native import ADD, MIX, kernel
from funcgrad.runtime import threads
from funcgrad.runtime.executor import Program, Step
warnings.simplefilter("error")
threads.set_num_threads(2)
x, y = np.arange(9000), np.empty(9000, np.int64)
program = Program([Step(kernel(MIX).address, [0, 1, 4], 9000, 64)], 1, 1)
program((x,), (y,))
expected = y.copy()
for _ in range(5):
    child = os.fork()
    y[:] = 0
    program((x,), (y,))
    good = (y == expected).all() and bool(threads.pool_cell[0])
    z = np.empty(9000, np.int64)
    Program([Step(kernel(ADD.replace("+ load(ints + 16)", "- 41")).address, [0, 1], 9000)], 1, 1)((x,), (z,))
    good = good and (z == x - 41).all()
    if child == 0:
        os._exit(0 if good else 1)
    assert good
    assert os.waitpid(child, 0)[1] == 0
print("ok")
"""


def test_fork_after_use() -> None:
    assert run_script(FORK) == "ok"


def test_exit_while_another_thread_runs_a_parallel_loop() -> None:
    text = """
import threading, time
import numpy as np
from native import MIX, kernel
from funcgrad.runtime import threads
from funcgrad.runtime.executor import Program, Step
threads.set_num_threads(3)
x, y = np.arange(100000), np.empty(100000, np.int64)
program = Program([Step(kernel(MIX).address, [0, 1, 10], 100000, 64)], 1, 1)
def work():
    while True:
        program((x,), (y,))
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
print("end")
"""
    assert run_script(text) == "end"


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2", 10**6])
def test_thread_counts_are_checked(bad: object) -> None:
    with pytest.raises(ValueError, match="n must be an integer from 1 to"):
        threads.set_num_threads(bad)  # type: ignore[arg-type]


def test_thread_count_from_the_environment() -> None:
    text = "from funcgrad.runtime import threads; print(threads.get_num_threads())"
    assert run_script(text, FUNCGRAD_NUM_THREADS="3") == "3"
    text = "from funcgrad.runtime.threads import *\ntry: get_num_threads()\nexcept ValueError as e: print(e)"
    assert "FUNCGRAD_NUM_THREADS must be an integer" in run_script(text, FUNCGRAD_NUM_THREADS="many")
