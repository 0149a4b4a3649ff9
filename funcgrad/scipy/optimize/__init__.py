"""``scipy.optimize`` for functions that are traced: ``minimize``, ``root``, ``root_scalar``, ``brentq``, ``bisect``.

Names, arguments and the fields of results are SciPy's; derivatives of the user's function are exact. A solver is one
loop, which runs under `jit` (natively) and `vmap`. Its solution is differentiated by the implicit function theorem, in
both modes and to any order, with respect to ``args`` and to what the function captures: not through the loop.

Nothing fails silently: what has not converged has ``success`` False and a ``status`` that says why. Derivatives are
those of an exact solution; where ``success`` is False they mean nothing.

>>> import numpy as np
>>> import funcgrad as fg
>>> def distance_to(a):                                # the point of a curve that is nearest to a
...     loss = lambda t, a: (t[0] - a[0]) ** 2 + (t[0] ** 2 - a[1]) ** 2
...     return fg.scipy.optimize.minimize(loss, np.ones(1), (a,), tol=1e-10).x[0]
>>> np.round(fg.jit(fg.grad(distance_to))(np.array([2.0, 1.0])), 5)
array([0.13989, 0.32604])
"""

from .minimizers import minimize
from .results import OptimizeResults, RootResults, RootScalarResults
from .roots import root
from .scalar_roots import bisect, brentq, root_scalar

__all__ = [
    "OptimizeResults", "RootResults", "RootScalarResults", "bisect", "brentq", "minimize", "root", "root_scalar",
]  # fmt: skip
