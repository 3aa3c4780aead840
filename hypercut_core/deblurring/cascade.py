"""The cascade of Jin, Meishvili and Favaro ("Learning to Extract a Video Sequence from a Single Motion-Blurred
Image", CVPR 2018), written from its description.

Four kinds of network in sequence, from the middle frame outwards; B is the blurry image:

    F4 = middle(B)
    F3 = before(B, F4, F4) + F4        F5 = after(B, F3, F4) + F4         (two networks)
    F2 = inner(B, F4, F3) + F3         F6 = inner(B, F4, F5) + F5         (one network, used twice)
    F1 = outer(B, F3, F2) + F2         F7 = outer(B, F5, F6) + F6         (one network, used twice)

Each colour channel goes through the same weights; only the middle frame has a small refinement that sees the
three channels together. 18.35 M parameters and 247 GMAC for 7 frames at 320x240 (known: 18.21 M, 252 G).

What the description leaves open, and what was chosen to meet both figures: normalisations have a scale and a
shift per channel; every network has four taps, 1x1 convolutions after each quarter of its blocks; with four
dilated blocks the dilations are (1,2)(2,4)(4,2)(2,1); the refinement is three 3x3 convolutions 3-64-64-3. The
taps and the refinement start near zero, so that a fresh cascade repeats the blurry image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypercut_core.blur.exposure import Response
from hypercut_core.deblurring.sizes import pad_to_multiple
from hypercut_core.errors import BadParameters

FRAMES = 7  # the wiring above is that of seven frames
PLAIN = (1, 1)
SIX_DILATED = ((1, 2), (2, 4), (4, 8), (8, 4), (4, 2), (2, 1))
FOUR_DILATED = ((1, 2), (2, 4), (4, 2), (2, 1))


@dataclass(frozen=True)
class CascadeConfig:
    """The shape of the cascade; the defaults are the paper's."""

    width: int = 144  # channels of the middle frame's network
    side_width: int = 128  # channels of the other networks
    colour: int = 64  # channels of the middle frame's colour refinement
    response: Response = "srgb"  # response curve of the data; the cascade itself does not use it


class PreActivatedBlock(nn.Module):
    """x + conv1x1(relu(IN x)) + conv3x3(relu(IN(conv3x3(relu(IN x))))), (N, C, h, w) -> (N, C, h, w).

    Args:
        dilations: of the first and the second 3x3 convolution.
    """

    def __init__(self, channels: int, dilations: tuple[int, int]):
        super().__init__()
        first, second = dilations
        self.norm1 = nn.InstanceNorm2d(channels, affine=True)
        self.short = nn.Conv2d(channels, channels, 1)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=first, dilation=first)
        self.norm2 = nn.InstanceNorm2d(channels, affine=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=second, dilation=second)

    def forward(self, x: Tensor) -> Tensor:
        entered = F.relu(self.norm1(x))
        return x + self.short(entered) + self.conv2(F.relu(self.norm2(self.conv1(entered))))


class ChannelNetwork(nn.Module):
    """One colour channel of some images to one channel of one image: (N, inputs, H, W) -> (N, 1, H, W).

    Pixels are folded into channels (space-to-depth), blocks run at that size, and the features after each
    quarter of the blocks are brought to one image and summed. H and W must be multiples of `fold`.
    """

    def __init__(self, inputs: int, width: int, fold: int, plan: Sequence[tuple[int, int]]):
        super().__init__()
        self.fold, self.quarter = fold, len(plan) // 4
        self.enter = nn.Conv2d(inputs * fold**2, width, 5, padding=2)
        self.blocks = nn.ModuleList(PreActivatedBlock(width, dilations) for dilations in plan)
        self.taps = nn.ModuleList(nn.Conv2d(width, fold**2, 1) for _ in range(4))
        for tap in self.taps:
            _start_near_zero(tap)

    def forward(self, x: Tensor) -> Tensor:
        features = self.enter(F.pixel_unshuffle(x, self.fold))
        total = features.new_zeros(())
        for number, block in enumerate(self.blocks, 1):
            features = block(features)
            if number % self.quarter == 0:
                total = total + self.taps[number // self.quarter - 1](features)
        return F.pixel_shuffle(total, self.fold)


def each_channel(network: nn.Module, *images: Tensor) -> Tensor:
    """Send every colour channel of some (B, 3, H, W) images through one network: (B, 3, H, W)."""
    stacked = torch.stack(images, 2)  # (B, 3, images, H, W)
    return network(stacked.flatten(0, 1)).view_as(images[0])


class CascadeDeblurrer(nn.Module):
    """Blurry image (B, 3, H, W) in [0, 1] to 7 sharp frames (B, 7, 3, H, W), not clipped; any H and W >= 1.

    Source: Jin et al. 2018, the networks and their order.

    Raises:
        BadParameters: another number of frames than 7 is asked for.
    """

    multiple = 20  # the middle frame's network folds 4x4 pixels, the others 5x5

    def __init__(self, config: CascadeConfig, frames: int = FRAMES):
        super().__init__()
        if frames != FRAMES:
            raise BadParameters(f"the cascade (Jin et al. 2018) has {FRAMES} frames, not {frames}", where="frames",
                                remedy=f"use clips of {FRAMES} sharp frames, or another model")
        self.config, self.frames, self.response = config, frames, config.response
        side = config.side_width
        self.middle = ChannelNetwork(1, config.width, 4, [PLAIN] * 3 + [*SIX_DILATED] + [PLAIN] * 3)
        self.colour = nn.Sequential(nn.Conv2d(3, config.colour, 3, padding=1), nn.ReLU(),
                                    nn.Conv2d(config.colour, config.colour, 3, padding=1), nn.ReLU(),
                                    nn.Conv2d(config.colour, 3, 3, padding=1))
        _start_near_zero(self.colour[-1])
        long, short = [PLAIN] * 4 + [*FOUR_DILATED] + [PLAIN] * 4, [PLAIN] * 2 + [*FOUR_DILATED] + [PLAIN] * 2
        self.before, self.after = ChannelNetwork(3, side, 5, long), ChannelNetwork(3, side, 5, long)
        self.inner, self.outer = ChannelNetwork(3, side, 5, short), ChannelNetwork(3, side, 5, short)

    def forward(self, blurry: Tensor) -> Tensor:
        height, width = blurry.shape[-2:]
        b = pad_to_multiple(blurry, self.multiple)
        joined = b + each_channel(self.middle, b)
        f4 = b + self.colour(joined - 0.5)
        f3 = f4 + each_channel(self.before, b, f4, f4)
        f5 = f4 + each_channel(self.after, b, f3, f4)
        f2 = f3 + each_channel(self.inner, b, f4, f3)
        f6 = f5 + each_channel(self.inner, b, f4, f5)
        f1 = f2 + each_channel(self.outer, b, f3, f2)
        f7 = f6 + each_channel(self.outer, b, f5, f6)
        return torch.stack([f1, f2, f3, f4, f5, f6, f7], 1)[..., :height, :width]


def _start_near_zero(module: nn.Module) -> None:
    assert isinstance(module, nn.Conv2d)
    nn.init.normal_(module.weight, std=1e-3)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
