"""What is imported when it is asked for: there for users, and not there before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import funcgrad
import funcgrad.scipy


def run(root: Path, code: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_not_before(repo_root: Path) -> None:
    names = ["checkify", "explanation", "jet", "ode", "scipy.optimize", "sparse", "test_util"]
    code = f"import sys, funcgrad; print([n for n in {names} if 'funcgrad.' + n in sys.modules])"
    assert run(repo_root, code) == "[]"


@pytest.mark.parametrize("module", [funcgrad, funcgrad.scipy])
def test_all_names(module: object) -> None:
    names = module.__all__  # type: ignore[attr-defined]
    assert set(names) <= set(dir(module))
    for name in names:
        getattr(module, name)


def test_a_function_and_its_module(repo_root: Path) -> None:
    code = "from funcgrad.explanation import Explanation; import funcgrad as fg; print(callable(fg.explain))"
    assert run(repo_root, code) == "True"


def test_no_such_name() -> None:
    with pytest.raises(AttributeError, match="module 'funcgrad' has no attribute 'explian'"):
        funcgrad.explian  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        from funcgrad import explian  # type: ignore[attr-defined]  # noqa: F401
