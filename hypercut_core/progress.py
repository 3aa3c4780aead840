"""Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")
_bars = threading.local()  # whether this thread shows one


def say(line: str) -> None:
    """One line for people, on standard error."""
    print(f"hypercut: {line}", file=sys.stderr, flush=True)


class Progress:
    """Count steps of named work. Use as a context manager and call `advance`.

    Args:
        label: what is being done.
        total: number of steps, if known.
        every: seconds between two plain lines when standard error is no terminal.
        shown: False counts and says nothing.
    """

    def __init__(self, label: str, total: int | None = None, every: float = 10.0, shown: bool = True):
        self.label, self.total, self.every, self.shown = label, total, every, shown
        self.done = 0
        self._bar: Any = None
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Progress:
        if self.shown and sys.stderr.isatty():
            if getattr(_bars, "open", False):  # a terminal shows one bar at a time: that of the whole
                self.shown = False
                return self
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                            TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
                            console=Console(stderr=True), transient=True)
            self._bar.start()
            _bars.open = True
            self._task = self._bar.add_task(self.label, total=self.total, note="")
        return self

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=note)
            return
        now = time.monotonic()
        if self.shown and now - self._last >= self.every:
            self._last = now
            of = f"/{self.total}" if self.total else ""
            print(f"{self.label}: {self.done}{of} after {now - self._start:.0f} s {note}".rstrip(),
                  file=sys.stderr, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            _bars.open = False


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Yield from `items`, showing progress."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(label, total) as progress:
        for item in items:
            yield item
            progress.advance()
