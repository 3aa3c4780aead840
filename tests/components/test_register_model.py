"""Registering: aliases, figures and decisions in the registry, and two registrations at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components import tracking
from components.register_model import registry, step
from components.register_model.card import model_card
from components.register_model.gate import RegisterConfig, gate_metrics
from components.register_model.registry import Registry
from hypercut_core.errors import BadCheckpoint, RegistryError
from hypercut_core.files import read_json, write_json
from hypercut_core.training.checkpoint import read_tensors, save_tensors
from tests.components.registry_fixtures import TEST_SET, alone, challenger, evaluation, scores, with_store

pytest.importorskip("mlflow")
CONFIG = RegisterConfig()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store, and uploads without MLflow's slow packing (tests/systems does it in full)."""
    def copy_only(model: Path, frames: int, card: Path) -> tuple[str, None]:
        import mlflow

        mlflow.log_artifact(str(model), "deblurrer/artifacts")
        folder = Path(mlflow.active_run().info.artifact_uri.removeprefix("file://")) / "deblurrer"
        (folder / "artifacts" / model.name).rename(folder / "artifacts" / tracking.MODEL_FILE)
        return folder.as_uri(), None

    alone(monkeypatch)
    monkeypatch.setattr(step, "log_pyfunc", copy_only)
    return with_store(tmp_path / "space")


def register(workspace: Path, seed: int, ppsnr: float, **others: Any) -> step.GateDecision:
    metrics, model = challenger(workspace, seed, ppsnr, **others)
    return step.register_model(metrics, model, None, CONFIG, workspace / "metrics/register-model.json",
                               provenance={"git": "abc", "seed": seed})


def aliases(workspace: Path) -> dict[str, int]:
    found = tracking.client(workspace).get_registered_model(CONFIG.name).aliases
    return {name: int(number) for name, number in found.items()}


def test_candidate_always_champion_only_when_better(workspace: Path) -> None:
    assert register(workspace, 1, 27.0).promote
    assert aliases(workspace) == {"candidate": 1, "champion": 1}
    assert not register(workspace, 2, 26.0).promote
    assert aliases(workspace) == {"candidate": 2, "champion": 1}
    assert register(workspace, 3, 27.5).promote
    assert aliases(workspace) == {"candidate": 3, "champion": 3}
    refused = register(workspace, 4, 35.0, test_set="b" * 64)
    assert not refused.promote
    assert "another test set" in step.explain(refused)
    assert aliases(workspace) == {"candidate": 4, "champion": 3}
    written = read_json(workspace / "metrics/register-model.json")
    assert written["promote"] is False
    assert any(one["check"] == "test_set" and not one["passed"] for one in written["reasons"])


def test_decision_figures_and_card_are_stored_with_the_version(workspace: Path) -> None:
    decision = register(workspace, 1, 27.0)
    client = tracking.client(workspace)
    version = client.get_model_version(CONFIG.name, "1")
    assert json.loads(version.tags["hypercut.gate"]) == decision.to_json()
    assert version.tags["hypercut.promoted"] == "true"
    assert version.tags["hypercut.test_set"] == TEST_SET
    assert version.tags["hypercut.gate.champion"].startswith("yes: ")
    assert json.loads(version.tags["hypercut.figures"])["ppsnr"] == 27.0
    assert version.description.startswith(f"# {CONFIG.name}")
    names = {item.path for item in client.list_artifacts(version.run_id)}
    assert {"model_card.md", "evaluate-1.json"} <= names
    assert read_json(workspace / "reports/registration.json")["version"] == 1
    assert (workspace / "reports/model-card.md").read_text() == version.description


ORIGIN = {"git": "c0ffee", "footage revision": "git+https://git.example/clips.git@beef",
          "footage manifest (sha256)": "d" * 64, "seed": 4}
TAGS = {"git": "c0ffee", "footage_revision": "git+https://git.example/clips.git@beef", "footage_manifest": "d" * 64}


def test_origin_is_on_every_run_the_version_and_the_card(workspace: Path) -> None:
    metrics, model = challenger(workspace, 1)
    steps = {name: workspace / f"metrics/{name}.json" for name in ("train-encoder", "evaluate")}
    for file in steps.values():
        write_json(file, {"figure": 1.0})
    step.register_model(metrics, model, None, CONFIG, workspace / "metrics/register-model.json", provenance=ORIGIN,
                        steps=steps)
    client = tracking.client(workspace)
    runs = client.search_runs([client.get_experiment_by_name("hypercut").experiment_id])
    assert {run.data.tags.get("hypercut.step") for run in runs} == {None, *steps, "register-model"}  # None: the parent
    assert [TAGS.items() <= run.data.tags.items() for run in runs] == [True] * 4
    assert len({run.data.tags.get("mlflow.parentRunId") for run in runs}) == 2
    version = client.get_model_version(CONFIG.name, "1")
    assert {f"hypercut.{name}": text for name, text in TAGS.items()}.items() <= version.tags.items()
    card = (workspace / "reports/model-card.md").read_text()
    for title in ("git", "footage revision", "footage manifest (sha256)"):
        assert f"- {title}: {ORIGIN[title]}" in card


def test_a_kubeflow_run_is_tracked_even_if_the_model_is_known(workspace: Path) -> None:
    metrics, model = challenger(workspace, 1)
    for pipeline in ("p-1", "p-2"):
        step.register_model(metrics, model, None, CONFIG, workspace / "metrics/register-model.json",
                            provenance=ORIGIN, pipeline_id=pipeline)
    client = tracking.client(workspace)
    runs = client.search_runs([client.get_experiment_by_name("hypercut").experiment_id],
                              "tags.`hypercut.step` = 'register-model'")
    assert sorted(run.data.tags["hypercut.pipeline_id"] for run in runs) == ["p-1", "p-2"]
    assert {run.data.tags["hypercut.version"] for run in runs} == {"1"}
    assert len(client.search_model_versions(f"name = '{CONFIG.name}'")) == 1


def test_no_secret_of_the_origin_is_recorded(workspace: Path) -> None:
    metrics, model = challenger(workspace, 1)
    secret = {"git": "https://me:hunter2@git.example@c0ffee", "footage revision": "git+https://hunter2@host/r@v1",
              "footage.source": "s3://key:hunter2@bucket/x", "aws_secret": "hunter2"}
    step.register_model(metrics, model, None, CONFIG, workspace / "metrics/register-model.json", provenance=secret)
    assert b"hunter2" not in (workspace / "mlflow.db").read_bytes()
    assert "hunter2" not in (workspace / "reports/model-card.md").read_text()


def test_registering_the_same_again_adds_nothing_and_writes_the_same_bytes(workspace: Path) -> None:
    register(workspace, 1, 27.0)
    first = (workspace / "metrics/register-model.json").read_bytes()
    register(workspace, 1, 27.0)
    assert (workspace / "metrics/register-model.json").read_bytes() == first
    assert b"mlflow.db" not in first
    assert str(workspace).encode() not in first
    register(workspace, 2, 26.0)
    refused = (workspace / "metrics/register-model.json").read_bytes()
    register(workspace, 2, 26.0)
    assert (workspace / "metrics/register-model.json").read_bytes() == refused
    assert aliases(workspace) == {"candidate": 2, "champion": 1}


def test_champion_measured_today_settles_a_new_test_set(workspace: Path) -> None:
    register(workspace, 1, 27.0)
    champion = step.champion_file(CONFIG, workspace)
    assert champion is not None
    sha = step.file_sha256(champion)
    assert sha == step.file_sha256(workspace / "models/1.safetensors")
    metrics, model = challenger(workspace, 2, 28.0, test_set="b" * 64)
    content = read_json(metrics)
    for other, expected in (({**scores(27.5), "model_sha256": "x"}, False),
                            ({**scores(28.5), "model_sha256": sha}, False),
                            ({**scores(27.5), "model_sha256": sha}, True)):
        write_json(metrics, {**content, "champion": other})
        assert step.preview(metrics, CONFIG, workspace).promote is expected
    decision = step.register_model(metrics, model, None, CONFIG, workspace / "metrics/register-model.json")
    assert decision.promote


def test_preview_registers_nothing(workspace: Path) -> None:
    metrics, _ = challenger(workspace, 1, 27.0)
    assert step.preview(metrics, CONFIG, workspace).promote
    assert tracking.client(workspace).search_registered_models() == []


def test_there_may_be_no_store_and_no_champion(tmp_path: Path, workspace: Path) -> None:
    assert step.champion_file(CONFIG, tmp_path / "fresh") is None
    assert not (tmp_path / "fresh").exists()
    assert step.champion_file(CONFIG, workspace) is None
    register(workspace, 1, 24.0)
    assert step.champion_file(CONFIG, workspace) is None


def test_figures_of_another_model_are_refused_and_nothing_is_written(workspace: Path) -> None:
    metrics, _ = challenger(workspace, 1, 27.0)
    _, other = challenger(workspace, 2, 27.0)
    with pytest.raises(RegistryError, match="another model file"):
        step.register_model(metrics, other, None, CONFIG, workspace / "metrics/register-model.json")
    with pytest.raises(BadCheckpoint, match="no such model"):
        step.register_model(metrics, workspace / "none", None, CONFIG, workspace / "metrics/x.json")
    assert not (workspace / "metrics/register-model.json").exists()
    assert tracking.client(workspace).search_registered_models() == []


def test_a_champion_made_by_hand_cannot_be_compared(workspace: Path) -> None:
    client = tracking.client(workspace)
    client.create_registered_model(CONFIG.name)
    client.create_model_version(CONFIG.name, (workspace / "m").as_uri())
    client.set_registered_model_alias(CONFIG.name, "champion", "1")
    with pytest.raises(RegistryError, match="delete the alias"):
        register(workspace, 1, 27.0)


def test_a_registration_killed_before_the_decision_is_finished_by_the_next(
        workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            register(workspace, 1, 27.0)
    assert aliases(workspace) == {"candidate": 1}
    assert not (workspace / "metrics/register-model.json").exists()
    assert register(workspace, 1, 27.0).promote
    assert aliases(workspace) == {"candidate": 1, "champion": 1}


def test_model_card_says_what_was_measured(workspace: Path) -> None:
    metrics, model = challenger(workspace, 1, 27.0, worse_than_trivial=2)
    card = model_card(model, read_json(metrics), CONFIG, {"git": "abc", "seed": 0, "order.x": "|\nevil"})
    for text in ("| mean pPSNR, dB | 27.00 | 24.00 |", "On 2 of 12 test clips", "seed: 0", "Apache-2.0",
                 "models:/hypercut-deblurrer@champion", "steps: 10", "joint3 0.970", "(B, 3, H, W, 3)"):
        assert text in card
    assert len(card) < 5000
    assert "evil" not in card
    assert "none put out of focus" in card
    tensors, info = read_tensors(model)
    info["card"]["training"]["augmentation"] = {"defocus": 0.5, "defocus_px": 4.0}
    save_tensors(model, tensors, info)
    card = model_card(model, read_json(metrics), CONFIG, {})
    assert "- clips out of focus, share: 0.5, up to 4.0 px" in card
    assert "none put out of focus" not in card


def test_example_and_requirements_are_what_a_loaded_model_needs() -> None:
    example = registry.example_photo()
    assert example.dtype == np.uint8
    assert example.std() > 20
    assert all("+" not in one and "==" in one for one in registry.requirements())


# -- two registrations at once on a server, where no file lock helps --


@dataclass
class FakeServer:
    """The registry calls that the step makes, with a turn to wait for before each."""

    turns: Callable[[], None]
    tags: dict[int, dict[str, str]] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

        self.turns()
        if alias not in self.aliases:
            raise MlflowException("no such alias", RESOURCE_DOES_NOT_EXIST)
        return self._version(self.aliases[alias])

    def set_registered_model_alias(self, name: str, alias: str, number: str) -> None:
        self.turns()
        self.aliases[alias] = int(number)

    def set_model_version_tag(self, name: str, number: str, key: str, value: str) -> None:
        if not key.startswith("hypercut.gate."):
            self.turns()
        self.tags[int(number)][key] = value

    def search_model_versions(self, query: str) -> list[Any]:
        self.turns()
        return [self._version(number) for number in self.tags]

    def _version(self, number: int) -> Any:
        return SimpleNamespace(version=str(number), tags=dict(self.tags[number]), name=CONFIG.name,
                               run_id="r", creation_timestamp=1, last_updated_timestamp=1)


class Schedule:
    """Lets one thread at a time make one call, in a drawn order."""

    def __init__(self, order: list[int], count: int):
        self.order, self.alive = order, set(range(count))
        self.condition, self.place = threading.Condition(), 0
        self.me = threading.local()

    def _holder(self) -> int:
        drawn = self.order[self.place % len(self.order)]
        alive = sorted(self.alive)
        return alive[drawn % len(alive)]

    def turn(self) -> None:
        with self.condition:
            assert self.condition.wait_for(lambda: self._holder() == self.me.number, timeout=20)
            self.place += 1
            self.condition.notify_all()

    def leave(self) -> None:
        with self.condition:
            self.alive.discard(self.me.number)
            self.condition.notify_all()


@settings(max_examples=60, deadline=None)
@given(order=st.lists(st.integers(0, 1), min_size=1, max_size=40), better=st.integers(1, 2))
def test_two_promotions_at_once_on_a_server_end_with_the_better_one(order: list[int], better: int) -> None:
    schedule = Schedule(order, 2)
    server = FakeServer(schedule.turn)
    contents = {number: evaluation(28.0 if number == better else 27.0, sha256=str(number) * 64)
                for number in (1, 2)}
    for number, content in contents.items():
        server.tags[number] = {registry.FIGURES_TAG: json.dumps(gate_metrics(content)),
                               registry.SHA_TAG: str(number) * 64}
    shared = Registry(server, CONFIG.name, "https://registry.example")  # type: ignore[arg-type]
    decisions: dict[int, bool] = {}

    def one(number: int) -> None:
        schedule.me.number = number - 1
        try:
            version = registry._version(server._version(number))
            decisions[number] = step._decide_and_point(shared, version, contents[number], CONFIG).promote
        finally:
            schedule.leave()

    threads = [threading.Thread(target=one, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert server.aliases["champion"] == better
    assert decisions[better]
