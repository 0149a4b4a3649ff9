"""The public checks of derivatives: right ones pass, and of wrong ones the message names what is wrong."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax, test_util
from funcgrad.test_util import check_grads, check_jvp, check_vjp

frozen = lax.stop_gradient

RIGHT: dict[str, tuple[Any, tuple[Any, ...], int]] = {
    "numbers": (lambda x, y: x**3 * np.sin(y), (1.3, 0.4), 3),
    "arrays": (lambda w, x: np.tanh(w @ x), (np.ones((2, 3)), np.arange(3.0)), 2),
    "pytrees": (lambda p: {"y": [p["w"] ** 2, p["b"] * p["w"][0]]}, ({"w": np.arange(3.0), "b": 2.0},), 2),
    "integers stay": (lambda x, i: (x[i] ** 2, i), (np.arange(4.0), 2), 2),
    "an integer result": (lambda x: (np.sin(x), np.argmax(x)), (np.arange(3.0),), 2),
    "holomorphic": (lambda z: z * np.exp(z), (np.array([1 + 2j, 0.3 - 1j]),), 2),
    "not holomorphic": (lambda z: np.abs(z) * np.conj(z), (np.array([1 + 2j, 0.3 - 1j]),), 2),
    "float32": (lambda x: np.exp(np.sin(x)), (np.linspace(0, 1, 5, dtype="f4"),), 2),
    "float16": (lambda x: np.sin(x), (np.ones(3, "f2"),), 1),
    "float32 and float64": (lambda x, y: x.astype(float) * y, (np.ones(3, "f4"), np.ones(3)), 2),
    "large values": (lambda x: 1e8 * np.cos(x), (np.ones(3, "f4"),), 1),
    "jit": (fg.jit(lambda x: np.cumsum(np.sin(x))), (np.arange(4.0),), 2),
    "loops": (lambda x: lax.fori_loop(0, 3, lambda i, y: np.sin(y) * x, x), (0.7,), 2),
    "a step": (lambda x: np.floor(x) + 2 * x, (0.4,), 2),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    f, args, order = RIGHT[name]
    check_grads(f, args, order)


def second_only(x: Any) -> Any:
    return x**3 + (x - frozen(x)) ** 2  # the value and first derivative of x**3 at any x


WRONG: dict[str, tuple[Any, tuple[Any, ...], Any, list[str]]] = {
    "forward": (lambda x: x * frozen(x), (3.0,), "fwd", ["mode fwd, order 1", "where differences give"]),
    "reverse": (lambda x: x * frozen(x), (3.0,), ("rev",), ["mode rev, order 1", "product of gradient and direction"]),
    "an argument": (
        lambda p, x: np.tanh(frozen(p["w"]) @ x + p["b"]),
        ({"w": np.ones((2, 2)), "b": np.zeros(2)}, np.ones(2)),
        ("fwd", "rev"),
        ["with respect to argument 'p'['w'] (right for argument 'p'['b'], argument 'x')", "2 of 2 elements"],
    ),
    "second order": (second_only, (1.3,), "fwd", ["modes fwd of fwd, order 2"]),
    "second order, reversed": (second_only, (1.3,), "rev", ["modes rev of rev, order 2"]),
    "outside of the domain": (fg.jit(lambda x: np.log(x)), (-1.0,), "fwd", ["f is not finite around these arguments"]),
    "slightly": (lambda x: x + 1e-3 * frozen(x), (1.0,), "fwd", ["off by"]),
    "float32": (lambda x: x + 0.05 * frozen(x), (np.ones(3, "f4"),), "rev", ["argument 'x'"]),
    "complex": (lambda z: frozen(np.real(z)) + 1j * np.imag(z), (1 + 2j,), "fwd", ["off by"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    f, args, modes, words = WRONG[name]
    with pytest.raises(AssertionError) as caught:
        check_grads(f, args, 2, modes)
    for text in words:
        assert text in str(caught.value)


def test_pieces() -> None:
    f = lambda x: np.sin(x) * 2  # noqa: E731
    x = np.linspace(0.0, 1.0, 4)
    check_jvp(f, partial(fg.jvp, f), (x,))
    check_vjp(f, partial(fg.vjp, f), (x,))
    with pytest.raises(AssertionError, match=r"mine: the tangent of result is .* at index"):
        check_jvp(f, lambda p, t: (f(*p), t[0]), (x,), err_msg="mine")
    with pytest.raises(AssertionError, match="is nan"):
        check_jvp(f, lambda p, t: (f(*p), t[0] * np.nan), (x,))
    with pytest.raises(AssertionError, match="shape"):
        check_jvp(f, lambda p, t: (f(*p), np.sum(t[0])), (x,))
    with pytest.raises(AssertionError, match=r"value of the JVP|result of the JVP"):
        check_jvp(f, lambda p, t: (f(*p) + 1, t[0]), (x,))
    with pytest.raises(AssertionError, match="product of gradient"):
        check_vjp(f, lambda x: (f(x), lambda ct: (ct,)), (x,))
    with pytest.raises(AssertionError, match=r"cotangent of argument 'x' has shape \(\)"):
        check_vjp(f, lambda x: (f(x), lambda ct: (np.sum(ct),)), (x,))


def test_tolerances() -> None:
    f = lambda x: x + 1e-3 * frozen(x)  # noqa: E731
    check_grads(f, (1.0,), 1, atol=1e-2, rtol=0.0)
    check_grads(f, (1.0,), 1, rtol={np.float64: 1e-2}, atol={np.float64: 0.0})
    with pytest.raises(AssertionError):
        check_grads(f, (1.0,), 1, rtol={np.float32: 1e-2})
    check_grads(lambda x: np.abs(x - 1e-3), (0.0,), 1, eps=1e-4)
    with pytest.raises(AssertionError):
        check_grads(lambda x: np.abs(x - 1e-3), (0.0,), 1, eps=1e-1)


def test_bad_arguments() -> None:
    for act, words in (
        (lambda: check_grads(np.sin, 1.0, 1), r"write \(x,\)"),  # type: ignore[arg-type]
        (lambda: check_grads(np.sin, (1.0,), 0), "order must be a positive integer"),
        (lambda: check_grads(np.sin, (1.0,), 1, ("forward",)), "'fwd', 'rev'"),
        (lambda: check_grads(lambda n: n * 1.0, (3,), 1), "no argument of"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            act()


@pytest.mark.usefixtures("jax")
def test_jax_takes_the_same() -> None:
    """Where JAX is installed: the same calls pass and fail there."""
    theirs = pytest.importorskip("jax._src.public_test_util", reason="JAX's checks are in another place")
    import jax.numpy as jnp

    for name in ("numbers", "arrays", "pytrees", "loops"):
        f, args, _ = RIGHT[name]
        if name == "numbers":
            theirs.check_grads(lambda x, y: x**3 * jnp.sin(y), args, 2)
            test_util.check_grads(f, args, 2)


def test_results_whose_dtype_depends_on_values() -> None:
    """Eagerly the root of this matrix is real; traced, it is complex."""
    check_grads(fg.scipy.linalg.sqrtm, (np.array([[3.0, 2.0], [0.0, 5.0]]),), order=2)
