"""validate-clips: each rule with a store that breaks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.validate_clips.step import ValidateClipsConfig, validate_clips
from hypercut_core.blur.exposure import ExposureConfig, expose
from hypercut_core.clips.store import ClipStoreWriter
from hypercut_core.errors import BadClipStore, DataRejected

T, SIDE = 7, 32
Clip = dict[str, Any]


def clips(response: str = "srgb", noise: float = 0.0) -> list[Clip]:
    """Nine clips of sliding noise, three a split, each of its own source, exposed as recorded."""
    made = []
    for i in range(9):
        rng = np.random.default_rng(i)
        wide = np.kron(rng.integers(0, 256, (8, 16, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        sharp = np.stack([wide[:SIDE, t:t + SIDE] for t in range(T)])
        blurry = expose(sharp, ExposureConfig(response=response, noise_read=noise), rng)  # type: ignore[arg-type]
        made.append({"frames": np.concatenate([blurry[None], sharp]), "clip_id": f"clip{i}",
                     "source": f"source{i}", "split": ("train", "val", "test")[i % 3],
                     "category": "noise", "motion": 6.0, "response": response, "noise": noise})
    return made


def judge(folder: Path, made: list[Clip], config: ValidateClipsConfig | None = None) -> dict[str, Any]:
    with ClipStoreWriter(folder / "clips", T) as writer:
        for clip in made:
            writer.add(**clip)
    return judge_store(folder, config)


def judge_store(folder: Path, config: ValidateClipsConfig | None = None) -> dict[str, Any]:
    validate_clips(folder / "clips", config or ValidateClipsConfig(), folder / "verdict.json",
                   folder / "verdict.html")
    return json.loads((folder / "verdict.json").read_text())


def refusal(folder: Path, made: list[Clip], config: ValidateClipsConfig | None = None) -> str:
    with pytest.raises(DataRejected) as caught:
        judge(folder, made, config)
    assert not json.loads((folder / "verdict.json").read_text())["passed"]
    assert "rejected" in (folder / "verdict.html").read_text()
    return str(caught.value)


@pytest.mark.parametrize("response", ["srgb", "gamma2.2", "none"])
def test_good_clips_are_accepted_and_described(tmp_path: Path, response: str) -> None:
    verdict = judge(tmp_path, clips(response))
    assert verdict["passed"]
    assert verdict["figures"]["response that fits better"] == "none" or response == "none"
    assert verdict["figures"]["clips whose pixels were checked"] == 9


def test_the_verdict_is_the_same_every_time(tmp_path: Path) -> None:
    first, second = judge(tmp_path / "a", clips()), judge(tmp_path / "b", clips())
    assert first == second
    assert (tmp_path / "a/verdict.html").read_bytes() == (tmp_path / "b/verdict.html").read_bytes()


def test_blur_that_is_not_the_mean_of_its_frames(tmp_path: Path) -> None:
    made = clips()
    made[4]["frames"][0] = made[4]["frames"][3]
    text = refusal(tmp_path, made)
    assert "mean of its frames" in text
    assert "clip4: " in text
    assert "validate_clips.blur_psnr_min" in text


def test_another_response_curve_is_told_by_its_name(tmp_path: Path) -> None:
    made = clips("none")
    for clip in made:
        clip["response"] = "srgb"
    text = refusal(tmp_path, made)
    assert "'none' fits the blur better" in text
    assert "blur.exposure.response" in text


def test_noise_is_allowed_where_it_is_recorded(tmp_path: Path) -> None:
    assert judge(tmp_path, clips(noise=0.01))["passed"]
    made = clips(noise=0.01)
    for clip in made:
        clip["noise"] = 0.0
    assert "mean of its frames" in refusal(tmp_path, made)


def test_a_cameras_own_blur_is_reported_and_enforced_only_if_asked(tmp_path: Path) -> None:
    made = clips()
    for clip in made:
        clip["blur"] = "captured"
    made[2]["frames"][0] = made[2]["frames"][7]
    verdict = judge(tmp_path, made)
    noted = [check for check in verdict["checks"] if not check["passed"]]
    assert verdict["passed"]
    assert len(noted) == 1
    assert noted[0]["rows"][0].startswith("clip2: ")
    assert "clip2: " in refusal(tmp_path, made, ValidateClipsConfig(captured_enforced=True))


def test_the_same_source_in_train_and_test(tmp_path: Path) -> None:
    made = clips()
    made[2]["source"] = made[0]["source"]
    text = refusal(tmp_path, made)
    assert "no source is in two splits" in text
    assert "source0 is in test, train" in text


def test_the_same_clip_in_train_and_test(tmp_path: Path) -> None:
    made = clips()
    made[2]["frames"] = made[0]["frames"]
    text = refusal(tmp_path, made)
    assert "no clip is in two splits" in text
    assert "clip0" in text
    assert "clip2" in text


def test_the_same_clip_twice_in_one_split(tmp_path: Path) -> None:
    made = clips()
    made[3]["frames"] = made[0]["frames"]
    text = refusal(tmp_path, made)
    assert "no clip is there twice" in text
    assert "two splits" not in text


def test_still_and_blank_clips(tmp_path: Path) -> None:
    made = clips()
    made[1]["frames"][:] = made[1]["frames"][2]
    made[5]["frames"][:] = 128
    text = refusal(tmp_path, made)
    assert "every clip moves" in text
    assert "clip1: 0" in text
    assert "no clip is blank" in text
    assert "clip5: 0" in text


@pytest.mark.parametrize("motion", [0.1, 600.0])
def test_motion_out_of_range(tmp_path: Path, motion: float) -> None:
    made = clips()
    made[7]["motion"] = motion
    assert f"clip7: {motion:g}" in refusal(tmp_path, made)


def test_too_small_or_too_few(tmp_path: Path) -> None:
    text = refusal(tmp_path, clips(), ValidateClipsConfig(side_min=64, test_min=4))
    assert "widths are at least 64 px" in text
    assert "the test split has at least 4 clips" in text


def test_pixels_that_changed_after_writing(tmp_path: Path) -> None:
    judge(tmp_path, clips())
    shard = max((tmp_path / "clips").rglob("c/*/*/*/*/*"), key=lambda path: path.stat().st_size)
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 3] ^= 0xFF
    shard.write_bytes(bytes(raw))
    with pytest.raises((DataRejected, BadClipStore)):
        judge_store(tmp_path)


def test_no_store_names_the_step_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(BadClipStore, match="synthesize-blur"):
        judge_store(tmp_path)


def test_a_sample_takes_from_every_split_and_category(tmp_path: Path) -> None:
    made = clips()
    made[2]["frames"][0] = made[2]["frames"][7]  # the only clip of its category
    made[2]["category"] = "rare"
    text = refusal(tmp_path, made, ValidateClipsConfig(clips_checked=3))
    assert "clip2" in text
