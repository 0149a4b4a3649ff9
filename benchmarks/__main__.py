"""``python -m benchmarks``: measure, print a table, write a JSON file.

python -m benchmarks --quick              fewer and shorter blocks, without the slow workloads
python -m benchmarks --only softmax,mlp   what has one of these words in its name
python -m benchmarks --list
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .cold import TITLES as COLD_TITLES
from .cold import measure_cold
from .measure import Settings, Timing, measure
from .peers import PEERS, available
from .report import print_header, print_row, print_summary, write
from .workloads import WORKLOADS

RESULTS = Path(__file__).resolve().parent / "results"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed side by side with the peers.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter blocks, no slow workloads")
    parser.add_argument("--only", default="", help="words, separated by commas; what has one of them in its name")
    parser.add_argument("--peers", default=",".join(PEERS), help="who takes part (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    options = parser.parse_args()
    unknown = set(options.peers.split(",")) - PEERS.keys()
    if unknown:
        parser.error(f"argument --peers: {', '.join(sorted(unknown))} is not one of {', '.join(PEERS)}")
    options.words = [w.strip().lower() for w in options.only.split(",") if w.strip()]
    return options


def main() -> int:
    options = parse()

    def wanted(name: str) -> bool:
        return not options.words or any(w in name.lower() for w in options.words)

    warm = [w for w in WORKLOADS if wanted(w.name) and not (options.quick and w.slow)]
    cold = [title for title in COLD_TITLES if wanted(title)]
    if options.list:
        print("\n".join([w.name for w in warm] + cold))
        return 0
    if not warm and not cold:
        print(f"nothing has {' or '.join(options.words)} in its name; see --list", file=sys.stderr)
        return 2
    peers, missing = available()
    peers = {k: v for k, v in peers.items() if k in options.peers.split(",")}
    print("  ".join(f"{k} {p.version}" for k, p in peers.items()))
    for name, reason in missing.items():
        print(f"without {name}: {reason}")

    settings = Settings(rounds=5, block=0.01) if options.quick else Settings()
    timings: dict[str, dict[str, Timing]] = {}
    notes: dict[str, dict[str, str]] = {}
    if warm:
        print_header("time per call, warmed up")
    for workload in warm:
        timings[workload.name], notes[workload.name] = measure(workload, peers, settings)
        print_row(workload.name, {k: t.seconds for k, t in timings[workload.name].items()}, notes[workload.name])

    fresh: dict[str, dict[str, float]] = {}
    if cold:
        print_header("fresh process")
        fresh, failed = measure_cold(list(peers), repeats=1 if options.quick else 3)
        fresh = {title: values for title, values in fresh.items() if title in cold}
        for title, values in fresh.items():
            print_row(title, values, {}, memory="memory" in title)
        for name, reason in failed.items():
            print(f"    {name} failed: {reason}")
    if timings:
        print_summary({k: {p: t.seconds for p, t in v.items()} for k, v in timings.items()})
    path = write(options.out, {k: p.version for k, p in peers.items()}, timings, fresh, notes)
    print(f"all figures: {path}")
    wrong = [k for k, v in notes.items() if any(r.startswith("WRONG") for r in v.values())]
    if wrong:
        print(f"results differ between peers: {', '.join(wrong)}", file=sys.stderr)
    ours = [k for k, v in notes.items() if v.get("funcgrad", "").startswith("failed")]
    if ours:
        print(f"funcgrad failed: {', '.join(ours)}", file=sys.stderr)
    return 1 if wrong or ours else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a terminal that has no µ is no reason to stop
    sys.exit(main())
