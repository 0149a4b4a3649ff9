"""NumPy's mutable memory on immutable tracers: in-place writes, views, and what keeps them honest.

A write ``x[i] = v`` computes a new array and lets the tracer object become it, so that every alias of ``x`` sees the
write. A view shares its base's memory in NumPy; here it remembers its base. Writing to the base brings its live views
up to date, which is what NumPy's memory does by itself. Writing *through* a view is an error that says what to write,
with one exception: ``x[1:-1] += v``, which Python spells as read, add, write. There the addition on the view writes to
the base at once and leaves a ``PendingWrite`` that only the closing ``x[1:-1] = ...`` accepts.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NoReturn

from ..core.avals import register_aval
from ..core.trace import Tracer, user_source
from ..errors import ViewWriteError
from ..ops.elementwise import select

__all__ = ["PendingWrite", "attached", "clone", "is_view", "mark_view", "view_base", "write"]

Refresh = Callable[[Tracer], Tracer]


class _Sharing:
    """What a tracer shares: the base it is a view of, and the views of it that may still be alive."""

    __slots__ = ("base", "how", "index", "limit", "refresh", "views")

    def __init__(self, base: Tracer | None = None, how: str = "", refresh: Refresh | None = None, index: Any = None):
        self.base = base
        self.how = how
        self.refresh = refresh
        self.index = index
        self.views: list[weakref.ref[Tracer]] = []
        self.limit = 16

    def add(self, view: Tracer) -> None:
        if len(self.views) >= self.limit:  # forget the dead, seldom enough to cost constant time per view
            self.views = [r for r in self.views if r() is not None]
            self.limit = 16 + 2 * len(self.views)
        self.views.append(weakref.ref(view))

    def live(self) -> list[Tracer]:
        return [v for v in [r() for r in self.views] if v is not None]


def _slots(cls: type) -> list[str]:
    names: list[str] = []
    for c in cls.__mro__:
        slots = c.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return [n for n in names if n not in ("__weakref__", "__dict__", "_views")]


_SLOTS: dict[type, list[str]] = {}


def clone(x: Tracer) -> Tracer:
    """The same value as an object of its own, for what copies in NumPy: a later write to one leaves the other."""
    cls = type(x)
    names = _SLOTS.get(cls)
    if names is None:
        names = _SLOTS[cls] = _slots(cls)
    twin: Tracer = object.__new__(cls)
    for name in names:
        if hasattr(x, name):
            setattr(twin, name, getattr(x, name))
    twin._views = None
    return twin


def mark_view(view: Any, base: Any, how: str, refresh: Refresh | None = None, index: Any = None) -> Any:
    """Declare that ``view`` shares the memory of ``base`` in NumPy; ``refresh(base)`` computes it anew.

    ``refresh`` is None where NumPy itself decides from the strides whether to copy (reshape): nobody can then say
    what a write should do, so that one is refused while the view lives.
    """
    if view is base or not isinstance(view, Tracer) or not isinstance(base, Tracer):
        return view
    view._views = _Sharing(base, how, refresh, index)
    if base._views is None:
        base._views = _Sharing()
    base._views.add(view)
    return view


def view_base(x: Tracer) -> Tracer | None:
    return x._views.base if x._views is not None else None


def is_view(x: Tracer) -> bool:
    return view_base(x) is not None


def attached(new: Any, x: Tracer) -> Any:
    """``new`` as a tracer of the same trace as ``x``: a constant that overwrites ``x`` must stay traceable."""
    return new if isinstance(new, Tracer) else select(False, x, new)


def _refuse_foreign(x: Tracer, new: Any) -> None:
    if type(new) is not type(x) or new._trace is not x._trace:
        raise ViewWriteError(
            f"at {user_source()}: an in-place write inside a transformed function to a value of the function around "
            f"it, {x.aval} ({x.origin() or 'an outer transformation'}). A traced function must not change what it did "
            "not make. Write y = x.copy() inside and change y, or return the new value."
        )


def _refreshable(x: Tracer) -> list[Tracer]:
    """The live views below ``x``, bases before their views.

    Raises:
        ViewWriteError: if one of them cannot be brought up to date.
    """
    if x._views is None:
        return []
    found: list[Tracer] = []
    for view in x._views.live():
        if view._views.refresh is None:
            raise ViewWriteError(
                f"at {user_source()}: an in-place write to {x.aval} while {view._views.how} of it is alive. "
                "NumPy would change that too if the two share memory, which depends on strides that a tracer does "
                "not have. Write .copy() after it if it is to keep the old values, or take it after the write."
            )
        found.append(view)
        found += _refreshable(view)
    return found


def write(x: Tracer, new: Any) -> None:
    """Let ``x`` become ``new``, and its live views what they are in the new array.

    Raises:
        ViewWriteError: if ``x`` is a view, belongs to an outer transformation, or has a view of unknown memory.
    """
    base = view_base(x)
    if base is not None:
        while (outer := view_base(base)) is not None:
            base = outer
        raise ViewWriteError(
            f"at {user_source()}: an in-place write through {x._views.how} of a traced array {base.aval}. NumPy would "
            "change the array behind it; funcgrad does not follow views. Write to the array itself, "
            "x[1:][0] = v as x[1] = v, or to a copy, y = x[1:].copy()."
        )
    new = attached(new, x)
    _refuse_foreign(x, new)
    views = _refreshable(x)
    x.replace_with(new)
    for view in views:
        sharing = view._views
        view.replace_with(sharing.refresh(sharing.base))


class PendingWrite:
    """What ``y += v`` gives on a view ``y = x[i]``: already written to ``x``, to be closed by ``x[i] = ...``."""

    __slots__ = ("base", "index")

    def __init__(self, base: Tracer, index: Any) -> None:
        self.base = base
        self.index = index

    def closes(self, base: Tracer, index: Any) -> bool:
        return self.base is base and same_index(self.index, index)

    def refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ViewWriteError(
            f"at {user_source()}: the result of an in-place operation on a view (y = x[1:]; y += v) was used. The "
            "addition has been written to x, as in NumPy, but the name y is no longer an array. Write x[1:] += v and "
            "read x again, or y = y + v if x is to stay as it was."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # protocols that Python probes for
        self.refuse()

    __array_ufunc__ = refuse
    __array_function__ = refuse
    __array__ = refuse


_OPERATORS = [
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift",
    "divmod",
]  # fmt: skip
_PROTOCOLS = [
    "eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert", "bool", "float", "int", "complex", "index",
    "len", "iter", "getitem", "setitem", "contains", "round",
]  # fmt: skip
for _name in [*_PROTOCOLS, *[prefix + n for n in _OPERATORS for prefix in ("", "r", "i")]]:
    setattr(PendingWrite, f"__{_name}__", PendingWrite.refuse)
PendingWrite.__hash__ = object.__hash__  # type: ignore[method-assign]
register_aval(PendingWrite, PendingWrite.refuse)


def same_index(a: Any, b: Any) -> bool:
    """Whether two indices are the same without comparing arrays: traced and array parts by identity."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, slice):
        return same_index((a.start, a.stop, a.step), (b.start, b.stop, b.step))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same_index(x, y) for x, y in zip(a, b, strict=True))
    return isinstance(a, int) and bool(a == b)
