"""PyTensor with its Numba backend: a function of arrays is built as a symbolic graph at its first call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from .base import Function, Named, Peer, Unsupported, tree_map


def _leaves(tree: Any) -> list[Any]:
    found: list[Any] = []
    tree_map(found.append, tree)
    return found


def _filled(tree: Any, leaves: list[Any]) -> Any:
    rest = iter(leaves)
    return tree_map(lambda _: next(rest), tree)


def _symbol(x: Any) -> Any:
    x = np.asarray(x)
    # extents stay open, but for 1, which NumPy's broadcasting needs to know
    return pt.tensor(dtype=x.dtype, shape=tuple(1 if n == 1 else None for n in x.shape))


class Compiled:
    """``pytensor.function`` of a Python function, made when the kinds of its arguments are known."""

    def __init__(self, f: Function) -> None:
        self._f, self._compiled, self._result = f, None, None

    def __call__(self, *args: Any) -> Any:
        leaves = _leaves(args)
        if self._compiled is None:
            self._build(args, leaves)
        return _filled(self._result, self._compiled(*leaves))

    def _build(self, args: Any, leaves: list[Any]) -> None:
        floats = {np.asarray(x).dtype.name for x in leaves if np.asarray(x).dtype.kind == "f"}
        symbols = [_symbol(x) for x in leaves]
        with pytensor.config.change_flags(floatX="float32" if floats == {"float32"} else "float64"):
            result = self._f(*_filled(args, symbols))
            outputs = [pt.as_tensor_variable(y) for y in _leaves(result)]
            self._result = tree_map(lambda _: 0, result)
            self._compiled = pytensor.function(symbols, outputs, mode="NUMBA", on_unused_input="ignore")
        self._compiled.trust_input = True  # as its users do where calls are small


def _symbolic(tree: Any) -> list[Any]:
    leaves = _leaves(tree)
    if not all(isinstance(x, pt.TensorVariable) for x in leaves):
        raise Unsupported("PyTensor has no eager mode")
    return leaves


def _scan(f: Function, init: Any, xs: Any, length: int | None = None) -> Any:
    carries, inputs = _leaves(init), [] if xs is None else _leaves(xs)
    made: dict[str, Any] = {}

    def step(*values: Any) -> Any:
        x = None if xs is None else _filled(xs, list(values[: len(inputs)]))
        carry, y = f(_filled(init, list(values[len(inputs) :])), x)
        made["y"] = None if y is None else tree_map(lambda _: 0, y)
        return [pt.as_tensor_variable(v) for v in _leaves(carry) + ([] if y is None else _leaves(y))]

    start = [pt.as_tensor_variable(c) for c in carries]
    # how many results a step has is known only after it has been built once
    probe = step(*[x[0] for x in inputs], *start)
    info = [*start, *[None] * (len(probe) - len(start))]
    results = pytensor.scan(step, sequences=inputs, outputs_info=info, n_steps=length, return_updates=False)
    results = results if isinstance(results, list) else [results]
    last = _filled(init, [r[-1] for r in results[: len(start)]])
    return last, None if made["y"] is None else _filled(made["y"], results[len(start) :])


def _fori_loop(lower: int, upper: int, body: Function, init: Any) -> Any:
    return _scan(lambda c, k: (body(k, c), None), init, pt.arange(lower, upper))[0]


class PyTensor(Peer):
    name, title, version = "pytensor", "PyTensor", pytensor.__version__
    np = Named("pytensor.tensor", pt, asarray=pt.as_tensor_variable, equal=pt.eq)
    special = Named("pytensor.tensor", pt, expit=pt.sigmoid)
    lax = Named("PyTensor", None, scan=_scan, fori_loop=_fori_loop)
    jit = staticmethod(Compiled)

    def value_and_grad(self, f: Function) -> Function:
        def both(first: Any, *rest: Any) -> Any:
            leaves = _symbolic(first)
            cost = f(first, *rest)
            gradients = pytensor.grad(cost, leaves, disconnected_inputs="ignore", return_disconnected="zero")
            return cost, _filled(first, gradients)

        return both

    def grad(self, f: Function) -> Function:
        both = self.value_and_grad(f)
        return lambda *args: both(*args)[1]

    def hessian(self, f: Function) -> Function:
        return lambda x: pytensor.gradient.hessian(f(x), _symbolic(x)[0])

    def hvp(self, f: Function) -> Function:
        return lambda x, v: pytensor.gradient.hessian_vector_product(f(x), _symbolic(x), [v])[0]

    def add_at(self, x: Any, index: Any, value: Any) -> Any:
        return pt.inc_subtensor(x[index], value)

    def set_at(self, x: Any, index: Any, value: Any) -> Any:
        return pt.set_subtensor(x[index], value)

    def arguments(self, tree: Any) -> Any:
        return tree_map(np.asarray, tree)


def make() -> Peer:
    return PyTensor()
