"""``scipy.optimize.minimize`` with exact derivatives, on Rosenbrock's valley in 20 dimensions.

Without ``jac`` SciPy estimates the gradient by differences: one evaluation of the function per coordinate, each wrong
in half of the digits. ``value_and_grad`` gives value and gradient together for the price of a few evaluations, and
``hessian`` makes second-order methods available. All are NumPy functions of NumPy arrays, as SciPy wants them.

    python examples/03_optimize.py
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from scipy.optimize import minimize

import funcgrad as fg

DIMENSIONS = 20


def rosenbrock(x: Any) -> Any:
    """A long bent valley with its minimum, 0, at (1, 1, ..., 1)."""
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def hessian_product(x: Any, v: Any) -> Any:
    """Hessian times vector without the Hessian: the derivative of the gradient along ``v``."""
    return fg.jvp(fg.grad(rosenbrock), (x,), (v,))[1]


eager = dict(fun=fg.value_and_grad(rosenbrock), jac=True)
compiled = dict(fun=fg.jit(fg.value_and_grad(rosenbrock)), jac=True)

METHODS: list[tuple[str, dict[str, Any]]] = [
    ("BFGS, gradient by differences", dict(method="BFGS", fun=rosenbrock)),
    ("BFGS, value_and_grad", dict(method="BFGS", **eager)),
    ("BFGS, jit(value_and_grad)", dict(method="BFGS", **compiled)),
    ("Newton-CG, jit(jvp of grad)", dict(method="Newton-CG", tol=1e-8, **compiled, hessp=fg.jit(hessian_product))),
    ("trust-exact, jit(hessian)", dict(method="trust-exact", **compiled, hess=fg.jit(fg.hessian(rosenbrock)))),
]


def main() -> int:
    start = np.zeros(DIMENSIONS)
    print(f"Rosenbrock in {DIMENSIONS} dimensions")
    print(f"{'':<32}{'iterations':>11}{'calls':>8}{'ms':>9}{'distance from the minimum':>28}")
    good = True
    for title, arguments in METHODS:
        minimize(x0=start, **arguments, options={"maxiter": 2})  # compile before the clock runs
        clock = time.perf_counter()
        result = minimize(x0=start, **arguments)
        elapsed = 1e3 * (time.perf_counter() - clock)
        distance = float(np.max(np.abs(result.x - 1.0)))
        print(f"{title:<32}{result.nit:>11}{result.nfev:>8}{elapsed:>9.1f}{distance:>28.1e}")
        good = good and distance < 1e-3
    print("Every method found the minimum." if good else "A method did NOT find the minimum.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
