"""Image sizes and frame counts that a network can take."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hypercut_core.errors import BadParameters


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Continue (..., C, H, W) to the right and below by its edge pixels until `multiple` divides H and W.

    Cut the result to ``[..., :H, :W]`` to undo it.
    """
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def check_frames(frames: int) -> int:
    """`frames` if it is odd and from 3 to 15, as all data of this program has.

    Raises:
        BadParameters: it is not.
    """
    if frames % 2 == 0 or not 3 <= frames <= 15:
        raise BadParameters(f"the number of sharp frames is {frames}", where="frames",
                            remedy="choose an odd number from 3 to 15")
    return frames
