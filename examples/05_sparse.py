"""Newton's method for a nonlinear Poisson problem in two dimensions, with a sparse Jacobian.

The steady temperature of a plate that heats itself (the Bratu problem): -Δu = λ exp(u) inside, u = 0 on the edge. With
finite differences that is one equation for each of n² points, each of which knows its four neighbours alone:
10^5 unknowns make a Jacobian of 10^10 entries, of which all but 5 in a row are zero. ``sparse_jacobian`` reads
which from the function, computes all of them by seven directional derivatives, and SciPy solves the linear systems.

    python examples/05_sparse.py [--points 300]
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
from scipy.sparse.linalg import spsolve

import funcgrad as fg

HEAT = 5.0


def residual(u: Any) -> Any:
    """``-Δu - λ exp(u)`` at the inner points of a unit square, times the square of their distance."""
    h = 1.0 / (u.shape[0] + 1)
    p = np.pad(u, 1)
    laplacian = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4.0 * u
    return -laplacian - h**2 * HEAT * np.exp(u)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=300, help="inner points along each side")
    n = parser.parse_args().points
    if n < 2:
        parser.error("--points must be at least 2")

    jacobian = fg.sparse_jacobian(residual)
    u = np.zeros((n, n))
    clock = time.perf_counter()
    pattern, colors = jacobian.pattern(u), jacobian.coloring(u)
    print(f"{u.size} unknowns, {pattern.nnz} entries that may be other than zero, {colors.n_columns} products")
    print(f"found in {1e3 * (time.perf_counter() - clock):.0f} ms")

    print(f"\n{'step':>4}{'largest residual':>20}{'Jacobian':>13}{'solution':>13}")
    for step in range(8):
        start = time.perf_counter()
        r, matrix = jacobian.value_and(u)
        middle = time.perf_counter()
        size = float(np.max(np.abs(r)))
        if size < 1e-13:
            print(f"{step:>4}{size:>20.1e}")
            break
        u = u - spsolve(matrix.tocsc(), r.ravel()).reshape(u.shape)
        end = time.perf_counter()
        print(f"{step:>4}{size:>20.1e}{1e3 * (middle - start):>10.1f} ms{1e3 * (end - middle):>10.1f} ms")

    # an independent check of the derivative: along a direction, by forward mode on the whole function
    v = np.cos(np.arange(u.size)).reshape(u.shape)
    wanted = fg.jvp(residual, (u,), (v,))[1].ravel()
    error = float(np.max(np.abs(jacobian(u) @ v.ravel() - wanted)))
    good = size < 1e-13 and error < 1e-12
    print(f"\nhottest point: {np.max(u):.6f}; the Jacobian and forward mode differ by {error:.0e}")
    print("Newton's method converged." if good else "Newton's method did NOT converge.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
