"""``scipy.sparse`` as far as JAX has it: iterative solvers of linear systems, in `linalg`."""

from . import linalg

__all__ = ["linalg"]
