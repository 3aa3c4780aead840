"""The event double integral (EDI): Pan, Scheerlinck, Yu, Hartley, Liu and Dai, "Bringing a Blurry Frame Alive at
High Frame-Rate with an Event Camera", CVPR 2019. No learning.

With E(t) the signed count of a pixel's events up to t and c the contrast threshold, light is L(t) = L(f) exp(c
(E(t) - E(f))), and the blurry image is its mean over the exposure, so that

    L(f) = B exp(c E(f)) / mean_t exp(c E(t))

in linear light (plus the sensor's own `dark` level, which is taken off again). Events give the order of time:
nothing is ambiguous, and the frames re-blur to B exactly whatever c is. `threshold_search.py` finds c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hypercut_core.blur.events import Events
from hypercut_core.blur.exposure import Response, from_linear, to_linear
from hypercut_core.deblurring.event_levels import Between, event_counts
from hypercut_core.deblurring.sizes import check_frames
from hypercut_core.errors import BadParameters


@dataclass(frozen=True)
class EventIntegralConfig:
    """How frames are made of a blurry image and events."""

    dark: float = 0.02  # light that the event sensor adds to all, 0..1
    instants: int = 1  # instants per frame at which the exposure is sampled; odd; 1: B is the mean of the T frames
    response: Response = "srgb"  # response curve of the blurry image
    between: Between = "timed"  # what is made of the light between two events; count: nothing, the paper's


def exposure_times(start: float, end: float, frames: int, instants: int = 1) -> np.ndarray:
    """The centres of frames * instants equal parts of the exposure, seconds."""
    parts = frames * instants
    return start + (np.arange(parts) + 0.5) * (end - start) / parts


def integrate_events(blurry: Tensor, counts: Tensor, threshold: Tensor | float, dark: float = 0.02,
                     response: str = "srgb") -> Tensor:
    """Sharp images at all instants.

    Args:
        blurry: (B, 3, H, W) encoded values in [0, 1].
        counts: (B, N, C, H, W), C = 1 or 3, from `event_counts`; only differences in time matter.
        threshold: c, one number, or one per clip (B,).

    Returns:
        (B, N, 3, H, W) encoded values, not clipped; their mean in linear light is that of `blurry`.
    """
    c = torch.as_tensor(threshold, dtype=counts.dtype, device=counts.device)
    exponent = c.view(-1, 1, 1, 1, 1) * counts
    log_mean = torch.logsumexp(exponent, 1, keepdim=True) - math.log(counts.shape[1])
    light = (to_linear(blurry, response)[:, None] + dark) * torch.exp(exponent - log_mean) - dark
    return from_linear(light, response)


class EventIntegral(nn.Module):
    """Blurry image (B, 3, H, W) in [0, 1] and event counts to T sharp frames (B, T, 3, H, W), not clipped.

    It has no weights, and no file; `forward` needs what no other model does.

    Raises:
        BadParameters: T is even or outside 3 to 15, or `instants` is even.
    """

    def __init__(self, config: EventIntegralConfig, frames: int = 7):
        super().__init__()
        if config.instants % 2 == 0 or not 1 <= config.instants <= 63:
            raise BadParameters(f"instants is {config.instants}", where="instants",
                                remedy="choose an odd number from 1 to 63")
        self.config, self.frames, self.response = config, check_frames(frames), config.response

    def counts(self, events: Events, start: float, end: float) -> Tensor:
        """What `forward` wants to know of the events of an exposure from `start` to `end`, seconds:
        (1, T * instants, C, H, W)."""
        times = exposure_times(start, end, self.frames, self.config.instants)
        return event_counts(events, times, self.config.between, end - start)[None]

    def forward(self, blurry: Tensor, counts: Tensor, threshold: Tensor | float) -> Tensor:
        """`counts` (B, T * instants, C, H, W); `threshold` c: one number, one per clip (B,), or one per output
        frame (T,) where B = 1."""
        wanted = (self.frames * self.config.instants, *blurry.shape[-2:])
        if (counts.shape[1], *counts.shape[-2:]) != wanted or counts.shape[2] not in (1, 3):
            raise BadParameters(f"event counts of the shape {list(counts.shape)} do not fit the image and "
                                f"{self.frames} frames", where="counts", remedy="make them with EventIntegral.counts")
        dark, first = self.config.dark, self.config.instants // 2
        c = torch.as_tensor(threshold)
        if blurry.shape[0] == 1 and c.dim() == 1 and len(c) == self.frames:
            each = [integrate_events(blurry, counts, one, dark, self.response)[:, first::self.config.instants][:, k]
                    for k, one in enumerate(c)]
            return torch.stack(each, 1)
        return integrate_events(blurry, counts, c, dark, self.response)[:, first::self.config.instants]
