"""Steps of one Kubeflow run that start at the same moment, against a real MLflow server: one parent, never two."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import tracking
from tests.components.registry_fixtures import alone

pytest.importorskip("mlflow")
pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
PIPELINES, PROCESSES = 6, 3

STEPS = """
import sys
from pathlib import Path
from components import tracking
workspace, step = Path(sys.argv[1]), sys.argv[2]
tracking.client(workspace)
print("ready", flush=True)
for pipeline in sys.stdin:  # each line begins a step in every process at once
    with tracking.run(step, workspace, tags={"git": "abc"}, pipeline_id=pipeline.strip()) as run:
        run.metrics({"figure": 1.0})
    print(run.run_id, flush=True)
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An MLflow server on an SQLite file; its one worker answers several requests at once."""
    alone(monkeypatch)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db",
         "--artifacts-destination", str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port),
         "--workers", "1"], stdout=log, stderr=log, start_new_session=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    try:
        until = time.monotonic() + 400
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (tmp_path / "server.log").read_text()[-3000:]
                assert time.monotonic() < until, "the server does not start"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)
        log.close()


def test_steps_that_start_at_once_have_one_parent(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    steps = [subprocess.Popen([sys.executable, "-c", STEPS, str(tmp_path), f"train-{number}"], cwd=ROOT, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
             for number in range(PROCESSES)]
    found: dict[str, list[str]] = defaultdict(list)
    try:
        for step in steps:
            assert step.stdout is not None
            assert step.stdout.readline() == "ready\n"
        for number in range(PIPELINES):
            for step in steps:
                assert step.stdin is not None
                step.stdin.write(f"pipeline-{number}\n")
                step.stdin.flush()
            for step in steps:
                assert step.stdout is not None
                found[f"pipeline-{number}"].append(step.stdout.readline().strip())
        for step in steps:
            _, err = step.communicate(timeout=120)
            assert step.returncode == 0, err
    finally:
        for step in steps:
            step.kill()
            step.wait()
    client = tracking.client(tmp_path)
    place = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    for pipeline, runs in found.items():
        parents = {client.get_run(run).data.tags["mlflow.parentRunId"] for run in runs}
        named = client.search_runs([place], f"tags.`{tracking.PARENT_TAG}` = '{pipeline}'")
        assert {run.info.run_id for run in named} == parents
        assert len(parents) == 1
        assert tracking.close_pipeline(pipeline, "SUCCEEDED", tmp_path) in parents
        assert tracking.pipeline_address(pipeline, tmp_path) == f"{server}/#/experiments/{place}/runs/{parents.pop()}"
    assert len(client.search_runs([place], max_results=1000)) == PIPELINES * (PROCESSES + 1)  # no candidate is left
    assert {one.name for one in client.search_experiments()} == {"Default", tracking.EXPERIMENT}
