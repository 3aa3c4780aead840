"""Train a HyperCUT encoder on the clips of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypercut_core.clips.dataset import Batch, ClipBatches
from hypercut_core.clips.store import ClipStore
from hypercut_core.ordering.encoder import Encoder, EncoderConfig, both_scores, build_encoder
from hypercut_core.ordering.labels import score_clips
from hypercut_core.ordering.metrics import order_metrics
from hypercut_core.ordering.objective import check_collapse, hypercut_loss
from hypercut_core.ordering.recolour import recolour_pairs
from hypercut_core.training.loop import TrainingConfig, pick_device, train


def fit_encoder(store: ClipStore, model: EncoderConfig, training: TrainingConfig, seed: int, work: Path, *,
                recolour: bool = True) -> Encoder:
    """Train an encoder on the store's training clips, resuming from `work`.

    Args:
        recolour: show each pair of a clip in colours of its own (`recolour.py`).

    Raises:
        TrainingCollapsed: its scores say nothing after a third of the training, or at its end.
    """
    torch.manual_seed(seed)
    encoder = build_encoder(model)
    batches = ClipBatches(store, "train", training.batch, training.crop, seed, training.augmentation,
                          device=pick_device(training.device), cache_bytes=training.cache_mb * 2**20)
    patience = training.steps // 3

    def loss(module: nn.Module, batch: Batch, step: int) -> Tensor:
        sharp = recolour_pairs(batch.sharp, seed, step, batch.places) if recolour else batch.sharp
        return hypercut_loss(*both_scores(module, sharp))

    def check(module: nn.Module, step: int) -> None:
        if step >= patience:
            with torch.no_grad():
                check_collapse(*both_scores(module, batches(step).sharp))

    identity = {"step": "train-encoder", "data": store.sha256, "seed": seed, "model": vars(model).copy(),
                "recolour": recolour}
    train(encoder, loss, batches, training, work, identity=identity, label="training the encoder", check=check)
    return encoder.cpu().requires_grad_(False)


def measure_encoder(encoder: Encoder, store: ClipStore) -> dict[str, Any]:
    """hit, Con and Joint on the unseen clips: {"val": {...}, "test": {...}}, splits without clips left out."""
    figures: dict[str, Any] = {}
    for split in ("val", "test"):
        indices = store.indices(split)
        if len(indices):
            forward, swapped = score_clips(encoder, store, indices, f"scoring {split} clips")
            figures[split] = {**order_metrics(forward, swapped), "clips": len(indices)}
    return figures
