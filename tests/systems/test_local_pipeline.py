"""`hypercut submit --local`: the compiled pipeline through KFP's own runner, against `hypercut run`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.local import STEPS

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 1800  # s; the machine may be busy
SMOKE = ("--params", ROOT / "params.yaml", "--preset", "smoke")
TASKS = {*STEPS, "close-run"} - {"evaluate-trajectories"}  # it is switched off, and not compiled in
SWITCHED_OFF = "metrics/evaluate-trajectories.json"
ALWAYS = {"collect-footage", "evaluate", "register-model", "close-run"}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", *map(str, words)]


def hypercut(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    if check:
        assert done.returncode == 0, done.stderr[-4000:]
    return done


def submit(ws: Path, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return hypercut("submit", "--local", *SMOKE, "-w", ws, *words, check=check)


def begun(done: subprocess.CompletedProcess[str]) -> set[str]:
    return set(re.findall(r"^([\w-]+): begins$", done.stderr, re.MULTILINE))


def as_before(done: subprocess.CompletedProcess[str]) -> set[str]:
    return set(re.findall(r"^([\w-]+): as before$", done.stderr, re.MULTILINE))


def digests(ws: Path) -> dict[str, str]:
    """Hash of every output that DVC tracks, by its place."""
    return {str(path.relative_to(ws)): hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in ("data", "models", "metrics") for path in (ws / folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A workspace in which the pipeline has run once."""
    ws = tmp_path_factory.mktemp("local") / "ws"
    return ws, submit(ws)


def test_all_nine_steps_run_and_end_as_hypercut_run_does(
        first: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    ws, done = first
    assert begun(done) == TASKS
    assert "the pipeline is done: 11 tasks ran" in done.stderr  # two objectives
    hypercut("run", *SMOKE, "-w", tmp_path / "run")
    expected = digests(tmp_path / "run")
    off = json.loads((tmp_path / "run" / SWITCHED_OFF).read_text())
    assert off == {"enabled": False}
    del expected[SWITCHED_OFF]  # DVC wants a file of a stage that is off; the pipeline was compiled without it
    assert {"metrics/evaluate.json", "metrics/register-model.json", "metrics/train-encoder.json",
            "models/deblurrer-sequence_min.safetensors", "data/orders.parquet", "data/clips/clips.parquet",
            "data/footage.json"} <= set(expected)
    assert digests(ws) == expected
    tables = [tmp_path / "run/reports/evaluation/per_clip.csv", ws / "reports/evaluation/per_clip.csv"]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_its_model_is_the_champion_of_the_workspace(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    ws, _ = first
    assert json.loads((ws / "reports/registration.json").read_text())["champion"] is True
    assert "champion" in hypercut("gate", "--explain", "-w", ws).stdout
    assert (ws / "reports/evaluation/report.html").is_file()
    assert "# hypercut-deblurrer" in (ws / "reports/model-card.md").read_text()


def test_mlflow_has_one_parent_with_a_child_a_step(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    from components import tracking

    client = tracking.client(first[0])
    found = client.search_runs([client.get_experiment_by_name("hypercut").experiment_id])
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_name for run in found} - {parent.info.run_name}
    assert children == {"synthesize-blur", "train-encoder", "assign-order", "train-deblurrer-sequence_min",
                        "train-deblurrer-hypercut_targets", "evaluate", "register-model"}
    assert {run.info.status for run in found} == {"FINISHED"}
    assert len({run.data.tags["hypercut.pipeline_id"] for run in found}) == 1
    assert len({run.data.tags["footage_manifest"] for run in found}) == 1


def test_the_run_leaves_no_folder_of_its_own(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    store = first[0] / "work/kubeflow/store"
    assert list((store / "runs").iterdir()) == []
    assert len(list((store / "clips").iterdir())) == 1


def test_a_second_identical_run_repeats_nothing_that_may_be_cached(
        first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    ws, _ = first
    before = digests(ws)
    done = submit(ws)
    assert begun(done) == ALWAYS
    assert as_before(done) == TASKS - ALWAYS
    assert digests(ws) == before


def test_a_gate_that_says_no_stops_the_run_and_is_told(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    ws, _ = first
    done = submit(ws, "--set", "validate_clips.motion_max=2.5", check=False)
    assert done.returncode == 2
    assert begun(done) == {"collect-footage", "validate-clips", "close-run"}
    last = done.stderr.strip().splitlines()[-1]
    assert "the step 'validate-clips' failed" in last
    assert "motion is 0.5 to 2.5 px" in last
    assert "Traceback" not in done.stderr
    assert "BROKEN" in (ws / "reports/validate-clips.html").read_text()


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            break
        found.append(pid)
    return found


def task_process(ancestor: int, function: str) -> int | None:
    """The Python that executes a task's function, below a process of ours; not the shell that started it."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if words[1:3] == [b"-m", b"kfp.dsl.executor_main"] and function.encode() in words \
                and ancestor in ancestors(int(entry.name)):
            return int(entry.name)
    return None


def test_a_step_that_is_killed_fails_the_run_and_is_named(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Killed as the kernel kills for memory: with no chance to say anything."""
    ws, _ = first
    words = ("submit", "--local", *SMOKE, "-w", ws, "--set", "encoder.training.steps=100000")
    with subprocess.Popen(command(*words), cwd=ROOT, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        notes, end = ws / "work/kubeflow/store/runs", time.monotonic() + PATIENCE
        while not list(notes.glob("*/steps/train-encoder.json")):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.05)
        victim = task_process(process.pid, "train_encoder")
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    last = told.strip().splitlines()[-1]
    assert "the step 'train-encoder' failed: it was stopped from outside while it ran: out of memory" in last
    assert "evaluate: begins" not in told
    assert "close-run: done" in told
