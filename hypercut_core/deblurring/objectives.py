"""Objectives: what a deblurrer is asked for when both directions of time are right.

Each one is a reconstruction error of the middle frame (weight 1/T), of the K even parts (K/T) and of the
K odd parts (K/T); they differ only in what they ask of the odd part, where the direction lives:

==================  ============================================================================
naive               the odd part as it was shot: averages both directions
order_invariant     |D| only (Jin et al. 2018; pixel-wise, so also blind to per-pixel swaps)
sequence_min        the nearer of D and -D, one choice for the whole sequence
hypercut            order_invariant + alpha * sum_k softplus(u_k(prediction)) (Pham et al. 2023)
hypercut_targets    D in the direction that the order table gives
rule_targets        D in the direction in which the mean motion is to the right: the control
==================  ============================================================================

With two axes (`axes.py`) the last three and `sequence_min` ask for D times a direction on the circle instead
of D times +1 or -1: the nearest one, that of the order table, that of the mean motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypercut_core.deblurring.axes import Residuals, nearest_direction, rule_axes
from hypercut_core.deblurring.parts import Parts, split_parts
from hypercut_core.errors import BadParameters
from hypercut_core.ordering.encoder import pair_scores
from hypercut_core.ordering.rule import rule_direction

Objective = Literal["naive", "order_invariant", "sequence_min", "hypercut", "hypercut_targets", "rule_targets"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
NEEDS_ENCODER = ("hypercut",)
NEEDS_ORDERS = ("hypercut_targets",)
DIRECTED = ("sequence_min", "hypercut_targets", "rule_targets")  # those that can have two axes


@dataclass(frozen=True)
class LossConfig:
    """How the error between predicted and true parts is measured."""

    reconstruction: Literal["log_mse", "charbonnier", "l1"] = "log_mse"  # log_mse is the PSNR loss
    floor: float = 1e-4  # added to the MSE before the logarithm; about the error that stops to matter
    alpha: float = 0.2  # weight of the HyperCUT regulariser
    across: float = 0.25  # weight of what two axes say across a clip's direction, where nothing should be
    regularised: Literal["order_invariant", "sequence_min"] = "order_invariant"  # what `hypercut` adds it to


def clip_error(difference: Tensor, config: LossConfig) -> Tensor:
    """Error of each clip, (B, ...) -> (B,)."""
    flat = difference.flatten(1)
    if config.reconstruction == "log_mse":
        return torch.log(flat.square().mean(1) + config.floor)
    if config.reconstruction == "l1":
        return flat.abs().mean(1)
    return torch.sqrt(flat.square() + 1e-6).mean(1)


def odd_error(name: str, predicted: Parts, true: Parts, direction: Tensor, config: LossConfig) -> Tensor:
    """Error of the odd part under an objective, (B,); `direction` is +1 or -1 a clip."""
    if name == "order_invariant":
        return clip_error(predicted.odd.abs() - true.odd.abs(), config)
    if name == "sequence_min":
        return torch.minimum(clip_error(predicted.odd - true.odd, config),
                             clip_error(predicted.odd + true.odd, config))
    sign = direction.view(-1, 1, 1, 1, 1)
    return clip_error(predicted.odd - sign * true.odd, config)


def target_direction(name: str, sharp: Tensor, direction: Tensor) -> Tensor:
    """In which direction an objective asks for each clip, (B,): +1 as it was shot, -1 reversed.

    Args:
        sharp: (B, T, 3, H, W); `rule_targets` looks at its motion.
        direction: (B,) of the order table; used by `hypercut_targets` alone.

    Raises:
        BadParameters: `hypercut_targets`, and a clip has no order.
    """
    if name == "rule_targets":
        return rule_direction(sharp)
    if name != "hypercut_targets":
        return torch.ones_like(direction)
    if bool((direction == 0).any()):
        raise BadParameters("the objective 'hypercut_targets' needs an order for every clip",
                            remedy="run 'hypercut assign-order' first")
    return direction


def objective_loss(name: str, predicted: Tensor | Residuals, sharp: Tensor, direction: Tensor, config: LossConfig,
                   encoder: nn.Module | None = None, response: str = "srgb") -> Tensor:
    """Mean loss of a batch.

    Args:
        predicted: (B, T, 3, H, W) in [0, 1]; with two axes what is said before it is looked at from a direction.
        sharp: (B, T, 3, H, W) in [0, 1].
        direction: (B,) +1 keep / -1 reverse, from the order table, or (B, 2) along two axes; used by
            `hypercut_targets` alone.
        encoder: the frozen HyperCUT encoder; used by `hypercut` alone.
        response: the curve in which the sequences re-blur; two axes need it.

    Raises:
        BadParameters: unknown objective, or what it needs is missing.
    """
    check_objective(name)
    if isinstance(predicted, Residuals):
        return _axes_loss(name, predicted, sharp, direction, config, response)
    mine, true = split_parts(predicted), split_parts(sharp)
    count = sharp.shape[1]
    half = count // 2
    base = config.regularised if name == "hypercut" else name
    direction = target_direction(name, sharp, direction)
    # |x + x'| of values in [0, 1] is x + x': the order-invariant loss supervises it as the others do
    even = clip_error(mine.even - true.even, config)
    loss = (clip_error(mine.middle - true.middle, config) + half * even
            + half * odd_error(base, mine, true, direction, config)) / count
    if name == "hypercut":
        if encoder is None:
            raise BadParameters("the objective 'hypercut' needs an encoder",
                                remedy="run 'hypercut train-encoder' first")
        loss = loss + config.alpha * F.softplus(pair_scores(encoder, predicted)).sum(1)
    return loss.mean()


def _axes_loss(name: str, predicted: Residuals, sharp: Tensor, direction: Tensor, config: LossConfig,
               response: str) -> Tensor:
    """The same errors of what two axes say along a clip's direction; what they say across it is an error too."""
    if name == "hypercut_targets":
        _check_known(direction.abs().sum(-1))
    elif name == "sequence_min":
        direction = nearest_direction(predicted, sharp, response)
    elif name == "rule_targets":
        direction = rule_axes(sharp)
    else:
        raise BadParameters(f"the objective '{name}' has no direction and so no second axis",
                            where="deblurrer.model.axes", remedy=f"choose one of {', '.join(DIRECTED)}")
    mine, true = split_parts(predicted.along(direction, response)), split_parts(sharp)
    middle, even = clip_error(mine.middle - true.middle, config), clip_error(mine.even - true.even, config)
    wrong = torch.cat([mine.odd - true.odd, config.across**0.5 * predicted.across(direction)], 1)
    odd = clip_error(2**0.5 * wrong, config)  # the mean is over twice as many values
    half = sharp.shape[1] // 2
    return ((middle + half * (even + odd)) / sharp.shape[1]).mean()


def _check_known(direction: Tensor) -> None:
    if bool((direction == 0).any()):
        raise BadParameters("the objective 'hypercut_targets' needs an order for every clip",
                            remedy="run 'hypercut assign-order' first")


def check_objective(name: str) -> None:
    """Raise BadParameters for an unknown objective."""
    if name not in OBJECTIVES:
        raise BadParameters(f"unknown objective '{name}'", where="deblurrer.objective",
                            remedy=f"choose one of {', '.join(OBJECTIVES)}")
