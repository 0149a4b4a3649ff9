"""torch.compile over torch.func, on the CPU."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

# One process compiles: a pool of compiler processes would hold the cores while others are measured.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch

from .base import EagerLoops, Function, Named, Peer, tree_map


def _axes(axis: Any) -> dict[str, Any]:
    return {} if axis is None else {"dim": axis}


def _reduce(one: Function, all_of_it: Function) -> Function:
    def reduce(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return all_of_it(x) if axis is None else one(x, dim=axis, keepdim=keepdims)

    return reduce


def _variance(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return torch.var(x, **_axes(axis), correction=0, **({"keepdim": True} if keepdims else {}))


def _like(f: Function) -> Function:
    """Functions of two arrays that take no Python numbers."""

    def call(x: Any, y: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            x = torch.as_tensor(x, dtype=y.dtype)
        return f(x, y if isinstance(y, torch.Tensor) else torch.as_tensor(y, dtype=x.dtype))

    return call


def _asarray(x: Any, dtype: Any = None) -> Any:
    return torch.as_tensor(x, dtype=None if dtype is None else getattr(torch, dtype))


def _made(f: Function) -> Function:
    return lambda *args, dtype="float64": f(*args, dtype=getattr(torch, np.dtype(dtype).name))


NAMESPACE = Named(
    "torch",
    torch,
    max=_reduce(torch.amax, torch.max),
    min=_reduce(torch.amin, torch.min),
    var=_variance,
    power=torch.pow,
    equal=torch.eq,
    dot=torch.matmul,
    concatenate=lambda xs, axis=0: torch.cat(list(xs), dim=axis),
    stack=lambda xs, axis=0: torch.stack(list(xs), dim=axis),
    argmax=lambda x, axis=None: torch.argmax(x, **_axes(axis)),
    cumsum=lambda x, axis=0: torch.cumsum(x, dim=axis),
    roll=lambda x, shift, axis: torch.roll(x, shift, dims=axis),
    maximum=_like(torch.maximum),
    minimum=_like(torch.minimum),
    swapaxes=torch.swapaxes,
    sort=lambda x: torch.sort(x).values,
    asarray=_asarray,
    zeros=_made(torch.zeros),
    ones=_made(torch.ones),
    eye=_made(torch.eye),
    mean=lambda x, axis=None, keepdims=False: (
        torch.mean(x) if axis is None else torch.mean(x, dim=axis, keepdim=keepdims)
    ),
    sum=lambda x, axis=None, keepdims=False: torch.sum(x) if axis is None else torch.sum(x, dim=axis, keepdim=keepdims),
    take=lambda x, i, axis: torch.index_select(x, axis, i),
)
SPECIAL = Named("torch.special", torch.special, logsumexp=lambda x, axis: torch.logsumexp(x, dim=axis))


class Torch(Peer):
    name, title, version = "torch", "torch.compile", torch.__version__
    np, special = NAMESPACE, SPECIAL
    # torch.compile has no loops of its own for derivatives; Python's are unrolled
    lax = Named("torch.compile", None)
    eager_loops = EagerLoops(NAMESPACE)
    grad, vmap = staticmethod(torch.func.grad), staticmethod(torch.func.vmap)
    hessian = staticmethod(torch.func.hessian)

    def jit(self, f: Function) -> Function:
        return torch.compile(f)

    def value_and_grad(self, f: Function) -> Function:
        both = torch.func.grad_and_value(f)

        def swapped(*args: Any) -> Any:
            gradient, value = both(*args)
            return value, gradient

        return swapped

    def hvp(self, f: Function) -> Function:
        return lambda x, v: torch.func.jvp(torch.func.grad(f), (x,), (v,))[1]

    def add_at(self, x: Any, index: Any, value: Any) -> Any:
        if isinstance(index, torch.Tensor):
            return torch.index_add(x, 0, index, value)
        updated = x.clone()
        updated[index] += value
        return updated

    def set_at(self, x: Any, index: Any, value: Any) -> Any:
        updated = x.clone()
        updated[index] = value
        return updated

    def cast(self, x: Any, dtype: str) -> Any:
        return x.to(getattr(torch, dtype))

    def arguments(self, tree: Any) -> Any:
        return tree_map(lambda x: x if isinstance(x, str) else torch.as_tensor(x), tree)

    def to_numpy(self, tree: Any) -> Any:
        return tree_map(lambda x: x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x), tree)

    def forget(self) -> None:
        torch._dynamo.reset()


def make() -> Peer:
    return Torch()
