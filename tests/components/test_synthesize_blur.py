from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_footage import pan, write_frames, write_rb2v, write_video

from components.collect_footage.step import CollectConfig, collect_footage
from components.synthesize_blur.sources import blurred
from components.synthesize_blur.step import ClipCounts, SynthesisConfig, synthesize_blur
from hypercut_core.blur.exposure import ExposureConfig, blur_error
from hypercut_core.clips.footage import WindowConfig, WindowCounts
from hypercut_core.clips.manifest import read_manifest
from hypercut_core.clips.moving_photos import MovingPhotosConfig
from hypercut_core.clips.store import ClipStore
from hypercut_core.errors import BadFootage

WINDOWS = WindowConfig(height=0, crop=32, crops=2, stride=7)
CONFIG = SynthesisConfig(windows=WINDOWS)


def footage(tmp_path: Path, speed: float = 2.0, count: int = 15) -> Path:
    """A manifest of three videos and a folder of frames, 64 x 48 px."""
    for seed, name in enumerate(("hand/a.mp4", "hand/b.mp4", "hand/c.mp4")):
        write_video(tmp_path / "in" / name, pan(seed, count, speed, 48, 64))
    write_frames(tmp_path / "in/hand/d", pan(3, count, speed, 48, 64))
    collect_footage(CollectConfig(source=str(tmp_path / "in")), tmp_path / "data/footage.json", 0)
    return tmp_path / "data/footage.json"


def run(manifest: Path, config: SynthesisConfig = CONFIG, **words: Any) -> tuple[ClipStore, dict[str, Any]]:
    out, metrics = manifest.parent / "clips", manifest.parent.parent / "metrics/synthesize-blur.json"
    synthesize_blur(manifest, config, out, metrics, **{"seed": 0, **words})
    return ClipStore(out), json.loads(metrics.read_text())


def test_built_in_photos(tmp_path: Path) -> None:
    manifest = tmp_path / "data/footage.json"
    collect_footage(CollectConfig(), manifest, 0)
    config = SynthesisConfig(photos=MovingPhotosConfig(size=32, subframes=1), clips=ClipCounts(3, 1, 2))
    store, figures = run(manifest, config, frames=3)
    assert figures["clips"] == {"train": 3, "val": 1, "test": 2}
    assert [len(store.indices(split)) for split in ("train", "val", "test")] == [3, 1, 2]
    assert store.read(0).shape == (4, 32, 32, 3)
    assert run(manifest, config, frames=3, seed=1)[0].sha256 != store.sha256


def test_footage_becomes_clips(tmp_path: Path) -> None:
    manifest = footage(tmp_path)
    store, figures = run(manifest)
    sources = {source.source: source for source in read_manifest(manifest).sources}
    assert {record.source for record in store.records} == set(sources)
    for number, record in enumerate(store.records):
        frames = store.read(number)
        assert frames.shape == (8, 32, 32, 3)
        assert blur_error(frames[0], frames[1:], "srgb") == 99.0
        assert (record.split, record.category) == (sources[record.source].split, "hand")
        assert (record.blur, record.response, record.noise) == ("synthetic", "srgb", 0.0)
        assert record.motion == pytest.approx(12, abs=3)
    assert all(figures["clips"].values())
    assert figures["windows"]["hand"] == {"kept": 8, "scene_cuts": 0}
    before = (manifest.parent.parent / "metrics/synthesize-blur.json").read_bytes()
    again, _ = run(manifest)
    assert again.sha256 == store.sha256
    assert (manifest.parent.parent / "metrics/synthesize-blur.json").read_bytes() == before


def test_noise_depends_on_the_clip_and_not_on_its_turn(tmp_path: Path) -> None:
    manifest = read_manifest(footage(tmp_path))
    source = manifest.sources[-1]
    noisy = ExposureConfig(response="gamma2.2", noise_read=0.02)

    def clips(seed: int) -> list[np.ndarray]:
        path = tmp_path / "in" / manifest.relative(source)
        return [clip.frames for clip in blurred(source, path, 7, WINDOWS, noisy, 0, seed, WindowCounts())]

    first = clips(0)
    assert all(np.array_equal(a, b) for a, b in zip(first, clips(0), strict=True))
    assert not np.array_equal(first[0][0], clips(1)[0][0])
    assert 20 < blur_error(first[0][0], first[0][1:], "gamma2.2") < 45


def test_clips_of_a_source_are_capped_over_its_length(tmp_path: Path) -> None:
    manifest = footage(tmp_path, count=45)
    store, _ = run(manifest, replace(CONFIG, clips_per_source=4))
    starts: dict[str, set[int]] = {}
    for record in store.records:
        starts.setdefault(record.source, set()).add(int(record.clip_id.split("/")[-1].split("-")[0]))
    assert len(starts) == 4
    for source in starts:
        assert sum(record.source == source for record in store.records) <= 4
        assert max(starts[source]) > 15


def test_footage_that_changed_since(tmp_path: Path) -> None:
    manifest = footage(tmp_path)
    write_video(tmp_path / "in/hand/b.mp4", pan(9, 15, 2.0, 48, 64))
    with pytest.raises(BadFootage, match=r"b\.mp4.*collect-footage"):
        run(manifest)
    assert not (tmp_path / "data/clips").exists()
    assert not (tmp_path / "metrics").exists()


def test_a_split_without_clips_says_why(tmp_path: Path) -> None:
    manifest = footage(tmp_path, speed=0.0)
    with pytest.raises(BadFootage, match=r"split ends without a clip: its sources are hand/.*still.*min_motion"):
        run(manifest)
    assert not (tmp_path / "data/clips").exists()


def test_damage_is_reported(tmp_path: Path) -> None:
    manifest = footage(tmp_path, count=22)
    broken = tmp_path / "in/hand/d/00000007.png"
    broken.write_bytes(broken.read_bytes()[:1500])
    collect_footage(CollectConfig(source=str(tmp_path / "in")), manifest, 0)
    _, figures = run(manifest)
    assert figures["damaged_places"] == 1
    assert figures["damage"][0].startswith("hand/d 00000007.png: ")


def test_paired_clips_are_imported_and_not_blurred_again(tmp_path: Path) -> None:
    write_rb2v(tmp_path / "in", ["keep", "reverse", "keep", "ignore", "keep", "keep"],
               ["train", "train", "val", "val", "test", "test"])
    manifest = tmp_path / "data/footage.json"
    collect_footage(CollectConfig(source=str(tmp_path / "in")), manifest, 0)
    store, figures = run(manifest)
    assert figures["clips"] == {"train": 2, "val": 1, "test": 2}
    assert figures["windows"]["rb2v"] == {"skipped_order_ignore": 1}
    for number, record in enumerate(store.records):
        seed = 2 * int(record.source[-3:]) + int(record.clip_id[-4:])
        sharp = np.stack(pan(seed, 7, 2.0, 48, 64))
        frames = store.read(number)
        assert np.array_equal(frames[1:], sharp[::-1] if record.clip_id == "seq000_0001" else sharp)
        assert np.array_equal(frames[0], np.rint(np.mean(sharp, axis=0)).astype(np.uint8))
        assert (record.blur, record.response, record.category) == ("captured", "none", "hand")
        assert record.motion == pytest.approx(12, abs=3)
    with pytest.raises(BadFootage, match="--set frames=7"):
        run(manifest, frames=5)


@pytest.mark.system
def test_real_hands_and_streets(tmp_path: Path, real_footage: Path) -> None:
    manifest = tmp_path / "data/footage.json"
    collect_footage(CollectConfig(source=str(real_footage), categories=("hand", "street")), manifest, 0)
    store, figures = run(manifest, SynthesisConfig(clips_per_source=30))
    assert min(figures["clips"].values()) >= 10
    assert figures["windows"]["street"]["scene_cuts"] >= 1
    for number in range(0, len(store.records), 20):
        frames = store.read(number)
        assert blur_error(frames[0], frames[1:], "srgb") > 50
