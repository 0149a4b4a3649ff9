"""What a tracer says where Python or NumPy wants a value: the line, what was found, what to write."""
# ruff: noqa: E501  (a row of a table is one line)

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
import funcgrad.numpy as jnp
from funcgrad import lax
from funcgrad.errors import (
    ConcretizationError,
    TracerArrayError,
    TracerBoolError,
    TracerIndexError,
    TracerIntegerError,
)

X = np.array([1.0, 2.0, 3.0])
TABLE = np.arange(5)


def branch(x: Any) -> Any:
    return x if x > 0 else -x


def branch_array(x: Any) -> Any:
    return x if np.stack([x, x]) > 0 else -x


ROWS: list[tuple[str, Callable[[Any], Any], Any, type[Exception], list[str]]] = [
    ("if", branch, 1.0, TracerBoolError, ["asked for the truth of a traced value bool[]", "both are computed", "np.where",
                                           "test_errors.py:", "(branch)", "static_argnums"]),
    ("if array", branch_array, 1.0, TracerBoolError, ["reduce it with .any() or .all()"]),
    ("and", lambda x: x > 0 and x < 1, 1.0, TracerBoolError, ["& | ~ in place of and, or, not"]),
    ("in", lambda x: 2.0 in x, X, TracerBoolError, ["& | ~"]),
    ("float", lambda x: float(x), 1.0, ConcretizationError, ["float() asked for the value", "np.sin for math.sin", "x.astype(float)"]),
    ("math.sin", lambda x: math.sin(x), 1.0, ConcretizationError, ["np.sin for math.sin"]),
    ("int", lambda x: int(x), 1.0, ConcretizationError, ["int() asked for the value", "x.astype(int)"]),
    ("complex", lambda x: complex(x), 1.0, ConcretizationError, ["x.astype(complex)"]),
    ("item", lambda x: x.item(), 1.0, ConcretizationError, [".item() asked for the value", "x[0]"]),
    ("tolist", lambda x: x.tolist(), X, ConcretizationError, ["list(x)"]),
    ("format", lambda x: f"{x:.3f}", 1.0, ConcretizationError, ["print it outside"]),
    ("range", lambda n: list(range(n)), 3, TracerIntegerError, ["n must be static", "static_argnums"]),
    ("list index", lambda n: [1, 2, 3, 4][n], 3, TracerIntegerError, ["np.stack(list)[i]"]),
    ("float index", lambda x: [1, 2][x], 1.0, TracerIntegerError, ["Convert a float with .astype(int)"]),
    ("shape", lambda n: np.zeros(n), 3, TypeError, ["expected a sequence of integers or a single integer"]),
    ("asarray", lambda x: np.asarray(x), X, TracerArrayError, ["fg.numpy.asarray", "np.stack", "a traced value float64[3]"]),
    ("np.array of list", lambda x: np.array([x, x]), 1.0, TracerArrayError, ["fg.numpy.array or np.stack"]),
    ("index of ndarray", lambda i: TABLE[i], 3, TracerIndexError, ["fg.numpy.take(array, i, axis=0)", "fg.at(array)[i].get()"]),
    ("float index of ndarray", lambda x: TABLE[x], 1.0, TracerIndexError, ["An index must be an integer", "x.astype(int)"]),
    ("mask of ndarray", lambda x: X[x > 1], X, TracerIndexError, ["np.where(mask, array, 0)"]),
    ("mask", lambda x: x[x > 1], X, TracerIndexError, ["how many elements it selects is not known", "np.where(mask, x, 0)", " np.where(mask, value, x)"]),
    ("slice of ndarray", lambda i: TABLE[i:], 3, TracerIntegerError, ["lax.dynamic_slice with a fixed length"]),
    ("nonzero", lambda x: np.nonzero(x), X, ConcretizationError, ["nonzero of a traced array", "size=n"]),
    ("unique", lambda x: np.unique(x), X, ConcretizationError, ["unique of a traced array"]),
    ("unsupported function", lambda x: np.roots(x), X, TypeError, ["numpy.roots cannot be applied", "funcgrad.numpy"]),
    ("nearest function", lambda x: np.nancumsum(np.lib.stride_tricks.sliding_window_view(x, 2)), X, TypeError,
     ["sliding_window_view cannot be applied"]),
    ("unsupported ufunc", lambda x: np.spacing(x), X, TypeError, ["the ufunc numpy.spacing cannot be applied"]),
    ("ufunc method", lambda x: np.subtract.reduce(x), X, TypeError, ["numpy.subtract.reduce cannot be applied", "np.add.reduce"]),
    ("reduceat", lambda x: np.add.reduceat(x, [0, 1]), X, TypeError, ["numpy.add.reduceat cannot"]),
    ("ufunc.at", lambda x: np.add.at(np.zeros(3), [0], x[0]), X, TypeError, ["x = fg.at(x)[index].add(values)"]),
    ("len", lambda x: len(x), 1.0, TypeError, ["len() of unsized object"]),
    ("iteration", lambda x: list(x), 1.0, TypeError, ["iteration over a 0-d array", "an extent of a shape"]),
    ("unpack", lambda x: (lambda a, b: a)(*x), 1.0, TypeError, ["iteration over a 0-d array"]),
    ("view", lambda x: x.view(np.int64), X, TracerArrayError, [".view needs the memory", ".astype(dtype)"]),
    ("tobytes", lambda x: x.tobytes(), X, TracerArrayError, ["Return the value from the transformed function"]),
    ("object dtype", lambda x: x + np.array([None, 1, 2]), X, TypeError, ["dtype object", ".astype(np.float64)"]),
    ("string dtype", lambda x: jnp.add(x, "a"), 1.0, TypeError, ["is not an array or number"]),
    ("datetime", lambda x: jnp.add(x, np.datetime64("2020-01-01")), 1.0, TypeError, ["datetime64"]),
    ("astype str", lambda x: x.astype(str), X, TypeError, ["cannot trace"]),
    ("none", lambda x: np.add(x, None), X, TypeError, ["None of type builtins.NoneType is not an array"]),
    ("matmul", lambda x: x @ np.ones((4, 2)), X, ValueError, ["(3,) and (4, 2)", "3 columns of the left against 4 rows"]),
    ("broadcast", lambda x: x + np.ones(4), X, ValueError, ["shapes (3,) and (4,) do not broadcast"]),
    ("concatenate", lambda x: np.concatenate([x[None], np.ones((1, 4))]), X, ValueError, ["(1, 3)", "(1, 4)"]),
    ("stack", lambda x: np.stack([x, np.ones(4)]), X, ValueError, ["array 0 has shape (3,), array 1 (4,)"]),
    ("bool subtract", lambda x: (x > 0) - (x > 1), X, TypeError, ["numpy boolean subtract"]),
    ("axis", lambda x: np.sum(x, axis=1), X, ValueError, ["axis 1 is out of bounds for array of dimension 1"]),
    ("empty max", lambda x: np.max(x[:0]), X, ValueError, ["zero-size array to reduction operation"]),
    ("where mask without initial", lambda x: np.max(x, where=x > 0), X, ValueError, ["needs initial="]),
    ("int power", lambda x: x ** -1, 3, ValueError, ["negative integer powers are not allowed"]),
    ("mT", lambda x: x.mT, X, ValueError, ["ndim < 2"]),
    ("del", lambda x: x.__delitem__(0), X, ValueError, ["cannot delete array elements"]),
    ("norm of matrices", lambda x: np.linalg.norm(x, 3), np.eye(2), ValueError, ["unknown order 3 for matrices", "'nuc'"]),
    ("not square", lambda x: np.linalg.solve(x, x), np.ones((2, 3)), np.linalg.LinAlgError, ["solve: takes square matrices", "2 rows and 3 columns"]),
    ("no matrix", lambda x: np.linalg.inv(x), X, np.linalg.LinAlgError, ["inv: a matrix has two axes", "(3,)"]),
    ("half precision", lambda x: np.linalg.det(x), np.eye(2, dtype=np.float16), TypeError, ["det", "float16"]),
    ("right-hand side", lambda x: np.linalg.solve(np.eye(2), x), X, ValueError, ["solve", "(2, 2)", "(3, 1)"]),
    ("qr mode", lambda x: np.linalg.qr(x, "raw"), np.eye(2), ValueError, ["'reduced', 'complete' or 'r'", "'raw'"]),
    ("uplo", lambda x: np.linalg.eigh(x, "X"), np.eye(2), ValueError, ["UPLO must be 'L' or 'U'"]),
    ("traced repeats", lambda n: jnp.repeat(X, n), 3, ValueError, ["total_repeat_length"]),
]  # fmt: skip


@pytest.mark.parametrize("name, fun, x, error, words", ROWS, ids=[r[0] for r in ROWS])
def test_staged(name: str, fun: Callable[[Any], Any], x: Any, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as info:
        fg.make_jaxpr(fun)(x)
    for word in words:
        assert word in str(info.value)


def test_nearest_functions_are_named() -> None:
    with pytest.raises(TypeError, match=r"histogram2d cannot .* can trace: .*numpy\.histogram"):
        fg.make_jaxpr(lambda x: np.histogram2d(x, x))(X)


def test_vmapped() -> None:
    with pytest.raises(TracerBoolError, match=r"made by a vmap of branch at .*test_errors\.py:\d+"):
        fg.vmap(branch)(X)


def test_eager_derivatives_know_their_values() -> None:
    """Under grad without jit Python's control flow works, as in JAX."""

    def f(x: Any) -> Any:
        y = x * 1.0
        for _ in range(int(x)):
            y = y * x
        if x > 2 and x < 10:
            y = y + len(f"{x:.1f}")
        return y

    assert fg.grad(f)(3.0) == 4 * 27.0
    assert fg.jvp(f, (3.0,), (1.0,))[1] == 4 * 27.0
    assert fg.grad(fg.grad(f))(3.0) == 12 * 9.0
    for lossy in (lambda x: x * float(x), lambda x: math.sin(x), lambda x: complex(x).real * x):
        with pytest.raises(ConcretizationError, match=r"out of the derivative.*lax\.stop_gradient"):
            fg.grad(lossy)(2.0)
    assert fg.grad(lambda x: x * float(lax.stop_gradient(x)))(2.0) == 2.0
    with pytest.raises(TracerArrayError, match=r"np\.asarray"):  # that would drop the derivative
        fg.grad(lambda x: np.asarray(x) * 2)(1.0)


def test_namespace() -> None:
    found = []

    def f(x: Any) -> Any:
        xp = x.__array_namespace__()
        found.append(xp)
        return xp.sum(xp.exp(x))

    fg.grad(f)(X)
    assert found[0] is jnp


def test_leaked_tracer() -> None:
    kept = []

    def f(x: Any) -> Any:
        kept.append(x * 2)
        return np.sum(x)

    fg.make_jaxpr(f)(X)
    with pytest.raises(fg.LeakedTracerError, match="tracer float64"):
        np.sin(kept[0])
