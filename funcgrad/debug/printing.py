"""``debug.print`` and ``debug.callback``: looking at values while a program runs."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from ..control.callback import bind_debug
from ..util import check_format

__all__ = ["callback", "print"]


def callback(
    callback: Callable[..., Any], *args: Any, ordered: bool = False, partitioned: bool = False, **kwargs: Any
) -> None:
    """Call ``callback(*args, **kwargs)`` with the values, whenever the program comes by.

    Args:
        callback: takes NumPy arrays (NumPy scalars where 0-d), which it may keep. What it returns is ignored; what it
            raises ends the program.
        args, kwargs: pytrees. Leaves that are no arrays (strings, say) are passed as they are.
        ordered, partitioned: accepted for JAX's sake: calls come in the order of the program.

    Derivatives see through it: it is called in the forward pass, once. Under `vmap` it is called for one example after
    the other; if nothing that it is given depends on the example, once. (In a branch, or a ``while_loop``, whose
    predicate differs from example to example, it is called for those as well that do not take it.)

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


def print(
    fmt: str,
    *args: Any,
    ordered: bool = False,
    partitioned: bool = False,
    skip_format_check: bool = False,
    **kwargs: Any,
) -> None:
    """Print ``fmt.format(*args, **kwargs)`` with the values, whenever the program comes by.

    Args:
        fmt: a format string, no f-string: ``"x = {}"``, ``"{loss:.3f} after {}"``.
        args, kwargs: what it is filled with; see `callback`.
        ordered, partitioned: accepted for JAX's sake: lines come in the order of the program.
        skip_format_check: do not look, while tracing, whether the string and the values fit.

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
    if not skip_format_check:
        check_format(fmt, len(args), kwargs, "debug.print")

    def show(*values: Any, **named: Any) -> None:
        try:
            text = fmt.format(*values, **named)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            kinds = ", ".join([type(x).__name__ for x in (*values, *named.values())])
            raise ValueError(
                f"debug.print: the format string {fmt!r} does not fit values of {kinds}: {error}"
            ) from error
        builtins.print(text)

    bind_debug(show, args, kwargs, ordered)
