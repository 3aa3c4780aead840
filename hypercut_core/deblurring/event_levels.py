"""How far the light of a pixel has gone at an instant, in contrast thresholds: the count of its events, and what lies
between two of them.

An event tells when the light passed a step; between two events it may be anywhere within a step of the last one. The
paper takes the plain count there. Which way the light has gone on, and how far, can be told on average from when the
last event was, when the next one will be, and their signs: just before an event the light is close to the next step,
long before it is still where it was, for edges pass quickly and then nothing happens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hypercut_core.blur.events import Events

Between = Literal["timed", "half_step", "count"]
HALF_STEP = 0.4  # steps in the direction of the last event; without it c is overestimated, by up to a fifth
SINCE = (0.25, 1.0, 2.0)  # classes of the time since the last event, sevenths of the exposure
UNTIL = (0.25, 0.5, 1.0, 2.0)  # classes of the time until the next one; the last class is "there is none"
# Mean of (log light - that of the last event) / c over 40 built-in clips of the training photos, 5 to 14 px of motion,
# c = 0.05, 0.1 and 0.2, in the direction of the last event (or of the next one where none was): a row a class of
# SINCE, a column a class of UNTIL. (Instants a seventh of the exposure apart; the second row of FIRST is a guess.)
SAME, FIRST, OPPOSITE = range(3)  # next event of the same sign or none; no event before; of the opposite sign
WAY = np.array([
    [[.50, .30, .26, .32, .29, .36], [.76, .59, .52, .56, .56, .55],
     [.57, .28, .16, .20, .28, .21], [.59, .29, .13, .09, .12, .13]],
    [[.00, .00, .00, .00, .00, .00], [.25, .11, .05, .00, .00, .00],
     [.51, .22, .10, .00, .03, .00], [.50, .29, .17, .06, .06, .00]],
    [[.40, .41, .39, .35, .27, .00], [.60, .62, .62, .60, .54, .00],
     [-.36, .02, .17, .21, .19, .00], [-.49, -.20, -.06, .02, -.01, .00]]], np.float32)


@dataclass
class _Neighbours:
    """Of one event of each pixel: its time, nan where there is none, and its sign, 0 there."""

    time: np.ndarray  # (pixels,) float32, seconds from the first instant
    sign: np.ndarray  # (pixels,) int8

    @classmethod
    def none(cls, pixels: int) -> _Neighbours:
        return cls(np.full(pixels, np.nan, np.float32), np.zeros(pixels, np.int8))

    def take(self, place: np.ndarray, time: np.ndarray, sign: np.ndarray) -> None:
        """Of several events of one pixel the last one stays."""
        self.time[place], self.sign[place] = time, sign


def event_counts(events: Events, times: np.ndarray, between: Between = "half_step", exposure: float = 0.0) -> Tensor:
    """E at some instants: signed count of each pixel's events until then, and what lies between two events.

    Args:
        times: (N,) rising, seconds. The light at the first one, or at the first event before it, counts as 0.
        between: "count": nothing, as in the paper; "half_step": `HALF_STEP` in the direction of the last event;
            "timed": by the times of the last and the next event, for which `exposure` (seconds) is needed.

    Returns:
        (N, C, H, W) float32, C = 3 for a colour sensor and 1 otherwise.
    """
    shape = (events.channels, events.height, events.width)
    pixels = math.prod(shape)
    place = _places(events)
    ends = np.searchsorted(events.t, times, "right").tolist()
    count, last = np.zeros(pixels), _Neighbours.none(pixels)
    seconds = (events.t - times[0]).astype(np.float32)
    found, begin = np.empty((len(times), pixels), np.float32), 0
    before: list[_Neighbours] = []
    for step, end in enumerate(ends):
        part = slice(begin, end)
        count += np.bincount(place[part], weights=events.p[part], minlength=pixels)
        last.take(place[part], seconds[part], events.p[part])
        found[step], begin = count, end
        if between == "half_step":
            found[step] += np.float32(HALF_STEP) * last.sign
        elif between == "timed":
            before.append(_Neighbours(last.time.copy(), last.sign.copy()))
    if between == "timed":
        _go_on(found, before, place, seconds, events.p, ends, np.asarray(times) - times[0], exposure / 7)
    return torch.from_numpy(found).view(len(times), *shape)


def _places(events: Events) -> np.ndarray:
    """(events,) where each one's pixel lies in the flattened sensor."""
    place = events.y.astype(np.int64) * events.width + events.x
    if events.channel is not None:
        place += events.channel.astype(np.int64) * (events.height * events.width)
    return place


def _go_on(found: np.ndarray, before: list[_Neighbours], place: np.ndarray, seconds: np.ndarray, sign: np.ndarray,
           ends: list[int], times: np.ndarray, unit: float) -> None:
    """Add `WAY` to the counts (N, pixels), from the last instant to the first."""
    coming, end = _Neighbours.none(found.shape[1]), len(place)
    for step in range(len(found) - 1, -1, -1):
        part = slice(ends[step], end)
        coming.take(place[part][::-1], seconds[part][::-1], sign[part][::-1])
        end = ends[step]
        last = before[step]
        since = (times[step] - np.nan_to_num(last.time)) / unit
        until = (coming.time - times[step]) / unit
        row = sum((since >= edge).astype(np.int8) for edge in SINCE)
        column = np.where(coming.sign == 0, len(UNTIL) + 1, sum((until >= edge).astype(np.int8) for edge in UNTIL))
        kind = np.where(last.sign == 0, FIRST, np.where(coming.sign == -last.sign, OPPOSITE, SAME))
        found[step] += np.where(last.sign == 0, coming.sign, last.sign) * WAY[kind, row, column]
