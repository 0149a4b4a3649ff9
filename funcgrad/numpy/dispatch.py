"""Which function runs: NumPy's own on plain arrays, ours where a tracer takes part.

``@implements(np.sum)`` registers a definition for tracers. The decorated function, which ``funcgrad.numpy`` exports,
calls NumPy's as long as no argument is a tracer; ``np.sum(tracer)`` finds the same definition through
``__array_function__``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import numpy as np

from ..core.avals import aval_of
from ..core.trace import Tracer
from ..ops.promotion import as_dtype, result_type
from .memory import clone

__all__ = ["IMPLEMENTATIONS", "contains_tracer", "implements", "operand", "public_name", "unsupported"]

IMPLEMENTATIONS: Final[dict[Any, Callable[..., Any]]] = {}
"""NumPy's function -> its definition for tracers."""

F = TypeVar("F", bound=Callable[..., Any])


def contains_tracer(values: Iterable[Any]) -> bool:
    """Whether a tracer is among ``values`` or in lists and tuples of them."""
    for x in values:
        cls = type(x)
        if cls is np.ndarray or cls is float or cls is int or cls is str or x is None:
            continue
        if isinstance(x, Tracer) or ((cls is list or cls is tuple) and contains_tracer(x)):
            return True
    return False


def public_name(numpy_function: Any) -> str:
    """``numpy.linalg.norm`` of the function it names."""
    module = getattr(numpy_function, "__module__", None) or "numpy"
    return f"{module}.{getattr(numpy_function, '__name__', numpy_function)}"


def _own(result: Any, arguments: tuple[Any, ...]) -> Any:
    """A fresh tracer where a function that copies in NumPy has handed back its argument."""
    if isinstance(result, Tracer) and any(result is x for x in arguments):
        return clone(result)
    return result


def implements(
    numpy_function: Any = None, *aliases: Any, extras: tuple[str, ...] = (), view: bool = False
) -> Callable[[F], F]:
    """Register a definition for tracers and return the function to export.

    Args:
        numpy_function: what runs when no argument is a tracer; None if NumPy has no such function.
        aliases: other NumPy functions with the same meaning and signature.
        extras: keyword arguments that NumPy's function does not know; with one of them ours runs on arrays too.
        view: the result may share the argument's memory in NumPy, so that returning the argument itself is right.
    """

    def decorate(fun: F) -> F:
        def traced(*args: Any, **kwargs: Any) -> Any:
            result = fun(*args, **kwargs)
            return result if view else _own(result, args)

        if numpy_function is None:
            return fun

        @functools.wraps(fun)
        def dispatch(*args: Any, **kwargs: Any) -> Any:
            if contains_tracer(args) or (kwargs and contains_tracer(kwargs.values())):
                return traced(*args, **kwargs)
            if extras and any([k in kwargs for k in extras]):
                return fun(*args, **kwargs)
            return numpy_function(*args, **kwargs)

        name = public_name(numpy_function)
        dispatch.__doc__ = (fun.__doc__ or f"``{name}`` for arrays and tracers.").rstrip() + f"\n\nSee ``{name}``."
        for f in (numpy_function, *aliases):
            IMPLEMENTATIONS[f] = traced
        return dispatch  # type: ignore[return-value]

    return decorate


def unsupported(numpy_function: Any) -> TypeError:
    """The error for a NumPy function that has no definition for tracers, with the nearest that have."""
    import difflib  # half a millisecond

    name = getattr(numpy_function, "__name__", str(numpy_function))
    room = public_name(numpy_function).rpartition(".")[0]
    known = {f.__name__: public_name(f) for f in IMPLEMENTATIONS if public_name(f).rpartition(".")[0] == room}
    near = [known[k] for k in difflib.get_close_matches(name, known, n=3, cutoff=0.5)]
    hint = f"The nearest that funcgrad can trace: {', '.join(near)}. " if near else ""
    if not near and room != "numpy":
        hint = f"Few functions of {room} can be traced so far. "
    return TypeError(
        f"{public_name(numpy_function)} cannot be applied to a traced value. {hint}"
        "Write it with functions of funcgrad.numpy, or compute it before the transformed function and pass it in."
    )


def operand(x: Any) -> Any:
    """``x`` as an array, scalar or tracer: lists and tuples become arrays, and are stacked if they hold tracers.

    Raises:
        TypeError: for what is not an array, and for dtypes that are not numbers.
    """
    if isinstance(x, Tracer) or type(x) is float or type(x) is int:
        return x
    if isinstance(x, (list, tuple)):
        return _from_sequence(x)
    if not isinstance(x, (np.ndarray, np.generic, bool, complex, int, float)):
        if x is None or not hasattr(x, "__array__"):
            aval_of(x)  # raises the error that names the type, unless it is a registered array class
            return x
        x = np.asarray(x)
    aval_of(x)
    return x


def _from_sequence(items: Any) -> Any:
    if not contains_tracer(items):
        array = np.asarray(items)
        aval_of(array)
        return array
    parts = [operand(x) for x in items]
    shapes = {np.shape(x) if not isinstance(x, Tracer) else x.shape for x in parts}
    if len(shapes) != 1:
        raise ValueError(f"a list of arrays of different shapes cannot become one array: found {sorted(shapes)}")
    dtype = result_type(*[aval_of(x).strong().dtype.type(0) for x in parts])
    return np.stack([as_dtype(x, dtype) for x in parts])
