"""What a workload is: a name, its arguments, and a function of a peer that gives what is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .peers.base import Peer, Unsupported

__all__ = ["Rng", "Workload", "vectors"]

Rng = np.random.Generator


@dataclass(frozen=True)
class Workload:
    """``build(peer)`` is called with ``arguments(rng, **size)``; what has ``steps`` is built by ``build(peer, steps)``.

    ``tiny`` is the size at which tests run it, ``second`` another shape of the arguments (for "second shape").
    ``tolerance`` is the difference allowed between peers, relative to the largest element of each result.
    ``forward`` marks what NumPy computes as well, so that autograd has nothing to add to it.
    ``needs`` names what a peer must have (``lax.scan``); ``without`` says why a peer is left out though it has it.
    ``own`` has builders for peers that need a formulation of their own.
    ``slow`` ones are left out by ``--quick``; ``cold`` ones are also measured in fresh processes,
    and ``busy`` ones beside another process that computes.
    """

    name: str
    group: str
    arguments: Callable[..., tuple[Any, ...]]
    build: Callable[..., Any]
    size: Mapping[str, int] = field(default_factory=dict)
    tiny: Mapping[str, int] = field(default_factory=dict)
    second: Mapping[str, int] | None = None
    steps: int = 0
    tiny_steps: int = 0
    tolerance: float = 1e-9
    forward: bool = False
    needs: tuple[str, ...] = ()
    without: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    slow: bool = False
    cold: bool = False
    busy: bool = False

    def takes_part(self, peer: str) -> bool:
        """Whether there is anything to say about this peer, be it that it is left out."""
        return peer in self.own if peer == "numba" else not (self.forward and peer == "autograd")

    def arguments_at(self, size: Mapping[str, int]) -> tuple[Any, ...]:
        """The same numbers for every peer."""
        return self.arguments(np.random.default_rng(0), **size)

    def function(self, peer: Peer, tiny: bool = False) -> Callable[..., Any]:
        """What is called; raises `Unsupported` for a peer that cannot do it."""
        if peer.name in self.without:
            raise Unsupported(self.without[peer.name])
        for path in () if peer.name in self.own else self.needs:
            if not peer.has(path):
                raise Unsupported(f"{peer.title} has no {path}")
        build = self.own.get(peer.name, self.build)
        return build(peer, self.tiny_steps if tiny else self.steps) if self.steps else build(peer)


def vectors(count: int = 1, dtype: str = "float64") -> Callable[..., tuple[Any, ...]]:
    """Arguments: so many vectors of ``n`` normal numbers."""
    return lambda rng, n: tuple(rng.normal(size=n).astype(dtype) for _ in range(count))
