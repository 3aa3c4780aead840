"""The even/odd model: predicts a sequence as its middle frame, even and odd parts (`parts.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypercut_core.blur.exposure import Response, from_linear, response_slope, to_linear
from hypercut_core.deblurring.blocks import UNetTrunk
from hypercut_core.deblurring.parts import Parts, join_parts
from hypercut_core.deblurring.views import join_views
from hypercut_core.errors import BadParameters


@dataclass(frozen=True)
class DeblurrerConfig:
    """The shape of the even/odd model."""

    width: int = 32  # channels at the first level of the trunk
    blocks: tuple[int, ...] = (2, 2, 2)  # blocks per level, the bottom last
    block: Literal["gated", "conv"] = "gated"  # NAFNet block, or plain convolutions
    unshuffle: int = 2  # pixels folded into channels at the door, per side
    projection: float = 1.0  # share of the blur projection: 1 exact re-blur, 0 off (dead time, unknown response)
    response: Response = "srgb"  # response curve in which the outputs re-blur
    views: Literal[1, 2, 4, 8] = 4  # mirrored and turned views of a photo that are joined (not in training)


def blur_projection(frames: Tensor, blurry: Tensor, response: str, share: float = 1.0) -> Tensor:
    """Add to every frame, in linear light, what its mean lacks of the blurry image.

    Args:
        frames: (B, T, 3, H, W) encoded values.
        blurry: (B, 3, H, W) encoded values.
        share: 1 makes the frames re-blur to the blurry image exactly, before clipping; 0 does nothing.
    """
    light = to_linear(frames, response)
    lack = to_linear(blurry, response) - light.mean(1)
    return from_linear(light + share * lack[:, None], response)


class EvenOddDeblurrer(nn.Module):
    """Blurry image (B, 3, H, W) in [0, 1] to T sharp frames (B, T, 3, H, W), not clipped; any H and W.

    Raises:
        BadParameters: T is even or outside 3 to 15.
    """

    def __init__(self, config: DeblurrerConfig, frames: int = 7):
        super().__init__()
        if frames % 2 == 0 or not 3 <= frames <= 15:
            raise BadParameters(f"the number of sharp frames is {frames}", where="frames",
                                remedy="choose an odd number from 3 to 15")
        self.config, self.frames, self.response = config, frames, config.response
        self.trunk = UNetTrunk(3, 3 * frames, config.width, config.blocks, config.unshuffle, config.block)
        nn.init.normal_(self.trunk.leave.weight, std=1e-3)  # start at "repeat the blurry image"
        nn.init.constant_(self.trunk.leave.bias, 0.0)  # type: ignore[arg-type]

    def residuals(self, blurry: Tensor) -> Tensor:
        """What each frame differs from the blurry image by, (B, T, 3, H, W): even and odd parts joined."""
        height, width = blurry.shape[-2:]
        m = self.trunk.multiple
        padded = F.pad(blurry, (0, -width % m, 0, -height % m), mode="replicate")
        out = self.trunk(padded - 0.5)[..., :height, :width].float().unflatten(1, (self.frames, 3))
        half = self.frames // 2
        return join_parts(Parts(out[:, 0], out[:, 1:half + 1], out[:, half + 1:]))

    def forward(self, blurry: Tensor) -> Tensor:
        """In training the prediction of the image as it is, else of `config.views` views of it, joined."""
        if self.training or self.config.views == 1:
            return self.predict(blurry)
        return join_views(self.predict, blurry, self.config.views, self.response)

    def predict(self, blurry: Tensor) -> Tensor:
        """Residuals are taken in linear light, scaled by the slope of the response curve at the blurry
        image: the blur projection then is the removal of their mean, which costs nothing."""
        residuals = self.residuals(blurry)
        with torch.autocast(residuals.device.type, enabled=False):
            blurry = blurry.float()
            step = residuals - self.config.projection * residuals.mean(1, keepdim=True)
            light = to_linear(blurry, self.response) + response_slope(blurry, self.response) * step.transpose(0, 1)
            return from_linear(light, self.response).transpose(0, 1)
