"""One source → its clips: pure functions of source, settings and seed, that can run anywhere in any order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hypercut_core.blur.exposure import ExposureConfig, expose
from hypercut_core.clips.footage import WindowConfig, WindowCounts, windows
from hypercut_core.clips.frame_folder import frame_files
from hypercut_core.clips.layouts import PairedClip, convention, response_of
from hypercut_core.clips.manifest import Source, files_sha256
from hypercut_core.clips.motion import path_length
from hypercut_core.errors import BadFootage


@dataclass(frozen=True)
class Clip:
    """A clip for the store: `frames` is (T+1, H, W, 3) uint8, the blurry image first; `motion` in px."""

    frames: np.ndarray
    clip_id: str
    motion: float
    blur: str
    response: str
    noise: float


def noise_level(exposure: ExposureConfig) -> float:
    """Standard deviation of the noise at white, linear light."""
    return math.hypot(exposure.noise_read, math.sqrt(exposure.noise_shot))


def blurred(source: Source, path: Path, frames: int, window: WindowConfig, exposure: ExposureConfig,
            most: int, seed: int, counts: WindowCounts) -> Iterator[Clip]:
    """Clips of a video or a folder of frames: windows of T frames, exposed.

    Args:
        most: at most so many clips (0: all), spread over the source's whole length.

    Raises:
        BadFootage: the source is not as it was when the manifest was written, or cannot be read.
    """
    files = frame_files(path) if source.kind == "frames" and path.is_dir() else [path]
    if not path.exists() or files_sha256(files) != source.sha256:
        raise BadFootage("the footage is not there, or not as it was when the manifest was written",
                         where=path, remedy="run 'hypercut collect-footage' again")
    if most:
        wide = math.ceil(source.frames * window.crops / most)
        window = replace(window, stride=max(window.stride or frames, wide))
    start, number = -1, 0
    for made, found in enumerate(windows(path, frames, window, counts)):
        if most and made == most:
            return
        number = number + 1 if found.start == start else 0
        start = found.start
        rng = np.random.default_rng([seed, int(source.sha256[:12], 16), start, number])
        blurry = expose(found.frames, exposure, rng)
        yield Clip(np.concatenate([blurry[None], found.frames]), f"{source.source}/{start:06d}-{number}",
                   found.motion, "synthetic", exposure.response, noise_level(exposure))


def chosen(clips: list[PairedClip], most: int) -> list[PairedClip]:
    """At most `most` clips (0: all), evenly chosen."""
    if most and len(clips) > most:
        return [clips[place * len(clips) // most] for place in range(most)]
    return clips


def judges(clips: list[PairedClip]) -> tuple[PairedClip, ...]:
    """First, middle and last clip of a sequence: its response curve is what explains their blur."""
    return tuple(clips[place] for place in sorted({0, len(clips) // 2, len(clips) - 1})) if clips else ()


def imported(clips: Sequence[PairedClip], layout: str, height: int, some: Sequence[PairedClip]) -> Iterator[Clip]:
    """Clips of a paired sequence as they are; the response curve is the layout's, held against `some` of its clips.

    Args:
        height: working height, px; 0 keeps the images' own.
        some: `judges` of the whole sequence, also where `clips` are a part of it.
    """
    response = response_of((clip.load(height) for clip in some), convention(layout, some[0].blurry))[0]
    for clip in clips:
        frames = clip.load(height)
        yield Clip(frames, clip.clip_id, path_length(frames[1:]), "captured", response, 0.0)
