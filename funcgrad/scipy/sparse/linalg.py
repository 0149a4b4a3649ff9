"""Iterative solvers of linear systems: ``cg``, ``bicgstab``, ``gmres``, as ``jax.scipy.sparse.linalg`` has them.

The matrix is a function or an array, the unknown a pytree of arrays. A solve is a loop under any transformation (under
`jit` a native one), and is differentiated by ``lax.custom_linear_solve``: not through the loop, but by one more solve.

>>> import numpy as np
>>> import funcgrad as fg
>>> def heat(k):                                            # -k u'' = 1, u = 0 at both ends
...     return cg(lambda u: k * (2 * u - np.convolve(u, [1.0, 0.0, 1.0], "same")), np.ones(3))[0]
>>> np.round(heat(2.0), 6), np.round(fg.jacfwd(heat)(2.0), 6)
(array([0.75, 1.  , 0.75]), array([-0.375, -0.5  , -0.375]))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import tree
from ...control.iterate import while_loop
from ...control.solves import custom_linear_solve
from ...core.avals import aval_of
from ...flatten_util import ravel_pytree
from ...numpy.dispatch import operand
from ...ops.dynamic import dynamic_slice, dynamic_update_slice
from ...ops.promotion import as_dtype, result_type
from ...ops.structural import shape_of
from ...transforms.derive import linear_transpose
from ...transforms.flat import function_name
from ..linalg import solve_triangular

__all__ = ["bicgstab", "cg", "gmres"]

Vector = Any
Map = Callable[[Vector], Vector]
Solver = Callable[..., tuple[Vector, Any]]

_ARGUMENTS = """
    Args:
        A: the matrix: a square array, or a linear function of a pytree like ``b``. It may be differentiated, also in
            what it captures.
        b: right-hand side: a pytree of arrays; one vector if ``A`` is an array.
        x0: where to start, of the structure of ``b``; zeros by default. No derivative depends on it.
        tol, atol: done when ``norm(A x - b) <= max(tol * norm(b), atol)``. ``rtol``, SciPy's name, stands for ``tol``.
        maxiter: the largest number of {steps}; ten times the number of unknowns by default.
        M: the preconditioner, an approximate inverse of ``A``: like it an array or a linear function.

    Returns:
        ``(x, info)``. ``info`` is an integer as in SciPy: 0 where the solver has converged, else {info}.

    Raises:
        TypeError, ValueError: arguments that are no arrays, or do not fit together.
        FuncgradError: ``A`` or ``M`` is not linear.
"""


def _linear_map(a: Any, n: int, what: str, name: str) -> tuple[Any, np.dtype[Any] | None]:
    """``a``, a function or a square array, and its dtype if it is an array."""
    if callable(a) and not hasattr(a, "aval"):
        return a, None
    try:
        a = operand(a)
    except TypeError:
        raise TypeError(
            f"{what}: {name} must be a square array or a function of the unknown, found {type(a).__name__}. Of a "
            "sparse matrix of SciPy pass its product, written with arrays (indices and values), or the array itself."
        ) from None
    if shape_of(a) != (n, n):
        raise ValueError(
            f"{what}: {name} has shape {shape_of(a)}, but b is a vector of {n} elements: it must be ({n}, {n}), or a "
            "function of the unknown"
        )
    return (lambda x: a @ x), aval_of(a).dtype


def _solve(
    what: str,
    solver: Solver,
    A: Any,
    b: Any,
    x0: Any,
    tol: Any,
    rtol: Any,
    atol: Any,
    maxiter: int | None,
    M: Any,
    symmetric: bool,
) -> tuple[Any, Any]:
    for leaf, path in zip(tree.leaves(b), tree.leaf_paths(tree.structure(b)), strict=True):
        try:
            aval_of(leaf)
        except TypeError as error:
            raise TypeError(f"{what}: b{path}: {error}") from None
    is_vector = tree.structure(b).is_leaf() and len(shape_of(operand(b))) == 1
    for name, a in (("A", A), ("M", M)):
        if a is not None and (hasattr(a, "aval") or not callable(a)) and not is_vector:
            raise ValueError(
                f"{what}: {name} is an array, for which b must be one vector; pass a function of the unknown"
            )
    flat, unravel = ravel_pytree(b)
    n = shape_of(flat)[0]
    multiply, a_dtype = _linear_map(A, n, what, "A")
    precondition, m_dtype = (None, None) if M is None else _linear_map(M, n, what, "M")
    dtypes = [d for d in (a_dtype, m_dtype, aval_of(flat).dtype) if d is not None]
    dtype = result_type(*[d.type(0) for d in dtypes])
    if dtype.kind not in "fc":
        dtype = np.dtype(np.float64)
    if dtype != aval_of(flat).dtype:
        flat, unravel = ravel_pytree(tree.map(lambda x: as_dtype(operand(x), dtype), b))
    structure = tree.structure(b)

    def on_vectors(fun: Callable[[Any], Any], name: str) -> Map:
        def mapped(v: Vector) -> Vector:
            out = fun(unravel(v))
            if tree.structure(out) != structure:
                raise TypeError(
                    f"{what}: {name} ({function_name(fun)}) must return the structure of b: "
                    + tree.describe_difference(structure, tree.structure(out))
                )
            wanted = [shape_of(x) for x in tree.leaves(b)]
            found = [shape_of(operand(x)) for x in tree.leaves(out)]
            if wanted != found:
                raise ValueError(
                    f"{what}: {name} ({function_name(fun)}) must keep the shapes {wanted}; it gives {found}"
                )
            return as_dtype(ravel_pytree(out)[0], dtype)

        mapped.__name__ = function_name(fun)
        return mapped

    start = np.zeros(n, dtype)
    if x0 is not None:
        if tree.structure(x0) != structure:
            raise TypeError(
                f"{what}: x0 must have the structure of b: " + tree.describe_difference(structure, tree.structure(x0))
            )
        start = as_dtype(ravel_pytree(x0)[0], dtype)
        if shape_of(start) != (n,):
            raise ValueError(f"{what}: x0 has {shape_of(start)[0]} elements and b has {n}; they must agree")
    steps = 10 * n if maxiter is None else maxiter
    relative = tol if rtol is None else rtol
    pre = (lambda v: v) if precondition is None else on_vectors(precondition, "M")
    pre_t = pre if symmetric or precondition is None else lambda v: linear_transpose(pre, v)(v)[0]

    def solve(matvec: Map, rhs: Vector, start: Vector = start, pre: Map = pre) -> tuple[Vector, Any]:
        bound = np.maximum(relative * np.linalg.norm(rhs), atol)
        return solver(matvec, rhs, start, bound, steps, pre)

    def transpose_solve(vecmat: Map, rhs: Vector) -> tuple[Vector, Any]:
        return solve(vecmat, rhs, np.zeros(n, dtype), pre_t)

    # (Not symmetric=True: the matrix is, but a derivative may be along a direction that is not.)
    x, info = custom_linear_solve(on_vectors(multiply, "A"), flat, solve, transpose_solve, has_aux=True)
    return unravel(x), info


def _dot(x: Vector, y: Vector) -> Any:
    return np.vdot(x, y)


def _squared(x: Vector) -> Any:
    return np.real(np.vdot(x, x))


def _cg(A: Map, b: Vector, x: Vector, bound: Any, maxiter: int, M: Map) -> tuple[Vector, Any]:
    r = b - A(x)
    p = M(r)

    def going(state: Any) -> Any:
        _, r, _, _, k = state
        return (_squared(r) > bound**2) & (k < maxiter)

    def step(state: Any) -> Any:
        x, r, p, gamma, k = state
        ap = A(p)
        alpha = gamma / np.real(_dot(p, ap))
        x, r = x + alpha * p, r - alpha * ap
        z = M(r)
        before, gamma = gamma, np.real(_dot(r, z))
        return x, r, z + (gamma / before) * p, gamma, k + 1

    x, r, _, _, k = while_loop(going, step, (x, r, p, np.real(_dot(r, p)), 0))
    return x, _info(_squared(r) <= bound**2, k)


def _info(converged: Any, steps: Any) -> Any:
    """0, or the number of steps that were taken in vain (-1 if there were none)."""
    return np.where(converged, 0, np.where(steps > 0, steps, -1))


def _bicgstab(A: Map, b: Vector, x: Vector, bound: Any, maxiter: int, M: Map) -> tuple[Vector, Any]:
    r = b - A(x)
    shadow = r
    one = r.dtype.type(1)

    def going(state: Any) -> Any:
        _, r, *_, broken, k = state
        return (_squared(r) > bound**2) & (k < maxiter) & ~broken

    def step(state: Any) -> Any:
        x, r, p, v, rho, alpha, omega, _, k = state
        before, rho = rho, _dot(shadow, r)
        p = r + (rho / before) * (alpha / omega) * (p - omega * v)
        ph = M(p)
        v = A(ph)
        alpha = rho / _dot(shadow, v)
        s = r - alpha * v
        sh = M(s)
        t = A(sh)
        tt = _squared(t)
        omega = np.where(tt > 0, _dot(t, s) / np.where(tt > 0, tt, 1), 0)
        done = _squared(s) <= bound**2
        x = x + alpha * ph + np.where(done, 0, omega) * sh
        r = np.where(done, s, s - omega * t)
        broken = ~done & ((rho == 0) | (omega == 0) | ~np.isfinite(_squared(r)))
        return x, r, p, v, rho, alpha, omega, broken, k + 1

    zero = np.zeros_like(b)
    x, r, *_, broken, k = while_loop(going, step, (x, r, zero, zero, one, one, one, np.bool_(False), 0))
    return x, np.where(broken, -10, _info(_squared(r) <= bound**2, k))


def _set(x: Any, value: Any, *index: Any) -> Any:
    """``x`` with the block at ``index`` replaced."""
    starts = [*index, *[0] * (len(shape_of(x)) - len(index))]
    block = np.reshape(value, (*[1] * len(index), *shape_of(x)[len(index) :]))
    return dynamic_update_slice(x, block, [np.asarray(i, np.intp)[()] if type(i) is int else i for i in starts])


def _get(x: Any, *index: Any) -> Any:
    rest = shape_of(x)[len(index) :]
    starts = [*index, *[0] * len(rest)]
    starts = [np.asarray(i, np.intp)[()] if type(i) is int else i for i in starts]
    return np.reshape(dynamic_slice(x, starts, (*[1] * len(index), *rest)), rest)


def _gmres(restart: int) -> Solver:
    """GMRES with restarts, preconditioned from the right, so that residuals are those of the system itself.

    ``rotations`` is the unitary matrix that takes the Hessenberg matrix to the triangle ``R``; one row pair changes
    per step. Vectors are orthogonalised twice, which is as good as reflections.
    """

    def solver(A: Map, b: Vector, x: Vector, bound: Any, maxiter: int, M: Map) -> tuple[Vector, Any]:
        n, dtype = shape_of(b)[0], b.dtype
        m = min(restart, n)
        real = np.real(b).dtype
        tiny = np.finfo(real).tiny

        def cycle(state: Any) -> Any:
            x, r, norm, k, _ = state
            basis = _set(np.zeros((m + 1, n), dtype), r / np.where(norm > 0, norm, 1), 0)

            def going(inner: Any) -> Any:
                _, _, _, residual, j = inner
                return (j < m) & (residual > bound)

            def arnoldi(inner: Any) -> Any:
                basis, triangle, rotations, _, j = inner
                w = A(M(_get(basis, j)))
                size = np.linalg.norm(w)
                h = np.conj(basis) @ w
                w = w - h @ basis
                again = np.conj(basis) @ w
                w = w - again @ basis
                h = h + again
                length: Any = np.linalg.norm(w)
                length = np.where(length > np.finfo(real).eps * size, length, 0)  # the rest is rounding
                basis = _set(basis, w / np.where(length > 0, length, 1) * (length > 0), j + 1)
                h = _set(h, as_dtype(length, dtype), j + 1)
                column = rotations @ h
                a = _get(column, j)
                d = np.maximum(np.sqrt(np.abs(a) ** 2 + length**2), tiny)
                c, s = np.conj(a) / d, length / d
                upper, lower = _get(rotations, j), _get(rotations, j + 1)
                rotations = _set(rotations, c * upper + s * lower, j)
                rotations = _set(rotations, np.conj(c) * lower - s * upper, j + 1)
                kept = np.where(np.arange(m + 1) < j, column, 0) + d * (np.arange(m + 1) == j)
                triangle = _set(triangle, kept[:m], j)  # columns of R as rows
                residual = norm * np.abs(_get(rotations, j + 1, 0))
                return basis, triangle, rotations, residual, j + 1

            eye = np.eye(m + 1, dtype=dtype)
            basis, triangle, rotations, _, j = while_loop(going, arnoldi, (basis, eye[:m, :m], eye, norm, 0))
            g = norm * np.where(np.arange(m) < j, rotations[:m, 0], 0)
            y = solve_triangular(triangle, g, trans=1, lower=True)
            x = x + M(y @ basis[:m])
            r = b - A(x)
            before, norm = norm, np.linalg.norm(r)
            return x, r, norm, k + 1, ~(norm < before)

        def going(state: Any) -> Any:
            _, _, norm, k, stuck = state
            return (norm > bound) & (k < maxiter) & ~stuck

        r = b - A(x)
        x, _, norm, k, _ = while_loop(going, cycle, (x, r, np.linalg.norm(r), 0, np.bool_(False)))
        return x, _info(norm <= bound, k)

    return solver


def cg(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    tol: Any = 1e-5,
    atol: Any = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    rtol: Any = None,
) -> tuple[Any, Any]:
    """Solve ``A x = b`` by conjugate gradients, for a positive definite matrix that is its own adjoint.

    >>> import numpy as np
    >>> x, info = cg(np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([3.0, 4.0]))
    >>> np.round(x, 6), int(info)
    (array([1., 1.]), 0)
    """
    return _solve("cg", _cg, A, b, x0, tol, rtol, atol, maxiter, M, symmetric=True)


def bicgstab(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    tol: Any = 1e-5,
    atol: Any = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    rtol: Any = None,
) -> tuple[Any, Any]:
    """Solve ``A x = b`` by the stabilised bi-conjugate gradient method, for any nonsingular matrix.

    >>> import numpy as np
    >>> x, info = bicgstab(lambda x: {"u": 2 * x["u"]}, {"u": np.array([2.0, 4.0])})
    >>> x["u"], int(info)
    (array([1., 2.]), 0)
    """
    return _solve("bicgstab", _bicgstab, A, b, x0, tol, rtol, atol, maxiter, M, symmetric=False)


def gmres(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    tol: Any = 1e-5,
    atol: Any = 0.0,
    restart: int = 20,
    maxiter: int | None = None,
    M: Any = None,
    solve_method: str = "batched",
    rtol: Any = None,
) -> tuple[Any, Any]:
    """Solve ``A x = b`` by the generalised minimal residual method, for any nonsingular matrix.

    ``restart`` is the largest dimension of the Krylov space; its basis takes ``restart + 1`` vectors of memory.
    ``solve_method`` is accepted for JAX's sake: the residual is always known at each step.

    >>> import numpy as np
    >>> x, info = gmres(np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([3.0, 1.0]))
    >>> np.round(x, 6), int(info)
    (array([1., 1.]), 0)
    """
    if not isinstance(restart, (int, np.integer)) or restart < 1:
        raise ValueError(f"gmres: restart must be a positive integer, found {restart!r}")
    if solve_method not in ("batched", "incremental"):
        raise ValueError(f"gmres: solve_method must be 'batched' or 'incremental', found {solve_method!r}")
    return _solve("gmres", _gmres(int(restart)), A, b, x0, tol, rtol, atol, maxiter, M, symmetric=False)


def _document(fun: Callable[..., Any], steps: str, info: str) -> None:
    head, example = (fun.__doc__ or "").split("\n\n    >>>", 1)
    fun.__doc__ = f"{head}\n{_ARGUMENTS.format(steps=steps, info=info)}\n    >>>{example}"


_document(cg, "steps", "the number of steps taken, or -1 if there were none")
_document(bicgstab, "steps", "the number of steps taken, or -10 where the method broke down")
_document(gmres, "restarts", "the number of restarts, or -1 if there were none")
