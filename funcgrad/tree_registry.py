"""Which classes are containers: the registry behind :mod:`funcgrad.tree`, in JAX's convention.

A container class is known by two functions, ``flatten(obj) -> (children, aux)`` and
``unflatten(aux, children) -> obj``.  ``children`` are walked into; ``aux`` is static: it is compared with
``==`` when two structures are compared, and it ends up in the keys of compilation caches.  The C++ library
optree does the flattening; every registration goes to a namespace of its own, so that no other user of optree
is disturbed.
"""

from __future__ import annotations

import copy
import dataclasses
import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import optree
from optree import _C

from .tree_path import GetAttrKey

__all__ = [
    "register_dataclass",
    "register_pytree_node",
    "register_pytree_node_class",
    "register_pytree_with_keys",
    "register_pytree_with_keys_class",
    "register_static",
]

NAMESPACE = "funcgrad"
Cls = TypeVar("Cls", bound=type)
Flatten = Callable[[Any], tuple[Iterable[Any], Any]]
Unflatten = Callable[[Any, Any], Any]

# optree.tree_flatten is a keyword-only Python function around this one; the call below it saves 0.2 us.
flatten_c = _C.flatten

_KEYS_OF: dict[type, Callable[[Any], list[Any]]] = {}
_FUNCTIONS_OF: dict[type, tuple[Flatten, Unflatten]] = {}
_FIELDS_OF: dict[type, tuple[tuple[str, ...], tuple[str, ...]]] = {}


class _Snapshot:
    """Unhashable static data (a dict, a list, an array) made usable in a structure that is a cache key.

    The comparison is against a copy taken at flattening, so that a later mutation of the original is seen as
    a different structure and not as a hit on what was compiled for the old one.
    """

    __slots__ = ("frozen", "original")

    def __init__(self, original: Any) -> None:
        self.original = original
        try:
            self.frozen = copy.deepcopy(original)
        except Exception:  # a lock, a socket, ...: what cannot be copied can only be compared as it is
            self.frozen = original

    def __hash__(self) -> int:
        return hash(type(self.frozen))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Snapshot) and _same(self.frozen, other.frozen)

    def __repr__(self) -> str:
        return repr(self.frozen)


def _same(a: Any, b: Any) -> bool:
    """``a == b`` as one bool, also where arrays are inside."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        if a.dtype.hasobject:
            return a.shape == b.shape and _same(a.tolist(), b.tolist())
        return bool(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(v, b[k]) for k, v in a.items())
    return bool(a == b)


def _check_class(cls: Any, function: str) -> None:
    if not isinstance(cls, type):
        raise TypeError(f"{function}: expected a class, found {cls!r} of type {type(cls).__name__}")


def _register(cls: type, flatten: Flatten, unflatten: Unflatten) -> None:
    def to_optree(obj: Any) -> tuple[tuple[Any, ...], Any]:
        result = flatten(obj)
        try:
            children, aux = result
            children = tuple(children)
        except (TypeError, ValueError):
            raise TypeError(
                f"the flatten function registered for {cls.__name__} must return a pair "
                f"(children, aux) with iterable children, found {result!r}"
            ) from None
        try:
            hash(aux)
        except TypeError:
            aux = _Snapshot(aux)
        return children, aux

    def from_optree(aux: Any, children: tuple[Any, ...]) -> Any:
        return unflatten(aux.original if type(aux) is _Snapshot else aux, children)

    with warnings.catch_warnings():
        # optree warns that a named tuple is a container already; registering one on purpose is JAX's way
        # to give it keys or static fields.
        warnings.filterwarnings("ignore", message="PyTree type .* is a subclass of", category=UserWarning)
        try:
            optree.register_pytree_node(cls, to_optree, from_optree, namespace=NAMESPACE)  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(
                f"{cls.__module__}.{cls.__qualname__} is already a pytree class; a class can be registered once only"
            ) from error
    _FUNCTIONS_OF[cls] = (to_optree, from_optree)


def register_pytree_node(
    nodetype: type, flatten_func: Flatten, unflatten_func: Unflatten, flatten_with_keys_func: Flatten | None = None
) -> None:
    """Make ``nodetype`` a container, by two functions that take it apart and build it again.

    ``flatten_func(obj) -> (children, aux)`` and ``unflatten_func(aux, children) -> obj``.
    ``flatten_with_keys_func(obj) -> ([(key, child), ...], aux)``, where given, names the children in paths.
    """
    _check_class(nodetype, "register_pytree_node")
    _register(nodetype, flatten_func, unflatten_func)
    if flatten_with_keys_func is not None:
        _KEYS_OF[nodetype] = lambda obj: [key for key, _ in flatten_with_keys_func(obj)[0]]


def register_pytree_with_keys(
    nodetype: type, flatten_with_keys: Flatten, unflatten_func: Unflatten, flatten_func: Flatten | None = None
) -> None:
    """As :func:`register_pytree_node`, from a function that returns ``([(key, child), ...], aux)``."""

    def without_keys(obj: Any) -> tuple[Iterable[Any], Any]:
        pairs, aux = flatten_with_keys(obj)
        return [child for _, child in pairs], aux

    register_pytree_node(nodetype, flatten_func or without_keys, unflatten_func, flatten_with_keys)


def register_pytree_node_class(cls: Cls) -> Cls:
    """Class decorator for a class that knows how to take itself apart.

    It has a method ``tree_flatten() -> (children, aux)`` and a classmethod ``tree_unflatten(aux, children)``.
    """
    _needs(cls, "register_pytree_node_class", "tree_flatten", "tree_unflatten")
    register_pytree_node(cls, lambda obj: obj.tree_flatten(), cls.tree_unflatten)  # type: ignore[attr-defined]
    return cls


def register_pytree_with_keys_class(cls: Cls) -> Cls:
    """Class decorator: as :func:`register_pytree_node_class`, with ``tree_flatten_with_keys``.

    Where the class has ``tree_flatten`` too, that one is used wherever no keys are asked for.
    """
    _needs(cls, "register_pytree_with_keys_class", "tree_flatten_with_keys", "tree_unflatten")
    plain = (lambda obj: obj.tree_flatten()) if hasattr(cls, "tree_flatten") else None
    register_pytree_with_keys(cls, lambda obj: obj.tree_flatten_with_keys(), cls.tree_unflatten, plain)  # type: ignore[attr-defined]
    return cls


def _needs(cls: Any, function: str, *methods: str) -> None:
    _check_class(cls, function)
    missing = [m for m in methods if not callable(getattr(cls, m, None))]
    if missing:
        raise TypeError(f"{function}: class {cls.__name__} lacks {' and '.join(missing)}")


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """The named attributes of an object as a tuple, read in C where there are several."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda obj: tuple([getattr(obj, name) for name in names])


def _field_names(value: Sequence[str] | None, argument: str) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError(
            f"register_dataclass: {argument} must be a sequence of names, found the string {value!r}; write [{value!r}]"
        )
    return tuple(value or ())


def register_dataclass(
    nodetype: Cls,
    data_fields: Sequence[str] | None = None,
    meta_fields: Sequence[str] | None = None,
    drop_fields: Sequence[str] = (),
) -> Cls:
    """Make a dataclass a container: ``data_fields`` are its children, ``meta_fields`` its static data.

    Without names, every field is data but for those declared ``field(metadata={"static": True})``, so that it
    works as a plain decorator.  ``drop_fields`` are left to the class's own defaults.

    >>> @register_dataclass
    ... @dataclasses.dataclass
    ... class Layer:
    ...     weight: float
    ...     name: str = dataclasses.field(default="", metadata={"static": True})
    """
    _check_class(nodetype, "register_dataclass")
    from_fields = data_fields is None and meta_fields is None
    if from_fields:
        if not dataclasses.is_dataclass(nodetype):
            raise TypeError(
                f"register_dataclass: {nodetype.__name__} is no dataclass; "
                "name its fields with data_fields=[...] and meta_fields=[...]"
            )
        fields = [f for f in dataclasses.fields(nodetype) if f.init and f.name not in set(drop_fields)]
        data_fields = [f.name for f in fields if not f.metadata.get("static", False)]
        meta_fields = [f.name for f in fields if f.metadata.get("static", False)]
    elif data_fields is None or meta_fields is None:
        raise TypeError("register_dataclass: give both data_fields and meta_fields, or neither")
    data, meta = _field_names(data_fields, "data_fields"), _field_names(meta_fields, "meta_fields")
    _check_fields(nodetype, data, meta, _field_names(drop_fields, "drop_fields"))
    names = meta + data

    get_data, get_meta = _getter(data), _getter(meta)

    def flatten(obj: Any) -> tuple[tuple[Any, ...], Any]:
        return get_data(obj), get_meta(obj)

    def unflatten(aux: Any, children: Any) -> Any:
        return nodetype(**dict(zip(names, (*aux, *children), strict=True)))

    _register(nodetype, flatten, unflatten)
    _FIELDS_OF[nodetype] = (data, meta)
    keys = [GetAttrKey(name) for name in data]
    _KEYS_OF[nodetype] = lambda obj: keys
    return nodetype


def _check_fields(cls: type, data: tuple[str, ...], meta: tuple[str, ...], drop: tuple[str, ...]) -> None:
    both = sorted(set(data) & set(meta))
    if both:
        raise ValueError(f"register_dataclass: fields {both} of {cls.__name__} are both data and meta")
    if not dataclasses.is_dataclass(cls):
        return
    initial = {f.name for f in dataclasses.fields(cls) if f.init}
    named = {*data, *meta}
    missing, unknown = sorted(initial - named - {*drop}), sorted(named - initial)
    if missing or unknown:
        words = (("does not mention", missing), ("names unknown", unknown))
        faults = " and ".join([f"{verb} {names}" for verb, names in words if names])
        raise ValueError(
            "register_dataclass: data_fields and meta_fields together must be the init fields "
            f"of {cls.__name__}, but the call {faults}"
        )


def register_static(cls: Cls) -> Cls:
    """Class decorator: instances have no leaves and are static data themselves, compared with ``==``."""
    _check_class(cls, "register_static")
    _register(cls, lambda obj: ((), obj), lambda obj, _: obj)
    return cls


def children_with_keys(obj: Any) -> list[Any] | None:
    """The key entries of an object's children, or None where its class was registered without keys."""
    keys = _KEYS_OF.get(type(obj))
    return None if keys is None else keys(obj)


def registered_functions(cls: type) -> tuple[Flatten, Unflatten] | None:
    """The functions registered for ``cls`` in their wrapped form, whose static data is hashable; or None."""
    return _FUNCTIONS_OF.get(cls)


def registered_fields(cls: type) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Names of the data and of the static fields of a class registered by them, or None for other classes."""
    return _FIELDS_OF.get(cls)
