"""Guidance from the blurry image alone: a small network that says how likely each direction is at each pixel,
and draws whole maps from that.

Blur tells the axis of a motion and not its direction, so a fair predictor ends near one half for each of two
opposite directions, and the likeliest one per pixel is noise. Maps are therefore drawn by the Gumbel rule with
noise that is smooth in space,

    direction(p) = argmax_k logit_k(p) - log(-log Phi(z_k(p)))        z_k: smooth Gaussian fields of variance 1

so that every pixel follows the predicted probabilities exactly, and neighbours go together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hypercut_core.deblurring.blocks import UNetTrunk
from hypercut_core.deblurring.guidance import DIRECTIONS
from hypercut_core.deblurring.sizes import pad_to_multiple

SMOOTHNESS = 0.25  # standard deviation of the noise's kernel, as a share of the image's longer side


class GuidancePredictor(nn.Module):
    """Blurry image (B, 3, H, W) in [0, 1] to logits (B, 5, H, W) of the classes of `DIRECTIONS`; any H and W."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.trunk = UNetTrunk(3, DIRECTIONS.count, width, (1, 1, 2), unshuffle=4, block="conv")
        nn.init.normal_(self.trunk.leave.weight, std=1e-3)
        nn.init.zeros_(self.trunk.leave.bias)  # type: ignore[arg-type]

    def forward(self, blurry: Tensor) -> Tensor:
        height, width = blurry.shape[-2:]
        return self.trunk(pad_to_multiple(blurry, self.trunk.multiple) - 0.5)[..., :height, :width]

    def assume(self, blurry: Tensor, likeliest: bool = False) -> Tensor:
        """One map without chance, (B, 2, H, W): the likeliest of rest and the two axes, moving to the right; or
        the `likeliest` of rest and the four directions."""
        chance = self(blurry).softmax(1)
        if likeliest:
            return DIRECTIONS.guidance(chance.argmax(1))
        axes = torch.stack([chance[:, 0], *(chance[:, [k, DIRECTIONS.opposite(k)]].sum(1)
                                            for k in DIRECTIONS.rightward)], 1)
        classes = torch.tensor([0, *DIRECTIONS.rightward], device=blurry.device)[axes.argmax(1)]
        return DIRECTIONS.guidance(classes)

    @torch.no_grad()
    def sample(self, blurry: Tensor, count: int, seed: int = 0) -> Tensor:
        """`count` maps drawn from the predicted probabilities, (B, count, 2, H, W); the same for the same seed."""
        logits = self(blurry)
        noise = smooth_noise((len(blurry), count, DIRECTIONS.count, *blurry.shape[-2:]), seed).to(logits)
        uniform = torch.special.ndtr(noise.double()).clamp(1e-12, 1 - 1e-12)
        gumbel = -torch.log(-torch.log(uniform)).to(logits)
        return DIRECTIONS.guidance((logits[:, None] + gumbel).argmax(2))


def smooth_noise(shape: tuple[int, ...], seed: int, smoothness: float = SMOOTHNESS) -> Tensor:
    """Gaussian fields (..., H, W) of mean 0 and variance 1 at every pixel, smooth over `smoothness` times the
    longer side, independent along the other axes."""
    height, width = shape[-2:]
    spread = max(1.0, smoothness * max(height, width))
    draw = torch.Generator().manual_seed(seed)
    rows, columns = _kernel(height, spread), _kernel(width, spread)
    coarse = torch.randn(*shape[:-2], rows.shape[1], columns.shape[1], generator=draw)
    return rows @ coarse @ columns.T


def _kernel(size: int, spread: float) -> Tensor:
    """(size, knots): Gaussian weights of knots half a spread apart, each row of length 1."""
    step = spread / 2
    knots = torch.arange(-3 * spread, size + 3 * spread + step, step)
    weights = torch.exp(-0.5 * ((torch.arange(size)[:, None] - knots) / spread) ** 2)
    return weights / weights.norm(dim=1, keepdim=True)
