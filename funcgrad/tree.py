"""Pytrees: nested containers of arrays, taken apart into a flat list of leaves and put together again.

A pytree is a leaf, or a container of pytrees: list, tuple, dict (walked in sorted key order), named tuple,
``OrderedDict``, ``defaultdict``, ``deque``, or a class registered as one; ``None`` is a container of nothing.
Parameters, batches and states are written as such nests, and every transform works on the flat list:

>>> leaves_, treedef = flatten({"b": [1, 2], "a": (3, None)})
>>> leaves_
[3, 1, 2]
>>> unflatten(treedef, [x * 10 for x in leaves_])
{'b': [10, 20], 'a': (30, None)}

The ``treedef`` is the structure without the leaves: hashable, comparable, a cache key.  The names are those
of ``jax.tree``; :mod:`funcgrad.tree_util` has the longer ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import optree

from .tree_path import DictKey, FlattenedIndexKey, GetAttrKey, KeyPath, SequenceKey, keystr
from .tree_registry import (
    NAMESPACE,
    flatten_c,
    register_dataclass,
    register_pytree_node,
    register_pytree_node_class,
    register_pytree_with_keys,
    register_pytree_with_keys_class,
    register_static,
)
from .tree_walk import AnyLeaf, IsLeaf, first_difference, walk_with_path

__all__ = [
    "DictKey",
    "FlattenedIndexKey",
    "GetAttrKey",
    "KeyPath",
    "PyTreeDef",
    "SequenceKey",
    "all",
    "all_leaves",
    "broadcast",
    "broadcast_prefix",
    "broadcast_prefix_to",
    "describe_difference",
    "flatten",
    "flatten_up_to",
    "flatten_with_path",
    "keystr",
    "leaf_paths",
    "leaves",
    "leaves_with_path",
    "map",
    "map_with_path",
    "reduce",
    "register_dataclass",
    "register_pytree_node",
    "register_pytree_node_class",
    "register_pytree_with_keys",
    "register_pytree_with_keys_class",
    "register_static",
    "structure",
    "transpose",
    "tuple_def",
    "unflatten",
]

PyTreeDef = optree.PyTreeSpec
"""The structure of a pytree, without its leaves."""

_REQUIRED: Any = object()


def flatten(tree: Any, is_leaf: IsLeaf = None) -> tuple[list[Any], PyTreeDef]:
    """Leaves of ``tree`` in a fixed order, and its structure.  The walk stops where ``is_leaf(x)``."""
    return flatten_c(tree, is_leaf, False, NAMESPACE)


def unflatten(treedef: PyTreeDef, leaves: Iterable[Any]) -> Any:
    """The inverse of :func:`flatten`, with any values as leaves.

    >>> unflatten(structure((0, 0)), [1])
    Traceback (most recent call last):
    ...
    ValueError: Too few leaves for PyTreeSpec; expected: 2, got: 1.
    """
    return treedef.unflatten(leaves)


def structure(tree: Any, is_leaf: IsLeaf = None) -> PyTreeDef:
    """The structure of ``tree``."""
    return flatten_c(tree, is_leaf, False, NAMESPACE)[1]


def leaves(tree: Any, is_leaf: IsLeaf = None) -> list[Any]:
    """The leaves of ``tree``.

    >>> leaves({"x": [1, None], "y": 2})
    [1, 2]
    """
    return flatten_c(tree, is_leaf, False, NAMESPACE)[0]


def all_leaves(iterable: Iterable[Any], is_leaf: IsLeaf = None) -> bool:
    """Whether every element is a leaf, that is, none is a container.

    >>> all_leaves([1, 2.0]), all_leaves([1, (2,)])
    (True, False)
    """
    elements = list(iterable)
    found = leaves(elements, lambda x: x is not elements and is_leaf is not None and is_leaf(x))
    return len(found) == len(elements) and not [0 for a, b in zip(elements, found, strict=True) if a is not b]


def tuple_def(treedefs: Iterable[PyTreeDef]) -> PyTreeDef:
    """The structure of a tuple whose elements have the given structures."""
    return optree.treespec_tuple(treedefs, namespace=NAMESPACE)


def flatten_up_to(treedef: PyTreeDef, tree: Any, what: str = "the tree") -> list[Any]:
    """The subtrees of ``tree`` at the places of the leaves of ``treedef``; ``what`` names it in errors.

    >>> flatten_up_to(structure([0, 0]), [1, (2, 3)])
    [1, (2, 3)]
    """
    try:
        return treedef.flatten_up_to(tree)
    except ValueError as error:
        text = _difference_text(_sample(treedef), tree, True, None)
        if text is None:
            raise
        raise ValueError(f"{what} has not the expected structure: {text}") from error


def _sample(treedef: PyTreeDef) -> Any:
    """Some tree of the given structure; where a user's class refuses such leaves, the structure itself."""
    try:
        return treedef.unflatten([AnyLeaf()] * treedef.num_leaves)
    except Exception:
        return treedef


def _difference_text(expected: Any, found: Any, prefix: bool, is_leaf: IsLeaf, root: str = "") -> str | None:
    """``at ['a'][0]: expected a list of length 2, found a leaf of type int``; None where nothing differs."""
    difference = first_difference(expected, found, prefix=prefix, is_leaf=is_leaf)
    if difference is None:
        return None
    path, text = difference
    place = root + keystr(path)
    return f"at {place}: {text}" if place else f"at the top: {text}"


def describe_difference(expected: PyTreeDef, found: PyTreeDef, root: str = "") -> str:
    """In one line, the first place where two structures differ, for error messages; ``root`` names the value.

    >>> describe_difference(structure({"a": 1}), structure({"a": (1,)}), "carry")
    "at carry['a']: expected a leaf, found a tuple of length 1"
    """
    text = _difference_text(_sample(expected), _sample(found), False, None, root)
    return text or f"expected {expected}, found {found}"


def map(f: Callable[..., Any], tree: Any, *rest: Any, is_leaf: IsLeaf = None) -> Any:
    """Apply ``f`` to corresponding leaves of ``tree`` and ``rest``; the result has the structure of ``tree``.

    A tree in ``rest`` may go on where ``tree`` has a leaf; ``f`` is then given the subtree.

    >>> map(lambda x, y: x + y, {"a": 1, "b": (2, 3)}, {"a": 10, "b": (20, 30)})
    {'a': 11, 'b': (22, 33)}
    """
    flat, treedef = flatten_c(tree, is_leaf, False, NAMESPACE)
    if not rest:
        return treedef.unflatten([f(x) for x in flat])
    columns = [flat]
    for number, other in enumerate(rest):
        try:
            columns.append(treedef.flatten_up_to(other))
        except ValueError as error:
            text = _difference_text(tree, other, True, is_leaf)
            raise ValueError(
                f"tree.map: tree number {number + 2} has not the structure of the first: {text or error}"
            ) from error
    return treedef.unflatten([f(*xs) for xs in zip(*columns, strict=True)])


def reduce(function: Callable[[Any, Any], Any], tree: Any, initializer: Any = _REQUIRED, is_leaf: IsLeaf = None) -> Any:
    """Fold the leaves from left to right.

    >>> reduce(lambda total, x: total + x, {"a": 1, "b": [2, 3]}, 0)
    6
    """
    flat = leaves(tree, is_leaf)
    if initializer is _REQUIRED:
        if not flat:
            raise TypeError("tree.reduce: the tree has no leaves; give an initializer")
        return functools.reduce(function, flat)
    return functools.reduce(function, flat, initializer)


def all(tree: Any, *, is_leaf: IsLeaf = None) -> bool:
    """Whether every leaf is true.

    >>> all([True, {"a": False}]), all([])
    (False, True)
    """
    for x in leaves(tree, is_leaf):
        if not x:
            return False
    return True


def transpose(outer_treedef: PyTreeDef, inner_treedef: PyTreeDef | None, pytree_to_transpose: Any) -> Any:
    """Turn an outer tree of inner trees inside out.

    >>> transpose(structure([0, 0]), structure({"a": 0}), [{"a": 1}, {"a": 2}])
    {'a': [1, 2]}
    """
    if inner_treedef is None:
        subtrees = flatten_up_to(outer_treedef, pytree_to_transpose, "tree.transpose: the tree to transpose")
        inner_treedef = structure(subtrees[0]) if subtrees else structure(())
    n_outer, n_inner = outer_treedef.num_leaves, inner_treedef.num_leaves
    if n_outer == 0 or n_inner == 0:
        raise TypeError(
            f"tree.transpose: the structures must have leaves, found outer {outer_treedef} and inner {inner_treedef}"
        )
    flat, treedef = flatten(pytree_to_transpose)
    expected = outer_treedef.compose(inner_treedef)
    if treedef != expected:
        raise TypeError(
            "tree.transpose: the tree has not the structure outer of inner: " + describe_difference(expected, treedef)
        )
    columns = [flat[i::n_inner] for i in range(n_inner)]
    return inner_treedef.unflatten([outer_treedef.unflatten(column) for column in columns])


def broadcast_prefix(
    prefix: Any, full_tree: Any, is_leaf: IsLeaf = None, *, what: str = "prefix tree", of: str = "the full tree"
) -> list[Any]:
    """The leaves of ``prefix``, each repeated for every leaf of ``full_tree`` under it.

    ``what`` and ``of`` name the two trees in the error.

    >>> broadcast_prefix([0, None], [(1, 2), {"a": 3}], is_leaf=lambda x: x is None)
    [0, 0, None]
    """
    flat, treedef = flatten_c(prefix, is_leaf, False, NAMESPACE)
    try:
        subtrees = treedef.flatten_up_to(full_tree)
    except ValueError as error:
        text = _difference_text(prefix, full_tree, True, is_leaf) or error
        raise ValueError(f"{what} must be a prefix of the tree structure of {of}; {text}") from error
    result: list[Any] = []
    for x, subtree in zip(flat, subtrees, strict=True):
        result += [x] * flatten_c(subtree, None, False, NAMESPACE)[1].num_leaves
    return result


def broadcast_prefix_to(
    prefix: Any, treedef: PyTreeDef, is_leaf: IsLeaf = None, *, what: str = "prefix tree", of: str = "the full tree"
) -> list[Any]:
    """As :func:`broadcast_prefix`, where only the structure of the full tree is known.

    >>> broadcast_prefix_to((0, 1), structure(([0, 0], 0)))
    [0, 0, 1]
    """
    flat, prefix_def = flatten_c(prefix, is_leaf, False, NAMESPACE)
    if prefix_def.is_leaf():
        return flat * treedef.num_leaves
    return broadcast_prefix(prefix, treedef.unflatten([0] * treedef.num_leaves), is_leaf, what=what, of=of)


def broadcast(prefix_tree: Any, full_tree: Any, is_leaf: IsLeaf = None) -> Any:
    """``full_tree`` with every leaf replaced by the leaf of ``prefix_tree`` above it.

    >>> broadcast((1, 2), ([0, 0], 0))
    ([1, 1], 2)
    """
    return structure(full_tree).unflatten(broadcast_prefix(prefix_tree, full_tree, is_leaf))


def flatten_with_path(tree: Any, is_leaf: IsLeaf = None) -> tuple[list[tuple[KeyPath, Any]], PyTreeDef]:
    """As :func:`flatten`, with ``(path, leaf)`` in place of each leaf."""
    return list(walk_with_path(tree, is_leaf)), structure(tree, is_leaf)


def leaves_with_path(tree: Any, is_leaf: IsLeaf = None) -> list[tuple[KeyPath, Any]]:
    """``(path, leaf)`` for every leaf.

    >>> [(keystr(path), leaf) for path, leaf in leaves_with_path({"a": [1, (2,)]})]
    [("['a'][0]", 1), ("['a'][1][0]", 2)]
    """
    return list(walk_with_path(tree, is_leaf))


def leaf_paths(treedef: PyTreeDef) -> list[str]:
    """The printed key path of every leaf of a structure.

    >>> leaf_paths(structure({"a": [1, 2]}))
    ["['a'][0]", "['a'][1]"]
    """
    return [keystr(path) for path, _ in walk_with_path(treedef.unflatten([0] * treedef.num_leaves))]


def map_with_path(f: Callable[..., Any], tree: Any, *rest: Any, is_leaf: IsLeaf = None) -> Any:
    """As :func:`map`, calling ``f(path, leaf, *others)``.

    >>> map_with_path(lambda path, x: keystr(path) + f"={x}", {"a": [1]})
    {'a': ["['a'][0]=1"]}
    """
    paths = iter([path for path, _ in walk_with_path(tree, is_leaf)])
    return map(lambda *xs: f(next(paths), *xs), tree, *rest, is_leaf=is_leaf)
