"""Clips put out of focus: blurry image and sharp frames alike, so that their blur stays the mean of their frames.

A lens that is out of focus spreads the light of every instant in the same way, and so that of their mean:
G(mean_k x_k) = mean_k G(x_k) in linear light. A model that learned from crisp footage alone takes a soft edge for a
moving one; with such clips it learns to tell them apart. Noise in a blurry image is spread too, which no lens does:
there such clips are cleaner than a camera's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hypercut_core.blur.exposure import from_linear, to_linear


def out_of_focus(images: Tensor, sigma: float, response: str = "srgb") -> Tensor:
    """A clip's images under one Gaussian, in linear light; borders are continued.

    Args:
        images: (N, C, H, W) encoded values in [0, 1].
        sigma: standard deviation, px, above 0.
        response: response curve of the clip.

    Returns:
        (N, C, H, W) in [0, 1], not rounded.

    Raises:
        BadParameters: unknown response curve.
    """
    with torch.autocast(images.device.type, enabled=False):  # half precision would not keep the mean
        light = to_linear(images, response)
        down, across = (_spread(size, sigma, light) for size in light.shape[-2:])
        return from_linear(down @ light @ across.T, response).clamp(0, 1)


def _spread(size: int, sigma: float, like: Tensor) -> Tensor:
    """The Gaussian along one side as a matrix, (size, size): at these sizes quicker than a convolution."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.softmax(-(offsets.to(like.dtype) / sigma).square() / 2, 0)
    seen = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    # on the CPU: sums by a GPU's atomic additions come in any order
    return torch.zeros(size, size, dtype=like.dtype).scatter_add_(1, seen, weights.expand(size, -1)).to(like.device)
