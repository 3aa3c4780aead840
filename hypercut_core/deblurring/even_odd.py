"""The even/odd model: predicts a sequence as its middle frame, even and odd parts (`parts.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypercut_core.blur.exposure import Response, from_linear, response_slope, to_linear
from hypercut_core.deblurring.axes import Residuals
from hypercut_core.deblurring.blocks import UNetTrunk
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
    axes: Literal[1, 2] = 1  # odd parts a sequence: 1 has a seam, 2 none (objectives without a direction take 1)


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
        outputs = 3 * (frames + (config.axes - 1) * (frames // 2))
        self.trunk = UNetTrunk(3, outputs, config.width, config.blocks, config.unshuffle, config.block)
        nn.init.normal_(self.trunk.leave.weight, std=1e-3)  # start at "repeat the blurry image"
        nn.init.constant_(self.trunk.leave.bias, 0.0)  # type: ignore[arg-type]

    def residuals(self, blurry: Tensor) -> Residuals:
        """What each part of the sequence adds to the blurry image, the mean of the frames taken off (`projection`).

        Taken in linear light and scaled by the slope of the response curve, so that the blur projection is the
        removal of a mean, which costs nothing."""
        height, width = blurry.shape[-2:]
        m = self.trunk.multiple
        padded = F.pad(blurry, (0, -width % m, 0, -height % m), mode="replicate")
        out = self.trunk(padded - 0.5)[..., :height, :width].float().unflatten(1, (-1, 3))
        with torch.autocast(out.device.type, enabled=False):
            blurry, half = blurry.float(), self.frames // 2
            still, odd = out[:, :half + 1], out[:, half + 1:].unflatten(1, (self.config.axes, half))
            mean = (2 * still.sum(1, keepdim=True) - still[:, :1]) / self.frames
            still = still - self.config.projection * mean
            return Residuals(to_linear(blurry, self.response), response_slope(blurry, self.response),
                             still[:, 0], still[:, 1:], odd)

    def forward(self, blurry: Tensor) -> Tensor | Residuals:
        """`config.views` views of the image, joined: (B, T, 3, H, W). In training the image as it is, and with two
        axes what is said of it before it is looked at from a direction."""
        if self.training and self.config.axes == 2:
            return self.residuals(blurry)
        if self.training or self.config.views == self.config.axes == 1:
            return self.predict(blurry)
        return join_views(self.predict, blurry, self.config.views, self.response)

    def predict(self, blurry: Tensor) -> Tensor:
        """One view: (B, T, 3, H, W), or with two axes (B, 2, T, 3, H, W), a sequence an axis."""
        said = self.residuals(blurry)
        with torch.autocast(blurry.device.type, enabled=False):
            directions = torch.eye(self.config.axes, device=blurry.device)[:, None].expand(-1, len(blurry), -1)
            sequences = [said.along(direction, self.response) for direction in directions]
            return sequences[0] if self.config.axes == 1 else torch.stack(sequences, 1)
