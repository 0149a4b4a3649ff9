"""A product that is only read transposed is computed transposed: ``(A B)ᵀ = Bᵀ Aᵀ``, which BLAS does at no cost.

The gradient with respect to a matrix of weights is such a product. What is left to do with it (the step of an
optimiser) then walks all of its operands alike: contiguously, and over the product's own memory.

The terms of each sum and their order stay; a library may round a sum of another layout differently.
"""

from __future__ import annotations

from collections import Counter

from ..core.jaxpr import ClosedJaxpr, Eqn, Var
from ..core.lowering import Contract
from .rewrite import Substitution, rebuild

__all__ = ["transpose_products"]


def transpose_products(closed: ClosedJaxpr) -> ClosedJaxpr:
    """Equations ``transpose(dot_general(x, y))`` that swap the free axes become ``dot_general(y, x)``."""
    products = {e.outvars[0]: e for e in closed.jaxpr.eqns if isinstance(e.primitive.lower, Contract)}
    if not products:
        return closed
    uses = Counter([a for e in closed.jaxpr.eqns for a in e.invars if type(a) is Var])
    uses.update([a for a in closed.jaxpr.outvars if type(a) is Var])
    turned: dict[Var, Eqn] = {}
    for eqn in closed.jaxpr.eqns:
        product = products.get(eqn.invars[0]) if eqn.primitive.name == "transpose" else None  # type: ignore[arg-type]
        if product is not None and uses[product.outvars[0]] == 1 and _swaps(eqn, product):
            (xc, yc), (xb, yb) = product.params["dimension_numbers"]
            swapped = {**product.params, "dimension_numbers": ((yc, xc), (yb, xb))}
            turned[product.outvars[0]] = Eqn(
                product.primitive, product.invars[::-1], swapped, eqn.outvars, product.source
            )
    if not turned:
        return closed
    gone = {e.outvars[0] for e in turned.values()}
    eqns = [
        turned.get(e.outvars[0], e)
        for e in closed.jaxpr.eqns
        if e.primitive.name != "transpose" or e.outvars[0] not in gone
    ]
    return rebuild(closed, eqns, Substitution())


def _swaps(transpose: Eqn, product: Eqn) -> bool:
    """Whether the permutation puts the free axes of the right operand before those of the left, in order."""
    (contracted, _), (batched, _) = product.params["dimension_numbers"]
    batch = len(batched)
    left = product.invars[0].aval.ndim - len(contracted) - batch
    axes = range(product.outvars[0].aval.ndim)
    swapped = (*axes[:batch], *axes[batch + left :], *axes[batch : batch + left])
    return tuple(transpose.params["permutation"]) == swapped
