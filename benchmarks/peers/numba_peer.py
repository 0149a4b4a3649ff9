"""Numba kernels written by hand, derivatives included: what an expert gets, for a handful of workloads."""

from __future__ import annotations

import numba

from .base import Function, Peer, Unsupported


class ByHand(Peer):
    name, title, version = "numba", "Numba by hand", numba.__version__

    def jit(self, f: Function) -> Function:
        raise Unsupported("nothing is written by hand for this workload")


def make() -> Peer:
    return ByHand()
