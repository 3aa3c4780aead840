"""Guidance of a whole photo for the motion-guided model: a person's, or what the model assumes, told in words."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from hypercut_core.deblurring.guidance import describe
from hypercut_core.deblurring.guidance_files import read_guidance
from hypercut_core.deblurring.guided import GuidedDeblurrer
from hypercut_core.errors import BadParameters
from hypercut_core.progress import say

AnyPath = str | os.PathLike[str]


def guidance_for(model: nn.Module, photo: np.ndarray, file: AnyPath | None = None, tile: int = 512,
                 tell: Callable[[str], None] = say) -> Tensor | None:
    """The map for `restore`, (2, H, W) int8 of -1, 0, 1; None for a model that knows no guidance.

    Args:
        photo: uint8 [H, W, 3].
        file: strokes (.json) or a painted picture (`guidance_files.py`); None: the model's own guess, made block by
            block on a large photo.
        tell: told which directions the map says, and whether they were given or assumed.

    Raises:
        BadParameters: guidance for a model that knows none, or malformed; BadImage, StorageError: it cannot be read.
    """
    height, width = photo.shape[:2]
    if not isinstance(model, GuidedDeblurrer):
        if file is not None:
            raise BadParameters("this model takes no guidance", where=file,
                                remedy="leave --guidance out, or use a model of the kind 'guided'")
        return None
    if file is not None:
        found = read_guidance(file, height, width)[0].to(torch.int8)
        tell(f"guidance: {describe(found[None])}")
        return found
    found = _assumed(model, photo, tile)
    tell(f"no guidance was given; assumed: {describe(found[None])} (--guidance says otherwise)")
    return found


def _assumed(model: GuidedDeblurrer, photo: np.ndarray, tile: int) -> Tensor:
    height, width = photo.shape[:2]
    side = max(height, width) if height * width <= tile * tile else tile
    device = next(model.parameters()).device
    found = torch.empty(2, height, width, dtype=torch.int8)
    for top in range(0, height, side):
        for left in range(0, width, side):
            part = photo[top:top + side, left:left + side].copy()
            blurry = torch.from_numpy(part).to(device).permute(2, 0, 1)[None].float() / 255
            found[:, top:top + side, left:left + side] = model.assume(blurry)[0].cpu().to(torch.int8)
    return found
