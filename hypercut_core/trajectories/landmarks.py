"""Faces and hands as points in an image: what the tracker finds in one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hypercut_core.errors import BadParameters
from hypercut_core.trajectories.anatomy import EYE_CORNERS, FACE, HAND, MIDDLE_KNUCKLE, POINTS, WRIST

__all__ = ["FACE", "HAND", "POINTS", "SIDES", "Detection", "known_kind", "scale_of"]
SIDES = ("left", "right", "")  # of hands; unknown for faces


@dataclass(frozen=True)
class Detection:
    """One face or one hand in one frame.

    Attributes:
        points: float32 ``[P, 2]``, (x, y) in pixels of the frame; (0, 0) is the outer corner of the first
            pixel, so that the centre of pixel (i, j) is (i + 0.5, j + 0.5). They may lie outside the frame.
        confidence: of the detector that found it, in [0, 1].
        kind: "face" (P = 468 or 478) or "hand" (P = 21).
        handedness: "left" or "right", the person's own as the tracker sees it; "" for faces.
    """

    points: np.ndarray
    confidence: float
    kind: str
    handedness: str = ""

    @property
    def scale(self) -> float:
        """A length in pixels to measure errors by; see `scale_of`."""
        return scale_of(self.points, self.kind)

    @property
    def centre(self) -> np.ndarray:
        """float32 ``[2]``: the mean of all points."""
        return self.points.mean(axis=0)


def scale_of(points: np.ndarray, kind: str) -> float:
    """Eye distance (between the middles of both eyes) or palm size (wrist to the middle finger's knuckle).

    Args:
        points: ``[P, 2]``, pixels.
    """
    if kind == HAND:
        return float(np.linalg.norm(points[MIDDLE_KNUCKLE] - points[WRIST]))
    first, second = (points[list(corners)].mean(axis=0) for corners in EYE_CORNERS)
    return float(np.linalg.norm(first - second))


def known_kind(kind: str) -> str:
    """`kind`, if there is such a kind.

    Raises:
        BadParameters: it is neither "face" nor "hand".
    """
    if kind not in POINTS:
        raise BadParameters(f"there are no landmarks of '{kind}'", remedy="choose 'face' or 'hand'")
    return kind
