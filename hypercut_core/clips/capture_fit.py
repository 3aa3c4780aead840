"""How the two streams of a capture belong together: time, geometry and colour, found from a few images.

In turns: the homography is found with the timing of the moment, then the timing with that homography. The smooth
rest of the geometry is kept only if it helps on images that it was not found from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hypercut_core.clips.capture_streams import Scene, frames_of, light, look, mirrored_thumbs, thumbs_of
from hypercut_core.clips.colour_match import ColourMap, Kind, find_colours
from hypercut_core.clips.registration import (
    Pair,
    find_field,
    find_homography,
    identity,
    inside,
    mapped,
    sample,
    source_positions,
)
from hypercut_core.clips.synchronise import (
    REACH,
    Timing,
    coarse_timing,
    line_through,
    means_from,
    refined_start,
    running_sums,
    windows_of,
)
from hypercut_core.errors import BadFootage

ROUNDS = 3
MARGIN = int(REACH) + 2  # sharp frames kept on both sides of a window
HELPS = 0.1  # dB by which the smooth rest must help
TIE = 0.02  # correlation by which a mirrored view must be better to be believed


@dataclass(frozen=True)
class FitConfig:
    """How the fit is done."""

    frames: int = 7  # T, sharp frames in one exposure: odd, 3 to 15
    rate: float = 0.0  # sharp frames per blurry image; 0: the quotient of the frame rates, or of the lengths
    height: int = 240  # working height of the fit, px
    images: int = 12  # blurry images that the fit looks at
    least_correlation: float = 0.5  # of the two streams' changes; below it they do not show the same happening
    colour: Kind = "matrix"  # how colours are matched: not, a gain for each channel, or a mixing matrix, with a curve
    field: bool = True  # look for a smooth rest of the geometry


@dataclass(frozen=True)
class CaptureFit:
    """What takes the sharp stream to the blurry one."""

    timing: Timing
    correlation: float  # of the streams' changes, -1 .. 1
    mirrored: bool  # the sharp stream is seen in a mirror, as behind a beam splitter
    homography: Tensor  # (8,), normalised positions of the blurry image to those of the sharp frames
    field: Tensor | None  # (2, rows, columns), see `find_field`
    colours: ColourMap


@dataclass(frozen=True)
class Look:
    """A blurry image with the sharp frames round its window, at the working size."""

    image: int
    blurry: Tensor  # (3, h, w) linear light
    first: int  # place of the first of `sharp` in its stream
    sharp: Tensor  # (n, 3, h', w') linear light


def fit_capture(scene: Scene, config: FitConfig) -> CaptureFit:
    """Find timing, geometry and colours of a scene.

    Raises:
        BadFootage: a stream cannot be read or is too short, or the two do not show the same happening.
    """
    timing, correlation, mirrored, change = _synchronised(scene, config)
    looks = _looks(scene, timing, mirrored, _chosen(change, timing, len_of(scene.sharp), config), config)
    if not looks:
        raise BadFootage("no blurry image has its whole exposure in the sharp stream", where=scene.sharp,
                         remedy="film both streams at the same time")
    homography: Tensor | None = None
    for _ in range(ROUNDS):
        pairs = [_grey_pair(one, timing, config.frames) for one in looks if _fits(one, timing, config.frames)]
        homography = find_homography(pairs, homography)
        timing = _refined(looks, timing, homography, config.frames)
    looks = [one for one in looks if _fits(one, timing, config.frames)]
    assert homography is not None
    pairs = [_grey_pair(one, timing, config.frames) for one in looks]
    homography = find_homography(pairs, homography)
    field = _useful_field(pairs, homography) if config.field and len(pairs) >= 4 else None
    return CaptureFit(timing, correlation, mirrored, homography, field,
                      _colours(looks, timing, homography, field, config))


def len_of(path: Path) -> int:
    return look(path).frames


def _synchronised(scene: Scene, config: FitConfig) -> tuple[Timing, float, bool, np.ndarray]:
    """Coarse timing, its correlation, whether one side is mirrored, and how much each blurry image changes."""
    blurry, sharp = thumbs_of(scene.blurry), thumbs_of(scene.sharp)
    rate = config.rate or _guessed_rate(scene, len(blurry), len(sharp))
    if len(blurry) < 3 or len(sharp) < 2 * rate * 1.1 + config.frames:
        raise BadFootage(f"{len(blurry)} blurry images and {len(sharp)} sharp frames are too few", where=scene.sharp,
                         remedy="film for a few seconds, or check --rate, the sharp frames per blurry image")
    plain, turned = (coarse_timing(blurry, one, config.frames, rate) for one in (sharp, mirrored_thumbs(sharp)))
    mirrored = turned[1] > plain[1] + TIE
    timing, correlation = turned if mirrored else plain
    if correlation < config.least_correlation:
        raise BadFootage(f"the two streams do not change alike (correlation {correlation:.2f}, "
                         f"{config.least_correlation:g} is the least)", where=scene.blurry.parent,
                         remedy="check that they show the same happening and that the rate of "
                                f"{rate:g} sharp frames per blurry image is right (--rate)")
    change = np.concatenate([[0.0], np.abs(np.diff(blurry, axis=0)).mean(1)])
    return timing, correlation, mirrored, change


def _guessed_rate(scene: Scene, blurry: int, sharp: int) -> float:
    slow, fast = look(scene.blurry).fps, look(scene.sharp).fps
    if slow and fast and fast > slow:
        return fast / slow
    return max(1.0, round(sharp / blurry))


def _chosen(change: np.ndarray, timing: Timing, sharp: int, config: FitConfig) -> list[int]:
    """Blurry images for the fit: spread over the time that both streams cover, in each part the liveliest."""
    able = [image for image in range(len(change))
            if MARGIN <= timing.start(image) <= sharp - config.frames - MARGIN]
    parts = np.array_split(np.array(able, int), min(len(able), config.images)) if able else []
    return [int(part[change[part].argmax()]) for part in parts]


def _looks(scene: Scene, timing: Timing, mirrored: bool, images: list[int], config: FitConfig) -> list[Look]:
    """Read what is needed of both streams, each once."""
    wanted = set(images)
    blurry = {place: pixels for place, pixels in frames_of(scene.blurry, config.height) if place in wanted}
    spans = {image: range(int(timing.start(image)) - MARGIN, int(timing.start(image)) + config.frames + MARGIN)
             for image in images}
    needed = {place for span in spans.values() for place in span}
    sharp = {place: pixels for place, pixels in frames_of(scene.sharp, config.height) if place in needed}
    made = []
    for image, span in spans.items():
        if image in blurry and all(place in sharp for place in span):
            frames = light(np.stack([sharp[place] for place in span]))
            made.append(Look(image, light(blurry[image]), span.start, frames.flip(-1) if mirrored else frames))
    return made


def _fits(one: Look, timing: Timing, frames: int) -> bool:
    begin = timing.start(one.image) - one.first
    return 0 <= begin <= len(one.sharp) - frames


def window_mean(one: Look, start: float, frames: int) -> Tensor:
    """Mean of the sharp frames over a window that begins at `start`, (3, h', w')."""
    weights = windows_of(np.eye(len(one.sharp)), np.array([start - one.first]), frames)[0]
    return torch.einsum("n,nchw->chw", torch.from_numpy(weights).float(), one.sharp)


def _grey_pair(one: Look, timing: Timing, frames: int) -> Pair:
    """Blurry image and mean of its window in grey, encoded again: dark and bright parts then count alike."""
    made = window_mean(one, timing.start(one.image), frames)
    return _grey(one.blurry), _grey(made)


def _grey(picture: Tensor) -> Tensor:
    return picture.mean(-3, keepdim=True).clamp_min(1e-4) ** (1 / 2.2)


def _refined(looks: list[Look], timing: Timing, homography: Tensor, frames: int) -> Timing:
    """The timing with this homography: each image's own start, and the line through them."""
    starts, weights = [], []
    for one in looks:
        there = source_positions(homography, None, *one.blurry.shape[-2:])
        seen = inside(there)
        series = sample(one.sharp.mean(1, keepdim=True), there)[:, 0][:, seen].numpy()
        target = one.blurry.mean(0)[seen].numpy().astype(np.float64)
        start, sure = refined_start(_cost(series, target, one.first, frames), timing.start(one.image))
        starts.append(start)
        weights.append(sure)
    return line_through(np.array([one.image for one in looks]), np.array(starts), np.array(weights), timing)


def _cost(series: np.ndarray, target: np.ndarray, first: int, frames: int) -> Callable[[float], float]:
    """start -> share of the blurry image's variance that the window's mean does not explain."""
    spread, sums = target.var(), running_sums(series)

    def cost(start: float) -> float:
        if not 0 <= start - first <= len(series) - frames:
            return float("nan")
        made = means_from(sums, np.array([start - first]), frames)[0]
        centred = made - made.mean()
        joint = (centred * (target - target.mean())).mean()
        return float(1 - joint**2 / max(1e-12, centred.var() * spread))

    return cost


def _useful_field(pairs: list[Pair], homography: Tensor) -> Tensor | None:
    """The smooth rest, if the one found from every other pair explains the pairs between better."""
    tried = find_field(pairs[::2], homography)
    gain = np.mean([error_of(pair, homography, None) - error_of(pair, homography, tried) for pair in pairs[1::2]])
    return find_field(pairs, homography) if gain > HELPS else None


def error_of(pair: Pair, homography: Tensor, field: Tensor | None) -> float:
    """Mean square of what is left between a pair after the best gain and offset, in dB."""
    there = source_positions(homography, field, *pair[0].shape[-2:])
    seen = inside(source_positions(homography, None, *pair[0].shape[-2:])) & inside(there)
    made, target = sample(pair[1][None], there)[0, 0][seen].double(), pair[0][0][seen].double()
    centred = made - made.mean()
    gain = (centred * (target - target.mean())).sum() / centred.square().sum().clamp_min(1e-12)
    rest = target - target.mean() - gain * centred
    return float(10 * torch.log10(rest.square().mean().clamp_min(1e-12)))


def _colours(looks: list[Look], timing: Timing, homography: Tensor, field: Tensor | None,
             config: FitConfig) -> ColourMap:
    """The colour map from every third pixel of all images."""
    values, weights, targets = [], [], []
    for one in looks:
        there = source_positions(homography, field, *one.blurry.shape[-2:])[1::3, 1::3]
        seen = inside(there)
        values.append(sample(one.sharp, there)[:, :, seen].permute(2, 0, 1))
        weights.append(windows_of(np.eye(len(one.sharp)), np.array([timing.start(one.image) - one.first]),
                                  config.frames)[0])
        targets.append(one.blurry[:, 1::3, 1::3][:, seen].T)

    def mean_of_power(gamma: float) -> Tensor:
        return torch.cat([torch.einsum("n,pnc->pc", torch.from_numpy(weight).float(), value.clamp_min(0) ** gamma)
                          for value, weight in zip(values, weights, strict=True)])

    return find_colours(mean_of_power, torch.cat(targets), config.colour)


def corner_shift(homography: Tensor, height: int, width: int) -> float:
    """The farthest that a corner of a blurry image of this size is moved, px."""
    corners = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]], dtype=torch.float64)
    moved = mapped(homography, corners) - mapped(identity(), corners)
    return float((moved * torch.tensor([width / 2, height / 2])).norm(dim=1).max())
