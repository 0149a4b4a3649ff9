"""Adapters of library routines, written as what they do to one matrix.

A `Recipe` is the text of a kernel whose parallel axis counts the matrices of a stack, and tiles of them. In its body
`$name` is the value and `&name` the address of a word of the step's table (LAPACK takes everything by reference).
Only the text is compiled, once; sizes, letters and the routine's address are words.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from funcgrad.record import record
from funcgrad.runtime.compile import compile_runtime
from funcgrad.runtime.cython_api import cython_function
from funcgrad.runtime.executor import Step
from funcgrad.runtime.guard import ENTER, LEAVE, single_threaded
from funcgrad.runtime.libraries import GEMM_DTYPES, Matrix

__all__ = ["ANY", "ARRAY", "Recipe", "aligned", "ask", "lapack_function", "real_work"]

_WORTH_A_THREAD = 200_000  # multiply-adds
_INFO = 64
"""Bytes before the working memory of a slice: LAPACK's return value lies there."""


@record(frozen=True)
class Recipe:
    """`matrices` names the operands and results, in the body the addresses of the current ones; `words` the table.

    In the body `info` is the address of LAPACK's return value, `work` that of `$scratch` bytes.
    """

    name: str
    matrices: tuple[str, ...]
    words: tuple[str, ...]
    body: str

    @property
    def all_words(self) -> tuple[str, ...]:
        return ("malloc", "free", "memmove", "memset", "guard", "scratch", "tiles", *self.words)

    def source(self) -> str:
        first = 4 * len(self.matrices)
        place = {w: 8 * (first + k) for k, w in enumerate(self.all_words)}

        def expand(text: str) -> str:
            text = re.sub(r"&(\w+)", lambda m: f"ints + {place[m[1]]}", text)
            return re.sub(r"\$(\w+)", lambda m: f"load(ints + {place[m[1]]})", text)

        head, each = [], []
        for k, name in enumerate(self.matrices):
            at = 32 * k
            head.append(f"    {name}_0 = load(slots + 8 * load(ints + {at})) + load(ints + {at + 8})")
            each.append(f"        {name} = {name}_0 + i * load(ints + {at + 16}) + t * load(ints + {at + 24})")
        body = "\n".join(["        " + line for line in self.body.strip("\n").splitlines()])
        return expand(
            f"def {self.name}(slots, ints, lo, hi):\n"
            + "\n".join(head)
            + f"""
    info = call1($malloc, $scratch + {_INFO})
    work = info + {_INFO}
    if info == 0:
        store(slots - 8, 1)
        hi = lo
    guard = $guard{ENTER}
    for number in range(lo, hi):
        i = number // $tiles
        t = number - i * $tiles
        last = 8 if t == $tiles - 1 else 0
"""
            + "\n".join(each)
            + f"\n{body}\n{LEAVE}\n    call1($free, info)\n"
        )

    @property
    def address(self) -> int:
        return _compiled(self)

    def step(
        self, matrices: Sequence[Matrix], words: Mapping[str, int], batch: int, work: int, scratch: int = 0,
        tiles: int = 1, strides: Sequence[int] | None = None,
    ) -> Step:  # fmt: skip
        """`work`: multiply-adds for one matrix; `strides`: bytes from tile to tile of each matrix."""
        ints: list[int] = []
        for k, x in enumerate(matrices):
            ints += [x.slot, x.offset, x.batch_stride, strides[k] if strides else 0]
        guard = single_threaded()
        ints += [*_memory_functions(), guard, scratch, tiles]
        ints += [words[name] for name in self.words]
        grain = max(1, _WORTH_A_THREAD * tiles // max(work, 1)) if guard and batch * tiles > 1 else 0
        return Step(self.address, ints, batch * tiles, grain, checks=True)


@cache
def _compiled(recipe: Recipe) -> int:
    return compile_runtime(recipe.source(), recipe.name, 4, returns=False)


@cache
def _memory_functions() -> tuple[int, ...]:
    """The C library's malloc, free, memmove and memset."""
    libc = ctypes.CDLL(None) if os.name == "posix" else ctypes.CDLL("msvcrt")
    found = (libc.malloc, libc.free, ctypes.memmove, ctypes.memset)
    return tuple([ctypes.cast(f, ctypes.c_void_p).value or 0 for f in found])


def lapack_function(name: str, dtype: np.dtype[Any]) -> int:
    """The address of LAPACK's `name` for a dtype; orthogonal and symmetric ones have other names if complex."""
    letter = GEMM_DTYPES[dtype]
    if dtype.kind == "c":
        name = {"orglq": "unglq", "syevd": "heevd"}.get(name, name)
    return cython_function("cython_lapack", letter + name)


ARRAY, ANY = 0, -1
"""In a query: an array, and the size of working memory that is asked for."""


def ask(name: str, dtype: np.dtype[Any], arguments: Sequence[int]) -> list[int]:
    """The sizes of working memory that a routine recommends, in elements: what it writes to the arrays before the
    arguments `ANY`, whose dtypes are its own, the real one and int32."""
    cells = [(ctypes.c_int64 * 4)(a) for a in (*arguments, ARRAY)]
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(cells))(lapack_function(name, dtype))(*map(ctypes.addressof, cells))
    answers = [cells[k - 1] for k, a in enumerate(arguments) if a == ANY]
    if not answers[1:]:
        dtypes = [dtype]
    else:
        dtypes = [dtype, *[np.empty(0, dtype).real.dtype] * (len(answers) - 2), np.dtype(np.int32)]
    return [int(np.frombuffer(bytes(x), d, 1)[0].real) + 1 for x, d in zip(answers, dtypes, strict=True)]


def aligned(nbytes: int) -> int:
    return -(-nbytes // 64) * 64


def real_work(multiply_adds: int, dtype: np.dtype[Any]) -> int:
    return multiply_adds * (4 if dtype.kind == "c" else 1)
