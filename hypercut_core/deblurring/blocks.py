"""The trunk: a NAFNet-style U-Net (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # channels-last memory makes both permutations free
        return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.weight, self.bias,
                            1e-6).permute(0, 3, 1, 2)


class GatedBlock(nn.Module):
    """NAFNet block: gated depth-wise convolution with channel attention, then a gated 1x1 pair.

    (B, C, H, W) -> (B, C, H, W). The attention looks at a window's mean, so it is local in no way:
    very large images should be restored in tiles.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.spatial = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.norm2 = ChannelNorm(channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(channels, channels, 1)
        self.scale1 = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale2 = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.spatial(self.expand(self.norm1(x))).chunk(2, dim=1)
        gated = a * b
        gated = gated * self.attention(gated.mean((2, 3), keepdim=True))
        x = x + self.project(gated) * self.scale1
        a, b = self.widen(self.norm2(x)).chunk(2, dim=1)
        return x + self.narrow(a * b) * self.scale2


class ConvBlock(nn.Module):
    """Plain residual block of two 3x3 convolutions: on a CPU the fastest way to spend multiply-adds."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(x)))


BLOCKS: dict[str, type[nn.Module]] = {"gated": GatedBlock, "conv": ConvBlock}


class UNetTrunk(nn.Module):
    """U-Net over pixel-unshuffled input.

    Args:
        inputs, outputs: channels at full resolution.
        width: channels at the first level; doubled at each deeper one.
        blocks: blocks per encoder level; the last entry is the bottom.
        unshuffle: factor by which pixels are folded into channels at the door.
        block: "gated" (NAFNet) or "conv".

    Input (B, inputs, H, W) -> output (B, outputs, H, W), H and W multiples of `multiple`.
    """

    def __init__(self, inputs: int, outputs: int, width: int, blocks: Sequence[int], unshuffle: int = 2,
                 block: str = "gated"):
        super().__init__()
        make = BLOCKS[block]
        self.unshuffle = unshuffle
        self.multiple = unshuffle * 2 ** (len(blocks) - 1)
        self.enter = nn.Conv2d(inputs * unshuffle**2, width, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.decoders, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, count in enumerate(blocks[:-1]):
            channels = width * 2**level
            self.encoders.append(nn.Sequential(*[make(channels) for _ in range(count)]))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            self.ups.append(nn.Sequential(nn.Conv2d(2 * channels, 4 * channels, 1, bias=False),
                                          nn.PixelShuffle(2)))
            self.decoders.append(nn.Sequential(*[make(channels) for _ in range(max(1, count // 2))]))
        self.bottom = nn.Sequential(*[make(width * 2 ** (len(blocks) - 1)) for _ in range(blocks[-1])])
        self.leave = nn.Conv2d(width, outputs * unshuffle**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(F.pixel_unshuffle(x, self.unshuffle))
        kept = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            kept.append(x)
            x = down(x)
        x = self.bottom(x)
        for level in reversed(range(len(kept))):
            x = self.decoders[level](self.ups[level](x) + kept[level])
        return F.pixel_shuffle(self.leave(x), self.unshuffle)
