"""Settings shared by all tests: CPU only, one kernel cache for all workers, seeded random numbers.

The environment is set while this file is imported, that is, before any test imports the package.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("FUNCGRAD_CACHE_DIR", str(ROOT / ".cache" / "kernels"))
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Test processes share the cores already; BLAS threads on top would only wait for each other.
for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

# "ci" draws the same examples in every run, so that a red run is red again; "explore" draws new ones.
_quiet = dict(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("ci", derandomize=True, max_examples=50, database=None, print_blob=True, **_quiet)
hypothesis.settings.register_profile("explore", max_examples=500, print_blob=True, **_quiet)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A random generator seeded by the test's name: the same numbers in any order and on any worker."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(scope="session")
def jax() -> Any:
    """JAX, as an oracle; in double precision by the environment set above."""
    return pytest.importorskip("jax", reason="JAX is an oracle, installed with the bench extra only")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the repository."""
    return ROOT
