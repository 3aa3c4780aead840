"""Which detections of neighbouring frames are the same face or hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from hypercut_core.trajectories.landmarks import Detection

FAR = 0.75  # of the box's diagonal: detections whose points are farther apart on average are not the same
MIRRORED = 0.5  # of the diagonal: how much farther a hand seems that changed its side (two that touch come by turns)


def join(found: Sequence[Sequence[Detection]]) -> list[list[Detection | None]]:
    """Follow each face or hand over the frames; nearest first, each detection once.

    Args:
        found: what the tracker found in each of T frames.

    Returns:
        one list of T for each face or hand, None where it was missed; those that were seen most come first.
    """
    tracks: list[list[Detection | None]] = []
    for time, detections in enumerate(found):
        last = [next(seen for seen in reversed(track) if seen is not None) for track in tracks]
        pairs = sorted((distance(before, now), i, j) for (i, before), (j, now)
                       in itertools.product(enumerate(last), enumerate(detections)))
        continued: dict[int, int] = {}
        for far, i, j in pairs:
            if far <= FAR and i not in continued and j not in continued.values():
                continued[i] = j
        for i, track in enumerate(tracks):
            track.append(detections[continued[i]] if i in continued else None)
        tracks += [[*[None] * time, detection] for j, detection in enumerate(detections)
                   if j not in continued.values()]
    return sorted(tracks, key=lambda track: -sum(seen.confidence for seen in track if seen is not None))


def distance(first: Detection, second: Detection) -> float:
    """Mean distance of corresponding points, in units of the boxes' mean diagonal."""
    diagonal = float(np.mean([np.linalg.norm(np.ptp(one.points, axis=0)) for one in (first, second)]))
    if len(first.points) != len(second.points) or diagonal <= 0:
        return float("inf")
    far = float(np.linalg.norm(first.points - second.points, axis=1).mean()) / diagonal
    return far + MIRRORED * (first.handedness != second.handedness)
