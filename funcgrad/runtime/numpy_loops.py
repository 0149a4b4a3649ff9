"""NumPy's own machine code by function pointer: the inner loops of its FFTs, its sorts and its argsorts.

A ufunc is a C structure with a table of loops ``void loop(char **args, intp *dimensions, intp *steps, void *data)``
(``PyUFuncObject`` in numpy/ufuncobject.h), a dtype has a table of functions (``PyArray_ArrFuncs`` in
numpy/ndarraytypes.h, asked for through the C API that ``_multiarray_umath`` exports). Both layouts are part of NumPy
2's binary interface, which compiled extensions rely on. None of these functions needs the GIL: NumPy releases it
around them.

We are no compiled extension, so nothing vouches for the layout but what we check here, once: the version of the
interface, what can be compared with Python's view of the same object, and the results of a small run. Where any of
that differs the functions below return None, and the caller takes NumPy's way through Python.
"""

from __future__ import annotations

import ctypes
import importlib
from functools import cache
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Loop", "Sorts", "fft_loop", "sort_functions"]

_ABI = 0x02000000
_SORT_WORD, _ARGSORT_WORD = 33, 36  # in PyArray_ArrFuncs; three kinds each: quick, heap, stable
_GET_ABI_VERSION, _GET_ARRAY_FUNCTIONS = 0, 365  # in the table of the C API

# words of PyUFuncObject behind the object's header
_NIN_NOUT, _NARGS, _FUNCTIONS, _DATA, _NTYPES, _NAME, _TYPES = 0, 1, 2, 3, 4, 5, 6


class Loop(NamedTuple):
    """The inner loop of a generalised ufunc for one dtype, and the data pointer that it is called with."""

    function: int
    data: int


class Sorts(NamedTuple):
    """``int sort(void *start, intp n, void *)`` and ``int argsort(void *start, intp *order, intp n, void *)``, quick
    and stable ones; all put NaN last, and give another number than 0 if there was no memory."""

    sort: int
    argsort: int
    stable_sort: int
    stable_argsort: int


def _plain_build() -> bool:
    """CPython with 64-bit pointers, whose object header has two words."""
    return ctypes.sizeof(ctypes.c_void_p) == 8 and object.__basicsize__ == 16


# -- loops of ufuncs


@cache
def fft_loop(name: str, dtype: str) -> Loop | None:
    """The loop ``name`` (``fft ifft rfft_n_even rfft_n_odd irfft``) in the precision of ``dtype``, a real one.

    Its operands are the input, a factor and the output. None where it cannot be had.
    """
    loops = _fft_loops()
    return None if loops is None else loops.get((name, np.dtype(dtype).char))


@cache
def _fft_loops() -> dict[tuple[str, str], Loop] | None:
    try:
        pocketfft = importlib.import_module("numpy.fft._pocketfft_umath")
    except ImportError:
        return None
    loops: dict[tuple[str, str], Loop] = {}
    for name in ("fft", "ifft", "rfft_n_even", "rfft_n_odd", "irfft"):
        ufunc = getattr(pocketfft, name, None)
        found = _loops_of(ufunc) if isinstance(ufunc, np.ufunc) else None
        if found is None:
            return None
        for char in "df":
            kinds = char.upper() if name in ("fft", "ifft", "irfft") else char
            signature = f"{kinds}{char}->{char if name == 'irfft' else char.upper()}"
            if signature not in found:
                return None
            loops[name, char] = found[signature]
    return loops if all(_transforms(name, char, loop) for (name, char), loop in loops.items()) else None


def _loops_of(ufunc: np.ufunc) -> dict[str, Loop] | None:
    """By signature; None if the structure is not as expected."""
    if not _plain_build():
        return None
    words = (ctypes.c_int64 * 7).from_address(id(ufunc) + object.__basicsize__)
    counts = words[_NIN_NOUT] & 0xFFFFFFFF, words[_NIN_NOUT] >> 32, words[_NARGS] & 0xFFFFFFFF
    if counts != (ufunc.nin, ufunc.nout, ufunc.nargs) or words[_NTYPES] & 0xFFFFFFFF != ufunc.ntypes:
        return None
    if not all(words[k] for k in (_FUNCTIONS, _NAME, _TYPES)):
        return None
    if ctypes.string_at(words[_NAME]).decode(errors="replace") != ufunc.__name__:
        return None
    codes = (ctypes.c_char * (ufunc.ntypes * ufunc.nargs)).from_address(words[_TYPES])
    functions = (ctypes.c_int64 * ufunc.ntypes).from_address(words[_FUNCTIONS])
    data = [0] * ufunc.ntypes  # no table: loops that need no data
    if words[_DATA]:
        data = list((ctypes.c_int64 * ufunc.ntypes).from_address(words[_DATA]))
    loops = {}
    for k, signature in enumerate(ufunc.types):
        numbers = [np.dtype(c).num for c in signature.replace("->", "")]
        own = list(codes.raw[k * ufunc.nargs : (k + 1) * ufunc.nargs])
        if own != numbers or not functions[k]:
            return None
        loops[signature] = Loop(functions[k], data[k])
    return loops


def _transforms(name: str, char: str, loop: Loop) -> bool:
    """Whether the loop, called as we call it, gives what NumPy gives on two rows."""
    n = 5 if name == "rfft_n_odd" else 6
    rows = (np.arange(2 * n).reshape(2, n) % 7).astype(char if name.startswith("rfft") else char.upper())
    function: Any = {"fft": np.fft.fft, "ifft": np.fft.ifft, "irfft": np.fft.irfft}.get(name, np.fft.rfft)
    if name == "irfft":
        rows = rows[:, :4].copy()
    wanted = function(rows)
    found = np.zeros_like(wanted)
    factor = np.array(1 / n if name in ("ifft", "irfft") else 1, char)
    arguments = np.array([rows.ctypes.data, factor.ctypes.data, found.ctypes.data], np.int64)
    dimensions = np.array([2, rows.shape[1], wanted.shape[1]], np.int64)
    steps = np.array([rows.strides[0], 0, found.strides[0], rows.itemsize, found.itemsize], np.int64)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(loop.function)
    call(arguments.ctypes.data, dimensions.ctypes.data, steps.ctypes.data, loop.data)
    return np.allclose(found, wanted, rtol=1e-6)


# -- sorts of dtypes


@cache
def sort_functions(dtype: str) -> Sorts | None:
    """NumPy's functions for a dtype, or None where they cannot be had."""
    native = np.dtype(dtype)
    address = _array_functions(native)
    if address is None:
        return None
    words = (ctypes.c_int64 * (_ARGSORT_WORD + 3)).from_address(address)
    sorts = Sorts(words[_SORT_WORD], words[_ARGSORT_WORD], words[_SORT_WORD + 2], words[_ARGSORT_WORD + 2])
    if not all(sorts):
        return None
    pairs = ((sorts.sort, sorts.argsort), (sorts.stable_sort, sorts.stable_argsort))
    return sorts if all(_sorts(native, *pair) for pair in pairs) else None


def _array_functions(dtype: np.dtype[Any]) -> int | None:
    if not _plain_build():
        return None
    try:
        exported = importlib.import_module("numpy._core._multiarray_umath")._ARRAY_API
    except (ImportError, AttributeError):
        return None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    table = (ctypes.c_void_p * (_GET_ARRAY_FUNCTIONS + 1)).from_address(pointer(exported, None))
    version, get = table[_GET_ABI_VERSION], table[_GET_ARRAY_FUNCTIONS]
    if not version or not get or ctypes.CFUNCTYPE(ctypes.c_uint)(version)() != _ABI:
        return None
    address: int | None = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(get)(dtype)
    return address


def _sorts(dtype: np.dtype[Any], sort_address: int, argsort_address: int) -> bool:
    """Whether both functions order a few elements (NaN last)."""
    values = (np.arange(40) * 7 % 40).astype(dtype)  # booleans: one False
    if dtype.kind in "fc":
        values[3] = np.nan
    kept = values.copy()
    order = np.arange(len(values), dtype=np.int64)
    argsort = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 2, ctypes.c_int64, ctypes.c_void_p)(argsort_address)
    if argsort(values.ctypes.data, order.ctypes.data, len(values), None) != 0:
        return False
    sort = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)(sort_address)
    if sort(values.ctypes.data, len(values), None) != 0:
        return False
    wanted = np.sort(kept)
    same = np.array_equal(np.sort(order), np.arange(len(values)))
    return same and all(np.array_equal(x, wanted, equal_nan=dtype.kind in "fc") for x in (values, kept[order]))
