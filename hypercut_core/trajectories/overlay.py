"""Landmarks and their paths as SVG over a picture, for pages; coordinates are pixels of the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hypercut_core.trajectories.anatomy import LINES
from hypercut_core.trajectories.drawing import END, START

FOLLOWED = {"hand": (0, 4, 8, 12, 16, 20), "face": (10, 152, 234, 454, 1, 33, 263, 61, 291)}  # whose paths are drawn
EARLY, LATE = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in (START, END))
ALONE = "#36d7ff"


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
    return "".join(_line(points[list(line)], colour, width) for lines in LINES[kind].values() for line in lines)


def _line(points: np.ndarray, colour: str, width: float) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="{width:.2f}" '
            'stroke-linejoin="round" stroke-linecap="round"/>')


def _dot(point: np.ndarray, colour: str, radius: float) -> str:
    return f'<circle cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{radius:.2f}" fill="{colour}"/>'
