"""Landmarks on restored frames held against those on the true frames.

What the tracker finds on a clip's true frames is the truth here; what it finds on other pictures of the same moments
is measured against it. For a subject (one face, one hand) with landmarks x_{t,p} in true frame t, p = 1..P, and
y_{t,p} in another picture of that moment:

    size         s = mean over t of the subject's eye distance or palm size, px (`Detection.scale`)
    error        e_t = mean_p |y_{t,p} - x_{t,p}|, px, and e_t / s
    within       share of the landmarks with |y - x| <= 0.2 s; those of a subject that was not found count as missed
                 (the percentage of correct keypoints of pose estimation)
    direction    forward or reversed, ONE choice a clip: the less of  sum_t min(e_t / s, 1), 1 where nothing was found
    lead         (sum reversed - sum forward) / number of moments: above 0 the pictures run as they are stored
    motion       <d', d> / <d, d>,  d = x_T - x_1 of all landmarks: 1 is the whole motion, 0 none of it
    roughness    mean_t,p |y_{t+1,p} - 2 y_{t,p} + y_{t-1,p}| / s: 0 is a straight path at an even pace

Nothing but `lead` changes when the pictures are reversed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hypercut_core.trajectories.joining import join

if TYPE_CHECKING:
    from hypercut_core.trajectories.landmarks import Detection

Picture = Sequence["Detection"]  # what was found on one picture
GATE = 1.0  # sizes; what lies farther from a subject is something else
NEAR = 0.2  # sizes; a landmark that is so near is right
SEEN = 0.5  # share of the true frames in which a subject must be found; less is taken for a mistake of the tracker
MOVING = 1.0  # px from the first to the last true frame; a subject that moves less has no direction


@dataclass(frozen=True)
class Subject:
    """One face or hand through the true frames of a clip."""

    points: np.ndarray  # float64 [T, P, 2] px, nan in frames where it was not found
    size: float  # px

    @property
    def seen(self) -> np.ndarray:
        """bool [T]"""
        return np.isfinite(self.points[:, 0, 0])


@dataclass(frozen=True)
class Measured:
    """Pictures of one clip against its true frames, in the direction that was chosen (S subjects, T frames)."""

    rate: float  # share of the pictures on which anything was found
    error: np.ndarray  # float64 [S, T] px, nan where the subject was not found on either
    sizes: np.ndarray  # float64 [S] px
    within: float  # share of the true landmarks; nan where there is no truth
    found: float  # share of the true subjects and frames; nan where there is no truth
    lead: float  # 0: the two directions are level
    motion: float  # nan where nothing moves, or too little of it was found
    roughness: float  # nan where no three frames in a row were found

    @property
    def reversed(self) -> bool:
        return self.lead < 0

    @property
    def mean_error(self) -> float:
        """Mean error, px; nan where nothing was found on both."""
        return mean(self.error)

    @property
    def mean_relative(self) -> float:
        """Mean error as a share of the subject's size."""
        return mean(self.error / self.sizes[:, None])


def subjects_of(frames: Sequence[Picture]) -> list[Subject]:
    """The faces or hands of the T true frames of a clip; the largest first."""
    tracks = [track for track in join(frames) if sum(one is not None for one in track) >= SEEN * len(frames)]
    made = [_joined(track) for track in tracks]
    return sorted((one for one in made if one.size > 0), key=lambda one: -one.size)


def measure(subjects: Sequence[Subject], pictures: Sequence[Picture], frames: int) -> Measured:
    """Hold pictures against the true frames of their clip.

    Args:
        subjects: of the true frames.
        pictures: one for each of the `frames` moments, or a single one that stands for all of them.
        frames: T.
    """
    if len(pictures) not in (1, frames):
        raise ValueError(f"{len(pictures)} pictures for {frames} moments")
    rate = float(np.mean([bool(len(picture)) for picture in pictures]))
    shown = list(pictures) * (frames if len(pictures) == 1 else 1)
    ahead, back = matched(subjects, shown), matched(subjects, shown[::-1])
    sizes = np.array([subject.size for subject in subjects])
    lead = _cost(subjects, back) - _cost(subjects, ahead)
    points = back if lead < 0 else ahead
    distance = _distances(subjects, points)
    seen = [subject.seen for subject in subjects]
    right = [np.nan_to_num(one, nan=np.inf)[at] <= NEAR * size
             for one, at, size in zip(distance, seen, sizes, strict=True)]
    met = [np.isfinite(one[at, 0]) for one, at in zip(distance, seen, strict=True)]
    return Measured(rate, np.array([one.mean(1) for one in distance]).reshape(len(subjects), frames), sizes,
                    _share(right), _share(met), lead, _motion(subjects, points), roughness(points, sizes))


def moves(subjects: Sequence[Subject]) -> bool:
    """Whether a subject goes far enough for its path to have a direction."""
    paths = [step for subject in subjects if (step := _way(subject.points)) is not None]
    return any(float(np.linalg.norm(step[1], axis=-1).mean()) >= MOVING for step in paths)


def roughness(paths: Sequence[np.ndarray], sizes: np.ndarray | Sequence[float]) -> float:
    """How unsteady paths `[T, P, 2]` are: mean length of the second difference, as a share of the subject's size."""
    bends = [np.linalg.norm(np.diff(path, 2, axis=0), axis=-1) / size for path, size in zip(paths, sizes, strict=True)]
    return mean(np.concatenate(bends)) if bends else float("nan")


def mean(values: np.ndarray) -> float:
    """Mean of what is a number; nan where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def matched(subjects: Sequence[Subject], pictures: Sequence[Picture]) -> list[np.ndarray]:
    """For each subject the landmarks found nearest to it in each picture, `[T, P, 2]`, nan where none is near."""
    made = [np.full(subject.points.shape, np.nan) for subject in subjects]
    gates = [GATE * subject.size for subject in subjects]
    for t, picture in enumerate(pictures):
        for row, column in _nearest([subject.points[t] for subject in subjects], picture, gates):
            made[row][t] = picture[column].points
    return made


def _nearest(wanted: Sequence[np.ndarray], found: Picture, gates: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs of what is wanted and what was found, nearest first, each used once and none beyond its gate."""
    near = []
    for row, points in enumerate(wanted):
        for column, other in enumerate(found):
            if other.points.shape == points.shape:
                distance = float(np.linalg.norm(other.points - points, axis=-1).mean())
                if distance <= gates[row]:  # false for nan
                    near.append((distance, row, column))
    pairs: list[tuple[int, int]] = []
    for _, row, column in sorted(near):
        if all(row != one and column != other for one, other in pairs):
            pairs.append((row, column))
    return pairs


def _joined(track: Sequence[Detection | None]) -> Subject:
    first = next(one for one in track if one)
    points = np.full((len(track), *first.points.shape), np.nan)
    for t, one in enumerate(track):
        if one:
            points[t] = one.points
    return Subject(points, float(np.mean([one.scale for one in track if one])))


def _distances(subjects: Sequence[Subject], points: Sequence[np.ndarray]) -> list[np.ndarray]:
    """[T, P] px for each subject."""
    return [np.linalg.norm(made - subject.points, axis=-1) for subject, made in zip(subjects, points, strict=True)]


def _cost(subjects: Sequence[Subject], points: Sequence[np.ndarray]) -> float:
    """Mean of min(error / size, 1) over the true subjects and frames, 1 where nothing was found."""
    costs = [np.minimum(np.nan_to_num(distance.mean(1) / subject.size, nan=1.0), 1.0)[subject.seen]
             for subject, distance in zip(subjects, _distances(subjects, points), strict=True)]
    return float(np.concatenate(costs).mean()) if costs else 0.0


def _motion(subjects: Sequence[Subject], points: Sequence[np.ndarray]) -> float:
    """Least-squares share of the true way from first to last that the pictures show, over the subjects that move."""
    shared = whole = 0.0
    for subject, made in zip(subjects, points, strict=True):
        both = np.where(np.isfinite(made), subject.points, np.nan)
        true, other = _way(both), _way(made)
        if true is None or other is None or float(np.linalg.norm(true[1], axis=-1).mean()) < MOVING:
            continue
        shared += float((other[1] * true[1]).sum())
        whole += float((true[1] ** 2).sum())
    return shared / whole if whole else float("nan")


def _way(path: np.ndarray) -> tuple[int, np.ndarray] | None:
    """Frames and displacement `[P, 2]` from the first to the last frame with landmarks; None if that is under half."""
    seen = np.flatnonzero(np.isfinite(path[:, 0, 0]))
    if not len(seen) or seen[-1] - seen[0] < (len(path) - 1) / 2:
        return None
    return int(seen[-1] - seen[0]), path[seen[-1]] - path[seen[0]]


def _share(parts: Sequence[np.ndarray]) -> float:
    whole = np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0)
    return float(whole.mean()) if whole.size else float("nan")
