"""How a function of SciPy's name chooses between SciPy and us."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from ..numpy.dispatch import contains_tracer

__all__ = ["linalg_face"]

F = TypeVar("F", bound=Callable[..., Any])


def linalg_face(fun: F) -> F:
    """``scipy.linalg``'s function of that name, and ours where a tracer takes part."""

    @functools.wraps(fun)
    def dispatch(*args: Any, **kwargs: Any) -> Any:
        if contains_tracer(args) or contains_tracer(kwargs.values()):
            return fun(*args, **kwargs)
        return getattr(importlib.import_module("scipy.linalg"), fun.__name__)(*args, **kwargs)

    dispatch.__doc__ = f"{(fun.__doc__ or '').rstrip()}\n\n    See ``scipy.linalg.{fun.__name__}``.\n    "
    return dispatch  # type: ignore[return-value]
