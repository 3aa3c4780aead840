"""Training on a real Ray of this machine: the local result, bad input told once, a killed worker made up for."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from components.assign_order.step import OrderConfig, assign_order
from components.train_deblurrer.step import TrainDeblurrerConfig, train_deblurrer
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.store import ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.errors import ClusterError
from hypercut_core.ordering.encoder import EncoderConfig, build_encoder, save_encoder
from hypercut_core.training.checkpoint import read_tensors
from hypercut_core.training.loop import TrainingConfig

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.system

MODEL = {"width": 8, "blocks": [1, 1]}
TRAINING = {"steps": 60, "batch": 8, "crop": 32, "checkpoint_seconds": 0.0, "rate": 5e-4}


def config(launcher: str, **scale: Any) -> TrainDeblurrerConfig:
    from components.train_deblurrer.scale import ScaleConfig

    return TrainDeblurrerConfig("sequence_min", model=DeblurrerConfig(width=8, blocks=(1, 1)),
                                training=TrainingConfig(**TRAINING),
                                scale=ScaleConfig(launcher, **scale))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, an encoder, orders, and parameters, as the steps before leave them."""
    ws = tmp_path_factory.mktemp("ray")
    with ClipStoreWriter(ws / "data/clips", 3) as writer:
        for k, clip in enumerate(render_clips(MovingPhotosConfig(size=32, subframes=1), "train", 21, 0, frames=3)):
            writer.add(clip.frames, clip_id=f"{k}", source=clip.source, split="train", category=clip.category,
                       motion=clip.motion)
    torch.manual_seed(0)
    save_encoder(ws / "models/encoder.safetensors", build_encoder(EncoderConfig(width=4, blocks=1, features=8)), {})
    assign_order(ws / "data/clips", ws / "models/encoder.safetensors", OrderConfig(threads=1),
                 ws / "data/orders.parquet", ws / "metrics/orders.json")
    (ws / "params.yaml").write_text(f"frames: 3\nobjectives: [sequence_min]\ndeblurrer:\n  objective: sequence_min\n"
                                    f"  model: {MODEL}\n  training: {TRAINING}\n".replace("'", ""), encoding="utf-8")
    return ws


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray of two CPUs for this file; its address."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's own 15 starves the workers beside whatever else runs
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def trained(ws: Path, name: str, wanted: TrainDeblurrerConfig) -> dict[str, torch.Tensor]:
    out = ws / f"models/{name}.safetensors"
    train_deblurrer(ws / "data/clips", ws / "data/orders.parquet", ws / "models/encoder.safetensors", wanted,
                    "sequence_min", out, ws / f"metrics/{name}.json", 0, ws / f"work-{name}")
    assert [path for path in (ws / f"work-{name}").rglob("*") if path.is_file()] == []
    return read_tensors(out)[0]


@pytest.fixture(scope="module")
def local(workspace: Path) -> dict[str, torch.Tensor]:
    return trained(workspace, "local", config("local"))


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    a, b = (torch.cat([w[name].flatten().double() for name in sorted(w)]) for w in (one, other))
    return float((a - b).norm() / a.norm())


def workers() -> list[psutil.Process]:
    """Ray's training processes below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended since
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_a_killed_worker_is_made_up_for_and_the_result_is_the_local_one(
        workspace: Path, cluster: str, local: dict[str, torch.Tensor], capfd: pytest.CaptureFixture[str]) -> None:
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(trained(workspace, "killed", config("ray", workers=2, join_seconds=120)))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    victims: list[psutil.Process] = []
    while thread.is_alive() and not list((workspace / "work-killed").glob("*/*.safetensors")):
        victims = victims if len(victims) == 2 else workers()
        time.sleep(0.02)
    assert len(victims) == 2, result
    os.kill(victims[1].pid, signal.SIGKILL)
    thread.join(400)
    assert isinstance(result[0], dict), result
    assert distance(result[0], local) < 1e-5
    assert "going on from the last checkpoint (2 more such failures are made up for)" in capfd.readouterr().err


def test_bad_input_is_told_once_and_not_tried_again(workspace: Path, cluster: str, cli: Any, tmp_path: Path) -> None:
    for name in ("data", "models"):
        shutil.copytree(workspace / name, tmp_path / name)
    shutil.copyfile(workspace / "params.yaml", tmp_path / "params.yaml")
    shard = next(path for path in (tmp_path / "data/clips").glob("*/c/**/*") if path.is_file())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:len(whole) // 3])
    done = cli("train-deblurrer", "--objective", "sequence_min", "--set", "deblurrer.scale.launcher=ray",
               "--set", "deblurrer.scale.workers=2", env={"RAY_ADDRESS": cluster}, timeout=400)
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("hypercut:")]
    assert len(said) == 1
    assert "data/clips" in said[0]
    assert "To mend it" in said[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "models/deblurrer-sequence_min.safetensors").exists()


def test_a_cluster_that_is_too_small_is_said(workspace: Path, cluster: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ClusterError, match="has only 2 of 3 CPUs"):
        trained(workspace, "small", config("ray", workers=3, join_seconds=1))
    assert "waiting 1 s for more" in capfd.readouterr().err
