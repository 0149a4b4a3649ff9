"""The benchmark as a program: it runs with few peers, checks results before timing, and says who is ahead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.measure import Settings, compare, measure
from benchmarks.peers import PEERS, Peer
from benchmarks.report import format_value, verdict
from benchmarks.workloads import WORKLOADS, Workload

QUICK = Settings(rounds=3, block=0.001)


def run(*args: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-m", "benchmarks", *args]
    return subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, timeout=240)


def test_program_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    done = run("--quick", "--only", "10 elements", "--peers", "funcgrad,numpy", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "dispatch: jit call, 10 elements" in done.stdout and "against NumPy" in done.stdout
    (file,) = tmp_path.glob("*.json")
    row = json.loads(file.read_text())["seconds_per_call"]["dispatch: jit call, 10 elements"]
    assert row.keys() == {"funcgrad", "numpy"} and row["funcgrad"]["seconds"] > 0


@pytest.mark.parametrize(
    ("args", "words"),
    [(("--only", "no such thing"), "see --list"), (("--peers", "numpy,matlab"), "matlab is not one of")],
)
def test_program_refuses(args: tuple[str, ...], words: str) -> None:
    done = run(*args)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("workload", [w for w in WORKLOADS if not w.slow], ids=lambda w: w.name)
def test_results_agree(workload: Workload) -> None:
    """funcgrad against NumPy where NumPy can do it; the derivatives have autograd and JAX in the benchmark itself."""
    timings, notes = measure(workload, {name: PEERS[name]() for name in ("funcgrad", "numpy")}, QUICK)
    assert "funcgrad" in timings, notes


def broken(f: Any) -> Any:
    raise RuntimeError("boom")


def test_a_peer_that_fails_or_is_wrong_is_left_out() -> None:
    good = PEERS["numpy"]()
    failing = Peer("jax", "0", np, broken, broken, broken, lambda x: x, None)
    wrong = Peer("funcgrad", "0", np, lambda f: lambda x: f(x) + 1e-3, broken, broken, lambda x: x, None)
    workload = Workload("w", lambda rng: (rng.normal(size=3),), lambda p: p.jit(lambda x: 2 * x))
    timings, notes = measure(workload, {"funcgrad": wrong, "numpy": good, "jax": failing}, QUICK)
    assert timings.keys() == {"numpy"}
    assert notes["funcgrad"].startswith("WRONG") and "boom" in notes["jax"]


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        (1.0, 1.0, ""),
        ([np.ones(2), {"a": 1.0}], (np.ones(2), {"a": 1.0}), ""),
        (np.ones(2), np.ones(2) + 1e-3, "differs by"),
        (np.ones(2), np.ones(2, np.float32), "float64[2], expected float32[2]"),
        (np.ones(2), np.ones(3), "expected float64[3]"),
        ((1.0, 2.0), 1.0, "2 results instead of 1"),
        (np.nan, np.nan, "not finite"),
        (np.ones(0), np.ones(0), ""),
    ],
)
def test_compare(found: Any, expected: Any, words: str) -> None:
    difference = compare(found, expected, 1e-6)
    assert words in difference and bool(words) == bool(difference)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"funcgrad": 1.0, "jax": 2.0, "numpy": 5.0}, "2.0x ahead of JAX"),
        ({"funcgrad": 3.0, "jax": 2.0, "numpy": 1.0}, "3.0x BEHIND NumPy"),
        ({"funcgrad": 1.0, "jax": 1.01}, "level with JAX"),
        ({"funcgrad": 1.0}, ""),
        ({"jax": 1.0}, ""),
    ],
)
def test_verdict(values: dict[str, float], text: str) -> None:
    assert verdict(values) == text


FORMATS = [(1.234e-6, "1.23 µs"), (0.0456, "45.6 ms"), (123.4, "123 s"), (2e-10, "0.20 ns")]


@pytest.mark.parametrize(("value", "text"), FORMATS)
def test_format_value(value: float, text: str) -> None:
    assert format_value(value) == text
