"""Photos of any size: tiles agree on one direction, blend without a seam, and still re-blur to the photo."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from hypercut_core import restore as restore_module
from hypercut_core.blur.exposure import average, from_linear, to_linear
from hypercut_core.errors import BadCheckpoint, BadImage, BadParameters
from hypercut_core.restore import restore, restore_command
from hypercut_core.tiles import agreement, consistent_signs, cover

T = 7


class StubDeblurrer(nn.Module):
    """Shifts the photo sideways, frame by frame, about an exact re-blur; `fickle` reverses tiles at will."""

    frames, response = T, "srgb"

    def __init__(self, fickle: bool = False):
        super().__init__()
        self.fickle = fickle
        self.sizes: list[tuple[int, int]] = []

    def forward(self, blurry: Tensor) -> Tensor:
        assert blurry.dtype == torch.float32
        assert 0 <= float(blurry.min()) <= float(blurry.max()) <= 1
        self.sizes.append((blurry.shape[2], blurry.shape[3]))
        linear = to_linear(blurry)
        slope = nn.functional.pad(linear, (1, 1, 0, 0), mode="replicate")
        slope = (slope[..., 2:] - slope[..., :-2]) / 2
        moved = torch.stack([linear + (k - T // 2) * slope / 4 for k in range(T)], 1)
        if self.fickle and int(blurry[0, :, 3, 5].mul(255).sum()) % 2:
            moved = moved.flip(1)
        return from_linear(moved)


def photo(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [128 + 50 * np.sin(x / 9 + c) + 40 * np.cos(y / 7 + x / 23 - c) for c in range(3)]
    return np.stack(waves, 2).round().astype(np.uint8)


def test_small_photos_are_restored_whole() -> None:
    model = StubDeblurrer()
    result = restore(model, photo(61, 97), tile=128)
    assert result.shape == (T, 61, 97, 3)
    assert result.dtype == np.uint8
    assert model.sizes == [(61, 97)]


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (50, 2), (31, 33)])
def test_tiny_photos(size: tuple[int, int]) -> None:
    assert restore(StubDeblurrer(), photo(*size)).shape == (T, *size, 3)


@pytest.mark.parametrize("size", [(300, 211), (70, 600), (601, 65), (129, 128)])
def test_tiles_give_what_the_whole_image_gives(size: tuple[int, int]) -> None:
    model = StubDeblurrer()
    tiled = restore(model, photo(*size), tile=128, overlap=24).astype(int)
    assert len(model.sizes) > 1
    assert max(max(size) for size in model.sizes) <= 128
    whole = restore(model, photo(*size), tile=1024).astype(int)
    assert np.abs(tiled - whole).max() <= 2  # the stub sees one pixel around; blending hides the rest


@pytest.mark.parametrize("size", [(300, 211), (400, 400), (100, 700)])
def test_fickle_tiles_are_turned_the_same_way(size: tuple[int, int]) -> None:
    tiled = restore(StubDeblurrer(fickle=True), photo(*size), tile=128, overlap=24).astype(int)
    whole = restore(StubDeblurrer(), photo(*size), tile=1024).astype(int)
    assert min(np.abs(tiled - whole).max(), np.abs(tiled[::-1] - whole).max()) <= 2


@pytest.mark.parametrize("tile", [96, 1024])
def test_result_reblurs_to_the_photo(tile: int) -> None:
    blurry = photo(250, 190)
    result = restore(StubDeblurrer(fickle=True), blurry, tile=tile, overlap=16)
    frames = torch.from_numpy(result).permute(0, 3, 1, 2).float() / 255
    error = to_linear(average(frames)) - to_linear(torch.from_numpy(blurry).permute(2, 0, 1).float() / 255)
    assert -10 * torch.log10(error.square().mean()) > 55  # eight-bit frames; the floats behind them are exact


@given(length=st.integers(1, 5000), tile=st.integers(64, 600), quarter=st.integers(0, 4))
def test_spans_cover_every_pixel_with_enough_overlap(length: int, tile: int, quarter: int) -> None:
    overlap = tile * quarter // 16
    spans = cover(length, tile, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert len({stop - start for start, stop in spans}) == 1
    assert spans[0][1] - spans[0][0] <= tile
    for (_, stop), (start, _) in pairwise(spans):
        assert stop - start >= max(overlap - 1, 0)


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_signs_are_recovered_up_to_one_flip_in_spite_of_weak_disagreement(
        rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = rng.choice([-1, 1], rows * columns)
    edges = []
    for i in range(rows * columns):
        for j in ([i + 1] if (i + 1) % columns else []) + ([i + columns] if i + columns < len(true) else []):
            edges.append((i, j, float(true[i] * true[j]) * rng.uniform(0.5, 1)))
    if len(edges) > len(true):  # there are loops: one weak wrong voice is outvoted
        i, j, score = edges[0]
        edges[0] = (i, j, -0.01 * score)
    strength = rng.uniform(1, 2, len(true))
    signs = consistent_signs(edges, strength)
    assert abs(int(signs @ true)) == len(true)
    assert float(signs @ strength) >= 0  # the heavier side keeps the model's own direction


def test_agreement_is_negative_for_a_reversed_copy() -> None:
    frames = restore(StubDeblurrer(), photo(40, 40))
    assert agreement(frames, frames) > 0
    assert agreement(frames, frames[::-1]) == -agreement(frames, frames)


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8),
                                 np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_that_are_no_photo_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(BadImage, match="uint8"):
        restore(StubDeblurrer(), bad)


def test_unfitting_tiles_and_broken_weights_are_refused() -> None:
    with pytest.raises(BadParameters, match="overlap"):
        restore(StubDeblurrer(), photo(300, 300), tile=128, overlap=100)

    class Broken(StubDeblurrer):
        def forward(self, blurry: Tensor) -> Tensor:
            return super().forward(blurry) * float("nan")

    with pytest.raises(BadCheckpoint, match="not finite"):
        restore(Broken(), photo(30, 30))


def test_large_photos_wait_on_disk_and_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    blurry = photo(700, 600)
    monkeypatch.setattr(restore_module, "MEMORY_FOR_TILES", 2**16)
    tracemalloc.start()
    result = restore(StubDeblurrer(), blurry, tile=128, overlap=16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rows_of_tiles = 2 * result.nbytes * 128 / 700
    assert peak < result.nbytes + 4 * blurry.nbytes + rows_of_tiles + 4e6


def test_command_reads_restores_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("hypercut_core.deblurring.models")
    monkeypatch.setattr(models, "load_deblurrer", lambda path, views: StubDeblurrer())
    Image.fromarray(photo(45, 67)).save(tmp_path / "in.png")
    out = restore_command(tmp_path / "in.png", tmp_path / "out", tmp_path / "model", frames=13, reverse=True)
    assert len(list(out.glob("*.png"))) == 13
    last = np.asarray(Image.open(out / "frame_0013.png"))
    np.testing.assert_array_equal(last, restore(StubDeblurrer(), photo(45, 67))[0])


def test_command_refuses_the_output_before_it_loads_anything(tmp_path: Path) -> None:
    with pytest.raises(BadParameters, match=r"\.avi"):
        restore_command(tmp_path / "none.png", tmp_path / "out.avi", tmp_path / "none")
