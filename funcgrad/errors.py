"""Exceptions of the package. Each says what was found and what to write instead."""

from __future__ import annotations

from typing import Any

__all__ = [
    "CheckError",
    "ConcretizationError",
    "FuncgradError",
    "FuncgradWarning",
    "JaxprError",
    "LeakedTracerError",
    "NonDifferentiableError",
    "NonFiniteError",
    "TracerArrayError",
    "TracerBoolError",
    "TracerIndexError",
    "TracerIntegerError",
    "ViewWriteError",
]


class FuncgradError(Exception):
    """Base class of the errors that only funcgrad raises."""


class FuncgradWarning(UserWarning):
    """Something was done another way than asked (an unwritable cache, say); results are right."""


class JaxprError(FuncgradError):
    """A jaxpr does not check: a defect of a transform or pass, not of the user's program."""


class LeakedTracerError(FuncgradError):
    """A tracer was used after the transformation that made it had ended."""


class NonDifferentiableError(FuncgradError, TypeError):
    """A derivative was asked of something that has none."""


class CheckError(FuncgradError, ValueError):
    """A `checkify.check` failed."""


class NonFiniteError(FuncgradError, FloatingPointError):
    """A NaN (or an infinity) in a result, found by ``debug_nans`` or ``debug_infs``.

    ``origin``: where it was made, a `debug.Origin`; None where that could not be found.
    """

    def __init__(self, message: str, origin: Any = None) -> None:
        super().__init__(message)
        self.origin = origin


class ConcretizationError(FuncgradError, TypeError):
    """A concrete value was asked of a tracer, which only knows its shape and dtype."""


class TracerBoolError(ConcretizationError):
    """A tracer in ``if``, ``while``, ``and``, ``or``, ``not`` or ``assert``."""


class TracerIntegerError(ConcretizationError):
    """A tracer where Python wants an integer: ``range``, a shape, a list index."""


class TracerArrayError(ConcretizationError):
    """A tracer given to a function that wants real memory, such as ``np.asarray``."""


class TracerIndexError(FuncgradError, IndexError):
    """An index that cannot be traced, such as a boolean mask or a float."""


class ViewWriteError(FuncgradError, ValueError):
    """An in-place write through (or under) a view of a tracer."""
