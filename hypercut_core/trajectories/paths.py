"""From what was found in each frame to smooth paths over the exposure, with confidence and what stays ambiguous.

Time runs from 0, where the exposure begins, to 1, where it ends. Frame k of T is itself an exposure over its T-th
part, so that it stands at (k + 1/2) / T.

>>> import numpy as np
>>> from hypercut_core.trajectories.landmarks import Detection
>>> hand = np.random.default_rng(0).uniform(40, 80, (21, 2)).astype(np.float32)
>>> found = [[Detection(hand + 2 * k, 0.9, "hand", "left")] for k in range(7)]
>>> paths = follow(found, "hand", size=(128, 128))
>>> paths.tracks[0].points.shape, round(paths.tracks[0].length, 1)
((7, 21, 2), 17.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hypercut_core.errors import BadParameters
from hypercut_core.trajectories.ambiguity import Region, judge_regions, path_length
from hypercut_core.trajectories.joining import join
from hypercut_core.trajectories.landmarks import Detection, known_kind, scale_of
from hypercut_core.trajectories.smoothing import Smoothed, smooth

LEAST_SEEN = 0.5  # share of the frames that a face or hand must have been found in


@dataclass(frozen=True)
class Track:
    """One face or hand over the exposure.

    Attributes:
        points: float32 ``[M, P, 2]``, px: the smooth path of every landmark.
        confidence: float32 ``[M, P]`` in [0, 1]: the detector's, times how well the frames about this moment
            agree with the path; frames in which it was missed count as 0.
        seen: bool ``[T]``: frames in which it was found.
        noise: float32 ``[P]``: standard deviation of one frame's landmark about its path, px a coordinate.
        handedness: "left", "right" or "".
        scale: eye distance or palm size at the middle of the exposure, px.
        regions: of the face or hand, with what is known of their direction.
        may_run_otherwise: it moves by itself beside another track, and blur does not tell whether both
            run forwards.
    """

    points: np.ndarray
    confidence: np.ndarray
    seen: np.ndarray
    noise: np.ndarray
    handedness: str
    scale: float
    regions: tuple[Region, ...]
    may_run_otherwise: bool = False

    @property
    def length(self) -> float:
        """Path of the whole, px: mean over the landmarks."""
        return float(path_length(self.points).mean())


@dataclass(frozen=True)
class Trajectories:
    """All faces or all hands of one exposure.

    Attributes:
        kind: "face" or "hand".
        size: (width, height) of the frames, px.
        moments: float64 ``[M]`` in (0, 1), of the exposure.
        tracks: those that were seen most come first; empty if there is none.
        ambiguous: whether time may as well run the other way: true for a photo, false for a clip.
        reversed: whether it was asked to.
    """

    kind: str
    size: tuple[int, int]
    moments: np.ndarray
    tracks: tuple[Track, ...] = field(default=())
    ambiguous: bool = True
    reversed: bool = False


def frame_times(count: int) -> np.ndarray:
    """The middles of T equal parts of the exposure, float64 ``[T]``."""
    return (np.arange(count) + 0.5) / count


def follow(found: Sequence[Sequence[Detection]], kind: str, size: tuple[int, int], *, moments: int | None = None,
           ambiguous: bool = True, reverse: bool = False) -> Trajectories:
    """Join the detections of T frames into smooth paths.

    Args:
        found: what the tracker found in each frame, in order (`Tracker.detect`).
        size: (width, height) of the frames, px.
        moments: at how many moments the paths are given, evenly from the first frame's to the last's;
            None: at those of the frames.
        ambiguous: true for frames that were recovered from one blurry photo.
        reverse: run time the other way.

    Raises:
        BadParameters: there is no frame, or the number of moments makes no sense.
    """
    known_kind(kind)
    if not found or (moments is not None and not 1 <= moments <= 1000):
        raise BadParameters(f"{len(found)} frames do not make paths at {moments} moments",
                            remedy="give at least one frame and 1 to 1000 moments")
    frames = list(found)[::-1] if reverse else list(found)
    times = frame_times(len(frames))
    at = times if moments is None else np.linspace(times[0], times[-1], moments) if moments > 1 else np.array([0.5])
    kept = [track for track in join(frames) if sum(one is not None for one in track) >= LEAST_SEEN * len(track)]
    tracks = _settle([_track(track, kind, times, at, ambiguous) for track in kept], ambiguous)
    return Trajectories(kind, size, at, tracks, ambiguous, reverse)


def _track(detections: Sequence[Detection | None], kind: str, times: np.ndarray, at: np.ndarray,
           ambiguous: bool) -> Track:
    seen = [one for one in detections if one is not None]
    when = np.array([one is not None for one in detections])
    weights = np.array([max(one.confidence, 0.01) for one in seen])
    fit = smooth(times[when], np.stack([one.points for one in seen]), weights, at)
    regions = judge_regions(fit.points, fit.noise, kind, scale_of(fit.points[len(at) // 2], kind), ambiguous)
    return Track(fit.points.astype(np.float32), _confidence(fit, weights, when, times, at), when,
                 fit.noise.astype(np.float32), _side(seen), scale_of(fit.points[len(at) // 2], kind), regions)


def _confidence(fit: Smoothed, weights: np.ndarray, when: np.ndarray, times: np.ndarray,
                at: np.ndarray) -> np.ndarray:
    """Mean over the frames about each moment, nearer ones counting more; missed frames count as 0."""
    step = 1 / len(times)
    near = np.clip(1 - np.abs(at[:, None] - times[None]) / (1.5 * step), 0, None)
    each = np.zeros((len(times), fit.trust.shape[1]))
    each[when] = weights[:, None] * fit.trust
    return (near @ each / near.sum(axis=1, keepdims=True)).clip(0, 1).astype(np.float32)


def _side(seen: Sequence[Detection]) -> str:
    """The side that most of the confidence is for."""
    votes: dict[str, float] = {}
    for one in seen:
        votes[one.handedness] = votes.get(one.handedness, 0.0) + one.confidence
    return max(sorted(votes), key=lambda side: votes[side])


def _settle(tracks: Sequence[Track], ambiguous: bool) -> tuple[Track, ...]:
    """All but the track that moves most may run the other way than it."""
    if not ambiguous or len(tracks) < 2:
        return tuple(tracks)
    first = max(range(len(tracks)), key=lambda index: tracks[index].length)
    return tuple(replace(track, may_run_otherwise=index != first) for index, track in enumerate(tracks))


def path_error(paths: np.ndarray, truth: np.ndarray) -> tuple[float, bool]:
    """Mean distance of two paths up to the direction of time.

    Args:
        paths, truth: ``[T, P, 2]``, px.

    Returns:
        the smaller mean distance in px, and whether the reversed path gave it.
    """
    far = [float(np.linalg.norm(one - truth, axis=-1).mean()) for one in (paths, paths[::-1])]
    return min(far), far[1] < far[0]
