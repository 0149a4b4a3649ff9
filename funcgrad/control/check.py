"""Checks: conditions that must hold while a program runs, and the errors that they become.

``check_p`` has operands ``(code, *payload)``. A code of zero says that all is well; the code ``k`` that the check
number ``k - 1`` of ``params["sites"]`` has failed, whose part of the payload its message is filled with. A batched
check has leading axes on all of them.

Run as it is, eagerly or compiled, a failed check is an exception. ``checkify`` makes it a value instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..core.avals import ShapedArray, aval_of
from ..core.lowering import Host
from ..core.primitive import Primitive, ZeroDerivative
from ..core.trace import Source, user_source
from ..errors import CheckError
from ..ops.elementwise import convert_element_type, select
from ..transforms.batch import move_batch
from ..util import check_format

__all__ = ["CODE", "Error", "Site", "check", "check_error", "check_p", "codes_of", "concrete"]

CODE = np.dtype(np.int64)


class Site:
    """One check of a program: where it is written, what it says, and the avals of the values that fill it in.

    ``kind`` is ``user``, ``nan``, ``div`` or ``index``.
    """

    def __init__(
        self, kind: str, text: Callable[..., str], avals: Sequence[ShapedArray], source: Source | None
    ) -> None:
        self.kind = kind
        self.text = text
        self.avals = tuple([a.strong() for a in avals])
        self.source = source

    def message(self, payload: Sequence[Any]) -> str:
        where = f", at {self.source}" if self.source is not None else ""
        backward = ", in the backward pass" if self.source is not None and self.source.backward else ""
        return self.text(*payload) + where + backward


class Error:
    """What ``checkify`` returns beside the result: whether a check has failed, and the first that did.

    A pytree of arrays: it goes through `jit`, `vmap` (each example has its own) and loops like any value.
    """

    __slots__ = ("code", "payload", "sites")

    def __init__(self, code: Any, payload: Sequence[Any], sites: tuple[Site, ...]) -> None:
        self.code = code
        self.payload = tuple(payload)
        self.sites = sites

    def get(self) -> str | None:
        """The message of the check that failed first, None if none did; of a batch one line for each example."""
        code = concrete(self.code, "Error.get")
        if not code.ndim:
            return self._message(()) if code else None
        lines = [
            f"at mapped index {', '.join(map(str, index))}: {self._message(index)}"
            for index in np.ndindex(code.shape)
            if code[index]
        ]
        return "\n".join(lines) or None

    def _message(self, index: tuple[int, ...]) -> str:
        number = int(np.asarray(self.code)[index]) - 1
        start = sum([len(s.avals) for s in self.sites[:number]])
        site = self.sites[number]
        return site.message([np.asarray(x)[index][()] for x in self.payload[start : start + len(site.avals)]])

    def throw(self) -> None:
        """Raise the error, if there is one.

        Raises:
            CheckError: with the message of `get`.
        """
        message = self.get()
        if message is not None:
            raise CheckError(message)

    def __repr__(self) -> str:
        try:
            return f"Error({self.get()})"
        except TypeError:
            return f"Error({self.code!r})"


tree.register_pytree_node(Error, lambda e: ((e.code, e.payload), e.sites), lambda sites, xs: Error(xs[0], xs[1], sites))


def concrete(code: Any, what: str) -> np.ndarray:
    if hasattr(code, "aval"):
        raise TypeError(
            f"{what}: the error is traced and has no value yet. Return it from the function and look at it outside; "
            "inside, check_error(error) hands it on."
        )
    return np.asarray(code)


# the primitive --------------------------------------------------------------------------------------------------------


def _impl(code: Any, *payload: Any, sites: tuple[Site, ...]) -> Any:
    if np.any(code):
        Error(code, payload, sites).throw()
    return ()


def _batch(size: int, args: Sequence[Any], dims: Sequence[int | None], *, sites: tuple[Site, ...]) -> Any:
    check_p.bind(*[move_batch(size, x, d, 0) for x, d in zip(args, dims, strict=True)], sites=sites)
    return (), ()


check_p = Primitive(
    "check",
    impl=_impl,
    shape=lambda *avals, sites: (),
    jvp=ZeroDerivative("it has no results"),
    transpose=lambda cts, *operands, **params: [None] * len(operands),
    batch=_batch,
    lower=Host("it raises an exception if it fails: checkify makes it a value", pinned=True),
    multiple_results=True,
    has_effect=True,
)


def codes_of(failed: Any, number: int = 1) -> Any:
    """``number`` where a boolean scalar holds, else 0."""
    return select(failed, CODE.type(number), CODE.type(0))


def check(pred: Any, msg: str, *fmt_args: Any, debug: bool = False, **fmt_kwargs: Any) -> None:
    """Say that ``pred`` must hold here.

    Under `checkify` a failed check becomes an `Error` beside the result; without it an exception, also from compiled
    code.

    Args:
        pred: a boolean scalar.
        msg: the message, a format string for the values ``fmt_args`` and ``fmt_kwargs``.
        debug: accepted for JAX's sake.

    Raises:
        CheckError: it does not hold, and nothing around is checkified.

    >>> from funcgrad import jit
    >>> @jit
    ... def root(x):
    ...     check(x >= 0, "no root of {x}", x=x)
    ...     return np.sqrt(x)
    >>> root(4.0)
    np.float64(2.0)
    >>> root(-1.0)
    Traceback (most recent call last):
        ...
    funcgrad.errors.CheckError: no root of -1.0 (`check` failed), at ...
    """
    check_format(msg, len(fmt_args), fmt_kwargs, "check")
    try:
        aval = aval_of(pred)
    except TypeError as error:
        raise TypeError(f"check: the predicate: {error}") from None
    if aval.shape != () or aval.dtype.kind != "b":
        raise TypeError(
            f"check: the predicate must be a boolean scalar, found {aval}. Reduce it with .all() or .any()."
        )
    leaves, fmt_tree = tree.flatten((fmt_args, fmt_kwargs))
    arrays, fixed = [], {}
    for k, x in enumerate(leaves):
        try:
            aval_of(x)
            arrays.append(x)
        except TypeError:
            fixed[k] = x

    def text(*values: Any) -> str:
        rest = iter(values)
        args, kwargs = fmt_tree.unflatten([fixed[k] if k in fixed else next(rest) for k in range(len(leaves))])
        return msg.format(*args, **kwargs) + " (`check` failed)"

    site = Site("user", text, [aval_of(x) for x in arrays], user_source())
    payload = [convert_element_type(x, aval_of(x).dtype) for x in arrays]
    check_p.bind(select(pred, CODE.type(0), CODE.type(1)), *payload, sites=(site,))


def check_error(error: Error) -> None:
    """Raise an error that ``checkify`` returned; in a function that is checkified itself, hand it on.

    >>> from funcgrad import checkify
    >>> def f(x):
    ...     checkify.check(x > 0, "not positive")
    ...     return x
    >>> error, _ = checkify.checkify(f)(1.0)
    >>> check_error(error)
    """
    if not isinstance(error, Error):
        raise TypeError(f"check_error: expected the Error that checkify returns, found {type(error).__name__}")
    check_p.bind(error.code, *error.payload, sites=error.sites)
