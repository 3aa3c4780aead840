"""Folders of frames: images of one size, in natural order of their names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from hypercut_core.clips.video import MAX_PIXELS, Damage, Frame, Probe
from hypercut_core.errors import BadFootage, BadImage
from hypercut_core.photos import load_photo

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
FEWEST = 3  # images that make a folder of frames


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key with numbers in their own order: frame2 before frame10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part)
            for part in re.split(r"([0-9]+)", name) if part]


def frame_files(folder: Path) -> list[Path]:
    """Images of a folder, in natural order; hidden files and other types are passed over."""
    files = [file for file in folder.iterdir()
             if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()]
    return sorted(files, key=lambda file: (natural_key(file.name), file.name))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height from the header, nothing decoded.

    Raises:
        BadFootage: no image, or too large to be decoded safely.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except Exception as error:  # hostile bytes make decoders fail in any way
        raise BadFootage("the file cannot be read as an image", where=path,
                         remedy="copy it again from where it came from, or remove it") from error
    if width * height > MAX_PIXELS:
        raise BadFootage(f"the image claims {width} x {height} pixels, at most {MAX_PIXELS:,} are decoded "
                         "safely", where=path, remedy="scale it down with another program, or remove it")
    return width, height


def probe_frames(folder: Path) -> Probe:
    """Sizes of all frames from their headers.

    Raises:
        BadFootage: fewer than three frames, frames of several sizes, or a file that is no image.
    """
    files = frame_files(folder)
    if len(files) < FEWEST:
        raise BadFootage(f"the folder holds {len(files)} frames", where=folder,
                         remedy=f"put at least {FEWEST} consecutive frames in it, or remove it")
    width, height = image_size(files[0])
    for file in files[1:]:
        size = image_size(file)
        if size != (width, height):
            raise BadFootage(f"the folder mixes sizes: {files[0].name} is {width} x {height}, {file.name} is "
                             f"{size[0]} x {size[1]}", where=folder,
                             remedy="keep one sequence a folder, all frames of one size")
    names = [file.name for file in files]
    gaps = [f"frames are missing between {names[place - 1]} and {names[place]}"
            for place in gaps_before(files)]
    return Probe(width, height, len(files), None, tuple(gaps))


def read_frames(folder: Path, height: int, damage: list[Damage]) -> Iterator[Frame]:
    """Yield a folder's frames, scaled down to `height` px (0: as they are; never scaled up).

    A frame that cannot be decoded is left out and appended to `damage`; the next one has `broken` set. The
    same where the numbers in the file names jump.
    """
    files = frame_files(folder)
    gaps = set(gaps_before(files))
    hole = ""
    for index, file in enumerate(files):
        if index in gaps:
            hole = hole or "missing_frames"
        try:
            pixels = load_photo(file, MAX_PIXELS)
        except BadImage as error:
            damage.append(Damage(str(folder), file.name, error.what))
            hole = "corrupt_frames"
            continue
        yield Frame(scaled(pixels, height), index, None, hole)
        hole = ""


def scaled(pixels: np.ndarray, height: int) -> np.ndarray:
    """Bring (H, W, 3) uint8 down to `height` rows; 0 or fewer rows already: unchanged."""
    if not height or pixels.shape[0] <= height:
        return pixels
    width = max(1, round(pixels.shape[1] * height / pixels.shape[0]))
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def gaps_before(files: list[Path]) -> list[int]:
    """Places of files whose number jumps by more than the folder's usual step."""
    numbers = [int(found[-1]) if (found := re.findall(r"[0-9]+", file.stem)) else 0 for file in files]
    steps = [second - first for first, second in itertools.pairwise(numbers)]
    usual = max(1, sorted(steps)[len(steps) // 2]) if steps else 1
    return [place for place, step in enumerate(steps, start=1) if step > usual]
