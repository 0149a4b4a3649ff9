"""Who takes part: one module per library, each with one class `Peer`, loaded when it is first asked for."""

from __future__ import annotations

import importlib
import importlib.util

from .base import Peer, Unsupported

__all__ = ["NAMES", "TITLES", "Peer", "Unsupported", "installed", "load"]

# In the order of the table's columns.
TITLES = {
    "funcgrad": "funcgrad",
    "jax": "JAX",
    "torch": "torch.compile",
    "pytensor": "PyTensor",
    "autograd": "autograd",
    "numpy": "NumPy",
    "numba": "Numba by hand",
}
NAMES = tuple(TITLES)


def load(name: str) -> Peer:
    """Import the library and give its face. A library that is not there raises `ImportError`."""
    return importlib.import_module(f"{__name__}.{name}_peer").make()


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
