"""How each kind of deblurrer is taught: the module that the training loop moves, and its loss at a step.

The even/odd model and the cascade predict frames, and any objective judges them. The two others have more to say:

recurrent
    Three stages after each other (`recurrent_stages.py`), each a share of the steps. Only the last one's error is
    the objective's; a stage's loss reaches no other parameters than `stage_parameters` names, and the optimiser
    leaves alone what has no gradient. The video encoder is trained beside the model and not kept.
guided
    The objective judges the frames of both decomposition stages, given the guidance of the true frames
    (`guidance_from_frames`), and the guidance predictor learns that guidance from the blurry image.

Objectives with a direction of their own (`hypercut_targets`, `rule_targets`) turn the true clip first, so that the
embedding and the guidance follow it too. Where an objective takes either direction, so do they: `sequence_min`,
`order_invariant` and `hypercut` match the nearer of the embeddings of a clip and its reverse; under `sequence_min`
the predictor matches the nearer of a guidance and its reverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hypercut_core.clips.dataset import Batch
from hypercut_core.deblurring.guidance import guidance_from_frames
from hypercut_core.deblurring.guided import GuidedConfig, GuidedDeblurrer, decomposition_loss
from hypercut_core.deblurring.models import Config, Deblurrer, build_deblurrer
from hypercut_core.deblurring.objectives import target_direction
from hypercut_core.deblurring.recurrent import RecurrentDeblurrer
from hypercut_core.deblurring.recurrent_stages import VideoEncoder, autoencoder_loss, embedding_loss, joint_loss
from hypercut_core.errors import BadParameters

# predicted (B, T, 3, H, W) or, with two axes, `Residuals`; sharp (B, T, 3, H, W), direction (B,) or (B, 2) -> scalar
Criterion = Callable[[Any, Tensor, Tensor], Tensor]
EITHER_DIRECTION = ("order_invariant", "sequence_min", "hypercut")
PREDICTABLE = ("hypercut_targets", "rule_targets", "sequence_min")  # the predictor is shown one direction


@dataclass(frozen=True)
class Lesson:
    """What a training loop needs to know of a kind."""

    module: nn.Module  # what is trained
    model: Deblurrer  # the part of it that is kept
    loss: Callable[[nn.Module, Batch, int, Criterion], Tensor]  # (module, batch, step, objective) -> scalar
    in_parts: bool = False  # whether there are steps in which the loss does not depend on all of `module`


def lesson_of(config: Config, frames: int, objective: str, steps: int, stages: tuple[float, ...]) -> Lesson:
    """A fresh model of the kind that `config` describes, and how it is taught.

    Args:
        steps: of the whole training.
        stages: shares of the steps of the recurrent model's three training stages; no other kind has any.

    Raises:
        BadParameters: the kind cannot have so many frames, or the shares make no sense.
    """
    if isinstance(config, GuidedConfig) and config.assumes == "auto":
        config = replace(config, assumes="likeliest" if objective in PREDICTABLE else "rightward")
    model = build_deblurrer(config, frames)
    if isinstance(model, RecurrentDeblurrer):
        return Lesson(_Recurrent(model, objective, steps, stages), model, _own_loss, True)
    if isinstance(model, GuidedDeblurrer):
        return Lesson(_Guided(model, objective), model, _own_loss)
    return Lesson(model, model, _frames_loss)


def stage_at(step: int, steps: int, shares: tuple[float, ...]) -> int:
    """Number 1.. of the stage that a step belongs to, where the stages follow each other.

    >>> [stage_at(step, 8, (0.25, 0.25, 0.5)) for step in range(8)]
    [1, 1, 2, 2, 3, 3, 3, 3]
    """
    done, total = 0.0, sum(shares)
    for number, share in enumerate(shares, 1):
        done += share
        if step < round(steps * done / total):
            return number
    return len(shares)


def turned(objective: str, batch: Batch) -> Tensor:
    """The true frames (B, T, 3, H, W) in the direction that an objective asks for."""
    direction = target_direction(objective, batch.sharp, batch.direction)
    return torch.where(direction.view(-1, 1, 1, 1, 1) < 0, batch.sharp.flip(1), batch.sharp)


class _Recurrent(nn.Module):
    def __init__(self, model: RecurrentDeblurrer, objective: str, steps: int, stages: tuple[float, ...]):
        super().__init__()
        if len(stages) != 3 or min(stages) < 0 or stages[2] <= 0:
            raise BadParameters(f"the stages' shares are {list(stages)}", where="recurrent.stages",
                                remedy="give three numbers of at least 0, the last one above 0")
        self.model, self.video_encoder = model, VideoEncoder(model.config.width)
        self.objective, self.steps, self.stages = objective, steps, stages

    def forward(self, batch: Batch, step: int, criterion: Criterion) -> Tensor:
        sharp, stage = turned(self.objective, batch), stage_at(step, self.steps, self.stages)
        if stage == 1:
            return autoencoder_loss(self.model, self.video_encoder, sharp)
        if stage == 2:
            return embedding_loss(self.model, self.video_encoder, batch.blurry, sharp,
                                  self.objective in EITHER_DIRECTION)
        ahead = torch.ones_like(batch.direction)
        return joint_loss(self.model, batch.blurry, sharp, lambda mine, true: criterion(mine, true, ahead))


class _Guided(nn.Module):
    def __init__(self, model: GuidedDeblurrer, objective: str):
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch, step: int, criterion: Criterion) -> Tensor:
        sharp, ahead = turned(self.objective, batch), torch.ones_like(batch.direction)
        return decomposition_loss(self.model, batch.blurry, guidance_from_frames(sharp), sharp,
                                  lambda mine, true: criterion(mine, true, ahead), self.objective == "sequence_min")


def _own_loss(module: nn.Module, batch: Batch, step: int, criterion: Criterion) -> Tensor:
    return module(batch, step, criterion)


def _frames_loss(module: nn.Module, batch: Batch, step: int, criterion: Criterion) -> Tensor:
    return criterion(module(batch.blurry), batch.sharp, batch.direction)
