"""The same pool over Ray: a task of Ray's for each task, on any node. Parts go through a folder that all nodes
share, as the footage does; no pixel passes through Ray."""

from __future__ import annotations

import logging
import secrets
import socket
from typing import Any

from components.ray_address import expect_head
from components.synthesize_blur.fan_out import Event
from components.synthesize_blur.tasks import Job, Task, make
from hypercut_core.errors import ClusterError, HypercutError, MissingExtra, StorageError
from hypercut_core.files import write_text

TOKEN = "shared"  # a file by which a node sees that the folder is the same


class RayPool:
    """Workers of a Ray cluster: the one that RAY_ADDRESS names, or one that is started here and ends with this.

    Args:
        workers: tasks at a time; 0: as many as the cluster has CPUs.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterError: there is no Ray cluster at the address.
    """

    def __init__(self, job: Job, workers: int):
        try:
            import ray
        except ImportError as error:
            raise MissingExtra("ray", "ray") from error
        self._ray, self._mine = ray, not ray.is_initialized()
        if self._mine:
            expect_head()
            try:
                ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                first = (str(error).strip().splitlines() or ["no answer"])[0][:200]
                raise ClusterError(f"the Ray cluster cannot be used ({first})", where="RAY_ADDRESS",
                                   remedy="check it with 'ray status', or unset RAY_ADDRESS to start one here") \
                    from error
        self.capacity = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        token = secrets.token_hex(16)
        write_text(job.folder / TOKEN, token)
        # Ray tries nothing again by itself: tries are counted in one place
        self._make = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_make)
        self._job, self._token = ray.put(job), token
        self._running: dict[Any, int] = {}

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._running:
            self._ray.cancel(running, force=True)
        if self._mine:
            self._ray.shutdown()
        elif self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=60)

    def submit(self, number: int, task: Task) -> None:
        self._running[self._make.remote(self._job, task, self._token)] = number

    def wait(self) -> list[Event]:
        ready, _ = self._ray.wait(list(self._running), num_returns=1)
        return [event for running in ready for event in self._outcome(running, self._running.pop(running))]

    def _outcome(self, running: Any, number: int) -> list[Event]:
        errors = self._ray.exceptions
        try:
            error, size = self._ray.get(running)
        except errors.RayTaskError:
            raise  # a bug; Ray shows the traceback of the node
        except errors.RayError as lost:  # the process or its node died, or was ended for want of memory
            return [Event(number, "lost", what=f"{type(lost).__name__}")]
        if error is not None:
            return [Event(number, "failed", error=error)]
        return [Event(number, "progress", steps=size), Event(number, "done")]


def _make(job: Job, task: Task, token: str) -> tuple[Exception | None, int]:
    import torch

    torch.set_num_threads(1)
    seen = job.folder / TOKEN
    if not seen.is_file() or seen.read_text(encoding="utf-8") != token:
        return StorageError(f"the node {socket.gethostname()} does not see the folder of the parts", where=job.folder,
                            remedy="work in a folder that all nodes share, or set blur.scale.launcher=local"), 0
    try:
        make(job, task, lambda _: None)
    except (HypercutError, OSError, MemoryError) as error:
        return error, 0
    return None, task.size
