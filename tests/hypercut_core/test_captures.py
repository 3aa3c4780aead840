"""Matching two cameras: each part against a known answer, and a small capture from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_capture import Truth, write_capture
from made_footage import pan, write_frames

from hypercut_core.clips import layouts
from hypercut_core.clips.capture_fit import FitConfig
from hypercut_core.clips.capture_streams import find_scenes, mirrored_thumbs
from hypercut_core.clips.captures import CaptureConfig, build_data_set, partitions
from hypercut_core.clips.colour_match import Kind, find_colours
from hypercut_core.clips.photos import load_photo_linear
from hypercut_core.clips.registration import (
    covered,
    find_field,
    find_homography,
    identity,
    inside,
    mapped,
    positions,
    sample,
    source_positions,
)
from hypercut_core.clips.synchronise import Timing, coarse_timing, line_through, refined_start, windows_of
from hypercut_core.errors import BadFootage, BadParameters, StorageError


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0, 1))
def test_windows_are_means_and_fractions_lie_between(seed: int, length: int, part: float) -> None:
    series = np.random.default_rng(seed).normal(size=(14, 3))
    starts = np.arange(14 - length)
    whole = windows_of(series, starts.astype(float), length)
    assert whole == pytest.approx(np.stack([series[s:s + length].mean(0) for s in starts]))
    between = windows_of(series, starts[:-1] + part, length)
    assert between == pytest.approx((1 - part) * whole[:-1] + part * whole[1:])
    assert windows_of(series, np.array([14.0 - length]), length)[0] == pytest.approx(series[14 - length:].mean(0))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 60), st.sampled_from([4.0, 7.0, 7.5, 10.3]), st.floats(-0.015, 0.015))
def test_offset_and_rate_are_found_from_small_pictures(seed: int, offset: float, guess: float, wrong: float) -> None:
    rng = np.random.default_rng(seed)
    rate, images = guess * (1 + wrong), 40
    smooth = np.cumsum(rng.normal(size=(int(offset + rate * images) + 30, 24)), axis=0) * 0.05
    blurry = 0.7 * windows_of(smooth, offset + rate * np.arange(images), 7) + 0.1  # another gain and offset
    found, correlation = coarse_timing(blurry, smooth, 7, guess)
    assert correlation > 0.95
    for image in (0, images - 1):
        assert found.start(image) == pytest.approx(offset + rate * image, abs=2.0)


def test_streams_of_different_things_do_not_correlate() -> None:
    rng = np.random.default_rng(0)
    one, other = (np.cumsum(rng.normal(size=(200, 24)), axis=0) for _ in range(2))
    assert coarse_timing(windows_of(one, 7.0 * np.arange(25), 7), other, 7, 7.0)[1] < 0.6


def test_a_start_is_refined_to_a_part_of_a_frame() -> None:
    assert refined_start(lambda at: (at - 5.37) ** 2 + 0.1, 4.2)[0] == pytest.approx(5.37, abs=1e-6)
    at, sure = refined_start(lambda at: 1.0, 4.2)
    assert (at, sure) == (pytest.approx(2.2), 0.0)
    assert refined_start(lambda at: float("nan"), 4.2) == (4.2, 0.0)


def test_the_line_ignores_what_is_far_off_and_what_says_nothing() -> None:
    images = np.arange(12)
    starts = 3.3 + 7.02 * images
    starts[4], starts[7] = 90.0, -5.0
    weights = np.ones(12)
    weights[7] = 0.0
    found = line_through(images, starts, weights, Timing(3.0, 7.0))
    assert (found.offset, found.rate) == (pytest.approx(3.3, abs=0.05), pytest.approx(7.02, abs=0.01))
    before = Timing(1.0, 2.0)
    assert line_through(images, starts, np.zeros(12), before) == before


def photo(size: tuple[int, int]) -> torch.Tensor:
    return sample(load_photo_linear("skimage/coffee.png")[None], positions(*size) * 0.9)[0].mean(0, keepdim=True)


@settings(max_examples=3, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8), st.floats(0.5, 1.5), st.floats(-0.05, 0.05))
def test_a_homography_is_found_again(numbers: list[float], gain: float, offset: float) -> None:
    spread = torch.tensor([0.08, 0.05, 0.1, 0.05, 0.08, 0.1, 0.02, 0.02], dtype=torch.float64)
    truth = identity() + spread * torch.tensor(numbers, dtype=torch.float64)
    sharp = photo((100, 140))
    at = positions(90, 120)  # the two pictures may be of different sizes
    blurry = gain * sample(sharp[None], mapped(truth, at), "bicubic")[0] + offset
    found = find_homography([(blurry, sharp)])
    seen = inside(mapped(truth, at))
    error = (mapped(found, at) - mapped(truth, at))[seen] * torch.tensor([70, 50])
    assert float(error.norm(dim=-1).max()) < 0.3  # px


def test_a_smooth_rest_is_found() -> None:
    at = positions(90, 120)
    bent = at * (1 + 0.02 * at.square().sum(-1, keepdim=True))
    sharp = photo((120, 160))
    truth = identity() * torch.tensor([0.85, 1, 1, 1, 0.85, 1, 1, 1], dtype=torch.float64)
    blurry = sample(sharp[None], mapped(truth, bent), "bicubic")[0]
    field = find_field([(blurry, sharp)], truth)
    before, after = ((source_positions(truth, one, 90, 120) - mapped(truth, bent))
                     * torch.tensor([80, 60]) for one in (None, field))
    assert float(after.norm(dim=-1).mean()) < 0.35 * float(before.norm(dim=-1).mean())
    none = find_field([(sample(sharp[None], mapped(truth, at), "bicubic")[0], sharp)], truth)
    assert float(none.abs().max()) < 0.002


@pytest.mark.parametrize("kind", ["gain", "matrix"])
def test_colours_are_found_again(kind: Kind) -> None:
    rng = torch.Generator().manual_seed(0)
    frames = torch.rand(5, 4000, 3, generator=rng).double()
    matrix = torch.diag(torch.tensor([0.8, 0.6, 0.9], dtype=torch.float64))
    if kind == "matrix":
        matrix = matrix + torch.tensor([[0, 0.05, 0], [0.03, 0, 0.02], [0, 0.06, 0]], dtype=torch.float64)
    offset = torch.tensor([0.01, 0.0, 0.02], dtype=torch.float64)
    target = (frames**1.3).mean(0) @ matrix + offset
    target[:200] += 0.3  # what moved away, for one camera only
    found = find_colours(lambda gamma: (frames**gamma).mean(0), target, kind)
    assert found.gamma == pytest.approx(1.3, abs=0.02)
    assert torch.allclose(found.matrix, matrix, atol=0.02)
    assert torch.allclose(found.offset, offset, atol=0.01)
    assert torch.equal(find_colours(lambda gamma: frames[0], target, "none")(frames), frames)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-0.2, 0.2), min_size=8, max_size=8))
def test_the_common_part_is_covered(numbers: list[float]) -> None:
    there = mapped(identity() + torch.tensor(numbers, dtype=torch.float64), positions(60, 80))
    rows, columns = covered(there)
    assert (rows.stop - rows.start) % 2 == (columns.stop - columns.start) % 2 == 0
    assert bool(inside(there[rows, columns]).all()) or min(rows.stop - rows.start, columns.stop - columns.start) <= 2


def test_a_mirrored_thumb_is_mirrored() -> None:
    thumbs = np.arange(2 * 96.0).reshape(2, 96)
    assert mirrored_thumbs(thumbs)[0, :12].tolist() == list(range(11, -1, -1))
    assert np.array_equal(mirrored_thumbs(mirrored_thumbs(thumbs)), thumbs)


def test_partitions_depend_on_names_alone() -> None:
    names = [f"scene{number}" for number in range(10)]
    found = partitions(names)
    assert partitions(names[::-1]) == found
    assert sorted(found.values()) == ["test"] * 2 + ["train"] * 7 + ["val"]
    assert set(partitions(["a", "b"]).values()) == {"train"}
    assert set(partitions(["a", "b", "c"]).values()) == {"train", "val", "test"}


def test_scenes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadFootage, match="no such folder"):
        find_scenes(tmp_path / "none")
    with pytest.raises(BadFootage, match="no capture here"):
        find_scenes(tmp_path)
    frames = pan(0, 3, 1.0, 32, 32)
    write_frames(tmp_path / "a/blurry", frames)
    with pytest.raises(BadFootage, match="0 streams named 'sharp'"):
        find_scenes(tmp_path)
    write_frames(tmp_path / "a/sharp", frames)
    (tmp_path / "a/sharp.mp4").write_bytes(b"x")
    with pytest.raises(BadFootage, match="2 streams named 'sharp'"):
        find_scenes(tmp_path)
    (tmp_path / "a/sharp.mp4").unlink()
    for folder in (tmp_path, tmp_path / "a"):
        assert [scene.name for scene in find_scenes(folder)] == ["a"]


@pytest.mark.parametrize("config", [
    CaptureConfig(FitConfig(frames=6)), CaptureConfig(FitConfig(rate=-1.0)), CaptureConfig(FitConfig(rate=0.5)),
    CaptureConfig(min_psnr=float("nan")), CaptureConfig(height=-3)])
def test_settings_that_make_no_sense(tmp_path: Path, config: CaptureConfig) -> None:
    with pytest.raises(BadParameters):
        build_data_set(tmp_path, tmp_path / "out", config)


def test_a_capture_becomes_a_data_set(tmp_path: Path) -> None:
    truth = Truth()
    write_capture(tmp_path / "in/kitchen", truth, images=10, size=(80, 104))
    config = CaptureConfig(FitConfig(rate=7.5, images=6), min_psnr=33.0)
    summary = build_data_set(tmp_path / "in", tmp_path / "out", config)
    found = summary["scenes"]["kitchen"]
    assert found["offset"] == pytest.approx(truth.offset, abs=0.15)
    assert found["rate"] == pytest.approx(truth.rate, abs=0.02)
    at = positions(80, 104)
    error = (mapped(torch.tensor(found["homography"], dtype=torch.float64), at) - mapped(truth.homography, at)) \
        * torch.tensor([52, 40])
    assert float(error.norm(dim=-1).max()) < 0.6  # px, at the corners
    assert not found["mirrored"]
    psnr = found["psnr"]
    assert list(psnr) == ["time", "colour", "geometry", "rest"]
    assert psnr["time"] < psnr["colour"] < psnr["geometry"] <= psnr["rest"] + 0.05
    assert psnr["rest"] > 36
    clips = list(layouts.read(tmp_path / "out", "rb2v", 7))
    assert len(clips) == summary["clips"] == 10
    pixels = clips[0].load()
    response, explained = layouts.measured_response(pixels)
    assert response in ("srgb", "gamma2.2")  # which are much alike
    assert explained > 36
    entry = json.loads((tmp_path / "out/metadata.json").read_text())["data"][0]
    assert entry["order"] == "random"
    assert entry["capture"]["first_sharp_frame"] == round(truth.offset)
    report = (tmp_path / "out/capture.html").read_text()
    assert report.count("data:image/webp") == 9  # three clips of three pictures
    assert "kitchen" in report
    written = json.loads((tmp_path / "out/capture.json").read_text())
    assert build_data_set(tmp_path / "in", tmp_path / "out", config) == written
    with pytest.raises(StorageError, match="already"):
        build_data_set(tmp_path / "in", tmp_path / "out")
