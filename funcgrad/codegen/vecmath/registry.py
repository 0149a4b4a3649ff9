"""The table of functions: each is one emitter over `Scalar` operands, for the kinds that it serves.

`@function` registers an emitter under `<name>_<kind>`. A definition knows its operand and result kinds, so a target
that is not LLVM needs nothing but another class of operand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

from ...record import record
from .expr import B1, F32, F64, KINDS, Kind, Scalar

FLOATS = (F32, F64)
INTEGERS = tuple(k for k in KINDS.values() if k.code in "iu")
SIGNED = tuple(k for k in INTEGERS if k.signed)


@record(frozen=True)
class Definition:
    """One scalar function of one kind. `small`: emitted in place rather than as a function of the module."""

    name: str
    emit: Callable[..., Scalar]
    arguments: tuple[Kind, ...]
    result: Kind
    small: bool = False


DEFINITIONS: dict[str, Definition] = {}


def function(
    kinds: Iterable[Kind] = FLOATS, *, small: bool = False, result: Kind | None = None, name: str | None = None
) -> Callable[[Callable[..., Scalar]], Callable[..., Scalar]]:
    """Register an emitter for each of `kinds`; all its operands have that kind, and so its result unless given."""

    def register(emit: Callable[..., Scalar]) -> Callable[..., Scalar]:
        arity = len(signature(emit).parameters)
        base = name or emit.__name__.rstrip("_")
        for kind in kinds:
            full = f"{base}_{kind.name}"
            DEFINITIONS[full] = Definition(full, emit, (kind,) * arity, result or kind, small)
        return emit

    return register


def predicate(kinds: Iterable[Kind] = FLOATS) -> Callable[[Callable[..., Scalar]], Callable[..., Scalar]]:
    """Register an emitter whose result is a boolean."""
    return function(kinds, small=True, result=B1)


def emit_call(definition: Definition, body: Any, args: list[Scalar]) -> Scalar:
    """A use of the function in `body`: in place when small, else a call of the module's one inlined copy."""
    if definition.small:
        return definition.emit(*args)
    return body.call(module_function(body, definition), definition.result, args)


def module_function(body: Any, definition: Definition) -> Any:
    """The definition as an internal function of the module, made at its first use.

    LLVM inlines it before it looks at loops; until then a kernel that uses `exp` five times carries it once.
    """
    name = f"fg.{definition.name}"
    made = body.module.globals.get(name)
    if made is None:
        made = body.declare(name, definition.result, definition.arguments)
        made.linkage = "internal"
        made.attributes.add("alwaysinline")
        body.define(made, definition.emit, definition.arguments)
    return made
