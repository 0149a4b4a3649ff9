"""Arrays as they were when a trace met them.

NumPy's arrays change: a function may fill a work array, use it, and fill it again. A trace that keeps its operands
for later (as constants of a jaxpr, as residuals of a derivative) must keep what they held when they were used. The
same holds for tracers of an outer transformation, which an in-place write replaces.

>>> import numpy as np
>>> snapshots, buffer = Snapshots(), np.ones(2)
>>> first = snapshots(buffer)
>>> snapshots(buffer) is first  # nothing was written in between: one copy serves
True
>>> buffer[:] = 5
>>> first, snapshots(buffer)
(array([1., 1.]), array([5., 5.]))
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .trace import Tracer

__all__ = ["Snapshots"]


def _is_frozen(x: np.ndarray) -> bool:
    """Nobody can write to the memory behind ``x``: neither it nor what it is a view of is writeable."""
    if x.flags.writeable:
        return False
    owner: Any = x.base
    while owner is not None:
        if not isinstance(owner, np.ndarray) or owner.flags.writeable:
            return False
        owner = owner.base
    return True


def _frozen_copy(x: np.ndarray) -> np.ndarray:
    """A read-only copy. Axes along which ``x`` is merely repeated stay so: their memory is one element."""
    if 0 not in x.strides or not x.size:
        copy = np.array(x, subok=False)
        copy.flags.writeable = False
        return copy
    distinct = np.array(x[tuple([slice(0, 1) if s == 0 else slice(None) for s in x.strides])])
    distinct.flags.writeable = False
    return np.broadcast_to(distinct, x.shape)


def _words(x: np.ndarray) -> np.ndarray:
    """The bits of ``x`` as unsigned integers in one row, repeated elements once."""
    distinct = x[tuple([slice(0, 1) if s == 0 else slice(None) for s in x.strides])]
    return distinct.ravel(order="K").view(f"u{min(x.itemsize, 8)}")


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal in every bit: a NaN is itself, and -0.0 is not 0.0."""
    if a.nbytes <= 1024:
        return a.tobytes() == b.tobytes()
    return bool((_words(a) == _words(b)).all())


def _checksum(x: np.ndarray) -> tuple[bytes, bytes]:
    """Sums of the bits over the columns of a table. Its width is a prime, so that exchanged rows of ``x`` show too."""
    words = _words(x)
    width = 1021
    table = words[: words.size // width * width].reshape(-1, width)
    return table.sum(axis=0).tobytes(), words[table.size :].tobytes()


def _written(x: np.ndarray) -> ValueError:
    return ValueError(
        f"an array of shape {x.shape} and dtype {x.dtype.name} was written to in place after the differentiated "
        "function had used it, and the derivative needs its old values. Make a new array instead (k = k + 1 for "
        "k += 1), use a copy (k.copy()), or jit the function, which keeps copies."
    )


def _twin(x: Tracer, contents: list[Any]) -> Tracer:
    twin: Tracer = object.__new__(type(x))
    twin._trace, twin._views = x._trace, None
    for name, value in zip(x.contents, contents, strict=True):
        setattr(twin, name, value)
    return twin


class Snapshots:
    """What one trace has met: calling it with an operand gives a copy that nobody can change, the same one as long
    as the operand does not change. Scalars, and arrays that are read-only to everybody, are returned themselves.

    Copying big arrays costs more than many an operation on them. Those of more than ``limit`` bytes are used as they
    are, and `verify` says whether they still are what they were.
    """

    __slots__ = ("_arrays", "_big", "_limit", "_tracers")

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._arrays: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._big: dict[int, tuple[np.ndarray, Any]] = {}
        self._tracers: dict[int, tuple[Tracer, list[Any], Tracer]] = {}

    def __call__(self, x: Any) -> Any:
        if isinstance(x, np.ndarray):
            return self._array(x) if x.ndim else x[()]
        return self._tracer(x) if isinstance(x, Tracer) else x

    def _array(self, x: np.ndarray) -> np.ndarray:
        if _is_frozen(x):
            return x
        if self._limit is not None and x.nbytes > self._limit and 0 not in x.strides:
            return self._watched(x)
        known = self._arrays.get(id(x))  # holds x, so that its id is not given to another array
        if known is not None and _same_bits(known[1], x):
            return known[1]
        copy = _frozen_copy(x)
        self._arrays[id(x)] = x, copy
        return copy

    def _watched(self, x: np.ndarray) -> np.ndarray:
        checksum = _checksum(x)
        known = self._big.setdefault(id(x), (x, checksum))
        if known[1] != checksum:
            raise _written(x)
        return known[0]

    def verify(self) -> None:
        """Check the arrays that were not copied.

        Raises:
            ValueError: one of them was written to since it was met.
        """
        for x, checksum in self._big.values():
            if _checksum(x) != checksum:
                raise _written(x)

    def _tracer(self, x: Tracer) -> Tracer:
        if not x.contents:  # of a kind that nothing can write to
            return x
        contents = [getattr(x, name) for name in x.contents]
        known = self._tracers.get(id(x))
        if known is not None and all([a is b for a, b in zip(contents, known[1], strict=True)]):
            return known[2]
        twin = _twin(x, contents)
        self._tracers[id(x)] = x, contents, twin
        return twin
