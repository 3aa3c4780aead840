"""Whether two frames that look like a cut only moved fast.

Blurry pictures that went a fifth of their width look like two shots to `frame_motion`. Two exposures of one scene keep
their detail, at another place: the correlation of high-passed pictures, at the shift that suits them best, tells them
from two scenes. Of made videos of photos of "val" and "train", a quarter of all pairs look like a cut; 95 % of
these are at 0.39 or more, and pairs of two videos, made or real, at 0.31 at most.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F

from hypercut_core.clips.motion import GreyFrame

ROWS = 36  # px high at which detail is compared
DETAIL = 7  # px; what is larger is taken off
REACH = 0.3  # longest shift, a share of the picture's sides
ALIKE = 0.32  # correlation above which two frames show one scene


def one_scene(before: GreyFrame, after: GreyFrame) -> bool:
    """Whether the detail of one frame is found in the other, at any one shift."""
    one, other = _detail(before), _detail(after)
    rows, columns = (int(REACH * side) for side in one.shape)
    shifts = itertools.product(range(-rows, rows + 1), range(-columns, columns + 1))
    return any(_correlation(_overlap(one, dy, dx), _overlap(other, -dy, -dx)) > ALIKE for dy, dx in shifts)


def _detail(frame: GreyFrame) -> np.ndarray:
    """High-passed picture of `ROWS` rows."""
    height, width = frame.half.shape
    size = ROWS, max(1, round(ROWS * width / height))
    small = F.adaptive_avg_pool2d(torch.from_numpy(frame.half)[None, None], size)
    padded = F.pad(small, (DETAIL // 2,) * 4, mode="replicate")
    return (small - F.avg_pool2d(padded, DETAIL, stride=1))[0, 0].numpy()


def _overlap(picture: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """What is left of a picture when it is moved over another one."""
    height, width = picture.shape
    return picture[max(0, dy):height + min(0, dy), max(0, dx):width + min(0, dx)]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    first, second = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / scale if scale > 1e-6 else 0.0
