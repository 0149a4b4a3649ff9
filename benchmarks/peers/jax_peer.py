"""JAX on the CPU with 64-bit types switched on. Calls include waiting for the result."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy

from .base import Function, Named, Peer

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)


class Jax(Peer):
    name, title, version = "jax", "JAX", jax.__version__
    np, special, lax = Named("jax.numpy", jnp), Named("jax.scipy.special", jax.scipy.special), jax.lax
    scipy = jax.scipy
    jit, grad, value_and_grad = map(staticmethod, (jax.jit, jax.grad, jax.value_and_grad))
    hessian, vmap = staticmethod(jax.hessian), staticmethod(jax.vmap)
    wait = staticmethod(jax.block_until_ready)

    def hvp(self, f: Function) -> Function:
        return lambda x, v: jax.jvp(jax.grad(f), (x,), (v,))[1]

    def arguments(self, tree: Any) -> Any:
        return jax.block_until_ready(jax.tree.map(jnp.asarray, tree))

    def forget(self) -> None:
        jax.clear_caches()


def make() -> Peer:
    return Jax()
