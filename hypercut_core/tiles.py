"""Tiles of a large photo: where they lie, in which direction each runs, and how they are blended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile

import numpy as np

Span = tuple[int, int]  # first pixel, one past the last


def cover(length: int, tile: int, overlap: int) -> list[Span]:
    """The fewest equal, evenly spread spans of at most `tile` pixels that share at least about `overlap`."""
    if length <= tile:
        return [(0, length)]
    count = -(-(length - overlap) // (tile - overlap))
    side = min(tile, -(-(length + (count - 1) * overlap) // count))
    starts = [(i * (length - side)) // (count - 1) for i in range(count)]
    return [(start, start + side) for start in starts]


@dataclass
class Tiles:
    """Finished tiles as uint8 [T, h, w, 3], one after the other in a spooled file."""

    file: SpooledTemporaryFile[bytes]
    rows: list[Span]
    columns: list[Span]

    def places(self) -> Iterator[tuple[int, Span, Span]]:
        for r, rows in enumerate(self.rows):
            for c, columns in enumerate(self.columns):
                yield r * len(self.columns) + c, rows, columns

    def read_frame(self, index: int, k: int, frames: int) -> np.ndarray:
        """Frame k of tile `index`; all tiles are of one size."""
        height, width = (spans[0][1] - spans[0][0] for spans in (self.rows, self.columns))
        size = height * width * 3
        self.file.seek((index * frames + k) * size)
        return np.frombuffer(self.file.read(size), np.uint8).reshape(height, width, 3)


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Inner product of the odd parts of two stacks [T, h, w, 3]: negative if one runs backwards."""
    total = 0.0
    for k in range(len(one) // 2):
        a = one[k].astype(np.float32) - one[-1 - k]
        b = other[k].astype(np.float32) - other[-1 - k]
        total += float(np.vdot(a, b))
    return total


def consistent_signs(agreements: list[tuple[int, int, float]], strength: np.ndarray) -> np.ndarray:
    """Signs that make neighbours agree: the strongest agreements first, then single tiles that still object.

    Args:
        agreements: (i, j, inner product of the odd parts where tiles i and j overlap).
        strength: energy of each tile's odd part; the heavier side of a flip keeps the model's own direction.

    Returns:
        int8 [n] of +1 (keep) and -1 (reverse).
    """
    signs = np.ones(len(strength), np.int8)
    group = np.arange(len(strength))
    for i, j, score in sorted(agreements, key=lambda edge: (-abs(edge[2]), edge[0], edge[1])):
        if group[i] == group[j]:
            continue  # settled by stronger agreements
        joined = group == group[j]
        if signs[i] * signs[j] * score < 0:
            signs[joined] *= -1
        group[joined] = group[i]
    _settle(agreements, signs)
    for name in np.unique(group):  # tiles without overlap stay as many groups
        members = group == name
        if float(signs[members] @ strength[members]) < 0:
            signs[members] *= -1
    return signs


def _settle(agreements: list[tuple[int, int, float]], signs: np.ndarray) -> None:
    """Flip single tiles while that makes the whole agree better (each flip gains, so this ends)."""
    for _ in range(len(signs)):
        pull = np.zeros(len(signs))
        for i, j, score in agreements:
            pull[i] += score * signs[i] * signs[j]
            pull[j] += score * signs[i] * signs[j]
        worst = int(pull.argmin())
        if pull[worst] >= 0:
            return
        signs[worst] *= -1


def _ramps(spans: list[Span], length: int) -> list[np.ndarray]:
    """One weight a pixel of each span: rises over the overlap, and all spans together add up to 1."""
    raw = []
    for index, (start, stop) in enumerate(spans):
        place = np.arange(stop - start, dtype=np.float64)
        weight = np.ones(stop - start)
        if index > 0:
            weight = np.minimum(weight, (place + 0.5) / max(spans[index - 1][1] - start, 1))
        if index + 1 < len(spans):
            shared = max(stop - spans[index + 1][0], 1)
            weight = np.minimum(weight, (stop - start - place - 0.5) / shared)
        raw.append(weight)
    total = np.zeros(length)
    for (start, stop), weight in zip(spans, raw, strict=True):
        total[start:stop] += weight
    return [(weight / total[start:stop]).astype(np.float32)
            for (start, stop), weight in zip(spans, raw, strict=True)]


def blend(tiles: Tiles, signs: np.ndarray, frames: int, response: str) -> np.ndarray:
    """Blend all tiles in linear light, frame by frame: uint8 [T, H, W, 3]."""
    import torch

    from hypercut_core.blur.exposure import from_linear, to_linear

    height, width = tiles.rows[-1][1], tiles.columns[-1][1]
    down, along = _ramps(tiles.rows, height), _ramps(tiles.columns, width)
    linear = to_linear(torch.arange(256) / 255.0, response).numpy().astype(np.float32)
    out = np.empty((frames, height, width, 3), np.uint8)
    for k in range(frames):
        light = np.zeros((height, width, 3), np.float32)
        for index, (top, bottom), (left, right) in tiles.places():
            source = k if signs[index] > 0 else frames - 1 - k
            weight = down[index // len(along)][:, None] * along[index % len(along)][None]
            light[top:bottom, left:right] += \
                linear[tiles.read_frame(index, source, frames)] * weight[..., None]
        for top in range(0, height, 256):
            part = from_linear(torch.from_numpy(light[top:top + 256]), response)
            out[k, top:top + 256] = (part.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return out
