"""Fewer runs of Python's garbage collector while a program is traced and compiled.

These make tens of thousands of small objects, of which most live on or go by their reference counts. A collector that
comes after every 700 finds next to nothing, in a tenth of the time that all takes, and a run over its oldest generation
looks at all that the process holds (50 ms where some libraries are loaded).
"""

from __future__ import annotations

import gc
import os
import threading

__all__ = ["rarely_collected"]

YOUNG = 100_000
"""New objects after which the collector comes nevertheless: some 10 MB."""


class _RarelyCollected:
    """``with rarely_collected:``, in any thread, also one within another."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._entered = 0
        self._saved: tuple[int, int, int] | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._entered += 1
            found = gc.get_threshold()
            if self._entered == 1 and 0 < found[0] < YOUNG:
                self._saved = found
                gc.set_threshold(YOUNG, *found[1:])

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._entered = max(self._entered - 1, 0)  # it was forked in between
            if not self._entered and self._saved is not None:
                saved, self._saved = self._saved, None
                if gc.get_threshold() == (YOUNG, *saved[1:]):  # nobody has set another one meanwhile
                    gc.set_threshold(*saved)

    def _after_fork(self) -> None:
        """In a child, whose one thread is the one that forked: what others were in the midst of ends here."""
        saved = self._saved
        if saved is not None:
            gc.set_threshold(*saved)
        self._reset()


rarely_collected = _RarelyCollected()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=rarely_collected._after_fork)
