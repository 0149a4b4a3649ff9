"""OpenBLAS in one thread while our own pool runs its routines side by side: see `libraries` for why.

`ENTER` and `LEAVE` are statements of an adapter that has the guard's address, from `single_threaded`, in the variable
`guard`; they do nothing where that is zero.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

import numpy as np

from funcgrad.runtime.cython_api import openblas_threads

__all__ = ["ENTER", "LEAVE", "single_threaded"]

# Words of the guard, in bytes. NUMBER is the address of OpenBLAS's variable, RUNNING counts the adapters in BLAS;
# while it is not zero, SAVED is the user's number. A fork may catch any moment between two stores: RUNNING is raised
# before the number is touched, and falls after it is restored.
_RUNNING, _SAVED, _NUMBER, _LOCK, _UNLOCK, _MUTEX, _GUARD_BYTES = 0, 8, 16, 24, 32, 64, 192

ENTER = f"""
    if guard != 0:
        call1(load(guard + {_LOCK}), guard + {_MUTEX})
        running = load(guard + {_RUNNING})
        if running == 0:
            store(guard + {_SAVED}, load_i32(load(guard + {_NUMBER})))
        atomic_store(guard + {_RUNNING}, running + 1)
        if running == 0:
            store_i32(load(guard + {_NUMBER}), 1)
        call1(load(guard + {_UNLOCK}), guard + {_MUTEX})
"""

# A number other than one was set by the user while we ran: it stays.
LEAVE = f"""
    if guard != 0:
        call1(load(guard + {_LOCK}), guard + {_MUTEX})
        running = load(guard + {_RUNNING})
        if running == 1 and load_i32(load(guard + {_NUMBER})) == 1:
            store_i32(load(guard + {_NUMBER}), load(guard + {_SAVED}))
        atomic_store(guard + {_RUNNING}, running - 1)
        call1(load(guard + {_UNLOCK}), guard + {_MUTEX})
"""


_guards: dict[str, int] = {}


@cache
def single_threaded() -> int:
    """The address of the guard that keeps OpenBLAS in one thread, or 0 where BLAS has to be left alone."""
    number = openblas_threads()
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if number is None or libc is None or not hasattr(libc, "pthread_mutex_lock"):
        return 0
    words = np.zeros(_GUARD_BYTES // 8, np.int64)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(words))  # a tile may run until the very end of the process
    address = words.ctypes.data
    words[_NUMBER // 8] = number
    for word, name in ((_LOCK, "pthread_mutex_lock"), (_UNLOCK, "pthread_mutex_unlock")):
        words[word // 8] = ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0

    def make_mutex() -> None:
        libc.pthread_mutex_init(ctypes.c_void_p(address + _MUTEX), None)

    def after_fork_in_child() -> None:
        make_mutex()
        if words[_RUNNING // 8]:  # a product of a thread that the child does not have
            ctypes.c_int.from_address(number).value = int(words[_SAVED // 8])
            words[_RUNNING // 8] = 0

    make_mutex()
    os.register_at_fork(after_in_child=after_fork_in_child)
    return _guards.setdefault("OpenBLAS", address)  # two Python threads may come here at once: there is one guard
