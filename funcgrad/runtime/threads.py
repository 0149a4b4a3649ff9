"""How many threads work on one loop, and the pool that runs.

The workers are stopped before a fork (of which a child keeps only the calling thread) and at exit, and started again
by the next parallel loop.

    FUNCGRAD_NUM_THREADS   how many threads work on one loop, the caller included (default: the CPUs we may use, by
                           affinity and by the quota of our control group)
"""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path

import numpy as np

from funcgrad.runtime.pool import Pool, posix_threads

__all__ = [
    "available_cpus",
    "cgroup_cpus",
    "get_num_threads",
    "pool_cell",
    "set_num_threads",
    "start",
    "stop",
]

MAX_THREADS = 512


# -- how many


_CGROUPS = Path("/sys/fs/cgroup")


def cgroup_cpus(root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> float:
    """The CPU quota of our control group and of those around it, in CPUs; infinite where there is none.

    Version 2 has one tree below ``root``, version 1 one for each set of controllers. In a container the path that
    ``membership`` names is often that of the host, and what we see of the tree begins further down: so the root, too,
    is asked, and files that are not there set no limit.
    """
    limits = [float("inf")]
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            limits += [_quota_v2(folder) for folder in _upwards(root, path)]
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                limits += [_quota_v1(folder) for folder in _upwards(root / name, path)]
    limits += [_quota_v2(root), _quota_v1(root / "cpu")]
    return min(limits)


def _upwards(root: Path, path: str) -> list[Path]:
    """The folder of a control group, and those around it up to ``root``."""
    parts = [p for p in path.split("/") if p not in ("", "..")]
    return [root.joinpath(*parts[:n]) for n in range(len(parts), -1, -1)]


def _quota_v2(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")


def _quota_v1(folder: Path) -> float:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else float("inf")
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")


def available_cpus() -> int:
    """The CPUs this process may use: its affinity, and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, int(min(cpus, cgroup_cpus())))


def _initial() -> int:
    text = os.environ.get("FUNCGRAD_NUM_THREADS", "").strip()
    if not text:
        return min(available_cpus(), MAX_THREADS)
    if not text.isdecimal() or not 1 <= int(text) <= MAX_THREADS:
        raise ValueError(f"FUNCGRAD_NUM_THREADS must be an integer from 1 to {MAX_THREADS}, not {text!r}")
    return int(text)


def get_num_threads() -> int:
    """How many threads work on one parallel loop, the calling one included.

    By default the CPUs that this process may use; the environment's `FUNCGRAD_NUM_THREADS` says otherwise. Raises
    ValueError if that is not an integer from 1 to 512.
    """
    global _num_threads
    if _num_threads == 0:
        _num_threads = _initial()
    return _num_threads


def set_num_threads(n: int) -> None:
    """Let `n` threads work on one parallel loop, the calling one included; 1 starts none.

    Results do not depend on it, bit for bit. Raises ValueError unless `n` is an integer from 1 to 512.

    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    global _num_threads
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= MAX_THREADS:
        raise ValueError(f"set_num_threads: n must be an integer from 1 to {MAX_THREADS}, not {n!r}")
    with _lock:
        _num_threads = int(n)
        if pool_cell[0] and _pool is not None:
            if n - 1 > _pool.workers:
                _stop()
            else:
                _pool.limit = n


# -- the pool


_lock = threading.RLock()
_num_threads = 0
_pool: Pool | None = None
pool_cell = np.zeros(2, np.int64)
"""Address of the running pool and of its `parallel_for`; zeros while no worker runs. The executor reads
it."""


def start() -> None:
    """Make sure that the workers run (a no-op if they do, or if one thread is all that was asked for)."""
    if pool_cell[0]:
        return
    with _lock:
        if not pool_cell[0] and get_num_threads() > 1:
            _start(get_num_threads() - 1)


def stop() -> None:
    """End the workers and wait for that; the next parallel loop starts new ones."""
    with _lock:
        _stop()


def running_pool() -> Pool | None:
    """The pool whose workers run."""
    return _pool if pool_cell[0] else None


def _start(count: int) -> None:
    global _pool
    libc = posix_threads()
    if libc is None:
        return
    _pool = Pool(libc, count)
    try:
        _pool.start(count)
    finally:  # an interrupt must not leave workers that nobody can stop
        pool_cell[1] = _pool.parallel_for
        pool_cell[0] = _pool.address


def _stop() -> None:
    if _pool is not None and pool_cell[0]:
        pool_cell[0] = 0
        _pool.stop()


def _after_fork_in_child() -> None:
    global _pool
    pool_cell[:] = 0
    _pool = None
    _lock.release()


def _before_fork() -> None:
    _lock.acquire()
    _stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_after_fork_in_child)
atexit.register(stop)
