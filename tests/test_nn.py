"""Activations, the softmax family, special functions, ravel_pytree and lax names against independent witnesses."""
# ruff: noqa: E501  (a row of a table is one line)

from __future__ import annotations

import collections
import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special as sp

import funcgrad as fg
from funcgrad import lax, nn
from funcgrad.core.avals import aval_of
from funcgrad.core.jaxpr import eval_jaxpr
from funcgrad.core.staging import stage
from funcgrad.flatten_util import ravel_pytree
from funcgrad.scipy import special

X = np.array([-30.0, -4.0, -1.3, -0.5, 0.2, 1.0, 2.7, 3.5, 40.0])


def staged(fun: Callable[..., Any], *args: Any) -> Any:
    closed = stage(lambda *xs: [fun(*xs)], [aval_of(x) for x in args])
    with np.errstate(all="ignore"):
        return eval_jaxpr(closed.jaxpr, closed.consts, *args)[0]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + math.exp(-x))


def softplus(x: Any) -> Any:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772
# name: function of nn, the formula for one number, its derivatives at 0 if it has a kink there
ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[[float], float], float]] = {
    "relu": (nn.relu, lambda x: max(x, 0.0), 0.0),
    "relu6": (nn.relu6, lambda x: min(max(x, 0.0), 6.0), 0.5),
    "sigmoid": (nn.sigmoid, sigmoid, 0.25),
    "softplus": (nn.softplus, softplus, 0.5),
    "silu": (nn.silu, lambda x: x * sigmoid(x), 0.5),
    "gelu tanh": (
        nn.gelu,
        lambda x: x * float(0.5 * (1 + mpmath.tanh(mpmath.mpf(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))),
        0.5,
    ),
    "gelu": (lambda x: nn.gelu(x, approximate=False), lambda x: 0.5 * x * math.erfc(-x * math.sqrt(0.5)), 0.5),
    "elu": (nn.elu, lambda x: x if x > 0 else math.expm1(x), 1.0),
    "selu": (nn.selu, lambda x: SCALE * (x if x > 0 else ALPHA * math.expm1(x)), SCALE * ALPHA),
    "celu": (lambda x: nn.celu(x, 2.0), lambda x: max(x, 0) + min(2 * math.expm1(x / 2), 0), 1.0),
    "leaky_relu": (nn.leaky_relu, lambda x: x if x >= 0 else 0.01 * x, 1.0),
    "hard_tanh": (nn.hard_tanh, lambda x: min(max(x, -1.0), 1.0), 1.0),
    "hard_sigmoid": (nn.hard_sigmoid, lambda x: min(max(x + 3, 0), 6) / 6, 1 / 6),
    "hard_silu": (nn.hard_silu, lambda x: x * min(max(x + 3, 0), 6) / 6, 0.5),
    "log_sigmoid": (nn.log_sigmoid, lambda x: -softplus(-x), 0.5),
    "soft_sign": (nn.soft_sign, lambda x: x / (abs(x) + 1), 1.0),
    "mish": (nn.mish, lambda x: x * math.tanh(softplus(x)), 0.6),
    "squareplus": (nn.squareplus, lambda x: (x + math.sqrt(x * x + 4)) / 2, 0.5),
    "sparse_plus": (nn.sparse_plus, lambda x: 0 if x <= -1 else x if x >= 1 else (x + 1) ** 2 / 4, 0.5),
    "sparse_sigmoid": (nn.sparse_sigmoid, lambda x: 0.5 * min(max(x + 1, 0), 2), 0.5),
    "tanh": (nn.tanh, math.tanh, 1.0),
    "identity": (nn.identity, lambda x: x, 1.0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str) -> None:
    mpmath.mp.dps = 50
    fun, formula, slope = ACTIVATIONS[name]
    wanted = np.array([formula(x) for x in X])
    for found in (fun(X), staged(fun, X)):
        np.testing.assert_allclose(found, wanted, rtol=4e-14, atol=1e-300)
    assert fg.grad(fun)(0.0) == pytest.approx(slope, abs=1e-15)
    smooth = X[np.abs(X) < 10] + 0.01
    step = 1e-6
    slopes = [(formula(x + step) - formula(x - step)) / (2 * step) for x in smooth]
    np.testing.assert_allclose(fg.vmap(fg.grad(fun))(smooth), slopes, rtol=1e-7, atol=1e-9)
    assert fun(np.float32(0.5)).dtype == np.float32
    assert staged(fun, np.ones(3, np.float32)).dtype == np.float32


def test_nan_stays() -> None:
    for fun, _, _ in ACTIVATIONS.values():
        with np.errstate(invalid="ignore"):
            assert np.isnan(fun(np.float64(np.nan)))


def test_log1mexp() -> None:
    x = np.array([1e-10, 0.3, 0.7, 5.0, 40.0])
    with mpmath.workdps(50):
        wanted = [float(mpmath.log(1 - mpmath.exp(-mpmath.mpf(v)))) for v in x]
    np.testing.assert_allclose(staged(nn.log1mexp, x), wanted, rtol=1e-14)


def test_softmax_family(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 5)) * 4
    mask = rng.random((3, 5)) < 0.7
    mask[:, 0] = True
    for axis in (-1, 0, (0, 1)):
        np.testing.assert_allclose(staged(lambda v, a=axis: nn.softmax(v, a), x), sp.softmax(x, axis), rtol=1e-14)
        np.testing.assert_allclose(
            staged(lambda v, a=axis: nn.log_softmax(v, a), x), sp.log_softmax(x, axis), rtol=1e-13
        )
        np.testing.assert_allclose(staged(lambda v, a=axis: nn.logsumexp(v, a), x), sp.logsumexp(x, axis), rtol=1e-14)
    b = rng.normal(size=(3, 5))
    found = fg.jvp(lambda v: nn.logsumexp(v, 1, b, return_sign=True), (x,), (x,))[0]
    for f, w in zip(found, sp.logsumexp(x, 1, b, return_sign=True), strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-12)
    np.testing.assert_allclose(nn.softmax(x, where=mask), sp.softmax(np.where(mask, x, -np.inf), 1), rtol=1e-14)
    np.testing.assert_allclose(nn.logmeanexp(x, 1), sp.logsumexp(x, 1) - np.log(5), rtol=1e-14)
    big = np.array([1e4, 1e4 + 1])
    assert nn.logsumexp(big) == pytest.approx(1e4 + math.log(1 + math.e))
    assert nn.logsumexp(np.full(3, -np.inf)) == -np.inf
    np.testing.assert_array_equal(fg.grad(nn.logsumexp)(np.array([0.0, -np.inf])), [1, 0])
    np.testing.assert_allclose(fg.grad(nn.logsumexp)(x), sp.softmax(x), rtol=1e-13)
    p = sp.softmax(x[0])
    np.testing.assert_allclose(fg.jacrev(nn.softmax)(x[0]), np.diag(p) - np.outer(p, p), rtol=1e-12, atol=1e-16)


def test_standardize_and_glu(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 6))
    wanted = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(staged(nn.standardize, x), wanted, rtol=1e-12)
    np.testing.assert_allclose(staged(nn.glu, x), x[:, :3] * sp.expit(x[:, 3:]), rtol=1e-14)
    with pytest.raises(ValueError, match="extent 3 of axis 0 is not even"):
        nn.glu(x, axis=0)


def test_one_hot() -> None:
    np.testing.assert_array_equal(nn.one_hot(np.array([0, 2, 5, -1]), 3), [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    found = staged(lambda k: nn.one_hot(k, 3, dtype=np.float32, axis=0), np.array([1, 2]))
    np.testing.assert_array_equal(found, [[0, 0], [1, 0], [0, 1]])
    assert found.dtype == np.float32


def test_losses(rng: np.random.Generator) -> None:
    logits, labels = rng.normal(size=(4, 3)), np.array([0, 2, 1, 1])
    wanted = -sp.log_softmax(logits, 1)[np.arange(4), labels]
    np.testing.assert_allclose(staged(nn.softmax_cross_entropy_with_integer_labels, logits, labels), wanted, rtol=1e-14)
    np.testing.assert_allclose(nn.softmax_cross_entropy(logits, nn.one_hot(labels, 3)), wanted, rtol=1e-14)
    y = rng.random((4, 3))
    p = sp.expit(logits)
    np.testing.assert_allclose(
        nn.sigmoid_binary_cross_entropy(logits, y), -y * np.log(p) - (1 - y) * np.log1p(-p), rtol=1e-12
    )
    grad = fg.grad(lambda z: np.mean(nn.softmax_cross_entropy_with_integer_labels(z, labels)))(logits)
    np.testing.assert_allclose(grad, (sp.softmax(logits, 1) - np.eye(3)[labels]) / 4, rtol=1e-12, atol=1e-16)
    with pytest.raises(ValueError, match=r"labels of shape \(3,\) do not fit logits of shape \(4, 3\)"):
        nn.softmax_cross_entropy_with_integer_labels(logits, labels[:3])


# scipy.special --------------------------------------------------------------------------------------------------

POSITIVE = np.array([0.1, 0.5, 1.0, 2.5, 7.0])
UNIT = np.array([0.01, 0.2, 0.5, 0.9])
ANY = np.array([-3.3, -0.7, 0.4, 1.0, 4.5])
SPECIAL: dict[str, tuple[Any, ...]] = {
    "erf": (ANY,), "erfc": (ANY,), "erfinv": (UNIT,), "expit": (ANY,), "logit": (UNIT,), "gammaln": (POSITIVE,),
    "digamma": (POSITIVE,), "gamma": (ANY,), "loggamma": (POSITIVE,), "entr": (np.array([-1.0, 0.0, 0.3, 2.0]),),
    "xlogy": (np.array([0.0, 0.0, 1.0, 2.0, -1.0]), np.array([0.0, 2.0, 0.5, np.nan, 3.0])),
    "xlog1py": (np.array([0.0, 0.0, 1.0, 2.0]), np.array([-1.0, 2.0, 0.5, -0.3])),
    "rel_entr": (np.array([0.0, 1.0, 2.0, -1.0, 0.0]), np.array([1.0, 0.5, 0.0, 1.0, 0.0])),
    "kl_div": (np.array([0.0, 1.0, 2.0, -1.0, 0.0]), np.array([1.0, 0.5, 0.0, 1.0, 0.0])),
    "ndtr": (ANY,), "ndtri": (UNIT,), "log_ndtr": (np.array([-60.0, -8.0, -5.1, -4.9, -0.3, 0.0, 2.0, 9.0]),),
    "log_expit": (ANY,), "beta": (POSITIVE, POSITIVE[::-1].copy()), "betaln": (POSITIVE, POSITIVE[::-1].copy()),
    "gammasgn": (np.array([-2.5, -1.5, -0.5, 0.5]),), "poch": (POSITIVE, np.array([0.5, 1.0, 2.0, 3.0, 0.1])),
    "boxcox": (POSITIVE, np.array([0.0, 1.0, 0.5, -1.0, 2.0])), "boxcox1p": (POSITIVE, np.array([0.0, 1.0, 0.5, -1.0, 2.0])),
    "exp10": (ANY,), "psi": (POSITIVE,),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL)
def test_special(name: str) -> None:
    args = SPECIAL[name]
    fun = getattr(special, name)
    assert fun is getattr(sp, name)
    with np.errstate(all="ignore"):
        wanted = fun(*args)
    np.testing.assert_allclose(staged(fun, *args), wanted, rtol=2e-12)
    if name not in ("gammasgn",):
        k = 2 if name != "log_ndtr" else 1
        point = [a[k] for a in args]
        step = 1e-6
        with np.errstate(all="ignore"):
            slope = (fun(point[0] + step, *point[1:]) - fun(point[0] - step, *point[1:])) / (2 * step)
        if np.isfinite(slope):
            assert fg.grad(fun)(*point) == pytest.approx(slope, rel=1e-6)


def test_special_functions_of_python() -> None:
    np.testing.assert_allclose(
        staged(lambda x: special.polygamma(1, x), POSITIVE), sp.polygamma(1, POSITIVE), rtol=1e-12
    )
    np.testing.assert_allclose(
        staged(lambda x: special.polygamma(0, x), POSITIVE), sp.polygamma(0, POSITIVE), rtol=1e-12
    )
    np.testing.assert_allclose(staged(special.factorial, np.arange(6.0)), [1, 1, 2, 6, 24, 120], rtol=1e-13)
    np.testing.assert_allclose(
        staged(lambda a: special.multigammaln(a, 3), POSITIVE + 2), sp.multigammaln(POSITIVE + 2, 3)
    )
    np.testing.assert_allclose(staged(lambda a: special.softmax(a, axis=0), ANY), sp.softmax(ANY), rtol=1e-14)
    np.testing.assert_array_equal(fg.grad(lambda y: special.xlogy(0.0, y))(0.0), 0.0)


# ravel_pytree ---------------------------------------------------------------------------------------------------

Point = collections.namedtuple("Point", "x y")


def test_ravel_pytree() -> None:
    pytree = {"a": Point(np.float32(1), np.arange(6).reshape(2, 3)), "b": [None, 2.5, np.array([], np.float64), True]}
    flat, unravel = ravel_pytree(pytree)
    np.testing.assert_array_equal(flat, [1, 0, 1, 2, 3, 4, 5, 2.5, 1])
    assert flat.dtype == np.float64
    back = unravel(flat * 2)
    assert type(back["a"]) is Point and back["b"][0] is None
    assert back["a"].x.dtype == np.float32 and back["a"].y.dtype == np.int64 and back["b"][3].dtype == np.bool_
    np.testing.assert_array_equal(back["a"].y, [[0, 2, 4], [6, 8, 10]])
    back["a"].y[0, 0] = 99
    assert flat[1] == 0
    with pytest.raises(ValueError, match=r"shape \(3,\), but the pytree has 9 elements"):
        unravel(np.zeros(3))
    with pytest.raises(TypeError, match=r"dtype float32, but expected float64"):
        unravel(flat.astype(np.float32))
    empty, unravel_empty = ravel_pytree({"a": None})
    assert empty.shape == (0,) and unravel_empty(empty) == {"a": None}


def test_ravel_pytree_transforms() -> None:
    params = {"w": np.arange(6.0).reshape(2, 3), "b": 1.5}
    flat, unravel = ravel_pytree(params)

    def loss(v: Any) -> Any:
        p = unravel(v)
        return np.sum(p["w"] ** 2) * p["b"]

    wanted, _ = ravel_pytree(fg.grad(lambda p: np.sum(p["w"] ** 2) * p["b"])(params))
    np.testing.assert_allclose(fg.grad(loss)(flat), wanted)
    norms = fg.vmap(lambda p: np.sum(ravel_pytree(p)[0]))({"w": np.ones((4, 3)), "b": np.arange(4.0)})
    np.testing.assert_array_equal(norms, 3 + np.arange(4.0))


# lax ------------------------------------------------------------------------------------------------------------


def test_lax_names() -> None:
    x = np.array([5, -7, 8])
    np.testing.assert_array_equal(lax.div(x, np.array([2, 2, -3])), [2, -3, -2])
    np.testing.assert_array_equal(lax.rem(x, np.array([2, 2, -3])), [1, -1, 2])
    np.testing.assert_array_equal(lax.clamp(0.0, np.array([-1.0, 0.5, 3.0]), 1.0), [0, 0.5, 1])
    np.testing.assert_array_equal(lax.select_n(np.array([0, 2, 1]), x, x * 10, x * 100), [5, -700, 80])
    np.testing.assert_array_equal(lax.shift_right_logical(np.array([-1], np.int8), np.int8(4)), [15])
    assert lax.add(np.float32(1), 2.0).dtype == np.float32
    values, indices = lax.top_k(np.array([1.0, 5.0, 5.0, 2.0]), 3)
    np.testing.assert_array_equal(values, [5, 5, 2])
    np.testing.assert_array_equal(indices, [1, 2, 3])
    m = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(staged(lambda v, i: lax.dynamic_slice(v, (0, i), (2, 2)), m, np.int64(-2)), m[:, 1:])
    np.testing.assert_array_equal(lax.dynamic_update_index_in_dim(m, np.zeros(2), 1, 1)[:, 1], [0, 0])
    np.testing.assert_array_equal(lax.dot(m, m.T), m @ m.T)
    np.testing.assert_array_equal(lax.collapse(np.zeros((2, 3, 4)), 1).shape, (2, 12))
    keys, vals = lax.sort_key_val(np.array([3, 1, 2]), np.array([0.0, 1.0, 2.0]))
    np.testing.assert_array_equal(keys, [1, 2, 3])
    np.testing.assert_array_equal(vals, [1, 2, 0])
    with pytest.raises(TypeError, match="operands have dtypes"):
        staged(lambda v: lax.add(v, np.float64(1)), np.float32(1))


def test_lax_collectives_of_pytrees() -> None:
    x = {"a": np.arange(3.0), "b": np.ones(3)}
    out = fg.vmap(lambda t: lax.psum(t, "i"), axis_name="i")(x)
    np.testing.assert_array_equal(out["a"], [3, 3, 3])
    held = fg.grad(lambda t: lax.stop_gradient(t)["a"] * t["a"])({"a": 3.0})
    assert held["a"] == 3.0
