"""``@record``: small classes of data, as ``dataclasses.dataclass`` makes them, in a tenth of the time.

A program is made of some hundred kinds of small immutable things (avals, equations, kernels, plans), and `dataclass`
compiles six functions for each: 0.3 ms a class, a third of what `import funcgrad` cost. Here only `__init__` is text
that is compiled; the other methods get their values from one `attrgetter`, which is as quick. Frozen records with slots
are also made faster: 0.22 us for four fields, a dataclass takes 0.35.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, field
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

__all__ = ["field", "record", "replace"]

T = TypeVar("T")


@dataclass_transform(field_specifiers=(field,))
def record(*, eq: bool = True, frozen: bool = False, slots: bool = False) -> Callable[[type[T]], type[T]]:
    """A class of the fields that it annotates. The options mean what they mean for ``dataclass``.

    ``field`` gives a field its options: ``default``, ``default_factory``, ``repr`` and ``compare``. There is no
    inheritance of fields. What is not frozen and can be compared has no hash.

    >>> @record(frozen=True, slots=True)
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> Point(1), Point(1) == Point(1, 0), replace(Point(1), y=2)
    (Point(x=1, y=0), True, Point(x=1, y=2))
    >>> Point(1).x = 2
    Traceback (most recent call last):
        ...
    dataclasses.FrozenInstanceError: cannot assign to field 'x'
    """
    return lambda cls: _made(cls, eq, frozen, slots)


def replace(obj: T, /, **changes: Any) -> T:
    """A copy of a record with some fields changed."""
    names = obj.__match_args__  # type: ignore[attr-defined]
    return type(obj)(**{**{name: getattr(obj, name) for name in names}, **changes})


def _made(cls: Any, eq: bool, frozen: bool, slots: bool) -> Any:
    namespace: Any = cls.__dict__
    names = tuple(namespace.get("__annotations__", ()))
    options = {n: x if isinstance(x, Field) else field(default=x) for n, x in namespace.items() if n in names}
    if slots:
        rest = {n: x for n, x in namespace.items() if n not in names and n not in ("__dict__", "__weakref__")}
        qualified = cls.__qualname__
        cls = type(cls)(cls.__name__, cls.__bases__, {**rest, "__match_args__": names, "__slots__": names})
        cls.__qualname__ = qualified
    else:
        type.__setattr__(cls, "__match_args__", names)
        for name, option in options.items():
            if option.default is MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, option.default)
    cls.__init__ = _initialiser(cls, names, options, frozen, slots)
    if "__repr__" not in namespace:
        cls.__repr__ = _represent(tuple([n for n in names if n not in options or options[n].repr]))
    if eq:
        _compare(cls, [n for n in names if n not in options or options[n].compare], frozen)
    if frozen:
        cls.__setattr__, cls.__delattr__ = _refuse_to_set, _refuse_to_delete
        if slots:
            cls.__getstate__, cls.__setstate__ = _state, _set_state
    return cls


def _initialiser(
    cls: Any, names: tuple[str, ...], options: dict[str, Field[Any]], frozen: bool, slots: bool
) -> Callable[..., None]:
    """``__init__``, the one method whose text depends on the class: a call by position and name has to be quick."""
    given, body = ["self"], []
    known: dict[str, Any] = {"missing": MISSING, "set_field": object.__setattr__}
    for k, name in enumerate(names):
        value = name
        option = options.get(name)
        if option is None or option.default is option.default_factory:  # both missing
            given.append(name)
        elif option.default_factory is not MISSING:
            known[f"make_{k}"] = option.default_factory
            given.append(f"{name}=missing")
            value = f"make_{k}() if {name} is missing else {name}"
        else:
            known[f"default_{k}"] = option.default
            given.append(f"{name}=default_{k}")
        if not frozen:
            body.append(f"self.{name} = {value}")
        elif slots:
            known[f"set_{k}"] = getattr(cls, name).__set__
            body.append(f"set_{k}(self, {value})")
        else:
            body.append(f"set_field(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    text = f"def __init__({', '.join(given)}):\n " + "\n ".join(body or ["pass"])
    exec(text, {**known, "__name__": cls.__module__}, known)
    made: Callable[..., None] = known["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _represent(names: tuple[str, ...]) -> Callable[[Any], str]:
    def __repr__(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join([f'{n}={getattr(self, n)!r}' for n in names])})"

    return __repr__


def _compare(cls: Any, names: list[str], frozen: bool) -> None:
    values: Callable[[Any], Any] = attrgetter(*names) if names else lambda self: ()

    def __eq__(self: Any, other: Any) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(values(self))

    if "__eq__" not in cls.__dict__:
        cls.__eq__ = __eq__
    if cls.__dict__.get("__hash__") is None:  # a class that defines __eq__ alone has None there
        cls.__hash__ = __hash__ if frozen else None


def _refuse_to_set(self: Any, name: str, value: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__match_args__]


def _set_state(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__match_args__, state, strict=True):
        object.__setattr__(self, name, value)
