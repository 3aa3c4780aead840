"""evaluate-trajectories on a real clip store and real model files, with a real process in the tracker's place."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.evaluate_trajectories.step import TrajectoriesConfig, evaluate_trajectories
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.models import save_deblurrer
from hypercut_core.errors import BadCheckpoint, BadClipStore, BadParameters, StorageError, TrackerError, TrackerMissing
from hypercut_core.ordering.labels import OrderTable, write_orders
from hypercut_core.trajectories.figures import REPEAT
from hypercut_core.trajectories.following import BLURRY, GIVEN, TRUE, Follower, System
from hypercut_core.trajectories.tracker import Tracker
from tests.tracker_double import tracker_double

T, SIDE = 5, 48
ON = TrajectoriesConfig(enabled=True, films=2, worst=1)
CLIPS = (("hand", "a"), ("hand", "=b"), ("street", "c"), ("hand", "=b"))


def make_store(path: Path, split: str = "test") -> Path:
    """A red dot on grey that moves by 3 px a frame, to the right and to the left in turn."""
    with ClipStoreWriter(path, T) as writer:
        for number, (category, source) in enumerate(CLIPS):
            sharp = np.full((T, SIDE, SIDE, 3), 120.0)
            for t in range(T):
                x = 15 + 3 * (t if number % 2 == 0 else T - 1 - t) + number
                sharp[t, 22 + number:26 + number, x:x + 3] = (240, 20, 20)
            frames = np.concatenate([sharp.mean(0, keepdims=True), sharp]).round().astype(np.uint8)
            writer.add(frames, clip_id=f"clip-{number}", source=source, split=split, category=category, motion=12.0,
                       response="none")
    return path


def make_model(path: Path, frames: int = T, seed: int = 0, response: str = "none") -> Path:
    torch.manual_seed(seed)
    model = EvenOddDeblurrer(DeblurrerConfig(width=8, blocks=(1, 1), block="conv", response=response), frames)
    torch.nn.init.normal_(model.trunk.leave.weight, std=0.05)
    save_deblurrer(path, model, {"objective": path.stem})
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("trajectories")
    store = make_store(folder / "clips")
    ids = [record.clip_id for record in ClipStore(store).records]
    direction = np.array([1, -1, 1, 1], np.int8)
    write_orders(folder / "orders.parquet", OrderTable(
        ids, direction, -direction.astype(np.float32), np.ones(4, np.float32), np.ones(4, bool),
        np.repeat(direction[:, None], 8, axis=1)))
    python, calls = tracker_double(folder)
    return {"folder": folder, "store": store, "orders": folder / "orders.parquet", "python": python, "calls": calls,
            "models": {"mine": make_model(folder / "mine.safetensors")}}


def run(world: dict[str, Any], out: Path, config: TrajectoriesConfig = ON, **more: Any) -> dict[str, Any]:
    settings = {"tracker": Tracker(world["python"]), "device": "cpu", "provenance": {"git": "abc<b>"}, **more}
    return evaluate_trajectories(world["store"], settings.pop("models", world["models"]), world["orders"],
                                 out / "page", out / "m.json", config, out / "work", **settings)


def study_of(world: dict[str, Any], folder: Path, systems: list[System]) -> Any:
    from components.evaluate_trajectories.study import Study

    clips = ClipStore(world["store"])
    return Study(clips, [(0, "hand"), (1, "hand"), (3, "hand")], systems, np.array([1, -1, 1]),
                 Tracker(world["python"]), folder, 1)


def test_a_perfect_system_and_its_reverse_are_measured_as_such(world: dict[str, Any], tmp_path: Path) -> None:
    """Of the three hands two have the canonical order in which they are stored, and one its reverse."""
    study = study_of(world, tmp_path, [System("perfect", "p", lambda clip: clip[1:]),
                                       System("backwards", "b", lambda clip: clip[:0:-1])])
    figures = study.figures("perfect")
    for name, direction in (("perfect", 2 / 3), ("backwards", 1 / 3)):
        one = figures["models"][name]
        assert (one["rate"], one["within"], one["error_px"], one["motion"]) == (1, 1, 0, 1)
        assert one["direction"] == pytest.approx(direction)
        assert one["direction_clips"] == 3
    repeat, against = figures["repeat"], figures["models"]["perfect"]["against_repeating"]
    assert repeat["rate"] == 0  # the dot is smeared over five places
    assert repeat["within"] == 0
    assert against["rate_gain"] == 1
    assert against["rate_higher"] == 3
    assert against["error_clips"] == 0
    assert figures["true"]["rate"] == 1
    assert figures["sources"] == 2


def test_a_visible_smear_is_found_and_stands_still(world: dict[str, Any], tmp_path: Path) -> None:
    python, _ = tracker_double(tmp_path, enough=20)
    study = study_of({**world, "python": python}, tmp_path / "kept", [System("perfect", "p", lambda clip: clip[1:])])
    figures = study.figures("perfect")
    assert figures["repeat"]["rate"] == 1
    assert figures["repeat"]["motion"] == 0
    assert figures["repeat"]["error_px"] > 2
    against = figures["models"]["perfect"]["against_repeating"]
    assert against["error_gain_px"] == pytest.approx(against["repeat_error"] * 8, rel=1e-4)
    assert against["error_lower"] == 3


def test_figures_and_files(world: dict[str, Any], tmp_path: Path) -> None:
    figures = run(world, tmp_path)
    written = json.loads((tmp_path / "m.json").read_text())
    assert set(written) == {"enabled", "split", "test_set", "frames", "default", "clips", "sources", "with_truth",
                            "true", "repeat", "models", "categories"}
    assert written["enabled"] is True
    assert written["clips"] == 3  # the street is left out
    assert written["test_set"] == figures["test_set"]
    assert list(written["categories"]) == ["hand"]
    assert written["categories"]["hand"]["models"]["mine"] == written["models"]["mine"]
    with (tmp_path / "page/per_clip.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 3
    assert {row["system"] for row in rows} == {TRUE, REPEAT, "mine"}
    assert rows[1]["source"] == "'=b"  # no formula in a spreadsheet
    page = (tmp_path / "page/report.html").read_text()
    assert "abc&lt;b&gt;" in page
    assert page.count("<polyline") > 20
    assert str(tmp_path) not in (tmp_path / "m.json").read_text()


def test_a_stopped_step_goes_on_and_ends_the_same(world: dict[str, Any], tmp_path: Path) -> None:
    """What was found is not looked for again, and figures of kept results have the same bytes."""
    whole = tmp_path / "whole"
    run(world, whole)
    kept = sorted((whole / "work/trajectories").iterdir())
    assert len(kept) == 3 * 3
    for file in kept[::2]:
        file.unlink()
    kept[1].write_bytes(b"PK damaged")
    before = len(world["calls"].read_text().splitlines())
    first = (whole / "m.json").read_bytes()
    run(world, whole)
    (again,) = [json.loads(line) for line in world["calls"].read_text().splitlines()[before:]]
    assert again[:2] == ["hand", 2]
    assert again[2] < 3 * (1 + T + T)
    assert (whole / "m.json").read_bytes() == first
    run(world, whole)
    assert len(world["calls"].read_text().splitlines()) == before + 1  # nothing is missing now


def test_what_is_kept_is_known_by_clip_model_and_way(world: dict[str, Any], tmp_path: Path) -> None:
    clips = ClipStore(world["store"])
    follower = Follower(clips, Tracker(world["python"]), tmp_path, 1)
    follower.follow([0], ["hand"], GIVEN)
    names = {file.name for file in tmp_path.iterdir()}
    assert [follower.lacks([0, 1], ["hand", "hand"], one) for one in GIVEN] == [1, 1]
    Follower(clips, Tracker(world["python"]), tmp_path, 2).follow([0], ["hand"], GIVEN)
    follower.follow([1], ["hand"], GIVEN)
    follower.follow([0], ["hand"], [System("other", "other", lambda clip: clip[1:])])
    assert len(names) == 2
    assert len(list(tmp_path.iterdir())) == 2 + 2 + 2 + 1
    (found,) = follower.follow([0], ["hand"], GIVEN)
    assert [len(picture) for picture in found[TRUE]] == [1] * T
    assert found[BLURRY] == [[]]
    assert found[TRUE][2][0].handedness == "left"
    assert found[TRUE][2][0].points.dtype == np.float32


def test_more_models_are_compared(world: dict[str, Any], tmp_path: Path) -> None:
    other = make_model(tmp_path / "jin.safetensors", seed=1)
    figures = run(world, tmp_path, TrajectoriesConfig(enabled=True, films=1, worst=0, others=(f"cascade={other}",)))
    assert list(figures["models"]) == ["mine", "cascade"]
    assert figures["default"] == "mine"


def test_every_clip_where_kinds_are_named(world: dict[str, Any], tmp_path: Path) -> None:
    config = TrajectoriesConfig(enabled=True, films=0, worst=0, kinds=("hand",), max_clips=3)
    figures = run(world, tmp_path, config)
    assert figures["clips"] == 3
    assert set(figures["categories"]) == {"hand", "street"}


def test_nothing_found_anywhere_is_told_and_no_failure(world: dict[str, Any], tmp_path: Path) -> None:
    python, _ = tracker_double(tmp_path, answers=False)
    figures = run({**world, "python": python}, tmp_path)
    assert figures["with_truth"] == 0
    written = json.loads((tmp_path / "m.json").read_text())
    assert written["models"]["mine"]["rate"] == 0
    assert written["models"]["mine"]["error"] is None
    page = (tmp_path / "page/report.html").read_text()
    assert "an unknown share" in page
    assert "&lt;span" not in page


def test_switched_off_it_says_so_and_needs_no_tracker(world: dict[str, Any], tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_trajectories("/nowhere", {}, None, tmp_path / "page", tmp_path / "m.json", TrajectoriesConfig(),
                                 tmp_path / "work") == {"enabled": False}
    assert json.loads((tmp_path / "m.json").read_text()) == {"enabled": False}
    assert "trajectories.enabled" in (tmp_path / "page/report.html").read_text()
    assert "switched off" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_without_the_tracker_nothing_is_restored_first(world: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TrackerMissing, match="make tracker"):
        run(world, tmp_path, tracker=Tracker(tmp_path / "none/bin/python"))
    assert not (tmp_path / "m.json").exists()
    assert not list(tmp_path.rglob("*.npz"))


def test_a_tracker_that_fails_fails_the_step_and_leaves_nothing(world: dict[str, Any], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(TrackerError, match="out of luck"):
        run(world, tmp_path, tracker=Tracker(python))
    assert not (tmp_path / "page").exists()
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize(("config", "error", "what"), [
    (TrajectoriesConfig(enabled=True, most=9), BadParameters, "from 1 to 8"),
    (TrajectoriesConfig(enabled=True, kinds=("hand", "hand")), BadParameters, "twice"),
    (TrajectoriesConfig(enabled=True, others=("cascade",)), BadParameters, "NAME=FILE"),
    (TrajectoriesConfig(enabled=True, others=("mine=x.safetensors",)), BadParameters, "no other model"),
    (TrajectoriesConfig(enabled=True, others=("a=nowhere.safetensors",)), (BadCheckpoint, StorageError), "nowhere"),
    (TrajectoriesConfig(enabled=True, split="val"), BadClipStore, "trajectories.kinds"),
])
def test_what_makes_no_sense_is_refused(world: dict[str, Any], tmp_path: Path, config: TrajectoriesConfig,
                                        error: Any, what: str) -> None:
    with pytest.raises(error, match=what):
        run(world, tmp_path, config)
    assert not (tmp_path / "page").exists()


def test_a_model_of_other_frames_is_refused(world: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="gives 3 frames, the clips have 5"):
        run(world, tmp_path, models={"mine": make_model(tmp_path / "three.safetensors", frames=3)})
    with pytest.raises(BadParameters, match="there is no model of the default objective"):
        run(world, tmp_path, default="another")


def as_a_task(world: dict[str, Any], folder: Path, enabled: bool) -> tuple[Path, dict[str, Any], Path]:
    """Kubeflow's face of the step: its store, its output artifacts and the clips that it was given."""
    from types import SimpleNamespace

    from components.evaluate_trajectories.component import evaluate_trajectories as face
    from components.shared_store import publish_clips
    from hypercut_core.files import write_json

    store, outputs = folder / "store", folder / "run/evaluate-trajectories"
    write_json(folder / "clips.json", publish_clips(make_store(folder / "made"), store))
    outputs.mkdir(parents=True)
    made = {name: SimpleNamespace(path=str(outputs / name), metadata={}, uri=str(outputs / name))
            for name in ("metrics", "report", "per_clip")}
    config = {"enabled": enabled, "split": "test", "kinds": [], "most": 2, "max_clips": 0, "others": [], "films": 1,
              "worst": 0}
    face.python_func(clips=SimpleNamespace(path=str(folder / "clips.json")),
                     orders=SimpleNamespace(path=str(world["orders"])), objectives=["mine"],
                     models=[SimpleNamespace(path=str(world["models"]["mine"]))], deblurrer_objective="mine",
                     trajectories=json.dumps(config), store=str(store), **made)
    (run,) = (store / "runs").iterdir()
    return outputs, made, run


def test_as_a_task_of_a_pipeline(world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through Kubeflow's face: artifacts in, artifacts out, the work in the run's own folder."""
    from components.evaluate_trajectories import step as module

    monkeypatch.setattr(module, "_tracker", lambda: Tracker(world["python"]))
    outputs, made, run = as_a_task(world, tmp_path, enabled=True)
    figures = json.loads((outputs / "metrics").read_text())
    assert figures["clips"] == 3
    assert made["metrics"].metadata["models.mine.rate"] == figures["models"]["mine"]["rate"]
    assert "<polyline" in (outputs / "report").read_text()
    assert (outputs / "per_clip").read_text().startswith("system,")
    assert (run / "metrics/evaluate-trajectories.json").is_file()
    assert len(list((run / "work/trajectories").glob("*.npz"))) == 3 * 3


def test_as_a_task_that_is_switched_off(world: dict[str, Any], tmp_path: Path) -> None:
    """A package compiled with the tracker's image, in a run that does not want it: every artifact is there."""
    outputs, _, run = as_a_task(world, tmp_path, enabled=False)
    assert json.loads((outputs / "metrics").read_text()) == {"enabled": False}
    assert "trajectories.enabled" in (outputs / "report").read_text()
    columns, *rows = (outputs / "per_clip").read_text().splitlines()
    assert columns.startswith("system,clip_id,")
    assert rows == []
    assert json.loads((run / "steps/evaluate-trajectories.json").read_text())["state"] == "done"
    assert not (run / "work").exists()
