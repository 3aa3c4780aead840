"""Captures of two cameras with known timing, geometry and colour: a photograph that is moved about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from made_footage import write_frames

from hypercut_core.blur.exposure import from_linear
from hypercut_core.clips.photos import load_photo_linear
from hypercut_core.clips.registration import mapped, positions, sample

INSTANTS = 4  # of one sharp frame


@dataclass
class Truth:
    """What is to be found again."""

    offset: float = 9.25  # sharp frames, in quarters
    rate: float = 7.5  # the same
    homography: torch.Tensor = field(default_factory=lambda: torch.tensor(
        [0.93, -0.03, 0.04, 0.045, 0.95, -0.05, 0.015, -0.01], dtype=torch.float64))
    matrix: torch.Tensor = field(default_factory=lambda: torch.tensor(
        [[0.75, 0.05, 0.0], [0.04, 0.85, 0.05], [0.0, 0.06, 0.65]], dtype=torch.float64))
    gamma: float = 1.15
    stray: float = 0.01
    mirrored: bool = False
    bulge: float = 0.0  # of the blurry camera's lens: positions move outwards by bulge * r^2


def photo_film(name: str = "skimage/coffee.png", size: tuple[int, int] = (108, 144), seed: int = 0
               ) -> Callable[[float], torch.Tensor]:
    """Time in sharp frames -> picture (3, H, W) in linear light: a shaken camera before a moving cut-out."""
    photo, front = load_photo_linear(name)[None], load_photo_linear("skimage/chelsea.png")[None]
    rng = np.random.default_rng(seed)
    slow, fast = rng.uniform(0.010, 0.03, 6), rng.uniform(0, 6.28, 6)
    at = positions(*size)

    def film(time: float) -> torch.Tensor:
        swing = [np.sin(2 * np.pi * slow[k] * time + fast[k]) for k in range(6)]
        shift = torch.tensor([0.12 * swing[0] + 0.04 * swing[1], 0.10 * swing[2] + 0.04 * swing[3]])
        back = sample(photo, at * 0.7 + shift)[0]
        place = torch.tensor([0.5 * swing[4], 0.4 * swing[5]])
        near = sample(front, (at - place) * 0.5)[0]
        cover = ((0.35 - (at - place).norm(dim=-1)) * 30).clamp(0, 1).float()
        return (back + cover * (near - back)).clamp(0, 1) * 0.85

    return film


def capture(film: Callable[[float], torch.Tensor], truth: Truth, images: int, frames: int = 7
            ) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The blurry and the sharp stream of a film, as 8-bit frames."""
    count = int(truth.offset + truth.rate * images + frames + 6)
    instants = torch.stack([film((k + 0.5) / INSTANTS) for k in range(count * INSTANTS)])
    sharp = instants.unflatten(0, (count, INSTANTS)).mean(1)
    at = positions(*sharp.shape[-2:])
    at = at * (1 + truth.bulge * at.square().sum(-1, keepdim=True))
    there = mapped(truth.homography, at)
    blurry = []
    for image in range(images):
        begin = round((truth.offset + truth.rate * image) * INSTANTS)
        light = instants[begin:begin + frames * INSTANTS]
        light = (light.movedim(1, -1).clamp_min(0) ** truth.gamma @ truth.matrix.float() + truth.stray).mean(0)
        blurry.append(sample(light.movedim(-1, 0)[None], there, "bicubic")[0])
    if truth.mirrored:
        sharp = sharp.flip(-1)
    return [_eight_bit(one) for one in blurry], [_eight_bit(one) for one in sharp]


def _eight_bit(light: torch.Tensor) -> np.ndarray:
    return from_linear(light.clamp(0, 1)).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()


def write_capture(folder: Path, truth: Truth, images: int = 20, **film: object) -> Path:
    """A scene as two folders of frames."""
    blurry, sharp = capture(photo_film(**film), truth, images)  # type: ignore[arg-type]
    write_frames(folder / "blurry", blurry)
    write_frames(folder / "sharp", sharp)
    return folder


def enlarge(frames: list[np.ndarray], factor: int) -> list[np.ndarray]:
    """The same pictures with every pixel `factor` times as large, smoothly."""
    stack = torch.from_numpy(np.stack(frames)).movedim(-1, 1).float()
    large = F.interpolate(stack, scale_factor=factor, mode="bicubic").clamp(0, 255).round().byte()
    return list(large.movedim(1, -1).numpy())
