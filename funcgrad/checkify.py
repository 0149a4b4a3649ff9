"""Checks as values: JAX's ``jax.experimental.checkify``.

>>> import numpy as np
>>> from funcgrad import checkify, jit
>>> def f(x):
...     checkify.check(x > 0, "{x} is not positive", x=x)
...     return np.log(x)
>>> error, value = jit(checkify.checkify(f))(2.0)
>>> error.throw()  # nothing to throw
>>> jit(checkify.checkify(f))(-2.0)[0].get()
'-2.0 is not positive (`check` failed), at ...'
"""

from __future__ import annotations

from .control.check import Error, check, check_error
from .control.checkify import checkify
from .errors import CheckError

__all__ = [
    "CheckError",
    "Error",
    "JaxRuntimeError",
    "all_checks",
    "automatic_checks",
    "check",
    "check_error",
    "checkify",
    "div_checks",
    "float_checks",
    "index_checks",
    "nan_checks",
    "user_checks",
]

JaxRuntimeError = CheckError
"""JAX's name of it."""

user_checks = frozenset({"user"})
nan_checks = frozenset({"nan"})
index_checks = frozenset({"index"})
div_checks = frozenset({"div"})
float_checks = nan_checks | div_checks
automatic_checks = float_checks | index_checks
all_checks = automatic_checks | user_checks
