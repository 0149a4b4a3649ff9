"""What a run found, as data: rows of values by library, written to JSON and read back."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .warm import Timing

__all__ = ["IMPORT", "WARM", "Results", "Row", "geometric_mean", "machine"]

FORMAT = 2
WARM, IMPORT = "warm call", "import"


@dataclass(frozen=True)
class Row:
    """One workload under one measure: a value per library, in seconds, or in bytes for memory."""

    measure: str
    name: str
    group: str
    values: dict[str, float]

    def ratio(self, peer: str) -> float | None:
        """How many times funcgrad is ahead of ``peer``; below 1 it is behind."""
        ours, theirs = self.values.get("funcgrad"), self.values.get(peer)
        if ours is None or theirs is None or not (ours > 0 and theirs > 0):
            return None
        return theirs / ours

    def best_other(self) -> str | None:
        """The best of the other libraries."""
        others = {k: v for k, v in self.values.items() if k != "funcgrad" and not math.isnan(v)}
        return min(others, key=others.__getitem__) if others else None


@dataclass
class Results:
    """Everything measured. ``warm`` is by workload and library, ``fresh`` by workload, measure and library: what
    happens in fresh processes and beside a busy one."""

    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    warm: dict[str, dict[str, Timing]] = field(default_factory=dict)
    fresh: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    imports: dict[str, float] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """All of it, row by row: warm calls, then what happens in fresh processes, measure by measure."""
        for name, timings in self.warm.items():
            yield Row(WARM, name, self.groups[name], {p: t.seconds for p, t in timings.items()})
        measures = dict.fromkeys(m for found in self.fresh.values() for m in found)
        for measure in measures:
            for name, found in self.fresh.items():
                if measure in found:
                    yield Row(measure, name, self.groups[name], found[measure])
        if self.imports:
            yield Row(IMPORT, IMPORT, IMPORT, self.imports)

    def problems(self) -> list[str]:
        """What failed and what was wrong, one line each."""
        return [
            f"{name}: {peer}: {note}"
            for name, notes in self.notes.items()
            for peer, note in notes.items()
            if note.startswith(("failed", "WRONG"))
        ]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, **asdict(self)}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """What `write` has written; a file of another format is refused."""
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.pop("format", None) if isinstance(content, dict) else None
        if found != FORMAT:
            raise ValueError(f"{path}: expected results of format {FORMAT}, found {found}; measure again")
        content["warm"] = {w: {p: Timing(**t) for p, t in row.items()} for w, row in content["warm"].items()}
        return cls(**content)


def geometric_mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
