"""Functions of matrices and matrix equations of ``scipy.linalg``; see there.

Roots, logarithms and broken powers of a traced matrix are complex, as ``eig``'s results are: whether they are real
depends on the values. Take the real part where you know that they are. SciPy's own functions are called as long as
nothing is traced, and choose by the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.avals import aval_of
from ..numpy import linalg as nl
from ..numpy.decompositions import inexact
from ..numpy.dispatch import contains_tracer
from ..ops import lu as factors
from ..ops import matrix_functions as functions
from ..ops import sylvester as equations
from ..ops.matrices import adjoint, check_matrices, eye_like, matmul
from ..ops.promotion import as_dtype
from ..ops.structural import reshape, shape_of
from ..transforms.derive import jvp
from .face import linalg_face as _face

__all__ = [
    "coshm",
    "cosm",
    "expm",
    "expm_frechet",
    "fractional_matrix_power",
    "logm",
    "schur",
    "sinhm",
    "sinm",
    "solve_continuous_lyapunov",
    "solve_discrete_lyapunov",
    "solve_lyapunov",
    "solve_sylvester",
    "sqrtm",
    "tanhm",
    "tanm",
]  # fmt: skip

# Padé approximants of order 3, 5, 7, 9, 13 would save products for small matrices; which one serves depends on the
# values, so that a traced program takes the highest always (Higham, "The scaling and squaring method for the matrix
# exponential revisited", 2005).
_PADE = (
    64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0,
    10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0,
)  # fmt: skip
_PADE_NORM = 5.371920351148152
_SQUARINGS = 16


@_face
def expm(A: Any) -> Any:
    """The matrix exponential, by scaling and squaring.

    A traced matrix is scaled by at most 2**16; beyond (a 1-norm above 350,000) the result is NaN.
    """
    (x,) = inexact(A)
    return _expm(x)


def _expm(x: Any) -> Any:
    check_matrices("expm", aval_of(x), square=True)
    n = shape_of(x)[-1]
    if n == 0:
        return x
    dtype = aval_of(x).dtype
    norm = np.max(np.sum(np.abs(x), axis=-2), axis=-1)
    real = aval_of(norm).dtype
    squarings = np.maximum(np.ceil(np.log2(np.maximum(norm, real.type(1e-30)) / real.type(_PADE_NORM))), real.type(0))
    x = np.multiply(x, as_dtype(np.exp2(np.negative(squarings)), dtype)[..., None, None])
    b = [dtype.type(v / _PADE[0]) for v in _PADE]
    one = eye_like(x, n)
    x2 = matmul(x, x)
    x4 = matmul(x2, x2)
    x6 = matmul(x4, x2)
    odd = matmul(x6, b[13] * x6 + b[11] * x4 + b[9] * x2) + b[7] * x6 + b[5] * x4 + b[3] * x2 + b[1] * one
    even = matmul(x6, b[12] * x6 + b[10] * x4 + b[8] * x2) + b[6] * x6 + b[4] * x4 + b[2] * x2 + b[0] * one
    odd = matmul(x, odd)
    result = factors.solve(even - odd, even + odd)
    for k in range(_SQUARINGS):
        more = np.greater(squarings, real.type(k))[..., None, None]
        result = np.where(more, matmul(result, result), result)
    too_many = np.greater(squarings, real.type(_SQUARINGS))[..., None, None]
    return np.where(too_many, dtype.type(np.nan), result)


@_face
def expm_frechet(
    A: Any, E: Any, method: Any = None, compute_expm: bool = True, check_finite: bool = True
) -> Any:  # fmt: skip
    """The exponential of ``A`` and its derivative along ``E`` (without ``compute_expm``: the derivative alone)."""
    a, e = inexact(A, E)
    value, tangent = jvp(_expm, (a,), (e,))
    return (value, tangent) if compute_expm else tangent


def _of_both(name: str, a: Any) -> tuple[Any, Any, bool]:
    """``exp(ia)``, ``exp(-ia)`` (None of a real matrix: it is the conjugate), and whether ``a`` is real."""
    (x,) = inexact(a)
    check_matrices(name, aval_of(x), square=True)
    is_real = aval_of(x).dtype.kind == "f"
    turned = np.multiply(as_dtype(x, np.result_type(aval_of(x).dtype, np.complex64)), 1j)
    return _expm(turned), None if is_real else _expm(np.negative(turned)), is_real


@_face
def cosm(A: Any) -> Any:
    """The cosine of a matrix."""
    plus, minus, is_real = _of_both("cosm", A)
    return np.real(plus) if is_real else 0.5 * (plus + minus)


@_face
def sinm(A: Any) -> Any:
    """The sine of a matrix."""
    plus, minus, is_real = _of_both("sinm", A)
    return np.imag(plus) if is_real else -0.5j * (plus - minus)


@_face
def tanm(A: Any) -> Any:
    """The tangent of a matrix."""
    plus, minus, is_real = _of_both("tanm", A)
    if is_real:
        return factors.solve(np.real(plus), np.imag(plus))
    return factors.solve(plus + minus, -1j * (plus - minus))


@_face
def coshm(A: Any) -> Any:
    """The hyperbolic cosine of a matrix."""
    (x,) = inexact(A)
    return 0.5 * (_expm(x) + _expm(np.negative(x)))


@_face
def sinhm(A: Any) -> Any:
    """The hyperbolic sine of a matrix."""
    (x,) = inexact(A)
    return 0.5 * (_expm(x) - _expm(np.negative(x)))


@_face
def tanhm(A: Any) -> Any:
    """The hyperbolic tangent of a matrix."""
    (x,) = inexact(A)
    plus, minus = _expm(x), _expm(np.negative(x))
    return factors.solve(plus + minus, plus - minus)


@_face
def sqrtm(A: Any, *args: Any, **kwargs: Any) -> Any:
    """The principal square root of a matrix. Of a traced matrix it is complex.

    The derivative solves a Sylvester equation. Where two eigenvalues of the root add up to zero, as those of a singular
    matrix may, there is none: NaN, or un-jitted ``LinAlgError``.
    """
    (x,) = inexact(A)
    return equations.sqrtm(x)


@_face
def logm(A: Any, *args: Any, **kwargs: Any) -> Any:
    """The principal logarithm of a matrix. Of a traced matrix it is complex. As SciPy's it warns where the matrix is
    singular."""
    (x,) = inexact(A)
    return functions.logm(x)


@_face
def fractional_matrix_power(A: Any, t: float) -> Any:
    """A power of a matrix, with any real exponent. Of a traced matrix it is complex, unless ``t`` is an integer."""
    (x,) = inexact(A)
    if contains_tracer((t,)):
        raise TypeError(
            "fractional_matrix_power: the exponent t must be a number, not a traced value; for a derivative in t write "
            "expm(t * logm(A))"
        )
    return nl.matrix_power(x, int(t)) if float(t).is_integer() else functions.power(x, float(t))


@_face
def schur(
    a: Any, output: str = "real", lwork: Any = None, overwrite_a: bool = False, sort: Any = None,
    check_finite: bool = True,
) -> Any:  # fmt: skip
    """The Schur form ``(t, z)`` with ``a = z t zᴴ``. It has no derivative, being one of many."""
    if sort is not None:
        raise NotImplementedError("schur: sort is not supported on traced values; call scipy.linalg.schur outside")
    if output not in ("real", "r", "complex", "c"):
        raise ValueError(f"schur: output must be 'real' or 'complex', found {output!r}")
    (x,) = inexact(a)
    if output in ("complex", "c"):
        x = as_dtype(x, np.result_type(aval_of(x).dtype, np.complex64))
    return equations.schur(x)


@_face
def solve_sylvester(a: Any, b: Any, q: Any) -> Any:
    """``x`` with ``a x + x b = q``.

    Where a and -b have an eigenvalue in common the result is NaN, un-jitted ``LinAlgError``.
    """
    return equations.sylvester(*inexact(a, b, q))


@_face
def solve_continuous_lyapunov(a: Any, q: Any) -> Any:
    """``x`` with ``a x + x aᴴ = q``."""
    a, q = inexact(a, q)
    return equations.sylvester(a, adjoint(a), q)


solve_lyapunov = solve_continuous_lyapunov


@_face
def solve_discrete_lyapunov(a: Any, q: Any, method: str | None = None) -> Any:
    """``x`` with ``a x aᴴ - x + q = 0``; ``method`` is ``"direct"`` (the default for less than 10 rows) or
    ``"bilinear"``."""
    a, q = inexact(a, q)
    n = shape_of(a)[-1]
    method = method or ("direct" if n < 10 else "bilinear")
    one = eye_like(a, n)
    if method == "bilinear":
        right = nl.inv(adjoint(a) + one)
        b = matmul(adjoint(a) - one, right)
        c = 2 * matmul(factors.solve(a + one, q), right)
        return equations.sylvester(adjoint(b), b, np.negative(c))
    if method != "direct":
        raise ValueError(f"solve_discrete_lyapunov: method must be 'direct' or 'bilinear', found {method!r}")
    stack = shape_of(a)[:-2]
    product = np.einsum("...ij,...kl->...ikjl", a, np.conj(a))
    left = np.subtract(eye_like(a, n * n), reshape(product, (*stack, n * n, n * n)))
    return reshape(factors.solve(left, reshape(q, (*shape_of(q)[:-2], n * n, 1))), shape_of(q))
