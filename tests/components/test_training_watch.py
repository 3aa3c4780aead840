"""A training that is watched: curves and pictures in a real MLflow store, and no server that could stop it."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.training.execution import Execution, Watch
from hypercut_core.training.loop import TrainingConfig, learning_rate

pytest.importorskip("mlflow")

from components import tracking, training_watch
from components.training_watch import MlflowWatch, Teller
from tests.components.registry_fixtures import alone, with_store

TRAINING = TrainingConfig(steps=12, batch=2, crop=16)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    path = tmp_path_factory.mktemp("store") / "clips"
    with ClipStoreWriter(path, 3) as writer:
        for split, count in (("train", 4), ("val", 3)):
            for k, clip in enumerate(render_clips(MovingPhotosConfig(size=20, subframes=1), split, count, 0, frames=3)):
                writer.add(clip.frames, clip_id=f"{split}{k}", source=clip.source, split=split,
                           category=clip.category, motion=clip.motion)
    return ClipStore(path)


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowWatch:
    alone(monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{with_store(tmp_path)}/mlflow.db")
    monkeypatch.setattr(training_watch, "FAREWELL", 300.0)  # the machine may be busy
    return pickle.loads(pickle.dumps(MlflowWatch("training naive", tmp_path, {"seed": 0}, {"git": "abc"})))


def fit(store: ClipStore, work: Path, told: Watch | None) -> None:
    settings = DeblurrerTraining(DeblurrerConfig(width=4, blocks=(1, 1)), training=TRAINING)
    fit_deblurrer(store, "naive", settings, 0, work, execution=Execution(watch=told, watch_seconds=0))


def test_curves_and_pictures_are_in_the_run_of_the_training(store: ClipStore, tmp_path: Path,
                                                            watch: MlflowWatch) -> None:
    with watch() as told:
        fit(store, tmp_path / "work", told)
    client = tracking.client(tmp_path)
    place = client.get_experiment_by_name("hypercut").experiment_id
    (run,) = client.search_runs([place], "tags.`hypercut.step` = 'training naive'")
    assert (run.info.status, run.data.params["seed"], run.data.tags["git"]) == ("FINISHED", "0", "abc")
    assert "mlflow.parentRunId" in run.data.tags
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert sorted(point.step for point in losses) == list(range(1, 13))
    rates = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "learning_rate")}
    assert rates == pytest.approx({step: learning_rate(TRAINING, step - 1) for step in range(1, 13)})
    assert min(point.value for point in client.get_metric_history(run.info.run_id, "samples_per_second")) > 0
    pictures = [item.path for item in client.list_artifacts(run.info.run_id, "pictures")]
    assert pictures == [f"pictures/step-{step:08d}.png" for step in (1, 11, 12)]
    shown = np.asarray(Image.open(client.download_artifacts(run.info.run_id, pictures[0], str(tmp_path))))
    assert shown.shape == (2 * 2 * (16 + 2), 4 * (16 + 2), 3)  # two clips: restored and true, the blurry image first
    record = store.records[store.indices("val")[0]]
    truth = store.read(int(store.indices("val")[0]))[:, 2:18, 2:18]
    assert (record.height, shown[:16, :16].tolist()) == (20, truth[0].tolist())
    assert shown[18:34, 18:34].tolist() == truth[1].tolist()


def test_a_training_that_goes_on_goes_on_in_its_run(tmp_path: Path, watch: MlflowWatch) -> None:
    def stopped(told: Watch | None) -> None:
        assert told is not None
        told(1, {"loss": 1.0}, None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watch() as told:
        stopped(told)
    killed = watch._open()  # the one that was stopped has ended: this is another
    killed.points([(1, {"loss": 3.0})])
    again = watch._open()
    assert again.run_id == killed.run_id
    again.end("FINISHED")
    assert watch._open().run_id != killed.run_id
    client = tracking.client(tmp_path)
    runs = client.search_runs([client.get_experiment_by_name("hypercut").experiment_id],
                              "tags.`hypercut.step` = 'training naive'")
    assert {run.info.status for run in runs} == {"KILLED", "FINISHED", "RUNNING"}
    assert len({run.data.tags["mlflow.parentRunId"] for run in runs}) == 1


def test_without_a_server_nothing_is_watched(watch: MlflowWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with watch() as told:
        assert told is None


def test_a_server_that_is_away_costs_figures_and_not_the_training(
        store: ClipStore, tmp_path: Path, watch: MlflowWatch, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with watch() as told:
            fit(store, tmp_path / "work", told)
    said = capsys.readouterr().err
    assert said.count("MLflow cannot be told") == 1
    assert "secret" not in said


def test_old_figures_make_room_for_new_ones() -> None:
    asked: list[bool] = []

    def away() -> tracking.StepRun:
        asked.append(True)
        raise ConnectionError("no route")

    teller = Teller(away)
    for step in range(1000):
        teller(step, {"loss": 0.0}, None)
    assert teller._queue.qsize() <= training_watch.GATHERED
    teller.close("FINISHED")
    assert teller._thread is not None
    assert not teller._thread.is_alive()
    assert len(asked) <= 2  # once for the figures and once to say goodbye
