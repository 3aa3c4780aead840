"""A distilled order: the direction that a deblurrer itself chooses, learned by an encoder.

HyperCUT's objective asks for an order that the pairs of a clip agree on; nothing asks that a blurry image could
tell it. Here a deblurrer is asked first. Two passes:

1. A teacher is trained with `sequence_min`: it may choose a direction for each clip, and chooses what the
   blurry image tells it.
2. The encoder learns that choice from sharp pairs: with D the true and D' the predicted odd part of a clip and
   y = sign <D', D>, the loss is mean_k sp(y u_k), sp(z) = log(1 + e^z), which pushes a clip that runs as the
   teacher predicts to the negative, canonical side, and its reversal to the other one.

The labels are made batch by batch from the very crop that the encoder sees; nothing of them is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.objectives import LossConfig
from hypercut_core.deblurring.parts import split_parts
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.errors import TrainingCollapsed
from hypercut_core.ordering.labels import clip_tensor
from hypercut_core.training.execution import Execution
from hypercut_core.training.loop import TrainingConfig

LEAST_COSINE = 0.03  # median |cos(D', D)| of a teacher that knows anything; chance is about 0.005
CHECKED = 64  # clips that this is measured on


@dataclass(frozen=True)
class TeacherConfig:
    """The deblurrer that a distilled order comes from: as large and as long trained as the shipped one."""

    model: DeblurrerConfig = field(default_factory=lambda: DeblurrerConfig(blocks=(1, 2, 4)))
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=3000, batch=8, crop=40, rate=1.5e-3))


def fit_teacher(store: ClipStore, settings: TeacherConfig, seed: int, work: Path,
                execution: Execution | None = None) -> EvenOddDeblurrer:
    """Train the teacher on the store's training clips, resuming from its checkpoints; with one axis and one view.

    Args:
        work: folder of the checkpoints, unless `execution` names another place.

    Raises:
        TrainingCollapsed: what it predicts has nothing to do with the motion of the training clips.
    """
    lesson = DeblurrerTraining(replace(settings.model, axes=1, views=1), settings.loss, settings.training)
    teacher = fit_deblurrer(store, "sequence_min", lesson, seed, work, execution=execution)
    known = float(torch.stack([teacher_cosine(teacher, store, int(index))
                               for index in store.indices("train")[:CHECKED]]).abs().median())
    if not known >= LEAST_COSINE:
        raise TrainingCollapsed(
            f"the teacher of the order has learned no motion: the median of |cos| between its odd parts and the"
            f" true ones is {known:.2g}", where="encoder.teacher",
            remedy="train it for longer (encoder.teacher.training.steps), or use encoder.objective=hypercut")
    return cast(EvenOddDeblurrer, teacher.requires_grad_(False))


@torch.no_grad()
def odd_cosine(predicted: Tensor, sharp: Tensor) -> Tensor:
    """cos(D', D) of sequences (B, T, 3, H, W), (B,): its sign is the direction, its size how sure that is."""
    made, true = (split_parts(x).odd.flatten(1).double() for x in (predicted, sharp))
    return (made * true).sum(1) / (made.norm(dim=1) * true.norm(dim=1)).clamp_min(1e-12)


@torch.no_grad()
def teacher_cosine(teacher: nn.Module, store: ClipStore, index: int) -> Tensor:
    """cos(D', D) of a whole clip; scalar."""
    clip = clip_tensor(store.read(index)).to(next(teacher.parameters()).device)
    return odd_cosine(teacher(clip[:1]), clip[None, 1:])[0].cpu()


@torch.no_grad()
def taught_direction(teacher: nn.Module, blurry: Tensor, sharp: Tensor) -> Tensor:
    """+1 where the teacher predicts the direction of `sharp` from `blurry`, else -1; (B,) float.

    Args:
        blurry: (B, 3, H, W).
        sharp: (B, T, 3, H, W).
    """
    return torch.where(odd_cosine(teacher(blurry), sharp) >= 0, 1.0, -1.0)


def distilled_loss(forward: Tensor, swapped: Tensor, direction: Tensor) -> Tensor:
    """1/2 mean_k sp(y u_k) + 1/2 mean_k sp(-y v_k); scalar mean over the batch.

    Args:
        forward, swapped: u and v, (B, K) scores of the pairs and of the swapped pairs.
        direction: y, (B,), +1 where the clip runs as the teacher predicts.
    """
    y = direction[:, None].to(forward)
    return 0.5 * F.softplus(y * forward).mean() + 0.5 * F.softplus(-y * swapped).mean()
