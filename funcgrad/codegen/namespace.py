"""The names that generated sources use, and the files that define them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from . import basic, memory, vecmath

__all__ = ["MACHINE_CODE", "namespace_for"]

_WORD: Final = re.compile(r"[a-z][a-z0-9_]*")


MACHINE_CODE: Final = sorted([Path(basic.__file__), Path(memory.__file__), *Path(vecmath.__file__).parent.glob("*.py")])
"""The files that define the names which sources use: what a kernel's text leaves out of the cache's key."""


def namespace_for(source: str) -> dict[str, Any]:
    """The globals of a kernel's source. Imports Numba."""
    names: dict[str, Any] = {"inf": float("inf"), "nan": float("nan")}
    known = memory.memory_functions()
    functions = vecmath.namespace()
    for word in set(_WORD.findall(source)):
        if word in known:
            names[word] = known[word]
        elif word in basic.BASIC:
            names[word] = memory.basic_function(word)
        elif word in vecmath.NAMES:
            names[word] = functions[word]
    return names
