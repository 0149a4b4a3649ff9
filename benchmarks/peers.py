"""Who takes part: a NumPy-like namespace, derivatives and a compiler under one set of names.

A workload is written once, against a `Peer`. What a peer cannot do raises `Unsupported` with the reason, and the
workload is left out for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["PEERS", "Peer", "Unsupported", "available"]

Function = Callable[..., Any]


class Unsupported(Exception):
    """This peer does not take part; the text says why."""


@dataclass(frozen=True)
class Peer:
    """One library.

    ``numpy`` is its array namespace; ``device`` turns NumPy arrays into its own, outside the timed part; ``wait`` makes
    an asynchronous result be there, inside it (None where results are there at once).
    """

    name: str
    version: str
    numpy: Any
    jit: Callable[[Function], Function]
    grad: Callable[[Function], Function]
    value_and_grad: Callable[[Function], Function]
    device: Callable[[Any], Any]
    wait: Callable[[Any], Any] | None


def _same(x: Any) -> Any:
    return x


def _no_derivatives(fun: Function) -> Function:
    raise Unsupported("NumPy has no derivatives")


def _funcgrad() -> Peer:
    fg = importlib.import_module("funcgrad")
    np = importlib.import_module("numpy")
    return Peer("funcgrad", fg.__version__, np, fg.jit, fg.grad, fg.value_and_grad, _same, None)


def _numpy() -> Peer:
    np = importlib.import_module("numpy")
    return Peer("numpy", np.__version__, np, _same, _no_derivatives, _no_derivatives, _same, None)


def _autograd() -> Peer:
    ag = importlib.import_module("autograd")
    version = importlib.import_module("importlib.metadata").version("autograd")
    return Peer(
        "autograd", version, importlib.import_module("autograd.numpy"), _same, ag.grad, ag.value_and_grad, _same, None
    )


def _jax() -> Peer:
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    jnp = importlib.import_module("jax.numpy")

    def device(args: Any) -> Any:
        return jax.block_until_ready(jax.tree.map(jnp.asarray, args))

    return Peer("jax", jax.__version__, jnp, jax.jit, jax.grad, jax.value_and_grad, device, jax.block_until_ready)


PEERS: dict[str, Callable[[], Peer]] = {"funcgrad": _funcgrad, "numpy": _numpy, "autograd": _autograd, "jax": _jax}


def available() -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that are installed, and why the others are not here. Without funcgrad there is nothing to measure."""
    found: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name, load in PEERS.items():
        try:
            found[name] = load()
        except Exception as error:
            if name == "funcgrad":
                raise
            missing[name] = f"{type(error).__name__}: {error}"
    return found, missing
