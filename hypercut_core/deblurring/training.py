"""Train a deblurrer on the clips of a store."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypercut_core.clips.dataset import Batch, ClipBatches
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.contact_sheet import contact_sheet, sample_clips
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.kinds_training import lesson_of
from hypercut_core.deblurring.models import EVEN_ODD, Config, Deblurrer, kind_of
from hypercut_core.deblurring.objectives import DIRECTED, LossConfig, check_objective, objective_loss
from hypercut_core.deblurring.peers import STAGES
from hypercut_core.deblurring.start import Start
from hypercut_core.ordering.encoder import Encoder
from hypercut_core.ordering.labels import OrderTable
from hypercut_core.training.execution import Execution, Picture
from hypercut_core.training.loop import TrainingConfig, pick_device, train


@dataclass(frozen=True)
class DeblurrerTraining:
    """What is trained and how."""

    model: Config = field(default_factory=DeblurrerConfig)  # of any kind
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    stages: tuple[float, ...] = STAGES  # shares of the recurrent model's three training stages


def fit_deblurrer(store: ClipStore, objective: str, settings: DeblurrerTraining, seed: int, work: Path, *,
                  orders: OrderTable | None = None, encoder: Encoder | None = None,
                  execution: Execution | None = None, start: Start | None = None) -> Deblurrer:
    """Train a deblurrer of any kind on the store's training clips, resuming from its checkpoints.

    Args:
        orders: needed by the objective `hypercut_targets`.
        encoder: needed by the objective `hypercut`; stays frozen.
        work: folder of the checkpoints, unless `execution` names another place.
        execution: alone or as one of several processes, where the checkpoints lie, who watches.
        start: whose weights are the first ones; None: fresh ones. A recurrent model then has only its last training
            stage: the others would teach its decoder anew, by a video encoder that knows nothing yet.

    Raises:
        BadParameters: an unknown objective, or `start` is of another kind, shape or number of frames.
    """
    check_objective(objective)
    training = settings.training
    device = pick_device(training.device)
    torch.manual_seed(seed)
    shape = settings.model
    if isinstance(shape, DeblurrerConfig) and objective not in DIRECTED:
        shape = replace(shape, axes=1)
    axes = shape.axes if isinstance(shape, DeblurrerConfig) else 1
    stages = settings.stages if start is None else (0.0, 0.0, 1.0)
    lesson = lesson_of(shape, store.frames, objective, training.steps, stages)
    if start is not None:
        start.give_to(lesson.model)
    directions = None
    if objective == "hypercut_targets" and orders is not None:
        known = orders.for_clips if axes == 1 else orders.axes_for_clips
        directions = known(store, store.indices("train"))
    batches = ClipBatches(store, "train", training.batch, training.crop, seed, training.augmentation,
                          directions, device, training.cache_mb * 2**20)
    judge = encoder.to(device) if encoder is not None and objective == "hypercut" else None
    layout = torch.channels_last if training.channels_last else torch.contiguous_format

    def criterion(predicted: Tensor, sharp: Tensor, direction: Tensor) -> Tensor:
        return objective_loss(objective, predicted, sharp, direction, settings.loss, judge, shape.response)

    def loss(module: nn.Module, batch: Batch, step: int) -> Tensor:
        seen = replace(batch, blurry=batch.blurry.contiguous(memory_format=layout))
        return lesson.loss(module, seen, step, criterion)

    identity: dict[str, Any] = {"step": "train-deblurrer", "data": store.sha256, "seed": seed,
                                "objective": objective, "model": asdict(shape),
                                "loss": asdict(settings.loss)}
    kind = kind_of(settings.model)
    if kind != EVEN_ODD:
        identity |= {"kind": kind, "stages": list(stages)}
    if start is not None:
        identity["start"] = start.sha256
    if directions is not None:
        identity["orders"] = hashlib.sha256(directions.tobytes()).hexdigest()
    label = f"training {objective}" if kind == EVEN_ODD else f"training {kind}, {objective}"
    if execution is not None and (follow := execution.follow) is not None:  # it is shown what will be kept
        execution = replace(execution, follow=lambda _, step, value: follow(lesson.model, step, value))
    train(lesson.module, loss, batches, training, work, identity=identity, label=label, execution=execution,
          picture=_picture_of(store, lesson.model), in_parts=lesson.in_parts)
    return lesson.model.cpu()


def _picture_of(store: ClipStore, model: Deblurrer) -> Picture | None:
    """Draws what the model makes of two clips that it does not see in training; read when first asked for."""
    needs_more = getattr(model.config, "protocol", "blind") != "blind"  # than the blurry image
    if needs_more or not any(len(store.indices(split)) for split in ("val", "test")):
        return None
    clips = cache(lambda: sample_clips(store))
    return lambda _: contact_sheet(model, clips())
