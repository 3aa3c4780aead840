"""Runs are parents and children, secrets stay out, and models are found by path or by alias."""

from __future__ import annotations

from pathlib import Path

import pytest

from components import tracking
from hypercut_core.errors import BadCheckpoint, RegistryError
from hypercut_core.files import write_json
from tests.components.registry_fixtures import alone, with_store

pytest.importorskip("mlflow")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    alone(monkeypatch)
    return with_store(tmp_path / "space")


def test_store_lies_in_the_workspace_unless_a_server_is_set(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)
    assert tracking.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter2@tracking.example/api")
    assert tracking.tracking_uri(tmp_path) == "https://me:hunter2@tracking.example/api"
    assert tracking.shown_uri(tracking.tracking_uri(tmp_path)) == "https://tracking.example/api"


def test_steps_with_the_same_code_and_parameters_share_one_parent(workspace: Path) -> None:
    params = {"seed": 1, "encoder": {"training": {"steps": 5}}}
    runs = []
    for step, git in (("train-encoder", "abc"), ("evaluate", "abc"), ("evaluate", "def")):
        with tracking.run(step, workspace, params=params, tags={"git": git}) as run:
            run.metrics({"gain": 3.5, "frames": [1.0, 2.0], "name": "text"})
            runs.append(run.run_id)
    client = tracking.client(workspace)
    first, second, other = (client.get_run(run) for run in runs)
    parent = first.data.tags["mlflow.parentRunId"]
    assert second.data.tags["mlflow.parentRunId"] == parent
    assert other.data.tags["mlflow.parentRunId"] != parent
    assert first.info.run_name == "train-encoder"
    assert first.info.status == "FINISHED"
    assert first.data.params == {"seed": "1", "encoder.training.steps": "5"}
    assert first.data.metrics == {"gain": 3.5, "frames.1": 1.0, "frames.2": 2.0}
    assert client.get_run(parent).data.params == first.data.params
    assert first.info.artifact_uri.startswith((workspace / "mlartifacts").as_uri())


def test_a_failing_step_leaves_a_failed_run(workspace: Path) -> None:
    with pytest.raises(ZeroDivisionError), tracking.run("evaluate", workspace) as run:
        raise ZeroDivisionError
    assert tracking.client(workspace).get_run(run.run_id).info.status == "FAILED"


def test_a_given_run_is_logged_into_as_it_is(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tracking.client(workspace)
    given = client.create_run(client.create_experiment("from outside")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    for step in ("evaluate", "register-model"):
        with tracking.run(step, workspace, params={"seed": 3}) as run:
            assert run.run_id == given
            run.metrics({f"{step} gain": 1.0})
    found = client.get_run(given)
    assert "mlflow.parentRunId" not in found.data.tags
    assert found.data.params == {"evaluate.seed": "3", "register-model.seed": "3"}
    assert set(found.data.metrics) == {"evaluate gain", "register-model gain"}


def test_secrets_are_never_logged(workspace: Path) -> None:
    secrets = {"aws_secret_access_key": "hunter2", "password": "hunter2", "API_KEY": "hunter2",
               "nested": {"auth_token": "hunter2"}, "footage": "https://me:hunter2@example.org/clips"}
    with tracking.run("collect-footage", workspace, params=secrets, tags=secrets) as run:
        run.tags({"s3_token": "hunter2", "kept": "yes"})
    data = tracking.client(workspace).get_run(run.run_id).data
    assert "hunter2" not in str(data.params) + str(data.tags)
    assert data.params["footage"] == "https://example.org/clips"
    assert data.tags["kept"] == "yes"
    assert b"hunter2" not in (workspace / "mlflow.db").read_bytes()


def test_finished_steps_are_recorded_once(workspace: Path) -> None:
    files = {name: workspace / f"metrics/{name}.json" for name in ("train-encoder", "gone")}
    write_json(files["train-encoder"], {"hit": 1.0, "con3": 0.9})
    for _ in range(2):
        tracking.record(files, workspace, params={"seed": 0}, tags={"git": "abc"})
    client = tracking.client(workspace)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    found = client.search_runs([experiment], "tags.`hypercut.step` = 'train-encoder'")
    assert [run.data.metrics for run in found] == [{"hit": 1.0, "con3": 0.9}]
    assert len(client.search_runs([experiment])) == 2  # it and its parent


def test_model_by_path_and_by_alias(workspace: Path) -> None:
    file = workspace / "m.safetensors"
    file.write_bytes(b"x")
    assert tracking.model_file(file, workspace) == file
    with pytest.raises(BadCheckpoint, match="no such model file"):
        tracking.model_file(workspace / "none.safetensors", workspace)
    for uri in ("models:/nothing@champion", "models:/nothing/1", "models:/"):
        with pytest.raises(RegistryError, match="register-model"):
            tracking.model_file(uri, workspace)


def test_looking_for_a_model_creates_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)
    with pytest.raises(RegistryError, match="no model store"):
        tracking.model_file("models:/hypercut-deblurrer@champion", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_one_clear_error(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI") as caught:
        tracking.client(tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_store_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(RegistryError, match="not a database"):
        tracking.client(tmp_path)
