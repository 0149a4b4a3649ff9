"""The closed vocabulary in which primitives say how they are compiled.

A primitive's ``lower`` field is one of these values. The kernel builder reads them and never asks a primitive for
its name; a backend prints kernels and never sees a primitive. P primitives and B backends need P + B pieces.

==============  =====================================================================================================
``Scalar``      one result element from one element of each operand (operands broadcast as in NumPy)
``Reduce``      fold the axes ``params["axes"]`` with a monoid
``ArgReduce``   index (int64) of the first extreme element along ``params["axis"]``
``Cumulate``    running fold along ``params["axis"]`` (``params["reverse"]``)
``View``        a map of layouts: no arithmetic, no memory
``Barrier``     the operands themselves; nothing behind it shares a kernel with anything before it
``Generate``    elements from their own index: ``iota``
``Assemble``    pieces written into regions of a fresh array: concatenate, pad
``Contract``    ``dot_general`` by ``params["dimension_numbers"]``
``Convolve``    ``conv``: something simpler, or patches times a kernel
``DynamicSlice``  a window at a computed start;  ``DynamicUpdate``  the same, written
``Gather``      read at computed indices;  ``Scatter``  write or accumulate at computed indices
``Scan`` ``While`` ``Branch``  loops and branches: programs inside the program, by their jaxprs in ``params``
``Call``        the jaxpr ``params["jaxpr"]``, applied to the operands, or to these behind a barrier
``Inline``      a function of tracers written with other primitives, expanded before fusion
``Library``     a routine of a native library;  ``Host``  Python code, with the reason why
==============  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..record import record
from .layout import Layout

__all__ = [
    "ArgReduce",
    "Assemble",
    "Barrier",
    "Branch",
    "Call",
    "Contract",
    "Convolve",
    "Cumulate",
    "DynamicSlice",
    "DynamicUpdate",
    "Gather",
    "Generate",
    "Host",
    "Inline",
    "Library",
    "Lowering",
    "Piece",
    "Reduce",
    "Scalar",
    "Scan",
    "Scatter",
    "View",
    "While",
]


@record(frozen=True)
class Scalar:
    """``fn`` names a scalar template of the code generator (``"add"``, ``"sin"``, ``"select"``, ``"convert"``)."""

    fn: str


@record(frozen=True)
class Reduce:
    """``monoid`` is one of ``add mul max min and or xor``; max and min propagate NaN, as NumPy's do."""

    monoid: str


@record(frozen=True)
class ArgReduce:
    """``extreme`` is ``max`` or ``min``; the first NaN wins, as in NumPy."""

    extreme: str


@record(frozen=True)
class Cumulate:
    monoid: str


@record(frozen=True)
class View:
    """``rule(layout of the operand, **params)`` gives the result's layout, or None where a copy is needed."""

    rule: Callable[..., Layout | None]


@record(frozen=True)
class Barrier:
    """Several operands, which are also the results. What depends on them is computed after all that stands before, and
    in kernels of its own, so that equal computations on both sides remain two."""


@record(frozen=True)
class Generate:
    """``iota``: the index along ``params["dimension"]``."""

    fn: str


@record(frozen=True)
class Piece:
    """Operand ``operand``, seen through ``source``, fills the elements ``target`` of the output."""

    operand: int
    source: Layout
    target: Layout


@record(frozen=True)
class Assemble:
    """``rule(*operand avals, **params)`` gives pieces, disjoint or in writing order, that cover the output."""

    rule: Callable[..., Sequence[Piece]]


@record(frozen=True)
class Contract:
    pass


@record(frozen=True)
class Convolve:
    """Operands ``(lhs, rhs)`` arranged as ``ops.conv`` says. ``simpler(*operand avals, **params)`` is a function of
    tracers to be expanded instead, or None; ``pad(x, value, config)`` pads and dilates ``lhs``."""

    simpler: Callable[..., Callable[..., Any] | None]
    pad: Callable[..., Any]


@record(frozen=True)
class DynamicSlice:
    """Operands ``(x, *starts)``; ``params["sizes"]``. Starts are clamped so that the window fits."""


@record(frozen=True)
class DynamicUpdate:
    """Operands ``(x, update, *starts)``: ``x`` with the window replaced, starts clamped."""


@record(frozen=True)
class Gather:
    """Operands ``(x, *indices)``; see ``ops.indexing.gather`` for axes and out-of-bounds modes."""


@record(frozen=True)
class Scatter:
    """Operands ``(x, updates, *indices)``; ``combine`` is one of ``set add mul max min``."""

    combine: str


@record(frozen=True)
class Scan:
    """Operands ``(*consts, *carry, *xs)``; ``params``: ``jaxpr``, ``length``, ``reverse``, ``n_consts`` and
    ``n_carry``."""


@record(frozen=True)
class While:
    """Operands ``(*cond_consts, *body_consts, *carry)``; ``params``: ``cond_jaxpr``, ``body_jaxpr``,
    ``cond_nconsts``, ``body_nconsts``."""


@record(frozen=True)
class Branch:
    """Operands ``(index, *operands)``; ``params``: ``branches``, one for each index; the index is clamped."""


@record(frozen=True)
class Call:
    """``fenced(params)``: whether the operands pass a barrier first; see ``Barrier``."""

    fenced: Callable[[dict[str, Any]], bool] = lambda params: False


@record(frozen=True)
class Inline:
    fun: Callable[..., Any]


@record(frozen=True)
class Library:
    """``routine`` names an adapter of the runtime (``"sort"``, ``"cholesky"``).

    Where ``results`` is given the adapter is native, of stacks of matrices (the last two axes; a result may be a
    vector per matrix): ``operands`` and ``results`` say how each matrix lies in memory: by ``rows`` or by ``columns``,
    without gaps, or, of operands that are only read, as a ``matrix`` whose rows or columns have adjacent elements;
    ``vectors`` are stacks of vectors (one axis).
    Of ``overwrites = ((result, operand), ...)`` the result may take over the operand's memory. Without ``results`` the
    routine runs in Python.

    ``small``: the code generator has a kernel for many small matrices. ``otherwise`` replaces a routine that exists
    for these alone: a function of tracers, as in ``Inline``. Operands named ``unread`` concern derivatives only.
    """

    routine: str
    operands: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    overwrites: tuple[tuple[int, int], ...] = ()
    small: bool = False
    otherwise: Callable[..., Any] | None = None


@record(frozen=True)
class Host:
    """Runs ``impl`` in Python; ``reason`` is what ``explain`` tells the user. ``pinned``: it runs code of the user's,
    and as often as is written: it stays inside the loop that it is in."""

    reason: str
    pinned: bool = False


Lowering = (
    Scalar
    | Reduce
    | ArgReduce
    | Cumulate
    | DynamicSlice
    | DynamicUpdate
    | View
    | Barrier
    | Generate
    | Assemble
    | Scan
    | While
    | Branch
    | Call
    | Contract
    | Convolve
    | Gather
    | Scatter
    | Inline
    | Library
    | Host
)
