"""evaluate-trajectories switched on, by every road: DVC, Kubeflow's pipeline in processes, and in containers.

The image `tracker` is built for real without a registry. `make images` runs this, .ci/run leaves it out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from components.evaluate_trajectories.step import TrajectoriesConfig
from components.params import Parameters, explained, load
from hypercut_core.clips.photos import photo_path
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.models import save_deblurrer
from hypercut_core.errors import ContainerError
from hypercut_core.trajectories.tracker import ENVIRONMENT
from pipelines.compile import compile_pipeline
from pipelines.container_run import USER, Limits, run_in_containers
from pipelines.subprocess_run import execute, source_image, subprocess_runner
from pipelines.training_pipeline import arguments
from tests.made_footage import face_videos
from tests.systems.docker_engine import HARDENED, ROOT, Docker, built, shared_folder, tag
from tests.systems.needed import real_tracker

pytest.importorskip("kfp")
pytestmark = [pytest.mark.system, pytest.mark.images]
PATIENCE = 2400  # s; the machine may be busy
STEP = "evaluate-trajectories"
LIMITS = Limits(memory="3g")
STAGES = ["collect-footage", "validate-footage", "synthesize-blur", "validate-clips", "train-encoder", "assign-order",
          "train-deblurrer@sequence_min", "train-deblurrer@hypercut_targets", "evaluate", STEP, "register-model"]


def called(*words: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE,
                          check=False, env={**os.environ, "PATH": path, **more})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def repro(clone: Path) -> list[str]:
    """The stages that `dvc repro` ran."""
    done = called(sys.executable, "-m", "dvc", "repro", cwd=clone, PYTHONPATH=str(clone))
    return re.findall(r"Running stage '([^']+)'", done.stdout)


def results(ws: Path) -> dict[str, bytes]:
    """What has the same bytes by every road."""
    patterns = ("metrics/*.json", "models/*.safetensors", "data/*.parquet", "data/footage.json",
                "reports/trajectories/per_clip.csv")
    return {str(path.relative_to(ws)): path.read_bytes() for pattern in patterns for path in ws.glob(pattern)
            if path.name != "register-model.json"}


@pytest.fixture(scope="module")
def parameters(tmp_path_factory: pytest.TempPathFactory) -> Parameters:
    """The smoke recipe on videos of a face, whole frames of 192 px, with the step switched on."""
    real_tracker()
    footage = shared_folder(tmp_path_factory.mktemp("footage"))  # the containers' user reads it too
    face_videos(footage / "face")
    return load(ROOT / "params.yaml", "smoke", [
        f"footage.source={footage}", "blur.windows.height=0", "blur.windows.crop=0",
        "blur.windows.fast_share=1.0", "trajectories.enabled=true",
        "trajectories.films=1", "trajectories.worst=1"])


@pytest.fixture(scope="module")
def clone(parameters: Parameters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this repository in which DVC has run once."""
    folder = tmp_path_factory.mktemp("dvc") / "clone"
    called("git", "clone", "-q", ROOT, folder, cwd=ROOT)
    (folder / "params.yaml").write_text(explained(parameters))
    assert repro(folder) == STAGES
    return folder


@pytest.fixture(scope="module")
def tracker_image(docker: Docker) -> str:
    return built(docker, "tracker")


def test_dvc_measures_faces_and_a_second_time_runs_nothing(clone: Path) -> None:
    figures = json.loads((clone / "metrics/evaluate-trajectories.json").read_text())
    assert figures["enabled"] is True
    assert list(figures["categories"]) == ["face"]
    assert figures["clips"] == figures["with_truth"] > 1
    assert figures["true"]["rate"] == 1
    assert set(figures["models"]) == {"sequence_min", "hypercut_targets"}
    assert "<polyline" in (clone / "reports/trajectories/report.html").read_text()
    before = results(clone)
    assert repro(clone) == []
    text = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(re.sub(r"(?m)^(trajectories:\n(?:  .*\n)*?  films:) 1", r"\1 2", text))
    assert repro(clone) == [STEP]  # and from what was found before
    (clone / "params.yaml").write_text(text)
    repro(clone)
    assert results(clone) == before


@pytest.fixture(scope="module")
def local(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which Kubeflow's local runner has run the pipeline once, by the same parameters."""
    ws = tmp_path_factory.mktemp("local") / "ws"
    words = ("-m", "pipelines.cli", "submit", "--local", "--params", clone / "params.yaml", "-w", ws)
    done = called(sys.executable, *words, cwd=clone, PYTHONPATH=str(clone))
    assert f"{STEP}: done" in done.stderr
    return ws


def test_kubeflow_s_local_runner_ends_with_the_same_bytes(clone: Path, local: Path) -> None:
    assert results(local) == results(clone)
    assert "<polyline" in (local / "reports/trajectories/report.html").read_text()


def test_a_package_with_the_step_and_a_run_that_does_not_want_it(local: Path, parameters: Parameters) -> None:
    """What `hypercut compile --tracker-image` makes, with the default parameter: the step runs, and ends at once."""
    root, image = local / "work/kubeflow", source_image()
    compile_pipeline(image, root / "off.yaml", allow_local=True, gpus=False, cache_trainings=True, retries=False,
                     tracker_image=image)
    values = arguments(replace(parameters, trajectories=TrajectoriesConfig()), store=str(root / "store"),
                       tracking_folder=str(local), registration=False)
    run = execute(root / "off.yaml", values, root, subprocess_runner())
    assert run.succeeded
    assert STEP in run.executed
    metrics, report, table = (run.outputs[STEP, name][0].read_text() for name in ("metrics", "report", "per_clip"))
    assert json.loads(metrics) == {"enabled": False}
    assert "trajectories.enabled" in report
    assert table.count("\n") == 1  # the names of the columns


def test_in_containers_its_step_alone_has_the_tracker_s_image(clone: Path, docker: Docker, tracker_image: str,
                                                             parameters: Parameters, tmp_path: Path) -> None:
    """As on a cluster: two images. In that of the other steps there is no tracker, and the step says so."""
    cpu = built(docker, "cpu")  # made of the same layers
    ws = shared_folder(tmp_path) / "ws"
    run = run_in_containers(parameters, ws, cpu, tracker_image=tracker_image, limits=LIMITS)
    assert run.succeeded
    assert run.executed.count(STEP) == 1
    assert results(ws) == results(clone)
    with pytest.raises(ContainerError, match=rf"the step '{STEP}' failed .*tracker's environment .*image target"):
        run_in_containers(parameters, ws, cpu, limits=LIMITS)


def test_the_image_is_hardened_and_its_tracker_works(docker: Docker, tracker_image: str,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    about = json.loads(docker("image", "inspect", tag(tracker_image)).stdout)[0]
    assert about["Config"]["Labels"]["org.opencontainers.image.title"] == "hypercut-tracker"
    assert about["Config"]["User"] == f"{USER}:{USER}"
    with capsys.disabled():
        print(f"\nimage: {about['Size'] / 1e6:.0f} MB, {len(about['RootFS']['Layers'])} layers")
    assert about["Size"] < 2.6e9
    script = (f"id -u; ls /sys/class/net; touch /opt/{ENVIRONMENT}/x 2>&1; grep CapEff /proc/self/status; "
              f"find /opt/{ENVIRONMENT} -user {USER} -o -name tests -o -name '*.whl' | wc -l; "
              "hypercut trajectories --doctor --json")
    user, net, touched, capabilities, strays, *report = docker(
        "run", *HARDENED, tag(tracker_image), "sh", "-c", script).stdout.splitlines()
    assert (user, net, strays.strip()) == (str(USER), "lo", "0")
    assert "Read-only file system" in touched
    assert re.fullmatch(r"CapEff:\s+0+", capabilities)
    findings = {one["what"]: one for one in json.loads("\n".join(report))["findings"]}
    assert findings["tracker"]["found"] == f"mediapipe 0.10.21 at /opt/{ENVIRONMENT}/bin/python"
    assert findings["trial"]["found"] == "it found 1 of 1 faces"


def test_a_photo_has_the_same_paths_in_a_container_as_here(docker: Docker, tracker_image: str, tmp_path: Path) -> None:
    real_tracker()
    torch.manual_seed(0)
    model = EvenOddDeblurrer(DeblurrerConfig(width=8, blocks=(1, 1), block="conv"), 7)
    torch.nn.init.normal_(model.trunk.leave.weight, std=0.02)  # so that the frames differ
    save_deblurrer(tmp_path / "model.safetensors", model, {"objective": "mine"})
    with Image.open(photo_path("skimage/astronaut.png")) as photo:
        photo.convert("RGB").crop((90, 0, 346, 256)).save(tmp_path / "photo.jpg")
    words = ("trajectories", "photo.jpg", "--model", "model.safetensors", "-o")
    called(sys.executable, "-m", "pipelines.cli", *words, "here", cwd=tmp_path, PYTHONPATH=str(ROOT))
    shared_folder(tmp_path)
    said = docker("run", *HARDENED, "--volume", f"{tmp_path}:/photos", "--workdir=/photos", tag(tracker_image),
                  "hypercut", *words, "there").stdout
    assert "found in 7 of 7 frames" in said
    names = sorted(file.name for file in (tmp_path / "here").iterdir())
    assert names == ["overlay.webp", "paths.csv", "paths.json", "paths.png"]
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name
