"""A program is data: a table of steps, walked by one native loop that was compiled once for all programs.

A step is a kernel: a C function `void kernel(intp slots, intp ints, intp lo, intp hi)`. `slots` is an array
with the base address of every buffer of the program, `ints` is the kernel's own table (slot numbers of its
operands first, then offsets, extents, strides), `lo..hi` a slice of its outermost parallel axis. Generated
loop nests, calls of BLAS and Python callbacks all look like this, so no code is compiled per program.

A row of the table is eight 64-bit words:

    kind | function | ints | extent | grain | checks | 0 | 0

Kind 0 calls `function(slots, ints, 0, extent)`, over the thread pool if the extent exceeds a positive grain
(the shortest slice worth a thread). After a row that `checks`, a non-zero status word ends the program; the
status is the row's number plus one. Loops and branches are kernels too, which run programs of their own (see
`control`).

A *frame* is what one call in flight needs: a header, the slots, the arena for temporaries. Slots are numbered
[inputs, outputs, constants, temporaries]. Frames are taken from a list and put back, so calls from many
threads, and calls of a program from within itself, never share one.

    frame:  rows | count | inputs | outputs | kinds | pool cell | gil | status | slot 0 | slot 1 | ...

Dispatch takes a fraction of a microsecond because the native side is a real built-in function (a PyMethodDef
made at run time, METH_FASTCALL) that reads addresses out of the argument objects itself: an ndarray's data
pointer, or the value inside a Python float or NumPy scalar. That layout is CPython's and NumPy's ABI; it is
checked once against `.ctypes.data`, and a slower way is used where it does not hold.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from funcgrad.kernels.nested import FRAME_HEADER
from funcgrad.record import record
from funcgrad.runtime import memory, threads
from funcgrad.runtime.compile import compile_runtime, core_function

__all__ = [
    "ARRAY",
    "GIL_WORD",
    "HEADER_WORDS",
    "SCALAR",
    "STATUS_WORD",
    "Program",
    "Step",
    "layout_holds",
    "make_builtin",
    "python_api",
    "run_address",
]

ARRAY = 0
"""Kind of an input that comes as an np.ndarray."""
SCALAR = 1
"""Kind of an input that comes as a Python float or complex or as a NumPy scalar."""

KERNEL = 0
_ROW_WORDS = 8
HEADER_WORDS = FRAME_HEADER
_ROWS, _COUNT, _INPUTS, _OUTPUTS, _KINDS, _POOL, GIL_WORD, STATUS_WORD = range(HEADER_WORDS)
_OBJECT_HEADER = object.__basicsize__
_KEPT_FRAMES = 16
_KEPT_ARENA = 1 << 20  # a frame with a larger arena gives it back to the common pool after each call

_FUNCTIONS = (
    "PyLong_FromLong",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyErr_Occurred",
    "PyErr_CheckSignals",
    "PyGILState_Ensure",
    "PyGILState_Release",
    "PyTuple_New",
    "PyTuple_SetItem",
    "PyObject_Call",
    "Py_DecRef",
    "Py_IncRef",
)
API = {name: 8 * i for i, name in enumerate((*_FUNCTIONS, "ndarray", "none", "run"))}
"""Where `python_api` holds what, in bytes."""


def _walk(signature: str, before: str = "", at_end: str = "pass") -> str:
    """The loop over the rows of a frame; ``before`` is done before each row, ``at_end`` behind the last."""
    return f"""
def {signature}:
    rows = load(frame + {8 * _ROWS})
    slots = frame + {8 * HEADER_WORDS}
    cell = load(frame + {8 * _POOL})
    count = load(frame + {8 * _COUNT})
    for i in range(count):
        row = rows + i * {8 * _ROW_WORDS}
        if load(row) != {KERNEL}:
            return -1
        {before}
        fn = load(row + 8)
        ints = load(row + 16)
        extent = load(row + 24)
        grain = load(row + 32)
        pool = 0
        if grain > 0 and extent > grain:
            pool = load(cell)
        if pool != 0:
            call6(load(cell + 8), pool, fn, slots, ints, extent, grain)
        else:
            call_kernel(fn, slots, ints, 0, extent)
        if load(row + 40) != 0 and load(frame + {8 * STATUS_WORD}) != 0:
            return i + 1
    {at_end}
    return 0
"""


_READ_CLOCK = "store(ticks + 8 * {}, cycles())"
_RUN = _walk("run(frame)")
_RUN_TIMED = _walk("run_timed(frame, ticks)", _READ_CLOCK.format("i"), _READ_CLOCK.format("count"))

# The built-in function: entry(frame, *inputs, *outputs) -> status as a Python integer, or NULL with the
# exception that a host step raised. `self` is an ndarray of addresses, see `python_api`.
_ENTRY = f"""
def entry(self, args, nargs):
    api = load(self + {_OBJECT_HEADER})
    frame = load(load(args) + {_OBJECT_HEADER})
    inputs = load(frame + {8 * _INPUTS})
    total = inputs + load(frame + {8 * _OUTPUTS})
    kinds = load(frame + {8 * _KINDS})
    array_type = load(api + {API["ndarray"]})
    if nargs != total + 1:
        return call1(load(api + {API["PyLong_FromLong"]}), -1)
    for i in range(total):
        item = load(args + 8 * (i + 1))
        address = item + {_OBJECT_HEADER}
        if i >= inputs or load(kinds + 8 * i) == {ARRAY}:
            if load(item + {_OBJECT_HEADER - 8}) != array_type:
                return call1(load(api + {API["PyLong_FromLong"]}), -2 - i)
            address = load(address)
        store(frame + 8 * ({HEADER_WORDS} + i), address)
    store(frame + {8 * STATUS_WORD}, 0)
    if load(frame + {8 * GIL_WORD}) != 0:
        status = call1(load(api + {API["run"]}), frame)
    else:
        thread = call0(load(api + {API["PyEval_SaveThread"]}))
        status = call1(load(api + {API["run"]}), frame)
        call1(load(api + {API["PyEval_RestoreThread"]}), thread)
    if status > 0 and call0(load(api + {API["PyErr_Occurred"]})) != 0:
        return 0
    return call1(load(api + {API["PyLong_FromLong"]}), status)
"""


run_address = core_function(_RUN, "run", 1)
"""`intp run(intp frame)`: walks the rows of a filled frame and returns the status. Needs no Python."""

_entry_address = core_function(_ENTRY, "entry", 3)


# -- the built-in function


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_METH_FASTCALL = 0x80


@cache
def python_api() -> np.ndarray:
    """Addresses of the interpreter's C functions, for native code that cannot be linked with them."""
    addresses = [ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value for name in _FUNCTIONS]
    return np.array([*addresses, id(np.ndarray), id(None), run_address()], np.int64)


def layout_holds() -> bool:
    """Whether objects lie in memory as the native entry reads them."""

    def word(item: object, offset: int) -> int:
        return ctypes.c_int64.from_address(id(item) + offset).value

    arrays = (np.empty(3), np.empty((), np.float32), np.empty((4, 5), complex)[1:, ::2], np.empty((0, 2)))
    for array in arrays:
        if word(array, _OBJECT_HEADER) != array.ctypes.data:
            return False
        if word(array, _OBJECT_HEADER - 8) != id(np.ndarray):
            return False
    scalars: list[Any] = [1.25, 2 - 3j, np.bool_(True)]
    scalars += [np.dtype(code).type(5) for code in "efdFDbhilqBHILQ"]
    for value in scalars:
        expected = np.asarray(value)
        if ctypes.string_at(id(value) + _OBJECT_HEADER, expected.nbytes) != expected.tobytes():
            return False
    return True


def _builtin_entry() -> Callable[..., int] | None:
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8 or not layout_holds():
        return None
    return make_builtin("run_program", _entry_address(), python_api())


def make_builtin(name: str, address: int, owner: Any) -> Callable[..., Any]:
    """A built-in function: ``address`` is that of ``object *f(object *owner, object **arguments, ssize_t count)``."""
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    return make(ctypes.addressof(_method_definition(name, address)), owner, None)


@cache
def _method_definition(name: str, address: int) -> _MethodDef:
    definition = _MethodDef(name.encode(), address, _METH_FASTCALL, None)
    # CPython reads the definition once more when it frees the function, which at the interpreter's end may be after
    # all that this module holds is gone: nobody may ever free it.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(definition))
    return definition


@cache
def _entry() -> Callable[..., int]:
    """entry(frame, *inputs, *outputs) -> status: native where the layout of objects is the expected one."""
    return _builtin_entry() or _portable_entry()


def _portable_entry() -> Callable[..., int]:
    """The same by public means only, some microseconds slower."""
    # A PYFUNCTYPE raises the exception that a host step left set.
    run = ctypes.PYFUNCTYPE(ctypes.c_ssize_t, ctypes.c_ssize_t)(run_address())

    def entry(frame: np.ndarray, *args: Any) -> int:
        inputs, outputs = int(frame[_INPUTS]), int(frame[_OUTPUTS])
        if len(args) != inputs + outputs:
            return -1
        kinds = np.ctypeslib.as_array((ctypes.c_int64 * max(inputs, 1)).from_address(int(frame[_KINDS])))
        kept = []
        for i, arg in enumerate(args):
            if i >= inputs or kinds[i] == ARRAY:
                if type(arg) is not np.ndarray:
                    return -2 - i
            else:
                arg = np.array(arg)
                kept.append(arg)
            frame[HEADER_WORDS + i] = arg.ctypes.data
        frame[STATUS_WORD] = 0
        return run(frame.ctypes.data)

    return entry


# -- programs


@record(frozen=True, slots=True)
class Step:
    """One call of a kernel: its address, its table of integers, the extent and grain of its parallel axis.

    `grain` 0: always on the calling thread. `checks`: look at the status word afterwards (host steps).
    `keep`: whatever must live as long as the address (a callback object). `parallel`: it has loops over the thread
    pool inside.
    """

    address: int
    ints: Sequence[int] | np.ndarray
    extent: int = 1
    grain: int = 0
    checks: bool = False
    keep: Any = None
    parallel: bool = False


class Program:
    """Steps over numbered buffers, callable from Python and, by `run_address` and a frame, from native code.

    Slots: inputs, then outputs, then `constants` (arrays, held here), then temporaries, each at its byte
    offset in an arena of `arena_bytes`. `input_kinds` says of each input whether it comes as ARRAY or SCALAR.
    The caller has checked shapes, dtypes and layout: here an input is an address.
    """

    __slots__ = (
        "_arena_bytes",
        "_constants",
        "_entry",
        "_free",
        "_ints",
        "_keep",
        "_kinds",
        "_rows",
        "_slots",
        "keeps_arena",
        "n_inputs",
        "n_outputs",
        "parallel",
        "steps",
        "template",
        "temporaries",
    )

    def __init__(
        self,
        steps: Sequence[Step],
        n_inputs: int,
        n_outputs: int,
        constants: Sequence[np.ndarray] = (),
        temporaries: Sequence[int] = (),
        arena_bytes: int = 0,
        input_kinds: Sequence[int] | None = None,
        release_gil: bool = True,
    ) -> None:
        kinds = [ARRAY] * n_inputs if input_kinds is None else list(input_kinds)
        if len(kinds) != n_inputs or not set(kinds) <= {ARRAY, SCALAR}:
            raise ValueError(f"input_kinds must hold {n_inputs} values, each ARRAY or SCALAR, not {kinds}")
        if temporaries and not 0 <= max(temporaries) <= arena_bytes:
            raise ValueError(f"temporaries reach {max(temporaries)}, beyond the arena of {arena_bytes} bytes")
        self.steps = tuple(steps)
        self.n_inputs = n_inputs
        self.n_outputs = n_outputs
        self._constants = tuple(constants)
        self._kinds = np.array([*kinds, 0], np.int64)
        self._rows, self._ints = _table(self.steps)
        self.temporaries = np.array(temporaries, np.int64)
        self._arena_bytes = arena_bytes
        self.keeps_arena = arena_bytes <= _KEPT_ARENA
        self.parallel = any(step.parallel or 0 < step.grain < step.extent for step in self.steps)
        self._entry: Callable[..., int] | None = None
        self._free: list[np.ndarray] = []
        self._slots = n_inputs + n_outputs + len(self._constants) + len(self.temporaries)
        self.template = self._make_template(release_gil)

    def __call__(self, inputs: Sequence[Any], outputs: Sequence[np.ndarray]) -> None:
        """Run: `inputs` as `input_kinds` says, `outputs` arrays to be written. Raises what a host step
        raised."""
        try:
            frame = self._free.pop()
        except IndexError:
            frame = self.new_frame()
        if self.parallel:
            threads.start()
        arena = None if self.keeps_arena else self._lend_arena(frame)
        if self._entry is None:
            self._entry = _entry()  # here, because most programs are only called through `dispatch`
        status = self._entry(frame, *inputs, *outputs)
        if status:
            self._raise(status, inputs, outputs)
        del arena
        if len(self._free) < _KEPT_FRAMES:
            self._free.append(frame)

    def timed(self, inputs: Sequence[Any], outputs: Sequence[np.ndarray]) -> Callable[[], np.ndarray]:
        """A function that runs the program and returns the ticks of each step, see `clock`. Holds the GIL."""
        arena = memory.aligned(self._arena_bytes)
        held = [np.array(x) if k == SCALAR else x for x, k in zip(inputs, self._kinds, strict=False)]
        frame = self.template.copy()
        first = HEADER_WORDS + len(held) + len(outputs)
        frame[HEADER_WORDS:first] = [x.ctypes.data for x in (*held, *outputs)]
        frame[len(frame) - len(self.temporaries) :] = self.temporaries + arena.ctypes.data
        ticks = np.zeros(len(self.steps) + 1, np.int64)
        address = compile_runtime(_RUN_TIMED, "run_timed", 2)
        run = ctypes.PYFUNCTYPE(ctypes.c_ssize_t, ctypes.c_ssize_t, ctypes.c_ssize_t)(address)
        keep = arena, held, outputs
        if self.parallel:
            threads.start()

        def once() -> np.ndarray:
            frame[STATUS_WORD] = 0
            status = run(frame.ctypes.data, ticks.ctypes.data)
            if status:
                self._raise(status, *keep[1:])
            return np.diff(ticks)

        return once

    def _make_template(self, release_gil: bool) -> np.ndarray:
        template = np.zeros(HEADER_WORDS + self._slots, np.int64)
        template[_ROWS] = self._rows.ctypes.data
        template[_COUNT] = len(self.steps)
        template[_INPUTS] = self.n_inputs
        template[_OUTPUTS] = self.n_outputs
        template[_KINDS] = self._kinds.ctypes.data
        template[_POOL] = threads.pool_cell.ctypes.data
        template[GIL_WORD] = not release_gil
        first = HEADER_WORDS + self.n_inputs + self.n_outputs
        template[first : first + len(self._constants)] = [c.ctypes.data for c in self._constants]
        return template

    def new_frame(self) -> np.ndarray:
        """Header and slots, and behind them, on a cache line, the arena (if it is of a size to be kept)."""
        words = -(-len(self.template) // 8) * 8
        block = memory.aligned(8 * words + (self._arena_bytes if self.keeps_arena else 0))
        frame = block[: 8 * len(self.template)].view(np.int64)
        frame[:] = self.template
        if len(self.temporaries) and self.keeps_arena:
            frame[-len(self.temporaries) :] = self.temporaries + (block.ctypes.data + 8 * words)
        return frame

    def _lend_arena(self, frame: np.ndarray) -> np.ndarray:
        arena = memory.lend(self._arena_bytes)
        frame[-len(self.temporaries) :] = self.temporaries + arena.ctypes.data
        return arena

    def _raise(self, status: int, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        if status > 0:
            raise MemoryError(f"step {status - 1} of the program found no memory for its working rows")
        if status == -1:
            raise TypeError(
                f"the program takes {self.n_inputs} inputs and {self.n_outputs} outputs, "
                f"not {len(inputs)} and {len(outputs)}"
            )
        index = -2 - status
        which, item = ("input", inputs[index]) if index < self.n_inputs else ("output", outputs[index - self.n_inputs])
        number = index if which == "input" else index - self.n_inputs
        raise TypeError(f"{which} {number} of the program must be an np.ndarray, not {type(item).__name__}")


def _table(steps: Sequence[Step]) -> tuple[np.ndarray, np.ndarray]:
    """The rows, and the one array that all integer tables lie in."""
    words: list[int] = []
    places = []
    for step in steps:
        places.append(len(words))
        words += step.ints.ravel().tolist() if isinstance(step.ints, np.ndarray) else step.ints
    ints = np.array([*words, 0], np.int64)
    base = ints.ctypes.data
    rows = [
        (KERNEL, step.address, base + 8 * place, step.extent, step.grain, step.checks, 0, 0)
        for step, place in zip(steps, places, strict=True)
    ]
    return np.array(rows, np.int64).reshape(len(steps), _ROW_WORDS), ints
