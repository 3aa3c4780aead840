"""Tasks spread over workers: in this process, over processes, or over Ray (ray_fan.py).

A task's outcome does not depend on where or how often it is done, so a worker that dies costs its task another
try and nothing else. Tasks end in any order; they are handed on in theirs, and workers are never more than a few
tasks ahead of that, which bounds what lies finished and waits.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

from hypercut_core.errors import BadParameters, HypercutError, WorkerLost
from hypercut_core.progress import Progress

AHEAD = 3  # tasks that each worker may be ahead


@dataclass(frozen=True)
class FanOutConfig:
    """How the work is spread. The clips do not depend on it, and neither does what DVC and Kubeflow remember."""

    launcher: Literal["local", "ray"] = "local"  # processes here, or Ray: that of RAY_ADDRESS, or one started here
    workers: int = 1  # tasks at a time, each on one core; 0: as many as there are cores
    tries: int = 3  # how often a task is tried whose worker dies, such as for want of memory


@dataclass(frozen=True)
class Event:
    """Something that a pool tells of a task."""

    task: int
    kind: Literal["progress", "done", "failed", "lost"]
    steps: int = 0  # progress
    error: BaseException | None = None  # failed
    what: str = ""  # lost: how


class Pool(Protocol):
    """Workers. A context manager: at its end none of them is at work any more."""

    capacity: int  # tasks at a time

    def __enter__(self) -> Pool: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...

    def submit(self, number: int, task: Any) -> None: ...

    def wait(self) -> list[Event]:
        """What happened since; waits until something has."""


class InProcess:
    """No workers: `wait` does the task that was submitted."""

    capacity = 1

    def __init__(self, make: Callable[[Any, Callable[[int], None]], None], progress: Progress):
        self._make, self._progress = make, progress
        self._next: tuple[int, Any] | None = None

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, number: int, task: Any) -> None:
        self._next = (number, task)

    def wait(self) -> list[Event]:
        assert self._next is not None
        number, task = self._next
        try:
            self._make(task, lambda steps: self._progress.advance(steps, note=task.label))
        except HypercutError as error:
            return [Event(number, "failed", error=error)]
        return [Event(number, "done")]


def in_order(pool: Pool, tasks: Sequence[Any], tries: int, progress: Progress) -> Iterator[Any]:
    """Do all tasks; yield each when it is done and all before it were yielded.

    Raises:
        the error of the first task, in order, that has one; WorkerLost: a task's workers died `tries` times.
    """
    open_ = _Open(list(range(len(tasks))), {}, Counter())
    running: set[int] = set()
    told: Counter[int] = Counter()
    for head, task in enumerate(tasks):
        while head not in open_.ended:
            while open_.may_start(head, len(running), pool.capacity):
                number = heapq.heappop(open_.waiting)
                pool.submit(number, tasks[number])
                running.add(number)
            for event in pool.wait():
                if event.kind == "progress":
                    progress.advance(event.steps, note=tasks[event.task].label)
                    told[event.task] += event.steps
                    continue
                if event.kind == "lost":
                    progress.advance(-told.pop(event.task, 0))
                running.discard(event.task)
                open_.note(event, tasks[event.task].label, tries)
        error = open_.ended.pop(head)
        if error is not None:
            raise error
        yield task


@dataclass
class _Open:
    """Tasks that were not handed on."""

    waiting: list[int]  # a heap
    ended: dict[int, BaseException | None]
    lost: Counter[int]

    def may_start(self, head: int, running: int, capacity: int) -> bool:
        failed = min((number for number, error in self.ended.items() if error), default=None)
        return (bool(self.waiting) and running < capacity and self.waiting[0] < head + capacity * (1 + AHEAD)
                and (failed is None or self.waiting[0] < failed))

    def note(self, event: Event, label: str, tries: int) -> None:
        if event.kind == "done":
            self.ended[event.task] = None
        elif event.kind == "failed":
            self.ended[event.task] = event.error
        else:
            self.lost[event.task] += 1
            if self.lost[event.task] < tries:
                heapq.heappush(self.waiting, event.task)
                return
            self.ended[event.task] = WorkerLost(
                f"the worker died {tries} times while it made the clips of '{label}' ({event.what})",
                where="synthesize-blur",
                remedy="give it more memory or lower blur.scale.workers, and look at that footage")


def check(config: FanOutConfig) -> None:
    """Raises BadParameters: no try at all."""
    if config.tries < 1:
        raise BadParameters("a task cannot be tried less than once", where="blur.scale.tries", remedy="set it to 3")


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: of its affinity, and of its container's share."""
    import os

    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period))) if quota != "max" else cores
    except (OSError, ValueError):
        return cores
