"""The control: an order that a child could state. Forward is the direction in which the mean motion goes
to the right."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_motion(sharp: Tensor) -> Tensor:
    """Least-squares global velocity (Lucas and Kanade 1981) of true frames.

    Args:
        sharp: (B, T, 3, H, W).

    Returns:
        (B, 2): mean motion to the right and downwards, px a frame (underestimated where it is large:
        only its sign and direction are used).
    """
    grey = sharp.mean(2)
    change = grey[:, 1:] - grey[:, :-1]
    still = (grey[:, 1:] + grey[:, :-1]) / 2
    across = (still[..., 1:-1, 2:] - still[..., 1:-1, :-2]) / 2
    down = (still[..., 2:, 1:-1] - still[..., :-2, 1:-1]) / 2
    change = change[..., 1:-1, 1:-1]
    total = lambda x: x.flatten(1).double().sum(1)  # noqa: E731
    xx, yy, xy = total(across * across), total(down * down), total(across * down)
    xt, yt = total(across * change), total(down * change)
    ridge = 1e-6 + 1e-3 * (xx + yy)
    xx, yy = xx + ridge, yy + ridge
    determinant = xx * yy - xy * xy
    return torch.stack([(xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant], dim=1).float()


def rule_direction(sharp: Tensor) -> Tensor:
    """+1 where the mean motion of (B, T, 3, H, W) goes to the right, else -1; (B,) float."""
    return torch.where(mean_motion(sharp)[:, 0] >= 0, 1.0, -1.0)
