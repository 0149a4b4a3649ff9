"""Every Python block of the documentation runs as it stands, and gives what it says.

A block is self-contained: it starts from an empty namespace. Blocks with prompts are doctests; others are run.
"""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "benchmarks/README.md")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


def blocks(text: str) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the number of its first line."""
    return [(text.count("\n", 0, m.start(1)) + 1, m.group(1)) for m in FENCE.finditer(text)]


def run_block(code: str, name: str, line: int) -> str:
    """Run one block; the report of what differs, empty if nothing does."""
    if not re.search(r"^>>> ", code, re.MULTILINE):
        exec(compile("\n" * (line - 1) + code, name, "exec"), {"__name__": name})
        return ""
    test = doctest.DocTestParser().get_doctest(code, {}, name, name, line - 1)
    report: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    return "".join(report)


ROWS = [
    pytest.param(code, page, line, id=f"{page}:{line}")
    for page in PAGES
    if (ROOT / page).exists()
    for line, code in blocks((ROOT / page).read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("code", "page", "line"), ROWS)
def test_block(code: str, page: str, line: int) -> None:
    report = run_block(code, page, line)
    assert not report, report


def test_blocks_are_found() -> None:
    assert len(blocks((ROOT / "README.md").read_text(encoding="utf-8"))) >= 8


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    missing = [t for t in LINK.findall(text) if not ((ROOT / page).parent / t.split("#")[0]).exists()]
    assert not missing


def test_runner_notices_a_wrong_result() -> None:
    assert "Expected" in run_block(">>> 1 + 1\n3\n", "page", 1)
    assert run_block(">>> 1 + 1\n2\n", "page", 1) == ""
    with pytest.raises(ZeroDivisionError):
        run_block("1 / 0\n", "page", 1)
