"""``python -m benchmarks``: measure, print tables, write a JSON file.

python -m benchmarks --quick                       fewer and shorter blocks, without the slow workloads
python -m benchmarks --only softmax,mlp,dispatch   what has one of these words in its name, or is of that group
python -m benchmarks --measure warm                without fresh processes
python -m benchmarks --list
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import busy, cold
from .peers import NAMES, TITLES, installed
from .report import behind, header, line, summary
from .results import IMPORT, WARM, Results, Row, machine
from .session import Failed, Process
from .warm import Pool, Settings, measure
from .workload import Workload
from .workloads import WORKLOADS

RESULTS = Path(__file__).resolve().parent / "results"
MEASURES = ("warm", "busy", "cold", "import")


def parse(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed side by side with the peers.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter blocks, no slow workloads")
    parser.add_argument(
        "--only", default="", help="words, separated by commas; what has one of them in its name or group"
    )
    parser.add_argument("--peers", default=",".join(NAMES), help="who takes part (default: %(default)s)")
    parser.add_argument(
        "--measure",
        default=",".join(MEASURES),
        help="warm calls, calls beside a busy process, cold processes, import (default: %(default)s)",
    )
    parser.add_argument(
        "--all-cold", action="store_true", help="measure every workload in fresh processes, not only some"
    )
    parser.add_argument(
        "--budget", type=float, default=900.0, help="seconds after which nothing more is started (default: %(default)s)"
    )
    parser.add_argument(
        "--json", type=Path, help="where to write the figures (default: benchmarks/results/<time>.json)"
    )
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--tiny", action="store_true", help="tiny arguments: whether it works, not how quick it is")
    options = parser.parse_args(args)
    for flag, allowed in (("peers", NAMES), ("measure", MEASURES)):
        words = [w.strip() for w in getattr(options, flag).split(",") if w.strip()]
        unknown = [w for w in words if w not in allowed]
        if unknown or not words:
            found = ", ".join(unknown) or "nothing"
            parser.error(f"argument --{flag}: {found} is not one of {', '.join(allowed)}")
        setattr(options, flag, [w for w in allowed if w in words])
    if not options.budget > 0:
        parser.error(f"argument --budget: expected a positive number of seconds, found {options.budget}")
    options.words = [w.strip().lower() for w in options.only.split(",") if w.strip()]
    return options


def chosen(options: argparse.Namespace) -> list[Workload]:
    def wanted(w: Workload) -> bool:
        return not options.words or any(word in f"{w.group}: {w.name}".lower() for word in options.words)

    return [w for w in WORKLOADS if wanted(w) and not (options.quick and w.slow)]


def show_notes(notes: dict[str, str]) -> None:
    for peer, note in notes.items():
        if note.startswith(("failed", "left out", "WRONG")) or peer == "funcgrad":
            print(f"    {TITLES[peer]}: {' '.join(note.split())[:300]}", flush=True)


class Run:
    """One run of the suite: what is left of the time, and what has been found."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.began = time.perf_counter()
        self.results = Results(machine=machine())
        self.results.settings = {k: str(v) for k, v in vars(options).items() if k not in ("words", "json", "list")}

    def left(self, share: float = 1.0) -> float:
        """Seconds until ``share`` of the time is spent."""
        return share * self.options.budget - (time.perf_counter() - self.began)

    def settings(self, seconds: float) -> Settings:
        """For a workload that should take some ``seconds``: a compiler may take four times that before it is left out,
        since most take less."""
        patience = min(60.0, max(5.0, 4 * seconds))
        if self.options.tiny:
            return Settings(rounds=3, block=0.001, settle=0.0, together=0.1, patience=patience)
        if self.options.quick:
            return Settings(rounds=5, block=0.01, together=2.0, patience=patience)
        return Settings(patience=patience)

    def warm(self, workloads: list[Workload], pool: Pool, share: float) -> None:
        group = ""
        peers = list(pool.processes)
        for k, w in enumerate(workloads):
            left = self.left(share)
            if left <= 0:
                self.results.left_out.append(w.name)
                continue
            if w.group != group:
                group = w.group
                print(header(f"warm call: {group}", peers), flush=True)
            timings, notes = measure(w, pool, self.settings(left / (len(workloads) - k)), self.options.tiny)
            if timings:
                self.results.warm[w.name] = timings
                row = Row(WARM, w.name, w.group, {p: t.seconds for p, t in timings.items()})
                print(line(row, peers), flush=True)
            else:
                print(f"{w.name}: nobody", flush=True)
            self.results.notes[w.name] = notes
            show_notes(notes)

    def busy(self, workloads: list[Workload], pool: Pool) -> None:
        for w in workloads:
            if self.left(0.85) <= 0:
                self.results.left_out.append(f"beside a busy process: {w.name}")
                continue
            found, notes = busy.measure(w, pool, self.settings(15.0), self.options.tiny)
            self._keep(w, found, notes, list(pool.processes))

    def _keep(
        self, w: Workload, found: dict[str, dict[str, float]], notes: dict[str, str], peers: list[str], title: str = ""
    ) -> None:
        self.results.fresh.setdefault(w.name, {}).update(found)
        self.results.notes[w.name] = {**notes, **self.results.notes.get(w.name, {})}
        print(header(title or w.name, peers))
        for measured, values in found.items():
            print(line(Row(measured, measured, w.group, values), peers), flush=True)
        show_notes(notes)

    def cold(self, workloads: list[Workload], peers: list[str]) -> None:
        repeats = 1 if self.options.quick or self.options.tiny else 3
        for w in workloads:
            if self.left() <= 0:
                self.results.left_out.append(f"fresh processes: {w.name}")
                continue
            # what has failed or was wrong in warm calls has been said already
            able = [p for p in peers if w.takes_part(p) and p not in self.results.notes.get(w.name, {})]
            found, notes = cold.measure(w, able, repeats, min(300.0, self.options.budget / 4), self.options.tiny)
            self._keep(w, found, notes, peers, f"fresh processes: {w.name}")

    def imports(self, peers: list[str]) -> None:
        self.results.imports = cold.measure_imports(peers, 1 if self.options.quick else 3)
        print(header("import, NumPy included", peers))
        print(line(Row(IMPORT, IMPORT, IMPORT, self.results.imports), peers), flush=True)


def main(args: list[str] | None = None) -> int:
    options = parse(args)
    workloads = chosen(options)
    if options.list:
        for w in workloads:
            print(f"{w.group}: {w.name}{'  (slow)' * w.slow}{'  (cold)' * w.cold}")
        return 0
    if not workloads:
        print(f"nothing has {' or '.join(options.words)} in its name; see --list", file=sys.stderr)
        return 2
    run = Run(options)
    results = run.results
    results.groups = {w.name: w.group for w in workloads}
    results.missing = {p: "not installed" for p in options.peers if not installed(p)}
    path = options.json or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    pool = Pool([p for p in options.peers if p not in results.missing], Process)
    try:
        results.versions, results.missing = pool.versions(), results.missing | pool.missing
        print("  ".join(f"{TITLES[p]} {v}" for p, v in results.versions.items()))
        for peer, reason in results.missing.items():
            print(f"without {TITLES[peer]}: {reason}")
        if "warm" in options.measure:
            run.warm(workloads, pool, 0.75 if "cold" in options.measure else 1.0)
        if "busy" in options.measure:
            run.busy([w for w in workloads if w.busy], pool)
    except Failed as error:
        print(f"a library's process could not be started again: {error}", file=sys.stderr)
        return 1
    finally:
        pool.stop()
        peers = list(results.versions)
        if results.warm:
            results.write(path)  # whatever follows, this much is there
    if "cold" in options.measure:
        run.cold([w for w in workloads if w.cold or options.all_cold], peers)
    if "import" in options.measure and run.left() > 0:
        run.imports(peers)
    results.write(path)
    print()
    for text in summary(row for row in results.rows() if row.measure == WARM):
        print(text)
    if results.left_out:
        print(f"not measured, since {options.budget:.0f} s were over: {'; '.join(results.left_out)}")
    worst = behind(results)
    if worst:
        print("\nwhere funcgrad is behind:")
        print("\n".join(worst))
    print(f"\nall figures: {path}")
    problems = results.problems()
    if problems:
        print("\nfailed or wrong:\n" + "\n".join(problems), file=sys.stderr)
    if "funcgrad" in results.missing:
        print("funcgrad could not be loaded", file=sys.stderr)
    return 1 if problems or "funcgrad" in results.missing else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a terminal that has no µ is no reason to stop
    sys.exit(main())
