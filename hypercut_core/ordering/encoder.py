"""Encoders whose score says on which side of a hyperplane a frame pair lies.

Score of a pair: u(a, b), large and negative on the canonical side (as the paper's regulariser pushes
predictions to the negative side). For a clip x_1..x_T the pairs are (x_k, x_{T+1-k}), k = 1..T//2.

* ``hyperplane``: the released structure of Pham et al. 2023: u = w.f(a, b) + c with w, c drawn once and
  frozen. Nothing makes u(b, a) differ in sign from u(a, b); that has to be learned, and 0 is a saddle.
* ``antisymmetric``: u = w.(f(a, b) - f(b, a)) / 2, so that u(b, a) = -u(a, b) for any weights; only the
  agreement of the pairs is left to learn.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypercut_core.errors import BadCheckpoint, BadParameters
from hypercut_core.training.checkpoint import expect_model, load_weights, read_tensors, save_model


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of a HyperCUT encoder."""

    kind: Literal["antisymmetric", "hyperplane"] = "antisymmetric"  # hyperplane: the paper's structure
    width: int = 24  # channels of the first convolution (antisymmetric only; hyperplane has its own)
    blocks: int = 2  # residual blocks (antisymmetric only)
    features: int = 128  # dimension of the space that the hyperplane cuts


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a sum, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class HyperplaneEncoder(nn.Module):
    """The paper's encoder: 2.32 M parameters, 1.53 GMAC at 256 px.

    conv 7x7 6->32, five stride-2 3x3 convs 32->64->128->128->128->128, six residual blocks, mean over
    the picture; then the frozen random hyperplane.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        if config.features != 128:
            raise BadParameters(f"the hyperplane encoder has 128 features, not {config.features}",
                                where="encoder.model.features", remedy="set it to 128")
        channels = (32, 64, 128, 128, 128, 128)
        layers: list[nn.Module] = [nn.Conv2d(6, 32, 7, padding=3), nn.ReLU()]
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        layers += [ResidualBlock(128) for _ in range(6)]
        self.config = config
        self.body = nn.Sequential(*layers)
        self.normal: Tensor
        self.offset: Tensor
        self.register_buffer("normal", torch.randn(128))
        self.register_buffer("offset", torch.randn(1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Scores (B,) of pairs of frames (B, 3, H, W) in [0, 1]."""
        features = self.body(torch.cat([first, second], 1) * 2 - 1).float().mean((2, 3))
        return features @ self.normal + self.offset


class AntisymmetricEncoder(nn.Module):
    """u(a, b) = w.(f(a, b) - f(b, a)) / 2: swapping the frames changes the sign and nothing else."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        w = config.width
        self.config = config
        self.body = nn.Sequential(
            nn.Conv2d(6, w, 5, stride=2, padding=2), nn.GELU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1), nn.GELU(),
            *[ResidualBlock(2 * w) for _ in range(config.blocks)],
            nn.Conv2d(2 * w, config.features, 3, stride=2, padding=1), nn.GELU())
        self.normal: Tensor
        self.register_buffer("normal", torch.randn(config.features))

    def features(self, first: Tensor, second: Tensor) -> Tensor:
        """f(a, b) on mean and difference of the pair, each brought to unit size: the frames k and T+1-k
        differ the less the nearer they are in time, and their order must not depend on that."""
        difference = first - second
        difference = difference / (_size(difference) + 0.004)
        mean = (first + second) / 2
        mean = mean - mean.mean((2, 3), keepdim=True)
        mean = mean / (_size(mean) + 0.02)
        return self.body(torch.cat([mean, difference], 1)).float().mean((2, 3))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Scores (B,) of pairs of frames (B, 3, H, W) in [0, 1].

        The two passes are separate calls of one shape, so that swapping the frames swaps two numbers
        that are equal to the last bit: a joint batch would leave that to the convolution library.
        """
        difference = self.features(first, second) - self.features(second, first)
        return (difference * self.normal).sum(1) / 2


def _size(x: Tensor) -> Tensor:
    """Root mean square of each picture, (B, C, H, W) -> (B, 1, 1, 1)."""
    return x.square().mean((1, 2, 3), keepdim=True).clamp_min(1e-12).sqrt()


Encoder = HyperplaneEncoder | AntisymmetricEncoder


def build_encoder(config: EncoderConfig) -> Encoder:
    """A fresh encoder; its weights and its frozen hyperplane come from torch's global generator."""
    return HyperplaneEncoder(config) if config.kind == "hyperplane" else AntisymmetricEncoder(config)


def pair_scores(encoder: nn.Module, frames: Tensor) -> Tensor:
    """Scores u_k, k = 1..T//2, of the pairs (x_k, x_{T+1-k}): (B, T, 3, H, W) -> (B, T//2)."""
    batch, half = frames.shape[0], frames.shape[1] // 2
    first = frames[:, :half].flatten(0, 1).contiguous(memory_format=torch.channels_last)
    last = frames.flip(1)[:, :half].flatten(0, 1).contiguous(memory_format=torch.channels_last)
    scores: Tensor = encoder(first, last)
    return scores.view(batch, half)


def both_scores(encoder: nn.Module, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Scores u_k of the pairs and v_k of the swapped pairs, each (B, T//2)."""
    forward = pair_scores(encoder, frames)
    if isinstance(encoder, AntisymmetricEncoder):
        return forward, -forward
    return forward, pair_scores(encoder, frames.flip(1))


def save_encoder(path: str | os.PathLike[str], encoder: Encoder, card: dict[str, Any]) -> None:
    """Write an encoder with its frozen hyperplane; `card` says how it came about."""
    save_model(path, encoder, {"model": encoder.config.kind, "config": asdict(encoder.config), "card": card})


def load_encoder(path: str | os.PathLike[str]) -> Encoder:
    """Read an encoder in evaluation mode with frozen weights.

    Raises:
        BadCheckpoint: missing, damaged, or of another model.
    """
    tensors, info = read_tensors(path)
    expect_model(path, info, ("antisymmetric", "hyperplane"))
    try:
        config = EncoderConfig(**info["config"])
        if not all(0 < n <= 1024 for n in (config.width, config.features)) or not 0 <= config.blocks <= 64:
            raise ValueError("sizes out of range")
        encoder = build_encoder(config)
    except (KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"the description of the encoder cannot be used ({error})", where=path,
                            remedy="run 'hypercut train-encoder' again") from error
    load_weights(path, encoder, tensors)
    return encoder.eval().requires_grad_(False)
