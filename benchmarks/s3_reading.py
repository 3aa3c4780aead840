"""Reading clips from S3 against reading them from disk: samples per CPU-second, requests and bytes a sample.

    .venv/bin/python -m benchmarks.s3_reading

Starts an S3 server of its own (radosgw, as infra/local does). The same store lies on disk and on that server;
every way of reading gets the same draws in each round, the rounds are interleaved, and the CPU time is that of
this process with all its threads: the server is another process. Writes benchmarks/results/s3_reading.md and .json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.clip_reading import CROP, HEIGHT, WIDTH, content, finish
from components.storage import clip_source, s3_client, upload_clips
from hypercut_core.clips.dataset import ClipBatches
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.files import write_json, write_text

RESULTS = Path(__file__).parent / "results"
BATCH = 8
TARGET = 0.8


class BotoBytes:
    """What reading by boto3's own GET costs, for comparison: the same calls, one request each."""

    def __init__(self, uri: str):
        self.name, self.requests, self.received = uri, 0, 0
        self.bucket, self.prefix = s3_client.split_uri(uri)

    def size(self, key: str) -> int:
        return int(s3_client.client().head_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}")["ContentLength"])

    def read(self, key: str, offset: int, length: int) -> bytes:
        self.requests += 1
        self.received += length
        return bytes(s3_client.client().get_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}",
                                                   Range=f"bytes={offset}-{offset + length - 1}")["Body"].read())


@dataclass
class Way:
    """One way to read, and what each round took."""

    name: str
    store: ClipStore
    counter: Any = None  # has `requests` and `received`
    seconds: list[float] = field(default_factory=list)  # CPU-seconds a sample
    wall: list[float] = field(default_factory=list)
    requests: float = 0.0  # a sample, of the last round
    received: float = 0.0

    def measure(self, read: Callable[[ClipStore], object], samples: int) -> None:
        before = (self.counter.requests, self.counter.received) if self.counter else (0, 0)
        cpu, wall = time.process_time(), time.perf_counter()
        read(self.store)
        self.seconds.append((time.process_time() - cpu) / samples)
        self.wall.append((time.perf_counter() - wall) / samples)
        if self.counter:
            self.requests = (self.counter.requests - before[0]) / samples
            self.received = (self.counter.received - before[1]) / samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=4, help=f"batches of {BATCH} in a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"rounds": options.rounds, "samples": options.batches * BATCH, "target": TARGET,
                              "stores": []}
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder)):
        for title, made, crop in stores(Path(folder)):
            uri = f"s3://hypercut/{made.name}"
            upload_clips(made, uri)
            for task in ("batches of training", "crops alone"):
                ways = list(prepare(made, uri, Path(folder) / f"cache-{made.name}-{task[0]}"))
                measure(ways, task, crop, options.rounds, options.batches)
                result["stores"].append({"store": title, "task": task, "ways": compare(ways)})
    text = table(result)
    print(text)
    write_json(RESULTS / "s3_reading.json", result, digits=5)
    write_text(RESULTS / "s3_reading.md", text)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[None]:
    """A server in memory; its address and keys in this process's environment."""
    from infra.local import processes, s3_server

    place, state = folder / "state", {"in_memory": True}
    place.mkdir(mode=0o700)
    try:
        s3_server.start(place, state)
        os.environ.update(AWS_ENDPOINT_URL_S3=s3_server.endpoint(state), AWS_DEFAULT_REGION=s3_server.REGION,
                          **s3_server.keys(place, "hypercut"))
        yield
    finally:
        for name in (s3_server.GATEWAY, s3_server.OSD, s3_server.MON):
            processes.stop(place, name, signal.SIGKILL)


def stores(folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Title, folder and crop of the stores that are read."""
    sharp, what = content()
    with ClipStoreWriter(folder / "large", 7) as writer:
        for number, frames in enumerate(sharp):
            writer.add(finish(frames, 1.5 * (number % 2)), clip_id=f"{number}", source=f"{number}", split="train",
                       category="x", motion=2.0)
    yield f"{what}: {len(sharp)} clips of {HEIGHT}x{WIDTH}, crops of {CROP}", folder / "large", CROP
    config = MovingPhotosConfig(size=96)
    with ClipStoreWriter(folder / "small", 7) as writer:
        for number, clip in enumerate(render_clips(config, "train", 64, 0, 7)):
            writer.add(clip.frames, clip_id=f"{number}", source=f"{number}", split="train", category="x", motion=2.0)
    yield "built-in photos: 64 clips of 96x96, crops of 48", folder / "small", 48


def prepare(made: Path, uri: str, cache: Path) -> Iterator[Way]:
    yield Way("disk", ClipStore(made))
    for name, options in (("S3, ranges", {"memory_mb": 16, "cache_folder": ""}),
                          ("S3, store kept in memory", {"memory_mb": 512, "cache_folder": ""}),
                          ("S3, cache on disk", {"memory_mb": 16, "cache_folder": cache, "cache_mb": 512})):
        source = clip_source(uri, **options)  # type: ignore[arg-type]
        if name == "S3, ranges":
            source._kept = None  # also where the store would fit into memory
        yield Way(name, ClipStore(source), source.ranges)
    boto = BotoBytes(uri)
    yield Way("S3, boto3's GET for each read", ClipStore(boto), boto)


def measure(ways: list[Way], task: str, crop: int, rounds: int, batches: int) -> None:
    for turn in range(-1, rounds):  # the first one fills caches and indexes, and is not counted
        wanted: list[np.ndarray] = []

        def read(store: ClipStore, turn: int = turn, wanted: list[np.ndarray] = wanted) -> None:
            if task == "crops alone":
                pixels = read_crops(store, crop, turn + 1, batches)
            else:
                made = ClipBatches(store, "train", BATCH, crop, seed=0, cache_bytes=0)
                first = (turn + 1) * batches
                pixels = [made(step).sharp.numpy() for step in range(first, first + batches)][-1]
            wanted.append(pixels[-1, -1, :8, :8].copy())

        for way in ways:
            way.measure(read, batches * BATCH)
        assert all(np.array_equal(wanted[0], other) for other in wanted)
        if turn < 0:
            for way in ways:
                way.seconds.clear()
                way.wall.clear()


def read_crops(store: ClipStore, crop: int, turn: int, batches: int) -> np.ndarray:
    """Random crops, asked for one batch ahead as training does; the last one, [T + 1, crop, crop, 3]."""
    rng = np.random.default_rng(turn)
    record = store.records[0]
    limits = (len(store), record.height - crop + 1, record.width - crop + 1)
    draws = [(*draw, crop, crop) for draw in rng.integers(0, limits, (batches * BATCH, 3)).tolist()]
    for start in range(0, len(draws), BATCH):
        store.prefetch(draws[start + BATCH if start else 0:start + 2 * BATCH])
        clips = [store.read_crop(*draw) for draw in draws[start:start + BATCH]]
    return clips[-1].transpose(0, 3, 1, 2)


def compare(ways: list[Way]) -> list[dict[str, Any]]:
    rows = []
    for way in ways:
        ratios = [disk / own for disk, own in zip(ways[0].seconds, way.seconds, strict=True)]
        rows.append({"name": way.name, "samples_per_cpu_second": 1 / statistics.median(way.seconds),
                     "ratio": statistics.median(ratios), "ratio_lowest": min(ratios), "ratio_highest": max(ratios),
                     "wall_ms": 1e3 * statistics.median(way.wall), "requests": way.requests,
                     "received_kib": way.received / 1024})
    return rows


def table(result: dict[str, Any]) -> str:
    lines = ["# Reading clips from S3", "",
             f"The same store and the same draws from disk and from an S3 server (radosgw) on this machine; medians of "
             f"{result['rounds']} interleaved rounds of {result['samples']} samples. Ratio: samples per CPU-second of "
             f"the reading process against disk in the same round (lowest to highest round); wanted: {TARGET} of disk. "
             "Disk is read from the page cache. Wall: milliseconds a sample, with the server on the same two cores. "
             "Batches of training are what a training reads: crops, turned and mirrored, as float32. Unless it is told "
             "otherwise, a store of up to 256 MiB is kept in memory and a larger one is read by ranges; memory and the "
             "cache on disk are filled in a first round that is not counted.", "",
             "Command: `.venv/bin/python -m benchmarks.s3_reading`", ""]
    for part in result["stores"]:
        lines += [f"## {part['task']}; {part['store']}", "",
                  "| way | samples per CPU-s | of disk | wall, ms | requests a sample | KiB a sample |",
                  "|---|---|---|---|---|---|"]
        lines += [f"| {row['name']} | {row['samples_per_cpu_second']:.0f} | **{row['ratio']:.2f}** "
                  f"({row['ratio_lowest']:.2f}–{row['ratio_highest']:.2f}) | {row['wall_ms']:.1f} | "
                  f"{row['requests']:.2f} | {row['received_kib']:.0f} |" for row in part["ways"]]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
