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
ROOM = 0.25  # round the tracks, as a share of their extent
FINE = 8  # pieces that a path is drawn in between two moments
BAND = 40  # px below the still, for what the colours mean
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]


def draw_still(frame: np.ndarray, paths: Trajectories) -> np.ndarray:
    """The middle frame, uint8 ``[H, W, 3]``, with all paths over it and a line that says what the colours mean."""
    picture, zoom, corner = _enlarged(frame, view(paths))
    picture = Image.blend(picture, picture.convert("L").convert("RGB"), 0.6).point(lambda value: value * 0.75)
    draw = ImageDraw.Draw(picture, "RGBA")
    middle = len(paths.moments) // 2
    for track in paths.tracks:
        points = (track.points - corner) * zoom
        _mesh(draw, points[middle], paths.kind, 110)
        for point in SHOWN[paths.kind]:
            _path(draw, points[:, point], _mark(track, point), len(points), 3)
    canvas = Image.new("RGB", (picture.width, picture.height + BAND), "white")
    canvas.paste(picture, (0, 0))
    _legend(canvas, picture.height, paths)
    return np.asarray(canvas)


def draw_frames(frames: Iterator[np.ndarray], paths: Trajectories) -> Iterator[np.ndarray]:
    """Each moment's frame, uint8 ``[H, W, 3]``, with the landmarks and the way that they came."""
    box = view(paths)
    for moment, frame in enumerate(frames):
        picture, zoom, corner = _enlarged(frame, box)
        draw = ImageDraw.Draw(picture, "RGBA")
        for track in paths.tracks:
            points = (track.points - corner) * zoom
            _mesh(draw, points[moment], paths.kind, 150)
            for point in SHOWN[paths.kind]:
                _path(draw, points[:, point], _mark(track, point), moment + 1, 2)
                x, y = (float(value) for value in points[moment, point])
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_between(moment / max(1, len(points) - 1)))
        yield np.asarray(picture)


def view(paths: Trajectories) -> Box:
    """The part of the picture about all tracks, with some room round them: left, top, right, bottom, px."""
    width, height = paths.size
    ends = np.concatenate([track.points.reshape(-1, 2) for track in paths.tracks] or [np.array([[0, 0], paths.size])])
    low, high = ends.min(axis=0), ends.max(axis=0)
    room = ROOM * float((high - low).max())
    left, top = (max(0, int(value - room)) for value in low)
    right, bottom = (int(np.ceil(value + room)) for value in high)
    right, bottom = min(width, right), min(height, bottom)
    return (left, top, right, bottom) if right - left >= 16 and bottom - top >= 16 else (0, 0, width, height)


def _enlarged(frame: np.ndarray, box: Box) -> tuple[Image.Image, float, np.ndarray]:
    """The frame inside the box at a size at which paths of a few pixels can be seen, its scale and its corner."""
    left, top, right, bottom = box
    longest = max(right - left, bottom - top)
    zoom = min(max(1.0, SMALLEST / longest), LARGEST / longest)
    size = (max(1, round((right - left) * zoom)), max(1, round((bottom - top) * zoom)))
    shown = Image.fromarray(np.ascontiguousarray(frame[top:bottom, left:right]))
    return shown.resize(size, Image.Resampling.BICUBIC), zoom, np.array([left, top])


def _mark(track: Track, point: int) -> str:
    return next((region.mark for region in track.regions if point in region.points), DIRECTED)


def _mesh(draw: ImageDraw.ImageDraw, points: np.ndarray, kind: str, strength: int) -> None:
    for lines in LINES[kind].values():
        for line in lines:
            draw.line([(float(x), float(y)) for x, y in points[list(line)]], fill=(*MESH, strength), width=1)


def _path(draw: ImageDraw.ImageDraw, path: np.ndarray, mark: str, moments: int, width: int) -> None:
    """The first `moments` moments of one landmark's path ``[M, 2]``, px of the drawing."""
    pieces = np.linspace(0, moments - 1, FINE * (moments - 1) + 1)
    fine = np.stack([np.interp(pieces, np.arange(moments), path[:moments, axis]) for axis in (0, 1)], axis=1)
    whole = max(1, len(path) - 1)
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
        words += "; dashed: uncertain"
    if any(region.mark == STILL for track in paths.tracks for region in track.regions):
        words += "; grey: still"
    draw.text((100, top + 11), words, fill="black", font=font)
