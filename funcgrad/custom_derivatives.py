"""Derivative rules of one's own, under the names of ``jax.custom_derivatives``."""

from __future__ import annotations

from .control.custom_functions import closure_convert, custom_gradient, custom_jvp, custom_vjp
from .control.custom_rules import CustomVJPPrimal, SymbolicZero, zero_from_primal
from .control.linear_call import linear_call

__all__ = [
    "CustomVJPPrimal",
    "SymbolicZero",
    "closure_convert",
    "custom_gradient",
    "custom_jvp",
    "custom_vjp",
    "linear_call",
    "zero_from_primal",
]
