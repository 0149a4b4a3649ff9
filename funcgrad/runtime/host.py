"""Python functions as steps of a native program.

A host step is a kernel like any other. Its native part takes the GIL, calls a Python callable with the
address of the slots, and, if that raised, leaves the exception set, writes the status word and lets the
program stop; the program's entry point then returns NULL to the interpreter, as any C function does that
fails. So the original exception, KeyboardInterrupt included, reaches the caller with its traceback.

    ints:  address of `python_api` | the callable
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from funcgrad.record import record
from funcgrad.runtime.compile import compile_runtime
from funcgrad.runtime.executor import API, Step, python_api

__all__ = ["Operand", "host_step"]

_HOST = f"""
def host(slots, ints, lo, hi):
    api = load(ints)
    state = call0(load(api + {API["PyGILState_Ensure"]}))
    result = 0
    address = call1(load(api + {API["PyLong_FromLong"]}), slots)
    arguments = call1(load(api + {API["PyTuple_New"]}), 1)
    if address != 0 and arguments != 0:
        call3(load(api + {API["PyTuple_SetItem"]}), arguments, 0, address)
        result = call3(load(api + {API["PyObject_Call"]}), load(ints + 8), arguments, 0)
        call1(load(api + {API["Py_DecRef"]}), arguments)
    if result == 0:
        store(slots - 8, 1)
    else:
        call1(load(api + {API["Py_DecRef"]}), result)
    call1(load(api + {API["PyGILState_Release"]}), state)
"""


@record(frozen=True)
class Operand:
    """An array in a program's memory: its slot, a byte offset into it, shape, dtype and (None: C order)
    strides."""

    slot: int
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int = 0
    strides: tuple[int, ...] | None = None

    def view(self, slots: int) -> np.ndarray:
        """This operand as an array, without a copy, given the address of the slots."""
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        address = ctypes.c_int64.from_address(slots + 8 * self.slot).value + self.offset
        if self.strides is None:
            extent, low = math.prod(self.shape) * self.dtype.itemsize, 0
        else:
            reach = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
            low = sum(min(r, 0) for r in reach)
            extent = sum(max(r, 0) for r in reach) - low + self.dtype.itemsize
        memory: Any = (ctypes.c_char * extent).from_address(address + low)
        return np.ndarray(self.shape, self.dtype, memory, -low, self.strides)


def host_step(
    function: Callable[..., Any],
    inputs: Sequence[Operand],
    outputs: Sequence[Operand],
    name: str | None = None,
    copy_inputs: bool = False,
) -> Step:
    """A step that calls `function(*input arrays)` and stores the array (or tuple of arrays) that it returns.

    The inputs are read-only views of the program's memory, valid during the call; ask for `copy_inputs` where
    a user's function may keep them. A result whose shape or dtype is not the declared one is a TypeError.
    """
    label = name or getattr(function, "__name__", repr(function))

    def call(slots: int) -> None:
        arrays = [operand.view(slots) for operand in inputs]
        if copy_inputs:
            arrays = [array.copy() for array in arrays]
        else:
            for array in arrays:
                array.flags.writeable = False
        results = function(*arrays)
        if not isinstance(results, tuple | list):
            results = (results,)
        if len(results) != len(outputs):
            raise TypeError(f"{label} returned {len(results)} arrays where {len(outputs)} were declared")
        for i, (result, operand) in enumerate(zip(results, outputs, strict=True)):
            array = np.asarray(result)
            if array.shape != operand.shape or array.dtype != operand.dtype:
                raise TypeError(
                    f"{label} returned {array.dtype}{list(array.shape)} as result {i} "
                    f"where {operand.dtype}{list(operand.shape)} was declared"
                )
            operand.view(slots)[...] = array

    return Step(_host_address(), [python_api().ctypes.data, id(call)], checks=True, keep=call)


@cache
def _host_address() -> int:
    return compile_runtime(_HOST, "host", 4, returns=False)
