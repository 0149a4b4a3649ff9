"""Where a leaf sits in a pytree: key entries and key paths.

A *key path* is a tuple of entries, one per container passed through on the way from the root:

>>> keystr((DictKey("params"), SequenceKey(0), GetAttrKey("weight")))
"['params'][0].weight"
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .record import record

__all__ = [
    "DictKey",
    "FlattenedIndexKey",
    "GetAttrKey",
    "KeyPath",
    "SequenceKey",
    "keystr",
]

KeyPath = tuple[Any, ...]
"""A tuple of key entries; entries of user classes may be of any type with a useful ``str``."""


@record(frozen=True)
class SequenceKey:
    """Position in a list, tuple or deque; prints as ``[0]``."""

    idx: int

    def __str__(self) -> str:
        return f"[{self.idx!r}]"


@record(frozen=True)
class DictKey:
    """Key of a dictionary; prints as ``['name']``."""

    key: Any

    def __str__(self) -> str:
        return f"[{self.key!r}]"


@record(frozen=True)
class GetAttrKey:
    """Attribute of a named tuple, dataclass or registered class; prints as ``.name``."""

    name: str

    def __str__(self) -> str:
        return f".{self.name}"


@record(frozen=True)
class FlattenedIndexKey:
    """Child number of a class registered without keys; prints as ``[<flat index 0>]``."""

    key: int

    def __str__(self) -> str:
        return f"[<flat index {self.key}>]"


def _simple(entry: Any) -> str:
    match entry:
        case SequenceKey(idx=index) | FlattenedIndexKey(key=index):
            return str(index)
        case DictKey(key=value) | GetAttrKey(name=value):
            return str(value)
        case _:
            return str(entry)


def keystr(path: Iterable[Any], *, simple: bool = False, separator: str = "") -> str:
    """Print a key path as the Python expression that leads to the leaf.

    >>> keystr((DictKey("a"), SequenceKey(1)))
    "['a'][1]"
    >>> keystr((DictKey("a"), SequenceKey(1)), simple=True, separator="/")
    'a/1'
    """
    return separator.join([_simple(entry) if simple else str(entry) for entry in path])
