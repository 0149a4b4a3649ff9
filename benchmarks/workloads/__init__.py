"""What is measured, by group, written once against a `Peer`. Numbers are float64 unless a name says f32."""

from __future__ import annotations

from . import dispatch, elementwise, learning, linear, loops, reductions

__all__ = ["BY_NAME", "WORKLOADS"]

WORKLOADS = (
    *dispatch.WORKLOADS,
    *elementwise.WORKLOADS,
    *reductions.WORKLOADS,
    *learning.WORKLOADS,
    *loops.WORKLOADS,
    *linear.WORKLOADS,
)
BY_NAME = {w.name: w for w in WORKLOADS}
