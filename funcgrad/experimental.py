"""JAX's place of what is not experimental here: ``experimental.checkify``, ``experimental.io_callback``."""

from __future__ import annotations

from . import checkify
from .control.callback import io_callback

__all__ = ["checkify", "io_callback"]
