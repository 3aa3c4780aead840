"""Which sharp frames were taken during a blurry exposure.

    exposure of blurry image i  =  sharp frames  offset + rate * i  ...  offset + rate * i + T

`rate` is in sharp frames per blurry image; both numbers may have fractions, and a window that begins between two
frames takes a part of the first and of the last one. First the whole streams are compared as series of small
pictures, whose changes over time are correlated at every offset and a grid of rates; then single images at full
sharpness say how far each window is off, and a robust straight line through these gives both numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

THUMB = (8, 12)  # rows and columns of the small pictures
SEGMENT = 96  # blurry images that are compared at once: more, and a wrong rate would spoil the comparison
RATE_SPREAD, RATE_STEP = 0.04, 0.0025  # rates are sought so far round the first guess, in such steps
AT_ONCE = 256  # offsets in memory at once
REACH, STEP = 2.0, 0.25  # a window is refined within so many frames, in such steps


@dataclass(frozen=True)
class Timing:
    """Where exposures lie among the sharp frames."""

    offset: float  # sharp frame at which the exposure of blurry image 0 begins
    rate: float  # sharp frames per blurry image

    def start(self, image: int) -> float:
        """Sharp frame at which the exposure of a blurry image begins; may have a fraction."""
        return self.offset + self.rate * image


def windows_of(series: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Means over windows of `length` frames that begin at `starts`, fractions included.

    Args:
        series: [N, ..]; starts: [M] within 0 .. N - length.

    Returns:
        [M, ..] float64.
    """
    return means_from(running_sums(series), starts, length)


def running_sums(series: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1 … N entries, [N + 1, ..] float64."""
    return np.concatenate([np.zeros((1, *series.shape[1:])), np.cumsum(series, axis=0, dtype=np.float64)])


def means_from(sums: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """`windows_of` a series whose running sums are known."""
    def up_to(at: np.ndarray) -> np.ndarray:
        whole = np.clip(np.floor(at).astype(int), 0, len(sums) - 2)
        part = (at - whole).reshape(-1, *([1] * (sums.ndim - 1)))
        return sums[whole] * (1 - part) + sums[whole + 1] * part

    return (up_to(starts + length) - up_to(starts)) / length


def coarse_timing(blurry: np.ndarray, sharp: np.ndarray, frames: int, rate: float) -> tuple[Timing, float]:
    """Offset to about half a frame and rate to about 0.2 %, by correlation of how small pictures change.

    Args:
        blurry, sharp: [N, P] small pictures of all frames, linear light.
        frames: T.
        rate: a first guess; it is sought within 4 % of it.

    Returns:
        The timing and the correlation, -1 .. 1.
    """
    begin, count = _liveliest(blurry, rate, len(sharp) - frames)
    part = blurry[begin:begin + count].astype(np.float64)
    part = part - part.mean(0)
    places = np.arange(len(sharp) - frames + 1, dtype=np.float64)
    windows = windows_of(sharp, places, frames)
    windows = windows - windows.mean(0)
    best, found = -2.0, Timing(0.0, rate)
    steps = round(RATE_SPREAD / RATE_STEP)
    for share in np.arange(-steps, steps + 1) * RATE_STEP:
        tried = rate * (1 + share)
        scores = _scores(part, windows, tried)
        if len(scores) and scores.max() > best + 1e-9:
            place = int(scores.argmax())
            best, found = float(scores[place]), Timing(float(place) - tried * begin, tried)
    return found, best


def _liveliest(blurry: np.ndarray, rate: float, room: float) -> tuple[int, int]:
    """Begin and length of the stretch of blurry images with most change, that fits into the sharp stream."""
    count = max(2, min(len(blurry), SEGMENT, int(room / (rate * (1 + RATE_SPREAD)) * 0.9)))
    change = np.abs(np.diff(blurry, axis=0)).mean(1)
    sums = np.convolve(change, np.ones(count - 1), mode="valid")
    return int(sums.argmax()), count


def _scores(part: np.ndarray, windows: np.ndarray, rate: float) -> np.ndarray:
    """Correlation of the changes for each whole offset at which all windows fit."""
    picks = np.rint(rate * np.arange(len(part))).astype(int)
    last = len(windows) - int(picks[-1])
    if last < 1:
        return np.zeros(0)
    products, squares = part @ windows.T, (windows**2).sum(1)
    rows, size = np.arange(len(part)), float((part**2).sum())
    scores = np.zeros(last)
    for first in range(0, last, AT_ONCE):
        at = np.arange(first, min(last, first + AT_ONCE))[:, None] + picks
        joint = products[rows, at].sum(1)
        spread = squares[at].sum(1) - len(part) * (windows[at].mean(1) ** 2).sum(1)
        scores[first:first + len(at)] = joint / np.sqrt(np.maximum(spread * size, 1e-18))
    return scores


def refined_start(cost: Callable[[float], float], start: float) -> tuple[float, float]:
    """The start near `start` at which `cost` is least, and how surely: the bend of the cost relative to it."""
    tried = start + np.arange(-REACH, REACH + STEP / 2, STEP)
    costs = np.array([cost(one) for one in tried])
    known = np.isfinite(costs)
    if known.sum() < 3:
        return start, 0.0
    place = int(np.nanargmin(np.where(known, costs, np.inf)))
    if not 0 < place < len(tried) - 1 or not known[place - 1:place + 2].all():
        return float(tried[place]), 0.0
    left, middle, right = costs[place - 1:place + 2]
    bend = left - 2 * middle + right
    if bend <= 0:
        return float(tried[place]), 0.0
    shift = 0.5 * (left - right) / bend
    return float(tried[place] + STEP * shift), float(bend / max(middle, 1e-9))


def line_through(images: np.ndarray, starts: np.ndarray, weights: np.ndarray, before: Timing) -> Timing:
    """Offset and rate of a robust straight line through starts; `before` where they say too little."""
    if (weights > 0).sum() < 2:
        return before
    weights = weights / weights.max()
    weights = np.clip(weights, 0, 0.25)  # one lively image must not outvote all others
    rest = starts - (before.offset + before.rate * images)
    robust = np.ones_like(rest)
    slope, shift = 0.0, 0.0
    for _ in range(8):
        w = weights * robust
        centre = (w * images).sum() / w.sum()
        spread = (w * (images - centre) ** 2).sum()
        mean = (w * rest).sum() / w.sum()
        slope = (w * (images - centre) * (rest - mean)).sum() / spread if spread > 1e-9 else 0.0
        shift = mean - slope * centre
        off = np.abs(rest - shift - slope * images)
        limit = max(0.1, 2 * float(np.median(off[weights > 0])))
        robust = np.minimum(1, limit / np.maximum(off, 1e-9))
    return Timing(before.offset + shift, before.rate + slope)
