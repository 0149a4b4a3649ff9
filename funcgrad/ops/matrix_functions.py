"""Functions of a matrix that SciPy computes, with derivatives of any order from one identity.

For a function f of matrices that is given by a function of numbers (a logarithm, a power), the derivative of f at a
along e, ``L(a, e)``, stands in the corner of a value of f (Mathias 1996; Higham, "Functions of matrices", 3.2):

    f([[a, e], [0, a]]) = [[f(a), L(a, e)], [0, f(a)]]

The derivative of L in e is L, since it is linear; its transpose is L at the transposed matrix. Its derivative in a
along d is the corner of ``L([[a, e], [0, a]], [[d, 0], [0, d]])``, which is linear in d. So there are two primitives,
the function and L, and no third.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Host
from ..core.primitive import ZERO, Linear, NotLinear, Primitive
from .create import zeros_like
from .elementwise import convert_element_type
from .matrices import batch_leading, check_matrices, columns, extents, mT, rows, separated
from .shape import concatenate
from .structural import bind_checked, shape_of
from .sylvester import complex_dtype, each_matrix

__all__ = ["logm", "matrix_function_p", "power"]


def _function(name: str, exponent: float | None) -> Callable[[Any], Any]:
    from scipy import linalg

    if name == "power":
        return lambda a: linalg.fractional_matrix_power(a, exponent)
    found: Callable[[Any], Any] = getattr(linalg, name)
    return found


def _value_impl(a: Any, *, function: str, exponent: float | None) -> Any:
    return each_matrix(_function(function, exponent), complex_dtype(np.asarray(a).dtype), a)


def _value_shape(a: ShapedArray, *, function: str, exponent: float | None) -> ShapedArray:
    check_matrices(function, a, square=True)
    return ShapedArray(a.shape, complex_dtype(a.dtype))


def _complex(x: Any) -> Any:
    dtype = complex_dtype(aval_of(x).dtype)
    return x if aval_of(x).dtype == dtype else convert_element_type(x, dtype)


def _value_jvp(primals: Any, tangents: Any, out: Any, **params: Any) -> Any:
    return derivative_p.bind(_complex(primals[0]), _complex(tangents[0]), **params)


_FUNCTIONS: list[dict[str, Any]] = [
    {"function": "logm", "exponent": None},
    {"function": "power", "exponent": 0.3},
    {"function": "power", "exponent": -1.5},
]

matrix_function_p: Primitive = Primitive(
    "matrix_function",
    impl=_value_impl,
    shape=_value_shape,
    jvp=_value_jvp,
    transpose=NotLinear(),
    batch=batch_leading(lambda a, **params: matrix_function_p.bind(a, **params)),
    lower=Host("SciPy's logarithms and powers of matrices are written in Python"),
    samples=lambda rng: [((separated(rng, *s),), p) for s in [(3, 3), (1, 1), (2, 2, 2), (0, 0)] for p in _FUNCTIONS],
)


# the derivative -----------------------------------------------------------------------------------------------------


def _derivative_shape(a: ShapedArray, e: ShapedArray, *, function: str, exponent: float | None) -> ShapedArray:
    check_matrices(function, a, square=True)
    if a.shape != e.shape:
        raise ValueError(f"{function}: a matrix of shape {a.shape} has no direction of shape {e.shape}")
    return a.strong()


def _triangular(a: Any) -> tuple[Any, Any]:
    """``(t, z)``, t upper triangular, with ``a = z t zᴴ``, for a complex a.

    Eigenvalues of a real matrix that are real and negative lie on the cut of logarithms and powers: its real form
    keeps them real, where the complex one would move each to one side or the other. The two blocks of ``_block``'s
    matrices have the same form, where one of the whole would move their double eigenvalues apart.
    """
    from scipy.linalg import rsf2csf, schur

    n = a.shape[0] // 2
    if n and a.shape[0] == 2 * n and not a[n:, :n].any() and np.array_equal(a[:n, :n], a[n:, n:]):
        t, z = _triangular(a[:n, :n])
        zero = np.zeros_like(t)
        return np.block([[t, z.conj().T @ a[:n, n:] @ z], [zero, t]]), np.block([[z, zero], [zero, z]])
    form: tuple[Any, Any] = schur(a, output="complex") if a.imag.any() else rsf2csf(*schur(a.real))
    return form


def _derivative_impl(a: Any, e: Any, *, function: str, exponent: float | None) -> Any:
    f = _function(function, exponent)

    def corner(a: Any, e: Any) -> Any:
        n = a.shape[0]
        size = np.abs(e).max()
        if size == 0:
            return np.zeros_like(a)
        scale = (
            max(np.abs(a).max(), np.finfo(a.dtype).tiny) / size
        )  # of the size of a, neither lost in it nor losing it
        t, z = _triangular(a)
        turned = z.conj().T @ e @ z * scale
        return z @ f(np.block([[t, turned], [np.zeros_like(t), t]]))[:n, n:] @ z.conj().T / scale

    return each_matrix(corner, np.asarray(a).dtype, a, e)


def _block(a: Any, upper: Any) -> Any:
    last = len(shape_of(a)) - 1
    return concatenate(
        [concatenate([a, upper], last), concatenate([zeros_like(a), a], last)],
        last - 1,
    )


def _derivative_jvp(primals: Any, tangents: Any, out: Any, **params: Any) -> Any:
    (a, e), (da, de) = primals, tangents
    parts = []
    if de is not ZERO:
        parts.append(derivative_p.bind(a, de, **params))
    if da is not ZERO:
        n, _ = extents(a)
        both = derivative_p.bind(_block(a, e), _block(da, zeros_like(da)), **params)
        parts.append(columns(rows(both, 0, n), n, 2 * n))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _derivative_transpose(ct: Any, a: Any, e: Any, **params: Any) -> Any:
    if type(a) is Linear:
        raise TypeError("the derivative of a function of matrices is linear in its direction only")
    return None, mT(derivative_p.bind(a, mT(ct), **params))


derivative_p: Primitive = Primitive(
    "matrix_function_derivative",
    impl=_derivative_impl,
    shape=_derivative_shape,
    jvp=_derivative_jvp,
    transpose=_derivative_transpose,
    batch=batch_leading(lambda *args, **params: derivative_p.bind(*args, **params)),
    lower=Host("SciPy's logarithms and powers of matrices are written in Python"),
    samples=lambda rng: [
        ((separated(rng, *s) + 0j, rng.normal(size=s) + 0.5j * rng.normal(size=s)), p)
        for s in [(3, 3), (1, 1), (2, 2, 2), (0, 0)]
        for p in _FUNCTIONS
    ],
)


def logm(a: Any) -> Any:
    """The principal logarithm, complex always: whether it is real depends on the values."""
    return bind_checked(matrix_function_p, a, function="logm", exponent=None)


def power(a: Any, exponent: float) -> Any:
    """The principal power, complex always."""
    return bind_checked(matrix_function_p, a, function="power", exponent=float(exponent))
