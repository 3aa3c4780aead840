"""One camera's colours as another's, in linear light: y = M x^gamma + o.

The curve x^gamma stands for the difference of the two response curves, M mixes the channels (or only scales them),
o is stray light. It is fitted on means of frames, so the curve is applied before the mean, as light adds up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["none", "gain", "matrix"]
GAMMAS = (0.6, 1.7)  # range in which the curve is sought
SATURATED = (0.004, 0.95)  # linear light outside which a pixel says nothing


@dataclass(frozen=True)
class ColourMap:
    """y = x^gamma @ matrix + offset, of the last axis."""

    gamma: float
    matrix: Tensor  # (3, 3)
    offset: Tensor  # (3,)

    def __call__(self, light: Tensor) -> Tensor:
        """(.., 3) linear light of one camera to that of the other; not clamped."""
        return light.clamp_min(0) ** self.gamma @ self.matrix.to(light) + self.offset.to(light)


def same_colours() -> ColourMap:
    """The map that changes nothing."""
    return ColourMap(1.0, torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))


def find_colours(mean_of_power: Callable[[float], Tensor], target: Tensor, kind: Kind) -> ColourMap:
    """Fit the map from the sharp camera's light to the blurry camera's.

    Args:
        mean_of_power: gamma -> (N, 3), for each pixel the mean over the exposure of x^gamma.
        target: (N, 3), the blurry image at the same pixels.
        kind: "gain": a scale for each channel; "matrix": channels may mix; "none": nothing is changed.
    """
    if kind == "none":
        return same_colours()
    usable = ((target > SATURATED[0]) & (target < SATURATED[1])).all(1)
    target = target[usable].double() if int(usable.sum()) >= 100 else target.double()
    pick = usable if int(usable.sum()) >= 100 else torch.ones_like(usable)

    def fitted(gamma: float) -> tuple[float, ColourMap]:
        values = mean_of_power(gamma)[pick].double()
        matrix, offset, cost = _solve(values, target, kind)
        return cost, ColourMap(gamma, matrix, offset)

    low, high = GAMMAS
    for _ in range(4):  # a grid that narrows: the cost is smooth in gamma
        tried = [fitted(low + (high - low) * k / 6) for k in range(7)]
        place = min(range(7), key=lambda k: tried[k][0])
        step = (high - low) / 6
        best = tried[place][1]
        low, high = max(GAMMAS[0], best.gamma - step), min(GAMMAS[1], best.gamma + step)
    return best


def _solve(values: Tensor, target: Tensor, kind: Kind) -> tuple[Tensor, Tensor, float]:
    """Least squares with two rounds of Huber weights: matrix, offset and the weighted mean square."""
    weight = torch.ones(len(values), 1, dtype=torch.float64)
    for _ in range(3):
        matrix, offset = _weighted(values, target, weight, kind)
        rest = (values @ matrix + offset - target).norm(dim=1, keepdim=True)
        limit = 2 * rest.median().clamp_min(1e-5)
        weight = (limit / rest.clamp_min(1e-12)).clamp_max(1)
    return matrix, offset, float((weight * rest.square()).mean())


def _weighted(values: Tensor, target: Tensor, weight: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    root = weight.sqrt()
    one = torch.ones_like(root)
    if kind == "matrix":
        found = torch.linalg.lstsq(root * torch.cat([values, one], 1), root * target).solution
        return found[:3], found[3]
    matrix, offset = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for channel in range(3):
        found = torch.linalg.lstsq(root * torch.cat([values[:, channel:channel + 1], one], 1),
                                   root * target[:, channel:channel + 1]).solution
        matrix[channel, channel], offset[channel] = found[0, 0], found[1, 0]
    return matrix, offset
