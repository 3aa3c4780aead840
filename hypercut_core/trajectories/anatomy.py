"""Which points of the face mesh and of the hand belong together: lines to draw, regions to judge.

The numbers are those of MediaPipe's meshes; "left" and "right" are the person's own.
"""

from __future__ import annotations

import itertools

FACE, HAND = "face", "hand"
POINTS = {FACE: (468, 478), HAND: (21,)}  # how many points a detection may have; 478: with both irises

EYE_CORNERS = ((33, 133), (362, 263))  # of the right eye outer and inner, of the left one inner and outer
WRIST, MIDDLE_KNUCKLE = 0, 9

_FACE_LINES: dict[str, tuple[tuple[int, ...], ...]] = {
    "outline": ((10, 109, 67, 103, 54, 21, 162, 127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378,
                 379, 365, 397, 288, 361, 323, 454, 356, 389, 251, 284, 332, 297, 338, 10),),
    "right brow": ((46, 53, 52, 65, 55), (70, 63, 105, 66, 107)),
    "left brow": ((276, 283, 282, 295, 285), (300, 293, 334, 296, 336)),
    "right eye": ((33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7, 33),),
    "left eye": ((263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249, 263),),
    "nose": ((168, 6, 197, 195, 5, 4, 1), (98, 97, 2, 326, 327), (64, 98), (327, 294)),
    "mouth": ((61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146, 61),
              (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95, 78)),
}
_HAND_LINES: dict[str, tuple[tuple[int, ...], ...]] = {
    "palm": ((0, 1), (0, 5, 9, 13, 17, 0)),
    "thumb": ((1, 2, 3, 4),),
    "index finger": ((5, 6, 7, 8),),
    "middle finger": ((9, 10, 11, 12),),
    "ring finger": ((13, 14, 15, 16),),
    "little finger": ((17, 18, 19, 20),),
}
LINES = {FACE: _FACE_LINES, HAND: _HAND_LINES}

# Points whose paths are drawn: those of all 478 would hide the picture.
SHOWN = {FACE: (10, 234, 454, 152, 172, 397, 70, 107, 336, 300, 33, 133, 362, 263, 1, 64, 294, 61, 291, 0, 17),
         HAND: tuple(range(21))}


def regions(kind: str) -> dict[str, tuple[int, ...]]:
    """The regions of a face or hand: name -> its points, each point in one region (the cheeks in none)."""
    taken: set[int] = set()
    found = {}
    for name, lines in LINES[kind].items():
        found[name] = tuple(sorted(set(itertools.chain(*lines)) - taken))
        taken |= set(found[name])
    return found


def region_of(kind: str, point: int) -> str:
    """The name of the region that a point belongs to, "" for the cheeks and forehead."""
    return next((name for name, points in regions(kind).items() if point in points), "")
