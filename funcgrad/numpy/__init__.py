"""``numpy`` for functions that are differentiated, batched and compiled: ``import funcgrad.numpy as jnp``.

Each function here is NumPy's, on real ``np.ndarray``s: called without a tracer among its arguments it *is* NumPy's, with
NumPy's results and dtypes. With one it records or differentiates. ``np.sum(x)`` of a tracer finds the same definition,
so that code written with plain ``import numpy as np`` can be transformed as it is.

>>> import funcgrad.numpy as jnp
>>> jnp.linalg.norm(jnp.arange(3.0))
np.float64(2.23606797749979)
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy import (  # dtypes, constants and functions of what is static are NumPy's own
    bool,
    bool_,
    can_cast,
    complex64,
    complex128,
    complexfloating,
    dtype,
    e,
    euler_gamma,
    finfo,
    float16,
    float32,
    float64,
    floating,
    generic,
    iinfo,
    index_exp,
    inexact,
    inf,
    int8,
    int16,
    int32,
    int64,
    int_,
    integer,
    intp,
    isdtype,
    isscalar,
    issubdtype,
    ix_,
    mgrid,
    nan,
    ndarray,
    newaxis,
    number,
    ogrid,
    pi,
    promote_types,
    ravel_multi_index,
    s_,
    set_printoptions,
    signedinteger,
    uint,
    uint8,
    uint16,
    uint32,
    uint64,
    unravel_index,
    unsignedinteger,
)

from ..core.trace import Tracer
from . import creation, linalg, manipulation, methods, reductions, selection, statistics
from .at import at
from .ufuncs import UFUNCS

_EXPORTED = {
    name: getattr(module, name)
    for module in (creation, manipulation, linalg, reductions, selection, statistics)
    for name in module.__all__
    if name not in ("result_type_of", "cummax", "cummin", "multi_dot", "norm", "vector_norm", "matrix_norm", "matrix_power")
}
_UFUNCS = {name: value for name, value in vars(np).items() if isinstance(value, np.ufunc) and value in UFUNCS}
globals().update(_EXPORTED)
globals().update(_UFUNCS)  # np.sin itself: a ufunc finds the tracers among its operands
result_type = selection.result_type_of


def __array_namespace_info__() -> Any:
    """What the Python Array API standard asks of a namespace."""
    return np.__array_namespace_info__()


__array_api_version__ = np.__array_api_version__


def _array_namespace(self: Tracer, *, api_version: str | None = None) -> Any:
    return sys.modules[__name__]


methods.attach()
Tracer.__array_namespace__ = _array_namespace  # type: ignore[attr-defined]

__all__ = sorted(
    {
        *_EXPORTED, *_UFUNCS, "at", "bool", "bool_", "can_cast", "complex128", "complex64", "complexfloating", "dtype",
        "e", "euler_gamma", "finfo", "float16", "float32", "float64", "floating", "generic", "iinfo", "index_exp",
        "inexact", "inf", "int16", "int32", "int64", "int8", "int_", "integer", "intp", "isdtype", "isscalar",
        "issubdtype", "ix_", "linalg", "mgrid", "nan", "ndarray", "newaxis", "number", "ogrid", "pi", "promote_types",
        "ravel_multi_index", "result_type", "s_", "set_printoptions", "signedinteger", "uint", "uint16", "uint32",
        "uint64", "uint8", "unravel_index", "unsignedinteger",
    }
)  # fmt: skip
