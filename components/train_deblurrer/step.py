"""train-deblurrer: clips and their orders → a deblurrer."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from components.checkpoint_places import checkpoint_place, open_checkpoints
from components.clip_stores import open_clips
from components.train_deblurrer.scale import ScaleConfig, check_scale
from components.train_deblurrer.start import check_start, opened_start
from components.train_deblurrer.task import DeblurrerTask, WatchMaker
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.models import EVEN_ODD, Deblurrer, save_deblurrer
from hypercut_core.deblurring.objectives import LossConfig, Objective
from hypercut_core.deblurring.peers import KindName, PeerSettings, described, rate
from hypercut_core.deblurring.training import DeblurrerTraining
from hypercut_core.files import write_json
from hypercut_core.ordering.encoder import load_encoder
from hypercut_core.ordering.labels import read_orders
from hypercut_core.training.checkpoint_folder import forget_checkpoints
from hypercut_core.training.execution import Execution
from hypercut_core.training.loop import TrainingConfig, forget, training_facts
from hypercut_core.training.world import World


@dataclass(frozen=True)
class TrainDeblurrerConfig:
    """The deblurrer of a run; `objectives` in params.yaml lists those that are trained beside it."""

    objective: Objective = "hypercut_targets"  # the shipped one
    kind: KindName = "even_odd"  # of all deblurrers of a run; its shape: `model` for even_odd, else below `peers`
    model: DeblurrerConfig = field(default_factory=DeblurrerConfig)
    start: str = ""  # file or s3:// whose weights come first, {objective} in it is replaced; empty: fresh weights
    peers: PeerSettings = field(default_factory=PeerSettings)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)


def train_deblurrer(store: str | Path, orders: Path, encoder: Path, config: TrainDeblurrerConfig, objective: str,
                    out: Path, metrics: Path, seed: int, work: Path, *,
                    watch: WatchMaker | None = None) -> dict[str, Any]:
    """Train one objective's deblurrer; write it to `out` and its figures to `metrics`.

    A killed run goes on where it was, however it was spread over processes before and is now.

    Args:
        watch: makes what is told how the training goes.
    """
    check_scale(config.scale, config.training)
    check_start(config.start, config.scale.launcher)
    clips = open_clips(store)
    if config.scale.launcher == "rayjob":
        from components.train_deblurrer.ray_job_launch import train_by_ray_job

        return train_by_ray_job(store, clips.sha256, orders, encoder, config, objective, out, metrics, seed, work)
    folder = work / f"train-deblurrer-{objective}"
    settings = deblurrer_training(config)
    task = DeblurrerTask(str(store) if "://" in str(store) else str(Path(store).resolve()), objective, settings, seed,
                         read_orders(orders), load_encoder(encoder),
                         opened_start(config.start, objective, out, folder))
    place = checkpoint_place(folder.name, task.facts(clips.sha256), config.scale.checkpoints, folder)
    model = _trained(task, config.scale, place, folder, watch)
    figures = {"objective": objective, "parameters": sum(p.numel() for p in model.parameters()),
               "steps": config.training.steps, "clips_seen": config.training.steps * config.training.batch}
    begun = {"start": {"name": task.start.name, "sha256": task.start.sha256}} if task.start else {}
    if config.kind != EVEN_ODD:
        figures["kind"] = config.kind
    save_deblurrer(out, model, {"objective": objective, "data": clips.sha256, "seed": seed,
                                "loss": asdict(config.loss), "training": training_facts(settings.training), **begun})
    write_json(metrics, figures)
    forget_checkpoints(open_checkpoints(place))
    forget(folder)
    return figures


def deblurrer_training(config: TrainDeblurrerConfig) -> DeblurrerTraining:
    """What is trained: the model of the chosen kind, at that kind's learning rate.

    Raises:
        BadParameters: sizes that no model can have.
    """
    training = replace(config.training, rate=rate(config.kind, config.peers, config.training.rate))
    return DeblurrerTraining(described(config.kind, config.model, config.peers), config.loss, training,
                             config.peers.recurrent.stages)


def _trained(task: DeblurrerTask, scale: ScaleConfig, place: str, folder: Path,
             watch: WatchMaker | None) -> Deblurrer:
    if scale.launcher == "ray":
        from components.train_deblurrer.ray_trainer import train_with_ray

        return train_with_ray(task, scale, place, folder / "ray", watch)
    with contextlib.nullcontext() if watch is None else watch() as told:
        return task.train(folder, Execution(World(), scale.micro_batch, open_checkpoints(place), scale.keep, told,
                                            scale.watch_seconds))
