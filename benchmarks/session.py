"""One library and the workloads it is given, in whatever process it lives; and that process, driven over a pipe.

Every library has a process of its own: their thread pools and memory pools do not meet, and one that crashes or never
comes back takes nothing with it. Blocks are started one at a time from outside, so that the libraries still take turns.
"""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.connection
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .peers import load
from .peers.base import Peer, Unsupported
from .workloads import BY_NAME

__all__ = ["Failed", "Process", "Session", "TimedOut"]

Reply = tuple[str, Any]


class Failed(Exception):
    """The library raised an error or crashed; the text says what."""


class TimedOut(Failed):
    """The library did not come back; its process has been ended."""


class Session:
    """What a library's process does: prepare a workload, time blocks of calls, forget it."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._call: Callable[[], Any] | None = None

    def version(self) -> str:
        return self.peer.version

    def prepare(self, name: str, tiny: bool) -> Any:
        """Compile, run twice, and give the result as NumPy arrays."""
        workload = BY_NAME[name]
        function, wait = workload.function(self.peer, tiny), self.peer.wait
        args = self.peer.arguments(workload.arguments_at(workload.tiny if tiny else workload.size))
        call = partial(function, *args)
        if wait is not None:
            call = lambda: wait(function(*args))  # noqa: E731
        result = self.peer.to_numpy(call())
        call()
        self._call = call
        return result

    def calls_per_block(self, seconds: float) -> tuple[int, float]:
        """How many calls fill a block, and about how long one takes."""
        call, n = self._called(), 1
        while True:
            start = time.perf_counter()
            for _ in range(n):
                call()
            elapsed = time.perf_counter() - start
            if elapsed >= seconds / 4:
                return max(1, round(n * seconds / elapsed)), elapsed / n
            n *= 4

    def block(self, calls: int, warm: bool) -> float:
        """Seconds per call. ``warm``: a call before brings caches and threads back to this library."""
        call = self._called()
        gc.collect()
        gc.disable()
        try:
            if warm:
                call()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            return (time.perf_counter() - start) / calls
        finally:
            gc.enable()

    def each(self, seconds: float) -> list[float]:
        """The time of each call, for so many seconds and at least 30 calls."""
        call = self._called()
        times: list[float] = []
        call()
        end = time.perf_counter() + seconds
        while len(times) < 30 or (len(times) < 50_000 and time.perf_counter() < end):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return times

    def forget(self) -> None:
        self._call = None
        self.peer.forget()
        gc.collect()

    def _called(self) -> Callable[[], Any]:
        if self._call is None:
            raise RuntimeError("nothing is prepared")
        return self._call


def answer(session: Session, command: str, args: tuple[Any, ...]) -> Reply:
    """Run a command; errors become replies."""
    try:
        return "ok", getattr(session, command)(*args)
    except Unsupported as reason:
        return "unsupported", str(reason)
    except Exception as error:
        return "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def _serve(name: str, connection: multiprocessing.connection.Connection, log: str) -> None:
    """The main function of a library's process. What the library prints goes to a file, not into the table."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    warnings.simplefilter("ignore")
    try:
        session = Session(load(name))
    except Exception as error:
        connection.send(("failed", f"{type(error).__name__}: {error}"))
        return
    connection.send(("ok", session.version()))
    while True:
        try:
            command, args = connection.recv()
        except EOFError:
            return
        connection.send(answer(session, command, args))


@dataclass
class Process:
    """A `Session` in a process of its own."""

    name: str
    log: str = os.devnull
    start_seconds: float = 120.0

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self.name, theirs, self.log), daemon=True)
        self._process.start()
        theirs.close()
        self.version: str = self.collect(self.start_seconds)

    def send(self, command: str, *args: Any) -> None:
        try:
            self._connection.send((command, args))
        except OSError as error:
            raise Failed(f"its process has ended ({error})") from None

    def collect(self, seconds: float) -> Any:
        """The reply to the last command."""
        try:
            if not self._connection.poll(seconds):
                self.stop()
                raise TimedOut(f"not done after {seconds:.0f} s")
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise Failed(f"its process ended with exit code {self._process.exitcode}") from None
        if kind == "ok":
            return value
        raise Unsupported(value) if kind == "unsupported" else Failed(value)

    def ask(self, command: str, *args: Any, seconds: float = 120.0) -> Any:
        self.send(command, *args)
        return self.collect(seconds)

    def cpu_seconds(self) -> float:
        """CPU time of all threads of the process so far; 0 where the system does not tell."""
        try:
            return time.clock_gettime((~(self._process.pid or 0) << 3) | 2)  # Linux: the clock of a process by its id
        except (OSError, AttributeError):
            return 0.0

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def stop(self) -> None:
        self._connection.close()
        if self._process.is_alive():
            self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
