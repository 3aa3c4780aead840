"""Landmarks and their paths as SVG over a picture, for pages; coordinates are pixels of the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FINGERS = ((0, 1, 2, 3, 4), (0, 5, 6, 7, 8), (5, 9, 10, 11, 12), (9, 13, 14, 15, 16), (0, 17, 18, 19, 20), (13, 17))
OUTLINE = ((10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
            150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10),  # oval, eyes, lips of the face mesh
           (33, 160, 158, 133, 153, 144, 33), (362, 385, 387, 263, 373, 380, 362), (61, 0, 291, 17, 61))
FOLLOWED = {"hand": (0, 4, 8, 12, 16, 20), "face": (10, 152, 234, 454, 1, 33, 263, 61, 291)}  # whose paths are drawn
EARLY, LATE, ALONE = "#ffd54a", "#ff4d6d", "#36d7ff"


def paths_over(paths: Sequence[np.ndarray], kind: str, height: int, width: int) -> str:
    """Where faces or hands went: the first shape thin, the last one bold, and a line for some landmarks.

    Args:
        paths: [T, P, 2] each, nan in frames where it was not found; T = 1 draws a shape alone.
        kind: "face" or "hand".
        height, width: of the picture, px.
    """
    unit = max(height, width) / 256
    parts = []
    for path in paths:
        seen = path[np.isfinite(path[:, 0, 0])]
        if not len(seen):
            continue
        if len(path) == 1:
            parts.append(_shape(seen[0], kind, ALONE, 1.2 * unit))
            continue
        parts += [_shape(seen[0], kind, EARLY, 0.7 * unit), _shape(seen[-1], kind, LATE, 1.2 * unit)]
        for landmark in FOLLOWED[kind]:
            parts.append(_line(seen[:, landmark], "#fff", 2.6 * unit) + _line(seen[:, landmark], LATE, 1.4 * unit))
            parts.append(_dot(seen[-1, landmark], LATE, 1.9 * unit))
    return (f'<svg viewBox="0 0 {width} {height}" aria-hidden="true" '
            f'style="position:absolute;inset:0;width:100%;height:100%">{"".join(parts)}</svg>')


def _shape(points: np.ndarray, kind: str, colour: str, width: float) -> str:
    return "".join(_line(points[list(one)], colour, width) for one in (FINGERS if kind == "hand" else OUTLINE))


def _line(points: np.ndarray, colour: str, width: float) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="{width:.2f}" '
            'stroke-linejoin="round" stroke-linecap="round"/>')


def _dot(point: np.ndarray, colour: str, radius: float) -> str:
    return f'<circle cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{radius:.2f}" fill="{colour}"/>'
