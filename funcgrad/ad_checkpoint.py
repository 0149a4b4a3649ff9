"""Checkpointing under JAX's path: the same functions as ``funcgrad.checkpoint`` and its neighbours."""

from __future__ import annotations

from .control.checkpoint import checkpoint
from .control.policies import checkpoint_name, checkpoint_policies
from .control.residuals import print_saved_residuals, saved_residuals

__all__ = ["checkpoint", "checkpoint_name", "checkpoint_policies", "print_saved_residuals", "saved_residuals"]
