"""Frames as film strips: one still picture with all frames under each other, moved by the style sheet.

Unlike an animated image, strips play in step with each other, stop, and show any single frame.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np

LARGEST_SIDE = 256  # px; larger clips are shown smaller, so that a report stays within a few megabytes
SMALL = 96  # px; clips up to this are enlarged with their pixels visible
QUALITY = 90  # of the lossy WebP pictures


def shrink(frames: np.ndarray, side: int = LARGEST_SIDE) -> np.ndarray:
    """uint8 `[T, H, W, 3]` scaled down so that no side is above `side`; smaller frames as they are."""
    from PIL import Image

    height, width = frames.shape[1:3]
    scale = side / max(height, width)
    if scale >= 1:
        return frames
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
                     for frame in frames])


def strip(frames: np.ndarray) -> str:
    """uint8 `[T, H, W, 3]` as the data URI of one picture of T * H rows."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(stream, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def panel(label: str, frames: np.ndarray, about: str) -> str:
    """One picture (a single frame) or film (several) under its label; `about` says which clip it shows."""
    frames = shrink(frames)
    height, width = frames.shape[1:3]
    film = "film moving" if len(frames) > 1 else "film"
    sharp = ' class="small-pixels"' if max(frames.shape[1:3]) <= SMALL else ""
    return (f'<div class="panel"><span title="{escape(label)}">{escape(label)}</span>'
            f'<div class="{film}" style="--frames:{len(frames)};aspect-ratio:{width}/{height}">'
            f'<img{sharp} src="{strip(frames)}" width="{width}" height="{height * len(frames)}" '
            f'alt="{escape(about)}: {escape(label)}"></div></div>')


def panels(blurry: np.ndarray, films: Sequence[tuple[str, np.ndarray]], about: str) -> str:
    """The blurry image beside films that play together."""
    many = " many" if len(films) > 2 else ""
    parts = [panel("blurry", blurry[None], about), *(panel(label, frames, about) for label, frames in films)]
    return f'<div class="strip{many}">{"".join(parts)}</div>'


def player(frames: int) -> str:
    """The control for all films of the page; appears only where scripts run."""
    return (f'<div class="player" role="group" aria-label="All films"><button type="button">Pause</button>'
            f'<input type="range" min="1" max="{frames}" value="1" step="1" aria-label="Frame">'
            f'<output>frame 1 of {frames}</output></div>')
