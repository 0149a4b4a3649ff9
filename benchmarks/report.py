"""What is printed, and what goes into the README: tables and a plot.

python -m benchmarks.report results.json            the tables as Markdown, to the terminal
python -m benchmarks.report results.json --readme   rewrite the tables in README.md, and draw ratios.svg beside it
python -m benchmarks.report results.json --behind   where funcgrad is behind, worst first
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from .peers import NAMES, TITLES
from .results import WARM, Results, Row, geometric_mean

__all__ = [
    "behind",
    "format_value",
    "header",
    "line",
    "markdown",
    "plot",
    "summary",
    "update_readme",
    "verdict",
]

HERE = Path(__file__).resolve().parent
PICTURE = "![Each workload's time with other libraries over its time with funcgrad](ratios.svg)"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SHORT = {"torch": "torch", "numba": "by hand"}


def format_value(value: float, memory: bool = False) -> str:
    """Three digits and a unit: ``1.23 ms``, ``45.6 µs``, ``210 MB``."""
    if value != value:
        return "-"
    if memory:
        return f"{value / 1e6:.0f} MB"
    size, unit = next((u for u in _UNITS if value >= u[0]), _UNITS[-1])
    number = value / size
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f} {unit}"


def is_memory(row: Row) -> bool:
    return "memory" in row.measure


def verdict(row: Row) -> str:
    """Where funcgrad stands against the best of the others."""
    best = row.best_other()
    ratio = row.ratio(best) if best else None
    if best is None or ratio is None:
        return ""
    if 0.95 <= ratio <= 1.05:
        return f"level with {TITLES[best]}"
    return f"{ratio:.1f}x ahead of {TITLES[best]}" if ratio > 1 else f"{1 / ratio:.1f}x BEHIND {TITLES[best]}"


# the terminal


def header(title: str, peers: Iterable[str]) -> str:
    return f"\n{title:<58}" + "".join(f"{_SHORT.get(p, TITLES[p]):>10}" for p in peers) + "   best of the others"


def line(row: Row, peers: Iterable[str]) -> str:
    cells = "".join(f"{format_value(row.values[p], is_memory(row)) if p in row.values else '-':>10}" for p in peers)
    return f"{row.name:<58}{cells}   {verdict(row)}"


def summary(rows: Iterable[Row]) -> list[str]:
    """One line per library: the geometric mean of the ratios over the rows that both have, and where it is ahead."""
    rows = list(rows)
    lines = []
    for peer in NAMES[1:]:
        ratios = [r for r in (row.ratio(peer) for row in rows) if r is not None]
        if ratios:
            behind = sum(r < 0.95 for r in ratios)
            lines.append(
                f"against {TITLES[peer]:<14}{geometric_mean(ratios):7.2f}x"
                f" (geometric mean of {len(ratios)}), behind in {behind}"
            )
    return lines


def behind(results: Results) -> list[str]:
    """The rows in which another library is more than 5 % ahead, the worst first, with both values.

    Of warm calls it also says the ratio of the best blocks: on a busy machine medians tell who was disturbed.
    """
    found = []
    for row in results.rows():
        for peer in row.values:
            ratio = None if peer == "funcgrad" else row.ratio(peer)
            if ratio is not None and ratio < 0.95:
                ours, theirs = (format_value(row.values[p], is_memory(row)) for p in ("funcgrad", peer))
                text = f"{1 / ratio:6.2f}x behind {TITLES[peer]:<14}{ours:>9} / {theirs:>9}  {row.measure}: {row.name}"
                timings = results.warm.get(row.name, {}) if row.measure == WARM else {}
                if timings:
                    text += f" (best blocks: {timings['funcgrad'].best / timings[peer].best:.2f}x)"
                found.append((ratio, text))
    return [text for _, text in sorted(found)]


# the README


def _bold(text: str) -> str:
    return f"**{text.replace('BEHIND', 'behind')}**" if "BEHIND" in text else text


def _table(title: str, rows: list[Row], peers: list[str]) -> list[str]:
    shown = [p for p in peers if any(p in row.values for row in rows)]
    lines = [f"| {title} | " + " | ".join(TITLES[p] for p in shown) + " | against the best of the others |"]
    lines.append("|---|" + "--:|" * len(shown) + "---|")
    for row in rows:
        cells = [format_value(row.values[p], is_memory(row)) if p in row.values else "" for p in shown]
        lines.append(f"| {row.name} | " + " | ".join(cells) + f" | {_bold(verdict(row))} |")
    return lines


def markdown(results: Results) -> str:
    """All tables, a summary and what was left out."""
    peers = [p for p in NAMES if p in results.versions]
    parts = ["Versions: " + ", ".join(f"{TITLES[p]} {results.versions[p]}" for p in peers) + "."]
    machine = results.machine
    parts[0] += f" Machine: {machine.get('cores')} cores, {machine.get('processor')}, Python {machine.get('python')}."
    rows = list(results.rows())
    warm = [row for row in rows if row.measure == WARM]
    for group in dict.fromkeys(row.group for row in warm):
        parts.append("\n".join(_table(f"warm call: {group}", [r for r in warm if r.group == group], peers)))
    for measure in dict.fromkeys(row.measure for row in rows if row.measure != WARM):
        parts.append("\n".join(_table(measure, [r for r in rows if r.measure == measure], peers)))
    if warm:
        ratios = ["| warm calls, geometric mean | times ahead | workloads | behind in |", "|---|--:|--:|--:|"]
        for peer in peers[1:]:
            found = [r for r in (row.ratio(peer) for row in warm) if r is not None]
            if found:
                count = sum(r < 0.95 for r in found)
                ratios.append(f"| {TITLES[peer]} | {geometric_mean(found):.2f} | {len(found)} | {count} |")
        parts.append("\n".join(ratios))
    without = [f"{name}: {TITLES[p]}: {note}" for name, notes in results.notes.items() for p, note in notes.items()
               if p == "funcgrad" or note.startswith(("failed", "left out", "WRONG"))]  # fmt: skip
    without += [f"{TITLES[p]}: {reason}" for p, reason in results.missing.items()]
    without += [f"{name}: not measured, the time was up" for name in results.left_out]
    if without:
        parts.append("Left out:\n\n" + "\n".join(f"- {text}" for text in without))
    return "\n\n".join(parts) + "\n"


def update_readme(results: Results, readme: Path) -> None:
    """Put the tables between the two marks of the README."""
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{readme}: expected the lines {BEGIN!r} and {END!r}, once each")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n\n{PICTURE}\n\n{markdown(results)}\n{END}{after}", encoding="utf-8")


# the plot


def plot(results: Results, path: Path) -> None:
    """One line per workload, one mark per library: how many times funcgrad is ahead, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in results.rows() if row.measure == WARM and any(row.ratio(p) for p in NAMES[1:])]
    if not rows:
        raise ValueError("nothing to draw: no workload has been measured with funcgrad and another library")
    rows = rows[::-1]
    marks: Mapping[str, tuple[str, str]] = dict(
        jax=("#2a6fbb", "o"),
        torch=("#e07b28", "s"),
        pytensor=("#3f9b57", "^"),
        autograd=("#6b4c2a", "v"),
        numpy=("#8a8a8a", "D"),
        numba=("#c42d4a", "*"),
    )
    with matplotlib.rc_context({"svg.hashsalt": "funcgrad", "svg.fonttype": "none", "font.size": 7}):
        figure, axes = plt.subplots(figsize=(8, 1.2 + 0.155 * len(rows)), layout="constrained")
        axes.axvspan(1e-9, 1.0, color="#f7e6e6", lw=0)
        axes.axvline(1.0, color="#c44e52", lw=0.8)
        lowest, highest = 0.8, 1.25
        for peer in NAMES[1:]:
            points = [(r, k) for k, row in enumerate(rows) if (r := row.ratio(peer)) is not None]
            if points:
                x, y = zip(*points)
                lowest, highest = min(lowest, *x), max(highest, *x)
                colour, marker = marks[peer]
                axes.scatter(x, y, s=12, color=colour, marker=marker, label=TITLES[peer], zorder=3, lw=0)
        axes.set_xscale("log")
        axes.set_xlim(lowest / 1.3, highest * 1.3)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(-0.8, len(rows) - 0.2)
        axes.grid(axis="both", lw=0.3, color="#dddddd")
        axes.tick_params(length=0)
        axes.set_xlabel("time of the other library / time of funcgrad, warm calls (right of 1: funcgrad is quicker)")
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.45 / figure.get_figheight()), ncols=6, frameon=False
        )
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
        plt.close(figure)


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Tables and a plot from a run.")
    parser.add_argument("json", type=Path, help="what python -m benchmarks has written")
    parser.add_argument(
        "--readme", action="store_true", help="rewrite the tables of README.md, draw the plot beside it"
    )
    parser.add_argument("--into", type=Path, default=HERE, help="the folder of the README and the plot")
    parser.add_argument("--behind", action="store_true", help="print where funcgrad is behind, worst first")
    options = parser.parse_args(args)
    try:
        results = Results.read(options.json)
        if options.behind:
            print("\n".join(behind(results)) or "nowhere behind")
        elif options.readme:
            update_readme(results, options.into / "README.md")
            plot(results, options.into / "ratios.svg")
        else:
            print(markdown(results))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
