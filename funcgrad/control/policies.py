"""Which values a checkpointed function keeps for the backward pass: the policies of JAX.

A policy is asked of every operation of the forward pass: ``policy(primitive, *operand avals, **params)``, true if its
results are to be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import tree
from ..core.avals import aval_of
from ..ops.conv import conv_p
from ..ops.dot import dot_general_p
from ..ops.marks import name_p

__all__ = ["Policy", "checkpoint_name", "checkpoint_policies"]

Policy = Callable[..., bool]


def everything_saveable(prim: Any, *avals: Any, **params: Any) -> bool:
    """Keep every value: as if there were no checkpoint."""
    return True


def nothing_saveable(prim: Any, *avals: Any, **params: Any) -> bool:
    """Keep the inputs alone and compute all else again; what ``policy=None`` means."""
    return False


def dots_saveable(prim: Any, *avals: Any, **params: Any) -> bool:
    """Keep the results of matrix products and convolutions."""
    return prim is dot_general_p or prim is conv_p


def dots_with_no_batch_dims_saveable(prim: Any, *avals: Any, **params: Any) -> bool:
    """Keep the results of matrix products without batch axes: those of weights, not those of attention."""
    if prim is not dot_general_p:
        return False
    _, (lhs_batch, rhs_batch) = params["dimension_numbers"]
    return not lhs_batch and not rhs_batch


def _names(names: tuple[Any, ...], policy: str) -> frozenset[str]:
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{policy} takes names as separate strings, found {name!r}; write {policy}('a', 'b')")
    return frozenset(names)


def save_only_these_names(*names: str) -> Policy:
    """Keep the values that `checkpoint_name` gave one of these names."""
    wanted = _names(names, "save_only_these_names")
    return lambda prim, *avals, **params: prim is name_p and params["name"] in wanted


def save_any_names_but_these(*names: str) -> Policy:
    """Keep all values that have a name, but for these."""
    unwanted = _names(names, "save_any_names_but_these")
    return lambda prim, *avals, **params: prim is name_p and params["name"] not in unwanted


def save_anything_except_these_names(*names: str) -> Policy:
    """Keep everything but the values of these names. (The operation whose result is named is an operation of its own:
    to have the value computed again, it must not be read before it gets its name.)"""
    unwanted = _names(names, "save_anything_except_these_names")
    return lambda prim, *avals, **params: prim is not name_p or params["name"] not in unwanted


def save_from_both_policies(policy_1: Policy, policy_2: Policy) -> Policy:
    """Keep what either of two policies keeps."""

    def policy(prim: Any, *avals: Any, **params: Any) -> bool:
        return policy_1(prim, *avals, **params) or policy_2(prim, *avals, **params)

    return policy


class checkpoint_policies:
    """What `checkpoint` may keep, for its ``policy``."""

    everything_saveable = staticmethod(everything_saveable)
    nothing_saveable = staticmethod(nothing_saveable)
    dots_saveable = staticmethod(dots_saveable)
    checkpoint_dots = dots_saveable
    dots_with_no_batch_dims_saveable = staticmethod(dots_with_no_batch_dims_saveable)
    checkpoint_dots_with_no_batch_dims = dots_with_no_batch_dims_saveable
    save_only_these_names = staticmethod(save_only_these_names)
    save_any_names_but_these = staticmethod(save_any_names_but_these)
    save_anything_except_these_names = staticmethod(save_anything_except_these_names)
    save_from_both_policies = staticmethod(save_from_both_policies)


def checkpoint_name(x: Any, name: str) -> Any:
    """``x``, a pytree of arrays, with a name by which the policies of `checkpoint` can choose it.

    >>> import numpy as np
    >>> from funcgrad import checkpoint, grad
    >>> keep = checkpoint_policies.save_only_these_names("slow")
    >>> f = checkpoint(lambda x: np.sin(checkpoint_name(np.exp(x), "slow")), policy=keep)
    >>> round(float(grad(f)(0.0)), 6)               # exp is not computed again
    0.540302
    """
    if not isinstance(name, str):
        raise TypeError(f"checkpoint_name: the name must be a string, found {name!r}")

    def named(leaf: Any) -> Any:
        try:
            aval_of(leaf)
        except TypeError as error:
            raise TypeError(f"checkpoint_name: {error}") from None
        return name_p.bind(leaf, name=name)

    return tree.map(named, x)
