"""One blurry photo and the events of its exposure to T sharp frames, without any training (Pan et al. 2019, EDI).

Events tell the order of time, so nothing is ambiguous here. A large photo is made strip by strip, as every pixel
stands for itself; the contrast threshold is sought where the photo is liveliest.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from hypercut_core.blur.event_files import Unit, read_events
from hypercut_core.blur.events import Events
from hypercut_core.deblurring.event_integral import EventIntegral, EventIntegralConfig
from hypercut_core.deblurring.threshold_search import find_frame_thresholds, find_threshold
from hypercut_core.errors import BadFootage, BadParameters
from hypercut_core.photos import MAX_PIXELS, load_photo
from hypercut_core.progress import Progress, say

AnyPath = str | os.PathLike[str]
AT_ONCE = 2**24  # instants times pixels in memory at once


def restore_with_events(photo: np.ndarray, events: Events, start: float, end: float, *, frames: int = 7,
                        threshold: float | None = None, per_frame: bool = False,
                        config: EventIntegralConfig | None = None) -> tuple[np.ndarray, Tensor]:
    """The sharp frames, and the contrast threshold c that they were made with.

    Args:
        photo: uint8 sRGB [H, W, 3], exposed from `start` to `end`, seconds on the events' clock.
        events: of a sensor of the photo's size, before and after the exposure too if they are there.
        frames: T, odd, 3 to 15.
        threshold: c, natural logarithm of light; None: found from photo and events.
        per_frame: seek c for every frame by itself.
        config: `instants` is how often a frame's part of the exposure is looked at.

    Returns:
        uint8 [T, H, W, 3], and c: one value, or one a frame.

    Raises:
        BadParameters: no exposure, no such number of frames, no events during the exposure, or too small a photo to
            find c in; BadFootage: the events are those of a sensor of another size.
    """
    height, width = photo.shape[:2]
    if not start < end:
        raise BadParameters(f"an exposure from {start:g} s to {end:g} s is none", where="--exposure",
                            remedy="write its start and its end, such as 0.010,0.030")
    if threshold is not None and not 0 < threshold < 100:
        raise BadParameters(f"a contrast threshold of {threshold:g} cannot be", where="--threshold",
                            remedy="choose one above 0, such as 0.2, or leave it out to have it found")
    if (events.height, events.width) != (height, width):
        raise BadFootage(f"the events are those of a sensor of {events.width}x{events.height} and the photo has "
                         f"{width}x{height}", where="events", remedy="bring the photo to the sensor's size and place")
    blurry = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255
    if threshold is None:
        coarse = EventIntegral(replace(config or EventIntegralConfig(), instants=1), frames)
        counts = coarse.counts(events, start, end)
        dark, response = coarse.config.dark, coarse.response
        c = find_frame_thresholds(blurry, counts, dark, response) if per_frame else \
            torch.tensor([find_threshold(blurry, counts, dark, response)])
    else:
        c = torch.tensor([threshold])
    model = EventIntegral(config or EventIntegralConfig(instants=5), frames)
    rows = max(1, AT_ONCE // (width * frames * model.config.instants))
    made = np.empty((frames, height, width, 3), np.uint8)
    with Progress("restoring with events", height) as progress, torch.inference_mode():
        for top in range(0, height, rows):
            bottom = min(height, top + rows)
            strip = model(blurry[:, :, top:bottom], model.counts(_rows(events, top, bottom), start, end), c)[0]
            made[:, top:bottom] = (strip.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
            progress.advance(bottom - top)
    return made, c


def restore_events_command(photo: AnyPath, events: AnyPath, out: AnyPath,
                           exposure: tuple[float, float] | None = None, *, frames: int = 7,
                           threshold: float | None = None, per_frame: bool = False,
                           unit: str | None = None, bounce: bool = False, fps: float = 10.0,
                           max_pixels: int = MAX_PIXELS) -> Path:
    """`hypercut restore-events`: read photo and events, write `out`; returns the path written, whole or absent.

    Args:
        exposure: its start and end on the events' clock, seconds; None: from the first event to the last one.
        unit: of the file's times; None: whole numbers are microseconds, others seconds.

    Raises:
        BadImage, BadFootage, MissingExtra, BadParameters, StorageError.
    """
    from hypercut_core.animation import check_output, write_animation

    if unit is not None and unit not in get_args(Unit):
        raise BadParameters(f"'{unit}' is no unit of time", where="--unit", remedy=f"use {', '.join(get_args(Unit))}")
    check_output(out, fps=fps)
    pixels = load_photo(photo, max_pixels)
    height, width = pixels.shape[:2]
    check_output(out, size=(width, height))
    read = read_events(events, height, width, unit)  # type: ignore[arg-type]  # checked above
    if not len(read):
        raise BadFootage("the file holds no events", where=Path(events), remedy="give the events of the exposure")
    start, end = exposure or (float(read.t[0]), float(read.t[-1]))
    made, c = restore_with_events(pixels, read, start, end, frames=frames, threshold=threshold, per_frame=per_frame)
    told = ", ".join(f"{float(one):.3f}" for one in c)
    say(f"{len(read.between(start, end)):,} events from {start:g} s to {end:g} s, contrast threshold {told}")
    return write_animation(made, out, bounce=bounce, fps=fps)


def _rows(events: Events, top: int, bottom: int) -> Events:
    """The events of some rows, as those of a sensor that has no others."""
    inside = (events.y >= top) & (events.y < bottom)
    return Events(events.x[inside], events.y[inside] - top, events.t[inside], events.p[inside], bottom - top,
                  events.width, None if events.channel is None else events.channel[inside])
