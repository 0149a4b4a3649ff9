"""The template of every scalar function for every dtype: what text computes it.

A template gets the names of its arguments and returns an expression; ``w.let(expression)`` names an intermediate.
float16 is computed in float32 and rounded after every operation, as NumPy does; complex functions are written with
real ones. ``native`` says whether a function has a template for a dtype: what has none runs in Python (``explain``
says so).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from .basic import BASIC
from .vecmath import NAMES

__all__ = ["Writer", "literal", "native", "scalar_expression", "suffix"]

_SUFFIX: Final = {
    "bool": "b1", "float16": "f16", "float32": "f32", "float64": "f64", "complex64": "c64", "complex128": "c128",
    **{f"int{w}": f"i{w}" for w in (8, 16, 32, 64)}, **{f"uint{w}": f"u{w}" for w in (8, 16, 32, 64)},
}  # fmt: skip
_SUFFIX_OF: Final = {np.dtype(name): short for name, short in _SUFFIX.items()}


def suffix(dtype: np.dtype[Any]) -> str:
    """``f64`` and the like: how a dtype is written in kernels."""
    return _SUFFIX_OF[dtype]


class Writer:
    """Receives the lines of intermediate values."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.lines: list[str] = []

    def let(self, expression: str) -> str:
        name = f"{self.prefix}_{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return name


_ALIAS = {"logistic": "sigmoid", "erf_inv": "erfinv"}
_OPERATORS = {"add": "+", "sub": "-", "mul": "*"}


def literal(value: Any, dtype: np.dtype[Any]) -> str:
    """A typed literal."""
    s = suffix(dtype)
    if s == "b1":
        return "True" if value else "False"
    if dtype.kind == "c":
        part = "f32" if s == "c64" else "f64"
        return f"make_{s}({_number(value.real, part)}, {_number(value.imag, part)})"
    return _number(value, "f32" if s == "f16" else s)


def _number(value: Any, s: str) -> str:
    if s[0] == "f":
        x = float(value)
        text = "nan" if x != x else "inf" if x == np.inf else "-inf" if x == -np.inf else repr(x)
        return f"{s}({text})"
    return f"{s}({int(value)})"


# real numbers ---------------------------------------------------------------------------------------------------


def _known(fn: str, s: str) -> str | None:
    for name in (fn, _ALIAS.get(fn, fn)):
        full = f"{name}_{s}"
        if full in BASIC or full in NAMES:
            return full
    return None


def _mul_no_nan(w: Writer, s: str, x: str, y: str) -> str:
    zero = f"{s}(0)"  # neither is zero, rather than either is: that is one masked comparison after the other
    return f"select_{s}(and_b1(ne_{s}({x}, {zero}), ne_{s}({y}, {zero})), {_real('mul', s, w, x, y)}, {zero})"


def _integer_pow(w: Writer, s: str, x: str, y: int) -> str:
    if y < 0:
        return f"div_{s}({s}(1), {_integer_pow(w, s, x, -y)})"
    result, power = "", x
    while y:
        if y & 1:
            result = power if not result else w.let(str(_real("mul", s, w, result, power)))
        y >>= 1
        if y:
            power = w.let(str(_real("mul", s, w, power, power)))
    return result or f"{s}(1)"


def _hypot(w: Writer, s: str, x: str, y: str) -> str:
    a, b = w.let(f"abs_{s}({x})"), w.let(f"abs_{s}({y})")
    big, small = w.let(f"max_{s}({a}, {b})"), w.let(f"min_{s}({a}, {b})")
    ratio = w.let(f"div_{s}({small}, select_{s}(eq_{s}({big}, {s}(0)), {s}(1), {big}))")
    value = w.let(f"{big} * sqrt_{s}(fma_{s}({ratio}, {ratio}, {s}(1)))")
    return f"select_{s}(or_b1(eq_{s}({a}, {s}(inf)), eq_{s}({b}, {s}(inf))), {s}(inf), {value})"


def _logaddexp(log1p: str, exp: str, ln2: float) -> Callable[[Writer, str, str, str], str]:
    def template(w: Writer, s: str, x: str, y: str) -> str:
        big = w.let(f"max_{s}({x}, {y})")
        gap = w.let(f"abs_{s}({x} - {y})")
        tail = f"{log1p}_{s}({exp}_{s}(-{gap}))" if ln2 else f"{log1p}_{s}({exp}_{s}(-{gap})) * {s}(1.4426950408889634)"
        same = f"{x} + {s}({ln2 or 1.0!r})"
        return f"select_{s}(eq_{s}({x}, {y}), {same}, {big} + {tail})"

    return template


_REAL: Final[dict[str, Callable[..., str]]] = {
    "copy": lambda w, s, x: x,
    "real": lambda w, s, x: x,
    "conj": lambda w, s, x: x,
    "imag": lambda w, s, x: f"{s}(0)",
    "square": lambda w, s, x: str(_real("mul", s, w, x, x)),
    "mul_no_nan": _mul_no_nan,
    "integer_pow": _integer_pow,
}
_FLOAT: Final[dict[str, Callable[..., str]]] = {
    **_REAL,
    "neg": lambda w, s, x: f"-{x}",
    "reciprocal": lambda w, s, x: f"div_{s}({s}(1), {x})",
    "logistic": lambda w, s, x: f"div_{s}({s}(1), {s}(1) + exp_{s}(-{x}))",
    "hypot": _hypot,
    "logaddexp": _logaddexp("log1p", "exp", float(np.log(2))),
    "logaddexp2": _logaddexp("log1p", "exp2", 0.0),
}
_INTEGER: Final[dict[str, Callable[..., str]]] = {
    **_REAL,
    **{name: (lambda w, s, x: x) for name in ("floor", "ceil", "trunc", "rint")},
    "is_finite": lambda w, s, x: "True",
    "is_nan": lambda w, s, x: "False",
    "is_inf": lambda w, s, x: "False",
}
_BOOL_AS = {"add": "or", "mul": "and", "max": "or", "min": "and", "mul_no_nan": "and", "square": "and"}
_BOOL: Final[dict[str, Callable[..., str]]] = {
    "copy": lambda w, s, x: x,
    "abs": lambda w, s, x: x,
    **{name: (lambda w, s, x: x) for name in ("floor", "ceil", "trunc", "rint")},
    "is_finite": lambda w, s, x: "True",
    "is_nan": lambda w, s, x: "False",
    "is_inf": lambda w, s, x: "False",
}


def _real(fn: str, s: str, w: Writer, *args: Any) -> str | None:
    """The text of a real function, or None where there is none."""
    if s == "b1":
        fn = _BOOL_AS.get(fn, fn)
        table = _BOOL
    else:
        table = _FLOAT if s[0] == "f" else _INTEGER
    if s[0] == "f" and fn in _OPERATORS:
        return f"{args[0]} {_OPERATORS[fn]} {args[1]}"
    known = _known(fn, s)
    if known is not None and fn not in ("neg",):
        return f"{known}({', '.join(args)})"
    template = table.get(fn)
    if template is None:
        return f"{known}({', '.join(args)})" if known else None
    text = template(w, s, *args)
    return text if _calls_exist(text) else None


def _calls_exist(text: str) -> bool:
    """Whether vecmath and basic have every function named in ``text``."""
    for head in text.split("(")[:-1]:
        name = head[max(head.rfind(c) for c in " (-,") + 1 :]
        if "_" in name and name not in BASIC and name not in NAMES and name.rsplit("_", 1)[0] not in _MEMORY:
            return False
    return True


_MEMORY = frozenset(("make", "real", "imag", "round"))

# complex numbers ------------------------------------------------------------------------------------------------


def _parts(w: Writer, s: str, z: str) -> tuple[str, str]:
    return w.let(f"real_{s}({z})"), w.let(f"imag_{s}({z})")


def _make(s: str, re: str, im: str) -> str:
    return f"make_{s}({re}, {im})"


def _pair(op: str) -> Callable[..., str]:
    def template(w: Writer, s: str, p: str, x: str, y: str) -> str:
        (a, b), (c, d) = _parts(w, s, x), _parts(w, s, y)
        return _make(s, f"{a} {op} {c}", f"{b} {op} {d}")

    return template


def _complex_mul(w: Writer, s: str, p: str, x: str, y: str) -> str:
    (a, b), (c, d) = _parts(w, s, x), _parts(w, s, y)
    return _make(s, f"{a} * {c} - {b} * {d}", f"{a} * {d} + {b} * {c}")


def _complex_mul_no_nan(w: Writer, s: str, p: str, x: str, y: str) -> str:
    (a, b), (c, d) = _parts(w, s, x), _parts(w, s, y)
    zero = f"{p}(0)"
    none = w.let(
        f"or_b1(and_b1(eq_{p}({a}, {zero}), eq_{p}({b}, {zero})), and_b1(eq_{p}({c}, {zero}), eq_{p}({d}, {zero})))"
    )
    product = _make(s, f"{a} * {c} - {b} * {d}", f"{a} * {d} + {b} * {c}")
    return f"select_{s}({none}, {_make(s, zero, zero)}, {product})"


def _complex_div(w: Writer, s: str, p: str, x: str, y: str) -> str:
    """Smith's method, as NumPy has it: divide by the larger part of the denominator first."""
    (a, b), (c, d) = _parts(w, s, x), _parts(w, s, y)
    wide = w.let(f"ge_{p}(abs_{p}({c}), abs_{p}({d}))")
    big, small = w.let(f"select_{p}({wide}, {c}, {d})"), w.let(f"select_{p}({wide}, {d}, {c})")
    zero = w.let(f"eq_{p}({big}, {p}(0))")
    ratio = w.let(f"select_{p}({zero}, {p}(0), div_{p}({small}, {big}))")
    scale = w.let(f"div_{p}({p}(1), {big} + {small} * {ratio})")
    re = w.let(f"select_{p}({wide}, {a} + {b} * {ratio}, {a} * {ratio} + {b})")
    im = w.let(f"select_{p}({wide}, {b} - {a} * {ratio}, {b} * {ratio} - {a})")
    plain = _make(s, f"{re} * {scale}", f"{im} * {scale}")
    return f"select_{s}({zero}, {_make(s, f'div_{p}({a}, abs_{p}({c}))', f'div_{p}({b}, abs_{p}({c}))')}, {plain})"


def _complex_abs(w: Writer, s: str, p: str, x: str) -> str:
    a, b = _parts(w, s, x)
    return _hypot(w, p, a, b)


def _complex_compare(fn: str) -> Callable[..., str]:
    """Lexicographic, as NumPy orders complex numbers."""

    def template(w: Writer, s: str, p: str, x: str, y: str) -> str:
        (a, b), (c, d) = _parts(w, s, x), _parts(w, s, y)
        if fn == "eq":
            return f"and_b1(eq_{p}({a}, {c}), eq_{p}({b}, {d}))"
        if fn == "ne":
            return f"or_b1(ne_{p}({a}, {c}), ne_{p}({b}, {d}))"
        strict = fn[:2].replace("e", "t") if fn in ("le", "ge") else fn
        strict = {"le": "lt", "ge": "gt"}.get(fn, fn)
        ordered = f"and_b1(eq_{p}({b}, {b}), eq_{p}({d}, {d}))"
        first = f"and_b1({strict}_{p}({a}, {c}), {ordered})"
        return f"or_b1({first}, and_b1(eq_{p}({a}, {c}), {fn}_{p}({b}, {d})))"

    return template


def _complex_integer_pow(w: Writer, s: str, p: str, x: str, y: int) -> str:
    if y < 0:
        one = _make(s, f"{p}(1)", f"{p}(0)")
        return _complex_div(w, s, p, w.let(one), w.let(_complex_integer_pow(w, s, p, x, -y)))
    result, power = "", x
    while y:
        if y & 1:
            result = power if not result else w.let(_complex_mul(w, s, p, result, power))
        y >>= 1
        if y:
            power = w.let(_complex_mul(w, s, p, power, power))
    return result or _make(s, f"{p}(1)", f"{p}(0)")


def _complex_exp(w: Writer, s: str, p: str, x: str) -> str:
    a, b = _parts(w, s, x)
    size = w.let(f"exp_{p}({a})")
    sine = w.let(f"select_{p}(eq_{p}({b}, {p}(0)), {b}, {size} * sin_{p}({b}))")
    return _make(s, f"select_{p}(eq_{p}({b}, {p}(0)), {size}, {size} * cos_{p}({b}))", sine)


def _each(fn: str) -> Callable[..., str]:
    def template(w: Writer, s: str, p: str, x: str) -> str:
        a, b = _parts(w, s, x)
        return f"{'or' if fn != 'is_finite' else 'and'}_b1({fn}_{p}({a}), {fn}_{p}({b}))"

    return template


_COMPLEX: Final[dict[str, Callable[..., str]]] = {
    "copy": lambda w, s, p, x: x,
    "add": _pair("+"),
    "sub": _pair("-"),
    "mul": _complex_mul,
    "mul_no_nan": _complex_mul_no_nan,
    "div": _complex_div,
    "neg": lambda w, s, p, x: _make(s, f"-real_{s}({x})", f"-imag_{s}({x})"),
    "square": lambda w, s, p, x: _complex_mul(w, s, p, x, x),
    "integer_pow": _complex_integer_pow,
    "exp": _complex_exp,
    "abs": _complex_abs,
    "real": lambda w, s, p, x: f"real_{s}({x})",
    "imag": lambda w, s, p, x: f"imag_{s}({x})",
    "conj": lambda w, s, p, x: _make(s, f"real_{s}({x})", f"-imag_{s}({x})"),
    "select": lambda w, s, p, c, x, y: f"select_{s}({c}, {x}, {y})",
    **{fn: _complex_compare(fn) for fn in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{fn: _each(fn) for fn in ("is_nan", "is_inf", "is_finite")},
}


# choosing -------------------------------------------------------------------------------------------------------


def _convert(w: Writer, source: str, target: str, x: str) -> str | None:
    if source == target:
        return x
    if source[0] == "c":
        part = "f32" if source == "c64" else "f64"
        if target[0] == "c":
            to = "f32" if target == "c64" else "f64"
            re, im = (_convert(w, part, to, f"{c}_{source}({x})") for c in ("real", "imag"))
            return _make(target, str(re), str(im))
        if target == "b1":
            a, b = _parts(w, source, x)
            return f"or_b1(f_{part}({a}), f_{part}({b}))".replace(f"f_{part}", f"{part}_to_b1")
        return _convert(w, part, target, w.let(f"real_{source}({x})"))
    if target[0] == "c":
        part = "f32" if target == "c64" else "f64"
        return _make(target, str(_convert(w, source, part, x)), f"{part}(0)")
    if source == "f16":
        return x if target == "f32" else _convert(w, "f32", target, x)
    if target == "f16":
        inner = _convert(w, source, "f32", x)
        return f"round_f16({inner})"
    return f"{source}_to_{target}({x})"


def scalar_expression(
    w: Writer, fn: str, args: Sequence[str], sources: Sequence[np.dtype[Any]], dtype: np.dtype[Any],
    params: Sequence[tuple[str, Any]] = (),
) -> str | None:  # fmt: skip
    """The text that computes ``fn`` of variables of dtypes ``sources``; None if there is no template."""
    if fn == "convert":
        return _convert(w, suffix(sources[0]), suffix(dtype), args[0])
    extra = [v for _, v in params]
    s = suffix(sources[-1])
    if fn == "complex":
        return _make(suffix(dtype), args[0], args[1])
    if s[0] == "c":
        template = _COMPLEX.get(fn)
        if template is None:
            return None
        part = "f32" if s == "c64" else "f64"
        text = template(w, s, part, *args, *extra)
        return text if all(_calls_exist(line.partition(" = ")[2]) for line in w.lines) else None
    if s == "f16":
        text16 = _real(fn, "f32", w, *args, *extra)
        if text16 is None or dtype.kind == "b" or fn in ("select", "copy", "neg", "abs", "max", "min", "copysign"):
            return text16
        return f"round_f16({text16})"
    return _real(fn, s, w, *args, *extra)


@lru_cache(maxsize=4096)
def native(
    fn: str, sources: tuple[np.dtype[Any], ...], dtype: np.dtype[Any], params: tuple[tuple[str, Any], ...]
) -> bool:
    """Whether a scalar function on these dtypes can be compiled."""
    if fn == "nextafter":
        return False
    args = [f"x{k}" for k in range(len(sources))]
    try:
        return scalar_expression(Writer("t"), fn, args, sources, dtype, params) is not None
    except (KeyError, TypeError):
        return False
