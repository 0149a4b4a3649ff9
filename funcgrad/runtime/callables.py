"""Objects that run compiled programs when they are called, with no Python in between.

The programs are the built-ins of `dispatch`. An object holds a few of them, the native function ``call_object`` stands
where its type has the address of what calls it (``tp_call``), tries one after the other, and leaves to the method
``__call__`` what none of them takes: calls with keywords, calls while something is traced, other arguments. A call that
is known so costs what its program does, not even the frame of a method: 60 nanoseconds for a scalar, where Python took
140 to get to the program.

The place of that address in a type is part of CPython's ABI; it is tried out once, and where it is not as expected all
calls go through the method. Python puts its own address there again whenever somebody assigns to ``__call__``.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, Final

import numpy as np

from funcgrad.core.trace import open_traces
from funcgrad.runtime.compile import core_function
from funcgrad.runtime.dispatch import DECLINED, HEADER, RUN_WORD, Builtin, Owner

__all__ = ["NativelyCalled"]

_MOST = 8
"""Programs of an object. One that does not take its arguments costs two nanoseconds."""
_PATIENCE = 64
"""Programs that came too late, to one that takes another's place: who calls with ever new shapes must not pay for the
order among them."""

# Words of the array that an object holds, in bytes: what calls its method, how many traces are open, count, records
_METHOD, _TRACES, _COUNT, _RECORDS = range(0, 32, 8)
_SIZE, _ITEMS = HEADER, HEADER + 8  # of a tuple

_CALL_OBJECT = f"""
def call_object(self, args, kwargs):
    programs = load(load(self + {HEADER}) + {HEADER})
    if kwargs == 0 and load(load(programs + {_TRACES})) == 0:
        for k in range(load(programs + {_COUNT})):
            record = load(programs + {_RECORDS} + 8 * k)
            answer = call3(load(record + {RUN_WORD}), record, args + {_ITEMS}, load(args + {_SIZE}))
            if answer != {DECLINED}:
                return answer
    return call3(load(programs + {_METHOD}), self, args, kwargs)
"""

_call_object_address = core_function(_CALL_OBJECT, "call_object", 3)


class NativelyCalled:
    """A base for classes with a method ``__call__``, whose objects can `remember` programs that do the same."""

    __slots__ = ("_programs",)
    _programs: np.ndarray

    _method: ClassVar[Callable[..., Any]]
    """``__call__`` of the class that is built on this one. While somebody has put another in its place, and in
    classes that have one of their own, that one sees every call."""
    _late: ClassVar[int] = 0

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if NativelyCalled in cls.__bases__:
            cls._method = cls.__call__

    def __init__(self) -> None:
        self.forget()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def forget(self) -> None:
        """Hold no programs."""
        self._programs = _table(())

    @property
    def programs(self) -> tuple[Builtin, ...]:
        """What is held, in the order in which it is tried."""
        owner: Any = self._programs.base
        return owner.keep

    def remember(self, program: Builtin) -> None:
        """From now on, try ``program`` first."""
        kind = type(self)
        if kind.__call__ is not kind._method or not _layout_holds():
            return
        if len(self.programs) == _MOST:
            NativelyCalled._late += 1
            if NativelyCalled._late % _PATIENCE:
                return
        self._programs = _table((program, *self.programs[: _MOST - 1]))
        _slot(kind).value = _call_object_address()


def _table(programs: tuple[Builtin, ...]) -> np.ndarray:
    records = [p.__self__.ctypes.data for p in programs]  # type: ignore[attr-defined]
    words = np.array([_method_caller(), ctypes.addressof(open_traces), len(records), *records], np.int64)
    return np.asarray(Owner(words, programs))


# -- the layout of types and objects

_TP_CALL: Final = HEADER + 14 * 8  # the fourteenth word behind ``ob_size``


def _slot(kind: type) -> ctypes.c_int64:
    return ctypes.c_int64.from_address(id(kind) + _TP_CALL)


class _Sample(NativelyCalled):
    __slots__ = ()

    def __call__(self) -> None: ...


@cache
def _method_caller() -> int:
    """The interpreter's own ``tp_call`` for classes with a method ``__call__``; 0 where there is none to be found."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return 0
    return _slot(_Sample).value


@cache
def _layout_holds() -> bool:
    sample = _Sample()
    held = ctypes.c_int64.from_address(id(sample) + HEADER).value
    callers = _slot(_Sample).value, _slot(NativelyCalled).value, _slot(object).value
    return held == id(sample._programs) and callers == (_method_caller(), _method_caller(), 0) != (0, 0, 0)
