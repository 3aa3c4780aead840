"""Captures as cameras give them: compressed videos, mirrors, lenses that bend, lost frames, kills, real footage."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from made_capture import Truth, capture, enlarge, photo_film, write_capture
from made_footage import pan, write_frames, write_video

from hypercut_core.blur.exposure import to_linear
from hypercut_core.clips.capture_fit import FitConfig
from hypercut_core.clips.captures import CaptureConfig, build_data_set
from hypercut_core.clips.frame_folder import scaled
from hypercut_core.clips.registration import mapped, positions
from hypercut_core.clips.store import ClipStore
from hypercut_core.clips.video import read_video
from hypercut_core.errors import BadFootage
from tests.conftest import Cli

pytestmark = pytest.mark.system


def corner_error(found: list[float], truth: Truth, size: tuple[int, int]) -> float:
    """Largest error of the homography, px of the blurry image."""
    at = positions(*size)
    both = mapped(torch.tensor(found, dtype=torch.float64), at) - mapped(truth.homography, at)
    return float((both * torch.tensor([size[1] / 2, size[0] / 2])).norm(dim=-1).max())


def test_three_scenes_on_the_command_line(tmp_path: Path, cli: Cli) -> None:
    """Compressed videos, sharp frames of twice the size, a mirror; then the steps that everybody uses."""
    size = (80, 104)
    truths = [Truth(), Truth(offset=14.5, rate=7.25, gamma=0.9), Truth(offset=4.75, mirrored=True)]
    for number, truth in enumerate(truths):
        blurry, sharp = capture(photo_film(seed=number, size=size), truth, 10)
        write_video(tmp_path / f"in/scene{number}/blurry.mp4", blurry, fps=20)
        write_video(tmp_path / f"in/scene{number}/sharp.mp4", enlarge(sharp, 2) if number == 1 else sharp, fps=150)
    done = cli("capture", tmp_path / "in", "-o", tmp_path / "out", "--min-psnr", 28, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "captured: " in done.stdout
    scenes = json.loads((tmp_path / "out/capture.json").read_text())["scenes"]
    for number, truth in enumerate(truths):
        found = scenes[f"scene{number}"]
        assert found["offset"] + 5 * found["rate"] == pytest.approx(truth.offset + 5 * truth.rate, abs=0.25)
        assert found["rate"] == pytest.approx(truth.rate, abs=0.03)
        assert found["mirrored"] == truth.mirrored
        assert corner_error(found["homography"], truth, size) < 1.0
        assert found["gamma"] == pytest.approx(truth.gamma, abs=0.08)
        assert np.abs(np.array(found["colour_matrix"]) - truth.matrix.numpy()).max() < 0.08
        assert found["clips"] >= 9
        assert found["psnr"]["rest"] > found["psnr"]["time"] + 10
    for words in (("describe", tmp_path / "out"), ("collect-footage", "--set", f"footage.source={tmp_path / 'out'}"),
                  ("synthesize-blur",)):
        step = cli(*words)
        assert step.returncode == 0, step.stderr
    store = ClipStore(tmp_path / "data/clips")
    assert {record.split for record in store.records} == {"train", "val", "test"}
    assert {record.blur for record in store.records} == {"captured"}


def test_a_lens_that_bends_is_straightened(tmp_path: Path) -> None:
    write_capture(tmp_path / "in", Truth(bulge=0.03), images=16)
    found = build_data_set(tmp_path / "in", tmp_path / "out", CaptureConfig(FitConfig(rate=7.5)))["scenes"]["in"]
    assert found["rest_px"] > 0.3
    assert found["psnr"]["rest"] > found["psnr"]["geometry"] + 0.5
    straight = build_data_set(tmp_path / "in", tmp_path / "straight", CaptureConfig(FitConfig(rate=7.5, field=False)))
    assert straight["scenes"]["in"]["rest_px"] is None
    assert straight["scenes"]["in"]["psnr"]["rest"] < found["psnr"]["rest"]


def test_clips_over_the_limit_and_lost_frames_are_counted(tmp_path: Path) -> None:
    folder = write_capture(tmp_path / "in", Truth(), images=14)
    start = round(Truth().offset + 7.5 * 6)
    lost = folder / f"sharp/{start + 2:08d}.png"
    lost.write_bytes(lost.read_bytes()[:1500])
    bad = sorted((folder / "blurry").iterdir())[9]
    picture = pan(0, 1, 0.0, 108, 144)[0]
    write_frames(folder / "blurry", [picture], 9)
    assert bad.name == "00000009.png"
    config = CaptureConfig(FitConfig(rate=7.5))
    found = build_data_set(folder, tmp_path / "out", config)["scenes"]["in"]
    assert found["left out"] == {"a sharp frame is missing": 1, "below the limit": 1}
    assert found["clips"] == 12
    taken = [entry["capture"]["image"] for entry in json.loads((tmp_path / "out/metadata.json").read_text())["data"]]
    assert taken == [image for image in range(14) if image not in (6, 9)]
    with pytest.raises(BadFootage, match=r"13 below the limit"):
        build_data_set(folder, tmp_path / "none", CaptureConfig(config.fit, min_psnr=90.0))
    assert not list(tmp_path.glob("*none*"))


def test_streams_that_do_not_belong_together(tmp_path: Path) -> None:
    write_capture(tmp_path / "a", Truth(), images=12, seed=3)
    write_capture(tmp_path / "b", Truth(), images=12, seed=4)
    (tmp_path / "mixed").mkdir()
    (tmp_path / "a/blurry").rename(tmp_path / "mixed/blurry")
    (tmp_path / "b/sharp").rename(tmp_path / "mixed/sharp")
    with pytest.raises(BadFootage, match=r"do not change alike|nothing|below the limit"):
        build_data_set(tmp_path / "mixed", tmp_path / "out", CaptureConfig(FitConfig(rate=7.5)))
    assert not (tmp_path / "out").exists()


def test_a_killed_capture_keeps_its_finished_scenes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_capture(tmp_path / "in" / name, Truth(), images=10, size=(80, 104), seed=len(name))
    config = CaptureConfig(FitConfig(rate=7.5, images=6))
    process = multiprocessing.get_context("fork").Process(target=build_data_set,
                                                          args=(tmp_path / "in", tmp_path / "out", config))
    process.start()
    done = tmp_path / ".out.partial-capture/one.done"
    while not done.is_file() and process.is_alive():
        time.sleep(0.005)
    process.kill()
    process.join()
    assert not (tmp_path / "out").exists()
    written = {path.name: path.stat().st_mtime_ns for path in done.parent.glob("one/*/*.png")}
    summary = build_data_set(tmp_path / "in", tmp_path / "out", config)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("one/*/*.png")} == written
    build_data_set(tmp_path / "in", tmp_path / "again", config)
    for file in (tmp_path / "again").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "out" / file.relative_to(tmp_path / "again")).read_bytes()
    assert summary["clips"] == 20
    assert not list(tmp_path.rglob("*.done"))


def test_real_footage_seen_by_a_second_camera(tmp_path: Path, real_footage: Path) -> None:
    """A real video is the sharp stream; the blurry one is made of it, through another geometry and other colours."""
    frames = [scaled(frame.pixels, 180) for frame in read_video(real_footage / "hand/opencv_cup.mp4", 360, [])][:130]
    light = to_linear(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255)
    truth = Truth(offset=6.0, rate=9.0)
    blurry, _ = capture(lambda time: light[min(len(light) - 1, int(time))], truth, 12)
    write_video(tmp_path / "in/blurry.mp4", blurry, fps=3)
    write_video(tmp_path / "in/sharp.mp4", frames, fps=27)
    found = build_data_set(tmp_path / "in", tmp_path / "out", CaptureConfig(FitConfig(height=180)))["scenes"]["in"]
    assert found["offset"] + 6 * found["rate"] == pytest.approx(truth.offset + 6 * truth.rate, abs=0.3)
    assert found["rate"] == pytest.approx(9.0, abs=0.05)
    assert corner_error(found["homography"], truth, (180, 240)) < 2.0
    assert found["psnr"]["rest"] > 34
    assert found["clips"] >= 11
