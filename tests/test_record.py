"""``record`` against what it stands for: ``dataclasses.dataclass`` of the same class."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

import funcgrad
from funcgrad.record import field, record, replace


def declare(decorate: Any) -> Any:
    """One class under a decorator."""

    @decorate
    class Row:
        """A row."""

        a: int
        b: Any = 2
        c: list[int] = field(default_factory=list)
        hidden: int = field(default=4, repr=False, compare=False)

        @property
        def total(self) -> Any:
            return self.a + self.b

    return Row


OPTIONS: dict[str, dict[str, bool]] = {
    "frozen": {"frozen": True},
    "frozen, slots": {"frozen": True, "slots": True},
    "frozen, by identity": {"frozen": True, "eq": False},
    "frozen, by identity, slots": {"frozen": True, "eq": False, "slots": True},
    "plain": {},
    "by identity": {"eq": False},
    "slots": {"slots": True},
}

ROWS: dict[str, Any] = {
    "repr": lambda R: repr(R(1)).split(".")[-1],
    "given by position": lambda R: repr(R(1, 3, [5], 6)),
    "given by name": lambda R: repr(R(c=[1], a=1)),
    "a default of its own": lambda R: R(1).c is R(1).c,
    "equal": lambda R: R(1, 2, [3]) == R(1, 2, [3]),
    "not equal": lambda R: R(1, 2, [3]) == R(1, 2, [4]),
    "what is not compared": lambda R: R(1, hidden=1) == R(1, hidden=2),
    "other classes": lambda R: R(1) == (1, 2, []),
    "property": lambda R: R(1).total,
    "hash": lambda R: len({R(1, 2, (3,)), R(1, 2, (3,), 5), R(2)}),  # type: ignore[arg-type]
    "too few": lambda R: R(),
    "too many": lambda R: R(1, 2, [], 4, 5),
    "set": lambda R: setattr(R(1), "a", 2),
    "set another": lambda R: setattr(R(1), "other", 2),
    "delete": lambda R: delattr(R(1), "a"),
    "__dict__": lambda R: hasattr(R(1), "__dict__"),
    "document": lambda R: R.__doc__,
    "patterns": lambda R: R.__match_args__,
    "copied": lambda R: vars_of(copy.copy(R(1, 5, [6], 7))),
    "copied deeply": lambda R: vars_of(copy.deepcopy(R(1, 5, [6], 7))),
}


def vars_of(row: Any) -> list[Any]:
    return [row.a, row.b, row.c, row.hidden]


def outcome(cls: Any, row: Any) -> Any:
    try:
        return row(cls)
    except (TypeError, AttributeError) as error:  # FrozenInstanceError is an AttributeError
        return type(error)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("row", ROWS)
def test_like_a_dataclass(row: str, options: str) -> None:
    ours, theirs = declare(record(**OPTIONS[options])), declare(dataclasses.dataclass(**OPTIONS[options]))
    if (
        row == "set another" and "frozen" in options and "slots" in options
    ):  # a dataclass asks super() of another class there
        assert outcome(ours, ROWS[row]) is dataclasses.FrozenInstanceError
        return
    assert outcome(ours, ROWS[row]) == outcome(theirs, ROWS[row])


def test_replace() -> None:
    row = declare(record(frozen=True, slots=True))(1, 2, [3], 4)
    assert vars_of(replace(row, b=5)) == [1, 5, [3], 4]
    with pytest.raises(TypeError, match="other"):
        replace(row, other=1)


def test_pickle() -> None:
    for value in (funcgrad.ShapeDtypeStruct((2, 3), float), funcgrad.cache.info()):
        assert pickle.loads(pickle.dumps(value)) == value


def test_after_initialisation() -> None:
    @record()
    class Doubled:
        a: int

        def __post_init__(self) -> None:
            self.a *= 2

    assert Doubled(3).a == 6
