"""How a training on Ray can fail, and how often each kind of failure is made up for.

==================  ===========================================================  =========================
kind                what it looks like                                           resumed
==================  ===========================================================  =========================
bad input           any HypercutError of a worker (damaged clips, a collapsed    never
                    training, another version of a package ...)
out of memory       the GPU's memory is full                                     never: it would be again
`LostWorker`        a process or a node died or did not start, connections       `lost_workers` times
                    broke
`HungWorker`        the others waited for `hung_seconds`                         `hung_workers` times
a bug               everything else                                              never
==================  ===========================================================  =========================
"""

from __future__ import annotations

from collections.abc import Mapping

from components.train_deblurrer.scale import PLACE, ScaleConfig
from hypercut_core.errors import BadParameters, ClusterError, HypercutError

# how gloo and NCCL say it; torch has one class (or none) for both
WAITED = ("timed out", "timeout", "timedout")
STARTS = {"WorkerGroupStartupTimeoutError", "WorkerGroupStartupFailedError"}
DEATHS = {"RayActorError", "WorkerCrashedError", "NodeDiedError", "LocalRayletDiedError"}
BROKEN = ("connection closed by peer", "connection reset", "connection refused", "broken pipe", "socket closed",
          "remote process exited", "connection was likely closed")


class LostWorker(ClusterError):
    """A worker process or its node died."""


class HungWorker(ClusterError):
    """A worker did not answer for as long as the others may wait."""


def kind_of(failures: Mapping[int, BaseException]) -> HypercutError | None:
    """What made a group of workers fail; None for a bug.

    When one rank fails the others fail of it: the cause is the rank that says most, so bad input before a
    death, and a death before what only waited for it.

    Args:
        failures: rank → what happened there.
    """
    causes = {rank: _cause(error) for rank, error in sorted(failures.items())}
    for error in causes.values():
        if isinstance(error, HypercutError):
            return error
    for rank, error in causes.items():
        if type(error).__name__ == "OutOfMemoryError" and "cuda" in str(error).lower():
            return BadParameters(f"the GPU's memory is full on worker {rank}", where=f"{PLACE}.micro_batch",
                                 remedy="set it to fewer clips than a worker's share; the result stays the same")
    if any(_is(error, STARTS) for error in causes.values()):
        return LostWorker("the workers did not start", where="ray",
                          remedy="look at the nodes' free CPUs, GPUs and memory, then run the same command again")
    bugs = [error for error in causes.values() if not (_died(error) or _broke(error) or _waited(error))]
    dead = [rank for rank, error in causes.items() if _died(error)]
    if bugs and not dead:
        return None
    if dead:
        return LostWorker(f"worker {_names(dead)} died ({_first_line(causes[dead[0]])})", where="ray",
                          remedy="look at the node's memory and health, then run the same command again")
    waiting = [rank for rank, error in causes.items() if _waited(error)]
    if waiting:
        return HungWorker(f"worker {_names(waiting)} waited in vain for another", where="ray",
                          remedy=f"look at the nodes and their network, or raise {PLACE}.hung_seconds")
    return LostWorker(f"worker {_names(list(causes))} lost the connection to another", where="ray",
                      remedy="look at the nodes and their network, then run the same command again")


class Budgets:
    """How many failures of each kind are left."""

    def __init__(self, scale: ScaleConfig):
        self.left: dict[type[HypercutError], int] = {LostWorker: scale.lost_workers, HungWorker: scale.hung_workers}

    def spend(self, failure: HypercutError) -> int:
        """Pay for a failure; returns how many of its kind are left.

        Raises:
            HypercutError: the failure, if its kind is not made up for (any more).
        """
        left = self.left.get(type(failure), 0)
        if left < 1:
            raise failure
        self.left[type(failure)] = left - 1
        return left - 1


def _cause(error: BaseException) -> BaseException:
    """Ray wraps what happened: the death of a process, or a task's own exception."""
    for name in ("health_check_failure", "controller_failure", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException) and inner is not error:
            return _cause(inner)
    return error


def _is(error: BaseException, names: set[str]) -> bool:
    return bool(names & {kind.__name__ for kind in type(error).__mro__})  # Ray is not imported here


def _died(error: BaseException) -> bool:
    return _is(error, DEATHS) or (type(error).__module__.startswith("ray.") and _is(error, {"OutOfMemoryError"}))


def _waited(error: BaseException) -> bool:
    text = str(error).lower()
    return _is(error, {"WorkerHealthCheckTimeoutError"}) or (
        isinstance(error, RuntimeError) and any(word in text for word in WAITED))


def _broke(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in BROKEN)


def _names(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".:")
