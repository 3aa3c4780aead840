"""How a model is measured under each protocol that it knows (`protocol_names.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from hypercut_core.deblurring.guidance import guidance_from_frames
from hypercut_core.deblurring.guided import GuidedDeblurrer, best_hypothesis
from hypercut_core.deblurring.recurrent import RecurrentDeblurrer
from hypercut_core.evaluation.protocol_names import BEST, BLIND, HYPOTHESES, ORACLE_GUIDANCE, ORACLE_MIDDLE


@dataclass(frozen=True)
class Way:
    """One way to measure a model."""

    protocol: str
    predict: Callable[[Tensor, Tensor], Tensor]  # blurry (B, 3, H, W), sharp (B, T, 3, H, W) -> (B, T, 3, H, W)


def ways(model: nn.Module) -> list[Way]:
    """How a model can be measured, first as it is meant to be used: blind, if it can do that."""
    if isinstance(model, RecurrentDeblurrer) and model.middle is None:
        return [Way(ORACLE_MIDDLE, lambda blurry, sharp: model(blurry, sharp[:, model.frames // 2]))]
    found = [Way(BLIND, lambda blurry, sharp: model(blurry))]
    if isinstance(model, GuidedDeblurrer):
        found += [Way(ORACLE_GUIDANCE, lambda blurry, sharp: model(blurry, guidance_from_frames(sharp))),
                  Way(BEST, lambda blurry, sharp: best_hypothesis(model, blurry, sharp, HYPOTHESES))]
    return found
