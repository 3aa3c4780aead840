"""A pool of processes. Each has a pipe of its own, so that a death is known at once, and whose task it was."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from components.synthesize_blur.fan_out import Event
from components.synthesize_blur.tasks import Job, Task, make
from hypercut_core.errors import HypercutError


class ProcessPool:
    """Worker processes of this machine; they are started when they are needed, and end when this process does."""

    def __init__(self, job: Job, workers: int):
        self.job, self.capacity = job, workers
        # forks of a server that has imported everything: a worker starts in milliseconds, and nothing of this
        # process (threads, open files) is in it
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._idle: list[tuple[ForkServerProcess, Connection]] = []
        self._busy: dict[Connection, tuple[ForkServerProcess, int]] = {}

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *error: object) -> None:
        for pipe, (busy, _number) in self._busy.items():
            busy.kill()
            self._idle.append((busy, pipe))
        for _process, idle in self._idle:
            idle.close()  # a worker that waits for a task ends at that
        for process, _pipe in self._idle:
            process.join(10)
            process.kill()
            process.join()

    def submit(self, number: int, task: Task) -> None:
        while True:
            process, pipe = self._idle.pop() if self._idle else self._start()
            try:
                pipe.send(task)
            except OSError:  # it died in its sleep
                pipe.close()
                process.join()
                continue
            self._busy[pipe] = (process, number)
            return

    def wait(self) -> list[Event]:
        return [self._read(pipe) for pipe in wait(list(self._busy)) if isinstance(pipe, Connection)]

    def _start(self) -> tuple[ForkServerProcess, Connection]:
        own, other = self._context.Pipe()
        process = self._context.Process(target=_work, args=(other, self.job), daemon=True)
        process.start()
        other.close()
        return process, own

    def _read(self, pipe: Connection) -> Event:
        process, number = self._busy[pipe]
        try:
            kind, value = pipe.recv()
        except (EOFError, OSError):
            del self._busy[pipe]
            pipe.close()
            process.join()
            return Event(number, "lost", what=_death(process.exitcode))
        if kind == "progress":
            return Event(number, "progress", steps=value)
        del self._busy[pipe]
        self._idle.append((process, pipe))
        return Event(number, kind, error=value)


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"signal {-code}, {signal.Signals(-code).name}"


def _work(pipe: Connection, job: Job) -> None:
    """A worker: does the tasks that come through the pipe."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(pipe, job, task))


def _outcome(pipe: Connection, job: Job, task: Task) -> tuple[str, Any]:
    try:
        make(job, task, lambda steps: pipe.send(("progress", steps)))
    except (HypercutError, OSError, MemoryError) as error:
        return "failed", error
    except Exception as error:  # a bug: its traceback is of this process, and would be lost
        return "failed", RuntimeError(f"in a worker process:\n{''.join(traceback.format_exception(error))}")
    return "done", None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
