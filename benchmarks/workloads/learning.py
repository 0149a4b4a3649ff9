"""Training steps: a loss, its gradient and a step of gradient descent, in float32."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ..peers.base import Function, Peer
from ..workload import Rng, Workload

GROUP = "learning"
F32 = "float32"


def normal(rng: Rng, *shape: int) -> np.ndarray:
    """Scaled by the number of inputs, as weights are."""
    scale = np.sqrt(shape[-2]) if len(shape) > 1 else 1.0
    return (rng.normal(size=shape) / scale).astype(F32)


def descend(peer: Peer, loss: Function) -> Function:
    """``(params, ...)`` to the loss and the parameters after one step. ``params`` is a dict."""
    gradient = peer.value_and_grad(loss)
    rate = 0.1

    def step(params: Any, *data: Any) -> Any:
        value, grads = gradient(params, *data)
        return value, {k: params[k] - rate * grads[k] for k in params}

    return peer.jit(step)


def cross_entropy(xp: Any, logits: Any, one_hot: Any) -> Any:
    z = logits - xp.max(logits, axis=-1, keepdims=True)
    return -xp.mean(xp.sum(one_hot * (z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))), axis=-1))


def one_hot(rng: Rng, count: int, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=F32)[rng.integers(0, classes, count)]


# a network with two hidden layers
def mlp_arguments(rng: Rng, batch: int, inputs: int, hidden: int) -> tuple[Any, ...]:
    params = {}
    for k, (n, m) in enumerate(pairwise((inputs, hidden, hidden, 10))):
        params |= {f"w{k}": normal(rng, n, m), f"b{k}": np.zeros(m, F32)}
    return params, rng.normal(size=(batch, inputs)).astype(F32), one_hot(rng, batch, 10)


def mlp_step(peer: Peer) -> Function:
    xp = peer.np

    def loss(p: Any, x: Any, y: Any) -> Any:
        for k in range(2):
            x = xp.tanh(xp.dot(x, p[f"w{k}"]) + p[f"b{k}"])
        return cross_entropy(xp, xp.dot(x, p["w2"]) + p["b2"], y)

    return descend(peer, loss)


# a convolutional network, its convolutions written as sums of shifted products
def convnet_arguments(rng: Rng, batch: int, side: int, channels: int) -> tuple[Any, ...]:
    last = ((side - 2) // 2 - 2) // 2
    params = {
        "k1": normal(rng, 3, 3, 1, channels),
        "k2": normal(rng, 3, 3, channels, 2 * channels) / 3,
        "w": normal(rng, last * last * 2 * channels, 10),
    }
    return params, rng.normal(size=(batch, side, side, 1)).astype(F32), one_hot(rng, batch, 10)


def shifted_convolution(xp: Any, x: Any, kernel: Any) -> Any:
    """3x3, without padding; images are (batch, row, column, channel)."""
    rows, columns = x.shape[1] - 2, x.shape[2] - 2
    parts = [xp.matmul(x[:, i : rows + i, j : columns + j], kernel[i, j]) for i in range(3) for j in range(3)]
    return sum(parts[1:], parts[0])


def pool(xp: Any, x: Any) -> Any:
    """The largest of 2x2; an odd last row or column is left out."""
    rows, columns = 2 * (x.shape[1] // 2), 2 * (x.shape[2] // 2)
    a, b = x[:, 0:rows:2, :columns], x[:, 1:rows:2, :columns]
    x = xp.maximum(a, b)
    return xp.maximum(x[:, :, 0::2], x[:, :, 1::2])


def convnet_step_with(peer: Peer, convolution: Function) -> Function:
    xp = peer.np

    def loss(p: Any, x: Any, y: Any) -> Any:
        for k in ("k1", "k2"):
            x = pool(xp, xp.maximum(convolution(x, p[k]), 0.0))
        x = xp.reshape(x, (x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]))
        return cross_entropy(xp, xp.matmul(x, p["w"]), y)

    return descend(peer, loss)


def convnet_step(peer: Peer) -> Function:
    return convnet_step_with(peer, lambda x, kernel: shifted_convolution(peer.np, x, kernel))


def convnet_step_lax(peer: Peer) -> Function:
    def convolution(x: Any, kernel: Any) -> Any:
        return peer.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    return convnet_step_with(peer, convolution)


def convnet_step_torch(peer: Peer) -> Function:
    import torch

    def convolution(x: Any, kernel: Any) -> Any:
        y = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1))
        return y.permute(0, 2, 3, 1)

    return convnet_step_with(peer, convolution)


# one block of a transformer
def attention_arguments(rng: Rng, batch: int, tokens: int, width: int) -> tuple[Any, ...]:
    params = {k: normal(rng, width, width) for k in ("query", "key", "value", "out")}
    params |= {"up": normal(rng, width, 4 * width), "down": normal(rng, 4 * width, width)}
    params |= {"scale1": np.ones(width, F32), "scale2": np.ones(width, F32)}
    return params, *[rng.normal(size=(batch, tokens, width)).astype(F32) for _ in range(2)]


def attention_step(peer: Peer) -> Function:
    xp, heads = peer.np, 4

    def norm(x: Any, scale: Any) -> Any:
        centred = x - xp.mean(x, axis=-1, keepdims=True)
        return centred / xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + 1e-5) * scale

    def split(x: Any) -> Any:
        batch, tokens, width = x.shape[0], x.shape[1], x.shape[2]
        return xp.swapaxes(xp.reshape(x, (batch, tokens, heads, width // heads)), 1, 2)

    def attend(p: Any, x: Any) -> Any:
        q, k, v = (split(xp.matmul(x, p[name])) for name in ("query", "key", "value"))
        scores = xp.matmul(q, xp.swapaxes(k, 2, 3)) * 0.2
        e = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
        mixed = xp.swapaxes(xp.matmul(e / xp.sum(e, axis=-1, keepdims=True), v), 1, 2)
        return xp.matmul(xp.reshape(mixed, (x.shape[0], x.shape[1], x.shape[2])), p["out"])

    def gelu(x: Any) -> Any:
        inner = 0.7978845608 * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1.0 + xp.tanh(inner))

    def loss(p: Any, x: Any, target: Any) -> Any:
        x = x + attend(p, norm(x, p["scale1"]))
        x = x + xp.matmul(gelu(xp.matmul(norm(x, p["scale2"]), p["up"])), p["down"])
        return xp.mean((x - target) ** 2)

    return descend(peer, loss)


# an LSTM, its steps unrolled by Python or left to lax.scan
def lstm_arguments(rng: Rng, steps: int, batch: int, width: int) -> tuple[Any, ...]:
    params = {"wx": normal(rng, width, 4 * width), "wh": normal(rng, width, 4 * width), "b": np.zeros(4 * width, F32)}
    return params, rng.normal(size=(steps, batch, width)).astype(F32)


def lstm_cell(peer: Peer, p: Any, state: Any, x: Any) -> Any:
    """The next hidden state and cell."""
    xp, sigmoid = peer.np, peer.sigmoid
    h, c = state
    z = xp.dot(x, p["wx"]) + xp.dot(h, p["wh"]) + p["b"]
    n = p["wh"].shape[0]
    i, f, o = (sigmoid(z[:, k * n : (k + 1) * n]) for k in range(3))
    c = f * c + i * xp.tanh(z[:, 3 * n :])
    return o * xp.tanh(c), c


def lstm_step_unrolled(peer: Peer, steps: int) -> Function:
    xp = peer.np

    def loss(p: Any, xs: Any) -> Any:
        state = (0.0 * xs[0], 0.0 * xs[0])
        total = 0.0
        for k in range(steps):
            state = lstm_cell(peer, p, state, xs[k])
            total = total + xp.mean(state[0] ** 2)
        return total

    return descend(peer, loss)


def lstm_step_scan(peer: Peer) -> Function:
    xp = peer.np

    def loss(p: Any, xs: Any) -> Any:
        def body(state: Any, x: Any) -> Any:
            state = lstm_cell(peer, p, state, x)
            return state, xp.mean(state[0] ** 2)

        return xp.sum(peer.lax.scan(body, (0.0 * xs[0], 0.0 * xs[0]), xs)[1])

    return descend(peer, loss)


# models of data
def logistic_arguments(rng: Rng, rows: int, columns: int) -> tuple[Any, ...]:
    x = rng.normal(size=(rows, columns)).astype(F32)
    return {"w": normal(rng, columns)}, x, (rng.uniform(size=rows) < 0.5).astype(F32)


def logistic_step(peer: Peer) -> Function:
    xp = peer.np

    def loss(p: Any, x: Any, y: Any) -> Any:
        z = xp.dot(x, p["w"])
        return xp.mean(xp.maximum(z, 0.0) + xp.log1p(xp.exp(-xp.abs(z))) - y * z)

    return descend(peer, loss)


def embedding_arguments(rng: Rng, words: int, width: int, count: int) -> tuple[Any, ...]:
    return normal(rng, words, width), rng.integers(0, words, count), normal(rng, count, width)


def embedding_gradient(peer: Peer) -> Function:
    """The gradient with respect to a table of which rows are looked up: a scatter-add."""
    xp = peer.np
    return peer.jit(peer.grad(lambda table, index, target: xp.sum((xp.tanh(table[index]) - target) ** 2)))


def factor_arguments(rng: Rng, users: int, items: int, rank: int, count: int) -> tuple[Any, ...]:
    params = {"u": normal(rng, users, rank), "v": normal(rng, items, rank)}
    return params, rng.integers(0, users, count), rng.integers(0, items, count), normal(rng, count)


def factor_step(peer: Peer) -> Function:
    """Matrix factorisation by the ratings that are known."""
    xp = peer.np

    def loss(p: Any, user: Any, item: Any, rating: Any) -> Any:
        return xp.mean((xp.sum(p["u"][user] * p["v"][item], axis=1) - rating) ** 2)

    return descend(peer, loss)


MLP = dict(batch=128, inputs=784, hidden=512)
CONVNET = dict(batch=64, side=28, channels=16)
LSTM = dict(steps=32, batch=32, width=64)

WORKLOADS = (
    Workload(
        "MLP step 784-512-512-10, batch 128, f32",
        GROUP,
        mlp_arguments,
        mlp_step,
        MLP,
        dict(batch=2, inputs=3, hidden=4),
        second=MLP | dict(batch=100),
        tolerance=1e-4,
        cold=True,
        busy=True,
    ),
    Workload(
        "convnet step of shifted products, batch 64, f32",
        GROUP,
        convnet_arguments,
        convnet_step,
        CONVNET,
        dict(batch=2, side=10, channels=2),
        second=CONVNET | dict(batch=50),
        tolerance=1e-4,
    ),
    Workload(
        "convnet step by conv_general_dilated, batch 64, f32",
        GROUP,
        convnet_arguments,
        convnet_step_lax,
        CONVNET,
        dict(batch=2, side=10, channels=2),
        second=CONVNET | dict(batch=50),
        tolerance=1e-4,
        needs=("lax.conv_general_dilated",),
        own={"torch": convnet_step_torch},
    ),
    Workload(
        "attention block step 16x64x128, f32",
        GROUP,
        attention_arguments,
        attention_step,
        dict(batch=16, tokens=64, width=128),
        dict(batch=2, tokens=3, width=8),
        second=dict(batch=16, tokens=50, width=128),
        tolerance=1e-4,
    ),
    Workload(
        "LSTM step, 32 steps unrolled, f32",
        GROUP,
        lstm_arguments,
        lstm_step_unrolled,
        LSTM,
        dict(steps=2, batch=2, width=3),
        steps=32,
        tiny_steps=2,
        tolerance=1e-4,
    ),
    Workload(
        "LSTM step, 32 steps by scan, f32",
        GROUP,
        lstm_arguments,
        lstm_step_scan,
        LSTM,
        dict(steps=2, batch=2, width=3),
        tolerance=1e-4,
        needs=("lax.scan",),
    ),
    Workload(
        "logistic regression 1e5x100, f32",
        GROUP,
        logistic_arguments,
        logistic_step,
        dict(rows=100_000, columns=100),
        dict(rows=5, columns=3),
        tolerance=1e-4,
    ),
    Workload(
        "embedding gradient 10000x64, 4096 words, f32",
        GROUP,
        embedding_arguments,
        embedding_gradient,
        dict(words=10_000, width=64, count=4096),
        dict(words=4, width=3, count=6),
        tolerance=1e-5,
    ),
    Workload(
        "matrix factorisation step, 1e5 ratings, f32",
        GROUP,
        factor_arguments,
        factor_step,
        dict(users=2000, items=3000, rank=16, count=100_000),
        dict(users=3, items=4, rank=2, count=7),
        tolerance=1e-4,
    ),
)
