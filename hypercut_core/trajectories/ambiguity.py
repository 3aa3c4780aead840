"""What the direction of a path is worth, region by region.

One blurry photo leaves one direction of time open. Regions that move on their own leave one each: a finger that bends
while the palm rests blurs the same whether it bends in or out, whatever the rest does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hypercut_core.trajectories.anatomy import regions as region_points

STILL_PX, STILL_SHARE = 0.5, 0.02  # a path shorter than this, in px or as a share of the scale, has no direction
OWN_SHARE = 0.06  # of the scale: motion against the whole that is a region's own
OWN_PART = 0.2  # of the whole's path: less is what a turning head or a wrong landmark looks like
JUMPS = 4.0  # of a landmark's noise: a shorter path may be nothing else
NOISES = 3.0  # standard errors that motion must exceed
DIRECTED, STILL, OWN, AGAINST, NOISY = "", "still", "own", "against", "noisy"
MEANING = {
    DIRECTED: "moves with the whole",
    STILL: "hardly moves: it has no direction",
    OWN: "moves on its own: its direction may differ from that of the whole",
    AGAINST: "runs against the whole: its direction may have been recovered the wrong way round",
    NOISY: "its landmarks jump from frame to frame nearly as far as they move: the path is not to be trusted",
}


@dataclass(frozen=True)
class Region:
    """A part of a face or hand.

    Attributes:
        name: such as "mouth" or "index finger".
        points: its landmarks.
        length: mean path length, px.
        own: greatest motion against the whole, px; the whole moves as a rigid body that may be scaled.
        mark: one of MEANING's keys.
    """

    name: str
    points: tuple[int, ...]
    length: float
    own: float
    mark: str


def judge_regions(paths: np.ndarray, noise: np.ndarray, kind: str, scale: float, ambiguous: bool) -> tuple[Region, ...]:
    """What is known of the direction of each region.

    Args:
        paths: ``[M, P, 2]``, px, smooth.
        noise: ``[P]``, standard deviation of one frame's landmark, px.
        scale: eye distance or palm size, px.
        ambiguous: false if the direction of time is known; then nothing runs the wrong way.
    """
    rigid = whole_motion(paths)
    whole = float(path_length(rigid).mean())
    return tuple(_judge(name, points, paths, rigid, noise, scale, whole, ambiguous)
                 for name, points in region_points(kind).items())


def _judge(name: str, points: tuple[int, ...], paths: np.ndarray, rigid: np.ndarray, noise: np.ndarray, scale: float,
           whole: float, ambiguous: bool) -> Region:
    chosen = list(points)
    mean, expected = paths[:, chosen].mean(axis=1), rigid[:, chosen].mean(axis=1)
    length = float(path_length(paths[:, chosen]).mean())
    own = float(np.linalg.norm(mean - expected, axis=1).max())
    jitter = float(np.sqrt(np.square(noise[chosen]).mean()))
    mark = DIRECTED
    if length < max(STILL_PX, STILL_SHARE * scale):
        mark = STILL
    elif jitter > STILL_PX and JUMPS * jitter > length:
        mark = NOISY
    elif ambiguous and own > max(OWN_SHARE * scale, OWN_PART * whole, NOISES * jitter / len(paths) ** 0.5):
        mark = AGAINST if _against(mean, expected) else OWN
    return Region(name, points, length, own, mark)


def _against(mean: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the region goes the other way than the whole takes it, for most of the whole's way."""
    along = float(((mean[-1] - mean[0]) * (expected[-1] - expected[0])).sum())
    return along < -0.25 * float(np.square(expected[-1] - expected[0]).sum()) < 0


def path_length(paths: np.ndarray) -> np.ndarray:
    """Length of the paths ``[M, P, 2]``, px: ``[P]``; 0 for a single moment."""
    return np.linalg.norm(np.diff(paths, axis=0), axis=-1).sum(axis=0)


def whole_motion(paths: np.ndarray, rounds: int = 5) -> np.ndarray:
    """The points ``[M, P, 2]`` as a rigid body that may be scaled would take them.

    At each moment the similarity z -> a z + b (complex a, b) that carries the middle moment's points nearest to
    those of the moment, in the sense of least distances (weights 1 / distance, re-fitted), so that a region that
    moves on its own has little say.
    """
    z = paths[..., 0] + 1j * paths[..., 1]
    start = z[len(z) // 2]
    made = np.empty_like(z)
    for index, now in enumerate(z):
        weights = np.ones(len(start))
        for _ in range(rounds):
            share = weights / weights.sum()
            from_, to = start - (share * start).sum(), now - (share * now).sum()
            power = float((share * np.abs(from_) ** 2).sum())
            turn = (share * np.conj(from_) * to).sum() / power if power > 0 else 1.0
            made[index] = turn * from_ + (share * now).sum()
            weights = 1 / np.maximum(np.abs(now - made[index]), 0.05)
    return np.stack([made.real, made.imag], axis=-1)
