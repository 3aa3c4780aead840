"""Where in a window of frames the clips are cut: where most moves and nothing moves too fast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hypercut_core.clips.motion import BLOCK, STEP


@dataclass(frozen=True)
class Crop:
    """A rectangle, px."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.left + self.width)


def choose_crops(lengths: np.ndarray, size: tuple[int, int], crop: int, most: int, *, max_motion: float,
                 min_motion: float, moving_share: float,
                 fast_share: float) -> tuple[list[tuple[Crop, float]], str]:
    """Up to `most` squares of side `crop` (0: the whole frame), best first, that overlap by half at most.

    Args:
        lengths: motion of each block between each two frames, (T-1, rows, columns), px; lost ones infinite.
        size: height and width of the frames, px.

    Returns:
        Squares with the length of the path in them, px over the exposure; or none and the reason: "still"
        (too little moves anywhere) or "too_fast" (wherever enough moves, something moves too fast).
    """
    fast: np.ndarray = np.any(lengths > max_motion, axis=0)
    path = np.minimum(lengths, 2 * max_motion).sum(0)
    moving = path >= min_motion * len(lengths)
    blocks = ((crop - BLOCK) // STEP + 1,) * 2 if crop else fast.shape
    lively = _box_mean(moving, blocks) >= moving_share
    good = lively & (_box_mean(fast, blocks) <= fast_share)
    if not good.any():
        return [], "too_fast" if lively.any() else "still"
    score = np.where(good, _box_mean(path, blocks), -1.0)
    chosen: list[tuple[Crop, float]] = []
    while len(chosen) < most and score.max() >= 0:
        row, column = np.unravel_index(int(score.argmax()), score.shape)
        inside = path[row:row + blocks[0], column:column + blocks[1]]
        calm = inside[~fast[row:row + blocks[0], column:column + blocks[1]]]
        square = Crop(int(row) * STEP, int(column) * STEP, crop, crop) if crop else Crop(0, 0, *size)
        chosen.append((square, float(np.percentile(calm, 95))))
        reach = max(1, crop // 2 // STEP)
        score[max(0, row - reach + 1):row + reach, max(0, column - reach + 1):column + reach] = -1.0
    return chosen, ""


def _box_mean(values: np.ndarray, blocks: tuple[int, ...]) -> np.ndarray:
    """Means over all boxes of `blocks` rows and columns, (rows - r + 1, columns - c + 1)."""
    total = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    total[1:, 1:] = values.astype(np.float64).cumsum(0).cumsum(1)
    high, wide = blocks
    sums = total[high:, wide:] - total[:-high, wide:] - total[high:, :-wide] + total[:-high, :-wide]
    return sums / (high * wide)
