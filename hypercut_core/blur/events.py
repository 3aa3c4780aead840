"""Events: what a camera reports that sees only changes of brightness, simulated from sharp frames.

An event (x, y, t, p) says that the logarithm of the light at a pixel rose (p = +1) or fell (p = -1) by the
contrast threshold c since the pixel's last event (Gallego et al., "Event-based Vision: A Survey", 2020,
section 2). Files of events are read by `event_files.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hypercut_core.blur.exposure import Response, to_linear
from hypercut_core.errors import BadParameters

LUMA = (0.2126, 0.7152, 0.0722)  # share of each linear channel in what a grey pixel sees


@dataclass(frozen=True)
class Events:
    """Events of one exposure or more, in temporal order; arrays of one length."""

    x: np.ndarray  # column, int32
    y: np.ndarray  # row, int32
    t: np.ndarray  # time, float64 seconds
    p: np.ndarray  # polarity, int8, +1 or -1
    height: int  # of the sensor, px
    width: int
    channel: np.ndarray | None = None  # uint8 0..2 (red, green, blue) of a colour sensor; None: a grey one

    def __len__(self) -> int:
        return len(self.t)

    @property
    def channels(self) -> int:
        return 1 if self.channel is None else 3

    def between(self, start: float, end: float) -> Events:
        """The events with start <= t <= end."""
        first, last = np.searchsorted(self.t, start, "left"), np.searchsorted(self.t, end, "right")
        part = slice(first, last)
        return Events(self.x[part], self.y[part], self.t[part], self.p[part], self.height, self.width,
                      None if self.channel is None else self.channel[part])


@dataclass(frozen=True)
class EventConfig:
    """A simulated event camera."""

    threshold: float = 0.1  # contrast threshold c, natural logarithm of light
    spread: float = 0.0  # standard deviation of the pixels' thresholds, as a share of c
    noise_rate: float = 0.0  # events without cause, per pixel and second
    refractory: float = 0.0  # seconds for which a pixel is blind after an event
    dark: float = 0.02  # light that the sensor adds to all (0..1): the logarithm is that of light + dark
    colour: bool = False  # one event pixel for each colour channel, instead of one for luma
    response: Response = "srgb"  # response curve of the frames


def simulate_events(frames: np.ndarray, times: np.ndarray, config: EventConfig,
                    rng: np.random.Generator) -> Events:
    """Events of a clip; the logarithm of the light runs on a straight line from frame to frame.

    Args:
        frames: (T, H, W, 3) uint8, or float encoded values in [0, 1].
        times: (T,) seconds, rising.
        rng: source of the spread of thresholds and of the noise.

    Raises:
        BadParameters: a setting or the times make no sense.
    """
    times = np.asarray(times, np.float64)
    _check(frames, times, config)
    level = log_light(frames, config)
    shape = level.shape[1:]
    threshold = config.threshold * np.maximum(0.1, 1 + config.spread * rng.standard_normal(shape))
    found = [*_crossings(level.reshape(len(frames), -1), times, threshold.ravel(), config.refractory),
             _noise(int(np.prod(shape)), times, config.noise_rate, rng)]
    place, t, p = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(t, kind="stable")
    channel, y, x = np.unravel_index(place[order], shape)
    return Events(x.astype(np.int32), y.astype(np.int32), t[order], p[order], shape[1], shape[2],
                  channel.astype(np.uint8) if config.colour else None)


def log_light(frames: np.ndarray, config: EventConfig) -> np.ndarray:
    """log(light + dark) as the sensor sees it: (T, H, W, 3) to (T, C, H, W) float64, C = 3 (colour) or 1."""
    scale = 255 if frames.dtype == np.uint8 else 1
    light = to_linear(torch.from_numpy(np.asarray(frames, np.float64) / scale), config.response).numpy()
    seen = np.moveaxis(light, -1, 1) if config.colour else (light @ np.array(LUMA))[:, None]
    return np.log(np.maximum(seen, 0) + config.dark)


Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # place in the flattened sensor, time, polarity


def _crossings(level: np.ndarray, times: np.ndarray, threshold: np.ndarray, refractory: float) -> list[Found]:
    """Events of the levels (T, pixels); a pixel compares from `ready` on with the level that it had then."""
    found: list[Found] = []
    reference, ready = level[0].copy(), np.full(level.shape[1], times[0])
    for step in range(len(times) - 1):
        start, end = times[step], times[step + 1]
        slope = (level[step + 1] - level[step]) / (end - start)
        if refractory > 0:  # pixels that become able to see again within this step
            late = np.flatnonzero((ready > start) & (ready <= end))
            reference[late] = level[step][late] + slope[late] * (ready[late] - start)
        active = np.flatnonzero((np.abs(level[step + 1] - reference) >= threshold) & (ready <= end))
        while len(active):
            rise = np.sign(level[step + 1][active] - reference[active])
            crossed = reference[active] + rise * threshold[active]
            moment = start + (crossed - level[step][active]) / slope[active]
            moment = np.clip(moment, np.maximum(start, ready[active]), end)
            found.append((active, moment, rise.astype(np.int8)))
            ready[active] = moment + refractory
            reference[active] = crossed + slope[active] * refractory
            again = (np.abs(level[step + 1][active] - reference[active]) >= threshold[active]) & (ready[active] <= end)
            active = active[again]
    return found


def _noise(pixels: int, times: np.ndarray, rate: float, rng: np.random.Generator) -> Found:
    count = int(rng.poisson(rate * pixels * (times[-1] - times[0]))) if rate > 0 else 0
    return (rng.integers(0, pixels, count), rng.uniform(times[0], times[-1], count),
            rng.choice(np.array([-1, 1], np.int8), count))


def _check(frames: np.ndarray, times: np.ndarray, config: EventConfig) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or times.shape != frames.shape[:1] or len(times) < 2 or \
            not (np.diff(times) > 0).all():
        raise BadParameters(f"{list(frames.shape)} frames and {list(times.shape)} times make no clip",
                            where="frames", remedy="give (T, H, W, 3) frames and T rising times, T >= 2")
    for name, least in (("threshold", 1e-3), ("spread", 0), ("noise_rate", 0), ("refractory", 0), ("dark", 1e-4)):
        value = getattr(config, name)
        if not least <= value < 1e6:
            raise BadParameters(f"{name} is {value}", where=f"events.{name}", remedy=f"choose at least {least}")
