"""The wiring on one machine: what register-model is handed, and what a run says of its origin."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.collect_footage.step import CollectConfig, collect_footage
from components.params import load
from hypercut_core.files import file_sha256, read_json, write_json
from pipelines import local
from pipelines.workspace import Workspace
from tests.components.registry_fixtures import alone, challenger, with_store

pytest.importorskip("mlflow")


def test_every_step_gets_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps before register-model import no MLflow: it logs their files, those that are there, in one go."""
    from components import tracking
    from components.register_model import step

    alone(monkeypatch)
    monkeypatch.setenv("HYPERCUT_REVISION", "c0ffee")
    monkeypatch.setattr(step, "log_pyfunc", lambda model, frames, card: (tmp_path.as_uri(), None))
    ws, parameters = Workspace(with_store(tmp_path)), load(None, "smoke", ["register.name=mine", "seed=4"])
    collect_footage(CollectConfig(), ws.manifest, 0)
    made, model = challenger(tmp_path, 1)
    ws.deblurrer(parameters.deblurrer.objective).write_bytes(model.read_bytes())
    write_json(ws.metrics("evaluate"), read_json(made))
    expected = set(local.step_metrics(ws, parameters))
    assert expected == {*local.STEPS, "train-deblurrer-sequence_min", "train-deblurrer-hypercut_targets"} - {
        "train-deblurrer", "evaluate-trajectories", "register-model"}
    switched_on = load(None, "smoke", ["trajectories.enabled=true"])
    assert set(local.step_metrics(ws, switched_on)) == expected | {"evaluate-trajectories"}
    for name in expected - {"collect-footage", "evaluate"}:
        file = local.step_metrics(ws, parameters)[name]
        write_json(file, {"figures": {"clips": 3}})
    local.register_model(ws, parameters)
    client = tracking.client(tmp_path)
    runs = client.search_runs([client.get_experiment_by_name("hypercut").experiment_id])
    assert {run.data.tags.get("hypercut.step") for run in runs} == {None, "register-model", *expected}
    assert len(runs) == len(expected) + 2
    for run in runs:
        assert run.data.tags["git"] == "c0ffee"
        assert run.data.tags["footage_revision"] == "none, as it lay there"
        assert run.data.tags["footage_manifest"] == file_sha256(ws.manifest)
        assert run.data.params["seed"] == "4"
    by_step = {run.data.tags.get("hypercut.step"): run for run in runs}
    assert by_step["validate-clips"].data.metrics == {"figures.clips": 3.0}
    before = len(runs)
    local.register_model(ws, parameters)
    assert len(client.search_runs([runs[0].info.experiment_id])) == before


def test_footage_revision_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ws = Workspace(tmp_path)
    assert "footage revision" not in local.provenance(ws, load())
    collect_footage(CollectConfig(), ws.manifest, 0)
    content = read_json(ws.manifest)
    write_json(ws.manifest, {**content, "revision": "beef"}, digits=None)
    facts = local.provenance(ws, load(None, None, ["seed=4"]))
    assert facts["footage revision"] == "beef"
    assert facts["footage manifest (sha256)"] == file_sha256(ws.manifest)
    assert facts["seed"] == 4
