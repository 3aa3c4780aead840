"""How a training is spread over processes and machines. Nothing here changes its result, so it is no part of
DVC's or Kubeflow's key of that result: `training.batch` is the batch of all workers together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hypercut_core.errors import BadParameters
from hypercut_core.training.loop import TrainingConfig

PLACE = "deblurrer.scale"


@dataclass(frozen=True)
class ScaleConfig:
    """Group `deblurrer.scale`."""

    launcher: Literal["local", "ray", "rayjob"] = "local"  # this process; a Ray cluster; Ray in Kubernetes
    workers: int = 1  # processes that share each batch (ray)
    cpus_per_worker: int = 1  # CPU cores that Ray keeps for a worker
    gpus_per_worker: int = 0  # GPUs that Ray keeps for a worker: 0 or 1
    micro_batch: int = 0  # clips in memory at once, gradients are added up; 0: a worker's whole share
    checkpoints: str = ""  # folder or s3:// prefix of the checkpoints; empty: the step's work folder
    keep: int = 2  # newest checkpoints that are kept, and beside them the one of the lowest loss
    lost_workers: int = 3  # how often a training is resumed after a lost worker or node
    hung_workers: int = 3  # how often it is resumed after a worker that hung
    hung_seconds: float = 600.0  # a worker that the others wait for so long hangs, s
    join_seconds: float = 600.0  # how long nodes that are missing are waited for, s
    watch_seconds: float = 30.0  # time between two entries in MLflow while it trains, s; 0: none


def check_scale(scale: ScaleConfig, training: TrainingConfig) -> None:
    """Refuse what cannot run.

    Raises:
        BadParameters: names the setting.
    """
    def refuse(what: str, key: str, remedy: str) -> None:
        raise BadParameters(what, where=f"{PLACE}.{key}", remedy=remedy)

    if scale.workers < 1:
        refuse("a training needs a worker", "workers", "set it to 1 or more")
    if scale.workers > training.batch:
        refuse(f"{scale.workers} workers cannot share batches of {training.batch} clips", "workers",
               "use fewer workers, or raise deblurrer.training.batch (which changes the result)")
    if scale.launcher == "local" and scale.workers > 1:
        refuse("the launcher 'local' has one worker", "workers", f"set {PLACE}.launcher to ray")
    if scale.gpus_per_worker not in (0, 1):
        refuse("a worker trains on one GPU or on none", "gpus_per_worker", "use more workers for more GPUs")
    if scale.cpus_per_worker < 1:
        refuse("a worker needs a CPU core", "cpus_per_worker", "set it to 1 or more")
    if scale.keep < 1:
        refuse("at least one checkpoint has to be kept", "keep", "set it to 2")
    if scale.hung_seconds < 1:
        refuse("workers wait for each other for a second at least", "hung_seconds", "set it to 600")
