"""Many independent trainings on Ray: one task each, on one CPU of whatever node has one.

The folders that a task reads and writes must be the same on all nodes (a shared file system).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from components.ray_address import expect_head
from hypercut_core.errors import MissingExtra


def each_on_ray(function: Callable[[Any], None], jobs: Sequence[Any], retries: int = 2) -> Iterator[tuple[Any, str]]:
    """Run ``function(job)`` for every job; yields (job, "") or (job, why it failed) as they end.

    Uses the Ray cluster that is there (Ray itself reads RAY_ADDRESS), or starts one on this machine and ends it.

    Args:
        retries: how often a task whose node or process died is tried again; an error of the function is final.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterError: nobody answers at RAY_ADDRESS.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error
    own = not ray.is_initialized()
    if own:
        expect_head()
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        task = ray.remote(num_cpus=1, max_retries=retries)(function)
        waiting = {task.remote(job): job for job in jobs}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(done)
            try:
                ray.get(done)
                yield job, ""
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                yield job, (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    finally:
        if own:
            ray.shutdown()
