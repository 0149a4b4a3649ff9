"""Flattening and unflattening for one structure seen before: straight-line Python written for it.

A jitted function is nearly always called with the structure of the call before.  The general walk has to find
that structure out, and its caller then hashes and compares it; a function written for the one expected
structure only has to confirm it.  For ``{"w": [0.0, 0.0]}`` its text is::

    def flatten(t0):
        if type(t0) is not dict or len(t0) != 1: return None
        try: t1 = t0['w']
        except KeyError: return None
        if type(t1) is not list or len(t1) != 2: return None
        x0, x1 = t1
        if type(x0) not in leaf_types or type(x1) not in leaf_types: return None
        return [x0, x1]

A dozen leaves take 0.7 us in place of 3.4 for the walk and 0.5 for hash and comparison.  ``None`` means "not
that structure, or not surely": the caller then takes the general way, so the fast way can be strict.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .tree import PyTreeDef, structure
from .tree_registry import Flatten, Unflatten, registered_fields, registered_functions

__all__ = ["LEAF_TYPES", "Specialized", "specialize"]

LEAF_TYPES: frozenset[type] = frozenset(
    {
        np.ndarray,
        bool,
        int,
        float,
        complex,
        np.bool_,
        np.int8,
        np.int16,
        np.int32,
        np.int64,
        np.uint8,
        np.uint16,
        np.uint32,
        np.uint64,
        np.float16,
        np.float32,
        np.float64,
        np.complex64,
        np.complex128,
    }
)
"""Types known to be leaves without asking the registry."""

MAX_NODES = 512  # beyond this the text takes longer to compile than it will ever save
MAX_DEPTH = 40  # nested displays in the unflattener's expression; Python's parser allows about 100


class Specialized(NamedTuple):
    """The pair of functions written for ``treedef``."""

    treedef: PyTreeDef
    flatten: Callable[[Any], list[Any] | None]
    """The leaves, or None where the tree has another structure or a leaf of an unknown type."""
    unflatten: Callable[[Sequence[Any]], Any]
    source: str


class _Unsupported(Exception):
    """The structure holds a container that has no straight-line form."""


def specialize(treedef: PyTreeDef, leaf_types: frozenset[type] = LEAF_TYPES) -> Specialized | None:
    """Write the two functions for ``treedef``, or None where it is too big or holds an unusual container.

    >>> import numpy as np
    >>> fast = specialize(structure({"b": 1, "a": (2, None)}))
    >>> fast.flatten({"a": (5, None), "b": 6}), fast.flatten({"a": [5, None], "b": 6})
    ([5, 6], None)
    >>> fast.unflatten([7, 8])
    {'b': 8, 'a': (7, None)}
    """
    if treedef.num_nodes > MAX_NODES:
        return None
    try:
        return _written(treedef, leaf_types)
    except TypeError:  # a node whose data cannot be hashed
        return _written.__wrapped__(treedef, leaf_types)


@lru_cache(maxsize=256)
def _written(treedef: PyTreeDef, leaf_types: frozenset[type]) -> Specialized | None:
    writer = _Writer(leaf_types)
    try:
        sample = treedef.unflatten([_Slot(i) for i in range(treedef.num_leaves)])
        if structure(sample) != treedef:  # a class whose constructor changes what it is given
            return None
        text = writer.write(sample, treedef.num_leaves)
        code = compile(text, "<funcgrad pytree>", "exec")
    except Exception:  # user constructors may refuse the sample; the general way needs no sample
        return None
    namespace = writer.constants
    exec(code, namespace)
    return Specialized(treedef, namespace["flatten"], namespace["unflatten"], text)


class _Slot:
    """Stands for leaf number ``index`` in the sample tree."""

    def __init__(self, index: int) -> None:
        self.index = index


class _Writer:
    """Builds the text of both functions in one walk over a sample tree."""

    def __init__(self, leaf_types: frozenset[type]) -> None:
        self.constants: dict[str, Any] = {"leaf_types": leaf_types}
        self.lines: list[str] = []
        self.n_nodes = 0

    def write(self, sample: Any, n_leaves: int) -> str:
        expression = self.node(sample, self.name(sample), 0)
        xs = [f"x{i}" for i in range(n_leaves)]
        if xs:
            self.lines.append(f"if {' or '.join(f'type({x}) not in leaf_types' for x in xs)}: return None")
        self.lines.append(f"return [{', '.join(xs)}]")
        body = "\n".join("    " + line for line in self.lines)
        root = "x0" if isinstance(sample, _Slot) else "t0"
        return (
            f"def flatten({root}):\n{body}\n\n"
            f"def unflatten(leaves):\n    [{', '.join(xs)}] = leaves\n    return {expression}\n"
        )

    def name(self, node: Any) -> str:
        """A variable for a node: a leaf is named by its place in the list of leaves."""
        if isinstance(node, _Slot):
            return f"x{node.index}"
        self.n_nodes += 1
        return f"t{self.n_nodes - 1}"

    def constant(self, value: Any) -> str:
        if type(value) in (str, int):
            return repr(value)
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def guard(self, condition: str) -> None:
        self.lines.append(f"if {condition}: return None")

    def node(self, node: Any, var: str, depth: int) -> str:
        """Write the lines that take ``var`` apart; the expression that builds it again."""
        if isinstance(node, _Slot):
            return var
        if node is None:
            self.guard(f"{var} is not None")
            return "None"
        if depth > MAX_DEPTH:
            raise _Unsupported
        kind = type(node)
        functions = registered_functions(kind)
        if functions is not None:
            return self.registered(node, var, depth, functions)
        if kind in (dict, OrderedDict):
            return self.mapping(node, var, depth)
        if kind in (list, tuple):
            return self.sequence(node, var, depth)
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return self.sequence(node, var, depth)
        raise _Unsupported

    def children(self, nodes: Sequence[Any], names: Sequence[str], depth: int) -> list[str]:
        return [self.node(n, v, depth + 1) for n, v in zip(nodes, names, strict=True)]

    def unpack(self, names: Sequence[str], value: str) -> None:
        if names:
            self.lines.append(f"[{', '.join(names)}] = {value}")

    def sequence(self, node: Any, var: str, depth: int) -> str:
        kind = type(node)
        self.guard(f"type({var}) is not {self.type_name(kind)} or len({var}) != {len(node)}")
        names = [self.name(child) for child in node]
        self.unpack(names, var)
        parts = self.children(list(node), names, depth)
        if kind is list:
            return f"[{', '.join(parts)}]"
        if kind is tuple:
            return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
        return f"{self.type_name(kind)}({', '.join(parts)})"

    def mapping(self, node: Any, var: str, depth: int) -> str:
        kind = type(node)
        keys = list(node)
        self.guard(f"type({var}) is not {self.type_name(kind)} or len({var}) != {len(keys)}")
        if kind is OrderedDict:  # the order of its keys is part of the structure
            self.guard(f"tuple({var}) != {self.constant(tuple(keys))}")
        names = {key: self.name(node[key]) for key in keys}
        if keys:
            reads = "; ".join(f"{names[key]} = {var}[{self.constant(key)}]" for key in keys)
            self.lines += [f"try: {reads}", "except KeyError: return None"]
        parts = self.children([node[k] for k in keys], [names[k] for k in keys], depth)
        items = ", ".join(f"{self.constant(k)}: {part}" for k, part in zip(keys, parts, strict=True))
        return f"{{{items}}}" if kind is dict else f"{self.type_name(kind)}({{{items}}})"

    def registered(self, node: Any, var: str, depth: int, functions: tuple[Flatten, Unflatten]) -> str:
        take, build = functions
        children, aux = take(node)
        kids = list(children)
        fields = registered_fields(type(node))
        if fields is not None and type(aux) is tuple and all(map(str.isidentifier, fields[0] + fields[1])):
            return self.attributes(node, var, depth, kids, aux, *fields)
        self.guard(f"type({var}) is not {self.type_name(type(node))}")
        names = [self.name(child) for child in kids]
        static = self.constant(aux)
        self.lines.append(f"{var}_kids, {var}_aux = {self.constant(take)}({var})")
        self.guard(f"len({var}_kids) != {len(kids)} or not ({var}_aux == {static})")
        self.unpack(names, f"{var}_kids")
        parts = self.children(kids, names, depth)
        return f"{self.constant(build)}({static}, ({', '.join(parts)}{',' if len(parts) == 1 else ''}))"

    def attributes(
        self,
        node: Any,
        var: str,
        depth: int,
        kids: list[Any],
        aux: tuple[Any, ...],
        data: tuple[str, ...],
        meta: tuple[str, ...],
    ) -> str:
        """A class registered by its fields: they are read here, without a call."""
        kind = self.type_name(type(node))
        self.guard(f"type({var}) is not {kind}")
        if meta:
            self.guard(f"({' '.join(f'{var}.{name},' for name in meta)}) != {self.constant(aux)}")
        names = [self.name(child) for child in kids]
        self.lines += [f"{name} = {var}.{field}" for name, field in zip(names, data, strict=True)]
        parts = self.children(kids, names, depth)
        arguments = [f"{field}={self.constant(value)}" for field, value in zip(meta, aux, strict=True)]
        arguments += [f"{field}={part}" for field, part in zip(data, parts, strict=True)]
        return f"{kind}({', '.join(arguments)})"

    def type_name(self, kind: type) -> str:
        return kind.__name__ if kind in (dict, list, tuple) else self.constant(kind)
