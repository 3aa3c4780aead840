"""The Kubeflow pipeline's own components with their store on the real S3 server, and nothing else shared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from local_services import PATIENCE, ROOT, clean_environment
from s3_training import s3_server_alone

pytest.importorskip("kfp")
pytestmark = pytest.mark.system

RUN = """
import sys
from pathlib import Path
from components.params import load
from pipelines.compile import compile_pipeline
from pipelines.subprocess_run import execute, source_image, subprocess_runner
from pipelines.training_pipeline import arguments

root = Path(sys.argv[1])
parameters = load(Path("params.yaml"), "smoke", ("objectives=[sequence_min]", "validate_clips.clips_checked=8",
                                                 "encoder.training.steps=30", "deblurrer.training.steps=10"))
compile_pipeline(source_image(), root / "pipeline.yaml", allow_local=True, gpus=False, retries=False, s3_store=True)
given = arguments(parameters, store="s3://hypercut/store", tracking_folder=str(root / "tracking"), registration=False)
run = execute(root / "pipeline.yaml", given, root, subprocess_runner(), print, cache=False)
sys.exit(0 if run.succeeded and run.executed[-1] == "close-run" and "evaluate" in run.executed else 1)
"""


def test_all_steps_share_nothing_but_the_bucket(tmp_path: Path) -> None:
    """Each task is a process with a folder of its own for the store; what they hand on goes through S3."""
    (tmp_path / "root").mkdir()
    (tmp_path / "tmp").mkdir()
    with s3_server_alone(tmp_path / "state") as server:
        done = subprocess.run([sys.executable, "-c", RUN, tmp_path / "root"], cwd=ROOT, capture_output=True, text=True,
                              timeout=PATIENCE, check=False,
                              env={**clean_environment(), **server.env, "TMPDIR": str(tmp_path / "tmp"),
                                   "PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        listed = server.client().list_objects_v2(Bucket="hypercut")["Contents"]
    names = [item["Key"].split("/") for item in listed]
    assert {name[0] for name in names} == {"store"}
    assert {name[1] for name in names} == {"clips", "footage"}  # the run is over: its own state is gone
    assert len({name[2] for name in names if name[1] == "clips"}) == 1
    assert not list((tmp_path / "tmp").glob("hypercut-store-*"))
