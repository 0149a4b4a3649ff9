"""Jaxprs as text, in JAX's notation.

``{ lambda a:f64[3] ; b:f64[]. let c:f64[3] = mul a b in (c,) }``: constants, inputs, equations, outputs.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np

from . import jaxpr as ir
from .jaxpr import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var

__all__ = ["format_jaxpr"]


def _letters(n: int) -> str:
    name = ""
    n += 1
    while n:
        n, digit = divmod(n - 1, 26)
        name = chr(ord("a") + digit) + name
    return name


class _Names:
    def __init__(self) -> None:
        self._names: dict[Var, str] = {}
        self._count = count()

    def __call__(self, v: Var) -> str:
        if v not in self._names:
            self._names[v] = _letters(next(self._count))
        return self._names[v]

    def typed(self, v: Var) -> str:
        return f"{self(v)}:{v.aval.short()}"

    def atom(self, a: Atom) -> str:
        return f"{a.value}:{a.aval.short()}" if isinstance(a, Literal) else self(a)


def _format_param(value: Any, indent: int) -> str:
    if isinstance(value, ClosedJaxpr):
        return _format(value.jaxpr, indent + 4)
    if isinstance(value, Jaxpr):
        return _format(value, indent + 4)
    if isinstance(value, tuple) and any(isinstance(x, (Jaxpr, ClosedJaxpr)) for x in value):
        lines = "".join([f"\n{' ' * (indent + 4)}{_format_param(x, indent)}" for x in value])
        return f"({lines}\n{' ' * (indent + 2)})"
    if isinstance(value, np.dtype):
        return value.name
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    return str(value)


def _format_eqn(eqn: Eqn, names: _Names, indent: int) -> str:
    params = "\n".join(
        f"{' ' * (indent + 2)}{k}={_format_param(v, indent)}" for k, v in sorted(eqn.params.items()) if v is not None
    )
    short = " ".join(p.strip() for p in params.split("\n"))
    text = f"[{short}]" if len(short) < 70 and "lambda" not in short else f"[\n{params}\n{' ' * indent}]"
    left = " ".join(names.typed(v) for v in eqn.outvars)
    right = " ".join(names.atom(a) for a in eqn.invars)
    return f"{' ' * indent}{left} = {eqn.primitive}{text if eqn.params else ''} {right}".rstrip()


def _format(jaxpr: Jaxpr, indent: int) -> str:
    names = _Names()
    consts = " ".join(names.typed(v) for v in jaxpr.constvars)
    ins = " ".join(names.typed(v) for v in jaxpr.invars)
    head = f"{{ lambda {consts} ; {ins}. let" if consts else f"{{ lambda ; {ins}. let"
    eqns = [_format_eqn(e, names, indent + 4) for e in jaxpr.eqns]
    outs = ", ".join(names.atom(a) for a in jaxpr.outvars)
    tail = f"in ({outs},) }}" if len(jaxpr.outvars) == 1 else f"in ({outs}) }}"
    if not eqns:
        return f"{head} {tail}"
    return "\n".join([head, *eqns, f"{' ' * (indent + 2)}{tail}"])


def format_jaxpr(jaxpr: Jaxpr) -> str:
    """The text of a jaxpr. Equal programs print the same, whatever objects they are made of."""
    return _format(jaxpr, 0)


ir.printer = format_jaxpr
