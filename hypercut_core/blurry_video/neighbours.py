"""What the neighbours of a blurry video's frame show of its motion, put into its restored frames.

A model restores a frame by itself and shows the motion that it learned to expect, also where hardly anything moves.
Middle frames do not depend on any direction: the flow F between those of t - 1, t and t + 1 says how far, and which
way, the picture goes meanwhile. During the exposure it goes the share s of that,

    v = s * (F(t -> t+1) - F(t -> t-1)) / 2 px an exposure,      s = T / ((T - 1) * pace), 1 at most,

the pace being that of the shot (`evidence.Pace`). The middle frame M, moved along v, is a second answer:

    moved(tau) = M(x - tau v) + B - mean_tau M(x - tau v),      tau in (-1/2, 1/2); its mean is the blurry frame B

* Where the picture goes by less than `CALM[0]` px an exposure the second answer is taken alone;
* where it goes by more than `CALM[1]`, the model's even part stays, and of the odd part, which has the direction, up to
  `MOST` is the second answer's: the more of the change from frame to frame F explains, the more.
  No pixel leaves what the model's frame and the moved one span;
* in between, in between.

Weights were chosen on made videos of photos of "val" and "train" (benchmarks/results/blurry_video_ways.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hypercut_core.deblurring.warping import warp

WORKING_SIDE = 96  # px; larger frames are shrunk by a whole number until the shorter side is below twice this
CALM = (1.0, 3.0)  # px of the picture an exposure
MOST = 0.6  # share of the odd part
WINDOW = 17  # working-size px in which motion and errors are taken as one
NOISE = 1e-4  # squared grey levels (0..1): a change as small as this is not explained by anything


@dataclass(frozen=True)
class Way:
    """Where a frame's picture goes until a neighbour, at the working size."""

    flow: Tensor  # (2, h, w) px, forward in time
    left: Tensor  # (h, w) squared grey levels by which the two middle frames differ along the flow
    change: Tensor  # (h, w) the same without the flow


def working_shrink(height: int, width: int) -> int:
    """How many pixels a side become one at the working size."""
    return max(1, min(height, width) // WORKING_SIDE)


def way(middle: Tensor, other: Tensor, flow: Tensor, forward: int) -> Way:
    """Of a frame with the grey `middle` frame (h, w): the `flow` (2, h, w) from it to the neighbour's.

    `forward` is 1 for the frame after and -1 for the one before.
    """
    met = warp(other[None, None], flow[None])[0, 0]
    return Way(forward * flow, (middle - met).square(), (middle - other).square())


@dataclass(frozen=True)
class Motion:
    """What the neighbours of a frame say about it, px of the picture."""

    flow: Tensor  # (1, 2, H, W) px an exposure
    model: Tensor  # (1, 1, H, W) 0 where the picture is calm, 1 where the model is asked
    trust: Tensor  # (1, 1, H, W) of the flow, 0 to `MOST`
    speed: float  # px an exposure of the fastest twentieth


def joined(ways: list[Way], share: float, size: tuple[int, int]) -> Motion:
    """One or two ways of a frame whose restored frames are `size` (H, W), `share` of the time being exposed."""
    flow = share * torch.stack([one.flow for one in ways]).mean(0)[None]
    shrink = working_shrink(*size)
    left = torch.stack([one.left for one in ways]).mean(0)[None, None]
    change = torch.stack([one.change for one in ways]).mean(0)[None, None]
    trust = MOST * (1 - _mean(left) / (_mean(change) + NOISE)).clamp(0, 1)
    speed = shrink * flow.norm(dim=1, keepdim=True)
    low, high = CALM
    model = ((_mean(speed) - low) / (high - low)).clamp(0, 1)
    return Motion(_enlarged(shrink * flow, shrink, size), _enlarged(model, shrink, size),
                  _enlarged(trust, shrink, size), float(speed.flatten().quantile(0.95)))


def exposed_share(frames: int, pace: float) -> float:
    """Share of the time from middle to middle in which the shutter is open, of T `frames` and the shot's `pace`."""
    return min(1.0, frames / ((frames - 1) * pace))


def mixed(sharp: np.ndarray, blurry: np.ndarray, motion: Motion) -> np.ndarray:
    """Restored frames, turned the right way, with what the neighbours show.

    Args:
        sharp: uint8 [T, H, W, 3].
        blurry: uint8 [H, W, 3].

    Returns:
        uint8 [T, H, W, 3].
    """
    count = len(sharp)
    middle, photo = _planes(sharp[count // 2]), _planes(blurry)
    taus = [(k + 0.5) / count - 0.5 for k in range(count)]
    lift = photo - sum(warp(middle, -tau * motion.flow) for tau in taus) / count
    result = np.empty_like(sharp)
    for k, frame in _pairs(sharp, middle, lift, motion, taus):
        result[k] = frame.round().clamp(0, 255)[0].permute(1, 2, 0).to(torch.uint8).numpy()
    return result


def _pairs(sharp: np.ndarray, middle: Tensor, lift: Tensor, motion: Motion, taus: list[float],
           ) -> Iterator[tuple[int, Tensor]]:
    """The frames k and T - 1 - k together, as their even and odd parts need each other: (1, 3, H, W) in 0..255."""
    for k in range((len(taus) + 1) // 2):
        first, last = _planes(sharp[k]), _planes(sharp[-1 - k])
        moved, moved_last = (warp(middle, -tau * motion.flow) for tau in (taus[k], taus[-1 - k]))
        even = (first + last) / 2
        odd = torch.lerp(first - even, (moved - moved_last) / 2, motion.trust)
        yield k, torch.lerp(moved + lift, _between(even + odd, first, moved), motion.model)
        yield len(taus) - 1 - k, torch.lerp(moved_last + lift, _between(even - odd, last, moved_last), motion.model)


def _between(frame: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """No pixel outside what two answers span: the even part of little motion with the odd part of much makes ghosts."""
    return torch.minimum(torch.maximum(frame, torch.minimum(one, other)), torch.maximum(one, other))


def _planes(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None].contiguous()


def _mean(x: Tensor) -> Tensor:
    """Mean over a window, edge pixels continued."""
    return F.avg_pool2d(F.pad(x, (WINDOW // 2,) * 4, mode="replicate"), WINDOW, stride=1)


def _enlarged(x: Tensor, times: int, size: tuple[int, int]) -> Tensor:
    """From the working size to `size`; what was cut off at the edge goes on."""
    if times > 1:
        x = F.interpolate(x, scale_factor=times, mode="bilinear", align_corners=False)
    return F.pad(x, (0, size[1] - x.shape[-1], 0, size[0] - x.shape[-2]), mode="replicate")
