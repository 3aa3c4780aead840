"""Guidance that a person gives: strokes in a JSON file, or a picture painted over the photo.

**Strokes** are drawn in the direction of the motion. Coordinates are px of the photo, x to the right and y
downwards, or px of an image of `size` [width, height] that is scaled to the photo. Later entries cover earlier
ones; strokes cover regions::

    {"size": [1280, 720],
     "strokes": [{"points": [[100, 300], [400, 280]], "radius": 40}],
     "regions": [{"polygon": [[0, 0], [1280, 0], [1280, 200]], "towards": [0, 0]}],
     "elsewhere": "nearest"}

`towards` is any vector [right, down], [0, 0] for rest. `elsewhere` says what all other pixels do: "rest" (the
default), or "nearest": the same as the nearest stroke.

**A painted picture** has the photo's shape (it is scaled to it); each pixel's hue decides: red moves right and
down, yellow right and up, green left and down, blue left and up. What is grey, black, white, pale, dark or
transparent is at rest. `paint` makes such a picture of a map.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from hypercut_core.deblurring.guidance import DIRECTIONS, guidance_from_flow
from hypercut_core.errors import BadImage, BadParameters, StorageError
from hypercut_core.files import read_json
from hypercut_core.photos import load_photo

COLOURS = ((0, 0, 0), (255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 0, 255))  # in the order of DIRECTIONS
HUES = (0.0, 60.0, 120.0, 240.0)  # degrees, of the four directions
COLOURFUL, BRIGHT = 0.4, 0.25  # least saturation and value, 0..1, of a painted pixel
MAX_BYTES = 4 * 2**20
MAX_POINTS = 10_000  # in one file
GRID = 96  # cells of the longer side in which the nearest stroke is sought
SHAPE_TOLERANCE = 0.02  # how much a painted picture's width per height may differ from the photo's, as a share
_REMEDY = "see hypercut_core/deblurring/guidance_files.py for the form of such a file"


def read_guidance(path: str | os.PathLike[str], height: int, width: int) -> Tensor:
    """Read strokes (.json) or a painted picture (any other suffix) for a photo of `height` x `width` px.

    Returns:
        (1, 2, height, width), values -1, 0, 1.

    Raises:
        BadParameters: the strokes are malformed, or the picture has another shape than the photo.
        BadImage, StorageError: the file cannot be read.
    """
    if Path(path).suffix.lower() != ".json":
        return painted_guidance(load_photo(path), height, width, path)
    try:
        document = read_json(path, MAX_BYTES)
    except StorageError as error:
        raise StorageError(error.what, where=path, remedy=_REMEDY) from error
    return stroke_guidance(document, height, width, path)


def painted_guidance(pixels: np.ndarray, height: int, width: int,
                     where: str | os.PathLike[str] | None = None) -> Tensor:
    """Guidance (1, 2, height, width) of a painted picture, uint8 [h, w, 3].

    Raises:
        BadImage: no pixel is painted. BadParameters: the picture has another shape than the photo.
    """
    tall, wide = pixels.shape[:2]
    if abs(wide * height / (tall * width) - 1) > SHAPE_TOLERANCE:
        raise BadParameters(f"the painted picture is {wide} x {tall} px, the photo {width} x {height}", where=where,
                            remedy="paint over a copy of the photo itself, uncropped")
    colour = pixels.astype(np.float32)
    most, least = colour.max(-1), colour.min(-1)
    hue = _hue(colour, most, most - least)
    away = np.abs((hue[..., None] - np.array(HUES) + 180) % 360 - 180)
    classes = 1 + away.argmin(-1)
    classes[(most - least < COLOURFUL * most) | (most < 255 * BRIGHT)] = 0
    if not classes.any():
        raise BadImage("no pixel is painted: all are grey, pale, dark or transparent", where=where,
                       remedy="paint in red, yellow, green or blue, on transparent or black ground")
    shrunk = Image.fromarray(classes.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    return DIRECTIONS.guidance(torch.from_numpy(np.array(shrunk)).long())[None]


def paint(guidance: Tensor) -> np.ndarray:
    """A map (1, 2, H, W) or (2, H, W) as a painted picture, uint8 [H, W, 3]; `painted_guidance` reads it back."""
    classes = DIRECTIONS.classes(guidance).reshape(guidance.shape[-2:])
    return np.array(COLOURS, np.uint8)[classes.numpy()]


def stroke_guidance(document: Any, height: int, width: int,
                    where: str | os.PathLike[str] | None = None) -> Tensor:
    """Guidance (1, 2, height, width) of strokes and regions, see the module.

    Raises:
        BadParameters: the document has unknown keys, is mistyped, or says nothing.
    """
    read = _Strokes(document, height, width, where)
    classes = np.zeros((height, width), np.uint8)
    if read.elsewhere == "nearest" and read.segments:
        classes = _nearest(read.segments, height, width)
    canvas = Image.fromarray(classes)
    draw = ImageDraw.Draw(canvas)
    for corners, number in read.regions:
        draw.polygon(corners, fill=number)
    for start, end, radius, number in read.segments:
        draw.line([*min(start, end), *max(start, end)], fill=number, width=max(1, round(2 * radius)))
        for x, y in (start, end):
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=number)
    return DIRECTIONS.guidance(torch.from_numpy(np.array(canvas)).long())[None]


Point = tuple[float, float]
Segment = tuple[Point, Point, float, int]  # from, to, radius in px, class of the direction


class _Strokes:
    """A stroke document, checked, in px of the photo."""

    def __init__(self, document: Any, height: int, width: int, where: str | os.PathLike[str] | None):
        self.where, self.points = where, 0
        document = self._object(document, "the document", {"size", "strokes", "regions", "elsewhere"})
        size = self._numbers(document.get("size", [width, height]), "size", 2)
        if min(size) < 1:
            raise self._wrong("'size' is not positive")
        self.scale = (width / size[0], height / size[1])
        self.elsewhere = document.get("elsewhere", "rest")
        if self.elsewhere not in ("rest", "nearest"):
            raise self._wrong("'elsewhere' is neither \"rest\" nor \"nearest\"")
        strokes, regions = (self._list(document.get(key, []), key) for key in ("strokes", "regions"))
        self.segments = [segment for number, entry in enumerate(strokes)
                         for segment in self._stroke(entry, f"strokes[{number}]")]
        self.regions = [self._region(entry, f"regions[{number}]") for number, entry in enumerate(regions)]
        if not self.segments and not self.regions:
            raise self._wrong("there is neither a stroke nor a region")

    def _stroke(self, entry: Any, name: str) -> list[Segment]:
        entry = self._object(entry, name, {"points", "radius"})
        points = self._points(entry.get("points"), f"{name}.points", 2)
        radius = self._numbers([entry.get("radius", 20)], f"{name}.radius", 1)[0]
        if not 0 < radius <= 10_000:
            raise self._wrong(f"{name}.radius is not in 0 .. 10000")
        radius *= sum(self.scale) / 2
        return [(a, b, radius, number) for a, b in itertools.pairwise(points)
                if (number := _class(b[0] - a[0], b[1] - a[1]))]

    def _region(self, entry: Any, name: str) -> tuple[list[Point], int]:
        entry = self._object(entry, name, {"polygon", "towards"})
        return self._points(entry.get("polygon"), f"{name}.polygon", 3), \
            _class(*self._numbers(entry.get("towards"), f"{name}.towards", 2))

    def _points(self, value: Any, name: str, least: int) -> list[Point]:
        pairs = [self._numbers(pair, name, 2) for pair in self._list(value, name)]
        self.points += len(pairs)
        if len(pairs) < least or self.points > MAX_POINTS:
            raise self._wrong(f"{name} has fewer than {least} points, or the file more than {MAX_POINTS}")
        return [(x * self.scale[0], y * self.scale[1]) for x, y in pairs]

    def _numbers(self, value: Any, name: str, count: int) -> list[float]:
        if not isinstance(value, list) or len(value) != count or \
                not all(type(x) in (int, float) and abs(x) < 1e6 for x in value):
            raise self._wrong(f"{name} is not made of {count} plain numbers")
        return [float(x) for x in value]

    def _list(self, value: Any, name: str) -> list[Any]:
        if not isinstance(value, list):
            raise self._wrong(f"{name} is not a list")
        return value

    def _object(self, value: Any, name: str, known: set[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(f"{name} is not an object")
        if extra := sorted(set(value) - known):
            raise self._wrong(f"{name} has the unknown key '{extra[0]:.40}'")
        return value

    def _wrong(self, what: str) -> BadParameters:
        return BadParameters(f"the strokes cannot be used: {what}", where=self.where, remedy=_REMEDY)


def _class(right: float, down: float) -> int:
    flow = torch.tensor([right, down]).view(2, 1, 1)
    return int(DIRECTIONS.classes(guidance_from_flow(flow, static=0.0)))


def _nearest(segments: list[Segment], height: int, width: int) -> np.ndarray:
    """Class of the nearest segment, (height, width) uint8, found on a coarse grid."""
    cell = max(1.0, max(height, width) / GRID)
    rows, columns = max(1, round(height / cell)), max(1, round(width / cell))
    x = (np.arange(columns) + 0.5) * width / columns
    y = ((np.arange(rows) + 0.5) * height / rows)[:, None]
    best, found = np.full((rows, columns), np.inf), np.zeros((rows, columns), np.uint8)
    for (ax, ay), (bx, by), _, number in segments:
        along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
        along = along.clip(0, 1)
        far = (x - ax - along * (bx - ax)) ** 2 + (y - ay - along * (by - ay)) ** 2
        found[far < best] = number
        best = np.minimum(best, far)
    return np.array(Image.fromarray(found).resize((width, height), Image.Resampling.NEAREST))


def _hue(colour: np.ndarray, most: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Hue in degrees of (H, W, 3) float values; 0 where there is no colour."""
    red, green, blue = np.moveaxis(colour, -1, 0)
    spread = np.maximum(spread, 1e-6)
    hue = np.where(most == red, (green - blue) / spread,
                   np.where(most == green, 2 + (blue - red) / spread, 4 + (red - green) / spread))
    return 60 * hue % 360
