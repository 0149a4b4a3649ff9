"""``debug.print`` and ``debug.callback``: looking at values while a program runs."""

from __future__ import annotations

import builtins
import string
from collections.abc import Callable
from typing import Any

from ..control.callback import bind_debug

__all__ = ["callback", "print"]


def callback(callback: Callable[..., Any], *args: Any, ordered: bool = False, **kwargs: Any) -> None:
    """Call ``callback(*args, **kwargs)`` with the values, whenever the program comes by.

    Args:
        callback: takes NumPy arrays (NumPy scalars where 0-d), which it may keep. What it returns is ignored; what it
            raises ends the program.
        args, kwargs: pytrees. Leaves that are no arrays (strings, say) are passed as they are.
        ordered: accepted for JAX's sake: calls come in the order of the program.

    Derivatives see through it: it is called in the forward pass, once. Under `vmap` it is called for one example after
    the other; if nothing that it is given depends on the example, once.

    >>> from funcgrad import grad, jit
    >>> seen = []
    >>> def f(x):
    ...     callback(seen.append, x)
    ...     return x**2
    >>> jit(grad(f))(3.0)
    np.float64(6.0)
    >>> seen
    [np.float64(3.0)]
    """
    bind_debug(callback, args, kwargs, ordered)


def print(fmt: str, *args: Any, ordered: bool = False, **kwargs: Any) -> None:
    """Print ``fmt.format(*args, **kwargs)`` with the values, whenever the program comes by.

    Args:
        fmt: a format string, no f-string: ``"x = {}"``, ``"{loss:.3f} after {}"``.
        args, kwargs: what it is filled with; see `callback`.
        ordered: accepted for JAX's sake: lines come in the order of the program.

    Raises:
        ValueError: the string and the values do not fit.

    >>> import numpy as np
    >>> from funcgrad import jit, vmap
    >>> def f(x):
    ...     print("x = {x:.1f}", x=x)
    ...     return x**2
    >>> jit(vmap(f))(np.array([1.0, 2.0]))
    x = 1.0
    x = 2.0
    array([1., 4.])
    """
    check_format(fmt, len(args), kwargs, "debug.print")

    def show(*values: Any, **named: Any) -> None:
        builtins.print(fmt.format(*values, **named))

    bind_debug(show, args, kwargs, ordered)


def check_format(fmt: Any, n_args: int, names: Any, what: str) -> None:
    """Raise where a format string and its arguments do not fit."""
    if not isinstance(fmt, str):
        raise TypeError(f"{what}: the first argument must be a format string, found {type(fmt).__name__}")
    used: set[int | str] = set()
    automatic = 0
    fields = [field for _, field, spec, _ in _fields(fmt) if field is not None]
    for field in fields:
        head = field.split(".")[0].split("[")[0]
        if head == "":
            used.add(automatic)
            automatic += 1
        else:
            used.add(int(head) if head.isdigit() else head)
    known = {*range(n_args), *names}
    missing, unused = used - known, known - used
    if missing:
        listed = ", ".join([f"{{{name}}}" for name in sorted(missing, key=str)])
        raise ValueError(
            f"{what}: the format string {fmt!r} names {listed}, which was not given: pass the values behind it, as in "
            '("x = {x}", x=x)'
        )
    if unused:
        listed = ", ".join([f"argument {x}" if isinstance(x, int) else f"{x}=" for x in sorted(unused, key=str)])
        raise ValueError(
            f"{what}: the format string {fmt!r} does not use {listed}. Write a place for it, {{}} or {{name}}; an "
            "f-string would format the tracer instead of its value"
        )


def _fields(fmt: str) -> list[Any]:
    """The replacement fields, those inside of format specifications included."""
    found = []
    for item in string.Formatter().parse(fmt):
        found.append(item)
        if item[2]:
            found += _fields(item[2])
    return found
