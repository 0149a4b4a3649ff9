"""What is printed and written: a table with who is ahead and by how much, and a JSON file with everything."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .measure import Timing

__all__ = ["format_value", "print_header", "print_row", "print_summary", "verdict", "write"]

COLUMNS = ("funcgrad", "numpy", "autograd", "jax")
TITLES = {"funcgrad": "funcgrad", "numpy": "NumPy", "autograd": "autograd", "jax": "JAX"}
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def format_value(value: float, memory: bool = False) -> str:
    """Three digits and a unit: ``1.23 ms``, ``45.6 µs``, ``210 MB``."""
    if math.isnan(value):
        return "-"
    if memory:
        return f"{value / 1e6:.0f} MB"
    size, unit = next((u for u in _UNITS if value >= u[0]), _UNITS[-1])
    number = value / size
    digits = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:.{digits}f} {unit}"


def verdict(values: Mapping[str, float]) -> str:
    """Where funcgrad stands against the best of the others."""
    others = {k: v for k, v in values.items() if k != "funcgrad" and not math.isnan(v)}
    if "funcgrad" not in values or not others:
        return ""
    best = min(others, key=others.__getitem__)
    ratio = others[best] / values["funcgrad"]
    if 0.95 <= ratio <= 1.05:
        return f"level with {TITLES[best]}"
    return f"{ratio:.1f}x ahead of {TITLES[best]}" if ratio > 1 else f"{1 / ratio:.1f}x BEHIND {TITLES[best]}"


def print_header(title: str) -> None:
    print(f"\n{title:<46}" + "".join(f"{TITLES[c]:>11}" for c in COLUMNS) + "   best of the others", flush=True)


def print_row(name: str, values: Mapping[str, float], notes: Mapping[str, str], memory: bool = False) -> None:
    cells = "".join(f"{format_value(values[c], memory) if c in values else '-':>11}" for c in COLUMNS)
    print(f"{name:<46}{cells}   {verdict(values)}", flush=True)
    for peer, reason in notes.items():
        if reason.startswith(("WRONG", "failed")):
            print(f"    {TITLES[peer]}: {' '.join(reason.split())[:300]}", flush=True)


def print_summary(rows: Mapping[str, Mapping[str, float]]) -> None:
    """The geometric mean of the ratios to each peer, over the rows that both have."""
    print()
    for peer in COLUMNS[1:]:
        ratios = [v[peer] / v["funcgrad"] for v in rows.values() if peer in v and "funcgrad" in v]
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            behind = sum(r < 0.95 for r in ratios)
            print(f"against {TITLES[peer]:<9} {mean:6.2f}x (geometric mean of {len(ratios)}), behind in {behind}")


def machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def write(
    folder: Path,
    versions: Mapping[str, str],
    warm: Mapping[str, Mapping[str, Timing]],
    cold: Mapping[str, Mapping[str, float]],
    notes: Mapping[str, Mapping[str, str]],
) -> Path:
    """Everything measured, as JSON; returns the path of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    content = {
        "machine": machine(),
        "versions": dict(versions),
        "seconds_per_call": {k: {p: asdict(t) for p, t in v.items()} for k, v in warm.items()},
        "fresh_process": cold,
        "left_out": notes,
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path
