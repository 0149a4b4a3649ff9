"""The benchmark as a program: each workload computes what it says, results are checked before timing, what fails or is
wrong is reported, and the figures survive being written, read, tabled and drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchmarks.__main__ as program
import benchmarks.session as session_module
from benchmarks import busy, cold, report
from benchmarks.compare import compare, disagreements, leaves
from benchmarks.peers import NAMES, TITLES, load
from benchmarks.peers.base import EagerLoops, Peer, Unsupported, tree_map
from benchmarks.peers.numpy_peer import NumPy
from benchmarks.results import IMPORT, WARM, Results, Row
from benchmarks.session import Failed, Process, Session, answer
from benchmarks.warm import Pool, Settings, Timing, _settle, measure, summary
from benchmarks.workload import Workload
from benchmarks.workloads import BY_NAME, WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
QUICK = Settings(rounds=3, block=0.0005, together=0.05, patience=60)


# each workload against an independent witness


def central(f: Callable[[Any], Any], x: Any, h: float) -> Any:
    """Derivatives of a scalar function by central differences of fourth order, leaf by leaf."""

    def partial(leaf: np.ndarray, place: tuple[int, ...]) -> float:
        kept, values = leaf[place].copy(), []
        for step in (-2, -1, 1, 2):
            leaf[place] = kept + step * h
            values.append(float(f(x)))
        leaf[place] = kept
        a, b, c, d = values
        return (a - 8 * b + 8 * c - d) / (12 * h)

    def whole(leaf: np.ndarray) -> Any:
        return np.array([partial(leaf, i) for i in np.ndindex(leaf.shape)]).reshape(leaf.shape)

    x = tree_map(lambda leaf: np.array(leaf, np.float64), x)
    return tree_map(whole, x)


class Loops(EagerLoops):
    """With a convolution, in the one layout that is used here, by its definition."""

    def conv_general_dilated(self, x: Any, kernel: Any, strides: Any, padding: str, dimension_numbers: Any) -> Any:
        assert (strides, padding, dimension_numbers) == ((1, 1), "VALID", ("NHWC", "HWIO", "NHWC"))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
        return np.einsum("nhwcij,ijco->nhwo", windows, kernel)


class Differences(NumPy):
    """NumPy with derivatives by finite differences in float64, and vmap by a loop."""

    lax = Loops(np)

    def arguments(self, tree: Any) -> Any:
        return tree_map(lambda x: np.asarray(x, np.float64) if np.asarray(x).dtype.kind == "f" else x, tree)

    def grad(self, f: Any) -> Any:
        return lambda x, *rest: central(lambda y: f(y, *rest), x, 1e-4)

    def value_and_grad(self, f: Any) -> Any:
        return lambda x, *rest: (f(x, *rest), self.grad(f)(x, *rest))

    def hvp(self, f: Any) -> Any:
        return lambda x, v: (self.grad(f)(x + 1e-3 * v) - self.grad(f)(x - 1e-3 * v)) / 2e-3

    def hessian(self, f: Any) -> Any:
        product = self.hvp(f)
        return lambda x: np.stack([product(x, e) for e in np.eye(x.size)])

    def vmap(self, f: Any) -> Any:
        return lambda *args: np.stack([f(*[a[k] for a in args]) for k in range(len(args[0]))])


@pytest.fixture(scope="module")
def ours() -> Session:
    return Session(load("funcgrad"))


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: f"{w.group}: {w.name}")
def test_workload_computes_what_it_says(workload: Workload, ours: Session) -> None:
    """Where NumPy has the function, dtypes count as well; derivatives are held against finite differences."""
    witness = Session(NumPy() if workload.forward and "vmap" not in workload.name else Differences())
    expected = witness.prepare(workload.name, tiny=True)
    assert all(np.all(np.isfinite(x)) for x in leaves(expected))
    kind, found = answer(ours, "prepare", (workload.name, True))
    if kind == "unsupported":
        pytest.skip(found)
    assert kind == "ok", found
    if not workload.forward:
        assert {x.dtype for x in leaves(found)} <= {x.dtype for x in leaves(workload.arguments_at(workload.tiny))}
        found = tree_map(lambda x: np.asarray(x, np.float64), found)
        expected = tree_map(lambda x: np.asarray(x, np.float64), expected)
    assert compare(found, expected, workload.tolerance if workload.forward else max(workload.tolerance, 1e-5)) == ""


def test_declarations_are_unique_and_whole() -> None:
    assert len(BY_NAME) == len(WORKLOADS)
    for w in WORKLOADS:
        assert w.size.keys() == w.tiny.keys(), w.name
        assert w.second is None or (w.second.keys() == w.size.keys() and w.second != w.size), w.name
        assert bool(w.steps) == bool(w.tiny_steps), w.name
        assert {*w.own, *w.without} <= set(NAMES), w.name
        assert w.steps == 0 or w.tiny_steps < w.steps
    assert sum(w.cold for w in WORKLOADS) >= 5


def test_hand_written_kernels_are_right() -> None:
    """At sizes on both sides of their own thresholds, against NumPy and against funcgrad."""
    by_hand, funcgrad, plain = Session(load("numba")), Session(load("funcgrad")), Session(NumPy())
    for w in WORKLOADS:
        if "numba" in w.own and "n=1e" not in w.name and "f32" not in w.name:
            found = by_hand.prepare(w.name, True)
            kind, expected = answer(plain if w.forward else funcgrad, "prepare", (w.name, True))
            assert kind == "ok" and compare(found, expected, max(w.tolerance, 1e-9)) == "", w.name


# a library that fails or is wrong


class Local:
    """A library's process, in this one."""

    alive = True

    def __init__(self, peer: Peer) -> None:
        self._session, self.version, self._reply = Session(peer), peer.version, ("ok", None)

    def send(self, command: str, *args: Any) -> None:
        self._reply = answer(self._session, command, args)

    def collect(self, seconds: float) -> Any:
        kind, value = self._reply
        if kind == "ok":
            return value
        raise Unsupported(value) if kind == "unsupported" else Failed(value)

    def ask(self, command: str, *args: Any, seconds: float = 1.0) -> Any:
        self.send(command, *args)
        return self.collect(seconds)

    def cpu_seconds(self) -> float:
        return 0.0

    def stop(self) -> None:
        pass


@pytest.fixture
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test process is large, and collecting its garbage before each block takes longer than the block."""
    monkeypatch.setattr(session_module.gc, "collect", lambda: 0)


class Wrong(NumPy):
    def jit(self, f: Any) -> Any:
        return lambda *args: f(*args) + 1e-3


class Broken(NumPy):
    def jit(self, f: Any) -> Any:
        raise RuntimeError("boom")


class BreaksLater(NumPy):
    """Goes well until it is timed."""

    def jit(self, f: Any) -> Any:
        calls: list[int] = []

        def g(*args: Any) -> Any:
            calls.append(1)
            if len(calls) > 2:
                raise RuntimeError("out of memory")
            return f(*args)

        return g


PEERS = {"numpy": NumPy, "funcgrad": Wrong, "jax": Broken, "torch": BreaksLater}


def start(name: str) -> Local:
    if name == "pytensor":
        raise Failed("no compiler")
    return Local(PEERS[name]())


def test_blocks_begin_when_no_library_works_any_more() -> None:
    class Busy(Local):
        asked = 0

        def cpu_seconds(self) -> float:
            self.asked += 1
            return 0.01 * min(self.asked, 4)

    busy = Busy(NumPy())
    _settle({"busy": busy, "idle": Local(NumPy())}, Settings(settle=0.001))
    assert busy.asked == 5
    _settle({"busy": Busy(NumPy())}, Settings(settle=0.001, settled=0.0))  # and not later than that


@pytest.mark.usefixtures("no_collection")
def test_what_fails_or_is_wrong_is_left_out_and_said() -> None:
    pool = Pool([*PEERS, "pytensor"], start)
    assert pool.missing == {"pytensor": "no compiler"} and pool.versions().keys() == PEERS.keys()
    timings, notes = measure(BY_NAME["jit call, 10 elements"], pool, QUICK, tiny=True)
    assert timings.keys() == {"numpy"} and timings["numpy"].seconds > 0
    assert notes["funcgrad"].startswith("WRONG, compared with numpy: result 0 differs")
    assert notes["jax"] == "failed: RuntimeError: boom" and "out of memory" in notes["torch"]


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("bad", "words"),
    [(Wrong, "WRONG"), (Broken, "boom"), (BreaksLater, "out of memory"), (NumPy, "")],
    ids=["wrong", "broken", "breaks later", "good"],
)
def test_exit_code(
    bad: type[Peer], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "Process", lambda name: Local(NumPy() if name == "numpy" else bad()))
    file = tmp_path / "r.json"
    args = ["--tiny", "--quick", "--only", "jit call, scalar", "--peers", "funcgrad,numpy", "--measure", "warm"]
    code = program.main([*args, "--json", str(file)])
    out, err = capsys.readouterr()
    assert code == bool(words) and words in err and words in out
    assert Results.read(file).warm["jit call, scalar"].keys() == ({"numpy"} if words else {"funcgrad", "numpy"})


def test_what_does_not_fit_into_the_time_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "Process", lambda name: Local(NumPy()))
    args = ["--tiny", "--only", "jit call", "--peers", "funcgrad,numpy", "--measure", "warm", "--budget", "1e-9"]
    assert program.main([*args, "--json", str(tmp_path / "r.json")]) == 0
    assert "not measured, since 0 s were over: jit call, scalar; jit call, 10 elements" in capsys.readouterr().out


def test_process_answers_fails_and_crashes(tmp_path: Path) -> None:
    process = Process("numpy", log=str(tmp_path / "log"))
    try:
        assert process.version == np.__version__
        name = "jit call, 10 elements"
        np.testing.assert_array_equal(
            process.ask("prepare", name, True), 2.0 * BY_NAME[name].arguments_at(BY_NAME[name].tiny)[0] + 1.0
        )
        calls, each = process.ask("calls_per_block", 0.001)
        assert calls >= 1 and each > 0 and process.ask("block", calls, True) > 0
        with pytest.raises(Unsupported, match="no derivatives"):
            process.ask("prepare", "XOR step, Adam, 12 leaves", True)
        with pytest.raises(Failed, match="KeyError"):
            process.ask("prepare", "no such workload", True)
        with pytest.raises(Failed, match="not done after 0 s"):
            process.ask("prepare", "sum of all 4096x1000", False, seconds=0.0)
        assert not process.alive
        with pytest.raises(Failed):
            process.ask("version")
    finally:
        process.stop()
    with pytest.raises(Failed, match="ModuleNotFoundError"):
        Process("no_such_library", log=str(tmp_path / "log"))


# beside a busy process


@pytest.mark.usefixtures("no_collection")
def test_calls_beside_a_busy_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    class Recorded(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(busy.subprocess, "Popen", Recorded)
    found, notes = busy.measure(BY_NAME["jit call, 10 elements"], Pool([*PEERS], start), QUICK, tiny=True)
    assert found.keys() == {busy.MEDIAN, busy.SLOWEST} and found[busy.MEDIAN].keys() == {"numpy"}
    assert 0 < found[busy.MEDIAN]["numpy"] <= found[busy.SLOWEST]["numpy"]
    assert notes["jax"] == "failed: RuntimeError: boom"
    assert len(started) == 1 and started[0].returncode is not None  # it was there, and is no more


# fresh processes


def test_fresh_processes() -> None:
    workload = BY_NAME["rosenbrock value+gradient, n=1e3"]
    found, notes = cold.measure(workload, ["funcgrad", "numpy"], repeats=1, patience=100, tiny=True)
    assert not notes and found.keys() == set(cold.MEASURES)
    assert all(values.keys() == {"funcgrad"} for values in found.values())
    assert found[cold.SECOND]["funcgrad"] < found[cold.COLD]["funcgrad"]  # the disk cache
    assert found[cold.SHAPE]["funcgrad"] < found[cold.COLD]["funcgrad"]
    assert found[cold.MEMORY]["funcgrad"] > 1e6  # a compiler has been loaded
    assert found[cold.PROCESS_MEMORY]["funcgrad"] > found[cold.MEMORY]["funcgrad"] + 10e6  # Python, NumPy, ourselves
    assert cold.measure_imports(["numpy"], 1)["numpy"] > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system cannot restart the peak")
def test_memory_is_what_is_taken_after_the_baseline() -> None:
    code = (
        "import numpy as np; from benchmarks.cold import held_bytes, peak_bytes; np.ones(20_000_000);"
        "base = held_bytes(); np.ones(5_000_000); print(peak_bytes() - base)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert abs(float(done.stdout) - 40e6) < 4e6  # neither the 160 MB before it nor nothing


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system cannot restart the peak")
def test_memory_of_the_process_counts_what_was_freed_before_the_baseline() -> None:
    code = (
        "import sys, json, numpy as np; from benchmarks import cold;"
        "ask = cold.load; cold.load = lambda name: (np.ones(40_000_000), ask(name))[1];"
        "print(json.dumps(cold.one_process('numpy', 'jit call, 10 elements', True)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["process memory"] > 320e6 and found["peak memory"] < 20e6


def test_fresh_process_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = replace(BY_NAME["jit call, scalar"], name="no such workload")
    found, notes = cold.measure(workload, ["funcgrad"], repeats=2, patience=100)
    assert not found and notes["funcgrad"] == "failed: KeyError: 'no such workload'"


# comparing, summing up


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        (1.0, 1.0, ""),
        ([np.ones(2), {"a": 1.0}], (np.ones(2), {"a": 1.0}), ""),
        (np.ones(2), np.ones(2) + 1e-3, "differs by"),
        (np.ones(2), np.ones(2, np.float32), "float64[2], expected float32[2]"),
        (np.ones(2), np.ones(3), "expected float64[3]"),
        (np.array([1, 2]), np.array([1, 3]), "differs in 1 of 2"),
        (np.array([True, False]), np.array([True, True]), "differs in 1 of 2"),
        ((1.0, 2.0), 1.0, "2 results instead of 1"),
        (np.nan, np.nan, "not finite"),
        (np.ones(0), np.ones(0), ""),
    ],
)
def test_compare(found: Any, expected: Any, words: str) -> None:
    difference = compare(found, expected, 1e-6)
    assert words in difference and bool(words) == bool(difference)


def test_the_witness_is_numpy_where_it_takes_part() -> None:
    assert disagreements({"funcgrad": 1.0, "jax": 2.0, "numpy": 1.0}, 1e-6).keys() == {"jax"}
    assert disagreements({"funcgrad": 1.0, "jax": 2.0}, 1e-6).keys() == {"funcgrad"}
    assert disagreements({}, 1e-6) == {}


def test_summary_is_the_median_and_quartiles() -> None:
    assert summary([5.0, 1.0, 2.0, 4.0, 3.0], 7) == Timing(3.0, 2.0, 4.0, 7, 5, 1.0)
    assert summary([2.0], 1) == Timing(2.0, 2.0, 2.0, 1, 1, 2.0)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"funcgrad": 1.0, "jax": 2.0, "numpy": 5.0}, "2.0x ahead of JAX"),
        ({"funcgrad": 3.0, "jax": 2.0, "numpy": 1.0}, "3.0x BEHIND NumPy"),
        ({"funcgrad": 1.0, "jax": 1.01}, "level with JAX"),
        ({"funcgrad": 1.0, "jax": float("nan")}, ""),
        ({"funcgrad": 1.0}, ""),
        ({"jax": 1.0}, ""),
    ],
)
def test_verdict(values: dict[str, float], text: str) -> None:
    assert report.verdict(Row(WARM, "w", "g", values)) == text


FORMATS = [(1.234e-6, "1.23 µs"), (0.0456, "45.6 ms"), (123.4, "123 s"), (2e-10, "0.20 ns"), (9.996, "10.0 s")]


@pytest.mark.parametrize(("value", "text"), FORMATS)
def test_format_value(value: float, text: str) -> None:
    assert report.format_value(value) == text


# figures, tables, plot


def results() -> Results:
    def timing(x: float) -> Timing:
        return Timing(x, 0.9 * x, 1.1 * x, 10, 5, 0.8 * x)

    return Results(
        versions={"funcgrad": "1", "jax": "2", "numpy": "3"},
        missing={"torch": "not installed"},
        machine={"cores": 2, "processor": "x86_64", "python": "3.11"},
        settings={"quick": "True"},
        groups={"a": "dispatch", "b": "loops"},
        warm={
            "a": {"funcgrad": timing(1e-6), "jax": timing(4e-6), "numpy": timing(0.5e-6)},
            "b": {"funcgrad": timing(2e-3), "jax": timing(18e-3)},
        },
        fresh={
            "b": {
                "cold compile": {"funcgrad": 2.0, "jax": 0.5},
                "peak memory of the process": {"funcgrad": 1e8, "jax": 3e8},
            }
        },
        imports={"funcgrad": 0.2, "jax": 0.6},
        notes={"a": {"autograd": "failed: boom"}, "b": {"numpy": "NumPy has no derivatives"}},
        left_out=["c"],
    )


def test_json_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "r.json"
    results().write(path)
    assert Results.read(path) == results()
    assert [r.measure for r in results().rows()] == [WARM, WARM, "cold compile", "peak memory of the process", IMPORT]
    assert results().problems() == ["a: autograd: failed: boom"]
    old = json.loads(path.read_text()) | {"format": 1}
    path.write_text(json.dumps(old))
    with pytest.raises(ValueError, match="expected results of format 2, found 1"):
        Results.read(path)


def test_tables() -> None:
    text = report.markdown(results())
    assert "| a | 1.00 µs | 4.00 µs | 500 ns | **2.0x behind NumPy** |" in text
    assert "| b | 2.00 ms | 18.0 ms | 9.0x ahead of JAX |" in text
    assert "| b | 100 MB | 300 MB | 3.0x ahead of JAX |" in text
    assert "| JAX | 6.00 | 2 | 0 |" in text and "| NumPy | 0.50 | 1 | 1 |" in text
    assert "- torch.compile: not installed" in text and "- c: not measured" in text and "a: autograd: failed" in text
    assert "NumPy has no derivatives" not in text


def test_where_funcgrad_is_behind_worst_first() -> None:
    lines = report.behind(results())
    assert [line.split()[0] for line in lines] == ["4.00x", "2.00x"]
    assert "cold compile: b" in lines[0] and "1.00 µs /    500 ns  warm call: a (best blocks: 2.00x)" in lines[1]


def test_readme_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, readme = tmp_path / "r.json", tmp_path / "README.md"
    results().write(file)
    readme.write_text(f"before\n{report.BEGIN}\nyesterday\n{report.END}\nafter\n")
    for _ in range(2):  # what has been written once can be written again
        assert report.main([str(file), "--readme", "--into", str(tmp_path)]) == 0
    text = readme.read_text()
    assert (
        text.startswith("before\n") and text.endswith("after\n") and "yesterday" not in text and "| a | 1.00 µs" in text
    )
    svg = (tmp_path / "ratios.svg").read_text()
    assert "<svg" in svg and ">a<" in svg and ">b<" in svg and TITLES["jax"] in svg
    assert report.main([str(file), "--behind"]) == 0 and "4.00x behind JAX" in capsys.readouterr().out
    readme.write_text("no marks")
    assert report.main([str(file), "--readme", "--into", str(tmp_path)]) == 2
    assert report.main([str(tmp_path / "none.json")]) == 2
    assert "README.md: expected the lines" in capsys.readouterr().err


def test_the_repositorys_readme_has_the_marks(repo_root: Path) -> None:
    text = (repo_root / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert text.count(report.BEGIN) == text.count(report.END) == 1


# the command


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--peers", "numpy,matlab"), "matlab is not one of"),
        (("--measure", "hot"), "hot is not one of warm, busy, cold, import"),
        (("--budget", "0"), "expected a positive number"),
    ],
)
def test_program_refuses(args: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.parse(list(args))
    assert words in capsys.readouterr().err


def test_program_lists_and_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--list", "--quick"]) == 0
    listed = capsys.readouterr().out
    assert "dispatch: jit call, scalar" in listed and "(slow)" not in listed
    assert program.main(["--only", "no such thing"]) == 2 and "see --list" in capsys.readouterr().err


def test_program_as_a_process(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--tiny", "--only", "10 elements", "--measure", "warm"]
    command += ["--peers", "funcgrad,numpy", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "jit call, 10 elements" in done.stdout and "against NumPy" in done.stdout
    assert Results.read(file).warm["jit call, 10 elements"].keys() == {"funcgrad", "numpy"}
