"""The recurrent model of Purohit, Shah and Rajagopalan ("Bringing Alive Blurred Moments", CVPR 2019), written
from its description.

A motion embedding h (128 channels at 1/8 of the size) is unrolled by a recurrent decoder into one flow per
frame, and each flow warps the middle frame m:

    h_0 = image_encoder(B, m)                     (in training also video_encoder(x_1 .. x_T, m))
    h_k = ConvLSTM(flow_encoder(flow_{k-1}), h_{k-1});   flow_k = flow_decoder(h_k);   x_k = warp(m, flow_k)

Two protocols, never to be put in one row: **oracle** is given the true middle frame, as the authors' code is,
also at test; **blind** estimates it from B by a small U-Net of its own (`MiddleFrame`), whose parameters are
counted apart (`parameters_by_part`). The loss functions of the three training stages are in
`recurrent_stages.py`.

4.58 M parameters (encoder 1.65, decoder 2.93) and 103 GMAC for 7 frames at 320x240 in the oracle protocol
(known: 4.55 M = 1.65 + 2.90, 105 G). What the description leaves open, and what was chosen to meet the figures:
the flow encoder has 5x5 kernels; one ConvLSTM layer with 3x3 kernels; the decoder has two 5x5 convolutions at
1/8, then one after each doubling, 128-128-64-16, and a 5x5 flow head at each of the four scales that corrects
the doubled flow of the scale before; T steps in temporal order, the middle one included. Flows are taken
relative to that of the middle step: the flow of the middle frame is zero, and the frame is passed on to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypercut_core.blur.exposure import Response
from hypercut_core.deblurring.blocks import UNetTrunk
from hypercut_core.deblurring.sizes import check_frames, pad_to_multiple
from hypercut_core.deblurring.warping import warp
from hypercut_core.errors import BadParameters

Protocol = Literal["blind", "oracle"]
MULTIPLE = 8  # the embedding has 1/8 of the image's size
SCALES = 4  # flows at 1/8, 1/4, 1/2 and the full size


@dataclass(frozen=True)
class RecurrentConfig:
    """The shape of the recurrent model; the defaults are the paper's."""

    width: int = 128  # channels of the motion embedding; the other layers follow in proportion
    protocol: Protocol = "blind"  # where the middle frame comes from: an own estimate, or the truth
    middle_width: int = 32  # channels of the U-Net that estimates the middle frame, blind only
    response: Response = "srgb"  # response curve of the data; the model itself does not use it


class ImageEncoder(nn.Module):
    """B and the middle frame, (B, 6, H, W), to the motion embedding (B, width, H/8, W/8).

    Purohit et al. 2019, blurred-image encoder: seven 5x5 convolutions, 6-64-64-64/2-128-128-128/2-128/2, LeakyReLU 0.1.
    """

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        widths, strides = [half, half, half, width, width, width, width], [1, 1, 2, 1, 1, 2, 2]
        self.layers = five_by_five(6, widths, strides, last_linear=True)

    def forward(self, blurry: Tensor, middle: Tensor) -> Tensor:
        return self.layers(torch.cat([blurry, middle], 1) - 0.5)


class ConvLSTM(nn.Module):
    """Convolutional LSTM cell (Shi et al. 2015, without peepholes); all states (B, width, h, w)."""

    def __init__(self, width: int):
        super().__init__()
        self.gates = nn.Conv2d(2 * width, 4 * width, 3, padding=1)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        enter, forget, leave, news = self.gates(torch.cat([x, hidden], 1)).chunk(4, 1)
        cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(enter) * torch.tanh(news)
        return torch.sigmoid(leave) * torch.tanh(cell), cell


class FlowDecoder(nn.Module):
    """Hidden state (B, width, H/8, W/8) to flows (B, 2, h, w) in px of their scale, coarse to fine, 1/8 to 1."""

    def __init__(self, width: int):
        super().__init__()
        widths = [width, width, width // 2, width // 8]
        self.bottom = nn.Conv2d(width, width, 5, padding=2)
        self.levels = nn.ModuleList(nn.Conv2d(before, after, 5, padding=2) for before, after in
                                    zip([width, *widths[:-1]], widths, strict=True))
        self.heads = nn.ModuleList(nn.Conv2d(channels, 2, 5, padding=2) for channels in widths)
        for head in self.heads:  # start at rest
            nn.init.normal_(head.weight, std=1e-3)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, hidden: Tensor) -> list[Tensor]:
        x = F.leaky_relu(self.bottom(hidden), 0.1)
        flows: list[Tensor] = []
        for level, head in zip(self.levels, self.heads, strict=True):
            x = F.leaky_relu(level(_doubled(x) if flows else x), 0.1)
            flows.append(2 * _doubled(flows[-1]) + head(x) if flows else head(x))
        return flows


class VideoDecoder(nn.Module):
    """Motion embedding to the flows of T frames (Purohit et al. 2019, recurrent video decoder)."""

    def __init__(self, width: int, frames: int):
        super().__init__()
        self.frames = frames
        self.flow_encoder = five_by_five(2, [width // 8, width // 4, width // 2, width], [1, 2, 2, 2])
        self.lstm = ConvLSTM(width)
        self.flow_decoder = FlowDecoder(width)

    def forward(self, embedding: Tensor) -> list[Tensor]:
        """(B, width, H/8, W/8) to four tensors (B, T, 2, h, w), 1/8 first; that of the middle frame is zero."""
        batch, _, height, width = embedding.shape
        flow = embedding.new_zeros(batch, 2, MULTIPLE * height, MULTIPLE * width)
        hidden, cell = torch.tanh(embedding), torch.zeros_like(embedding)
        steps = []
        for _ in range(self.frames):
            hidden, cell = self.lstm(self.flow_encoder(flow), hidden, cell)
            steps.append(self.flow_decoder(hidden))
            flow = steps[-1][-1]
        scales = [torch.stack(flows, 1) for flows in zip(*steps, strict=True)]
        middle = self.frames // 2
        return [flows - flows[:, middle:middle + 1] for flows in scales]


class MiddleFrame(nn.Module):
    """The blind protocol's own estimate of the middle frame: (B, 3, H, W) to (B, 3, H, W), multiples of 8.

    Not from the paper, which takes any single-image deblurrer: a plain U-Net that adds a residual to B.
    """

    def __init__(self, width: int):
        super().__init__()
        self.trunk = UNetTrunk(3, 3, width, (2, 2, 2), unshuffle=2, block="conv")
        nn.init.normal_(self.trunk.leave.weight, std=1e-3)
        nn.init.zeros_(self.trunk.leave.bias)  # type: ignore[arg-type]

    def forward(self, blurry: Tensor) -> Tensor:
        return blurry + self.trunk(blurry - 0.5)


class RecurrentDeblurrer(nn.Module):
    """Blurry image (B, 3, H, W) in [0, 1] to T sharp frames (B, T, 3, H, W), not clipped; any H and W >= 1.

    Raises:
        BadParameters: T is even or outside 3 to 15, or the protocol is unknown.
    """

    def __init__(self, config: RecurrentConfig, frames: int = 7):
        super().__init__()
        if config.protocol not in ("blind", "oracle"):
            raise BadParameters(f"unknown protocol '{config.protocol}'", where="protocol",
                                remedy="choose blind or oracle")
        if config.width % 8:
            raise BadParameters(f"the width is {config.width}", where="width", remedy="choose a multiple of 8")
        self.config, self.frames, self.response = config, check_frames(frames), config.response
        self.encoder = ImageEncoder(config.width)
        self.decoder = VideoDecoder(config.width, frames)
        self.middle = MiddleFrame(config.middle_width) if config.protocol == "blind" else None

    def forward(self, blurry: Tensor, middle: Tensor | None = None) -> Tensor:
        """`middle`: the true middle frame (B, 3, H, W), needed by the oracle protocol and refused by the blind."""
        height, width = blurry.shape[-2:]
        blurry = pad_to_multiple(blurry, MULTIPLE)
        middle = self.middle_frame(blurry, middle)
        flows = self.decoder(self.encoder(blurry, middle))
        return render(middle, flows[-1])[..., :height, :width]

    def middle_frame(self, blurry: Tensor, truth: Tensor | None = None) -> Tensor:
        """The protocol's middle frame, padded as `blurry` is.

        Raises:
            BadParameters: the truth is missing in the oracle protocol, or given in the blind one.
        """
        if (truth is None) != (self.middle is not None):
            raise BadParameters(f"a model of the {self.config.protocol} protocol was "
                                f"{'not given' if truth is None else 'given'} the true middle frame",
                                where="middle", remedy="use the blind protocol where only the blurry image is known,"
                                                       " and the oracle protocol where the truth is")
        return self.middle(blurry) if self.middle is not None else pad_to_multiple(truth, MULTIPLE)  # type: ignore

    def parameters_by_part(self) -> dict[str, int]:
        """Parameters of the paper's model (`backbone`) and of what this program adds to it (`middle`)."""
        count = {name: sum(p.numel() for p in module.parameters()) for name, module in self.named_children()}
        return {"backbone": count["encoder"] + count["decoder"], "middle": count.get("middle", 0)}


def render(middle: Tensor, flows: Tensor) -> Tensor:
    """Warp (B, 3, H, W) by T flows (B, T, 2, H, W): (B, T, 3, H, W); exact where the flow is zero."""
    frames = flows.shape[1]
    return warp(middle.repeat_interleave(frames, 0), flows.flatten(0, 1)).unflatten(0, (-1, frames))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def five_by_five(inputs: int, widths: list[int], strides: list[int], last_linear: bool = False) -> nn.Sequential:
    """5x5 convolutions of these widths and strides, each but perhaps the last followed by LeakyReLU 0.1."""
    layers: list[nn.Module] = []
    for before, after, stride in zip([inputs, *widths[:-1]], widths, strides, strict=True):
        layers += [nn.Conv2d(before, after, 5, stride=stride, padding=2), nn.LeakyReLU(0.1)]
    return nn.Sequential(*(layers[:-1] if last_linear else layers))
