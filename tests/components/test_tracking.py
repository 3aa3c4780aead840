"""Runs are parents and children, secrets stay out, and models are found by path or by alias."""

from __future__ import annotations

import traceback
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


def test_an_odd_name_costs_no_other_parameter(workspace: Path) -> None:
    with tracking.run("evaluate", workspace, params={"data (sha256)": "abc", "seed": 1}) as run:
        pass
    assert tracking.client(workspace).get_run(run.run_id).data.params == {"data _sha256_": "abc", "seed": "1"}


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


# -- a Kubeflow run --


def test_all_steps_of_a_kubeflow_run_meet_in_one_parent(workspace: Path) -> None:
    client = tracking.client(workspace)
    runs = []
    for pipeline, step, git in (("p-1", "train-encoder", "abc"), ("p-1", "evaluate", "other"),
                                ("p-2", "evaluate", "abc")):
        with tracking.run(step, workspace, params={"seed": 1}, tags={"git": git}, pipeline_id=pipeline) as run:
            runs.append(client.get_run(run.run_id).data.tags)
    first, second, other = (tags["mlflow.parentRunId"] for tags in runs)
    assert first == second != other
    assert [tags["hypercut.pipeline_id"] for tags in runs] == ["p-1", "p-1", "p-2"]
    parent = client.get_run(first)
    assert parent.data.tags["hypercut.pipeline_id"] == "p-1"
    assert parent.info.status == "RUNNING"


@pytest.mark.parametrize(("state", "failed_step", "status"), [
    ("SUCCEEDED", "", "FINISHED"), ("FAILED", "train-encoder", "FAILED"), ("CANCELLED", "", "KILLED"),
    ("SUCCEEDED", "evaluate", "FAILED")])
def test_closing_tells_the_outcome(workspace: Path, state: str, failed_step: str, status: str) -> None:
    with tracking.run("train-encoder", workspace, pipeline_id="p-1") as run:
        pass
    client = tracking.client(workspace)
    closed = tracking.close_pipeline("p-1", state, workspace, failed_step=failed_step,
                                     reason="no room at https://me:hunter2@disk.example", tags={"git": "abc"})
    assert closed == client.get_run(run.run_id).data.tags["mlflow.parentRunId"]
    parent = client.get_run(closed)
    assert parent.info.status == status
    assert parent.data.tags["hypercut.outcome"] == state.lower()
    assert parent.data.tags.get("hypercut.failed_step", "") == failed_step
    assert parent.data.tags["hypercut.reason"] == "no room at https://disk.example"
    assert parent.data.tags["git"] == "abc"
    assert tracking.pipeline_address("p-1", workspace).startswith(f"run {closed} in sqlite:")


def test_closing_a_pipeline_in_which_nothing_was_logged(workspace: Path) -> None:
    closed = tracking.close_pipeline("p-1", "FAILED", workspace, failed_step="collect-footage")
    assert tracking.client(workspace).get_run(closed).info.status == "FAILED"
    assert tracking.pipeline_address("p-2", workspace) == ""


def test_closing_leaves_a_given_run_to_its_owner(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tracking.client(workspace)
    given = client.create_run(client.create_experiment("from outside")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    with tracking.run("evaluate", workspace, pipeline_id="p-1", tags={"git": "abc"}):
        pass
    client.update_run(given, "RUNNING")
    assert tracking.close_pipeline("p-1", "FAILED", workspace) == given
    found = client.get_run(given)
    assert found.info.status == "RUNNING"
    assert found.data.tags["hypercut.pipeline_id"] == "p-1"
    assert found.data.tags["git"] == "abc"
    assert client.get_experiment_by_name(tracking.EXPERIMENT) is None  # nothing besides the given run


def test_an_id_that_is_no_word_is_no_query(workspace: Path) -> None:
    odd = "x' or tags.`a` = 'b"
    with tracking.run("evaluate", workspace, pipeline_id="p-1"):
        pass
    parents = {tracking.close_pipeline(odd, "SUCCEEDED", workspace) for _ in range(2)}
    assert len(parents) == 1
    assert tracking.pipeline_address(odd, workspace).startswith(f"run {parents.pop()}")


def test_the_same_metrics_are_recorded_for_each_kubeflow_run(workspace: Path) -> None:
    write_json(workspace / "m.json", {"hit": 1.0})
    for pipeline in ("p-1", "p-2", "p-2"):
        tracking.record({"train-encoder": workspace / "m.json"}, workspace, params={}, tags={}, pipeline_id=pipeline)
    client = tracking.client(workspace)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    found = client.search_runs([experiment], "tags.`hypercut.step` = 'train-encoder'")
    assert sorted(run.data.tags["hypercut.pipeline_id"] for run in found) == ["p-1", "p-2"]


def test_revision_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.local import git_revision

    monkeypatch.delenv("HYPERCUT_REVISION", raising=False)
    assert tracking.source_revision() == ""
    assert len(git_revision().removesuffix("+changes")) in (0, 40)
    monkeypatch.setenv("HYPERCUT_REVISION", "abc123\n")
    assert tracking.source_revision() == git_revision() == "abc123"


# -- secrets --


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
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))  # as a container's log has it
    assert "\n" not in str(caught.value)


def test_a_damaged_store_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(RegistryError, match="not a database"):
        tracking.client(tmp_path)
