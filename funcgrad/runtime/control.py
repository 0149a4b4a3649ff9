"""Loops and branches as steps: kernels that run programs of their own.

A kernel of control flow fills the frame of an inner program, which lies in the step's scratch memory, and calls `run`
on it; so loops nest to any depth, nothing returns to Python, and the executor knows nothing of it. What changes from
iteration to iteration is addresses: slices move through their arrays, and a carried value alternates between the
step's result and a second buffer, such that the last iteration writes the result.

Frames are filled by `enter`, from a *description* of the inner program:

    template | its words | frame | arena | temporaries: count, offsets, first slot | links: count, table

where a link says which buffer of the inner program lies where in the outer one: (slot, outer slot, byte offset).

A long loop looks after signals ten times a second, so that Ctrl-C interrupts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from funcgrad.record import record
from funcgrad.runtime.compile import compile_runtime
from funcgrad.runtime.executor import API, HEADER_WORDS, Program, Step, python_api, run_address

__all__ = ["CarriedSlots", "Inner", "MovingSlot", "branch_step", "scan_step", "sliced_step", "while_step"]

_CYCLES = 300_000_000
"""Of the CPU's clock, between two looks at signals."""
_SLICE = 1 << 16
"""Iterations of a loop that is one kernel, between two looks at the clock."""

_ENTER = f"""
def enter(slots, scratch, description):
    frame = scratch + load(description + 16)
    copy_memory(frame, load(description), 8 * load(description + 8))
    inner = frame + {8 * HEADER_WORDS}
    arena = scratch + load(description + 24)
    offsets = load(description + 40)
    first = inner + 8 * load(description + 48)
    for k in range(load(description + 32)):
        store(first + 8 * k, arena + load(offsets + 8 * k))
    link = load(description + 64)
    for k in range(load(description + 56)):
        store(inner + 8 * load(link), load(slots + 8 * load(link + 8)) + load(link + 16))
        link = link + 24
    return frame
"""

# Whether a signal handler raised; the interpreter's API is asked only after a while.
_SIGNALS = f"""
def signals(api):
    state = call0(load(api + {API["PyGILState_Ensure"]}))
    raised = call0(load(api + {API["PyErr_CheckSignals"]}))
    call1(load(api + {API["PyGILState_Release"]}), state)
    return raised & 0xFFFFFFFF
"""

# The carried values' table has rows of nine words:
#   reads | writes | tests | operand's outer slot | its offset | result's outer slot | second | nbytes | in place
_ROW = 72

# ints:  run | enter | signals | api | scratch slot | body | condition or 0 | where its value lies | length |
#        carried: count, table | moving: count, table (slot, outer slot, first, step)
_LOOP = f"""
def loop(slots, ints, lo, hi):
    run = load(ints)
    scratch = load(slots + 8 * load(ints + 32))
    body = call3(load(ints + 8), slots, scratch, load(ints + 40))
    inner = body + {8 * HEADER_WORDS}
    test = 0
    tested = 0
    if load(ints + 48) != 0:
        test = call3(load(ints + 8), slots, scratch, load(ints + 48))
        tested = test + {8 * HEADER_WORDS}
        store(tested + 8 * load(load(ints + 48) + 72), scratch + load(ints + 56))
    length = load(ints + 64)
    n_carried = load(ints + 72)
    carried = load(ints + 80)
    n_moving = load(ints + 88)
    moving = load(ints + 96)
    for k in range(n_carried):
        row = carried + {_ROW} * k
        value = load(slots + 8 * load(row + 24)) + load(row + 32)
        target = load(slots + 8 * load(row + 40))
        if load(row + 64) != 0:
            copy_memory(target, value, load(row + 56))
            value = target
        elif length % 2 == 0:
            target = scratch + load(row + 48)
        store(inner + 8 * load(row), value)
        store(inner + 8 * load(row + 8), target)
        if test != 0:
            store(tested + 8 * load(row + 16), value)
    for k in range(n_moving):
        row = moving + 32 * k
        store(inner + 8 * load(row), load(slots + 8 * load(row + 8)) + load(row + 16))
    start = cycles()
    done = 0
    while done != length:
        if test != 0:
            if call1(run, test) != 0:
                return fail(slots)
            if load_byte(scratch + load(ints + 56)) == 0:
                break
        if call1(run, body) != 0:
            return fail(slots)
        done = done + 1
        for k in range(n_moving):
            row = moving + 32 * k
            slot = inner + 8 * load(row)
            store(slot, load(slot) + load(row + 24))
        for k in range(n_carried):
            row = carried + {_ROW} * k
            if load(row + 64) == 0:
                written = load(inner + 8 * load(row + 8))
                store(inner + 8 * load(row), written)
                if test != 0:
                    store(tested + 8 * load(row + 16), written)
                store(inner + 8 * load(row + 8), load(slots + 8 * load(row + 40)) + scratch + load(row + 48) - written)
        if cycles() - start > {_CYCLES}:
            if call1(load(ints + 16), load(ints + 24)) != 0:
                return fail(slots)
            start = cycles()
    for k in range(n_carried):
        row = carried + {_ROW} * k
        value = load(inner + 8 * load(row))
        target = load(slots + 8 * load(row + 40))
        if value != target:
            copy_memory(target, value, load(row + 56))
"""

# ints:  run | enter | scratch slot | outer slot of the index | its offset | how many branches | descriptions...
_BRANCH = """
def branch(slots, ints, lo, hi):
    scratch = load(slots + 8 * load(ints + 16))
    index = load(load(slots + 8 * load(ints + 24)) + load(ints + 32))
    index = min(max(index, 0), load(ints + 40) - 1)
    frame = call3(load(ints + 8), slots, scratch, load(ints + 48 + 8 * index))
    if call1(load(ints), frame) != 0:
        return fail(slots)
"""


# A loop that is one kernel, run in slices of iterations.
# ints:  kernel | its ints | signals | api | length or -1 | slot of the word that ends it, or -1
_SLICED = f"""
def sliced(slots, ints, lo, hi):
    length = load(ints + 32)
    ended = 0
    if load(ints + 40) >= 0:
        ended = load(slots + 8 * load(ints + 40))
        store(ended, 0)
    done = 0
    start = cycles()
    while True:
        upto = done + {_SLICE}
        if length >= 0:
            upto = min(upto, length)
        call_kernel(load(ints), slots, load(ints + 8), done, upto)
        done = upto
        if done == length:
            return
        if ended != 0 and load(ended) != 0:
            return
        if cycles() - start > {_CYCLES}:
            if call1(load(ints + 16), load(ints + 24)) != 0:
                return fail(slots)
            start = cycles()
"""


@record(frozen=True)
class Inner:
    """An inner program, the places of its frame and its arena in the scratch memory, and where its buffers lie:
    links ``(slot, outer slot, byte offset)``."""

    program: Program
    frame: int
    arena: int
    links: Sequence[tuple[int, int, int]]


@record(frozen=True)
class CarriedSlots:
    """A carried value: the slots in which the body reads and writes it and the condition tests it; the operand that it
    begins as (slot, byte offset); the slot of the result; its size, the place of its second buffer in the scratch
    memory, and whether it is updated in place."""

    reads: int
    writes: int
    tests: int
    operand: int
    offset: int
    result: int
    second: int
    nbytes: int
    in_place: bool


@record(frozen=True)
class MovingSlot:
    """A slot of the body that moves through an array of the outer program, from byte ``first`` on."""

    slot: int
    outer: int
    first: int
    step: int


def _description(inner: Inner, keep: list[object]) -> int:
    """The address of a description (see the module's text), with the slot of the first output behind it; what it
    refers to is added to ``keep``."""
    program = inner.program
    links = np.array(inner.links, np.int64).reshape(-1, 3)
    temporaries = program.temporaries
    first_temporary = len(program.template) - HEADER_WORDS - len(temporaries)
    words = [
        program.template.ctypes.data, len(program.template), inner.frame, inner.arena,
        len(temporaries), temporaries.ctypes.data, first_temporary, len(links), links.ctypes.data, program.n_inputs,
    ]  # fmt: skip
    description = np.array(words, np.int64)
    keep += [program, links, description]
    return description.ctypes.data


def scan_step(
    scratch: int, body: Inner, length: int, carried: Sequence[CarriedSlots], moving: Sequence[MovingSlot]
) -> Step:
    """A step that runs ``body`` ``length`` times; ``scratch`` is the slot of its scratch memory."""
    return _loop_step(scratch, body, None, 0, length, carried, moving)


def while_step(scratch: int, condition: Inner, body: Inner, value: int, carried: Sequence[CarriedSlots]) -> Step:
    """A step that runs ``body`` as long as ``condition`` gives true, a byte at ``value`` in the scratch memory."""
    return _loop_step(scratch, body, condition, value, -1, carried, ())


def _loop_step(
    scratch: int,
    body: Inner,
    condition: Inner | None,
    value: int,
    length: int,
    carried: Sequence[CarriedSlots],
    moving: Sequence[MovingSlot],
) -> Step:
    keep: list[object] = []
    described = _description(body, keep)
    tested = 0 if condition is None else _description(condition, keep)
    rows = np.array(
        [(c.reads, c.writes, c.tests, c.operand, c.offset, c.result, c.second, c.nbytes, c.in_place) for c in carried],
        np.int64,
    ).reshape(-1, _ROW // 8)
    moves = np.array([(m.slot, m.outer, m.first, m.step) for m in moving], np.int64).reshape(-1, 4)
    ints = [
        run_address(), _address("enter"), _address("signals"), python_api().ctypes.data, scratch, described, tested,
        value, length, len(rows), rows.ctypes.data, len(moves), moves.ctypes.data,
    ]  # fmt: skip
    parallel = body.program.parallel or (condition is not None and condition.program.parallel)
    return Step(_address("loop"), ints, checks=True, keep=[*keep, rows, moves], parallel=parallel)


def sliced_step(kernel: int, table: Sequence[int], length: int, ended: int) -> Step:
    """A step that runs a loop which is one kernel, with this table of integers: ``length`` iterations, or (-1) until
    the kernel sets the word in slot ``ended``."""
    words = np.array(table, np.int64)
    ints = [kernel, words.ctypes.data, _address("signals"), python_api().ctypes.data, length, ended]
    return Step(_address("sliced"), ints, checks=True, keep=words)


def branch_step(scratch: int, index: tuple[int, int], branches: Sequence[Inner]) -> Step:
    """A step that runs one of ``branches``: that of the int64 at ``index`` (slot, byte offset), clamped."""
    keep: list[object] = []
    ints = [
        run_address(),
        _address("enter"),
        scratch,
        *index,
        len(branches),
        *[_description(x, keep) for x in branches],
    ]
    parallel = any(x.program.parallel for x in branches)
    return Step(_address("branch"), ints, checks=True, keep=keep, parallel=parallel)


_SOURCES = {
    "enter": (_ENTER, 3, True),
    "signals": (_SIGNALS, 1, True),
    "loop": (_LOOP, 4, False),
    "branch": (_BRANCH, 4, False),
    "sliced": (_SLICED, 4, False),
}


@cache
def _address(name: str) -> int:
    source, arguments, returns = _SOURCES[name]
    return compile_runtime(source, name, arguments, returns=returns)
