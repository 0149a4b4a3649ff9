"""``debug_nans`` and ``debug_infs``: results are looked at, and the first operation to blame is named.

While a switch is on, calls of compiled functions, operations on arrays and the results of transformations are watched
(``core.trace.watch_values``, ``transforms.flat.watch_results``); while none is, nothing is.

Inside a transformation (an eager ``grad``) a NaN is only noted, with the operation that made it and that one's
operands; it is an error if it reaches the result. So what a mask removes does no harm.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import tree
from ..control.derived import ValueOfEffectError
from ..core.primitive import ZERO, Primitive
from ..core.trace import EVAL, STATE, Source, Trace, Tracer, is_inside, user_source, watch_values
from ..errors import FuncgradError, NonFiniteError
from ..jit import Compiled, JitFunction
from ..transforms.flat import leaf_name, watch_results
from .origin import Input, Origin, Test, Walk, find_origin, summary

__all__ = ["SWITCHES", "infs", "nans", "set_default"]

SWITCHES = ("debug_nans", "debug_infs")
_VARIABLES = {name: "FUNCGRAD_" + name.upper() for name in SWITCHES}

_defaults: dict[str, bool] = dict.fromkeys(SWITCHES, False)
_lock = threading.Lock()
_blocks = 0
"""How many blocks, in all threads, have a switch on."""


class _Local(threading.local):
    """What this thread's blocks say; and while a transformation runs, what was noted."""

    def __init__(self) -> None:
        self.chosen: dict[str, bool] = {}
        self.notes: dict[int, _Note] = {}


_local = _Local()


class _Note:
    """An operation that gave something that is not finite, or (``params`` is None) a derivative rule that did. It
    holds its results, so that their ids stay theirs."""

    __slots__ = ("args", "outs", "params", "primitive", "source")

    def __init__(
        self, primitive: Primitive, args: Sequence[Any], params: dict[str, Any] | None, outs: Sequence[Any]
    ) -> None:
        self.primitive = primitive
        self.args = args
        self.params = params
        self.outs = outs
        self.source: Source | None = user_source()


def is_on(name: str) -> bool:
    return _local.chosen.get(name, _defaults[name])


def _test() -> Test | None:
    """Which elements are not wanted in this thread; None: all are."""
    nan, inf = is_on("debug_nans"), is_on("debug_infs")
    if nan and inf:
        return lambda x: ~np.isfinite(x)
    return np.isnan if nan else np.isinf if inf else None


_RUNS: dict[type, Any] = {JitFunction: JitFunction.__call__, Compiled: Compiled.__call__}


def _watched(run: Any) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: _watch_call(run, self, args, kwargs)


def _install() -> None:
    """Methods are replaced, not asked, so that nobody watching costs nothing."""
    on = _blocks > 0 or any(_defaults.values())
    for kind, run in _RUNS.items():
        type.__setattr__(kind, "__call__", _watched(run) if on else run)
    watch_values(_watch_value if on else None)
    watch_results(_watch_results if on else None)
    Trace.look_at_rule = staticmethod(_watch_rule) if on else None


def set_default(name: str, value: bool) -> None:
    """Turn a switch on or off for all threads that are in no block of it."""
    with _lock:
        _defaults[name] = bool(value)
        _install()


@contextmanager
def _switched(name: str, value: bool) -> Iterator[None]:
    global _blocks
    saved, notes = _local.chosen, _local.notes
    _local.chosen, _local.notes = {**saved, name: bool(value)}, {}
    with _lock:
        _blocks += bool(value)
        _install()
    try:
        yield
    finally:
        with _lock:
            _blocks -= bool(value)
            _install()
        _local.chosen, _local.notes = saved, notes


@contextmanager
def _nobody_watching() -> Iterator[None]:
    """While a program is run once more."""
    saved = _local.chosen
    _local.chosen = dict.fromkeys(SWITCHES, False)
    try:
        yield
    finally:
        _local.chosen = saved


def nans(enable: bool = True) -> Any:
    """A block in which a NaN in the result of a compiled function, a transformation or an operation is an error.

    The error (a ``FloatingPointError``) names the operation that made the NaN of operands that had none: the line, its
    operands, the step of a loop, and whether it was in the forward or in the backward pass. What reaches no result does
    not count. To find it the program is run once more, operation by operation; until then a call costs one look at its
    results.

    NumPy's own functions, called outside of all that, are NumPy's: see ``np.seterr``.

    The switch is this thread's. For the whole process: ``funcgrad.config.update("debug_nans", True)``, or
    ``FUNCGRAD_DEBUG_NANS=1`` in the environment.

    >>> import numpy as np
    >>> from funcgrad import jit
    >>> f = jit(lambda x: np.sum(np.log(x) * 2))
    >>> f(np.array([1.0, -1.0]))
    np.float64(nan)
    >>> with nans():
    ...     f(np.array([1.0, -1.0]))
    Traceback (most recent call last):
        ...
    funcgrad.errors.NonFiniteError: NaN in the result of <lambda>...: made by log at ...
    """
    return _switched("debug_nans", enable)


def infs(enable: bool = True) -> Any:
    """As `nans`, of infinities: ``funcgrad.config.update("debug_infs", True)``, ``FUNCGRAD_DEBUG_INFS=1``.

    >>> from funcgrad import jit
    >>> with infs():
    ...     jit(lambda x: 1 / x)(0.0)
    Traceback (most recent call last):
        ...
    funcgrad.errors.NonFiniteError: an infinity in the result of <lambda>...: made by div at ...
    """
    return _switched("debug_infs", enable)


# watching -------------------------------------------------------------------------------------------------------------


def _is_bad(test: Test, x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        return type(x) in (float, complex) and bool(test(x))
    return not isinstance(x, Tracer) and dtype.kind in "fc" and bool(np.any(test(x)))


def _watch_call(run: Any, fun: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    test = _test() if STATE.trace is EVAL else None
    if test is None:
        return run(fun, *args, **kwargs)
    kept = args, kwargs
    if isinstance(fun, JitFunction) and fun.donates:
        kept = tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, kept)
    out = run(fun, *args, **kwargs)
    leaves, out_tree = tree.flatten(out)
    for path, x in zip(tree.leaf_paths(out_tree), leaves, strict=True):
        if _is_bad(test, x):
            _local.notes.clear()
            _blame_call(test, fun, *kept, path, x)
    return out


def _blame_call(
    test: Test, fun: JitFunction | Compiled, args: tuple[Any, ...], kwargs: dict[str, Any], path: str, bad: Any
) -> None:
    if isinstance(fun, Compiled):
        traced, leaves = fun.traced, tree.leaves((args, kwargs))
    else:
        traced, leaves = fun.program(args, kwargs)
    where = f" at result{path}" if path else ""
    head = f"{_word(test, bad)} in the result of {traced.fun_name}{where}"
    try:
        with _nobody_watching():
            found = find_origin(test, traced.jaxpr, leaves)
    except ValueOfEffectError as error:
        raise NonFiniteError(
            f"{head}. Its origin cannot be sought by running it again: {error.where} gives a value that may be another "
            "the next time."
        ) from None
    except FuncgradError as error:
        raise NonFiniteError(f"{head}. Its origin cannot be sought by running it again: {error}") from None
    if isinstance(found, Input):
        if found.index >= 0:
            leaf = tree.leaves_with_path(traced.in_tree.unflatten(leaves))[found.index][0]
            plain = fun.__wrapped__ if isinstance(fun, JitFunction) else None  # type: ignore[attr-defined]
            name = leaf_name(plain, leaf) if plain is not None and not fun.has_static else f"argument{_key(leaf)}"  # type: ignore[union-attr]
            raise NonFiniteError(f"{head}: {name} holds it already: {_place(test, found.value)}.", found)
        raise NonFiniteError(f"{head}: an array that {traced.fun_name} captures holds it already.", found)
    if found is None:
        raise NonFiniteError(
            f"{head}. Operation by operation the same program gives none: it depends on the order of summation, or on "
            "values at the border of the range."
        )
    raise NonFiniteError(f"{head}: {describe(test, found)}", found)


def _key(path: tuple[Any, ...]) -> str:
    return tree.keystr(path[1:])


def _watch_value(primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any], out: Any) -> None:
    test = _test()
    if test is None:
        return
    outs = out if primitive.multiple_results else (out,)
    bad = [x for x in outs if _is_bad(test, x)]
    if not bad:
        return
    note = _Note(primitive, args, params, outs)
    if STATE.trace is EVAL and not is_inside():
        _blame_note(test, note, f"{_word(test, bad[0])} in the result of {primitive}", bad[0])
    _local.notes.update((id(x), note) for x in bad)


def _watch_rule(primitive: Primitive, operands: Sequence[Any], results: Sequence[Any]) -> None:
    test = _test()
    if test is None:
        return
    known = [x for x in operands if x is not ZERO]
    bad = [x for x in results if x is not None and x is not ZERO and _is_bad(test, x)]
    fresh = [x for x in bad if id(x) not in _local.notes and not any([x is y for y in known])]
    if fresh:
        note = _Note(primitive, known, None, fresh)
        _local.notes.update((id(x), note) for x in fresh)


_UNSEEN = "it was given, or made by NumPy itself"


def _watch_results(results: Sequence[Any], last: bool) -> None:
    """At the end of a transformation: what was noted is an error if it got here."""
    test = _test() if STATE.trace is EVAL and not is_inside() else None
    if test is None:
        return
    notes = _local.notes
    for x in results:
        if _is_bad(test, x):
            _local.notes = {}
            head = f"{_word(test, x)} in the result of a transformation"
            note = notes.get(id(x)) or (list(notes.values()) or [None])[-1]  # type: ignore[list-item]
            if note is None:
                raise NonFiniteError(f"{head}: {_UNSEEN}, {_place(test, x)}.", Input(-1, x))
            while True:
                before = [a for a in note.args if _is_bad(test, a)]
                if not before or id(before[0]) not in notes:
                    break
                note = notes[id(before[0])]
            if before and note.params is not None:
                where = f" It came with an operand of {note.primitive} at {note.source}." if note.source else ""
                raise NonFiniteError(f"{head}: {_UNSEEN}, {_place(test, before[0])}.{where}", Input(-1, before[0]))
            _blame_note(test, note, head, x)
    if results and last:
        notes.clear()


def _blame_note(test: Test, note: _Note, head: str, bad: Any) -> None:
    given = [a for a in note.args if _is_bad(test, a)]
    if given and note.params is not None:
        raise NonFiniteError(f"{head}: {_UNSEEN}, {_place(test, given[0])}. At {note.source}.", Input(-1, given[0]))
    result = next((x for x in note.outs if _is_bad(test, x)), bad)
    if note.params is None:
        found = Origin(note.primitive, note.source, tuple(note.args), result)
        raise NonFiniteError(f"{head}: {describe(test, found)}", found)
    saved = STATE.trace
    STATE.trace = EVAL
    try:
        with np.errstate(all="ignore"), _nobody_watching():
            found = Walk(test).operation(note.primitive, note.args, note.params, result, note.source)
    finally:
        STATE.trace = saved
    raise NonFiniteError(f"{head}: {describe(test, found)}", found)


# texts ----------------------------------------------------------------------------------------------------------------


def _word(test: Test, x: Any) -> str:
    return "NaN" if bool(np.any(np.isnan(x) & test(x))) else "an infinity"


def _place(test: Test, x: Any) -> str:
    """How many elements, and the first."""
    if not np.ndim(x):
        return summary(x)
    found = np.argwhere(test(x))
    return f"{len(found)} of the {np.size(x)} elements of {summary(x)}, the first at index {_index(found[0])}"


def _index(row: Any) -> str:
    return str(tuple([int(k) for k in row]))


def describe(test: Test, origin: Origin) -> str:
    """The operation to blame, in a few lines."""
    source = origin.source
    given = any([_is_bad(test, x) for x in origin.operands])
    lines = [f"{'it came with an operand of' if given else 'made by'} {origin.primitive} at {source}"]
    if source is not None and source.backward:
        lines[0] += ", in the backward pass"
    else:
        lines[0] += ", in the forward pass"
    lines += [f"in step {k} of the {what} at {line}" for what, k, line in origin.steps]
    lines += [f"operand {k}: {summary(x)}" for k, x in enumerate(origin.operands)]
    lines.append(f"result: {_place(test, origin.result)}")
    if np.ndim(origin.result):
        first = tuple(np.argwhere(test(origin.result))[0])
        same = [(k, x) for k, x in enumerate(origin.operands) if np.shape(x) == np.shape(origin.result)]
        if same:
            lines.append("there " + ", ".join([f"operand {k} is {np.asarray(x)[first]}" for k, x in same]))
    return "\n    ".join(lines)


for _name in SWITCHES:
    if os.environ.get(_VARIABLES[_name], "").lower() not in ("", "0", "off", "false", "no"):
        set_default(_name, True)
