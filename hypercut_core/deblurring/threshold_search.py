"""The contrast threshold c of a clip's events, found from the clip alone by Fibonacci search.

Two criteria, both without scale, smaller is better:

``motion`` (the default)
    With the right c the frames show one scene that moves. Between two frames, two and three sevenths of the exposure
    before and after an instant (nearer ones show too little motion to tell ghosts from errors of the flow),

        mean_windows log( |L_b(x + flow) - L_a(x)|^2 / |L_b - L_a|^2 + 1e-3 )          in log light,

    with the optical flow of the very frames that c gives. A wrong c leaves ghosts in the frames that do not move
    with them. Own to this program; 0.9 % off in the median and within 2 % on eight test clips of ten,
    at most 6 % off; 10 % was seen on other photos. What it loses comes from the steps of the events and the flow
    of frames that are made from them: given exact light and the true flow it is within 1 % on every clip
    (benchmarks/results/events.md).
``pan``
    0.2 TV(L) / TV(B) - corr(edges of L, event-edge map): the energy of Pan et al. 2019 as it is described,
    with the correlation as a cosine. On textured scenes it has its minimum far from the true c
    (benchmarks/events.py measures both); kept for comparison. The total variation alone does not help: it is least
    for the flat frames of the smallest c.

The search looks at eight values of c, evenly spaced in the logarithm, and then searches round the best of them.
Only the liveliest part of a large image is looked at, and its luma alone where the sensor is grey.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercut_core.blur.events import LUMA
from hypercut_core.blur.exposure import from_linear, to_linear
from hypercut_core.deblurring.event_integral import integrate_events
from hypercut_core.deblurring.optical_flow import optical_flow
from hypercut_core.deblurring.warping import warp
from hypercut_core.errors import BadParameters

Criterion = Literal["motion", "pan"]
RANGE = (0.01, 1.0)  # of c, natural logarithm of light
COARSE = 8  # values of c that are tried first
STEPS = 11  # of the Fibonacci search; the bracket shrinks to 1/233
WINDOW = 5  # px, over which errors are averaged before the logarithm
BORDER = 8  # px at the border that are not looked at: what moves there comes from outside
PART = 128  # px, largest side of what is looked at
TV_WEIGHT = 0.2
SPANS = (2 / 7, 3 / 7)  # from an instant to the frames before and after it, of the exposure


def find_threshold(blurry: Tensor, counts: Tensor, dark: float = 0.02, response: str = "srgb",
                   criterion: Criterion = "motion", frame: int | None = None) -> float:
    """c of one clip, or of one of its output frames.

    Args:
        blurry: (1, 3, H, W) encoded values in [0, 1].
        counts: (1, N, C, H, W) from `EventIntegral.counts`.
        frame: an instant 0..N-1 for which alone c is sought, from triples round it or as near as they fit into the
            exposure: the first instants share one c, and so do the last. None: one c for all.

    Raises:
        BadParameters: no events, too small an image, or an unknown criterion.
    """
    if criterion not in get_args(Criterion):
        raise BadParameters(f"unknown criterion '{criterion}'", where="criterion", remedy="choose motion or pan")
    if min(blurry.shape[-2:]) < 2 * BORDER + WINDOW or counts.shape[1] < 3:
        raise BadParameters("the image or the number of instants is too small to find c", where="blurry",
                            remedy=f"use at least {2 * BORDER + WINDOW} px a side and 3 instants, or give c")
    if not bool((counts[:, 1:] != counts[:, :-1]).any()):
        raise BadParameters("there are no events during the exposure", where="events",
                            remedy="check the times of the exposure and of the events")
    blurry, counts = liveliest(blurry, counts)
    if counts.shape[2] == 1:  # a grey sensor's events are those of the luma
        shares = torch.tensor(LUMA, dtype=blurry.dtype, device=blurry.device).view(1, 3, 1, 1)
        blurry = from_linear((to_linear(blurry, response) * shares).sum(1, keepdim=True), response)
    near = _near(counts.shape[1], SPANS if criterion == "motion" else (1 / counts.shape[1],), frame)
    measure = _motion if criterion == "motion" else _pan

    @torch.no_grad()
    def score(log_c: float) -> float:
        images = integrate_events(blurry, counts, math.exp(log_c), dark, response)
        return float(measure(images[0].float(), counts[0], blurry, near, dark, response))

    low, high = (math.log(c) for c in RANGE)
    gap = (high - low) / (COARSE - 1)
    tried = [score(low + k * gap) for k in range(COARSE)]
    best = low + tried.index(min(tried)) * gap
    return math.exp(fibonacci_search(score, max(low, best - gap), min(high, best + gap), STEPS))


def _near(count: int, spans: Sequence[float], frame: int | None) -> Tensor:
    """Instants before, at and after, (triples, 3), of all `count` instants or as near to `frame` as it goes."""
    found = []
    for step in sorted({min(max(1, round(span * count)), (count - 1) // 2) for span in spans}):
        middles = range(step, count - step) if frame is None else [min(max(frame, step), count - 1 - step)]
        found += [[k - step, k, k + step] for k in middles]
    return torch.tensor(found)


def find_frame_thresholds(blurry: Tensor, counts: Tensor, dark: float = 0.02, response: str = "srgb",
                          criterion: Criterion = "motion", instants: int = 1) -> Tensor:
    """c of each output frame, (T,), where N = T * instants. As `find_threshold`."""
    return torch.tensor([find_threshold(blurry, counts, dark, response, criterion, frame)
                         for frame in range(instants // 2, counts.shape[1], instants)])


def fibonacci_search(score: Callable[[float], float], low: float, high: float, steps: int) -> float:
    """Where a function with one minimum in [low, high] has it, after `steps` + 1 evaluations (Kiefer 1953).

    >>> round(fibonacci_search(lambda x: (x - 0.3) ** 2, 0.0, 1.0, 20), 3)
    0.3
    """
    numbers = [1, 1]
    while len(numbers) < steps + 2:
        numbers.append(numbers[-1] + numbers[-2])
    at = lambda k: low + (high - low) * numbers[k] / numbers[k + 1]  # noqa: E731
    right = at(steps)
    left = low + high - right
    at_left, at_right = score(left), score(right)
    for _ in range(steps - 1):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = low + high - right
            at_left = score(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + high - left
            at_right = score(right)
        if left > right:  # the last two points coincide up to rounding
            left, right, at_left, at_right = right, left, at_right, at_left
    return left if at_left < at_right else right


def liveliest(blurry: Tensor, counts: Tensor, side: int = PART) -> tuple[Tensor, Tensor]:
    """The part of at most `side` x `side` px with the most change: (1, 3, h, w) and (1, N, C, h, w)."""
    height, width = blurry.shape[-2:]
    tall, wide = min(side, height), min(side, width)
    change = (counts[0, 1:] - counts[0, :-1]).abs().clamp_max(10).sum((0, 1))[None, None]
    step = 16
    total = F.avg_pool2d(change, (tall, wide), stride=step)
    place = int(total.argmax())
    top, left = place // total.shape[-1] * step, place % total.shape[-1] * step
    part = (..., slice(top, top + tall), slice(left, left + wide))
    return blurry[part], counts[part]


def _motion(images: Tensor, counts: Tensor, blurry: Tensor, near: Tensor, dark: float, response: str) -> Tensor:
    light = torch.log((to_linear(images, response) + dark).clamp_min(1e-6))
    before, after, seen = light[near[:, 0]], light[near[:, 2]], images.clamp(0, 1).mean(1, keepdim=True)
    flow = optical_flow(seen[near[:, 0]], seen[near[:, 2]])
    inner = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    error = (warp(after, flow) - before)[inner].square().sum(1, keepdim=True)
    change = (after - before)[inner].square().sum(1, keepdim=True)
    error, change = F.avg_pool2d(error, WINDOW, 1), F.avg_pool2d(change, WINDOW, 1)
    weight = change.sqrt()
    return (weight * torch.log(error / (change + 1e-4) + 1e-3)).sum() / weight.sum().clamp_min(1e-9)


def _pan(images: Tensor, counts: Tensor, blurry: Tensor, near: Tensor, dark: float, response: str) -> Tensor:
    across, down = _slopes(images[near[:, 1]])
    b_across, b_down = _slopes(blurry)
    variation = (across.abs() + down.abs()).mean() / (b_across.abs() + b_down.abs()).mean().clamp_min(1e-9)
    edges = torch.hypot(across, down).mean(1)
    event_edges = (counts[near[:, 2]] - counts[near[:, 0]]).abs().mean(1)[:, :-1, :-1]
    product = (edges * event_edges).sum() / (edges.norm() * event_edges.norm()).clamp_min(1e-9)
    return TV_WEIGHT * variation - product


def _slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[..., :-1, 1:] - images[..., :-1, :-1], images[..., 1:, :-1] - images[..., :-1, :-1]
