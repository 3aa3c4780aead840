"""Train a HyperCUT encoder on the clips of a store."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypercut_core.clips.dataset import Batch, ClipBatches
from hypercut_core.clips.store import ClipStore
from hypercut_core.ordering.distillation import distilled_loss, taught_direction, teacher_cosine
from hypercut_core.ordering.encoder import Encoder, EncoderConfig, both_scores, build_encoder
from hypercut_core.ordering.labels import score_clips
from hypercut_core.ordering.metrics import order_metrics
from hypercut_core.ordering.objective import check_collapse, hypercut_loss
from hypercut_core.ordering.recolour import recolour_pairs
from hypercut_core.training.checkpoint import pack
from hypercut_core.training.execution import Execution
from hypercut_core.training.loop import TrainingConfig, pick_device, train


def fit_encoder(store: ClipStore, model: EncoderConfig, training: TrainingConfig, seed: int, work: Path, *,
                recolour: bool = True, teacher: nn.Module | None = None, execution: Execution | None = None) -> Encoder:
    """Train an encoder on the store's training clips, resuming from its checkpoints.

    Args:
        recolour: show each pair of a clip in colours of its own (`recolour.py`).
        work: folder of the checkpoints, unless `execution` names another place.
        teacher: a frozen deblurrer whose direction is learned (`distillation.py`); None: HyperCUT's objective.

    Raises:
        TrainingCollapsed: its scores say nothing after a third of the training, or at its end.
    """
    torch.manual_seed(seed)
    encoder = build_encoder(model)
    device = pick_device(training.device)
    batches = ClipBatches(store, "train", training.batch, training.crop, seed, training.augmentation,
                          device=device, cache_bytes=training.cache_mb * 2**20)
    if teacher is not None:
        teacher = teacher.to(device).eval()
    patience = training.steps // 3

    def loss(module: nn.Module, batch: Batch, step: int) -> Tensor:
        sharp = recolour_pairs(batch.sharp, seed, step, batch.places) if recolour else batch.sharp
        scores = both_scores(module, sharp)
        if teacher is None:
            return hypercut_loss(*scores)
        return distilled_loss(*scores, taught_direction(teacher, batch.blurry, batch.sharp))

    def check(module: nn.Module, step: int) -> None:
        if step >= patience:
            with torch.no_grad():
                check_collapse(*both_scores(module, batches(step).sharp))

    identity = {"step": "train-encoder", "data": store.sha256, "seed": seed, "model": vars(model).copy(),
                "recolour": recolour}
    if teacher is not None:
        identity["teacher"] = hashlib.sha256(pack(teacher.state_dict(), {})).hexdigest()
    train(encoder, loss, batches, training, work, identity=identity, label="training the encoder", check=check,
          execution=execution)
    return encoder.cpu().requires_grad_(False)


def measure_encoder(encoder: Encoder, store: ClipStore, teacher: nn.Module | None = None) -> dict[str, Any]:
    """hit, Con and Joint on the unseen clips: {"val": {...}, "test": {...}}, splits without clips left out.

    With a teacher also `teacher`: how often the encoder says of a clip what the teacher says from its blur.
    """
    figures: dict[str, Any] = {}
    for split in ("val", "test"):
        indices = store.indices(split)
        if len(indices):
            forward, swapped = score_clips(encoder, store, indices, f"scoring {split} clips")
            figures[split] = {**order_metrics(forward, swapped), "clips": len(indices)}
            if teacher is not None:
                told = torch.stack([teacher_cosine(teacher, store, int(index)) for index in indices])
                figures[split]["teacher"] = float(((told >= 0) == (forward[:, 0] <= 0)).double().mean())
    return figures
