"""Training on Ray: a TorchTrainer round the same loop that trains on a laptop.

    hypercut train-deblurrer --set deblurrer.scale.launcher=ray --set deblurrer.scale.workers=2

The cluster is the one that RAY_ADDRESS names or that runs on this machine; without one, Ray is started here for
as long as the training takes. Ray places the workers and joins them (gloo, or NCCL on GPUs); what they do is
`DeblurrerTask.train`, and what they save goes through a FileStore as everywhere else. So Ray keeps no checkpoints
of its own, and a try that fails is followed by another, which goes on from the newest one, as often as
failures.py allows. Keys of the object store come from each node's environment and are never handed on.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.checkpoint_places import open_checkpoints
from components.ray_address import expect_head
from components.train_deblurrer.failures import Budgets, kind_of
from components.train_deblurrer.scale import PLACE, ScaleConfig
from components.train_deblurrer.task import DeblurrerTask, WatchMaker
from components.train_deblurrer.versions import check_versions, versions
from hypercut_core.deblurring.models import Deblurrer, load_deblurrer, save_deblurrer
from hypercut_core.errors import ClusterError, HypercutError, MissingExtra
from hypercut_core.progress import Progress, say
from hypercut_core.training.checkpoint_folder import newest_name
from hypercut_core.training.execution import Execution
from hypercut_core.training.world import World

LOOK = 5.0  # time between two looks at the checkpoints, s


@dataclass(frozen=True)
class Order:
    """What the driver hands to each worker."""

    task: DeblurrerTask
    scale: ScaleConfig
    checkpoints: str  # folder or s3:// prefix
    versions: Mapping[str, str]  # of the driver
    watch: WatchMaker | None  # opened in the first worker only


@dataclass(frozen=True)
class Trained:
    """What comes back from the first worker."""

    model: bytes  # of a model file
    said: tuple[str, ...]  # what went wrong and was survived


def train_with_ray(task: DeblurrerTask, scale: ScaleConfig, checkpoints: str, work: Path,
                   watch: WatchMaker | None = None) -> Deblurrer:
    """Train on a Ray cluster and bring the model back, on the CPU.

    Args:
        checkpoints: where all workers reach it: with several nodes an s3:// prefix or a shared folder.
        work: folder of this machine for what Ray writes down.
        watch: makes what is told how the training goes; must be picklable.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterError: no cluster, too small a one, nodes with other versions, or more workers lost than
            `scale` allows. The checkpoints stay: the same call goes on from the last.
        HypercutError: what a worker says of bad input or a training that failed.
    """
    order = Order(task, scale, checkpoints, versions(), watch)
    budgets = Budgets(scale)
    with _cluster() as ray:
        _warn_of_local_checkpoints(ray, checkpoints)
        while True:
            _wait_for_room(ray, scale)
            outcome = _attempt(ray, order, work)
            if isinstance(outcome, Trained):
                return _received(outcome)
            left = budgets.spend(outcome)
            say(f"{' '.join(outcome.what.split())}: going on from the last checkpoint ({left} more such failures are"
                " made up for)")


def _attempt(ray: Any, order: Order, work: Path) -> Trained | HypercutError:
    """One group of workers, to the end or to its first failure.

    Raises:
        RuntimeError: a bug, with the worker's traceback.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    scale = order.scale
    trainer = TorchTrainer(
        _work, train_loop_config={"order": order},  # type: ignore[arg-type]
        scaling_config=ScalingConfig(
            num_workers=scale.workers, use_gpu=scale.gpus_per_worker > 0,
            resources_per_worker={"CPU": scale.cpus_per_worker,
                                  **({"GPU": scale.gpus_per_worker} if scale.gpus_per_worker else {})}),
        # which failures are made up for, and how often, is for `Budgets` to say; Ray alone tries again, a minute each,
        # to start workers on a node that has gone and is still counted
        run_config=RunConfig(name=f"{order.task.objective}-{uuid.uuid4().hex[:8]}", storage_path=str(work.resolve()),
                             failure_config=FailureConfig(
                                 max_failures=0,  # the next is of Train V2, which mypy does not see
                                 controller_failure_limit=math.ceil(  # type: ignore[call-arg]
                                     scale.join_seconds / 60))),
        torch_config=TorchConfig(timeout_s=max(1, round(scale.hung_seconds))))
    try:
        trained: Trained = _fitted(trainer, order)
    except (TrainingFailedError, ray.exceptions.RayError) as error:  # of workers, or of the process that leads them
        failure = kind_of(getattr(error, "worker_failures", None) or {0: error})
        if failure is None:
            raise
        return failure
    return trained


def _fitted(trainer: Any, order: Order) -> Trained:
    """What the first worker returns; meanwhile shows how far the newest checkpoint is, which all nodes can see.

    `fit` runs in a thread of its own: in the main thread it would take Ctrl-C for a reason to end well.
    """
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(trainer.fit().return_value)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name="ray", daemon=True)
    thread.start()
    files, scale = open_checkpoints(order.checkpoints), order.scale
    label = f"training {order.task.objective} on {scale.workers} workers, saved"
    with Progress(label, order.task.settings.training.steps) as progress:
        while thread.is_alive():
            thread.join(LOOK)
            with contextlib.suppress(HypercutError, OSError):
                newest = newest_name(files)
                if newest is not None and newest[0] != progress.done:
                    progress.advance(newest[0] - progress.done, f"loss {newest[1]:.4f}")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    trained: Trained = outcome[0]
    return trained


def _work(config: dict[str, Any]) -> Trained | None:
    """What each worker does; the first returns the model."""
    import ray
    import torch
    from ray.train.torch import get_device

    order: Order = config["order"]
    check_versions(order.versions, versions(), f"node {ray.util.get_node_ip_address()}")
    world = World.here()
    settings = order.task.settings
    if not settings.training.threads:
        torch.set_num_threads(order.scale.cpus_per_worker)
    device = str(get_device()) if order.scale.gpus_per_worker else "cpu"
    task = replace(order.task, settings=replace(settings, training=replace(settings.training, device=device)))
    watching = order.watch() if order.watch is not None and world.first else contextlib.nullcontext()
    said: list[str] = []
    with watching as watch:
        model = task.train(Path(), Execution(
            world, order.scale.micro_batch, open_checkpoints(order.checkpoints), order.scale.keep, watch,
            order.scale.watch_seconds, say=said.append))
    return _packed(model, said) if world.first else None


def _packed(model: Deblurrer, said: list[str]) -> Trained:
    with tempfile.TemporaryDirectory() as folder:
        save_deblurrer(Path(folder) / "model", model, {})
        return Trained((Path(folder) / "model").read_bytes(), tuple(said))


def _received(trained: Trained) -> Deblurrer:
    for line in trained.said:
        say(line)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").write_bytes(trained.model)
        return load_deblurrer(Path(folder) / "model")


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected: to RAY_ADDRESS, to the cluster of this machine, or to one that is started now."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.train.torch
        import ray.util
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error
    mine = not ray.is_initialized()
    if mine:
        _connect(ray)
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def _connect(ray: Any) -> None:
    """Raises ClusterError: there is an address and nobody there, or a cluster of other versions."""
    expect_head()
    try:
        # what workers and Ray's own processes print stays in the logs of the nodes (/tmp/ray)
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:400].rstrip(".") or "no answer"
        raise ClusterError(f"the Ray cluster cannot be used ({reason})", where="RAY_ADDRESS",
                           remedy="start one with 'ray start --head', give its address, or unset RAY_ADDRESS to train"
                                  " on this machine alone") from error


def _wait_for_room(ray: Any, scale: ScaleConfig) -> None:
    """Wait until the cluster has what the workers need: a lost node may be replaced.

    Raises:
        ClusterError: it has not within `join_seconds`.
    """
    wanted = {"CPU": scale.workers * scale.cpus_per_worker, "GPU": scale.workers * scale.gpus_per_worker}
    end, told = time.monotonic() + scale.join_seconds, False
    while True:
        there = ray.cluster_resources()
        short = [f"{there.get(name, 0):g} of {number} {name}s" for name, number in wanted.items()
                 if there.get(name, 0) < number]
        if not short:
            return
        if time.monotonic() >= end:
            raise ClusterError(f"the Ray cluster has only {' and '.join(short)}", where=f"{PLACE}.workers",
                               remedy="use fewer workers or add nodes; the training goes on from its last checkpoint")
        if not told:
            say(f"the Ray cluster has only {' and '.join(short)}: waiting {scale.join_seconds:g} s for more")
            told = True
        time.sleep(1)


def _warn_of_local_checkpoints(ray: Any, checkpoints: str) -> None:
    nodes = len([node for node in ray.nodes() if node["Alive"]])
    if nodes > 1 and "://" not in checkpoints:
        say(f"checkpoints go to {checkpoints} of whichever of the {nodes} nodes has the first worker: unless that is a"
            f" shared folder, set {PLACE}.checkpoints to an s3:// prefix")
