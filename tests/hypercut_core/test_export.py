"""Data sets in and out: nothing is lost, orders arrive, hostile metadata is an error and no crash."""

from __future__ import annotations

import copy
import json
import multiprocessing
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_footage import pan, write_frames, write_rb2v
from PIL import Image

from components.collect_footage.step import CollectConfig, collect_footage
from components.synthesize_blur.step import SynthesisConfig, synthesize_blur
from hypercut_core.clips import layouts
from hypercut_core.clips.describe import as_text, describe
from hypercut_core.clips.export import export_rb2v
from hypercut_core.clips.export_plan import ExportConfig, plan_export
from hypercut_core.clips.imported import IMPORTED, imported_documents, pack, read_imported
from hypercut_core.clips.rb2v import read_document
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.errors import BadClipStore, BadFootage, BadParameters, HypercutError, StorageError
from hypercut_core.ordering.labels import OrderTable

ORDERS = ["keep", "reverse", "random", "ignore", "keep", "reverse", "keep", "keep"]
SIX = ["train", "train", "val", "val", "test", "test"]
PARTITIONS = ["train", "train", "val", "val", "test", "test", "train", "train"]


def data_set(root: Path) -> dict[str, Any]:
    """Eight clips with fields that nobody knows, in the head and in the entries."""
    document: dict[str, Any] = write_rb2v(root, ORDERS, PARTITIONS)
    document |= {"licence": "for tests", "camera": {"fps": [25, 175]}, "gain": 1.25}
    for number, entry in enumerate(document["data"]):
        entry["note"] = {"number": number, "text": "ü \u2028", "nothing": None}
    document["data"][0]["id"] = 7  # a number, as some sets have it
    (root / "metadata.json").write_text(json.dumps(document))
    return document


def imported(folder: Path, source: Path) -> ClipStore:
    """Through the steps that everybody uses."""
    manifest = folder / "data/footage.json"
    collect_footage(CollectConfig(source=str(source)), manifest, 0)
    synthesize_blur(manifest, SynthesisConfig(), folder / "data/clips", folder / "metrics.json", 0)
    return ClipStore(folder / "data/clips")


def table(store: ClipStore, direction: list[int], agree: list[bool] | None = None,
          margin: list[float] | None = None) -> OrderTable:
    signs = np.array(direction, np.int8)
    margins = np.array(margin or [1.0] * len(signs), np.float32)
    return OrderTable([record.clip_id for record in store.records], signs, -signs * margins, margins,
                      np.array(agree or [True] * len(signs)), np.repeat(signs[:, None], 8, axis=1))


def by_id(store: ClipStore) -> dict[str, np.ndarray]:
    return {record.clip_id: store.read(index) for index, record in enumerate(store.records)}


def without_ours(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "data": [{key: value for key, value in entry.items() if key != "hypercut"}
                                 for entry in document["data"]]}


def test_import_and_export_lose_nothing(tmp_path: Path) -> None:
    document = data_set(tmp_path / "set")
    store = imported(tmp_path / "one", tmp_path / "set")
    summary = export_rb2v(store, None, tmp_path / "out")
    assert summary["clips"] == 7
    written = json.loads((tmp_path / "out/metadata.json").read_text())
    assert without_ours(written) == document
    assert list(written)[:3] == ["name", "frame_per_seq", "data"]  # in the order that others know
    for file in (tmp_path / "set").rglob("*.png"):  # file for file the same pixels, whatever the order said
        copied = tmp_path / "out" / file.relative_to(tmp_path / "set")
        if "seq001/blur/0001" in file.as_posix() or "seq001/sharp/0001_" in file.as_posix():
            assert not copied.exists()  # of the clip that the data set ignores
        else:
            assert np.array_equal(np.asarray(Image.open(copied)), np.asarray(Image.open(file)))
    again = imported(tmp_path / "two", tmp_path / "out")
    first, second = by_id(store), by_id(again)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_an_order_arrives(tmp_path: Path) -> None:
    data_set(tmp_path / "set")
    store = imported(tmp_path / "one", tmp_path / "set")
    direction = [1, -1, -1, 1, -1, -1, 1]
    export_rb2v(store, table(store, direction), tmp_path / "out")
    again = by_id(imported(tmp_path / "two", tmp_path / "out"))
    for index, (record, sign) in enumerate(zip(store.records, direction, strict=True)):
        frames = store.read(index)
        turned = np.concatenate([frames[:1], frames[1:][::sign]])
        assert np.array_equal(again[record.clip_id], turned)
    entries = {str(entry["id"]): entry for entry in read_document(tmp_path / "out")["data"]}
    for record, sign in zip(store.records, direction, strict=True):
        was_reversed = ORDERS[[str(e["id"]) for e in read_document(tmp_path / "set")["data"]].index(record.clip_id)]
        assert entries[record.clip_id]["order"] == \
            ("keep" if (sign > 0) != (was_reversed == "reverse") else "reverse")
        assert entries[record.clip_id]["hypercut"]["direction"] in ("keep", "reverse")
        assert entries[record.clip_id]["note"]["text"] == "ü \u2028"


@pytest.mark.parametrize(("config", "ignored"), [
    (ExportConfig(), [1]), (ExportConfig(ignore_test=True), [1, 3]),
    (ExportConfig(ignore_disagreeing=False, min_margin=0.3), [0]),
    (ExportConfig(min_margin=0.3), [0, 1]), (ExportConfig(min_margin=0.3, ignore_test=True), [0, 1, 3, 4])])
def test_what_becomes_ignore(tmp_path: Path, config: ExportConfig, ignored: list[int]) -> None:
    data_set(tmp_path / "set")
    store = imported(tmp_path / "one", tmp_path / "set")
    tests = [index for index, record in enumerate(store.records) if record.split == "test"]
    trains = [index for index, record in enumerate(store.records) if record.split != "test"]
    places = [*trains[:3], *tests[:2]]  # two clips to train with, one between, two to test with
    agree, margin = [True] * 7, [1.0] * 7
    margin[places[0]], agree[places[1]], agree[places[3]], margin[places[4]] = 0.1, False, False, 0.2
    plan = plan_export(store, read_imported(store), table(store, [1] * 7, agree, margin), config)
    entries = {str(entry["id"]): entry for entry in plan.documents[""]["data"]}
    found = [number for number, place in enumerate(places)
             if entries[store.records[place].clip_id]["order"] == "ignore"]
    assert found == ignored
    assert sum(count for what, count in plan.counts.items() if what.startswith("ignored: ")) == len(ignored)
    assert len(plan.clips) == 7  # the files of ignored clips are written all the same


def test_data_sets_side_by_side_stay_apart(tmp_path: Path) -> None:
    for name in ("face", "hand"):
        write_rb2v(tmp_path / "in" / name, ["keep", "reverse"] * 3, SIX, name=name)
    for file in (tmp_path / "in/hand").rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    store = imported(tmp_path / "one", tmp_path / "in")
    export_rb2v(store, None, tmp_path / "out")
    for name in ("face", "hand"):
        written = read_document(tmp_path / "out" / name)
        assert without_ours(written) == read_document(tmp_path / "in" / name)
    assert not (tmp_path / "out/metadata.json").exists()
    first, second = by_id(store), by_id(imported(tmp_path / "two", tmp_path / "out"))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)


def made_store(path: Path, clips: int = 6, size: tuple[int, int] = (24, 32)) -> ClipStore:
    rng = np.random.default_rng(0)
    with ClipStoreWriter(path, 7) as writer:
        for number in range(clips):
            frames = rng.integers(0, 256, (8, *size, 3), dtype=np.uint8)
            writer.add(frames, clip_id=f"walk/{number % 3}/{number:06d}",
                       source=("a/b.mp4", "a_b.mp4", "A_b.mp4")[number % 3],
                       split=("train", "val", "test")[number % 3], category=("hand", "face/x")[number // 3 % 2],
                       motion=2.0)
    return ClipStore(path)


def test_a_store_of_other_origin_becomes_a_data_set_for_each_category(tmp_path: Path) -> None:
    store = made_store(tmp_path / "clips", 6)
    export_rb2v(store, None, tmp_path / "out")
    assert sorted(path.parent.name for path in tmp_path.glob("out/*/metadata.json")) == ["face_x", "hand"]
    document = read_document(tmp_path / "out/hand")
    assert (document["name"], document["frame_per_seq"]) == ("hand", 7)
    assert [entry["order"] for entry in document["data"]] == ["random"] * 3
    assert document["data"][0]["blur_path"] == "a_b.mp4/blur/0000.png"
    assert document["data"][1]["frame007_path"] == "a_b.mp4-2/sharp/0000_7.png"  # another source of that name
    assert document["data"][0]["hypercut"]["source"] == "a/b.mp4"
    clips = [clip for members in layouts.by_sequence(tmp_path / "out", "rb2v", 7).values() for clip in members]
    assert {clip.partition for clip in clips} == {"train", "val", "test"}
    pixels = {clip.clip_id.split("/", 1)[1]: clip.load() for clip in clips}
    assert all(np.array_equal(pixels[record.clip_id], store.read(i)) for i, record in enumerate(store.records))
    one = made_store(tmp_path / "one", 3)
    export_rb2v(one, None, tmp_path / "single", ExportConfig(name="my clips"))
    assert read_document(tmp_path / "single")["name"] == "my clips"


def test_an_export_that_is_there_is_left_and_other_files_are_not_touched(tmp_path: Path) -> None:
    store = made_store(tmp_path / "clips", 3)
    export_rb2v(store, None, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    export_rb2v(store, None, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    with pytest.raises(StorageError, match="already"):
        export_rb2v(store, None, tmp_path / "out", ExportConfig(name="other"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for place in ("mine", "file"):
        with pytest.raises(StorageError, match="already"):
            export_rb2v(store, None, tmp_path / place)
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    export_rb2v(store, None, tmp_path / "empty")
    assert (tmp_path / "empty/metadata.json").is_file()
    assert not list(tmp_path.glob(".*partial*"))


def test_wrong_wishes(tmp_path: Path) -> None:
    store = made_store(tmp_path / "clips", 3)
    for config in (ExportConfig(min_margin=0.2), ExportConfig(min_margin=-1.0), ExportConfig(name="../x"),
                   ExportConfig(name="x" * 101)):
        with pytest.raises(BadParameters):
            export_rb2v(store, None, tmp_path / "out", config)
    orders = table(store, [1, 1, 1])
    with pytest.raises(BadClipStore, match="no row for clip"):
        export_rb2v(store, OrderTable(["x", *orders.clip_ids[1:]], orders.direction, orders.score, orders.margin,
                                      orders.agree, orders.directions8), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [
    lambda d: d["data"][0].update(blur_path="../../x.png"), lambda d: d["data"][1].update(frame003_path="/etc/x.png"),
    lambda d: d["data"][0].update(frame001_path=3), lambda d: d.update(frame_per_seq=5),
    lambda d: d["data"].insert(0, 3), lambda d: d["data"][0].update(blur_path=d["data"][1]["blur_path"]),
    lambda d: d["data"][0].update(blur_path="seq000/sharp/0001_1.png/x.png")])
def test_a_store_whose_record_of_the_import_was_changed(tmp_path: Path, change: Any) -> None:
    data_set(tmp_path / "set")
    document = read_document(tmp_path / "set")
    store = imported(tmp_path / "one", tmp_path / "set")
    change(document)
    (Path(store.path) / IMPORTED).write_bytes(pack({"": document}))
    with pytest.raises(BadClipStore):
        export_rb2v(ClipStore(store.path), None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for damaged in (b"", b"\x1f\x8b", b"text", pack({"": document})[:-9], pack({"": []})):  # type: ignore[dict-item]
        (Path(store.path) / IMPORTED).write_bytes(damaged)
        with pytest.raises(BadClipStore):
            read_imported(ClipStore(store.path))


def test_a_killed_export_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = made_store(tmp_path / "clips", 24, (96, 128))
    process = multiprocessing.get_context("fork").Process(target=export_rb2v, args=(store, None, tmp_path / "out"),
                                                          kwargs={"threads": 1})
    process.start()
    partial = tmp_path / ".out.partial-export"
    while len(list(partial.rglob("*.png"))) < 20 and process.is_alive():
        time.sleep(0.001)
    process.kill()
    process.join()
    kept = {path.relative_to(partial): path.stat().st_mtime_ns for path in partial.rglob("*_*.png")}
    assert kept
    assert not (tmp_path / "out").exists()
    export_rb2v(store, None, tmp_path / "out")
    same = [path for path, when in kept.items() if (tmp_path / "out" / path).stat().st_mtime_ns == when]
    assert len(same) >= len(kept) - 8  # the clip that was being written is written again
    clips = [clip for members in layouts.by_sequence(tmp_path / "out", "rb2v", 7).values() for clip in members]
    assert len(clips) == 24
    pixels = {clip.clip_id.split("/", 1)[1]: clip.load() for clip in clips}
    assert all(np.array_equal(pixels[record.clip_id], store.read(i)) for i, record in enumerate(store.records))
    assert not list(tmp_path.rglob("*.partial*"))
    assert not list((tmp_path / "out").rglob("stamp"))


def test_memory_holds_one_clip_of_720p(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (720, 5))[..., None]
    clip = np.repeat(np.stack([np.roll(ramp, shift, 1) for shift in range(8)]), 3, axis=-1)
    with ClipStoreWriter(tmp_path / "clips", 7) as writer:
        for number in range(4):
            writer.add(clip + np.uint8(number), clip_id=str(number), source="s", split="train", category="c",
                       motion=1.0)
    store = ClipStore(tmp_path / "clips")
    tracemalloc.start()
    try:
        export_rb2v(store, None, tmp_path / "out", threads=2)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * clip.nbytes  # a clip and its compressed chunks
    finally:
        tracemalloc.stop()


LEAVES = (st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats(allow_nan=False)
          | st.text(max_size=12))
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner,
                    max_size=3), max_leaves=5)
KEYS = st.sampled_from(["id", "order", "partition", "blur_path", "frame001_path", "frame004_path", "frame007_path",
                        "note"])
HEADS = st.sampled_from(["name", "frame_per_seq", "data", "licence"])
TEXTS = st.sampled_from(["", ".", "..", "a/../b", "/", "seq000", "seq000/blur", "x" * 300 + ".png", "\ud800",
                         "\0", "C:/x", "~",
                         "seq000/blur/0001.png", "./seq000//blur/0000.png", "seq000\\blur\\0000.png", "aux", "a\nb"])
VALUES = JSON | TEXTS | st.lists(JSON, max_size=2)


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    entry = (st.tuples(st.just("set"), st.integers(0, 7), KEYS, VALUES)
             | st.tuples(st.just("drop"), st.integers(0, 7), KEYS))
    head = st.tuples(st.just("head"), HEADS, VALUES) | st.tuples(st.just("no head"), HEADS)
    other = st.tuples(st.just("entry"), st.integers(0, 7), VALUES) | st.tuples(st.just("cut"), st.integers(0, 4000))
    return draw(st.lists(entry | entry | head | other, min_size=1, max_size=3))


def mutated(document: dict[str, Any], steps: list[tuple[Any, ...]]) -> bytes:
    made: Any = copy.deepcopy(document)
    cut = None
    for step in steps:
        entries = made.get("data")
        filled = isinstance(entries, list) and len(entries) > 0
        at = entries[step[1] % len(entries)] if filled and step[0] in ("set", "drop") else None
        if step[0] == "set" and isinstance(at, dict):
            at[step[2]] = step[3]
        elif step[0] == "drop" and isinstance(at, dict):
            at.pop(step[2], None)
        elif step[0] == "head":
            made[step[1]] = step[2]
        elif step[0] == "no head":
            made.pop(step[1], None)
        elif step[0] == "entry" and filled:
            entries[step[1] % len(entries)] = step[2]
        elif step[0] == "cut":
            cut = step[1]
    return json.dumps(made).encode()[:cut]


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("valid") / "set"
    return root, data_set(root)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=changes())
def test_any_metadata_is_read_or_is_a_clear_error(valid: tuple[Path, dict[str, Any]], steps: list[tuple[Any, ...]]
                                                  ) -> None:
    root, document = valid
    (root / "metadata.json").write_bytes(mutated(document, steps))
    caught: HypercutError | None = None
    try:
        found = [clip for members in layouts.by_sequence(root, "rb2v", None).values() for clip in members]
    except HypercutError as error:
        caught = error
    if caught is not None:
        assert isinstance(caught, BadFootage)
        assert "metadata.json" in str(caught)
        return
    written = json.loads((root / "metadata.json").read_bytes())
    known = {str(entry["id"]): entry for entry in written["data"]}
    for clip in found:
        entry = known[clip.clip_id]
        assert clip.order == entry["order"] != "ignore"
        assert clip.blurry.resolve().is_relative_to(root)
        clip.clip_id.encode()
        names = [entry[f"frame{place:03d}_path"] for place in range(1, len(clip.sharp) + 1)]
        files = [path.name for path in clip.sharp[::-1 if clip.order == "reverse" else 1]]
        assert files == [name.replace("\\", "/").split("/")[-1] for name in names]
    assert read_round_trip(root) == written


def read_round_trip(root: Path) -> Any:
    return json.loads(json.dumps(imported_documents(root, layouts.detect(root) or "rb2v")[""]))


def test_response_curves_by_layout(tmp_path: Path) -> None:
    """B-AIST++ averages encoded values, GoPro comes in both ways, and the pixels have the last word."""
    document: dict[str, Any] = write_rb2v(tmp_path / "aist", ["keep"] * 6, SIX)
    (tmp_path / "aist/metadata.json").write_text(json.dumps(document | {"name": "B-AIST++"}))
    assert layouts.detect(tmp_path / "aist") == "b-aist++"
    store = imported(tmp_path / "one", tmp_path / "aist")
    assert {record.response for record in store.records} == {"none"}
    assert store.records[0].category == "B-AIST++"
    manifest = json.loads((tmp_path / "one/data/footage.json").read_text())
    assert manifest["layout"] == "b-aist++"
    assert "AIST" in manifest["sources"][0]["licence"]
    still = np.full((8, 16, 16, 3), 90, np.uint8)  # the pixels say nothing: the convention stays
    assert layouts.response_of([still], "none")[0] == "none"
    assert layouts.response_of([still], "gamma2.2")[0] == "gamma2.2"
    sharp = np.stack(pan(0, 7, 4.0, 48, 64))
    sharp = np.where(sharp > 128, 250, 5).astype(np.uint8)
    clip = np.concatenate([np.rint(sharp.mean(0))[None].astype(np.uint8), sharp])
    assert layouts.response_of([clip], "srgb")[0] == "none"
    assert layouts.convention("gopro", Path("GOPR1/blur/1.png")) == "none"
    assert layouts.convention("gopro", Path("GOPR1/blur_gamma/1.png")) == "gamma2.2"
    assert layouts.convention("rb2v", Path("s/blur/1.png")) is None


def test_describe(tmp_path: Path) -> None:
    data_set(tmp_path / "set")
    figures = describe(tmp_path / "set")["set"]
    assert figures["layout"] == "rb2v"
    assert figures["clips"] == {"train": 4, "val": 1, "test": 2}
    assert figures["orders"] == {"keep": 4, "reverse": 2, "random": 1, "ignore": 1}
    assert figures["sequences"] == {"train": 2, "val": 1, "test": 1}
    assert figures["left out"] == {"order_ignore": 1}
    assert figures["published"] == {"set": "RB2V hand", "train": 12000, "test": 4722}
    assert figures["response"] == "none"
    assert figures["sizes"] == {"64x48": 7}
    assert figures["motion, px"]["median"] == pytest.approx(12, abs=3)
    assert "not redistributable" in figures["licence"]
    assert "not redistributable" in as_text({"set": figures})
    store = imported(tmp_path / "one", tmp_path / "set")
    figures = describe(Path(store.path))["clip store"]
    assert sum(figures["clips"].values()) == 7
    assert figures["content"] == store.sha256
    assert figures["recorded response"] == {"none": 7}
    write_frames(tmp_path / "reds/train/train_sharp/000", pan(1, 9, 1.0, 48, 64))
    write_frames(tmp_path / "reds/train/train_blur/000", pan(1, 9, 1.0, 48, 64))
    assert describe(tmp_path / "reds")["reds"]["clips"] == {"train": 3}
    with pytest.raises(BadFootage, match="no data set"):
        describe(tmp_path / "one")
