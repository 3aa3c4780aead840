"""The motion-guided model of Zhong et al. ("Animation from Blur: Multi-modal Blur Decomposition with Motion
Guidance", ECCV 2022), written from its description.

A guidance map says for each pixel in which of four directions it moves, or that it is at rest (`guidance.py`).
With it, blur has one explanation:

    frames_1 = B + stage_1(B, guidance)                 3 + 2 -> 3 T channels
    frames   = frames_1 + stage_2(B, frames_1)          3 + 3 T -> 3 T channels

129.6 M parameters and 782 GMAC for 7 frames at 320x240 (known: 129.3 M, 799 G). What the description leaves open,
and what was chosen to meet both figures: no normalisation; each stage halves by stride-2 3x3 convolutions
128-256-512, doubles by a 3x3 convolution to four times the channels and pixel-shuffle, and has two more residual
blocks at full size before its last convolution. The last convolutions start near zero and the residual blocks
at the identity: a fresh model repeats the blurry image.

Where nobody gives guidance, `GuidancePredictor` does, a small network of this program's own (the paper's is a
conditional generative one); its parameters are counted apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypercut_core.blur.exposure import Response
from hypercut_core.deblurring.blocks import ConvBlock
from hypercut_core.deblurring.guidance import DIRECTIONS, check_guidance
from hypercut_core.deblurring.guidance_predictor import GuidancePredictor
from hypercut_core.deblurring.sizes import check_frames, pad_to_multiple


@dataclass(frozen=True)
class GuidedConfig:
    """The shape of the guided model; the defaults are the paper's."""

    width: int = 128  # channels at full size; doubled at each of the two smaller ones
    blocks: int = 12  # residual blocks at a quarter of the size, in each stage
    refine: int = 2  # residual blocks at full size, in each stage
    predictor_width: int = 32  # channels of the guidance predictor's first level
    assumes: Literal["auto", "rightward", "likeliest"] = "auto"  # direction without guidance; auto: as it learned
    symmetric: bool = False  # outside training, average with the reversed sequence of the reversed guidance
    response: Response = "srgb"  # response curve of the data; the model itself does not use it


class DecompositionStage(nn.Module):
    """One stage (Zhong et al. 2022): (B, inputs, H, W) to (B, outputs, H, W), H and W multiples of 4."""

    def __init__(self, inputs: int, outputs: int, config: GuidedConfig):
        super().__init__()
        width = config.width
        self.enter = nn.Conv2d(inputs, width, 7, padding=3)
        self.downs = nn.ModuleList(nn.Conv2d(size, 2 * size, 3, stride=2, padding=1) for size in (width, 2 * width))
        self.body = nn.Sequential(*[ConvBlock(4 * width) for _ in range(config.blocks)])
        self.ups = nn.ModuleList(nn.Conv2d(size, 2 * size, 3, padding=1) for size in (4 * width, 2 * width))
        self.refine = nn.Sequential(*[ConvBlock(width) for _ in range(config.refine)])
        self.leave = nn.Conv2d(width, outputs, 7, padding=3)
        nn.init.normal_(self.leave.weight, std=1e-3)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.enter(x))
        for down in self.downs:
            x = F.gelu(down(x))
        x = self.body(x)
        for up in self.ups:
            x = F.gelu(F.pixel_shuffle(up(x), 2))
        return self.leave(self.refine(x))


class GuidedDeblurrer(nn.Module):
    """Blurry image (B, 3, H, W) in [0, 1], with or without guidance, to T sharp frames (B, T, 3, H, W), not
    clipped; any H and W >= 1.

    Raises:
        BadParameters: T is even or outside 3 to 15.
    """

    multiple = 4

    def __init__(self, config: GuidedConfig, frames: int = 7):
        super().__init__()
        self.config, self.frames, self.response = config, check_frames(frames), config.response
        self.first = DecompositionStage(5, 3 * frames, config)
        self.second = DecompositionStage(3 + 3 * frames, 3 * frames, config)
        self.predictor = GuidancePredictor(config.predictor_width)

    def forward(self, blurry: Tensor, guidance: Tensor | None = None) -> Tensor:
        """Frames in the direction that the guidance says.

        Args:
            guidance: (B, 2, H, W) signs of motion to the right and downwards, or None for `assume`.

        With `config.symmetric`, outside training, the reversed guidance gives the reversed sequence to the bit:
        f(B, g) = (p(B, g) + reverse p(B, -g)) / 2, for twice the computation.
        """
        guidance = self.assume(blurry) if guidance is None else guidance
        frames = self.stages(blurry, guidance)[1]
        if not self.config.symmetric or self.training:
            return frames
        return (frames + self.stages(blurry, -guidance)[1].flip(1)) / 2

    def stages(self, blurry: Tensor, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """The frames after the first and after the second stage, both (B, T, 3, H, W): the paper's one pass."""
        check_guidance(guidance, blurry)
        height, width = blurry.shape[-2:]
        b, g = pad_to_multiple(blurry, self.multiple), pad_to_multiple(guidance.to(blurry), self.multiple)
        shape = (self.frames, 3)
        first = b[:, None] + self.first(torch.cat([b - 0.5, g], 1)).unflatten(1, shape)
        seen = torch.cat([b - 0.5, first.flatten(1, 2) - 0.5], 1)
        second = first + self.second(seen).unflatten(1, shape)
        return first[..., :height, :width], second[..., :height, :width]

    def assume(self, blurry: Tensor) -> Tensor:
        """The guidance that is used when none is given. What was assumed is told in words by `guidance.describe`.

        "rightward": at each pixel the predictor's likeliest axis of motion, all of it to the right; fair where the
        predictor learned that both directions happen. "likeliest": its likeliest direction, for a predictor that
        was shown one direction of each blur. "auto" becomes one of them in training, and is "rightward" before.
        """
        with torch.no_grad():
            return self.predictor.assume(blurry, likeliest=self.config.assumes == "likeliest")

    def parameters_by_part(self) -> dict[str, int]:
        """Parameters of the paper's two stages (`backbone`) and of the guidance predictor (`predictor`)."""
        count = {name: sum(p.numel() for p in module.parameters()) for name, module in self.named_children()}
        return {"backbone": count["first"] + count["second"], "predictor": count["predictor"]}


def decomposition_loss(model: GuidedDeblurrer, blurry: Tensor, guidance: Tensor, sharp: Tensor,
                       frames_loss: Callable[[Tensor, Tensor], Tensor] = F.l1_loss,
                       either_direction: bool = False) -> Tensor:
    """Error of the frames of both stages (L1 in the paper), plus the predictor's cross-entropy to the guidance.

    Args:
        blurry: (B, 3, H, W), sharp: (B, T, 3, H, W), both in [0, 1]; guidance: (B, 2, H, W), of the true frames.
        frames_loss: (predicted, sharp), both (B, T, 3, H, W), to a scalar: any of the objectives.
        either_direction: the predictor is held, clip by clip, to the nearer of the guidance and its reverse.
    """
    first, second = model.stages(blurry, guidance)
    logits = model.predictor(blurry)
    maps = [guidance, -guidance] if either_direction else [guidance]
    errors = torch.stack([F.cross_entropy(logits, DIRECTIONS.classes(one), reduction="none").mean((1, 2))
                          for one in maps])
    return frames_loss(first, sharp) + frames_loss(second, sharp) + errors.amin(0).mean()


def best_hypothesis(model: GuidedDeblurrer, blurry: Tensor, sharp: Tensor, count: int, seed: int = 0) -> Tensor:
    """Frames (B, T, 3, H, W) of the best of `count` sampled maps, chosen clip by clip by the truth.

    Args:
        blurry: (B, 3, H, W), sharp: (B, T, 3, H, W), both in [0, 1].
    """
    best, score = sharp.new_zeros(sharp.shape), sharp.new_full((len(sharp),), -1.0)
    with torch.no_grad():
        for guidance in model.predictor.sample(blurry, count, seed).unbind(1):
            frames = model(blurry, guidance)
            found = _psnr(frames, sharp)
            best = torch.where((found > score).view(-1, 1, 1, 1, 1), frames, best)
            score = torch.maximum(score, found)
    return best


def best_of(model: GuidedDeblurrer, blurry: Tensor, sharp: Tensor, counts: tuple[int, ...] = (1, 3, 5),
            seed: int = 0) -> dict[int, Tensor]:
    """Best-of-n PSNR of each clip, dB, over n sampled maps (Zhong et al. 2022, evaluation: 1, 3 and 5).

    The better the more hypotheses are drawn: n belongs in the table, and n = 1 is the only blind figure.

    Args:
        blurry: (B, 3, H, W), sharp: (B, T, 3, H, W), both in [0, 1].

    Returns:
        n -> (B,), the PSNR over all frames of the best of the first n hypotheses.
    """
    hypotheses = model.predictor.sample(blurry, max(counts), seed)
    with torch.no_grad():
        scores = torch.stack([_psnr(model(blurry, guidance), sharp) for guidance in hypotheses.unbind(1)])
    return {count: scores[:count].amax(0) for count in counts}


def _psnr(predicted: Tensor, sharp: Tensor) -> Tensor:
    """(B,) dB over all frames, at most 100."""
    return -10 * (predicted.clamp(0, 1) - sharp).square().flatten(1).mean(1).clamp_min(1e-10).log10()
