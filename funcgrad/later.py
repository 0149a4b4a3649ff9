"""Modules that are imported when they are asked for (PEP 562): what a first call does not need, an import need not pay.

A package lists the names beside an import of them that type checkers alone see. ``dir`` has them all.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["later"]


def later(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__``. ``names``: of each name the module in the package that has it, or
    is it."""
    namespace = sys.modules[package].__dict__

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        module = importlib.import_module(f".{names[name]}", package)
        namespace[name] = module if name == names[name] else getattr(module, name)
        return namespace[name]

    return __getattr__, lambda: sorted({*namespace, *names})
