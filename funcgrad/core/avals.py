"""Abstract values: what tracing knows of an array.

>>> aval_of(np.ones((2, 3), np.float32))
float32[2,3]
>>> aval_of(2.0)          # a Python scalar is weakly typed: it adopts the dtype of what it meets
float64[]~
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

__all__ = [
    "FLOAT0",
    "ShapeDtypeStruct",
    "ShapedArray",
    "aval_of",
    "check_dtype",
    "register_aval",
    "tangent_dtype",
]

FLOAT0: Final = np.dtype([("float0", np.void, 0)])
"""dtype of the tangents of integers and booleans: it has one value, zero."""

_SUPPORTED: Final = frozenset(
    np.dtype(t)
    for t in [
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
    ]
) | {FLOAT0}

_SHORT: Final = {"float": "f", "int": "i", "uint": "u", "complex": "c"}


class ShapedArray:
    """Shape, dtype, and whether the dtype is only a Python scalar's guess (``weak_type``)."""

    __slots__ = ("dtype", "shape", "weak_type")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], weak_type: bool = False) -> None:
        self.shape = shape
        self.dtype = dtype
        self.weak_type = weak_type

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def update(self, **changes: Any) -> ShapedArray:
        fields: dict[str, Any] = {"shape": self.shape, "dtype": self.dtype, "weak_type": self.weak_type}
        return ShapedArray(**(fields | changes))

    def strong(self) -> ShapedArray:
        return ShapedArray(self.shape, self.dtype) if self.weak_type else self

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ShapedArray)
            and self.shape == other.shape
            and self.dtype == other.dtype
            and self.weak_type == other.weak_type
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype, self.weak_type))

    def short(self) -> str:
        """JAX's notation, ``f32[2,3]``."""
        name = "float0" if self.dtype == FLOAT0 else self.dtype.name
        for long, letter in _SHORT.items():
            if name.startswith(long) and self.dtype != FLOAT0:
                name = letter + name[len(long) :]
                break
        return f"{name}[{','.join(map(str, self.shape))}]"

    def __repr__(self) -> str:
        name = "float0" if self.dtype == FLOAT0 else self.dtype.name
        return f"{name}[{','.join(map(str, self.shape))}]{'~' if self.weak_type else ''}"


_BOOL, _INT, _FLOAT, _COMPLEX = (
    ShapedArray((), np.dtype(t), weak_type=True) for t in (np.bool_, np.int64, np.float64, np.complex128)
)
_SCALAR_AVALS: Final[dict[type, ShapedArray]] = {
    bool: ShapedArray((), np.dtype(np.bool_)),  # NumPy treats Python's bool as np.bool_: nothing is weaker
    int: _INT,
    float: _FLOAT,
    complex: _COMPLEX,
    **{dtype.type: ShapedArray((), dtype) for dtype in _SUPPORTED if dtype != FLOAT0},
}
_AVAL_GETTERS: dict[type, Any] = {}


def register_aval(cls: type, getter: Any) -> None:
    """Let ``aval_of`` (and so every primitive) accept instances of ``cls``."""
    _AVAL_GETTERS[cls] = getter


def check_dtype(dtype: np.dtype[Any], what: str = "value") -> np.dtype[Any]:
    """``dtype`` in native byte order.

    Raises:
        TypeError: it is not one that can be traced.
    """
    dtype = dtype.newbyteorder("=")
    if dtype not in _SUPPORTED:
        raise TypeError(
            f"{what} has dtype {dtype}, which funcgrad cannot trace. Supported are bool, integers, float16/32/64 "
            f"and complex64/128; convert it first, for instance with .astype(np.float64)."
        )
    return dtype


def aval_of(x: Any) -> ShapedArray:
    """The abstract value of an array, NumPy scalar, Python scalar or tracer.

    Raises:
        TypeError: for anything else, and for dtypes that are not numbers.
    """
    cls = type(x)
    if cls is np.ndarray:
        dtype = x.dtype
        return ShapedArray(x.shape, dtype if dtype in _SUPPORTED else check_dtype(dtype, "array"))
    aval = _SCALAR_AVALS.get(cls)
    if aval is not None:
        return aval
    getter = _AVAL_GETTERS.get(cls)
    if getter is None:
        getter = _AVAL_GETTERS[cls] = _getter_for(cls, x)
    result: ShapedArray = getter(x)
    return result


def _array_aval(x: Any) -> ShapedArray:
    return ShapedArray(x.shape, check_dtype(x.dtype, "array"))


def _getter_for(cls: type, x: Any) -> Any:
    """How to read the aval of instances of a class that was not met before."""
    for base in cls.__mro__:
        if base in _AVAL_GETTERS:
            return _AVAL_GETTERS[base]
    if issubclass(cls, (np.matrix, np.ma.MaskedArray)):
        lost, way = (
            ("its * is a matrix product", "np.asarray(x), and write @ for the product")
            if issubclass(cls, np.matrix)
            else ("its mask would be lost", "x.filled(value), and x.mask as an argument of its own")
        )
        raise TypeError(f"a {cls.__name__} cannot be traced as a plain array, because {lost}. Pass {way}.")
    if issubclass(cls, (np.generic, np.ndarray)):
        return _array_aval
    for base in (bool, int, float, complex):
        if issubclass(cls, base):
            weak = _SCALAR_AVALS[base]
            return lambda _: weak
    raise TypeError(
        f"{x!r} of type {cls.__module__}.{cls.__qualname__} is not an array or number. Convert what holds "
        "numbers with np.asarray(...) or float(...); strings, options and other objects stay outside the traced "
        "values: static_argnums of jit, or a closure."
    )


class ShapeDtypeStruct:
    """Shape and dtype of an array that need not exist; accepted wherever only these are asked.

    >>> ShapeDtypeStruct((2, 3), np.float32)
    ShapeDtypeStruct(shape=(2, 3), dtype=float32)
    """

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        try:
            self.shape = tuple([operator.index(n) for n in shape])
        except TypeError:
            raise TypeError(f"ShapeDtypeStruct: shape must be a sequence of integers, found {shape!r}") from None
        if any([n < 0 for n in self.shape]):
            raise ValueError(f"ShapeDtypeStruct: shape {self.shape} has a negative extent")
        self.dtype = check_dtype(np.dtype(dtype), "ShapeDtypeStruct")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShapeDtypeStruct) and (self.shape, self.dtype) == (other.shape, other.dtype)

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype))

    def __repr__(self) -> str:
        return f"ShapeDtypeStruct(shape={self.shape}, dtype={self.dtype.name})"


_AVAL_GETTERS[ShapeDtypeStruct] = lambda x: ShapedArray(x.shape, x.dtype)


def tangent_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of tangents of values of ``dtype``: itself, or float0."""
    return dtype if dtype.kind in "fc" else FLOAT0
