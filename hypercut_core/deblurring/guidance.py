"""Guidance maps: for each pixel one of four directions of motion, or rest (Zhong et al. 2022, motion guidance).

A map is (B, 2, H, W) with values -1, 0, 1: the signs of the motion to the right and of the motion downwards over
the exposure. Both are 0 where nothing moves, and neither is 0 elsewhere. ``-guidance`` is the same motion with
time reversed. Maps that people make (strokes, painted pictures) are read by `guidance_files.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hypercut_core.deblurring.optical_flow import optical_flow
from hypercut_core.errors import BadParameters

STATIC = 1.0  # px; shorter motion over the exposure counts as rest


class Directions:
    """The five classes of a pixel: 0 at rest, then the four directions as (right, down)."""

    names = ("at rest", "right and down", "right and up", "left and down", "left and up")
    signs = ((0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
    count = 5
    rightward = (1, 2)  # one of each axis

    @staticmethod
    def opposite(number: int) -> int:
        """The class of the same motion with time reversed."""
        return -number % 5

    def guidance(self, classes: Tensor) -> Tensor:
        """Class numbers (..., H, W) to a guidance map (..., 2, H, W)."""
        table = torch.tensor(self.signs, dtype=torch.float32, device=classes.device)
        return table[classes].movedim(-1, -3)

    def classes(self, guidance: Tensor) -> Tensor:
        """Guidance map (..., 2, H, W) to class numbers (..., H, W), the inverse of `guidance`."""
        u, v = guidance.unbind(-3)
        return torch.where(u == 0, 0, 1 + 2 * (u < 0).long() + (v < 0).long())


DIRECTIONS = Directions()


def guidance_from_flow(flow: Tensor, static: float = STATIC) -> Tensor:
    """Signs of a flow: (..., 2, H, W) in px over the exposure, u to the right and v downwards, to guidance.

    Motion of at most `static` px counts as rest. Of a motion exactly along an axis, the missing sign is taken
    from the other, so that ``guidance_from_flow(-flow) == -guidance_from_flow(flow)``.
    """
    u, v = flow.unbind(-3)
    moves = torch.hypot(u, v) > static
    across, down = u.sign(), v.sign()
    across, down = torch.where(u == 0, down, across), torch.where(v == 0, across, down)
    return torch.stack([across, down], -3) * moves.unsqueeze(-3)


def guidance_from_frames(frames: Tensor, static: float = STATIC) -> Tensor:
    """Guidance from true or neighbouring frames, by optical flow as seen from the middle one.

    Args:
        frames: (B, T, 3, H, W) in [0, 1], T odd: the true frames, or the photos before, at and after this one.

    Returns:
        (B, 2, H, W).
    """
    first, middle, last = frames[:, 0], frames[:, frames.shape[1] // 2], frames[:, -1]
    return guidance_from_flow(optical_flow(middle, last) - optical_flow(middle, first), static)


def flip_region(guidance: Tensor, region: Tensor) -> Tensor:
    """Reverse the direction within a region only.

    Args:
        guidance: (B, 2, H, W); region: boolean (H, W) or (B, H, W).
    """
    inside = region if region.dim() == 2 else region[:, None]
    return torch.where(inside, -guidance, guidance)


def describe(guidance: Tensor) -> str:
    """A map in words, largest share first: "62 % at rest, 38 % right and down".

    >>> describe(guidance_from_flow(torch.ones(1, 2, 4, 4) * 3))
    '100 % right and down'
    """
    shares = torch.bincount(DIRECTIONS.classes(guidance).flatten(), minlength=DIRECTIONS.count).float()
    shares = 100 * shares / shares.sum()
    order = shares.argsort(descending=True, stable=True).tolist()
    return ", ".join(f"{shares[k]:.0f} % {DIRECTIONS.names[k]}" for k in order if shares[k] > 0)


def check_guidance(guidance: Tensor, blurry: Tensor) -> None:
    """Raise BadParameters unless the map has two channels and the image's size."""
    wanted = (blurry.shape[0], 2, *blurry.shape[-2:])
    if tuple(guidance.shape) != wanted:
        raise BadParameters(f"the guidance map has the shape {list(guidance.shape)}, the image needs {list(wanted)}",
                            where="guidance", remedy="make the map for this image")
