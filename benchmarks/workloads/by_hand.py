"""Numba kernels written by hand, with their derivatives: what an expert would write for one machine.

Numba is imported when one of them is built: a peer process that has no use for it never loads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..peers.base import Function, Peer


def _njit(parallel: bool = False, fastmath: bool = False) -> Any:
    import numba

    return numba.njit(parallel=parallel, fastmath=fastmath, cache=False)


def fused(_: Peer) -> Function:
    import numba

    @_njit(parallel=True, fastmath=True)
    def f(x: Any, y: Any) -> Any:
        out = np.empty_like(x)
        for i in numba.prange(x.size):
            out[i] = np.tanh(x[i]) * y[i] + np.exp(-x[i] * x[i]) / (x.dtype.type(1.0) + y[i] * y[i])
        return out

    @_njit()
    def short(x: Any, y: Any) -> Any:
        one = x.dtype.type(1.0)
        out = np.empty_like(x)
        for i in range(x.size):
            out[i] = np.tanh(x[i]) * y[i] + np.exp(-x[i] * x[i]) / (one + y[i] * y[i])
        return out

    return lambda x, y: (f if x.size > 5000 else short)(x, y)


def rosenbrock(_: Peer) -> Function:
    @_njit(fastmath=True)
    def f(x: Any) -> Any:
        n = x.size
        g = np.empty_like(x)
        g[0] = 0.0
        total = 0.0
        for i in range(n - 1):
            a = x[i + 1] - x[i] * x[i]
            b = 1.0 - x[i]
            total += 100.0 * a * a + b * b
            g[i] += -400.0 * a * x[i] - 2.0 * b
            g[i + 1] = 200.0 * a
        return total, g

    return f


def life(_: Peer) -> Function:
    import numba

    @_njit(parallel=True)
    def f(cells: Any) -> Any:
        n, m = cells.shape
        out = np.empty_like(cells)
        for i in numba.prange(n):
            up, down = cells[i - 1], cells[i + 1 if i + 1 < n else 0]
            row = cells[i]
            for j in range(m):
                left, right = j - 1 if j else m - 1, j + 1 if j + 1 < m else 0
                around = up[left] + up[j] + up[right] + row[left] + row[right] + down[left] + down[j] + down[right]
                out[i, j] = (around == 3) | ((row[j] == 1) & (around == 2))
        return out

    return f


def cumsum(_: Peer) -> Function:
    @_njit()
    def f(x: Any) -> Any:
        out = np.empty_like(x)
        total = 0.0
        for i in range(x.size):
            total += x[i]
            out[i] = total
        return out

    return f


def n_body_gradient(_: Peer) -> Function:
    import numba

    @_njit(parallel=True, fastmath=True)
    def f(x: Any, y: Any, z: Any) -> Any:
        n = x.size
        gx, gy, gz = np.empty_like(x), np.empty_like(x), np.empty_like(x)
        for i in numba.prange(n):
            sx = sy = sz = 0.0
            for j in range(n):
                dx, dy, dz = x[i] - x[j], y[i] - y[j], z[i] - z[j]
                r2 = 0.01 + dx * dx + dy * dy + dz * dz
                w = 1.0 / (r2 * np.sqrt(r2))
                sx += w * dx
                sy += w * dy
                sz += w * dz
            gx[i], gy[i], gz[i] = 2.0 * sx, 2.0 * sy, 2.0 * sz
        return gx, gy, gz

    return f


def lorenz(_: Peer, steps: int) -> Function:
    @_njit()
    def f(state: Any) -> Any:
        x, y, z = state
        for _ in range(steps):
            x, y, z = (
                x + 1e-4 * 10.0 * (y - x),
                y + 1e-4 * (x * (28.0 - z) - y),
                z + 1e-4 * (x * y - 8.0 / 3.0 * z),
            )
        return np.array([x, y, z])

    return f
