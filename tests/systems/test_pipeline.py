"""The nine steps end to end in processes of their own: twice the same, killed and resumed, on a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.local import STEPS

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 1200  # s; the machine may be busy
SMOKE = ("--params", ROOT / "params.yaml", "--preset", "smoke")
# long enough to be killed in the middle, with checkpoints every moment
LONG = tuple(word for group, steps in (("encoder", 240), ("deblurrer", 160))
             for word in ("--set", f"{group}.training.steps={steps}",
                          "--set", f"{group}.training.checkpoint_seconds=0.05"))


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", *map(str, words)]


def hypercut(*words: object, check: bool = True, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE,
                          check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if check:
        assert done.returncode == 0, done.stderr[-4000:]
    return done


def background(*words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(*words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def partial_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".partial-" in path.name]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which all nine steps have run."""
    ws = tmp_path_factory.mktemp("smoke") / "ws"
    done = hypercut("run", *SMOKE, "-w", ws)
    assert [line.split()[1] for line in done.stderr.splitlines()
            if line.startswith("[") and "done in" not in line] == list(STEPS)
    return ws


def test_every_output_is_there_and_the_model_is_champion(smoke: Path) -> None:
    for name in ("data/footage.json", "data/clips/clips.parquet", "data/orders.parquet",
                 "models/encoder.safetensors", "models/deblurrer-sequence_min.safetensors",
                 "reports/validate-clips.html", "reports/evaluation/report.html",
                 "reports/model-card.md", "mlflow.db"):
        assert (smoke / name).is_file(), name
    registration = json.loads((smoke / "reports/registration.json").read_text())
    assert registration["champion"] is True
    assert registration["version"] == 1
    assert "champion" in hypercut("gate", "--explain", "-w", smoke).stdout
    assert "models:/hypercut-deblurrer@champion" in hypercut("doctor", "-w", smoke).stdout
    assert partial_files(smoke) == []


def test_the_champion_restores_a_photo_of_another_size(smoke: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.linear_gradient("L").convert("RGB").resize((75, 50)).save(tmp_path / "photo.jpg")
    hypercut("restore", tmp_path / "photo.jpg", "-o", tmp_path / "out.gif", "-w", smoke, cwd=tmp_path)
    with Image.open(tmp_path / "out.gif") as film:
        assert film.n_frames == 7
        assert film.size == (75, 50)


def test_the_same_seed_gives_the_same_bytes(smoke: Path, tmp_path: Path) -> None:
    again = tmp_path / "ws"
    hypercut("run", *SMOKE, "-w", again)
    names = sorted(path.relative_to(smoke) for folder in ("metrics", "models", "data")
                   for path in (smoke / folder).rglob("*") if path.is_file())
    assert len(names) > 12
    assert [name for name in names if digest(smoke / name) != digest(again / name)] == []


def test_another_seed_gives_another_model(smoke: Path, tmp_path: Path) -> None:
    ws = tmp_path / "ws"
    shutil.copytree(smoke / "data", ws / "data")
    hypercut("train-encoder", *SMOKE, "--set", "seed=1", "-w", ws)
    assert digest(ws / "models/encoder.safetensors") != digest(smoke / "models/encoder.safetensors")


def checkpoints(folder: Path) -> list[Path]:
    """The whole ones, oldest first: the step is in the name."""
    return sorted(folder.glob("[!.]*.safetensors"))


def killed(words: tuple[object, ...], folder: Path) -> None:
    """Run a command and kill -9 it once its third checkpoint is in `folder`."""
    with background(*words) as process:
        end, seen = time.monotonic() + PATIENCE, set[Path]()
        while len(seen) < 3:
            assert time.monotonic() < end
            assert process.poll() is None, "it ended before it could be killed"
            seen.update(checkpoints(folder))
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(("step", "output"), [
    (("train-encoder",), "encoder"),
    (("train-deblurrer", "--objective", "hypercut_targets"), "deblurrer-hypercut_targets"),
])
def test_a_killed_training_resumes_to_the_same_weights(smoke: Path, tmp_path: Path, step: tuple[str, ...],
                                                       output: str) -> None:
    from hypercut_core.training.checkpoint import read_info

    workspaces = [tmp_path / name for name in ("whole", "killed")]
    for ws in workspaces:
        shutil.copytree(smoke / "data", ws / "data")
        (ws / "models").mkdir()
        if output != "encoder":
            shutil.copy(smoke / "models/encoder.safetensors", ws / "models")
    whole, interrupted = workspaces
    hypercut(*step, *SMOKE, *LONG, "-w", whole)

    folder = interrupted / f"work/train-{output}"
    killed((*step, *SMOKE, *LONG, "-w", interrupted), folder)
    reached = int(read_info(checkpoints(folder)[-1])["step"])
    assert reached > 0
    model, metrics = Path(f"models/{output}.safetensors"), Path(f"metrics/train-{output}.json")
    assert not (interrupted / model).exists()
    assert not (interrupted / metrics).exists()

    hypercut(*step, *SMOKE, *LONG, "-w", interrupted)
    assert digest(interrupted / model) == digest(whole / model)
    assert digest(interrupted / metrics) == digest(whole / metrics)


def test_a_killed_rendering_leaves_nothing_that_looks_whole(smoke: Path, tmp_path: Path) -> None:
    ws = tmp_path / "ws"
    (ws / "data").mkdir(parents=True)
    shutil.copy(smoke / "data/footage.json", ws / "data")
    words = ("synthesize-blur", *SMOKE, "--set", "blur.clips.train=100000", "-w", ws)
    with background(*words) as process:
        end = time.monotonic() + PATIENCE
        while not list((ws / "work/synthesize-blur").glob("[!.]*.json")):  # the first part is made
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.5)
        process.kill()
    assert not (ws / "data/clips").exists()
    refused = hypercut("train-encoder", *SMOKE, "-w", ws, check=False)
    assert refused.returncode == 2
    assert "run synthesize-blur first" in refused.stderr
    hypercut("synthesize-blur", *SMOKE, "-w", ws)
    assert partial_files(ws) == []  # what the killed one left behind is gone
    assert digest(ws / "data/clips/clips.parquet") == digest(smoke / "data/clips/clips.parquet")


def test_a_full_disk_is_one_paragraph_and_nothing_half_written(smoke: Path, small_disk: Path) -> None:
    (small_disk / "data").mkdir()
    shutil.copy(smoke / "data/footage.json", small_disk / "data")
    done = hypercut("synthesize-blur", *SMOKE, "--set", "blur.photos.size=96", "-w", small_disk, check=False)
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert partial_files(small_disk) == []
    assert not (small_disk / "data/clips").exists()  # whole parts stay in work/, for the next try


def test_a_rejected_clip_store_stops_the_run(tmp_path: Path) -> None:
    ws = tmp_path / "ws"
    done = hypercut("run", *SMOKE, "--set", "validate_clips.motion_max=2.5", "-w", ws, check=False)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("hypercut: ")
    assert "motion is 0.5 to 2.5 px" in last
    assert "validate_clips" in last
    assert (ws / "reports/validate-clips.html").is_file()
    assert not (ws / "models").exists()
