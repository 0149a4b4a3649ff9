"""Walking pytrees in Python: leaves with their paths, and two trees side by side to name where they differ.

Flattening proper is done in C (:mod:`funcgrad.tree`).  Paths are only wanted by people, in error messages
and reports, so here they are found by taking the tree apart one level at a time; nothing on a hot path comes
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import optree

from .tree_path import DictKey, FlattenedIndexKey, GetAttrKey, KeyPath, SequenceKey
from .tree_registry import NAMESPACE, children_with_keys, flatten_c

__all__ = ["AnyLeaf", "first_difference", "one_level", "walk_with_path"]

IsLeaf = Callable[[Any], bool] | None


class Level(NamedTuple):
    """One container, taken apart by one level."""

    keys: list[Any]
    children: list[Any]
    shape: optree.PyTreeSpec  # the container with every child replaced by a leaf


_SEQUENCES = (optree.PyTreeKind.TUPLE, optree.PyTreeKind.LIST, optree.PyTreeKind.DEQUE)
_MAPPINGS = (optree.PyTreeKind.DICT, optree.PyTreeKind.ORDEREDDICT, optree.PyTreeKind.DEFAULTDICT)


def one_level(node: Any, is_leaf: IsLeaf = None) -> Level | None:
    """The container ``node`` by one level, or None where it is a leaf."""
    if is_leaf is not None and is_leaf(node):
        return None
    children, shape = flatten_c(node, lambda x: x is not node, False, NAMESPACE)
    if shape.kind == optree.PyTreeKind.LEAF:
        return None
    return Level(_keys(node, shape), children, shape)


def _keys(node: Any, shape: optree.PyTreeSpec) -> list[Any]:
    kind = shape.kind
    if kind in _SEQUENCES:
        return [SequenceKey(i) for i in range(shape.num_children)]
    if kind in _MAPPINGS:
        return [DictKey(k) for k in shape.entries()]
    if kind == optree.PyTreeKind.NAMEDTUPLE:
        return [GetAttrKey(name) for name in type(node)._fields]
    if kind == optree.PyTreeKind.STRUCTSEQUENCE:
        return [GetAttrKey(name) for name in optree.structseq_fields(node)]
    keys = children_with_keys(node)
    if keys is not None:
        return keys
    return [FlattenedIndexKey(i) for i in range(shape.num_children)]


def walk_with_path(tree: Any, is_leaf: IsLeaf = None) -> Iterator[tuple[KeyPath, Any]]:
    """Yield ``(path, leaf)`` in flattening order."""
    stack: list[tuple[KeyPath, Any]] = [((), tree)]
    while stack:
        path, node = stack.pop()
        level = one_level(node, is_leaf)
        if level is None:
            yield path, node
        else:
            for key, child in zip(reversed(level.keys), reversed(level.children), strict=True):
                stack.append(((*path, key), child))


class AnyLeaf(int):
    """Stands for the leaves of a structure of which no more is known."""


def _describe(node: Any, level: Level | None) -> str:
    if type(node) is AnyLeaf:
        return "a leaf"
    if level is None:
        return f"a leaf of type {type(node).__name__}"
    if node is None:
        return "None"
    name = type(node).__name__
    if level.shape.kind in _MAPPINGS:
        return f"a {name} with keys {[k.key for k in level.keys]}"
    if level.shape.kind in _SEQUENCES:
        return f"a {name} of length {len(level.children)}"
    return f"a {name} with {len(level.children)} children"


def _level_difference(expected: Any, want: Level, found: Any, have: Level | None) -> str | None:
    """What is wrong at this one container, or None."""
    both_mappings = have is not None and want.shape.kind in _MAPPINGS and have.shape.kind in _MAPPINGS
    if both_mappings and have is not None:
        wanted, got = [k.key for k in want.keys], [k.key for k in have.keys]
        missing = [k for k in wanted if k not in got]
        extra = [k for k in got if k not in wanted]
        if missing or extra:
            parts = [f"{word} {keys}" for word, keys in (("missing", missing), ("unexpected", extra)) if keys]
            return f"expected {_describe(expected, want)}, found keys {got} ({', '.join(parts)})"
        return None
    if have is None or type(expected) is not type(found) or len(want.children) != len(have.children):
        return f"expected {_describe(expected, want)}, found {_describe(found, have)}"
    if want.shape != have.shape:
        return (
            f"two {type(expected).__name__} nodes carry different static data: "
            f"expected {want.shape}, found {have.shape}"
        )
    return None


def first_difference(
    expected: Any, found: Any, *, prefix: bool = False, is_leaf: IsLeaf = None
) -> tuple[KeyPath, str] | None:
    """The first place where ``found`` has not the structure of ``expected``: path, and what is wrong there.

    With ``prefix=True`` a leaf of ``expected`` matches any subtree.  None means that the structures agree.

    >>> from funcgrad.tree_path import keystr
    >>> path, text = first_difference({"a": [1, 2]}, {"a": (1, 2)})
    >>> keystr(path), text
    ("['a']", 'expected a list of length 2, found a tuple of length 2')
    """
    stack: list[tuple[KeyPath, Any, Any]] = [((), expected, found)]
    while stack:
        path, e, f = stack.pop()
        want = one_level(e, is_leaf)
        if want is None and prefix:
            continue
        have = one_level(f, None if prefix else is_leaf)
        if want is None:
            if have is not None:
                return path, f"expected a leaf, found {_describe(f, have)}"
            continue
        text = _level_difference(e, want, f, have)
        if text is not None:
            return path, text
        assert have is not None
        for key, ce, cf in reversed(list(zip(want.keys, want.children, have.children, strict=True))):
            stack.append(((*path, key), ce, cf))
    return None
