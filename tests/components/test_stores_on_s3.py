"""Clip stores and a pipeline's store written to S3: whole or invisible, resumed, shared without a file system."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components import storage
from components.clip_stores import open_clips
from components.storage import s3_client
from hypercut_core.clips.store import ClipStore, ClipStoreWriter, Packing
from hypercut_core.errors import BadClipStore, DataRejected
from hypercut_core.files import read_json, write_json


def stored(folder: Path, seed: int, clips: int) -> Path:
    rng = np.random.default_rng(seed)
    with ClipStoreWriter(folder, 3, Packing(chunk=16, shard_bytes=2 * 4 * 32 * 32 * 3)) as writer:
        for number in range(clips):
            writer.add(rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), clip_id=f"c{number}",
                       source=f"s{number}", split="train", category="x", motion=1.0)
    return folder


class Recorder:
    """boto3's client, its writes noted; breaks before write number `breaks`."""

    def __init__(self, client: object, breaks: int = -1):
        self.client, self.breaks, self.writes = client, breaks, []

    def __getattr__(self, name: str) -> object:
        method = getattr(self.client, name)
        if name not in ("put_object", "delete_object"):
            return method

        def noted(**given: str) -> object:
            if len(self.writes) == self.breaks:
                raise KeyboardInterrupt
            self.writes.append((name.split("_")[0], given["Key"].removeprefix("set/")))
            return method(**given)

        return noted


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Recorder]:
    def record(breaks: int = -1) -> Recorder:
        recorder = Recorder(real, breaks)
        monkeypatch.setattr(s3_client, "client", lambda: recorder)
        return recorder

    real = s3_client.client()
    return record


def test_a_store_is_visible_only_when_it_is_whole(bucket: str, tmp_path: Path, writes: Callable[..., Recorder]) -> None:
    """Broken off before any of its writes: no store, or the whole one; then it goes on."""
    first, second = (ClipStore(stored(tmp_path / str(seed), seed, clips)) for seed, clips in ((1, 5), (2, 3)))
    done = writes()
    storage.upload_clips(Path(first.path), f"{bucket}/set")
    assert [key for _, key in done.writes][-2:] == ["clips.parquet", "zarr.json"]
    assert open_clips(f"{bucket}/set").sha256 == first.sha256
    done = writes()
    storage.upload_clips(Path(first.path), f"{bucket}/set")
    assert done.writes == []

    done = writes()
    storage.upload_clips(Path(second.path), f"{bucket}/set")
    assert done.writes[0] == ("delete", "zarr.json")
    for cut in range(1, len(done.writes)):
        writes()
        storage.upload_clips(Path(first.path), f"{bucket}/set")
        begun = writes(cut)
        with pytest.raises(KeyboardInterrupt):
            storage.upload_clips(Path(second.path), f"{bucket}/set")
        with pytest.raises(BadClipStore, match="missing"):
            open_clips(f"{bucket}/set")
        rest = writes()
        storage.upload_clips(Path(second.path), f"{bucket}/set")
        assert not {write for write in rest.writes if write[0] == "put"} & set(begun.writes)  # nothing goes up twice
        store = open_clips(f"{bucket}/set")
        [store.verify(i) for i in range(len(store))]
        assert store.sha256 == second.sha256
        assert sorted(storage.list_files(f"{bucket}/set")) == sorted(storage.list_files(second.path))


def test_what_is_no_part_of_a_store_is_left_alone(bucket: str, tmp_path: Path) -> None:
    s3_client.client().put_object(Bucket="footage", Key="set/notes.txt", Body=b"mine")
    s3_client.client().put_object(Bucket="footage", Key="settings", Body=b"mine")
    storage.upload_clips(stored(tmp_path / "a", 1, 5), f"{bucket}/set")
    storage.upload_clips(stored(tmp_path / "b", 2, 1), f"{bucket}/set")
    assert storage.exists(f"{bucket}/set/notes.txt")
    assert storage.exists(f"{bucket}/settings")


def test_clips_are_made_on_s3_and_a_broken_upload_makes_none_again(
        bucket: str, tmp_path: Path, writes: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    from components.collect_footage.step import CollectConfig, collect_footage
    from components.synthesize_blur import step, tasks

    manifest, metrics = tmp_path / "data/footage.json", tmp_path / "metrics.json"
    collect_footage(CollectConfig(), manifest, 0)
    config = step.SynthesisConfig(clips=step.ClipCounts(2, 1, 1))
    expected = step.synthesize_blur(manifest, config, tmp_path / "clips", metrics, 0, 3)
    there = metrics.read_bytes()
    metrics.unlink()
    writes(1)
    with pytest.raises(KeyboardInterrupt):
        step.synthesize_blur(manifest, config, f"{bucket}/set", metrics, 0, 3)
    assert not metrics.exists()
    writes()
    monkeypatch.setattr(tasks, "render_clips", None)
    assert step.synthesize_blur(manifest, config, f"{bucket}/set", metrics, 0, 3)["clips"] == expected["clips"]
    assert metrics.read_bytes() == there
    assert open_clips(f"{bucket}/set").sha256 == ClipStore(tmp_path / "clips").sha256
    assert list((tmp_path / "work/upload").iterdir()) == []


ARTIFACT = "s3://root/hypercut-training/0b1c"


def elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From here on as in another container: another temporary folder."""
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


def test_a_run_shares_a_store_on_s3_without_a_file_system(bucket: str, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    from components.close_run.outcome import clean_up, outcome
    from components.shared_store import (
        RunFolder,
        clips_folder,
        manifest_file,
        open_store,
        publish_clips,
        publish_manifest,
        run_name,
        running,
    )
    from components.train_deblurrer.step import TrainDeblurrerConfig
    from components.train_encoder.step import TrainEncoderConfig

    store, reference = f"{bucket}/set/store", tmp_path / "reference.json"
    elsewhere(monkeypatch, tmp_path / "one")
    with running("synthesize-blur", store, f"{ARTIFACT}/synthesize-blur/x/clips") as run:
        (tmp_path / "footage.json").write_text("{}\n")
        digest = publish_manifest(tmp_path / "footage.json", run.store)
        write_json(reference, publish_clips(stored(run.unfinished / "clips", 1, 3), run.store))
        write_json(tmp_path / "metrics.json", {"clips": 3})
        run.keep("synthesize-blur", tmp_path / "metrics.json")
        run.remember(manifest=digest)
        run.work.mkdir(parents=True)
        (run.work / "large").write_bytes(b"stays here")
    elsewhere(monkeypatch, tmp_path / "two")
    with pytest.raises(SystemExit, match="too dark"), \
            running("train-deblurrer", store, f"{ARTIFACT}/train-deblurrer/y/model", "hypercut") as run:  # noqa: PT012
        where = clips_folder(reference, run.store)
        assert where == f"{store}/{read_json(reference)['path']}"
        assert len(open_clips(where)) == 3
        assert manifest_file(run.store, run.lineage["manifest"]).read_text() == "{}\n"
        assert run.with_checkpoints(TrainDeblurrerConfig()).scale.checkpoints == f"{store}/runs/{run.name}/work"
        assert run.with_checkpoints(TrainEncoderConfig()).checkpoints == f"{store}/runs/{run.name}/work"
        assert run.with_checkpoints(TrainEncoderConfig(checkpoints="/here")).checkpoints == "/here"
        storage.S3Files(f"{store}/runs/{run.name}/work/t").write("checkpoint", b"1")
        raise DataRejected("too dark", remedy="add light")
    assert not [name for name in storage.list_files(store) if "large" in name or "unfinished" in name]

    elsewhere(monkeypatch, tmp_path / "three")
    run = RunFolder(open_store(store), run_name(f"{ARTIFACT}/close-run/z/summary", "close-run"))
    run.state.pull()
    found = outcome(run, "FAILED")
    assert (found.failed_step, found.reason) == ("train-deblurrer-hypercut", "too dark. To mend it: add light.")
    assert list(run.metrics) == ["synthesize-blur"]
    clean_up(run, found)
    assert [name for name in storage.list_files(store) if name.startswith("runs/")]
    clean_up(run, replace(found, failed_step=""))
    assert {name.split("/")[0] for name in storage.list_files(store)} == {"clips", "footage"}


def test_steps_at_the_same_moment_do_not_undo_each_other_s_state(bucket: str, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    from components.shared_store import RunFolder, open_store, running

    store = f"{bucket}/set/store"
    elsewhere(monkeypatch, tmp_path / "one")
    with running("train-encoder", store, f"{ARTIFACT}/train-encoder/x/model") as first:
        elsewhere(monkeypatch, tmp_path / "two")
        with running("evaluate", store, f"{ARTIFACT}/evaluate/x/metrics") as second:
            second.remember(seed="1")
    elsewhere(monkeypatch, tmp_path / "three")
    run = RunFolder(open_store(store), first.name)
    run.state.pull()
    assert run.lineage == {"seed": "1"}
    assert [(note["task"], note["state"]) for note in run.notes()] == [("evaluate", "done"), ("train-encoder", "done")]


@pytest.mark.parametrize("objective", ["hypercut", "distilled"])
def test_an_encoder_goes_on_from_its_checkpoints_on_s3_on_another_machine(
        bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str) -> None:
    from components.train_encoder.step import TrainEncoderConfig, train_encoder
    from hypercut_core.deblurring.even_odd import DeblurrerConfig
    from hypercut_core.ordering import distillation, training
    from hypercut_core.ordering.encoder import EncoderConfig
    from hypercut_core.training.loop import TrainingConfig

    monkeypatch.setattr(distillation, "LEAST_COSINE", 0.0)  # a few steps teach nothing
    monkeypatch.setattr(training, "check_collapse", lambda *_: None)
    few = TrainingConfig(steps=8, batch=2, crop=16, checkpoint_seconds=0.0, device="cpu")
    config = TrainEncoderConfig(
        EncoderConfig(width=4, blocks=1, features=8), few, objective=objective,  # type: ignore[arg-type]
        teacher=distillation.TeacherConfig(DeblurrerConfig(width=4, blocks=(1, 1)), training=few),
        checkpoints=f"{bucket}/runs/1/work")
    clips, steps, both = stored(tmp_path / "clips", 1, 6), [0], training.both_scores

    def counted(*given: Any) -> Any:
        steps[0] += 1
        if steps[0] == 5:
            raise KeyboardInterrupt
        return both(*given)

    def trained(machine: str) -> Path:
        out = tmp_path / f"{machine}.safetensors"
        train_encoder(clips, config, out, tmp_path / "m.json", 3, tmp_path / machine)
        return out

    plain, config = config, replace(config, checkpoints="")
    undisturbed = trained("undisturbed")
    config = plain
    monkeypatch.setattr(training, "both_scores", counted)
    with pytest.raises(KeyboardInterrupt):
        trained("one")
    assert storage.list_files(config.checkpoints)
    assert not (tmp_path / "one").exists()
    steps[0] = 100
    assert trained("two").read_bytes() == undisturbed.read_bytes()
    assert steps[0] - 100 == few.steps - 4 + 1  # and the look at its collapse
    assert not storage.list_files(config.checkpoints)
