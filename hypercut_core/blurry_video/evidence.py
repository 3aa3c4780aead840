"""What two restored neighbours say about each other's direction of time.

Each frame t of a blurry video is restored to T sharp frames whose direction is a guess. Between t and its neighbour
four things tell more, all of them logarithms of odds:

* the seam: the end of t's frames should look like the beginning of those of t + 1. Of the four ways to turn the two,
  log(MSE + noise) of what then meets. With a motion of d px an exposure these are 0, d, d and 2d apart (and further
  by the dead time between the exposures), so that the seam tells the direction and not only whether the two agree;
* the way on: the motion within an exposure should point where the picture goes until the next one. Middle frames
  do not depend on any direction, and so the flow F between those of t and t + 1 tells the direction of time.
  With r the cosine between F and the flow within the frames, 2 atanh(r) = log((1 + r) / (1 - r));
* carried on: the same without a flow between frames that may be 20 px apart. A middle frame, moved on by +-pace * G, G
  the flow within the frame, should be the other middle frame: log(MSE + noise) of the one sign less that of the other.
  How far it is from middle to middle in multiples of G depends on the dead time; the shot tells (`Pace`);
* the way that it went: motion seldom turns round from one exposure to the next. 2 atanh(r) of the flows within both.

One direction holds for a whole frame: regions that move differently are not told apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hypercut_core.blurry_video.neighbours import Way, way, working_shrink
from hypercut_core.deblurring.optical_flow import optical_flow
from hypercut_core.deblurring.warping import warp

NOISE = (1 / 255) ** 2  # squared grey levels (0..1) that two pictures of the same thing differ by
SURE = 0.98  # greatest cosine that is believed
PACES = (0.75, 1.0, 1.2, 1.5, 2.0, 2.4, 3.0)  # from middle to middle, in lengths of the flow from first to last frame
# Weights of the four: those under which the true directions of made videos of the photos of "val" and "train" are
# likeliest, whole videos at a time (3.11, 0.65, 1.41 and 0.86 there); the margins are calibrated by it too.
SEAM, ON, CARRIED, ALONG = 3.1, 0.65, 1.4, 0.85
STILL = 0.5  # px at the working size: a frame whose fastest twentieth moves less has no direction to speak of


@dataclass(frozen=True)
class Glimpse:
    """What is kept of a restored frame until its neighbour has come: grey pictures (h, w) and a flow (2, h, w)."""

    first: Tensor
    middle: Tensor
    last: Tensor
    flow: Tensor  # of what is in the middle frame, from the first frame to the last, working-size px
    motion: float  # how far the fastest twentieth of the picture goes during the exposure, px
    still: bool  # nothing moves enough to have a direction


@dataclass(frozen=True)
class LinkEvidence:
    """Logarithms of odds between two neighbours. `seam` is (2, 2), first index the frame before: 0 keep, 1 reverse."""

    seam: np.ndarray
    on: tuple[float, float]  # the way on, for keeping the frame before and for keeping the frame after
    carried: tuple[float, float]  # carried on, likewise
    along: float  # the way that it went: above 0 for keeping both, or neither
    ways: tuple[Way, Way]  # from the frame before to the one after, for each of them

    def cost(self) -> np.ndarray:
        """(2, 2) nats, for `signs.SignChain`."""
        turn = np.array([1.0, -1.0])
        before, after = (ON * on + CARRIED * carried for on, carried in zip(self.on, self.carried, strict=True))
        return (SEAM * self.seam - (turn[:, None] * before + turn[None] * after) / 2
                - ALONG / 2 * turn[:, None] * turn[None] * self.along)


def glimpse(sharp: np.ndarray) -> Glimpse:
    """Look at a restored frame, uint8 [T, H, W, 3]."""
    count = len(sharp)
    shrink = working_shrink(*sharp.shape[1:3])
    first, middle, last = (_grey(sharp[k], shrink) for k in (0, count // 2, count - 1))
    to_last, to_first = _flows((middle, last), (middle, first))
    flow = to_last - to_first
    fastest = float(flow.norm(dim=0).flatten().quantile(0.95))
    return Glimpse(first, middle, last, flow, shrink * fastest, fastest < STILL)


class Pace:
    """Which of `PACES` suits a shot: the one whose errors so far are least, whatever the directions."""

    def __init__(self) -> None:
        self.misfit = np.zeros(len(PACES))

    @property
    def best(self) -> float:
        return PACES[self.misfit.argmin()]

    def odds(self, errors: np.ndarray) -> tuple[float, float]:
        """For keeping the frame before and the frame after, from log errors (PACES, before or after, keep or not)."""
        self.misfit += errors.min(2).sum(1)
        before, after = errors[self.misfit.argmin()]
        return float(before[1] - before[0]), float(after[1] - after[0])


def link_evidence(before: Glimpse, after: Glimpse, pace: Pace) -> LinkEvidence:
    """What two neighbours of one size say about each other, given the pace of those before, which learns from them."""
    ends, begins = (before.last, before.first), (after.first, after.last)
    seam = np.array([[float(torch.log((end - begin).square().mean() + NOISE)) for begin in begins] for end in ends])
    errors = np.stack([_moved_on(before.middle, before.flow, after.middle),
                       _moved_on(after.middle, -after.flow, before.middle)], 1)
    ahead, back = _flows((before.middle, after.middle), (after.middle, before.middle))
    return LinkEvidence(seam, (_odds(before.flow, ahead), -_odds(after.flow, back)), pace.odds(errors),
                        _odds(before.flow, after.flow),
                        (way(before.middle, after.middle, ahead, 1), way(after.middle, before.middle, back, -1)))


def _moved_on(picture: Tensor, flow: Tensor, target: Tensor) -> np.ndarray:
    """log(MSE + noise) of a picture moved on by every pace, along the flow and against it, (PACES, 2)."""
    ways = torch.stack([-sign * pace * flow for pace in PACES for sign in (1, -1)])
    moved = warp(picture[None, None].expand(len(ways), 1, -1, -1), ways)[:, 0]
    errors = torch.log((moved - target).square().mean((1, 2)) + NOISE)
    return errors.reshape(-1, 2).numpy().astype(float)


def _grey(frame: np.ndarray, shrink: int) -> Tensor:
    """uint8 [H, W, 3] to float (h, w) in 0..1, each pixel the mean of shrink x shrink."""
    height, width = (side // shrink * shrink for side in frame.shape[:2])
    blocks = frame[:height, :width].reshape(height // shrink, shrink, width // shrink, shrink * 3)
    return torch.from_numpy(blocks.mean((1, 3), dtype=np.float32) / 255)


def _flows(*pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Flows (n, 2, h, w) of pairs of pictures, in one go: most of the time goes into calls, not pixels."""
    first, second = (torch.stack(pictures)[:, None] for pictures in zip(*pairs, strict=True))
    return optical_flow(first, second)


def _odds(one: Tensor, other: Tensor) -> float:
    """2 atanh of the cosine between two flows; 0 where one of them is nothing."""
    scale = float(one.norm() * other.norm())
    cosine = float((one * other).sum()) / scale if scale > 1e-6 else 0.0
    return 2 * float(np.arctanh(SURE * cosine))
