# ruff: noqa: E731
"""What is said to somebody who writes a loop or a branch wrongly: each row, an expression and words of its message."""

from __future__ import annotations

import numpy as np
import pytest

import funcgrad as fg
from funcgrad import lax

V = np.ones(3)
one = lambda x: x
ROWS = {
    # branches
    "predicate is an array": (
        lambda: lax.cond(V > 0, one, one, V),
        TypeError,
        ["cond: the predicate must be a scalar, found shape (3,)", ".any()", "np.where"],
    ),
    "predicate is complex": (lambda: lax.cond(1j, one, one, V), TypeError, ["must be a boolean", "x != 0"]),
    "predicate is no number": (lambda: lax.cond("yes", one, one, V), TypeError, ["cond: the predicate: 'yes'"]),
    "branch is no function": (lambda: lax.cond(True, 1.0, one, V), TypeError, ["cond: true_fun", "got 1.0"]),
    "branches of different structure": (
        lambda: lax.cond(True, lambda x: (x, x), lambda x: {"a": x}, V),
        TypeError,
        ["same structure", "true_fun and false_fun differ", "tuple", "dict"],
    ),
    "branches of different dtypes": (
        lambda: lax.cond(True, lambda x: {"a": x, "b": x}, lambda x: {"a": x, "b": x > 0}, V),
        TypeError,
        ["output['b']", "true_fun returns f64[3]", "false_fun returns bool[3]", ".astype('float64')"],
    ),
    "branches of different shapes": (
        lambda: lax.switch(0, [one, lambda x: x[None], one], V),
        TypeError,
        ["branches[0] returns f64[3]", "branches[1] returns f64[1,3]", ".reshape((3,))"],
    ),
    "index is a float": (
        lambda: lax.switch(0.5, [one, one], V),
        TypeError,
        ["index must be an integer", ".astype(int)"],
    ),
    "index is a boolean": (lambda: lax.switch(True, [one, one], V), TypeError, ["found bool", "use cond"]),
    "index is an array": (lambda: lax.switch(np.arange(2), [one, one], V), TypeError, ["must be a scalar", "vmap"]),
    "no branches": (lambda: lax.switch(0, [], V), ValueError, ["no branches"]),
    "operand is no array": (
        lambda: lax.cond(True, lambda x, y: x, lambda x, y: x, V, {"k": "text"}),
        TypeError,
        ["argument 'y'['k']", "'text'"],
    ),
    # scan
    "carry changes its dtype": (
        lambda: lax.scan(lambda c, x: ({"a": c["a"], "b": c["b"] * 1.5}, x), {"a": V, "b": np.arange(3)}, V),
        TypeError,
        ["carry['b'] is i64[3]", "returns f64[3]", ".astype('int64')", "start with float64"],
    ),
    "carry changes its shape": (
        lambda: lax.scan(lambda c, x: (np.append(c, x), x), V, V),
        TypeError,
        ["carry is f64[3]", "returns f64[4]", "shape that it keeps"],
    ),
    "carry changes its structure": (
        lambda: lax.scan(lambda c, x: ((c, c), x), V, V),
        TypeError,
        ["scan: <lambda> must return a carry of the structure", "tuple"],
    ),
    "no pair": (
        lambda: lax.scan(lambda c, x: c + x, 0.0, V),
        TypeError,
        ["must return a pair (carry, y)", "one value"],
    ),
    "different extents": (
        lambda: lax.scan(lambda c, x: (c, None), 0.0, {"a": V, "b": np.ones((2, 3))}),
        ValueError,
        ["xs['a'] has 3", "xs['b'] has 2"],
    ),
    "length contradicts": (
        lambda: lax.scan(lambda c, x: (c, x), 0.0, V, length=4),
        ValueError,
        ["length is 4", "extent 3"],
    ),
    "no length": (lambda: lax.scan(lambda c, x: (c, x), 0.0), ValueError, ["give length"]),
    "negative length": (
        lambda: lax.scan(lambda c, x: (c, x), 0.0, length=-1),
        ValueError,
        ["not be negative, found -1"],
    ),
    "length is a float": (
        lambda: lax.scan(lambda c, x: (c, x), 0.0, length=2.0),
        TypeError,
        ["length", "integer", "2.0"],
    ),
    "length is traced": (
        lambda: fg.jit(lambda n: lax.scan(lambda c, x: (c, x), 0.0, length=n))(3),
        TypeError,
        ["known while tracing", "fori_loop"],
    ),
    "scalar xs": (lambda: lax.scan(lambda c, x: (c, x), 0.0, (V, 1.0)), ValueError, ["xs[1] is a scalar"]),
    "bad unroll": (lambda: lax.scan(lambda c, x: (c, x), 0.0, V, unroll=0), ValueError, ["unroll", "0"]),
    "body returns text": (lambda: lax.scan(lambda c, x: (c, "t"), 0.0, V), TypeError, ["not an array", "output[1]"]),
    "bad batch size": (lambda: lax.map(one, V, batch_size=0), ValueError, ["batch_size must be positive"]),
    # while_loop
    "condition is an array": (
        lambda: lax.while_loop(lambda x: x < 3, lambda x: x + 1, V),
        TypeError,
        ["boolean scalar", "shape (3,)", ".all()"],
    ),
    "condition is a number": (
        lambda: lax.while_loop(lambda x: x - 3, lambda x: x + 1, 0),
        TypeError,
        ["must return a boolean", "int64", "x != 0"],
    ),
    "condition is a pair": (lambda: lax.while_loop(lambda x: (True, x), one, V), TypeError, ["one boolean"]),
    "value changes its dtype": (
        lambda: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + 0.5), (0, np.int32(2))),
        TypeError,
        ["while_loop: the carry", "carry[1] is i32[]", "returns f64[]", ".astype('int32')"],
    ),
    # fori_loop
    "bound is a float": (
        lambda: lax.fori_loop(0, 3.0, lambda i, x: x, V),
        TypeError,
        ["upper must be an integer", "float64"],
    ),
    "bound is an array": (lambda: lax.fori_loop(V, 3, lambda i, x: x, V), TypeError, ["lower must be a scalar"]),
    "value of fori_loop changes": (
        lambda: lax.fori_loop(0, 3, lambda i, x: {"a": x["a"] > 0}, {"a": V}),
        TypeError,
        ["fori_loop: the carry", "carry['a'] is f64[3]", "bool[3]"],
    ),
    "value of a traced fori_loop changes": (
        lambda: fg.jit(lambda n: lax.fori_loop(0, n, lambda i, x: (x, x), V))(3),
        TypeError,
        ["fori_loop: <lambda> must return a carry of the structure"],
    ),
    # associative_scan
    "extents differ": (
        lambda: lax.associative_scan(lambda a, b: a, (V, np.ones(2))),
        ValueError,
        ["elems[0] has 3", "elems[1] has 2"],
    ),
    "another structure": (
        lambda: lax.associative_scan(lambda a, b: (a, b), V),
        TypeError,
        ["structure of its arguments"],
    ),
    # Python's own control flow
    "if": (lambda: fg.jit(lambda x: x if x > 0 else -x)(1.0), fg.errors.TracerBoolError, ["lax.cond(condition, "]),
    "while": (
        lambda: fg.jit(lambda x: [0 for _ in iter(lambda: bool(x > 0), False)])(1.0),
        TypeError,
        ["lax.while_loop("],
    ),
    "for": (lambda: fg.jit(lambda n: list(range(n)))(3), fg.errors.TracerIntegerError, ["lax.fori_loop(0, n, "]),
}


@pytest.mark.parametrize("name", ROWS)
def test_message(name: str) -> None:
    call, kind, words = ROWS[name]
    with pytest.raises(kind) as found:
        call()
    for w in words:
        assert w in str(found.value)


def test_leak() -> None:
    """A tracer of a body does not outlive it."""
    kept = []
    lax.scan(lambda c, x: (kept.append(x), (c, x))[1], 0.0, V)
    with pytest.raises(fg.LeakedTracerError):
        np.sin(kept[0]) + 1
