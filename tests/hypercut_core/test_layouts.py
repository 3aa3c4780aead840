from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_footage import pan, write_frames, write_rb2v
from PIL import Image

from hypercut_core.blur.exposure import ExposureConfig, expose
from hypercut_core.clips import layouts, rb2v
from hypercut_core.clips.layouts import LayoutCounts, measured_response
from hypercut_core.errors import BadFootage


def test_rb2v_is_imported_as_it_is(tmp_path: Path) -> None:
    write_rb2v(tmp_path, ["keep", "reverse", "random", "ignore"], ["train", "train", "val", "test"])
    assert layouts.detect(tmp_path) == "rb2v"
    counts = LayoutCounts()
    clips = list(layouts.read(tmp_path, "rb2v", 7, counts))
    assert [(clip.clip_id, clip.source, clip.partition, clip.category, clip.order) for clip in clips] == [
        ("seq000_0000", "seq000", "train", "hand", "keep"), ("seq000_0001", "seq000", "train", "hand", "reverse"),
        ("seq001_0000", "seq001", "val", "hand", "random")]
    assert counts.skipped == {"order_ignore": 1}
    names = [[path.name for path in clip.sharp] for clip in clips]
    assert names[0] == [f"0000_{place}.png" for place in range(1, 8)]
    assert names[1] == [f"0001_{place}.png" for place in range(7, 0, -1)]  # reversed
    assert names[2] == [f"0000_{place}.png" for place in range(1, 8)]  # as is
    pixels = clips[0].load()
    assert pixels.shape == (8, 48, 64, 3)
    assert np.array_equal(pixels[1:], np.stack(pan(0, 7, 2.0, 48, 64)))
    assert clips[0].load(24).shape == (8, 24, 32, 3)


def wrong(change: Callable[[dict[str, Any]], None], tmp_path: Path, frames: int | None = 7) -> str:
    document = write_rb2v(tmp_path / "set", ["keep", "keep"], ["train", "train"])
    change(document)
    (tmp_path / "set/metadata.json").write_text(json.dumps(document))
    with pytest.raises(BadFootage) as caught:
        list(layouts.read(tmp_path / "set", "rb2v", frames))
    message = str(caught.value)
    assert "metadata.json" in message
    assert "To mend it" in message
    return message


def entry(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["data"][1].update(fields)


@pytest.mark.parametrize("path", ["../outside.png", "/etc/hostname", "seq000/../../outside.png", "C:/outside.png",
                                  "..\\outside.png", "\\outside.png"])
@pytest.mark.parametrize("key", ["blur_path", "frame003_path"])
def test_paths_out_of_the_data_set(tmp_path: Path, path: str, key: str) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "outside.png")
    assert "leads out of the data set" in wrong(entry(**{key: path}), tmp_path)


@pytest.mark.parametrize(("fields", "says"), [
    ({"blur_path": 3}, "not a path"), ({"blur_path": None}, "not a path"), ({"frame002_path": ["x"]}, "not a path"),
    ({"blur_path": "seq000/blur/none.png"}, "is not there"), ({"frame007_path": ""}, "not a path"),
    ({"blur_path": "a\0b"}, "not a path"), ({"order": "sideways"}, "its order"), ({"order": ["keep"]}, "its order"),
    ({"partition": "training"}, "its partition"), ({"partition": 1}, "its partition"),
    ({"id": None}, "its id"), ({"id": {"a": 1}}, "its id"), ({"id": "seq000_0000"}, "twice")])
def test_mistyped_entries(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    message = wrong(entry(**fields), tmp_path)
    assert says in message
    assert "clip 1 " in message


@pytest.mark.parametrize("change", [
    lambda d: d.update(data={}), lambda d: d.update(data=[3]), lambda d: d.pop("data"),
    lambda d: d.update(name="../x"), lambda d: d.update(name=7), lambda d: d.update(frame_per_seq="7"),
    lambda d: d.update(frame_per_seq=True), lambda d: d.pop("frame_per_seq"),
    lambda d: d["data"][0].pop("frame004_path")])
def test_mistyped_metadata(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    wrong(change, tmp_path)


def test_another_number_of_frames(tmp_path: Path) -> None:
    assert "--set frames=7" in wrong(lambda document: None, tmp_path, 5)
    assert "odd numbers" in wrong(lambda document: document.update(frame_per_seq=6), tmp_path, None)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff\xfe", "7"])
def test_metadata_that_is_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadFootage, match=r"metadata\.json"):
        list(layouts.read(tmp_path, "rb2v", 7))


def test_metadata_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rb2v(tmp_path, ["keep"], ["train"])
    monkeypatch.setattr(rb2v, "MAX_BYTES", 100)
    with pytest.raises(BadFootage, match="larger than 100 bytes"):
        list(layouts.read(tmp_path, "rb2v", 7))


def test_links_out_of_the_data_set(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "outside.png")
    document = write_rb2v(tmp_path / "set", ["keep"], ["train"])
    blurry = tmp_path / "set" / document["data"][0]["blur_path"]  # type: ignore[index]
    blurry.unlink()
    blurry.symlink_to(tmp_path / "outside.png")
    with pytest.raises(BadFootage, match="through a link"):
        list(layouts.read(tmp_path / "set", "rb2v", 7))


def test_a_clip_of_mixed_sizes_and_a_damaged_image(tmp_path: Path) -> None:
    write_rb2v(tmp_path, ["keep", "keep"], ["train", "train"])
    first, second = layouts.read(tmp_path, "rb2v", 7)
    Image.new("RGB", (32, 32)).save(first.sharp[2])
    with pytest.raises(BadFootage, match="sizes"):
        first.load()
    second.sharp[3].write_bytes(second.sharp[3].read_bytes()[:300])
    with pytest.raises(BadFootage, match=second.sharp[3].name):
        second.load()


def gopro(root: Path, blurry: int, each: int, kind: str = "blur_gamma") -> Path:
    write_frames(root / "train/GOPR0001/sharp", pan(1, blurry * each, 1.0, 48, 64), 1, "{:06d}.png")
    write_frames(root / f"train/GOPR0001/{kind}", pan(2, blurry, 1.0, 48, 64), 1, "{:06d}.png")
    return root


@pytest.mark.parametrize("kind", ["blur", "blur_gamma"])
def test_gopro_windows_are_centred(tmp_path: Path, kind: str) -> None:
    gopro(tmp_path, 10, 1, kind)
    assert layouts.detect(tmp_path) == "gopro"
    counts = LayoutCounts()
    clips = list(layouts.read(tmp_path, "gopro", 7, counts))
    assert [clip.blurry.stem for clip in clips] == [f"{number:06d}" for number in range(4, 8)]
    for clip in clips:
        assert clip.sharp[3].stem == clip.blurry.stem
        assert (len(clip.sharp), clip.partition, clip.source) == (7, "train", "train/GOPR0001")
        assert clip.blurry.parent.name == kind
    assert counts.skipped == {"at_the_end_of_its_sequence": 6}


def test_gamma_blur_comes_first(tmp_path: Path) -> None:
    gopro(gopro(tmp_path, 9, 1, "blur"), 9, 1)
    assert next(layouts.read(tmp_path, "gopro", 7)).blurry.parent.name == "blur_gamma"


@pytest.mark.parametrize(("frames", "first"), [(7, 0), (5, 1), (None, 0)])
def test_many_sharp_frames_a_blurry_image(tmp_path: Path, frames: int | None, first: int) -> None:
    write_frames(tmp_path / "train/train_sharp/000", pan(1, 21, 1.0, 48, 64))
    write_frames(tmp_path / "train/train_blur/000", pan(2, 3, 1.0, 48, 64))
    assert layouts.detect(tmp_path) == "reds"
    clips = list(layouts.read(tmp_path, "reds", frames))
    assert [int(clip.sharp[0].stem) for clip in clips] == [first, 7 + first, 14 + first]
    assert {len(clip.sharp) for clip in clips} == {frames or 7}
    assert clips[0].source == "train/000"
    counts = LayoutCounts()
    assert list(layouts.read(tmp_path, "reds", 9, counts)) == []
    assert counts.skipped == {"too_few_sharp_frames": 3}


def test_missing_sharp_frames(tmp_path: Path) -> None:
    gopro(tmp_path, 16, 1)
    (tmp_path / "train/GOPR0001/sharp/000008.png").unlink()
    with pytest.raises(BadFootage, match="frames are missing"):
        list(layouts.read(tmp_path, "gopro", 7))
    (tmp_path / "train/GOPR0001/blur_gamma/000008.png").unlink()
    counts = LayoutCounts()
    clips = list(layouts.read(tmp_path, "gopro", 7, counts))
    assert counts.skipped["missing_frames"] == 6
    for clip in clips:
        numbers = [int(path.stem) for path in clip.sharp]
        assert numbers == list(range(numbers[0], numbers[0] + 7))


def test_a_sequence_that_is_a_link(tmp_path: Path) -> None:
    gopro(tmp_path / "elsewhere", 9, 1)
    (tmp_path / "set/train/GOPR0001").mkdir(parents=True)
    for kind in ("sharp", "blur_gamma"):
        (tmp_path / "set/train/GOPR0001" / kind).symlink_to(tmp_path / "elsewhere/train/GOPR0001" / kind)
    with pytest.raises(BadFootage, match="leads out"):
        list(layouts.read(tmp_path / "set", "gopro", 7))


def test_plain_folders_are_no_layout(tmp_path: Path) -> None:
    write_frames(tmp_path / "walk/sharp", pan(1, 3, 1.0, 48, 64))
    assert layouts.detect(tmp_path) is None
    assert layouts.detect(tmp_path / "none") is None
    with pytest.raises(BadFootage, match="unknown layout"):
        list(layouts.read(tmp_path, "other", 7))


def test_a_sequence_is_in_one_partition_only(tmp_path: Path) -> None:
    write_rb2v(tmp_path, ["keep"] * 4, ["train", "test", "train", "train"])
    counts = LayoutCounts()
    found = layouts.by_sequence(tmp_path, "rb2v", 7, counts)
    assert {source: [clip.clip_id for clip in clips] for source, clips in found.items()} == {
        "seq000": ["seq000_0001"], "seq001": ["seq001_0000", "seq001_0001"]}
    assert counts.skipped == {"in_another_partition": 1}


def test_data_sets_side_by_side(tmp_path: Path) -> None:
    for name in ("face", "hand"):
        write_rb2v(tmp_path / name, ["keep"], ["train"], name="rb2v")
    found = layouts.by_sequence(tmp_path, "rb2v", 7)
    assert [(source, clips[0].clip_id, clips[0].category) for source, clips in found.items()] == [
        ("face/seq000", "face/seq000_0000", "face"), ("hand/seq000", "hand/seq000_0000", "hand")]


@pytest.mark.parametrize("response", ["srgb", "gamma2.2", "none"])
def test_the_response_curve_shows_in_the_pixels(response: str) -> None:
    sharp = np.stack(pan(5, 7, 3.0, 48, 64))
    sharp = np.where(sharp > 128, 250, 5).astype(np.uint8)  # the curves differ most where contrast is high
    sharp[:, :12] = sharp[:, :12] // 8  # the toe of sRGB shows in the shadows
    blurry = expose(sharp, ExposureConfig(response=response), np.random.default_rng(0))  # type: ignore[arg-type]
    found, error = measured_response(np.concatenate([blurry[None], sharp]))
    assert (found, error) == (response, 99.0)
    assert measured_response(np.concatenate([255 - blurry[None], sharp]))[1] < 20
