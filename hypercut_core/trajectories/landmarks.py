"""Faces and hands as points in an image: what the tracker finds in one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hypercut_core.errors import BadParameters

FACE, HAND = "face", "hand"
POINTS = {FACE: (468, 478), HAND: (21,)}  # how many points a detection may have; 478: with both irises
SIDES = ("left", "right", "")  # of hands; unknown for faces

# Landmark numbers of the face mesh and the hand that sizes and regions are measured by.
EYE_CORNERS = ((33, 133), (362, 263))  # outer and inner corner of one eye, inner and outer of the other
WRIST, INDEX_KNUCKLE, MIDDLE_KNUCKLE, PINKY_KNUCKLE = 0, 5, 9, 17


@dataclass(frozen=True)
class Detection:
    """One face or one hand in one frame.

    Attributes:
        points: float32 ``[P, 2]``, (x, y) in pixels of the frame; (0, 0) is the outer corner of the first
            pixel, so that the centre of pixel (i, j) is (i + 0.5, j + 0.5). They may lie outside the frame.
        confidence: of the detector that found it, in [0, 1].
        kind: "face" (P = 468 or 478) or "hand" (P = 21).
        handedness: "left" or "right" as the tracker sees it, "" for faces.
    """

    points: np.ndarray
    confidence: float
    kind: str
    handedness: str = ""

    @property
    def scale(self) -> float:
        """A length in pixels to measure errors by: eye distance (between the middles of both eyes), or palm
        size (wrist to the middle finger's knuckle)."""
        if self.kind == HAND:
            return float(np.linalg.norm(self.points[MIDDLE_KNUCKLE] - self.points[WRIST]))
        first, second = (self.points[list(corners)].mean(axis=0) for corners in EYE_CORNERS)
        return float(np.linalg.norm(first - second))

    @property
    def centre(self) -> np.ndarray:
        """float32 ``[2]``: the mean of all points."""
        return self.points.mean(axis=0)


def known_kind(kind: str) -> str:
    """`kind`, if there is such a kind.

    Raises:
        BadParameters: it is neither "face" nor "hand".
    """
    if kind not in POINTS:
        raise BadParameters(f"there are no landmarks of '{kind}'", remedy="choose 'face' or 'hand'")
    return kind
