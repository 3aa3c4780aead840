"""Built-in blurry videos: the moving photos of `moving_photos`, on tracks that go on from exposure to exposure.

    exposure n covers the times n / duty + [-1/2, 1/2], in lengths of an exposure

With `duty` 1 the shutter never closes; below 1 there is dead time between two exposures, as in every real camera.
Whatever direction a frame is restored in, the truth is known: what blurry videos are restored to can be measured.

* ``camera``: the whole picture moves; its heading wanders and turns, and its speed rises and falls;
* ``object``: cut-outs go round and round over a background at rest, so that they stay in the picture;
* ``both``: the two together.

`CHUNK` videos are rendered at once, exposure after exposure: memory holds one exposure of each.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hypercut_core.blur.exposure import ExposureConfig, expose, from_linear
from hypercut_core.clips.moving_photos import CHUNK, KINDS, MovingPhotosConfig, cut_outs, seen_photo, uniform
from hypercut_core.clips.photos import photo_names
from hypercut_core.errors import BadParameters

FINE = 32  # steps a length of an exposure in which a track is summed up
REACH = 0.22  # how far cut-outs go from the middle, as a share of the picture's side


@dataclass(frozen=True)
class Exposures:
    """The same exposure of `CHUNK` videos.

    `blurry` is (CHUNK, H, W, 3) uint8, `sharp` (CHUNK, T, H, W, 3) uint8 in the true order, `speed` (CHUNK,) px that
    what moves goes during the exposure.
    """

    blurry: np.ndarray
    sharp: np.ndarray
    speed: np.ndarray


def render_videos(config: MovingPhotosConfig, split: str, chunk: int, seed: int, *, length: int = 24, frames: int = 7,
                  duty: float = 1.0, kind: str = "object") -> Iterator[Exposures]:
    """Yield the exposures of `CHUNK` videos, one after the other.

    Args:
        config: as of clips; the motion is px an exposure, `curvature`, `acceleration`, `shake` and `roll` play no part.
        chunk: which videos; chunks differ in their photos, and videos of a chunk in place, size and track.
        length: exposures of a video.
        frames: T.
        duty: share of the time in which the shutter is open, above 0 to 1.
        kind: "camera", "object" or "both".

    Raises:
        BadParameters: `duty`, `kind` or `split` is none.
    """
    if not 0 < duty <= 1 or kind not in KINDS:
        raise BadParameters(f"there is no video of duty {duty} and kind '{kind}'", remedy="choose a duty above 0 up "
                            f"to 1, and one of {', '.join(KINDS)}")
    names = photo_names(split)
    draw = torch.Generator().manual_seed(zlib.crc32(f"video/{seed}/{split}/{chunk}".encode()))
    back = names[(chunk + seed) % len(names)]
    front = names[int(torch.randint(len(names), (1,), generator=draw))]
    span = length / duty + 1
    camera = _heading_tracks(config, span, duty, draw) if kind != "object" else None
    moving = _round_tracks(config, span, draw) if kind != "camera" else None
    gain = uniform(draw, 1 - config.tint, 1 + config.tint, CHUNK, 1, 3, 1, 1)
    looks = draw.get_state()  # every exposure draws the same places, sizes and outlines again
    instants = frames * config.subframes
    for place in range(length):
        draw.set_state(looks)
        times = place / duty + (torch.arange(instants) + 0.5) / instants  # from the beginning of the track
        light, speed = _render(config, (back, front), (camera, moving), times, draw)
        light = (light * gain).unflatten(1, (frames, config.subframes)).mean(2).clamp(0, 1)
        sharp = from_linear(light).mul(255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous().numpy()
        rng = np.random.default_rng(0)  # of no noise
        yield Exposures(np.stack([expose(one, ExposureConfig(), rng) for one in sharp]), sharp, speed)


def _render(config: MovingPhotosConfig, photos: tuple[str, str], tracks: tuple[Tensor | None, Tensor | None],
            times: Tensor, draw: torch.Generator) -> tuple[Tensor, np.ndarray]:
    """Pictures (CHUNK, instants, 3, S, S) in linear light, and px gone meanwhile, (CHUNK,)."""
    camera, moving = (None if track is None else _at(track, times) for track in tracks)
    still = torch.zeros(CHUNK, len(times), 2)
    flat = torch.zeros(CHUNK, len(times))
    magnify = config.softness if camera is None else 1.0
    picture = seen_photo(photos[0], config, still if camera is None else camera, flat, draw, "cpu", 2, magnify)
    if moving is not None:
        front = seen_photo(photos[1], config, moving, flat, draw, "cpu", 6)
        picture = picture + cut_outs(config, moving, draw, "cpu")[:, :, None] * (front - picture)
    path = camera if moving is None else moving
    assert path is not None
    step = (path[:, 1:] - path[:, :-1]).norm(dim=-1).sum(1)
    return picture, (step * len(times) / (len(times) - 1)).numpy()


def _at(track: Tensor, times: Tensor) -> Tensor:
    """A track (CHUNK, steps, 2) of `FINE` steps a unit at the given times, by linear interpolation."""
    place = times * FINE
    before = place.long().clamp(0, track.shape[1] - 2)
    share = (place - before)[None, :, None]
    return track[:, before] * (1 - share) + track[:, before + 1] * share


def _heading_tracks(config: MovingPhotosConfig, span: float, duty: float, draw: torch.Generator) -> Tensor:
    """A heading that turns by up to 30 degrees an exposure and wavers; a speed that rises and falls in its range."""
    times = torch.arange(math.ceil(span * FINE) + 2)[None] / FINE
    heading = uniform(draw, 0, 2 * math.pi, CHUNK, 1) + uniform(draw, -0.5, 0.5, CHUNK, 1) * duty * times
    heading = heading + uniform(draw, 0, 1, CHUNK, 1) * torch.sin(_wave(draw, 0.1, 0.4) * duty * times)
    pace = torch.sin(_wave(draw, 0.1, 0.5) * duty * times + uniform(draw, 0, 2 * math.pi, CHUNK, 1))
    speed = config.motion_min + (config.motion_max - config.motion_min) * (1 + pace) / 2
    steps = torch.stack([torch.cos(heading), torch.sin(heading)], -1) * speed[..., None] / FINE
    return steps.cumsum(1)


def _wave(draw: torch.Generator, low: float, high: float) -> Tensor:
    """Radians an exposure of a slow wave, (CHUNK, 1)."""
    return uniform(draw, low, high, CHUNK, 1)


def _round_tracks(config: MovingPhotosConfig, span: float, draw: torch.Generator) -> Tensor:
    """Lissajous figures within `REACH` of the middle, at the speed that was asked for on average."""
    times = torch.arange(math.ceil(span * FINE) + 2)[None] / FINE
    speed = uniform(draw, config.motion_min, config.motion_max, CHUNK, 1)
    reach = REACH * config.size * uniform(draw, 0.6, 1, CHUNK, 2)
    ratio = uniform(draw, 0.7, 1.4, CHUNK, 1)
    rate = speed / reach.norm(dim=1, keepdim=True)  # radians a length of an exposure
    phase = uniform(draw, 0, 2 * math.pi, CHUNK, 2)
    return torch.stack([reach[:, :1] * torch.sin(rate * times + phase[:, :1]),
                        reach[:, 1:] * torch.sin(rate * ratio * times + phase[:, 1:])], -1) * 2**0.5
