"""``vmap``: the user's face of batching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import tree
from ..core.avals import aval_of
from ..util import canonicalize_axis
from .batch import NO_NAME, batch_flat
from .derive import quiet
from .flat import FlatFunction, check_arguments, check_callable, leaf_name, own_all, wraps

__all__ = ["vmap"]


def _is_none(x: Any) -> bool:
    return x is None


def _check_axes(axes: Any, what: str) -> None:
    for leaf in tree.leaves(axes, is_leaf=_is_none):
        if leaf is not None and (not isinstance(leaf, (int, np.integer)) or isinstance(leaf, bool)):
            raise TypeError(f"vmap: {what} must be an int, None, or a pytree of them; found {leaf!r}")


def _in_dims(in_axes: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int | None]:
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    if isinstance(in_axes, tuple) and len(in_axes) != len(args):
        raise ValueError(
            f"vmap: in_axes has {len(in_axes)} entries, but the function was called with {len(args)} positional "
            "arguments; give one entry per positional argument (keyword arguments are always mapped over axis 0)"
        )
    dims = tree.broadcast_prefix(in_axes, args, is_leaf=_is_none, what="vmap: in_axes", of="the positional arguments")
    return dims + [0] * len(tree.leaves(kwargs))


_NOT_MAPPED = "give None for it in in_axes (keyword arguments are always mapped: pass it by position, or close over it)"


def _batch_size(leaves: list[Any], dims: list[int | None], name: Callable[[int], str], axis_size: int | None) -> int:
    sizes: dict[int, list[str]] = {}
    for k, (x, d) in enumerate(zip(leaves, dims, strict=True)):
        if d is None:
            continue
        shape = aval_of(x).shape
        if not -len(shape) <= d < len(shape):
            raise ValueError(
                f"vmap: in_axes asks for axis {d} of {name(k)}, which has shape {shape}"
                + (f"; a scalar has no axis to map over: {_NOT_MAPPED}" if not shape else "")
            )
        dims[k] = canonicalize_axis(d, len(shape))
        sizes.setdefault(shape[d], []).append(f"axis {dims[k]} of {name(k)}, shape {shape}")
    if axis_size is not None:
        sizes.setdefault(axis_size, []).insert(0, "axis_size")
    if len(sizes) > 1:
        listed = "\n".join(f"  size {size}: {who}" for size, users in sizes.items() for who in users)
        raise ValueError(f"vmap: the mapped axes must have equal sizes, but they are\n{listed}")
    if not sizes:
        raise ValueError(
            "vmap: no argument has a mapped axis (every entry of in_axes is None, or there are no array leaves); "
            "map at least one, or pass axis_size"
        )
    return next(iter(sizes))


def vmap(
    fun: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: Any = None,
    axis_size: int | None = None,
    spmd_axis_name: Any = None,
) -> Callable[..., Any]:
    """Map ``fun`` over an axis of its arguments, as one program on whole arrays.

    Args:
        fun: a function of pytrees of arrays.
        in_axes: the axis to map in each positional argument: an int, None (not mapped), or a pytree of them that is a
            prefix of the arguments. Negative axes count from the end. Keyword arguments are mapped over axis 0.
        out_axes: where the mapped axis appears in the results, likewise a prefix; None for a result that does not
            depend on it.
        axis_name: a name by which collectives (``lax.psum``) inside ``fun`` refer to the axis.
        axis_size: the size, needed only if nothing is mapped.
        spmd_axis_name: accepted for JAX's sake; there is one device.

    >>> import numpy as np
    >>> vmap(lambda a, b: a @ b, in_axes=(0, None))(np.eye(2), np.array([1.0, 2.0]))
    array([1., 2.])
    """
    check_callable(fun, "vmap")
    _check_axes(in_axes, "in_axes")
    _check_axes(out_axes, "out_axes")
    if not isinstance(in_axes, (int, np.integer, tuple, list, type(None))):
        raise TypeError(
            f"vmap: in_axes must be an int, None, or a tuple with an entry per positional argument; found {in_axes!r}"
        )

    if axis_size is not None:
        if not isinstance(axis_size, (int, np.integer)) or isinstance(axis_size, bool) or axis_size < 0:
            raise TypeError(f"vmap: axis_size must be a non-negative integer, found {axis_size!r}")
        axis_size = int(axis_size)
    try:
        hash(axis_name)
    except TypeError:
        raise TypeError(f"vmap: axis_name must be hashable, a string for instance; found {axis_name!r}") from None

    @wraps(fun, "vmap", "Takes the same arguments with an additional axis at in_axes.")
    def vmap_fun(*args: Any, **kwargs: Any) -> Any:
        leaves, in_tree = tree.flatten((args, kwargs))
        dims = _in_dims(in_axes, args, kwargs)
        check_arguments(fun, args, kwargs, leaves, "vmap")
        name = lambda k: leaf_name(fun, tree.flatten_with_path((args, kwargs))[0][k][0])  # noqa: E731
        size = _batch_size(leaves, dims, name, axis_size)
        flat = FlatFunction(fun, in_tree)

        def out_dims(n: int) -> list[int | None]:
            wanted = tree.broadcast_prefix_to(
                out_axes, flat.out_tree, is_leaf=_is_none, what="vmap: out_axes", of="the result"
            )
            return [w if w is None else _result_axis(w, rank) for w, rank in zip(wanted, ranks, strict=True)]

        ranks: list[int] = []

        def fun_flat(*xs: Any) -> list[Any]:
            outs = flat(*xs)
            ranks[:] = [aval_of(x).ndim + 1 for x in outs]
            return outs

        with quiet():
            label = NO_NAME if axis_name is None else axis_name
            outs = batch_flat(fun_flat, size, leaves, dims, out_dims, label, fun)
        return flat.out_tree.unflatten(own_all(outs, leaves))

    return vmap_fun


def _result_axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ValueError(f"vmap: out_axes asks for axis {axis} of a result with {rank} axes (the mapped one included)")
    return axis % rank
