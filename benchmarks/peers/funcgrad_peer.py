"""funcgrad: workloads are written with plain ``numpy``."""

from __future__ import annotations

from typing import Any

import numpy as np

import funcgrad as fg

from .base import Function, Named, Peer


class Funcgrad(Peer):
    name, title, version = "funcgrad", "funcgrad", fg.__version__
    np, special, lax = np, fg.scipy.special, Named("funcgrad.lax", fg.lax)
    scipy = fg.scipy
    jit, grad, value_and_grad = map(staticmethod, (fg.jit, fg.grad, fg.value_and_grad))
    hessian, vmap = staticmethod(fg.hessian), staticmethod(fg.vmap)

    def has(self, path: str) -> bool:
        """Plain NumPy has all of it; what counts is what can be traced."""
        place: Any = fg
        for name in path.replace("special", "scipy.special").split("."):
            place = getattr(place, name, None)
        return place is not None

    def hvp(self, f: Function) -> Function:
        return lambda x, v: fg.jvp(fg.grad(f), (x,), (v,))[1]

    def add_at(self, x: Any, index: Any, value: Any) -> Any:
        return fg.at(x)[index].add(value)

    def set_at(self, x: Any, index: Any, value: Any) -> Any:
        return fg.at(x)[index].set(value)

    def forget(self) -> None:
        fg.clear_caches()


def make() -> Peer:
    return Funcgrad()
