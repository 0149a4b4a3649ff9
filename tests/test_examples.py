"""Every example runs by itself, as a user runs it: another process, no terminal, and says what it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

NEEDS_DEMO = pytest.mark.skipif(
    any(find_spec(m) is None for m in ("sklearn", "matplotlib", "tqdm")), reason="needs the demo extra"
)


def start(name: str, *args: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    command = [sys.executable, "-W", "error::RuntimeWarning", "-u", str(EXAMPLES / name), *args]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run(name: str, *args: str, code: int = 0) -> tuple[str, str]:
    process = start(name, *args)
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, out + err
    return out, err


ROWS = {
    "01_derivatives.py": ((), ("21, 16", "5 of 5 formulas agree")),
    "02_xor.py": ((), ("0 xor 1 = 1", "1 xor 1 = 0", "XOR is solved.")),
    "03_optimize.py": ((), ("Every method found the minimum.",)),
    "04_deep_graph.py": (("--largest", "10000"), ("chain", "binary tree", "the gradient is n + 1: yes")),
    "05_sparse.py": (("--points", "40"), ("7 products", "hottest point: 0.556164", "Newton's method converged.")),
    "06_gaussian_process.py": ((), ("textbook's formula", "The process knows its parameters.")),
    "07_optimal_transport.py": ((), ("envelope theorem", "The points form the ring.")),
    "08_implied_volatility.py": ((), ("d/d quote", "The smile is recovered.")),
    "09_neural_ode.py": ((), ("The network has learned the spiral.",)),
    "10_predator_prey.py": ((), ("The rates are found to within their uncertainty.",)),
    "11_kalman_filter.py": ((), ("The variances are found.",)),
    "12_hamiltonian_monte_carlo.py": ((), ("The moments are right.",)),
    "13_newton.py": ((), ("All converge quadratically.",)),
    "14_variational_inference.py": ((), ("The posterior is found.",)),
    "15_policy_gradient.py": ((), ("The cart balances the pole.",)),
}


@pytest.mark.parametrize("name", ROWS)
def test_example(name: str) -> None:
    args, words = ROWS[name]
    out, err = run(name, *args)
    assert not err
    assert all(w in out for w in words), out


def test_every_numbered_example_is_tested() -> None:
    assert {p.name for p in EXAMPLES.glob("[0-9]*.py")} == ROWS.keys()


@NEEDS_DEMO
def test_digits_learns_and_draws(tmp_path: Path) -> None:
    out, _ = run("digits.py", "--epochs", "15", "--out", str(tmp_path / "new" / "folder"))
    for words in ("gradient check", "accuracy:", "ms eager", "fused kernels", "by vmap", "digits.png"):
        assert words in out, out
    picture = tmp_path / "new" / "folder" / "digits.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"


@NEEDS_DEMO
def test_digits_falls_back_to_a_temporary_folder(tmp_path: Path) -> None:
    """A path below a file can be written by nobody, whoever runs the test."""
    (tmp_path / "file").write_text("")
    out, err = run("digits.py", "--epochs", "1", "--out", str(tmp_path / "file" / "below"), code=1)
    assert "cannot write to" in out
    assert "FAILED" in err and "wanted 96%" in err
    assert Path(out.rsplit("misread digits: ", 1)[1].strip()).exists()


@NEEDS_DEMO
@pytest.mark.skipif(sys.platform == "win32", reason="signals to single processes are POSIX")
def test_digits_stops_cleanly_at_ctrl_c(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits it where it is ignored
    process = start("digits.py", "--epochs", "100000", "--out", str(tmp_path))
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("gradient check"):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err and "Traceback" not in err


@NEEDS_DEMO
@pytest.mark.parametrize("bad", [("--epochs", "0"), ("--epochs", "many"), ("--seed", "-1")])
def test_digits_refuses_bad_options(bad: tuple[str, str]) -> None:
    _, err = run("digits.py", *bad, code=2)
    assert bad[0] in err and "Traceback" not in err
