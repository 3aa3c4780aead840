"""Paths over the picture: one still, and frames of an animation.

Start of the exposure blue, its end orange (told apart by every kind of colour vision); grey where there is no
direction, dashed where it may differ from that of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hypercut_core.trajectories.ambiguity import DIRECTED, STILL
from hypercut_core.trajectories.anatomy import LINES, SHOWN
from hypercut_core.trajectories.paths import Track, Trajectories

SMALLEST, LARGEST = 720, 1280  # longest side of what is drawn, px
START, END = (0, 114, 178), (240, 160, 20)
GREY, MESH = (190, 190, 190), (255, 255, 255)
FINE = 8  # pieces that a path is drawn in between two moments
BAND = 40  # px below the still, for what the colours mean
Colour = tuple[int, int, int]


def draw_still(frame: np.ndarray, paths: Trajectories) -> np.ndarray:
    """The middle frame, uint8 ``[H, W, 3]``, with all paths over it and a line that says what the colours mean."""
    picture, zoom = _enlarged(frame)
    picture = Image.blend(picture, picture.convert("L").convert("RGB"), 0.6).point(lambda value: value * 0.75)
    draw = ImageDraw.Draw(picture, "RGBA")
    middle = len(paths.moments) // 2
    for track in paths.tracks:
        _mesh(draw, track.points[middle] * zoom, paths.kind, 110)
        for point in SHOWN[paths.kind]:
            _path(draw, track, point, zoom, len(paths.moments), 3)
    canvas = Image.new("RGB", (picture.width, picture.height + BAND), "white")
    canvas.paste(picture, (0, 0))
    _legend(canvas, picture.height, paths)
    return np.asarray(canvas)


def draw_frames(frames: Iterator[np.ndarray], paths: Trajectories) -> Iterator[np.ndarray]:
    """Each moment's frame, uint8 ``[H, W, 3]``, with the landmarks and the way that they came."""
    for moment, frame in enumerate(frames):
        picture, zoom = _enlarged(frame)
        draw = ImageDraw.Draw(picture, "RGBA")
        for track in paths.tracks:
            _mesh(draw, track.points[moment] * zoom, paths.kind, 150)
            for point in SHOWN[paths.kind]:
                _path(draw, track, point, zoom, moment + 1, 2)
                x, y = track.points[moment, point] * zoom
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_between(moment / max(1, len(paths.moments) - 1)))
        yield np.asarray(picture)


def _enlarged(frame: np.ndarray) -> tuple[Image.Image, float]:
    """The frame at a size at which paths of a few pixels can be seen, and its scale."""
    longest = max(frame.shape[:2])
    zoom = min(max(1.0, SMALLEST / longest), LARGEST / longest)
    size = (max(1, round(frame.shape[1] * zoom)), max(1, round(frame.shape[0] * zoom)))
    return Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC), zoom


def _mesh(draw: ImageDraw.ImageDraw, points: np.ndarray, kind: str, strength: int) -> None:
    for lines in LINES[kind].values():
        for line in lines:
            draw.line([(float(x), float(y)) for x, y in points[list(line)]], fill=(*MESH, strength), width=1)


def _path(draw: ImageDraw.ImageDraw, track: Track, point: int, zoom: float, moments: int, width: int) -> None:
    """The first `moments` moments of one landmark's path."""
    mark = next((region.mark for region in track.regions if point in region.points), DIRECTED)
    way = track.points[:moments, point] * zoom
    pieces = np.linspace(0, moments - 1, FINE * (moments - 1) + 1)
    fine = np.stack([np.interp(pieces, np.arange(moments), way[:, axis]) for axis in (0, 1)], axis=1)
    whole = max(1, len(track.points) - 1)
    for index in range(len(fine) - 1):
        if mark not in (DIRECTED, STILL) and index // (FINE // 2) % 2:
            continue
        colour = GREY if mark == STILL else _between(pieces[index] / whole)
        ends = [(float(x), float(y)) for x, y in fine[index:index + 2]]
        draw.line(ends, fill=(*colour, 255), width=width)


def _between(share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(START, END, strict=True))
    return red, green, blue


def _legend(canvas: Image.Image, top: int, paths: Trajectories) -> None:
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(14)
    for x in range(80):
        draw.line((10 + x, top + 17, 10 + x, top + 23), fill=_between(x / 79))
    words = "start to end of the exposure"
    if paths.ambiguous:
        words += ", or end to start: blur does not tell"
    if any(region.mark not in (DIRECTED, STILL) for track in paths.tracks for region in track.regions):
        words += "; dashed: may differ"
    if any(region.mark == STILL for track in paths.tracks for region in track.regions):
        words += "; grey: still"
    draw.text((100, top + 11), words, fill="black", font=font)
