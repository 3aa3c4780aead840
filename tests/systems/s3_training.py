"""What tests of faults need: an S3 server that goes away and comes back, and a training that is watched."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.storage import S3Files, s3_client
from components.train_deblurrer.scale import ScaleConfig
from components.train_deblurrer.step import TrainDeblurrerConfig, train_deblurrer
from hypercut_core.clips.array_layout import Packing
from hypercut_core.clips.store import ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.files import FileStore
from hypercut_core.training.checkpoint import unpack
from hypercut_core.training.checkpoint_folder import NAME
from hypercut_core.training.loop import TrainingConfig
from infra.local import processes, s3_server
from infra.local.processes import ServicesError

STEPS = 24  # of a training


@dataclass
class Server:
    """The S3 server, which can be hung, killed and brought back."""

    folder: Path
    state: dict[str, Any]
    back: float = 0.0  # when it was there again
    _threads: list[threading.Thread] = field(default_factory=list)

    def away(self, how: str, seconds: float) -> None:
        """Gone now, back after so many seconds: hung (SIGSTOP), or killed and started again."""
        pid = processes.running(self.folder, s3_server.GATEWAY)
        assert pid is not None
        if how == "hung":
            os.kill(pid, signal.SIGSTOP)
        else:
            assert processes.stop(self.folder, s3_server.GATEWAY, signal.SIGKILL)

        def bring_back() -> None:
            time.sleep(seconds)  # the fault itself lasts so long
            if how == "hung":
                os.kill(pid, signal.SIGCONT)
            else:
                s3_server.start_gateway(self.folder, self.state)
            self.back = time.monotonic()

        self._threads.append(threading.Thread(target=bring_back))
        self._threads[-1].start()

    def wait(self) -> None:
        while self._threads:
            self._threads.pop().join()

    def user(self, *words: str) -> None:
        processes.tool(["radosgw-admin", "user", *words, "--uid=hypercut"],
                       {"CEPH_CONF": str(self.folder / "ceph/ceph.conf")})

    @property
    def env(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL_S3": s3_server.endpoint(self.state), "AWS_DEFAULT_REGION": s3_server.REGION,
                **s3_server.keys(self.folder, "hypercut")}


@contextlib.contextmanager
def s3_server_alone(folder: Path) -> Iterator[Server]:
    """Only the S3 server of infra/local; without its packages the test is skipped, or fails where they must be."""
    folder.mkdir(mode=0o700)
    server = Server(folder, {"in_memory": True})
    try:
        try:
            s3_server.start(folder, server.state)
        except ServicesError as error:
            if "apt-get install" in str(error) and os.environ.get("REQUIRE_SYSTEMS") != "1":
                pytest.skip(str(error))
            raise
        yield server
    finally:
        server.wait()
        for name in (s3_server.GATEWAY, s3_server.OSD, s3_server.MON):
            processes.stop(folder, name, signal.SIGKILL)


@dataclass
class Case:
    """Clips and what else a training needs, on disk; and the model that an undisturbed training gives."""

    clips: Path
    orders: Path
    encoder: Path
    weights: bytes = b""

    def train(self, folder: Path, clips: str | Path = "", checkpoints: str | Path = "",
              each_step: Callable[[int], None] = lambda step: None) -> tuple[bytes, dict[int, float]]:
        """The bytes of the model file, and when each step ended.

        Args:
            checkpoints: folder or prefix; default: below `folder`.
            each_step: called after each step.
        """
        ended: dict[int, float] = {}

        @contextlib.contextmanager
        def watch() -> Iterator[Callable[..., None]]:
            def told(step: int, figures: dict[str, float], picture: object) -> None:
                ended[step] = time.monotonic()
                each_step(step)
            yield told

        config = TrainDeblurrerConfig(
            "sequence_min", model=DeblurrerConfig(width=8, blocks=(1, 1), views=1),
            training=TrainingConfig(steps=STEPS, batch=4, crop=16, checkpoint_seconds=0.0, cache_mb=0, device="cpu"),
            scale=ScaleConfig(checkpoints=str(checkpoints), watch_seconds=1e-6))
        out = folder / "model.safetensors"
        train_deblurrer(clips or self.clips, self.orders, self.encoder, config, "sequence_min", out,
                        folder / "metrics.json", 5, folder / "work", watch=watch)
        return out.read_bytes(), ended


def made_clips(folder: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    with ClipStoreWriter(folder, 3, Packing(chunk=16, shard_bytes=4 * 4 * 48 * 48 * 3)) as writer:
        for number in range(24):
            writer.add(rng.integers(0, 256, (4, 48, 48, 3), dtype=np.uint8), clip_id=f"c{number}",
                       source=f"s{number}", split=("train", "train", "val", "test")[number % 4], category="x",
                       motion=2.0)
    return folder


def names(place: FileStore) -> list[str]:
    return sorted((name for name in place.names() if NAME.fullmatch(name)), key=lambda name: name.split("-")[1])


def good_checkpoints(place: FileStore) -> list[int]:
    """The steps of all checkpoints; each of them can be loaded."""
    return [unpack(place.read(name))[1]["step"] for name in names(place)]


def place_of(checkpoints: str) -> S3Files:
    """The prefix that the one training below `checkpoints` has made its own."""
    bucket, prefix = s3_client.split_uri(checkpoints)
    page = s3_client.client().list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/", Delimiter="/")
    [found] = page["CommonPrefixes"]
    return S3Files(f"s3://{bucket}/{found['Prefix']}")


class Steps(dict[int, float]):
    """When each step of a training ended; something may happen after one of them."""

    def then(self, step: int, do: Callable[[], object]) -> Callable[[int], None]:
        def each_step(now: int) -> None:
            self[now] = time.monotonic()
            if now == step:
                do()
        return each_step
