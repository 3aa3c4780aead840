"""The three training stages of the recurrent model (Purohit et al. 2019, training): their losses.

1. ``autoencoder_loss``: a video encoder and the decoder learn a motion embedding from sharp clips alone.
2. ``embedding_loss``: the image encoder learns to find that embedding from the blurry image.
3. ``joint_loss``: image encoder and decoder are trained together on the frames.

Each returns a scalar; which parameters it moves is decided by the optimiser's list (`stage_parameters`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypercut_core.deblurring.recurrent import (
    MULTIPLE,
    SCALES,
    ConvLSTM,
    RecurrentDeblurrer,
    five_by_five,
    render,
)
from hypercut_core.deblurring.sizes import pad_to_multiple
from hypercut_core.errors import BadParameters

SMOOTHNESS = 1e-3  # weight of the flows' total variation
FramesLoss = Callable[[Tensor, Tensor], Tensor]


class VideoEncoder(nn.Module):
    """Sharp frames (B, T, 3, H, W) to the motion embedding (B, width, H/8, W/8); H and W multiples of 8.

    Purohit et al. 2019, recurrent video encoder: each frame, joined with the middle one, is brought
    to 1/8 by 5x5 convolutions and read in temporal order by a ConvLSTM; a 1x1 convolution of its last state is
    the embedding. Only training needs it, so it is no part of the saved model.
    """

    def __init__(self, width: int):
        super().__init__()
        self.features = five_by_five(6, [width // 4, width // 2, width, width], [1, 2, 2, 2])
        self.lstm = ConvLSTM(width)
        self.leave = nn.Conv2d(width, width, 1)

    def forward(self, sharp: Tensor) -> Tensor:
        frames = sharp.shape[1]
        middle = sharp[:, frames // 2:frames // 2 + 1].expand_as(sharp)
        seen = self.features(torch.cat([sharp, middle], 2).flatten(0, 1) - 0.5).unflatten(0, (-1, frames))
        hidden = cell = torch.zeros_like(seen[:, 0])
        for step in range(frames):
            hidden, cell = self.lstm(seen[:, step], hidden, cell)
        return self.leave(hidden)


def autoencoder_loss(model: RecurrentDeblurrer, video_encoder: VideoEncoder, sharp: Tensor) -> Tensor:
    """Stage 1: error of the clip that the decoder makes of the clip's own embedding and true middle frame.

    Args:
        sharp: (B, T, 3, H, W) in [0, 1].
    """
    sharp = pad_to_multiple(sharp.flatten(0, 1), MULTIPLE).unflatten(0, sharp.shape[:2])
    flows = model.decoder(video_encoder(sharp))
    return multiscale_error(flows, sharp[:, model.frames // 2], sharp) + SMOOTHNESS * roughness(flows)


def embedding_loss(model: RecurrentDeblurrer, video_encoder: VideoEncoder, blurry: Tensor, sharp: Tensor,
                   either_direction: bool = False) -> Tensor:
    """Stage 2: squared distance of the image encoder's embedding from the video encoder's, which is not moved.

    In the blind protocol the error of the middle frame's estimate is added.

    Args:
        blurry: (B, 3, H, W), sharp: (B, T, 3, H, W), both in [0, 1].
        either_direction: take, clip by clip, the nearer of the embeddings of the clip and of its reverse. The
            paper takes the clip as it was shot, which averages two answers that the blur cannot tell apart.
    """
    padded = pad_to_multiple(blurry, MULTIPLE)
    sharp = pad_to_multiple(sharp.flatten(0, 1), MULTIPLE).unflatten(0, sharp.shape[:2])
    truth = sharp[:, model.frames // 2]
    middle, error = _middle(model, padded, truth)
    mine = model.encoder(padded, middle)
    with torch.no_grad():
        targets = [video_encoder(sharp), *([video_encoder(sharp.flip(1))] if either_direction else [])]
    distances = torch.stack([(mine - target).square().flatten(1).mean(1) for target in targets])
    return distances.amin(0).mean() + error


def joint_loss(model: RecurrentDeblurrer, blurry: Tensor, sharp: Tensor,
               frames_loss: FramesLoss = F.l1_loss) -> Tensor:
    """Stage 3: error of the frames that are made of the blurry image.

    Args:
        blurry: (B, 3, H, W), sharp: (B, T, 3, H, W), both in [0, 1].
        frames_loss: (predicted, sharp), both (B, T, 3, H, W), to a scalar: any of the objectives. In the blind
            protocol the error of the middle frame's estimate is added to it.
    """
    height, width = blurry.shape[-2:]
    padded = pad_to_multiple(blurry, MULTIPLE)
    truth = pad_to_multiple(sharp[:, model.frames // 2], MULTIPLE)
    middle, error = _middle(model, padded, truth)
    flows = model.decoder(model.encoder(padded, middle))
    frames = render(middle, flows[-1])[..., :height, :width]
    return frames_loss(frames, sharp) + error + SMOOTHNESS * roughness(flows)


def stage_parameters(model: RecurrentDeblurrer, video_encoder: VideoEncoder, stage: int) -> Iterator[nn.Parameter]:
    """The parameters that a stage (1, 2 or 3) trains.

    Raises:
        BadParameters: no such stage.
    """
    own: list[nn.Module] = [] if model.middle is None else [model.middle]
    stages: dict[int, list[nn.Module]] = {1: [video_encoder, model.decoder], 2: [model.encoder, *own], 3: [model]}
    if stage not in stages:
        raise BadParameters(f"there is no training stage {stage}", where="stage", remedy="choose 1, 2 or 3")
    for module in stages[stage]:
        yield from module.parameters()


def multiscale_error(flows: list[Tensor], middle: Tensor, sharp: Tensor) -> Tensor:
    """Mean L1 error of the warped middle frame at each of the four scales, the full size weighing most.

    Args:
        flows: four tensors (B, T, 2, h, w), 1/8 first; middle (B, 3, H, W); sharp (B, T, 3, H, W).
    """
    total = sharp.new_zeros(())
    for level, flow in enumerate(flows):
        shrink = 2 ** (SCALES - 1 - level)
        small = F.avg_pool2d(sharp.flatten(0, 1), shrink).unflatten(0, sharp.shape[:2])
        total = total + (render(F.avg_pool2d(middle, shrink), flow) - small).abs().mean() / shrink
    return total


def roughness(flows: list[Tensor]) -> Tensor:
    """Total variation of the flows, px per px, mean over frames and pixels, summed over the scales."""
    total = flows[0].new_zeros(())
    for flow in flows:
        for axis in (-1, -2):
            if flow.shape[axis] > 1:
                total = total + flow.diff(dim=axis).abs().mean()
    return total


def _middle(model: RecurrentDeblurrer, blurry: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The protocol's middle frame and, in the blind protocol, its L1 error."""
    if model.middle is None:
        return model.middle_frame(blurry, truth), blurry.new_zeros(())
    middle = model.middle_frame(blurry)
    return middle, F.l1_loss(middle, truth)
