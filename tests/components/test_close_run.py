"""close-run: the failing step by the notes, the MLflow run's end, and what is cleaned up."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from components import tracking
from components.close_run.outcome import KILLED, NEVER_BEGAN, Outcome, clean_up, close_run, outcome
from components.shared_store import RunFolder, run_name
from hypercut_core.files import write_json

URI = "s3://bucket/root/hypercut-training/0b1c/close-run/salt/summary"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, run_name(URI, "close-run"))


def test_a_run_whose_steps_are_done_succeeded(run: RunFolder) -> None:
    run.note("collect-footage", "done")
    assert outcome(run, "SUCCEEDED") == Outcome("", "")
    assert outcome(run, "COMPLETE") == Outcome("", "")  # as backends before 2.5 say


def test_the_step_that_failed_is_told_and_not_the_one_that_was_noted_last(run: RunFolder) -> None:
    run.note("train-deblurrer-order_invariant", "failed", "no memory. To mend it: smaller batches.")
    run.note("train-deblurrer-sequence_min", "done")
    assert outcome(run, "FAILED") == Outcome("train-deblurrer-order_invariant",
                                             "no memory. To mend it: smaller batches.")


def test_a_step_that_could_say_nothing_was_killed(run: RunFolder) -> None:
    run.note("collect-footage", "done")
    run.note("train-encoder", "running")
    assert outcome(run, "FAILED") == Outcome("train-encoder", KILLED, expected=False)
    assert "memory" in KILLED


def test_a_run_that_never_began_failed_all_the_same(run: RunFolder) -> None:
    assert outcome(run, "FAILED") == Outcome("unknown", NEVER_BEGAN, expected=False)
    assert outcome(run, "FAILED", "no image").reason == "no image"


def test_a_try_that_succeeded_after_one_that_failed_is_a_success(run: RunFolder) -> None:
    run.note("train-encoder", "failed", "node lost")
    run.note("train-encoder", "done")
    assert not outcome(run, "SUCCEEDED").failed


def filled(run: RunFolder) -> None:
    for folder in (run.unfinished / "clips", run.work / "train-encoder"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")


def test_a_run_that_succeeded_leaves_nothing(run: RunFolder, tmp_path: Path) -> None:
    filled(run)
    clean_up(run, Outcome("", ""))
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_that_failed_leaves_its_checkpoints(run: RunFolder) -> None:
    filled(run)
    run.note("train-encoder", "running")
    clean_up(run, Outcome("train-encoder", KILLED))
    assert not run.unfinished.exists()
    assert (run.work / "train-encoder/file").exists()


def test_runs_that_nobody_took_up_again_go_after_two_weeks(run: RunFolder, tmp_path: Path) -> None:
    old, young = RunFolder(tmp_path, "old"), RunFolder(tmp_path, "young")
    for other, days in ((old, 15), (young, 13)):
        other.note("evaluate", "failed", "x")
        then = time.time() - days * 24 * 3600
        os.utime(other.path / "steps/evaluate.json", (then, then))
    clean_up(run, Outcome("", ""))
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["young"]


def closed(run: RunFolder, state: str, run_id: str) -> tuple[Outcome, str]:
    summary = run.store / "summary.md"
    return close_run(state, "", "{}", str(run.store), "", run_id, URI, summary), summary.read_text()


def test_the_mlflow_run_ends_with_the_outcome_and_the_steps_below_it(run: RunFolder, tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"test": {"hit": 1.0}})
    run.keep("train-encoder", tmp_path / "m.json")
    run.note("train-encoder", "done")
    run.note("assign-order", "failed", "no order. To mend it: train longer.")
    found, summary = closed(run, "FAILED", "kfp-77")
    assert found.failed_step == "assign-order"
    assert "**assign-order failed**: no order. To mend it: train longer." in summary
    assert "| train-encoder | done |" in summary

    client = tracking.client(tmp_path)
    place = client.get_experiment_by_name("hypercut").experiment_id
    runs = {one.info.run_name: one for one in client.search_runs([place])}
    child = runs.pop("train-encoder")
    (parent,) = runs.values()
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.metrics == {"test.hit": 1.0}
    assert parent.info.status == "FAILED"
    assert parent.data.tags["hypercut.failed_step"] == "assign-order"
    assert {one.data.tags["hypercut.pipeline_id"] for one in (child, parent)} == {"kfp-77"}


def test_mlflow_being_away_fails_no_run(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/nowhere.db")
    run.note("collect-footage", "done")
    found, summary = closed(run, "SUCCEEDED", "kfp-78")
    assert not found.failed
    assert "The MLflow run could not be ended" in summary
    assert not run.path.exists()
