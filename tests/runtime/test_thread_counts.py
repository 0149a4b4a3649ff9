"""How many threads: the default, what is asked for, and that results do not depend on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import funcgrad as fg
from funcgrad.runtime import threads
from funcgrad.runtime.threads import available_cpus, cgroup_cpus

INFINITE = float("inf")

V2 = "0::/a/b\n"
V1 = "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n"
QUOTAS = {
    # files below the root, /proc/self/cgroup, CPUs
    "v2, own group": ({"a/b/cpu.max": "150000 100000"}, V2, 1.5),
    "v2, unlimited": ({"a/b/cpu.max": "max 100000", "a/cpu.max": "max 100000"}, V2, INFINITE),
    "v2, the group around": ({"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, V2, 2.0),
    "v2, the smaller one": ({"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, V2, 2.0),
    "v2, in a container": ({"cpu.max": "300000 100000"}, "0::/\n", 3.0),
    "v2, path of the host": ({"cpu.max": "300000 100000"}, "0::/../../kubepods/pod\n", 3.0),
    "v1, own group": (
        {"cpu,cpuacct/docker/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000"},
        V1,
        0.5,
    ),
    "v1, in a container": ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, V1, 2.5),
    "v1, unlimited": ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, V1, INFINITE),
    "nothing there": ({}, "", INFINITE),
    "not numbers": ({"cpu.max": "many few", "cpu/cpu.cfs_quota_us": "x"}, V2 + V1, INFINITE),
    "period of nothing": ({"cpu.max": "1 0"}, V2, INFINITE),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_quota_of_the_control_group(name: str, tmp_path: Path) -> None:
    files, membership, cpus = QUOTAS[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")
    (tmp_path / "membership").write_text(membership)
    assert cgroup_cpus(tmp_path, tmp_path / "membership") == cpus


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cgroup_cpus(tmp_path / "none", tmp_path / "none either") == INFINITE


def test_quota_bounds_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cgroup_cpus", lambda: 0.3)
    assert available_cpus() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "cgroup_cpus", lambda: 5.9)
    assert available_cpus() == 5
    monkeypatch.setattr(threads, "cgroup_cpus", lambda: INFINITE)
    assert available_cpus() == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity to set")
def test_affinity_bounds_the_default() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "import funcgrad as fg; print(fg.get_num_threads())"
    )
    env = {k: v for k, v in os.environ.items() if k != "FUNCGRAD_NUM_THREADS"}
    env["PYTHONPATH"] = str(Path(fg.__file__).parent.parent)
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "1", result.stderr


# -- results

N = 120_000


def row(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def attention(q, k, v):
    s = q @ k.T / np.sqrt(q.shape[1])
    e = np.exp(s - np.max(s, axis=-1, keepdims=True))
    return np.sum(np.tanh((e / np.sum(e, axis=-1, keepdims=True)) @ v))


PROGRAMS = {
    "elementwise": (lambda x: np.tanh(x) * np.exp(-x), (row(N),)),
    "sum and mean": (lambda x: (np.sum(x), np.mean(x * x), np.max(np.sin(x))), (row(N),)),
    "sum over rows": (lambda x: np.sum(np.exp(x), axis=0), (row(700, 300),)),
    "sum over columns": (lambda x: np.sum(np.exp(x), axis=1), (row(700, 300),)),
    "float32 sum": (lambda x: np.sum(x * x), (row(N).astype(np.float32),)),
    "product": (lambda x: np.prod(1 + x * 1e-4), (row(N),)),
    "variance": (lambda x: np.var(x, axis=1), (row(500, 400),)),
    "argmax": (lambda x: np.argmax(x, axis=1), (row(500, 400),)),
    "softmax": (
        lambda x: (e := np.exp(x - np.max(x, -1, keepdims=True))) / np.sum(e, -1, keepdims=True),
        (row(500, 400),),
    ),
    "cumsum": (lambda x: np.cumsum(np.sin(x)), (row(N),)),
    "cumsum of rows": (lambda x: np.cumsum(x, axis=1), (row(500, 400),)),
    "gemm": (lambda x: x @ x.T, (row(500, 400),)),
    "gemv": (lambda x, y: x @ y, (row(1500, 400), row(400))),
    "einsum": (lambda x, y: np.einsum("bij,bjk->bik", x, y), (row(6, 150, 90), row(6, 90, 120))),
    "scatter-add": (lambda x, i: fg.at(x * 2)[i].add(np.sin(x)), (row(N), np.arange(N) * 7919 % 1000)),
    "gather": (lambda x, i: np.sum(np.exp(x[i])), (row(N), np.arange(N) * 7919 % N)),
    "gradient of attention": (fg.grad(attention, argnums=(0, 1, 2)), (row(300, 40), row(300, 40), row(300, 40))),
    "sort": (
        lambda x: np.sort(np.where(x > 1, np.nan, np.where(x < -1, -0.0 * x, np.maximum(x, -0.0)))),
        (row(N * 2),),
    ),
    "pairwise": (lambda p: np.sum(1 / (1 + np.sum((p[:, None] - p[None]) ** 2, axis=-1))), (row(300, 3),)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_have_the_same_bits_for_any_number_of_threads(name: str) -> None:
    fun, args = PROGRAMS[name]
    f = fg.jit(fun)
    before = fg.get_num_threads()
    found = []
    try:
        for n in (1, 2, 3, 5, 8):
            fg.set_num_threads(n)
            for _ in range(3):
                found.append([np.asarray(x).tobytes() for x in fg.tree.leaves(f(*args))])
    finally:
        fg.set_num_threads(before)
    assert all(x == found[0] for x in found)


def test_programs_of_these_tests_use_threads() -> None:
    """The programs above would prove nothing if they were too small for more than one thread."""
    serial = []
    for name, (fun, args) in PROGRAMS.items():
        steps = fg.jit(fun).lower(*args).executable.program.steps
        if not any(0 < s.grain < s.extent for s in steps):
            serial.append(name)
    assert set(serial) <= {"cumsum"}  # one running sum is one thread's


def test_small_kernels_stay_on_the_calling_thread() -> None:
    for args in ((row(10),), (row(1000),), (row(30, 30),)):
        steps = fg.jit(lambda x: np.sum(np.tanh(x) * 2)).lower(*args).executable.program.steps
        assert all(s.grain == 0 for s in steps)
    code = (
        "import os, numpy as np, funcgrad as fg\n"
        "fg.set_num_threads(4)\n"
        "fg.jit(lambda x: np.sum(np.tanh(x)))(np.ones(100))\n"
        "print(bool(fg.runtime.threads.pool_cell[0]))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(fg.__file__).parent.parent)}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "False", result.stderr
