"""Dense optical flow between two frames: iterative Lucas-Kanade on an image pyramid (Lucas and Kanade 1981;
Bouguet 2001). Good enough for the direction of motion, which is what guidance needs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercut_core.deblurring.warping import warp

SMALLEST = 16  # px, shorter side of the coarsest level
WINDOW = 9  # px, side of the window in which the motion is taken as one
ITERATIONS = 4  # at each level
RIDGE = 1e-4  # against windows without texture, squared grey levels (0..1) per px


@torch.no_grad()
def optical_flow(first: Tensor, second: Tensor) -> Tensor:
    """Motion of what is at each pixel of `first` until `second`.

    Args:
        first, second: (B, C, H, W) in [0, 1].

    Returns:
        (B, 2, H, W): u to the right and v downwards, px. ``warp(second, flow)`` resembles `first`.
    """
    pyramid = [(first, second)]
    while min(pyramid[-1][0].shape[-2:]) >= 2 * SMALLEST:
        pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
    flow = first.new_zeros(first.shape[0], 2, *pyramid[-1][0].shape[-2:])
    for one, other in reversed(pyramid):
        if flow.shape[-2:] != one.shape[-2:]:
            flow = 2 * F.interpolate(flow, size=one.shape[-2:], mode="bilinear", align_corners=False)
        for _ in range(ITERATIONS):
            flow = _box(flow + _step(one, warp(other, flow)), 3)
    return flow


def _step(first: Tensor, warped: Tensor) -> Tensor:
    """One Gauss-Newton step of every window, at most one px long in each direction."""
    padded = F.pad((first + warped) / 2, (1, 1, 1, 1), mode="replicate")
    x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    change = warped - first
    sums = torch.stack([(a * b).sum(1) for a, b in ((x, x), (x, y), (y, y), (x, change), (y, change))], 1)
    xx, xy, yy, xt, yt = _box(sums, WINDOW).unbind(1)
    xx, yy = xx + RIDGE, yy + RIDGE
    determinant = xx * yy - xy * xy
    return torch.stack([(xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant], 1).clamp(-1, 1)


def _box(x: Tensor, side: int) -> Tensor:
    """Mean over a window, edge pixels continued."""
    return F.avg_pool2d(F.pad(x, (side // 2,) * 4, mode="replicate"), side, stride=1)
