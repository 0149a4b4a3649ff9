"""The exact text of a few kernels. It is the cache's key and what users read: it changes only on purpose.

After such a change, look at the difference and run ``python -m tests.kernels.test_golden`` to write the files anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .programs import FUSED, WHOLE, compiled

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["softmax", "column softmax", "layer norm", "n-body", "large sum", "scatter add"]


def text(name: str) -> str:
    f, args = WHOLE[name] if name in WHOLE else FUSED[name][:2]
    return compiled(f, args).as_text()


@pytest.mark.parametrize("name", NAMES)
def test_text(name: str) -> None:
    assert text(name) == (GOLDEN / f"{name.replace(' ', '_')}.txt").read_text()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in NAMES:
        (GOLDEN / f"{each.replace(' ', '_')}.txt").write_text(text(each))
