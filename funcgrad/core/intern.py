"""Equal programs as one object.

A function that is traced again for another shape gives its loops bodies that are equal to the ones before, where only
the number of steps has changed. What is worked out per jaxpr (derivatives, passes, kernels) is there already if equal
programs are the same object.

Equal is what nobody can tell apart: primitives, parameters by type and value (0.0 is not -0.0, 1 is not True), types,
names, and the user's lines, which messages name. A program with constants, or with a parameter that is more than plain
data (a function, an array), is equal to no other.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from typing import Any, Final

import numpy as np

from .avals import ShapedArray
from .jaxpr import ClosedJaxpr, Jaxpr, Literal, Var
from .primitive import Primitive

__all__ = ["clear_interned", "exact_key", "interned"]

MOST_PROGRAMS: Final = 256
"""The least recently met ones are forgotten."""

_programs: OrderedDict[Any, ClosedJaxpr] = OrderedDict()


class _NotPlainError(Exception):
    """A program has a parameter that is more than data."""


def interned(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The first program that was equal to this one."""
    if closed.consts:
        return closed
    try:
        key = _program_key(closed.jaxpr)
    except _NotPlainError:
        return closed
    found = _programs.setdefault(key, closed)
    try:
        _programs.move_to_end(key)
        while len(_programs) > MOST_PROGRAMS:
            _programs.popitem(last=False)
    except KeyError:  # another thread was quicker
        pass
    return found


def clear_interned() -> None:
    _programs.clear()


def _program_key(jaxpr: Jaxpr) -> Any:
    numbers: dict[Any, int] = {}
    inputs = (*jaxpr.constvars, *jaxpr.invars)
    for v in inputs:
        numbers[v] = len(numbers)
    key: list[Any] = [jaxpr.name, len(jaxpr.constvars), tuple([v.aval for v in inputs])]
    for eqn in jaxpr.eqns:
        source = eqn.source
        key += (
            eqn.primitive,
            tuple([numbers[a] if type(a) is Var else _literal_key(a) for a in eqn.invars]),
            tuple([(k, exact_key(v)) for k, v in eqn.params.items()]) if eqn.params else (),
            tuple([v.aval for v in eqn.outvars]),
            source and (source.filename, source.line, source.function, source.backward),
        )
        for v in eqn.outvars:
            numbers[v] = len(numbers)
    key.append(tuple([numbers[a] if type(a) is Var else _literal_key(a) for a in jaxpr.outvars]))
    return tuple(key)


def _literal_key(literal: Any) -> Any:
    assert type(literal) is Literal
    return exact_key(literal.value), literal.aval


_BY_VALUE: Final = frozenset((int, bool, str, bytes, type(None), type(Ellipsis)))
_HASHED: Final = (np.dtype, ShapedArray, Primitive, enum.Enum, type)


def exact_key(value: Any) -> Any:
    """A key that equal data have in common, and nothing else."""
    kind = type(value)
    if kind in _BY_VALUE:
        return kind, value
    if kind is float:
        return kind, value.hex()
    if kind is complex:
        return kind, value.real.hex(), value.imag.hex()
    if isinstance(value, tuple):
        return kind, tuple([exact_key(x) for x in value])
    if isinstance(value, np.generic):
        return kind, value.tobytes()
    if kind is ClosedJaxpr and not value.consts:
        return kind, _program_key(value.jaxpr)
    if isinstance(value, _HASHED):
        return value
    raise _NotPlainError
