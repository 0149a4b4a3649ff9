"""What happens in a fresh process: import, first call, another shape, memory; disk caches empty and filled.

``python -m benchmarks.cold PEER WORKLOAD`` measures once and prints JSON. `measure` starts such processes in pairs: the
first with an empty cache directory, the second with what the first has left there. JAX's persistent cache, off by
default, is switched on, so that all have one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .peers import load
from .peers.base import Unsupported
from .workload import Workload

__all__ = ["MEASURES", "measure", "measure_imports"]

ROOT = Path(__file__).resolve().parent.parent

COLD, SHAPE, SECOND = "cold compile", "second shape", "second process"
MEMORY, PROCESS_MEMORY = "peak memory", "peak memory of the process"
MEASURES = (COLD, SHAPE, SECOND, MEMORY, PROCESS_MEMORY)

# Those that compile; the others have no first call that differs from the second.
COMPILERS = ("funcgrad", "jax", "torch", "pytensor")
IMPORTS = {
    "funcgrad": "funcgrad",
    "jax": "jax.numpy",
    "torch": "torch",
    "pytensor": "pytensor.tensor",
    "autograd": "autograd.numpy",
    "numpy": "numpy",
    "numba": "numba",
}


def _status(field: str) -> float:
    """Bytes by the name that Linux gives them in ``/proc/self/status``."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024.0 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field + ":"))


def peak_bytes() -> float:
    """Peak resident memory of this process. (On Linux, getrusage's would include the parent's before the fork.)"""
    try:
        return _status("VmHWM")
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)


def held_bytes() -> float:
    """What this process holds now. The peak starts anew from here, where the system can do that; where it cannot, the
    peak so far is given, which is what a process shows that stops here. Memory that is free but kept by the C library
    goes back to the system first: it would hide what is allocated next."""
    gc.collect()
    with contextlib.suppress(OSError, TypeError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except (OSError, StopIteration):
        return peak_bytes()


def one_process(name: str, workload_name: str, tiny: bool = False) -> dict[str, float]:
    """In this process: seconds of the first call, seconds of the first call of another shape, bytes of memory.

    Memory is given twice: the peak over the first call less what was held before it (the import and the arguments),
    and the peak of the whole process up to then. A library that loads its compiler at import shows it in the second
    figure only, one that loads it at the first call in both.
    """
    from .workloads import BY_NAME

    workload = BY_NAME[workload_name]
    peer = load(name)
    wait = peer.wait or (lambda x: x)
    args = peer.arguments(workload.arguments_at(workload.tiny if tiny else workload.size))
    peak_before = peak_bytes()  # the next line lets the system forget it
    baseline = held_bytes()
    start = time.perf_counter()
    function = workload.function(peer, tiny)
    wait(function(*args))
    seconds, peak = time.perf_counter() - start, peak_bytes()
    times = {"first call": seconds, "peak memory": peak - baseline, "process memory": max(peak, peak_before)}
    if workload.second is not None:
        args = peer.arguments(workload.arguments_at(workload.second))
        start = time.perf_counter()
        wait(function(*args))
        times["another shape"] = time.perf_counter() - start
    return times


def _environment(cache: str) -> dict[str, str]:
    env = {
        **os.environ,
        "FUNCGRAD_CACHE_DIR": cache,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TORCHINDUCTOR_CACHE_DIR": cache,
        "NUMBA_CACHE_DIR": cache,
        "PYTENSOR_FLAGS": ",".join(filter(None, [os.environ.get("PYTENSOR_FLAGS"), f"base_compiledir={cache}"])),
    }
    env.pop("FUNCGRAD_CACHE", None)
    return env


def start(name: str, workload: Workload, cache: str, seconds: float, tiny: bool = False) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.cold", name, workload.name, *["--tiny"] * tiny]
    done = subprocess.run(command, cwd=ROOT, env=_environment(cache), capture_output=True, text=True, timeout=seconds)
    if done.returncode == 3:
        raise Unsupported(done.stderr.strip().rsplit("\n", 1)[-1])
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rsplit("\n", 1)[-1][:400] or f"exit code {done.returncode}")
    result: dict[str, float] = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    return result


def measure(
    workload: Workload, names: Iterable[str], repeats: int, patience: float, tiny: bool = False
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """``{measure: {peer: value}}``, medians over pairs of processes that the peers start in turns; and who failed."""
    first: dict[str, list[dict[str, float]]] = {}
    second: dict[str, list[dict[str, float]]] = {}
    notes: dict[str, str] = {}
    slow: set[str] = set()
    for _ in range(repeats):
        for name in [n for n in names if n in COMPILERS and n not in notes and n not in slow]:
            began = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="funcgrad-bench-", ignore_cleanup_errors=True) as cache:
                try:
                    first.setdefault(name, []).append(start(name, workload, cache, patience, tiny))
                    second.setdefault(name, []).append(start(name, workload, cache, patience, tiny))
                except Unsupported as reason:
                    notes[name] = str(reason)
                except subprocess.TimeoutExpired:
                    kind = "failed" if name == "funcgrad" else "left out"
                    notes[name] = f"{kind}: not done after {patience:.0f} s"
                except RuntimeError as error:
                    notes[name] = f"failed: {error}"
            if time.perf_counter() - began > 15:
                slow.add(name)  # once is enough: seconds do not need a median to be told from each other

    def medians(runs: dict[str, list[dict[str, float]]], key: str) -> dict[str, float]:
        return {
            name: statistics.median(r[key] for r in found)
            for name, found in runs.items()
            if name not in notes and all(key in r for r in found)
        }

    rows = {
        COLD: medians(first, "first call"),
        SHAPE: medians(first, "another shape"),
        SECOND: medians(second, "first call"),
        MEMORY: medians(first, "peak memory"),
        PROCESS_MEMORY: medians(first, "process memory"),
    }
    return {title: values for title, values in rows.items() if values}, notes


_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def _import_seconds(name: str, bytecode: str) -> float:
    """How long the import takes in a process that has imported nothing, NumPy included.

    ``bytecode`` is a folder for compiled modules, so that a checkout has them as an installed library does.
    """
    env = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-W", "ignore", "-c", _IMPORT.format(IMPORTS[name])]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=True)
    return float(done.stdout.strip().rsplit("\n", 1)[-1])


def measure_imports(names: list[str], repeats: int) -> dict[str, float]:
    """Seconds, the median of ``repeats`` processes after one that fills the file caches."""
    with tempfile.TemporaryDirectory(prefix="funcgrad-bench-") as bytecode:
        turns = [{name: _import_seconds(name, bytecode) for name in names} for _ in range(1 + repeats)]
    return {name: statistics.median(turn[name] for turn in turns[1:]) for name in names}


def main(args: list[str]) -> int:
    tiny = "--tiny" in args
    name, workload = [a for a in args if a != "--tiny"]
    try:
        result: Any = one_process(name, workload, tiny)
    except Unsupported as reason:
        print(reason, file=sys.stderr)
        return 3
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
