"""What happens in a fresh process: import, first call, another shape, another function; with and without a disk cache.

``python -m benchmarks.cold PEER`` measures once and prints JSON; `measure_cold` starts such processes, the first of
each pair with an empty cache directory, the second with the one that the first has filled. JAX's persistent cache is
switched on for everything, so that both sides have one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import workloads
from .peers import PEERS

__all__ = ["TITLES", "measure_cold"]

ROOT = Path(__file__).resolve().parent.parent

IMPORT = "import"
COMPILERS = ("funcgrad", "jax")

# rows of the report: title, which process of the pair, what of it (seconds, and bytes of memory)
ROWS = (
    ("cold compile: first call of the MLP step", "first", "first call"),
    ("cold compile: XOR step, warmed-up process", "first", "another function"),
    ("second shape: MLP step, other batch size", "first", "another shape"),
    ("second process: first call of the MLP step", "second", "first call"),
    ("second process: XOR step", "second", "another function"),
    ("peak memory of the first process", "first", "peak memory"),
)

TITLES = (IMPORT, *[title for title, _, _ in ROWS])


def _seconds(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _peak_bytes() -> float:
    """Peak resident memory of this process, where the system tells. (On Linux ``getrusage`` would include the parent's
    from before the fork.)"""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024.0 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return float("nan")


_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
_MODULES = {"funcgrad": "funcgrad", "numpy": "numpy", "autograd": "autograd.numpy", "jax": "jax.numpy"}


def _import_seconds(name: str, bytecode: str) -> float:
    """How long the import takes in a process that has imported nothing, NumPy included.

    ``bytecode`` is a folder for compiled modules, so that a checkout has them as an installed library does.
    """
    env = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", _IMPORT.format(_MODULES[name])]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=True)
    return float(done.stdout)


def _measure_imports(names: list[str], repeats: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="funcgrad-bench-") as bytecode:
        turns = [{name: _import_seconds(name, bytecode) for name in names} for _ in range(1 + repeats)]
    return {name: statistics.median(turn[name] for turn in turns[1:]) for name in names}


def _one_process(name: str) -> dict[str, float]:
    rng = np.random.default_rng(0)
    peer = PEERS[name]()
    times = {}
    wait = peer.wait or (lambda x: x)
    step = workloads.mlp_step(peer)
    args = peer.device(workloads.mlp_arguments(rng))
    times["first call"] = _seconds(lambda: wait(step(*args)))
    shapes = []
    for batch in (100, 37, 64, 96, 200):
        other = peer.device(workloads.mlp_arguments(rng, batch))
        shapes.append(_seconds(lambda other=other: wait(step(*other))))
    times["another shape"] = statistics.median(shapes)
    xor = workloads.xor_step(peer)
    small = peer.device(workloads.xor_arguments(rng))
    times["another function"] = _seconds(lambda: wait(xor(*small)))
    times["peak memory"] = _peak_bytes()
    return times


def _start(name: str, cache: str) -> dict[str, float]:
    env = {
        **os.environ,
        "FUNCGRAD_CACHE_DIR": cache,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    env.pop("FUNCGRAD_CACHE", None)
    command = [sys.executable, "-m", "benchmarks.cold", name]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rsplit("\n", 1)[-1] or f"exit code {done.returncode}")
    result: dict[str, float] = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    return result


def measure_cold(names: list[str], repeats: int) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """``{row: {peer: value}}``, medians over pairs of processes that the peers start in turns; and who failed, why."""
    samples: dict[tuple[str, str], list[dict[str, float]]] = {}
    failed: dict[str, str] = {}
    for _ in range(repeats):
        for name in [n for n in names if n in COMPILERS]:
            with tempfile.TemporaryDirectory(prefix="funcgrad-bench-") as cache:
                try:
                    for which in ("first", "second"):
                        samples.setdefault((name, which), []).append(_start(name, cache))
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    failed[name] = str(error)
    rows = {IMPORT: _measure_imports(names, repeats)}
    for title, which, field in ROWS:
        rows[title] = {
            name: statistics.median(s[field] for s in samples[name, which])
            for name in names
            if name not in failed and (name, which) in samples
        }
    return rows, failed


if __name__ == "__main__":
    print(json.dumps(_one_process(sys.argv[1])))
