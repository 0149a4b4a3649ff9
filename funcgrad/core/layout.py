"""Layouts: an array's index space laid over linear memory, in elements.

``element(i0, i1, ...) = offset + i0*strides[0] + i1*strides[1] + ...``. Every view operation (transpose,
slice, reverse, broadcast, most reshapes) is a map from layout to layout and costs no pass over memory.

>>> Layout.contiguous((2, 3)).permute((1, 0))
Layout(shape=(3, 2), strides=(1, 3), offset=0)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Layout"]


class Layout(NamedTuple):
    """A tuple, because programs are grouped by comparing and looking up layouts by the hundred."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @staticmethod
    def contiguous(shape: Sequence[int]) -> Layout:
        return _contiguous(tuple(shape))

    @property
    def size(self) -> int:
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    def is_contiguous(self) -> bool:
        """Row-major without gaps; axes of extent 1 may carry any stride."""
        step = 1
        for extent, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if extent != 1 and stride != step:
                return self.size == 0
            step *= extent
        return True

    def permute(self, permutation: Sequence[int]) -> Layout:
        shape, strides = self.shape, self.strides
        return Layout(tuple([shape[p] for p in permutation]), tuple([strides[p] for p in permutation]), self.offset)

    def slice(self, starts: Sequence[int], shape: Sequence[int], steps: Sequence[int]) -> Layout:
        """Elements ``starts + k*steps`` for ``k < shape``; steps may be negative."""
        offset = self.offset + sum([b * s for b, s in zip(starts, self.strides, strict=True)])
        return Layout(tuple(shape), tuple([k * s for k, s in zip(steps, self.strides, strict=True)]), offset)

    def reverse(self, axes: Sequence[int]) -> Layout:
        starts = [self.shape[a] - 1 if a in axes else 0 for a in range(len(self.shape))]
        steps = [-1 if a in axes else 1 for a in range(len(self.shape))]
        return self.slice(starts, self.shape, steps)

    def broadcast(self, shape: Sequence[int], axes: Sequence[int]) -> Layout:
        """Place own axis ``k`` at ``axes[k]`` of ``shape``; all others, and stretched ones, get stride 0."""
        strides = [0] * len(shape)
        for extent, stride, axis in zip(self.shape, self.strides, axes, strict=True):
            strides[axis] = stride if extent == shape[axis] else 0
        return Layout(tuple(shape), tuple(strides), self.offset)

    def reshape(self, shape: Sequence[int]) -> Layout | None:
        """The same elements in row-major order under another shape; None where that needs a copy."""
        shape = tuple(shape)
        if self.size == 0:
            return Layout(shape, Layout.contiguous(shape).strides, self.offset)
        if shape == self.shape and 1 not in shape:
            return self
        # merge own axes into maximal runs that are uniform in memory, then cut the runs to the new shape
        runs: list[tuple[int, int]] = []
        for extent, stride in zip(self.shape, self.strides, strict=True):
            if extent == 1:
                continue
            if runs and runs[-1][1] == extent * stride:
                runs[-1] = (runs[-1][0] * extent, stride)
            else:
                runs.append((extent, stride))
        strides, run = [0] * len(shape), len(runs) - 1
        left, step = runs[run] if runs else (1, 1)
        for axis in range(len(shape) - 1, -1, -1):
            extent = shape[axis]
            if extent == 1:
                continue
            if left == 1:
                run -= 1
                left, step = runs[run]
            if left % extent:
                return None
            strides[axis] = step
            step *= extent
            left //= extent
        return Layout(shape, tuple(strides), self.offset)


@lru_cache(maxsize=4096)
def _contiguous(shape: tuple[int, ...]) -> Layout:
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return Layout(shape, tuple(reversed(strides)))
