"""Warping an image by a flow, exact at zero flow."""

from __future__ import annotations

import torch
from torch import Tensor


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Bilinear look-up of `image` at (x + u, y + v); beyond the border its edge pixels go on.

    The weights are computed from pixel coordinates themselves and not from coordinates scaled to [-1, 1], whose
    rounding moves pixels of a large image by a thousandth: a flow of whole pixels copies pixels to the bit.

    Args:
        image: (B, C, H, W).
        flow: (B, 2, H, W), u to the right and v downwards, px.

    Returns:
        (B, C, H, W); differentiable in both (in the flow one-sided at whole pixels).
    """
    batch, channels, height, width = image.shape
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.detach().floor(), y.detach().floor()
    right_share, lower_share = (x - left)[:, None], (y - top)[:, None]
    left, top = left.long(), top.long()
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    flat = image.flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        place = (row * width + column).view(batch, 1, height * width).expand(-1, channels, -1)
        return flat.gather(2, place).view_as(image)

    upper = at(top, left) * (1 - right_share) + at(top, right) * right_share
    lower = at(bottom, left) * (1 - right_share) + at(bottom, right) * right_share
    return upper * (1 - lower_share) + lower * lower_share
