"""The step with the launcher `rayjob`: what it puts where the pods see it, and the model that it picks up.

The cluster's part is played by a process: it takes the RayJob's command from the server and runs it as it stands
(but for the launcher, `local` for `ray`, which is tested elsewhere).
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kubernetes_cluster import NAMESPACE, Cluster
from kubernetes_server import Server
from launcher_world import IMAGE
from source_imports import ROOT

from components.train_deblurrer.ray_job_api import RayJobApi
from components.train_deblurrer.ray_job_launch import train_by_ray_job
from components.train_deblurrer.ray_job_patience import Pace
from components.train_deblurrer.ray_job_template import TEMPLATE
from components.train_deblurrer.scale import ScaleConfig
from components.train_deblurrer.step import TrainDeblurrerConfig, train_deblurrer
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.errors import RayJobError
from hypercut_core.ordering.encoder import EncoderConfig, build_encoder, save_encoder
from hypercut_core.ordering.labels import assign_orders, write_orders
from hypercut_core.training.loop import TrainingConfig

CONFIG = TrainDeblurrerConfig(
    model=DeblurrerConfig(width=8, blocks=(1, 1), block="conv", views=1),
    training=TrainingConfig(steps=3, batch=2, crop=16, device="cpu"),
    scale=ScaleConfig("rayjob", workers=2))
OBJECTIVE = "hypercut_targets"
PACE = Pace(watch=5, between=0.02, longest_pause=0.2)


@dataclasses.dataclass
class Place:
    """A shared volume with inputs, and what the launcher of them is given."""

    root: Path
    store: Path
    orders: Path
    encoder: Path
    others: dict[str, Any]
    lines: list[str]

    def launch(self, **change: Any) -> dict[str, Any]:
        words = {"store": self.store, "data": ClipStore(self.store).sha256, "orders": self.orders,
                 "encoder": self.encoder, "config": CONFIG, "objective": OBJECTIVE,
                 "out": self.root / "out.safetensors", "metrics": self.root / "out.json", "seed": 3,
                 "work": self.root / "volume/run/work", **self.others, **change}
        return train_by_ray_job(**words)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(Cluster(live=True, tokens=set()))
    made.cluster.pod_objects["launcher-pod"] = {
        "metadata": {"name": "launcher-pod", "uid": "u"}, "spec": {"containers": [{"name": "main", "image": IMAGE}]}}
    yield made
    made.stop()


@pytest.fixture
def place(server: Server, tmp_path: Path) -> Place:
    volume = tmp_path / "volume"
    with ClipStoreWriter(volume / "clips", 3) as writer:
        for number in range(4):
            frames = np.random.default_rng(number).integers(0, 256, (4, 24, 24, 3)).astype(np.uint8)
            writer.add(frames, clip_id=f"c{number}", source=f"s{number}", split="train" if number else "test",
                       category="x", motion=1.0, blur="synthetic", response="srgb")
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(width=4, blocks=1, features=8))
    save_encoder(tmp_path / "encoder.safetensors", encoder, {})
    write_orders(tmp_path / "orders.parquet", assign_orders(encoder, ClipStore(volume / "clips")))
    (tmp_path / "namespace").write_text(NAMESPACE)
    template = tmp_path / "rayjob.yaml"
    template.write_text(TEMPLATE.read_text().replace("/mnt/hypercut", str(volume)))
    lines: list[str] = []
    others = {"api": RayJobApi(server.url, tmp_path), "template": template, "host": "launcher-pod", "pace": PACE,
              "say": lines.append}
    return Place(tmp_path, volume / "clips", tmp_path / "orders.parquet", tmp_path / "encoder.safetensors", others,
                 lines)


@pytest.fixture
def play(server: Server) -> Iterator[Any]:
    """Be the operator for one RayJob: run its command, or only say that it has run; then its deletion."""
    threads: list[threading.Thread] = []
    stopping = threading.Event()

    def wait_for(ready: Any) -> str:
        with server.cluster.changed:
            while not stopping.is_set():
                found = [name for name, job in server.cluster.jobs.items() if ready(job["metadata"])]
                if found:
                    return found[0]
                server.cluster.changed.wait(0.05)
        return ""

    def operate(run: bool) -> None:
        name = wait_for(lambda metadata: True)
        job = server.cluster.get(name)
        done = subprocess.run([sys.executable, "-m", "pipelines.cli", *local(job["spec"]["entrypoint"])], cwd=ROOT,
                              env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
                              timeout=300) if run else None
        good = done is None or done.returncode == 0
        with server.cluster.changed:
            server.cluster.jobs[name]["metadata"]["finalizers"] = ["x"]
            server.cluster.set_status(name, jobDeploymentStatus="Complete" if good else "Failed",
                                      jobStatus="SUCCEEDED" if good else "FAILED",
                                      message="" if done is None else done.stderr[-500:])
        wait_for(lambda metadata: "deletionTimestamp" in metadata)
        if not stopping.is_set():
            server.cluster.finish_deletion(name)

    def start(run: bool = True) -> None:
        threads.append(threading.Thread(target=operate, args=(run,)))
        threads[-1].start()

    yield start
    stopping.set()
    for thread in threads:
        thread.join(60)


def local(entrypoint: str) -> list[str]:
    program, *words, last = shlex.split(entrypoint)
    assert (program, last) == ("hypercut", "deblurrer.scale.launcher=ray")
    return [*words, "deblurrer.scale.launcher=local", "--set", "deblurrer.scale.workers=1"]


@pytest.mark.system  # a process of its own that trains
def test_the_model_is_that_of_a_training_here(place: Place, play: Any, server: Server) -> None:
    play()
    figures = place.launch()
    here = dataclasses.replace(CONFIG, scale=ScaleConfig())
    same = train_deblurrer(place.store, place.orders, place.encoder, here, OBJECTIVE, place.root / "here.safetensors",
                           place.root / "here.json", 3, place.root / "work")
    assert figures == same
    assert (place.root / "out.safetensors").read_bytes() == (place.root / "here.safetensors").read_bytes()
    assert (place.root / "out.json").read_bytes() == (place.root / "here.json").read_bytes()
    assert server.cluster.jobs == {}
    assert list((place.root / "volume/run/work").iterdir()) == []  # cleared up
    [made] = server.cluster.made
    assert made["metadata"]["ownerReferences"][0]["name"] == "launcher-pod"
    assert made["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 2


def test_a_training_that_leaves_no_model_is_an_error(place: Place, play: Any) -> None:
    play(run=False)
    with pytest.raises(RayJobError, match=r"ended well and left no model.*mount the volume"):
        place.launch()
    assert not (place.root / "out.safetensors").exists()


def test_a_result_that_lies_there_is_picked_up_without_another_training(place: Place, server: Server,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a launcher that was killed between the end of the training and the copy."""
    from components.train_deblurrer import ray_job_launch

    def killed(self: Any) -> None:
        folder = Path(shlex.split(self.manifest["spec"]["entrypoint"])[3])
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "metrics.json").write_text('{"objective": "hypercut_targets", "steps": 3}')
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ray_job_launch.RayJobRun, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            place.launch()
    assert place.launch()["steps"] == 3
    assert (place.root / "out.safetensors").read_bytes() == b"weights"
    assert server.cluster.made == []
    assert any("its result is there already" in line for line in place.lines)


@pytest.mark.parametrize(("change", "words"), [
    ({"store": Path("/elsewhere/clips")}, "--clips /elsewhere/clips: the pods of a RayJob would not see this"),
    ({"work": Path("/elsewhere/work")}, "--workspace /elsewhere/work"),
    ({"config": dataclasses.replace(CONFIG, scale=ScaleConfig("rayjob", checkpoints="/elsewhere"))},
     r"deblurrer\.scale\.checkpoints /elsewhere"),
    ({"host": "another-pod"}, "this pod cannot be read"),
])
def test_what_the_pods_would_not_see_is_refused_before_anything_runs(place: Place, server: Server,
                                                                    change: dict[str, Any], words: str) -> None:
    with pytest.raises(RayJobError, match=words):
        place.launch(**change)
    assert server.cluster.made == []


def test_clips_on_s3_are_handed_on_as_they_are(place: Place, play: Any, server: Server) -> None:
    play(run=False)
    with pytest.raises(RayJobError, match="left no model"):
        place.launch(store="s3://bucket/clips")
    assert "--clips s3://bucket/clips" in server.cluster.made[0]["spec"]["entrypoint"]


def test_an_image_with_a_tag_is_refused(place: Place, server: Server) -> None:
    server.cluster.pod_objects["launcher-pod"]["spec"]["containers"][0]["image"] = "hypercut:1"
    with pytest.raises(RayJobError, match="not named by digest"):
        place.launch()


def test_outside_a_cluster_the_step_says_so(place: Place) -> None:
    with pytest.raises(RayJobError, match="no service account here"):
        place.launch(api=None)
