"""Container classes that the pytree tests share, registered with this package's registry or with JAX's."""

from __future__ import annotations

import dataclasses
from collections import namedtuple

Point = namedtuple("Point", "x y")


class Plain:
    """Registered by functions, without keys."""

    def __init__(self, a, b, name="plain"):
        self.a, self.b, self.name = a, b, name

    def __eq__(self, other):
        return type(other) is type(self) and vars(self) == vars(other)

    def __hash__(self):
        return hash(self.name)


class Keyed(Plain):
    """Registered with keys."""


class Method(Plain):
    """Registered by the class decorator."""

    def tree_flatten(self):
        return (self.a, self.b), self.name

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls(*children, aux)


@dataclasses.dataclass
class Layer:
    """A dataclass with a static field."""

    weight: object
    bias: object
    activation: str = dataclasses.field(default="tanh", metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class Config:
    """A static class: no leaves."""

    width: int


_registered = set()


def register_in(tree_util):
    """Register all classes, once, with a module that has JAX's registration functions."""
    if tree_util.__name__ in _registered:
        return
    _registered.add(tree_util.__name__)
    tree_util.register_pytree_node(Plain, lambda p: ((p.a, p.b), p.name), lambda aux, c: Plain(*c, aux))
    tree_util.register_pytree_with_keys(
        Keyed,
        lambda p: (((tree_util.GetAttrKey("a"), p.a), (tree_util.DictKey("b"), p.b)), p.name),
        lambda aux, c: Keyed(*c, aux),
    )
    tree_util.register_pytree_node_class(Method)
    tree_util.register_dataclass(Layer)
    tree_util.register_static(Config)
