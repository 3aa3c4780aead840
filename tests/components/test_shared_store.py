"""The folder that a pipeline's containers share: content names, a run's own folder, notes of its steps."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from components.shared_store import (
    RunFolder,
    clips_folder,
    group,
    manifest_file,
    open_store,
    publish_clips,
    publish_manifest,
    run_name,
    running,
)
from components.train_deblurrer.step import TrainDeblurrerConfig
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.errors import BadClipStore, BadParameters, DataRejected, StorageError
from hypercut_core.files import file_sha256, write_json

ROOT_URI = "s3://bucket/root/hypercut-training/0b1c"


def made_clips(path: Path, value: int) -> Path:
    with ClipStoreWriter(path, 3) as writer:
        for number, split in enumerate(("train", "val", "test")):
            frames = np.full((4, 32, 32, 3), value + number, np.uint8)
            writer.add(frames, clip_id=f"c{number}", source=f"s{number}", split=split, category="x", motion=1.0,
                       blur="synthetic", response="srgb", noise=0.0)
    return path


@pytest.mark.parametrize("uri", [
    f"{ROOT_URI}/train-encoder/salt/model", f"{ROOT_URI}/train-deblurrer/salt/model", f"{ROOT_URI}/close-run/x/summary",
    f"{ROOT_URI}/train-deblurrer-2/salt/model",
])
def test_all_tasks_of_a_run_on_a_cluster_have_one_folder(uri: str) -> None:
    step = next(step for step in ("train-encoder", "train-deblurrer", "close-run") if f"/{step}" in uri)
    assert run_name(uri, step) == run_name(f"{ROOT_URI}/evaluate/other/metrics", "evaluate")
    assert run_name(uri, step) != run_name(uri.replace("0b1c", "0b1d"), step)


def test_all_tasks_of_a_local_run_have_one_folder() -> None:
    root = "/w/kubeflow/hypercut-training-2026-01-02-03-04-05-678901"
    names = {run_name(f"{root}/evaluate/metrics", "evaluate"), run_name(f"{root}/close-run/summary", "close-run"),
             run_name(f"{root}/for-loop-2-iteration-1/train-deblurrer/model", "train-deblurrer")}
    assert len(names) == 1
    assert names != {run_name(f"{root[:-1]}2/evaluate/metrics", "evaluate")}


def test_a_step_that_runs_through_is_noted(tmp_path: Path) -> None:
    with running("evaluate", str(tmp_path / "store"), f"{ROOT_URI}/evaluate/x/metrics") as run:
        assert [(note["task"], note["state"]) for note in run.notes()] == [("evaluate", "running")]
    assert [(note["task"], note["state"]) for note in run.notes()] == [("evaluate", "done")]


def test_an_error_that_a_user_can_mend_is_noted_and_told_without_a_traceback(tmp_path: Path) -> None:
    uri = f"{ROOT_URI}/validate-clips/x/v"
    with pytest.raises(SystemExit) as told, running("validate-clips", str(tmp_path), uri):
        raise DataRejected("too dark", where="clips", remedy="add light")
    assert str(told.value) == "hypercut: clips: too dark. To mend it: add light."
    assert told.value.__suppress_context__
    (note,) = RunFolder(tmp_path, run_name(uri, "validate-clips")).notes()
    assert (note["state"], note["what"], note["expected"]) == ("failed", "clips: too dark. To mend it: add light.",
                                                               True)


def test_any_other_error_is_noted_and_goes_on(tmp_path: Path) -> None:
    uri = f"{ROOT_URI}/train-deblurrer/x/m"
    with pytest.raises(ZeroDivisionError), running("train-deblurrer", str(tmp_path), uri, "sequence_min"):
        _ = 1 / 0
    (note,) = RunFolder(tmp_path, run_name(uri, "train-deblurrer")).notes()
    assert (note["task"], note["expected"]) == ("train-deblurrer-sequence_min", False)
    assert note["what"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(("store", "message"), [("gs://bucket/store", "neither a folder nor on S3"),
                                                ("relative", "absolute path"), ("", "absolute path"),
                                                ("/proc/hypercut", "cannot be used")])
def test_a_store_that_cannot_be_shared_is_refused(store: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        open_store(store)


def test_clips_lie_by_content_and_the_reference_finds_them(tmp_path: Path) -> None:
    expected = ClipStore(made_clips(tmp_path / "expected", 1)).sha256
    reference = publish_clips(made_clips(tmp_path / "made", 1), tmp_path)
    assert reference == {"path": f"clips/{expected}", "sha256": expected, "clips": 3, "frames": 3}
    write_json(tmp_path / "reference.json", reference)
    assert ClipStore(clips_folder(tmp_path / "reference.json", tmp_path)).sha256 == expected
    assert not (tmp_path / "made").exists()


def test_the_same_clips_again_leave_those_that_are_read(tmp_path: Path) -> None:
    first = publish_clips(made_clips(tmp_path / "made", 1), tmp_path)
    inode = (tmp_path / first["path"]).stat().st_ino
    assert publish_clips(made_clips(tmp_path / "again", 1), tmp_path) == first
    assert (tmp_path / first["path"]).stat().st_ino == inode
    assert publish_clips(made_clips(tmp_path / "other", 9), tmp_path)["path"] != first["path"]


def test_runs_at_once_publish_the_same_clips_once(tmp_path: Path) -> None:
    sources = [made_clips(tmp_path / f"made{number}", 1) for number in range(6)]
    found: list[object] = []

    def publish(path: Path) -> None:
        try:
            found.append(publish_clips(path, tmp_path)["sha256"])
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=publish, args=(path,)) for path in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 6
    assert len(list((tmp_path / "clips").iterdir())) == 1


def test_clips_that_are_gone_or_changed_are_told(tmp_path: Path) -> None:
    reference = publish_clips(made_clips(tmp_path / "made", 1), tmp_path)
    write_json(tmp_path / "reference.json", reference)
    folder = tmp_path / reference["path"]
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(BadClipStore, match=r"is gone.*without the cache"):
        clips_folder(tmp_path / "reference.json", tmp_path)
    made_clips(folder, 77)
    with pytest.raises(BadClipStore, match="other clips than its name says"):
        clips_folder(tmp_path / "reference.json", tmp_path)


def test_a_manifest_lies_by_content(tmp_path: Path) -> None:
    (tmp_path / "made.json").write_text("{}\n")
    digest = publish_manifest(tmp_path / "made.json", tmp_path)
    assert digest == file_sha256(tmp_path / "made.json")
    assert manifest_file(tmp_path, digest).read_text() == "{}\n"
    assert publish_manifest(tmp_path / "made.json", tmp_path) == digest
    assert [file.name for file in (tmp_path / "footage").iterdir()] == [f"{digest}.json"]


def test_metrics_are_kept_for_the_end_and_shown_as_numbers(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "abc")
    write_json(tmp_path / "m.json", {"a": {"b": 1, "c": "word"}, "d": 2.5, "on": True, "list": [1, 2]})
    assert run.keep("train-encoder", tmp_path / "m.json") == {"a.b": 1.0, "d": 2.5}
    assert run.metrics["train-encoder"].read_bytes() == (tmp_path / "m.json").read_bytes()


def test_a_group_is_what_it_was_and_a_wrong_one_is_told() -> None:
    config = group(TrainDeblurrerConfig, json.dumps({"loss": {"alpha": 0.1}, "model": {"blocks": [1, 2]}}))
    assert config.loss.alpha == 0.1
    assert config.model.blocks == (1, 2)
    with pytest.raises(BadParameters, match="the pipeline's parameters"):
        group(TrainDeblurrerConfig, '{"los": {}}')
