"""How far the picture moves from one frame to the next, by block matching; and where one shot ends.

For every block of `BLOCK` pixels the shift (dy, dx) is sought that minimises

    mean |after(y + dy, x + dx) - before(y, x)| + SMOOTH * |(dy, dx)|

over a grid of whole shifts at half the working size, then refined below a pixel. Blocks without contrast,
where nothing can be seen to move, count as at rest; blocks without a match count as infinitely fast.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

BLOCK = 16  # side of the square that is matched, px at the working size
STEP = 8  # distance between block centres, px at the working size
SMOOTH = 0.25  # cost of a shift, grey levels per px at half size
CLEAR_LEVELS = 1.0  # a shift counts if it matches better than staying at rest by so many grey levels
CLEAR_SHARE = 0.35  # ... and by this share of what differs at rest
LOST_LEVELS = 8.0  # a block is lost when its best match differs by more than this many grey levels
FLAT_LEVELS = 3.0  # a block with less contrast, grey levels, shows no motion: it counts as at rest
LOST_SHARE = 0.5  # and by more than this share of its contrast
THUMB = (36, 64)  # rows and columns of the picture in which cuts are sought
CUT_CORRELATION = 0.4  # frames whose thumbnails correlate less than this belong to two shots
CUT_LEVELS = 8.0  # ... if the thumbnails also differ by this many grey levels on average
CUT_LOST = 0.6  # ... or, if they correlate less than twice as much, when so many textured blocks are lost
MATCHED_SHARE = 0.35  # a block is matched when it differs by less than this share of its contrast
CUT_MATCHED = 0.5  # where more textured blocks than this are matched, the picture only moved
SAME_LEVELS = 0.03  # pictures that differ less, on average, are one picture: nothing moves


@dataclass(frozen=True)
class FrameMotion:
    """Motion between two frames. `length` is (rows, columns), working-size px, lost blocks infinite."""

    length: np.ndarray
    change: float  # mean difference of the two pictures, grey levels
    cut: bool

    def percentile(self, share: float = 95.0) -> float:
        """The given percentile over all blocks, px."""
        return float(np.percentile(self.length, share, method="lower"))


@dataclass(frozen=True)
class GreyFrame:
    """What motion is measured on: a frame in grey at half size, and its thumbnail."""

    half: np.ndarray  # (H // 2, W // 2) float32, grey levels
    thumb: np.ndarray  # THUMB float32, grey levels


def grey_frame(pixels: np.ndarray) -> GreyFrame:
    """Grey pictures of a frame (H, W, 3) uint8."""
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    # sums of 2 x 2 pixels in integers: fast, and the same on every machine
    weights = np.array([77, 150, 29], np.uint16)
    small = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    summed = small[:, 0, :, 0].astype(np.uint16) + small[:, 0, :, 1] + small[:, 1, :, 0] + small[:, 1, :, 1]
    half = (summed.astype(np.uint32) @ weights.astype(np.uint32)).astype(np.float32) / 1024
    thumb = F.adaptive_avg_pool2d(torch.from_numpy(half)[None, None], THUMB)[0, 0].numpy()
    return GreyFrame(half, thumb)


def frame_motion(before: GreyFrame, after: GreyFrame, reach: float = 8.0) -> FrameMotion:
    """Motion from one frame to the next.

    Args:
        reach: shifts up to about this many px at the working size are sought; longer ones count as infinite.
    """
    change = float(np.abs(after.half - before.half).mean())
    radius = max(2, math.ceil(reach / 2) + 1)
    if change < SAME_LEVELS:
        rows, columns = _grid(before.half.shape)
        return FrameMotion(np.zeros((rows, columns), np.float32), change, False)
    shift, residual, contrast = _match(before.half, after.half, radius)
    smooth = _median3(shift)  # a lone block that moves otherwise than its neighbours is a false match
    length = 2 * np.hypot(smooth[0], smooth[1])
    lost = (residual > LOST_LEVELS) & (residual > LOST_SHARE * contrast)
    at_edge = np.abs(shift).max(0) > radius - 0.5
    length[contrast < FLAT_LEVELS] = 0
    length[lost | (at_edge & (contrast >= FLAT_LEVELS))] = np.inf
    return FrameMotion(length, change, _is_cut(before, after, lost, residual, contrast))


def path_length(frames: np.ndarray, height: int = 256) -> float:
    """Length of the path over the exposure, px: 95th percentile over the picture.

    Args:
        frames: (T, H, W, 3) uint8; measured on every n-th row and column where they are larger than `height`.
    """
    shrink = max(1, frames.shape[1] // height)
    grey = [grey_frame(frame[::shrink, ::shrink]) for frame in frames]
    reach = 16.0
    steps = [frame_motion(*pair, reach).length for pair in itertools.pairwise(grey)]
    path = np.minimum(np.stack(steps), reach).sum(0)
    return shrink * float(np.percentile(path, 95))


def _grid(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0] // (STEP // 2) - 1, shape[1] // (STEP // 2) - 1


def _blocks(picture: torch.Tensor) -> torch.Tensor:
    """Means over blocks of the last two axes."""
    # cells first, then 2 x 2 cells a block: the same mean for a quarter of the work
    return F.avg_pool2d(F.avg_pool2d(picture, STEP // 2), BLOCK // STEP, stride=1)


def _match(before: np.ndarray, after: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shift (2, rows, columns) at half size, mean residual and contrast of every block, grey levels."""
    first, second = torch.from_numpy(before), torch.from_numpy(after)
    height, width = first.shape
    padded = F.pad(second[None, None], (radius,) * 4, mode="replicate")[0, 0]
    side = 2 * radius + 1
    costs = []
    for row in range(side):
        strip = padded[row:row + height].unfold(1, width, 1).permute(1, 0, 2)  # side, H, W
        costs.append(_blocks((strip - first).abs_()))
    cost = torch.stack(costs)  # side (dy), side (dx), rows, columns
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32)
    far = torch.hypot(axis[:, None], axis[None, :])
    flat_cost = cost.flatten(0, 1)
    best = (flat_cost + SMOOTH * far.flatten()[:, None, None]).argmin(0)
    rest = side * radius + radius  # compression noise and changing light make false matches on dull ground
    gain = flat_cost[rest] - flat_cost.gather(0, best[None])[0]
    clear = (CLEAR_SHARE * flat_cost[rest]).clamp_min(CLEAR_LEVELS)
    best = torch.where(gain > clear, best, rest)
    rows, columns = best.shape
    y, x = best // side, best % side
    at_y, at_x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")

    def seen(dy: int, dx: int) -> torch.Tensor:
        return cost[(y + dy).clamp(0, side - 1), (x + dx).clamp(0, side - 1), at_y, at_x]

    residual = seen(0, 0)
    fine = torch.stack([y - radius + _vertex(seen(-1, 0), residual, seen(1, 0)),
                        x - radius + _vertex(seen(0, -1), residual, seen(0, 1))])
    mean = _blocks(first[None])
    contrast = (_blocks(first[None] ** 2) - mean**2).clamp_min(0).sqrt()[0]
    return fine.numpy(), residual.numpy(), contrast.numpy()


def _median3(shift: np.ndarray) -> np.ndarray:
    """Median over 3 x 3 blocks of each component of (2, rows, columns)."""
    padded = np.pad(shift, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.median(around.reshape(*shift.shape, 9), axis=-1)


def _vertex(left: torch.Tensor, centre: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Where, within half a step, an absolute-difference cost has its minimum (two lines of equal slope)."""
    steep = torch.maximum(left, right) - centre
    place = 0.5 * (left - right) / steep.clamp_min(1e-6)
    return torch.where(steep > CLEAR_LEVELS, place, torch.zeros_like(place)).clamp(-0.5, 0.5)


def _is_cut(before: GreyFrame, after: GreyFrame, lost: np.ndarray, residual: np.ndarray,
            contrast: np.ndarray) -> bool:
    """Whether two shots meet here. A pan beyond the reach of the search looks like a cut, and is as unusable."""
    first, second = before.thumb - before.thumb.mean(), after.thumb - after.thumb.mean()
    levels = float(np.abs(after.thumb - before.thumb).mean())
    if levels <= CUT_LEVELS:
        return False
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    alike = float((first * second).sum()) / scale if scale > 1e-6 else 0.0
    textured = contrast > LOST_LEVELS
    if not textured.any():
        return alike < CUT_CORRELATION
    if alike < CUT_CORRELATION:
        return float((residual < MATCHED_SHARE * contrast)[textured].mean()) < CUT_MATCHED
    return alike < 2 * CUT_CORRELATION and float(lost[textured].mean()) > CUT_LOST
