"""Scalar mathematics that LLVM can vectorise: branch-free, at most 2 ulp from the truth, in float32 and float64."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import bits, error, exponential, inverse, logarithm, power, trigonometric
from .numba_target import numba_function
from .registry import DEFINITIONS

NAMES = frozenset(DEFINITIONS)


class _Namespace(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        return numba_function(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(NAMES))

    def __len__(self) -> int:
        return len(NAMES)


def namespace() -> Mapping[str, Any]:
    return _Namespace()
