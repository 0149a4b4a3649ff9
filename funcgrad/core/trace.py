"""Tracing: one current interpreter, and the values it hands out.

``Primitive.bind`` asks the current trace to process the operation. The outermost trace, ``EvalTrace``, runs NumPy;
every other trace has a ``parent`` that it was opened under, and does its own work by processing operations there.
A trace recognises its own tracers by identity; any other value is a constant to it, which is what keeps the
perturbations of nested derivatives apart.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import numpy as np

from ..errors import LeakedTracerError
from .avals import ShapedArray, aval_of, register_aval

if TYPE_CHECKING:
    from .primitive import Primitive

__all__ = [
    "EVAL",
    "STATE",
    "EvalTrace",
    "Source",
    "Trace",
    "Tracer",
    "acts_for_source",
    "axis_environment",
    "evaluate",
    "inside_transform",
    "is_inside",
    "leaked",
    "open_traces",
    "opened",
    "user_source",
    "watch_values",
]


F = TypeVar("F", bound=Callable[..., Any])


class Trace:
    """An interpreter of primitives. ``process`` may be called whichever trace is current."""

    __slots__ = ("__weakref__", "checks_shapes", "parent", "user")

    look_at_rule: ClassVar[Callable[..., None] | None] = None
    """While somebody watches values: called with what a derivative rule has computed, ``(primitive, operands,
    results)``. (Rules compute with Python's operators, which on arrays are NumPy's: no operation of ours.)"""

    parent: Trace | None
    user: Callable[..., Any] | None
    """The user's function that is traced, where there is one: for messages."""
    checks_shapes: bool
    """Whether ``process`` begins with the shape rule on the very operands that it is given."""

    def __init__(
        self, parent: Trace | None, user: Callable[..., Any] | None = None, checks_shapes: bool = False
    ) -> None:
        self.parent = parent
        self.user = user
        self.checks_shapes = checks_shapes

    def of_user(self) -> str:
        """`` of loss at file.py:3``: the function that is traced and where it is written, for messages."""
        if self.user is None:
            return ""
        fun = getattr(self.user, "__wrapped__", self.user)
        code = getattr(fun, "__code__", None)
        where = f" at {code.co_filename}:{code.co_firstlineno}" if code is not None else ""
        return f" of {getattr(fun, '__name__', type(fun).__name__)}{where}"

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        raise NotImplementedError


class Tracer:
    """A stand-in for an array: it has an aval, belongs to a trace, and records what is done to it.

    Arithmetic, indexing and NumPy's protocols are attached by the ``numpy`` face, which knows the operations.
    """

    __slots__ = ("__weakref__", "_trace", "_views")

    _trace: Trace
    _views: Any
    contents: ClassVar[tuple[str, ...]] = ()
    """The attributes that an in-place write replaces; none where nothing can be written to."""

    __array_priority__ = 1000.0
    __hash__ = object.__hash__

    @property
    def aval(self) -> ShapedArray:
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.aval.dtype

    @property
    def ndim(self) -> int:
        return len(self.aval.shape)

    @property
    def size(self) -> int:
        return self.aval.size

    def origin(self) -> str:
        """Where the value was made, for messages; empty where the trace does not record it."""
        return ""

    def replace_with(self, other: Tracer) -> None:
        """Become ``other`` (of the same kind and trace): an in-place update of the user's, made functional."""
        assert type(other) is type(self) and self.contents
        for name in self.contents:
            setattr(self, name, getattr(other, name))

    def strengthened(self) -> Tracer | None:
        """The same value with a strong dtype, if that takes no operation; else None."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}<{self.aval}>"


register_aval(Tracer, attrgetter("aval"))


class EvalTrace(Trace):
    """The outermost interpreter: NumPy."""

    __slots__ = ()

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        for x in args:
            if isinstance(x, Tracer):
                raise leaked(x, primitive)
        out = primitive.impl(*args, **params)
        if primitive.multiple_results:
            return tuple([x[()] if type(x) is np.ndarray and not x.ndim else x for x in out])
        if type(out) is np.ndarray:
            if out.ndim:
                return out
            out = out[()]
        if args and type(args[0]) in _WEAK and params.get("weak", True) and all([type(x) in _WEAK for x in args]):
            # Python's numbers give Python's numbers
            return out.item() if isinstance(out, np.generic) and out.dtype.kind in "ifc" else out
        return out


_WEAK: Final = frozenset((float, int, complex))


def strong_value(x: Any) -> Any:
    """``x`` with a strong dtype, or None where that takes an operation."""
    if isinstance(x, Tracer):
        return x.strengthened()
    return aval_of(x).dtype.type(x) if type(x) in _WEAK else x


def leaked(x: Tracer, primitive: Primitive | str) -> LeakedTracerError:
    made = x.origin()
    return LeakedTracerError(
        f"{primitive} was given a tracer {x.aval} of a transformation that has ended or is not the current one"
        f"{f'; the tracer was made by {made}' if made else ''}. "
        "A traced function leaks when it stores a tracer in a global, attribute, closure or default; "
        "return the value from the function instead."
    )


EVAL: Final = EvalTrace(None)

_process: Final = EvalTrace.process


def evaluate(primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """The operation on values, whatever trace is current, with nobody watching."""
    return _process(EVAL, primitive, args, params)


def watch_values(watcher: Callable[[Primitive, tuple[Any, ...], dict[str, Any], Any], None] | None) -> None:
    """Have ``watcher(primitive, args, params, out)`` called for every operation on values; None: nobody is.

    The method is replaced, not asked, so that nobody watching costs nothing.
    """

    def process(self: EvalTrace, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        out = _process(self, primitive, args, params)
        watcher(primitive, args, params, out)  # type: ignore[misc]
        return out

    EvalTrace.process = _process if watcher is None else process  # type: ignore[method-assign]


class _State(threading.local):
    """Per thread: the current trace, the sizes of the named axes in scope, and the line on whose behalf a program is
    rewritten at the moment (see `acts_for_source`)."""

    trace: Trace = EVAL
    axes: tuple[tuple[Any, int], ...] = ()
    source: Source | None = None


STATE: Final = _State()


open_traces: Final = ctypes.c_int64(0)
"""How many traces are open, in all threads: native code that finds none need not ask which one is current."""

_counting: Final = threading.Lock()


class opened:
    """``with opened(trace):`` makes ``trace`` current, and afterwards again the one that was."""

    __slots__ = ("saved", "trace")

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def __enter__(self) -> None:
        self.saved = STATE.trace
        with _counting:
            open_traces.value += 1
        STATE.trace = self.trace

    def __exit__(self, *_: object) -> None:
        STATE.trace = self.saved
        with _counting:
            open_traces.value -= 1


@contextmanager
def axis_environment(name: Any, size: int) -> Iterator[None]:
    """Bring a named axis into scope."""
    saved = STATE.axes
    STATE.axes = (*saved, (name, size))
    try:
        yield
    finally:
        STATE.axes = saved


class Source:
    """A line of the user's program; the text is made only when a message needs it. ``backward``: what is done in the
    backward pass, because of this line of the forward pass, or by this line of a backward rule."""

    __slots__ = ("backward", "filename", "function", "line")

    def __init__(self, filename: str, line: int, function: str, backward: bool = False) -> None:
        self.filename = filename
        self.line = line
        self.function = function
        self.backward = backward

    def pulled_back(self) -> Source:
        return self if self.backward else Source(self.filename, self.line, self.function, True)

    def __str__(self) -> str:
        return f"{self.filename}:{self.line} ({self.function})"


_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_NUMPY: Final = os.path.dirname(os.path.abspath(np.__file__)) + os.sep
_USERS, _LIBRARY, _MAY_ACT = 0, 1, 2
_kinds: dict[str, int] = {}
_acting: dict[int, Callable[..., Any]] = {}
_inside: dict[int, Callable[..., Any]] = {}


def _kind_of_file(filename: str) -> int:
    """Whose a frame is: the user's, or this package's and NumPy's, of which some functions act for other lines."""
    known = _kinds.get(filename)
    if known is None:
        own = filename.startswith(_PACKAGE) or filename.startswith(_NUMPY) or filename.startswith("<__array")
        known = _kinds[filename] = _LIBRARY if own else _USERS
    return known


def acts_for_source(fun: F) -> F:
    """Mark a function that runs operations which the user wrote elsewhere: it sets ``STATE.source`` for each.

    What a transform makes of an equation then has the line of that equation, and not the one where the user asked for
    the transform.
    """
    _kinds[fun.__code__.co_filename] = _MAY_ACT
    _acting[id(fun.__code__)] = _inside[id(fun.__code__)] = fun
    return fun


def inside_transform(fun: F) -> F:
    """Mark a function whose operations are a transformation's, and not the user's own: see `is_inside`."""
    _kinds[fun.__code__.co_filename] = _MAY_ACT
    _inside[id(fun.__code__)] = fun
    return fun


def user_source() -> Source | None:
    """Where the user asked for the current operation: the innermost line outside the package, or the one that the
    innermost function of the package acts for."""
    frame: FrameType | None = sys._getframe(2)  # who asks is of the package
    known = _kinds.get
    while frame is not None:
        code = frame.f_code
        kind = known(code.co_filename)
        if kind is None:
            kind = _kind_of_file(code.co_filename)
        if kind == _USERS:
            acts = STATE.source
            return Source(code.co_filename, frame.f_lineno, code.co_name, acts is not None and acts.backward)
        if kind == _MAY_ACT and id(code) in _acting and STATE.source is not None:
            return STATE.source
        frame = frame.f_back
    return None


def is_inside() -> bool:
    """Whether the current operation is part of a transformation or of a program that is run, and not one that the
    user asked for by itself."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _kind_of_file(frame.f_code.co_filename) != _USERS:
        if id(frame.f_code) in _inside:
            return True
        frame = frame.f_back
    return False
