"""`deblurrer.start`: from where, what the model says of it, and what is refused before anything is trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from components.register_model.card import _training
from components.train_deblurrer.scale import ScaleConfig
from components.train_deblurrer.start import opened_start
from components.train_deblurrer.step import TrainDeblurrerConfig, train_deblurrer
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.models import build_deblurrer, load_deblurrer, save_deblurrer
from hypercut_core.errors import BadCheckpoint, BadParameters
from hypercut_core.files import file_sha256
from hypercut_core.ordering.encoder import EncoderConfig, build_encoder, save_encoder
from hypercut_core.ordering.labels import OrderTable, write_orders
from hypercut_core.training.loop import TrainingConfig
from pipelines.submit import _check_place_of_start
from tests.hypercut_core.counting import stored_clips

MODEL = DeblurrerConfig(width=4, blocks=(1, 1), views=1)
TRAINING = TrainingConfig(steps=2, batch=2, crop=24, rate=1e-20, weight_decay=0.0)
CONFIG = TrainDeblurrerConfig(objective="naive", model=MODEL, training=TRAINING)


def model_file(path: Path) -> Path:
    torch.manual_seed(5)
    save_deblurrer(path, build_deblurrer(MODEL, 7), {})
    return path


@pytest.fixture
def clips(tmp_path: Path) -> ClipStore:
    store = stored_clips(tmp_path / "clips", 4, 24)
    ahead = np.ones(4, np.int8)
    write_orders(tmp_path / "orders", OrderTable([one.clip_id for one in store.records], ahead,
                                                 ahead.astype(np.float32), np.ones(4, np.float32), np.ones(4, bool),
                                                 np.tile(ahead[:, None], 8)))
    save_encoder(tmp_path / "encoder", build_encoder(EncoderConfig(width=4, blocks=1, features=8)), {})
    return store


def train(folder: Path, start: str, out: str = "model", **changed: object) -> Path:
    train_deblurrer(folder / "clips", folder / "orders", folder / "encoder",
                    dataclasses.replace(CONFIG, start=start, **changed),  # type: ignore[arg-type]
                    "naive", folder / out, folder / "metrics.json", 0, folder / "work")
    return folder / out


def test_the_step_begins_with_the_weights_and_the_model_says_so(clips: ClipStore, tmp_path: Path) -> None:
    begun = model_file(tmp_path / "old-naive")
    made = load_deblurrer(train(tmp_path, str(tmp_path / "old-{objective}")))
    for name, weight in load_deblurrer(begun).state_dict().items():
        assert torch.allclose(made.state_dict()[name], weight, rtol=0, atol=1e-12)
    assert made.card["start"] == {"name": str(begun), "sha256": file_sha256(begun)}
    assert f"- begun with the weights of: {begun}"[:100] in _training(made.card, {})
    assert "start" not in load_deblurrer(train(tmp_path, "", "fresh")).card
    assert "begun" not in _training(load_deblurrer(tmp_path / "fresh").card, {})


def test_what_cannot_be_begun_with_is_refused(clips: ClipStore, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="no such model file") as missing:
        train(tmp_path, str(tmp_path / "missing"))
    assert missing.value.where == f"deblurrer.start {tmp_path / 'missing'}"
    assert "deblurrer.start empty" in str(missing.value)
    model_file(tmp_path / "model")
    before = file_sha256(tmp_path / "model")
    with pytest.raises(BadParameters, match="write over the model"):
        train(tmp_path, str(tmp_path / "model"))
    with pytest.raises(BadParameters, match="registry"):
        train(tmp_path, "models:/mine@champion")
    with pytest.raises(BadParameters, match="RayJob begins with fresh weights"):
        train(tmp_path, str(tmp_path / "model"), "other", scale=ScaleConfig(launcher="rayjob"))
    assert file_sha256(tmp_path / "model") == before
    assert not (tmp_path / "other").exists()


def test_an_object_on_s3_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.train_deblurrer import start

    monkeypatch.setattr(start, "download", lambda uri, file: model_file(tmp_path / uri.rpartition("/")[2]))
    found = opened_start("s3://bucket/{objective}.safetensors", "naive", tmp_path / "out", tmp_path)
    assert found is not None
    assert (found.name, found.sha256) == ("s3://bucket/naive.safetensors",
                                          file_sha256(tmp_path / "naive.safetensors"))


@pytest.mark.parametrize(("start", "store", "fine"), [
    ("", "/mnt/hypercut", True), ("/mnt/hypercut/a", "/mnt/hypercut", True), ("s3://b/a", "s3://b/store", True),
    ("data/start/a", "/mnt/hypercut", False), ("/mnt/hypercut/../a", "/mnt/hypercut", False),
    ("s3://b/a", "/mnt/hypercut", False), ("/mnt/hypercut/a", "s3://b/store", False),
    ("models:/a@champion", "/mnt/hypercut", False)])
def test_a_pipeline_is_not_submitted_with_a_model_that_its_task_could_not_read(start: str, store: str,
                                                                               fine: bool) -> None:
    if fine:
        _check_place_of_start(start, store)
        return
    with pytest.raises(BadParameters, match=r"deblurrer\.start: the task of the training could not read"):
        _check_place_of_start(start, store)


def test_a_changed_file_in_the_folder_of_starts_is_seen_by_dvc() -> None:
    import yaml

    root = Path(__file__).resolve().parents[2]
    stage = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["train-deblurrer"]
    assert "data/start" in stage["deps"]
    assert (root / "data/start").is_dir()
    assert json.dumps(stage["params"]).count("deblurrer.start") == 1
