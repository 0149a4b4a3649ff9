"""Pytree utilities under their ``jax.tree_util`` names.

Everything is defined in :mod:`funcgrad.tree`, where the ideas are explained; this module adds the long names
and :class:`Partial`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from .tree import (
    DictKey,
    FlattenedIndexKey,
    GetAttrKey,
    KeyPath,
    PyTreeDef,
    SequenceKey,
    all_leaves,
    keystr,
    register_dataclass,
    register_pytree_node,
    register_pytree_node_class,
    register_pytree_with_keys,
    register_pytree_with_keys_class,
    register_static,
    unflatten,
)
from .tree import all as tree_all
from .tree import broadcast as tree_broadcast
from .tree import flatten as tree_flatten
from .tree import flatten_with_path as tree_flatten_with_path
from .tree import leaves as tree_leaves
from .tree import leaves_with_path as tree_leaves_with_path
from .tree import map as tree_map
from .tree import map_with_path as tree_map_with_path
from .tree import reduce as tree_reduce
from .tree import structure as tree_structure
from .tree import transpose as tree_transpose
from .tree import tuple_def as treedef_tuple
from .tree import unflatten as tree_unflatten

__all__ = [
    "DictKey",
    "FlattenedIndexKey",
    "GetAttrKey",
    "KeyPath",
    "Partial",
    "PyTreeDef",
    "SequenceKey",
    "all_leaves",
    "build_tree",
    "keystr",
    "register_dataclass",
    "register_pytree_node",
    "register_pytree_node_class",
    "register_pytree_with_keys",
    "register_pytree_with_keys_class",
    "register_static",
    "tree_all",
    "tree_broadcast",
    "tree_flatten",
    "tree_flatten_with_path",
    "tree_leaves",
    "tree_leaves_with_path",
    "tree_map",
    "tree_map_with_path",
    "tree_reduce",
    "tree_structure",
    "tree_transpose",
    "tree_unflatten",
    "treedef_children",
    "treedef_is_leaf",
    "treedef_tuple",
]


def treedef_children(treedef: PyTreeDef) -> list[PyTreeDef]:
    """The structures of a container's children."""
    return treedef.children()


def treedef_is_leaf(treedef: PyTreeDef) -> bool:
    """Whether the structure is one node without children, as of a leaf, ``None`` or ``()``."""
    return treedef.num_nodes == 1


def build_tree(treedef: PyTreeDef, xs: Iterable[Any]) -> Any:
    """The tree whose top container is that of ``treedef`` with the subtrees ``xs`` as its children.

    >>> build_tree(tree_structure([0, (0, 0)]), [1, (2, 3)])
    [1, (2, 3)]
    """
    pairs = zip(treedef.children(), xs, strict=True)
    return unflatten(treedef, [leaf for child, x in pairs for leaf in child.flatten_up_to(x)])


class _Opaque:
    """A ``functools.partial`` whose arguments stay static: hashed by what it holds, and merged by nobody."""

    __slots__ = ("partial",)

    def __init__(self, partial: functools.partial[Any]) -> None:
        self.partial = partial

    def _key(self) -> tuple[Any, ...]:
        return self.partial.func, self.partial.args, tuple(sorted(self.partial.keywords.items()))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.partial(*args, **kwargs)

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Opaque) and self._key() == other._key()

    def __repr__(self) -> str:
        return repr(self.partial)


class Partial(functools.partial[Any]):
    """``functools.partial`` as a pytree: the bound arguments are leaves, the function is static.

    So a function with its data can be passed through ``jit``, ``vmap`` and ``grad`` as an argument.

    >>> add_one = Partial(lambda x, y: x + y, 1)
    >>> tree_leaves(add_one), add_one(2)
    ([1], 3)
    """

    def __new__(cls, func: Callable[..., Any], /, *args: Any, **keywords: Any) -> Partial:
        if isinstance(func, functools.partial) and not isinstance(func, Partial):
            # functools would merge the inner arguments into ours and so make them leaves, unasked
            func = _Opaque(func)
        return super().__new__(cls, func, *args, **keywords)


register_pytree_node(
    Partial,
    lambda p: ((p.args, p.keywords), p.func),
    lambda func, children: Partial(func, *children[0], **children[1]),
    lambda p: (((GetAttrKey("args"), p.args), (GetAttrKey("keywords"), p.keywords)), p.func),
)
