"""HIPS autograd: derivatives of NumPy code, run line by line."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import autograd
import autograd.numpy as anp
import autograd.scipy.special as special

from .base import EagerLoops, Function, Named, Peer


class Autograd(Peer):
    name, title, version = "autograd", "autograd", version("autograd")
    np = Named("autograd.numpy", anp)
    special = Named("autograd.scipy.special", special)
    lax = EagerLoops(anp)
    grad, value_and_grad = staticmethod(autograd.grad), staticmethod(autograd.value_and_grad)
    hessian = staticmethod(autograd.hessian)

    def hvp(self, f: Function) -> Function:
        return autograd.hessian_vector_product(f)

    def add_at(self, x: Any, index: Any, value: Any) -> Any:
        self.unsupported("updates in place")

    set_at = add_at


def make() -> Peer:
    return Autograd()
