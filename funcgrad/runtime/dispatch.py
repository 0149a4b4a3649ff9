"""A compiled program as one built-in function: arrays in, new arrays out, no Python in between.

The built-in compares its arguments with what the program was compiled for (type, dtype, shape, C order), allocates
the results, runs the program and hands them over: some 150 nanoseconds of its own. Whatever it does not like, it
declines by returning None, having done nothing; the caller then goes the long way, which knows conversions, errors and
other signatures.

It declines too where the program is running already in another thread (it owns one frame), where the thread pool has
yet to be started, and where the program needs Python: large results come from a pool of recycled memory, large arenas
are lent for a call, donated arguments are written over.

Objects that are called in the same way, with a few programs to choose from, are in `callables`.

The layout of objects in memory is CPython's and NumPy's ABI, and `PyArray_Empty` and `PyArray_Scalar` are called
through the table that NumPy publishes for C extensions; all of it is tried out once, and where it does not hold there
are no such built-ins.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from funcgrad.runtime.compile import core_function
from funcgrad.runtime.executor import (
    API,
    GIL_WORD,
    HEADER_WORDS,
    STATUS_WORD,
    Program,
    layout_holds,
    make_builtin,
    python_api,
)
from funcgrad.runtime.memory import MIN_BYTES
from funcgrad.runtime.threads import pool_cell

__all__ = ["DECLINED", "HEADER", "RUN_WORD", "Builtin", "Owner", "builtin_call"]

Builtin = Callable[..., Any]

HEADER: Final = object.__basicsize__
# An ndarray behind its header: data | nd | dimensions | strides | base | descr | flags
_DATA, _ND, _DIMS, _DESCR, _FLAGS = HEADER, HEADER + 8, HEADER + 16, HEADER + 40, HEADER + 48
_WANTED_FLAGS = 0x101  # C order, aligned

# Words of a record, in bytes.
_FRAME, _BUSY, _API, _INPUTS, _OUTPUTS, _SINGLE, _POOL = range(0, 56, 8)
_GUARDS, _RESULTS, _EMPTY, _SCALAR, _FITS, RUN_WORD, _OWNER = range(56, 112, 8)
# A guard: type | descr, or 0 for a scalar | nd | dimensions.  A result: descr | nd | dimensions | memory | object
_GUARD, _RESULT = 32, 40

# Whether the arguments are what the program was compiled for; their addresses go into the frame.
_FITS_SOURCE = f"""
def fits(record, args, nargs):
    if nargs != load(record + {_INPUTS}) or load(record + {_BUSY}) != 0:
        return 0
    if load(record + {_POOL}) != 0 and load(load(record + {_POOL})) == 0:
        return 0
    slot = load(record + {_FRAME}) + {8 * HEADER_WORDS}
    guard = load(record + {_GUARDS})
    for i in range(nargs):
        item = load(args + 8 * i)
        if load(item + {HEADER - 8}) != load(guard):
            return 0
        address = item + {HEADER}
        if load(guard + 8) != 0:
            nd = load(guard + 16)
            flags = load_i32(item + {_FLAGS}) & {_WANTED_FLAGS}
            if load(item + {_DESCR}) != load(guard + 8) or load_i32(item + {_ND}) != nd or flags != {_WANTED_FLAGS}:
                return 0
            dims = load(item + {_DIMS})
            wanted = load(guard + 24)
            for d in range(nd):
                if load(dims + 8 * d) != load(wanted + 8 * d):
                    return 0
            address = load(address)
        store(slot, address)
        slot = slot + 8
        guard = guard + {_GUARD}
    return 1
"""

DECLINED: Final = 1
"""What `run_record` returns instead of an object: none has this address."""

# The result of a program; 0 with an exception set; or that it declines.
_RUN_SOURCE = f"""
def run_record(record, args, nargs):
    if call3(load(record + {_FITS}), record, args, nargs) == 0:
        return {DECLINED}
    api = load(record + {_API})
    call1(load(api + {API["Py_IncRef"]}), load(record + {_OWNER}))  # for others may forget the program meanwhile
    frame = load(record + {_FRAME})
    slot = frame + {8 * HEADER_WORDS} + 8 * nargs
    count = load(record + {_OUTPUTS})
    results = load(record + {_RESULTS})
    store(record + {_BUSY}, 1)
    failed = 0
    for k in range(count):
        result = results + {_RESULT} * k
        memory = load(result + 24)
        if memory == 0:
            call1(load(api + {API["Py_IncRef"]}), load(result))
            made = call4(load(record + {_EMPTY}), load(result + 8), load(result + 16), load(result), 0)
            store(result + 32, made)
            if made == 0:
                failed = 1
                break
            memory = load(made + {_DATA})
        store(slot, memory)
        slot = slot + 8
    if failed == 0:
        store(frame + {8 * STATUS_WORD}, 0)
        if load(frame + {8 * GIL_WORD}) != 0:
            failed = call1(load(api + {API["run"]}), frame)
        else:
            thread = call0(load(api + {API["PyEval_SaveThread"]}))
            failed = call1(load(api + {API["run"]}), frame)
            call1(load(api + {API["PyEval_RestoreThread"]}), thread)
    answer = 0
    if failed == 0 and load(record + {_SINGLE}) == 0:
        answer = call1(load(api + {API["PyTuple_New"]}), count)
    for k in range(count):
        result = results + {_RESULT} * k
        made = load(result + 32)
        store(result + 32, 0)
        if failed != 0:
            if made != 0:
                call1(load(api + {API["Py_DecRef"]}), made)
        else:
            if load(result + 24) != 0:
                made = call3(load(record + {_SCALAR}), load(result + 24), load(result), 0)
            if load(record + {_SINGLE}) != 0:
                answer = made
            else:
                call3(load(api + {API["PyTuple_SetItem"]}), answer, k, made)
    store(record + {_BUSY}, 0)
    if failed != 0 and call0(load(api + {API["PyErr_Occurred"]})) == 0:
        answer = {DECLINED}
    call1(load(api + {API["Py_DecRef"]}), load(record + {_OWNER}))
    return answer
"""

# A built-in function of one program; `self` is the array of the record's words.
_CALL = f"""
def call(self, args, nargs):
    record = load(self + {_DATA})
    answer = call3(load(record + {RUN_WORD}), record, args, nargs)
    if answer != {DECLINED}:
        return answer
    api = load(record + {_API})
    call1(load(api + {API["Py_IncRef"]}), load(api + {API["none"]}))
    return load(api + {API["none"]})
"""

_fits_address = core_function(_FITS_SOURCE, "fits", 3)
_run_address = core_function(_RUN_SOURCE, "run_record", 3)
_call_address = core_function(_CALL, "call", 3)


def builtin_call(program: Program, arguments: Sequence[Any], out_avals: Sequence[Any], single: bool) -> Builtin | None:
    """A built-in that runs ``program`` on arguments of exactly the types, dtypes and shapes of ``arguments``.

    It returns the results: the only one (``single``), or a tuple; None where it declines. There is none (None) for
    programs that need more than addresses.
    """
    functions = _numpy_functions()
    large = any(a.nbytes >= MIN_BYTES for a in out_avals if a.shape)
    if functions is None or not program.keeps_arena or large:
        return None
    keep: list[Any] = [program]
    guards = np.array([_guard(x, keep) for x in arguments], np.int64).reshape(-1, _GUARD // 8)
    results = np.array([_result(a, keep) for a in out_avals], np.int64).reshape(-1, _RESULT // 8)
    frame = program.new_frame()
    pool = pool_cell.ctypes.data if program.parallel else 0
    words = np.array(
        [
            frame.ctypes.data, 0, python_api().ctypes.data, len(arguments), len(out_avals), single, pool,
            guards.ctypes.data, results.ctypes.data, *functions, _fits_address(), _run_address(), 0,
        ],
        np.int64,
    )  # fmt: skip
    owner = np.asarray(Owner(words, (*keep, guards, results, frame)))
    words[_OWNER // 8] = id(owner)
    return make_builtin("call", _call_address(), owner)


class Owner:
    """The base of an array of words: holds what the words have the addresses of."""

    def __init__(self, words: np.ndarray, keep: tuple[Any, ...]) -> None:
        self.__array_interface__ = words.__array_interface__
        self.words = words
        self.keep = keep


def _guard(x: Any, keep: list[Any]) -> tuple[int, int, int, int]:
    if type(x) is not np.ndarray:
        return id(type(x)), 0, 0, 0
    dims = np.array([*x.shape, 0], np.int64)
    keep += [dims, x.dtype]
    return id(np.ndarray), id(x.dtype), x.ndim, dims.ctypes.data


def _result(aval: Any, keep: list[Any]) -> tuple[int, int, int, int, int]:
    dtype, shape = aval.dtype, aval.shape
    dims = np.array([*shape, 0], np.int64)
    memory = np.zeros(2, np.int64)
    keep += [dims, dtype, memory]
    return id(dtype), len(shape), dims.ctypes.data, 0 if shape else memory.ctypes.data, 0


@cache
def _numpy_functions() -> tuple[int, int] | None:
    """The addresses of PyArray_Empty and PyArray_Scalar; None where they, or objects, are not as expected."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8 or not layout_holds():
        return None
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    try:
        from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        table = (ctypes.c_void_p * 200).from_address(get(_multiarray_umath._ARRAY_API, None))
        empty, scalar = table[184], table[60]
    except (ImportError, AttributeError, ValueError):
        return None
    if not empty or not scalar or not _fields_hold():
        return None
    return (empty, scalar) if _functions_hold(empty, scalar) else None


def _fields_hold() -> bool:
    for x in (np.empty((3, 4)), np.empty((5, 2), np.float32)[:, :1], np.empty(()), np.empty((2, 3), order="F")):
        word = lambda offset: ctypes.c_int64.from_address(id(x) + offset).value  # noqa: E731, B023
        half = lambda offset: ctypes.c_int32.from_address(id(x) + offset).value  # noqa: E731, B023
        if half(_ND) != x.ndim or word(_DESCR) != id(x.dtype) or half(_FLAGS) != x.flags.num:
            return False
        if x.ndim and tuple((ctypes.c_int64 * x.ndim).from_address(word(_DIMS))) != x.shape:
            return False
    return True


def _functions_hold(empty: int, scalar: int) -> bool:
    dtype = np.dtype(np.float32)
    increment = ctypes.pythonapi.Py_IncRef
    increment.argtypes, increment.restype = (ctypes.py_object,), None
    dims = (ctypes.c_int64 * 2)(3, 5)
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_int, ctypes.c_void_p, ctypes.py_object, ctypes.c_int)(empty)
    increment(dtype)  # it takes over a reference
    array = make(2, ctypes.addressof(dims), dtype, 0)
    value = ctypes.c_float(2.5)
    read = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(scalar)
    number = read(ctypes.addressof(value), dtype, None)
    right = type(array) is np.ndarray and array.shape == (3, 5) and array.dtype is dtype and array.flags.c_contiguous
    return right and type(number) is np.float32 and number == 2.5
