"""Built-in footage: real photographs in smooth, exactly known motion.

Every clip shows one photo as background and, depending on its kind, cut-outs of another photo:

* ``camera``: the whole picture moves (pan, slight roll, shake);
* ``object``: textured cut-outs move together over a background at rest;
* ``both``: cut-outs move over a background that moves as well.

Each sharp frame is itself an exposure over its T-th part of the shutter time (the mean in linear light
of `subframes` instants), so that the mean of the T frames is the exposure over the whole shutter time.
All of it is torch on one device; all random choices come from a CPU generator, so that a clip is the
same wherever it is rendered, up to rounding.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hypercut_core.blur.exposure import ExposureConfig, expose, from_linear
from hypercut_core.clips.photos import load_photo_linear, photo_names
from hypercut_core.errors import BadParameters

KINDS = ("camera", "object", "both")
CHUNK = 16  # clips rendered at once; they share one background and one cut-out photo


@dataclass(frozen=True)
class MovingPhotosConfig:
    """What the built-in clips look like."""

    size: int = 48  # height and width of a clip, px
    motion_min: float = 4.0  # shortest path during the exposure, px
    motion_max: float = 10.0  # longest path during the exposure, px
    camera: float = 0.1  # share of clips in which only the camera moves
    both: float = 0.05  # share of clips in which camera and cut-outs move; the rest: cut-outs only
    curvature: float = 0.05  # greatest sideways bend of a path, as a share of its length
    acceleration: float = 0.3  # greatest change of speed from the middle to an end, as a share: 1 comes to rest
    shake: float = 0.03  # greatest shake on top of camera motion, as a share of the path's length
    roll: float = 0.5  # greatest camera roll during the exposure, degrees
    zoom_min: float = 0.6  # least photo pixels per clip pixel: below 1 the photo is magnified
    zoom_max: float = 1.0  # most photo pixels per clip pixel; above about 1.2 there is aliasing
    softness: float = 5.0  # how much more a background at rest is magnified: out of focus, as behind a subject
    tint: float = 0.3  # greatest change of gain per colour channel, as a share
    subframes: int = 3  # instants that are averaged into each sharp frame


@dataclass(frozen=True)
class RenderedClip:
    """One clip. `frames` is (T+1, H, W, 3) uint8 with the blurry image first; `motion` in px."""

    frames: np.ndarray
    source: str
    category: str
    motion: float


def render_clips(config: MovingPhotosConfig, split: str, count: int, seed: int, frames: int = 7,
                 device: str = "cpu", exposure: ExposureConfig | None = None, first: int = 0) -> Iterator[RenderedClip]:
    """Yield the clips `first` to `count` of a split's photos; a clip does not depend on `first` and `count`.

    Args:
        split: "train", "val" or "test": which photos are used, for backgrounds and cut-outs alike.
        frames: T, odd, 3 to 15.
        exposure: noise and response curve of the blurry image.
        first: a multiple of CHUNK.

    Raises:
        BadParameters: T or the motion range makes no sense.
    """
    _check(config, frames)
    names = photo_names(split)
    exposure = exposure or ExposureConfig()
    if first % CHUNK:
        raise ValueError(f"first is {first}, a multiple of {CHUNK} expected")
    for chunk in range(first // CHUNK, math.ceil(count / CHUNK)):
        key = zlib.crc32(f"{seed}/{split}/{chunk}".encode())
        draw = torch.Generator().manual_seed(key)
        rng = np.random.default_rng(key)
        back = names[(chunk + seed) % len(names)]
        front = names[int(torch.randint(len(names), (1,), generator=draw))]
        # the kind is chosen by the chunk's place, so that every photo meets every kind at the set rate
        kind = _kind(config, chunk // len(names) * 7 + chunk)
        sharp, motion = _render_chunk(config, kind, back, front, frames, draw, device)
        for clip in range(min(CHUNK, count - chunk * CHUNK)):
            blurry = expose(sharp[clip], exposure, rng)
            yield RenderedClip(np.concatenate([blurry[None], sharp[clip]]), back, kind, float(motion[clip]))


def _check(config: MovingPhotosConfig, frames: int) -> None:
    if frames % 2 == 0 or not 3 <= frames <= 15:
        raise BadParameters(f"the number of sharp frames is {frames}", where="frames",
                            remedy="choose an odd number from 3 to 15")
    if not 0 < config.motion_min <= config.motion_max:
        raise BadParameters(f"motion_min {config.motion_min} and motion_max {config.motion_max} do not fit",
                            where="blur.photos", remedy="set 0 < motion_min <= motion_max")
    if not 0 <= config.acceleration <= 1:
        raise BadParameters(f"acceleration is {config.acceleration}", where="blur.photos.acceleration",
                            remedy="set a share of the speed, 0 to 1")


def _kind(config: MovingPhotosConfig, place: int) -> str:
    share = (place * 0.6180339887) % 1.0  # golden-ratio sequence: even coverage at any length
    if share < config.camera:
        return "camera"
    return "both" if share < config.camera + config.both else "object"


def uniform(draw: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=draw) * (high - low) + low


def _paths(config: MovingPhotosConfig, times: Tensor, count: int, draw: torch.Generator,
           shake: float) -> tuple[Tensor, Tensor]:
    """Smooth paths p(t) in px, (count, len(times), 2), and their lengths, (count,)."""
    length = uniform(draw, config.motion_min, config.motion_max, count, 1)
    angle = uniform(draw, 0, 2 * math.pi, count, 1)
    bend = uniform(draw, -config.curvature, config.curvature, count, 1)
    speed_up = uniform(draw, -config.acceleration, config.acceleration, count, 1)
    along = times + speed_up * (times**2 - 0.25)
    aside = bend * (4 * times**2 - 1) * 0.5
    for frequency in (0.5, 1.0):
        amplitude = uniform(draw, -shake, shake, count, 1) / (2 * frequency)
        phase = uniform(draw, 0, 2 * math.pi, count, 1)
        aside = aside + amplitude * (torch.sin(2 * math.pi * frequency * times + phase) - torch.sin(phase))
    cos, sin = torch.cos(angle), torch.sin(angle)
    path = torch.stack([cos * along - sin * aside, sin * along + cos * aside], dim=-1) * length[..., None]
    steps = (path[:, 1:] - path[:, :-1]).norm(dim=-1).sum(1)
    return path, steps


def _render_chunk(config: MovingPhotosConfig, kind: str, back: str, front: str, frames: int,
                  draw: torch.Generator, device: str) -> tuple[np.ndarray, Tensor]:
    """Frames (CHUNK, T, H, W, 3) uint8 and motion (CHUNK,) of clips that share their photos."""
    instants = frames * config.subframes
    times = (torch.arange(instants) + 0.5) / instants - 0.5
    still = torch.zeros(CHUNK, instants, 2)
    camera, camera_length = _paths(config, times, CHUNK, draw, config.shake)
    roll = uniform(draw, -config.roll, config.roll, CHUNK, 1) * math.pi / 180 * times
    if kind == "object":
        camera, camera_length, roll = still, torch.zeros(CHUNK), torch.zeros(CHUNK, instants)
    background = seen_photo(back, config, camera, roll, draw, device, candidates=2,
                            magnify=config.softness if kind == "object" else 1.0)
    picture, motion = background, camera_length
    if kind != "camera":
        moving, length = _paths(config, times, CHUNK, draw, 0.0)
        motion = torch.maximum(motion, length)
        texture = seen_photo(front, config, moving, torch.zeros_like(roll), draw, device, candidates=6)
        alpha = cut_outs(config, moving, draw, device)
        picture = background + alpha[:, :, None] * (texture - background)
    gain = uniform(draw, 1 - config.tint, 1 + config.tint, CHUNK, 1, 3, 1, 1).to(device)
    light = (picture * gain).unflatten(1, (frames, config.subframes)).mean(2).clamp(0, 1)
    encoded = from_linear(light, "srgb").mul(255).round().to(torch.uint8)
    return encoded.permute(0, 1, 3, 4, 2).contiguous().cpu().numpy(), motion


def _pixel_grid(size: int, device: str) -> tuple[Tensor, Tensor]:
    axis = torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2
    return axis.view(1, 1, 1, size), axis.view(1, 1, size, 1)


def seen_photo(name: str, config: MovingPhotosConfig, path: Tensor, roll: Tensor, draw: torch.Generator,
               device: str, candidates: int, magnify: float = 1.0) -> Tensor:
    """The photo seen through a window that moves against `path`: (CHUNK, instants, 3, S, S), linear light."""
    photo = load_photo_linear(name)
    photo = photo[None]
    height, width = photo.shape[-2:]
    centre = _lively_places(photo, config.size, draw, candidates)
    angle = uniform(draw, 0, 2 * math.pi, CHUNK, 1) + roll
    zoom = uniform(draw, config.zoom_min, config.zoom_max, CHUNK, 1) / magnify
    cos, sin = (zoom * torch.cos(angle)).to(device), (zoom * torch.sin(angle)).to(device)
    x, y = _pixel_grid(config.size, device)
    move = path.to(device)
    x = x - move[:, :, 0, None, None]
    y = y - move[:, :, 1, None, None]
    u = cos[..., None, None] * x - sin[..., None, None] * y + centre[:, 0].to(device).view(-1, 1, 1, 1)
    v = sin[..., None, None] * x + cos[..., None, None] * y + centre[:, 1].to(device).view(-1, 1, 1, 1)
    grid = torch.stack([u * (2 / width) - 1, v * (2 / height) - 1], dim=-1)
    instants = path.shape[1]
    tall = grid.reshape(1, CHUNK * instants * config.size, config.size, 2)
    seen = F.grid_sample(photo.to(device), tall, mode="bicubic", padding_mode="reflection",
                         align_corners=False)
    seen = seen[0].view(3, CHUNK, instants, config.size, config.size)
    return seen.permute(1, 2, 0, 3, 4).clamp(0, 1)


def _lively_places(photo: Tensor, size: int, draw: torch.Generator, candidates: int) -> Tensor:
    """Window centres (CHUNK, 2), x then y: of a few random places, the one with the most texture."""
    height, width = photo.shape[-2:]
    grey = photo.mean(1, keepdim=True)
    energy = F.pad((grey[..., 1:] - grey[..., :-1]).abs(), (0, 1)) + \
        F.pad((grey[..., 1:, :] - grey[..., :-1, :]).abs(), (0, 0, 0, 1))
    box, pad = size // 2 * 2 + 1, size // 2
    energy = F.avg_pool2d(energy, (box, 1), stride=1, padding=(pad, 0))
    energy = F.avg_pool2d(energy, (1, box), stride=1, padding=(0, pad))[0, 0]
    x = uniform(draw, 0.15, 0.85, CHUNK, candidates) * width
    y = uniform(draw, 0.15, 0.85, CHUNK, candidates) * height
    best = energy[y.long(), x.long()].argmax(1, keepdim=True)
    return torch.cat([x.gather(1, best), y.gather(1, best)], dim=1)


def cut_outs(config: MovingPhotosConfig, path: Tensor, draw: torch.Generator, device: str) -> Tensor:
    """Coverage (CHUNK, instants, S, S) of one to three smooth blobs that follow `path`, edges anti-aliased."""
    size = config.size
    x, y = _pixel_grid(size, device)
    move = path.to(device)
    cover = torch.zeros(CHUNK, path.shape[1], size, size, device=device)
    wanted = torch.randint(1, 4, (CHUNK, 1), generator=draw)
    for blob in range(3):
        place = uniform(draw, -0.35, 0.35, CHUNK, 2).to(device) * size
        radius = (uniform(draw, 0.14, 0.3, CHUNK, 1) * size * (wanted > blob)).to(device)
        phase = uniform(draw, 0, 2 * math.pi, CHUNK, 3).to(device)
        bumps = uniform(draw, 0.0, 0.2, CHUNK, 3).to(device)
        dx = x - move[:, :, 0, None, None] - place[:, 0].view(-1, 1, 1, 1)
        dy = y - move[:, :, 1, None, None] - place[:, 1].view(-1, 1, 1, 1)
        distance, angle = torch.hypot(dx, dy), torch.atan2(dy, dx)
        edge = torch.ones_like(angle)
        for wave in range(3):
            edge = edge + bumps[:, wave].view(-1, 1, 1, 1) * torch.cos((wave + 2) * angle
                                                                        + phase[:, wave].view(-1, 1, 1, 1))
        inside = radius.view(-1, 1, 1, 1) * edge - distance
        cover = torch.maximum(cover, (inside + 0.5).clamp(0, 1) * (radius > 0).view(-1, 1, 1, 1))
    return cover
