"""The language: abstract values, primitives, tracing and the jaxpr. It knows no operation by name."""

from . import printer as _printer  # jaxprs print through it

__all__: list[str] = []
del _printer
