"""Small programs that the tests of this folder compile, written with primitives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import funcgrad  # noqa: F401  (attaches the operators to tracers)
from funcgrad.compiler import Executable, compile_jaxpr
from funcgrad.core.avals import aval_of
from funcgrad.core.jaxpr import eval_jaxpr
from funcgrad.core.staging import stage
from funcgrad.ops.cumulative import cumsum_p
from funcgrad.ops.dot import dot_general
from funcgrad.ops.indexing import gather_p, scatter_add_p, scatter_p
from funcgrad.ops.reduce import argmax_p, reduce_max
from funcgrad.ops.shape import concatenate, pad, rev, strided_slice
from funcgrad.ops.structural import broadcast_in_dim, expand_dims, reduce_sum, reshape, transpose
from funcgrad.ops.transcendental import exp, log, rsqrt, sin, tanh

Program = Callable[..., Sequence[Any]]


def keep(x: Any) -> Any:
    return expand_dims(x, [1])


def softmax(x: Any) -> Any:
    e = exp(x - keep(reduce_max(x, (1,))))
    return [e / keep(reduce_sum(e, (1,)))]


def column_softmax(x: Any) -> Any:
    e = exp(x - reduce_max(x, (0,)))
    return [e / reduce_sum(e, (0,))]


def logsumexp(x: Any) -> Any:
    m = reduce_max(x, (1,))
    return [log(reduce_sum(exp(x - keep(m)), (1,))) + m]


def mean_and_variance(x: Any) -> Any:
    n = x.shape[1]
    mean = reduce_sum(x, (1,)) / n
    d = x - keep(mean)
    return [mean, reduce_sum(d * d, (1,)) / n]


def layer_norm(x: Any, g: Any, b: Any) -> Any:
    n = x.shape[1]
    d = x - keep(reduce_sum(x, (1,)) / n)
    return [d * rsqrt(keep(reduce_sum(d * d, (1,)) / n) + 1e-5) * g + b]


def chain(x: Any, y: Any) -> Any:
    for _ in range(6):
        x = tanh(x * y + 0.25)
    return [x]


def nbody(x: Any) -> Any:
    n = x.shape[0]
    d = broadcast_in_dim(x, (n, n, 3), (1, 2)) - broadcast_in_dim(x, (n, n, 3), (0, 2))
    r2 = reduce_sum(d * d, (2,)) + 0.01
    return [reduce_sum(d * expand_dims(rsqrt(r2 * r2 * r2), [2]), (1,))]


def linear_loss(w: Any, x: Any, y: Any) -> Any:
    r = dot_general(x, w, (((1,), (0,)), ((), ()))) - y
    return [reduce_sum(r * r, (0,)) / x.shape[0]]


ZERO, ONE = np.float64(0), np.float64(1)


def slice_gradient(x: Any, u: Any) -> Any:
    return [pad(u, ZERO, [(1, 0, 0)]) + pad(-(u * strided_slice(x, (1,), (50,), (1,))), ZERO, [(0, 1, 0)])]


def normal(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [np.asarray(rng.normal(size=s))[()] for s in shapes]


INDEX = np.array([3, 0, -1, 99, 2, 2])

# name: (program, arguments, number of launches)
FUSED: dict[str, tuple[Program, list[np.ndarray], int]] = {
    "softmax": (softmax, normal((5, 7)), 1),
    "column softmax": (column_softmax, normal((5, 7)), 1),
    "logsumexp": (logsumexp, normal((5, 7)), 1),
    "mean and variance": (mean_and_variance, normal((5, 7)), 1),
    "layer norm": (layer_norm, normal((5, 7), (7,), (7,)), 1),
    "chain": (chain, normal((4, 6), (4, 6)), 1),
    "chain with a broadcast": (chain, normal((4, 6), (6,)), 1),
    "n-body": (nbody, normal((20, 3)), 1),
    "linear loss": (linear_loss, normal((7,), (9, 7), (9,)), 2),
    "two outputs": (lambda x: [sin(x), tanh(x)], normal((50,)), 1),
    "producer into a reduction": (lambda x: [reduce_sum(sin(x) * x, (0,))], normal((30, 4)), 1),
    "transposed view": (lambda x: [transpose(x, (1, 0)) * 2.0 + 1.0], normal((4, 6)), 1),
    "view of an expression": (lambda x: [transpose(exp(x), (1, 0)) + 1.0], normal((4, 6)), 1),
    "concatenate": (lambda x, y: [concatenate([sin(x), y * 2.0], 0)], normal((4, 3), (2, 3)), 2),
    "row of a table": (lambda x: [gather_p.bind(exp(x), INDEX, axes=(0,), mode="fill")], normal((5, 4)), 2),
    "heavy work is not repeated by a broadcast": (lambda x, y: [y * exp(x)], normal((6,), (4, 6)), 2),
    "heavy work per row": (lambda x, y: [y * keep(exp(x))], normal((4,), (4, 6)), 1),
    "large sum": (lambda x: [reduce_sum(x * x, (0, 1)) * 0.5], normal((300, 400)), 2),
    "gradient of a slice": (slice_gradient, normal((50,), (49,)), 1),
    "shared and heavy": (
        lambda x: (lambda t: [reduce_sum(t * t, (1,)), reduce_sum(t, (0,)), t + 1.0])(tanh(x)),
        normal((30, 40)),
        2,
    ),
    "large columns": (lambda x: [reduce_sum(x, (0,))], normal((5000, 20)), 2),
}

WHOLE: dict[str, tuple[Program, list[np.ndarray]]] = {
    **{name: (f, args) for name, (f, args, _) in FUSED.items()},
    "reversed": (lambda x: [rev(sin(x), (0, 1)) + x], normal((4, 6))),
    "strided": (lambda x: [strided_slice(x, (1, 0), (9, 5), (3, 2)) * 2.0], normal((9, 5))),
    "reshape of a transpose": (lambda x: [reshape(transpose(x, (1, 0)), (24,)) + 1.0], normal((4, 6))),
    "output is an input": (lambda x: [x, x, x * 1.0], normal((3,))),
    "output is a view": (lambda x: [transpose(x, (1, 0)), reshape(x, (6,))], normal((2, 3))),
    "duplicate outputs": (lambda x: (lambda y: [y, y])(sin(x)), normal((3,))),
    "constant output": (lambda x: [np.float64(2.0), np.arange(3.0), x], normal((2,))),
    "pad": (lambda x: [pad(sin(x), np.float64(3), [(1, 2, 0), (0, 1, 1)])], normal((3, 4))),
    "negative pad": (lambda x: [pad(x, np.float64(3), [(-1, 2, 0), (0, -1, 0)])], normal((3, 4))),
    "pad of an expression": (lambda x: [pad(exp(x), np.float64(1), [(2, 0, 0), (0, 3, 0)]) * 2.0], normal((3, 4))),
    "pad of a pad": (
        lambda x: [pad(pad(sin(x), ONE, [(1, 1, 0), (1, 0, 0)]) + 1.0, np.float64(2), [(0, 1, 0), (2, 2, 0)])],
        normal((3, 4)),
    ),
    "pad of a transpose": (lambda x: [pad(transpose(x, (1, 0)), ONE, [(1, 0, 0), (0, 2, 0)])], normal((3, 4))),
    "sum of a pad": (lambda x: [reduce_sum(pad(x * x, np.float64(0), [(1, 2, 0), (3, 0, 0)]), (0,))], normal((3, 40))),
    "pad of one element": (lambda x: [pad(x, np.float64(0), [(3, 2, 0), (0, 1, 0)])], normal((1, 2))),
    "pad of a broadcast": (
        lambda x: [pad(broadcast_in_dim(exp(x), (5, 4), (1,)), np.float64(0), [(1, 0, 0), (0, 2, 0)])],
        normal((4,)),
    ),
    "cumulative rows": (lambda x: [cumsum_p.bind(x * 2.0, axis=1, reverse=False) + 1.0], normal((3, 50))),
    "cumulative columns": (lambda x: [cumsum_p.bind(x, axis=0, reverse=True)], normal((30, 5))),
    "argmax": (lambda x: [argmax_p.bind(x, axis=0), argmax_p.bind(x, axis=1)], normal((6, 9))),
    "scatter": (
        lambda x, u: [scatter_p.bind(x, u, INDEX, axes=(0,), mode="drop", unique=False) * 2.0],
        normal((5, 4), (6, 4)),
    ),
    "scatter add": (
        lambda x, u: [scatter_add_p.bind(sin(x), u, INDEX, axes=(0,), mode="clip", unique=False)],
        normal((5, 4), (6, 4)),
    ),
    "scatter twice": (
        lambda x, u: [
            scatter_add_p.bind(
                scatter_add_p.bind(sin(x), u, INDEX, axes=(0,), mode="drop", unique=False),
                u,
                INDEX,
                axes=(0,),
                mode="drop",
                unique=False,
            )
            + 1.0
        ],
        normal((5, 4), (6, 4)),
    ),
    "matrix products": (
        lambda x, y: [dot_general(tanh(x), y, (((1,), (0,)), ((), ()))), dot_general(x, x, (((0,), (0,)), ((), ())))],
        normal((30, 40), (40, 20)),
    ),
    "batched product": (
        lambda x, y: [dot_general(x, y, (((2,), (1,)), ((0,), (0,))))],
        normal((3, 9, 20), (3, 20, 11)),
    ),
    "outer product": (lambda x, y: [dot_general(x, y, (((), ()), ((), ())))], normal((5,), (6,))),
    "scalars": (lambda x, y: [sin(x) * y + 1.0, x - y], normal((), ())),
    "zero rows": (lambda x: [reduce_sum(sin(x), (0,)), x * 2.0], normal((0, 3))),
    "unit axes": (softmax, normal((1, 7))),
    "unit rows": (softmax, normal((5, 1))),
    "ragged blocks": (lambda x: [reduce_sum(sin(x), (0,)), reduce_max(x, (0,))], normal((70001,))),
    "ragged blocks of rows": (lambda x: [reduce_sum(sin(x), (0, 1))], normal((1237, 77))),
    "blocks with a kept axis": (lambda x: [reduce_sum(x * x, (0, 2))], normal((500, 3, 60))),
    "lanes wider than a tile": (column_softmax, normal((6, 1301))),
    "scratch rows": (
        lambda x: (lambda e: [reduce_sum(e * keep(log(reduce_sum(e, (1,)))), (1,))])(exp(tanh(x))),
        normal((5, 900)),
    ),
    "scratch lanes": (
        lambda x: (lambda e: [reduce_sum(e * log(reduce_sum(e, (0,))), (0,))])(exp(tanh(x))),
        normal((50, 700)),
    ),
}


def compiled(f: Program, args: Sequence[Any]) -> Executable:
    return compile_jaxpr(stage(f, [aval_of(a) for a in args]))


def both(f: Program, args: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """(compiled, interpreted) results."""
    closed = stage(f, [aval_of(a) for a in args])
    with np.errstate(all="ignore"):
        return compile_jaxpr(closed)(args), eval_jaxpr(closed.jaxpr, closed.consts, *args)
