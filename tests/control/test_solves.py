# ruff: noqa: E731
"""Roots and linear solves, differentiated at the solution: held to the same result from a direct method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax

_rng = np.random.default_rng(0)
N = 3
A = _rng.normal(size=(N, N)) + 3 * np.eye(N)
B = _rng.normal(size=N)
STACK = np.stack([A, A.T, 2 * A])


def dense(matvec, b):
    """The matrix of a linear function, and LAPACK."""
    return np.linalg.solve(fg.jacfwd(matvec, holomorphic=b.dtype.kind == "c")(np.zeros_like(b)), b)


def jacobi(matvec, b):
    """A loop that no derivative goes through."""
    d = np.diagonal(fg.jacfwd(matvec)(np.zeros_like(b)))
    step = lambda s: (s[0] + 1, s[1] + (b - matvec(s[1])) / (1.5 * d))
    return lax.while_loop(lambda s: (s[0] < 400) & (np.sum((b - matvec(s[1])) ** 2) > 1e-26), step, (0, b / d))[1]


def newton(f, x):
    step = lambda s: (s[0] + 1, s[1] - np.linalg.solve(fg.jacfwd(f)(s[1]), f(s[1])))
    return lax.while_loop(lambda s: (s[0] < 50) & (np.sum(f(s[1]) ** 2) > 1e-28), step, (0, x))[1]


def by_root(a, b):
    return lax.custom_root(lambda x: a @ x - b, np.zeros(N), newton, dense)


def by_cubic_root(a, b):
    """x + x**3 = y of what a linear solve gives, and back."""
    y = np.linalg.solve(a, b)
    x = lax.custom_root(lambda x: x + x**3 - y, 0 * B, newton, dense)
    return x + x**3


def by_tree(a, b):
    def matvec(x):
        v = a @ np.concatenate([x["u"][None], x["v"]])
        return {"u": v[0], "v": v[1:]}

    def solve(matvec, b):
        flat, unravel = fg.flatten_util.ravel_pytree(b)
        return unravel(dense(lambda v: fg.flatten_util.ravel_pytree(matvec(unravel(v)))[0], flat))

    x = lax.custom_linear_solve(matvec, {"u": b[0], "v": b[1:]}, solve, solve)
    return np.concatenate([x["u"][None], x["v"]])


def nested(a, b):
    """A linear solve whose matrix is a root, and whose tangents are linear solves."""
    tangent = lambda g, y: lax.custom_linear_solve(g, y, dense, dense)
    root = lax.custom_root(lambda x: a @ x - b, np.zeros(N), newton, tangent)
    return lax.custom_linear_solve(lambda x: x, root, dense, symmetric=True)


PROGRAMS = {
    "dense": lambda a, b: lax.custom_linear_solve(lambda x: a @ x, b, dense, dense),
    "loops": lambda a, b: lax.custom_linear_solve(lambda x: a @ x, b, jacobi, jacobi),
    "aux": lambda a, b: lax.custom_linear_solve(
        lambda x: a @ x, b, lambda f, b: (dense(f, b), 7), lambda f, b: (dense(f, b), None), has_aux=True
    )[0],
    "symmetric": lambda a, b: lax.custom_linear_solve(lambda x: a.T @ (a @ x), a.T @ b, dense, symmetric=True),
    "jitted": lambda a, b: fg.jit(PROGRAMS["dense"])(a, b),
    "scan": lambda a, b: lax.scan(lambda c, _: (PROGRAMS["loops"](a, a @ c), 0), PROGRAMS["dense"](a, b), None, 2)[0],
    "cond": lambda a, b: lax.cond(b[0] < 9, PROGRAMS["dense"], lambda a, b: b, a, b),
    "checkpoint": lambda a, b: fg.checkpoint(PROGRAMS["dense"])(a, b),
    "tree": by_tree,
    "root": by_root,
    "cubic": by_cubic_root,
    "nested": nested,
}  # fmt: skip


def scalar(f):
    return lambda a, b: np.sum(np.sin(f(a, b)))


TRANSFORMS = {
    "value": lambda f: f,
    "jacfwd": lambda f: fg.jacfwd(f, (0, 1)),
    "jacrev": lambda f: fg.jacrev(f, (0, 1)),
    "jit": lambda f: fg.jit(fg.grad(scalar(f), (0, 1))),
    "vmap_grad": lambda f: lambda a, b: fg.vmap(fg.grad(scalar(f), (0, 1)), (0, None))(STACK, b),
    "jit_vmap": lambda f: lambda a, b: fg.jit(fg.vmap(f, (None, 0)))(a, STACK[0]),
    "grad_vmap": lambda f: fg.grad(lambda a, b: np.sum(np.cos(fg.vmap(f, (0, None))(STACK * a[0, 0], b))), (0, 1)),
    "fwd_fwd": lambda f: fg.jacfwd(fg.jacfwd(scalar(f), (0, 1)), 1),
    "fwd_rev": lambda f: fg.jacfwd(fg.jacrev(scalar(f), (0, 1)), 1),
    "rev_fwd": lambda f: fg.jacrev(fg.jacfwd(scalar(f), (0, 1)), 1),
    "rev_rev": lambda f: fg.jit(fg.jacrev(fg.jacrev(scalar(f), (0, 1)), 1)),
    "transpose": lambda f: lambda a, b: fg.linear_transpose(fg.linearize(f, a, b)[1], a, b)(b),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_as_a_direct_solve(program: str, transform: str) -> None:
    over = TRANSFORMS[transform]
    found, wanted = over(PROGRAMS[program])(A, B), over(np.linalg.solve)(A, B)
    for x, y in zip(fg.tree.leaves(found), fg.tree.leaves(wanted), strict=True):
        assert np.shape(x) == np.shape(y) and np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-9)


def test_scalar_roots_to_third_order() -> None:
    def solve(f, x):
        return lax.fori_loop(0, 30, lambda _, x: x - f(x) / fg.grad(f)(x), x), {"steps": 30}

    def cube_root(a):
        root, aux = lax.custom_root(lambda x: x**3 - a, 1.0, solve, lambda g, y: y / g(1.0), has_aux=True)
        assert set(aux) == {"steps"}
        return root

    meaning = lambda a: a ** (1 / 3)
    for over in (lambda f: f, fg.jit):
        for d in (fg.grad, fg.jacfwd):
            f, g = cube_root, meaning
            for _ in range(3):
                f, g = d(f), d(g)
                np.testing.assert_allclose(over(f)(5.0), g(5.0), rtol=1e-12)
                np.testing.assert_allclose(over(fg.vmap(f))(B**2 + 1), fg.vmap(g)(B**2 + 1), rtol=1e-12)


def test_the_root_does_not_depend_on_the_guess() -> None:
    f = lambda guess: np.sum(lax.custom_root(lambda x: A @ x - B, guess, newton, dense))
    np.testing.assert_array_equal(fg.grad(f)(np.ones(N)), np.zeros(N))


def test_single_precision_and_complex_numbers() -> None:
    a, b = A.astype(np.float32), B.astype(np.float32)
    g = fg.grad(lambda a, b: np.sum(PROGRAMS["dense"](a, b)), (0, 1))(a, b)
    assert [x.dtype for x in g] == [np.float32, np.float32]
    z = A + 1j * A.T
    loss = lambda solve: fg.grad(lambda a, b: np.sum(np.abs(solve(a, b)) ** 2), (0, 1))(z, B * 1j)
    for x, y in zip(loss(PROGRAMS["dense"]), loss(np.linalg.solve), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9)


def _solve(**options: Any) -> Any:
    given: dict[str, Any] = {"matvec": lambda x: A @ x, "b": B, "solve": dense, "transpose_solve": dense}
    return lambda: lax.custom_linear_solve(**(given | options))


def _root(**options: Any) -> Any:
    given: dict[str, Any] = {"f": lambda x: A @ x - B, "initial_guess": B, "solve": newton, "tangent_solve": dense}
    return lambda: lax.custom_root(**(given | options))


NO_TRANSPOSE = lambda: fg.grad(lambda b: np.sum(_solve(b=b, transpose_solve=None)()))(B)
BAD = {
    "square": (_solve(matvec=lambda x: x**2), fg.FuncgradError, r"matvec \(<lambda>\) is not linear: square"),
    "quadratic": (_solve(matvec=lambda x: x * x), fg.FuncgradError, "is not linear: mul.*quadratic.*custom_root"),
    "affine": (_solve(matvec=lambda x: A @ x + B), fg.FuncgradError, "is not linear: it adds something"),
    "constant": (_solve(matvec=lambda x: B), fg.FuncgradError, "does not depend on its argument and is not zero"),
    "matvec shape": (_solve(matvec=lambda x: x[0]), TypeError, r"matvec .* returned f64\[\] for b, which is f64\[3\]"),
    "matvec tree": (_solve(matvec=lambda x: (x,)), TypeError, "matvec .* must return the structure of b"),
    "solve tree": (_solve(solve=lambda f, b: [b]), TypeError, "solve .* must return the structure of b"),
    "solve aux": (_solve(has_aux=True), TypeError, "must return a pair .*has_aux is True"),
    "transpose": (_solve(transpose_solve=lambda f, b: b[:2]), TypeError, "transpose_solve .* returned f64.2."),
    "no transpose": (NO_TRANSPOSE, TypeError, "Pass transpose_solve, or symmetric=True"),
    "integers": (_solve(b=np.arange(3)), TypeError, r"b has dtype int64.*write .astype\(float\)"),
    "no array": (_solve(b="b"), TypeError, "custom_linear_solve: b: 'b'"),
    "no function": (_solve(matvec=A), TypeError, r"custom_linear_solve \(matvec\) expects a function"),
    "root shape": (_root(f=lambda x: x[0]), TypeError, r"f .* returned f64\[\] for initial_guess, which is f64\[3\]"),
    "root tree": (_root(solve=lambda f, x: (x, 1)), TypeError, "solve .* must return the structure of initial_guess"),
    "root tangent": (_root(tangent_solve=lambda g, y: y[0]), TypeError, r"tangent_solve .* returned f64\[\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    run, error, message = BAD[name]
    with pytest.raises(error, match=message):
        run()


def test_forward_mode_needs_no_transposed_solver() -> None:
    f = lambda b: lax.custom_linear_solve(lambda x: A @ x, b, jacobi)
    np.testing.assert_allclose(fg.jit(fg.jacfwd(f))(B), np.linalg.inv(A), rtol=1e-8, atol=1e-10)
