"""What a step, a clip and a row of the table cost here, and what follows from that for 64 GPUs and 10 million clips.

    .venv/bin/python -m benchmarks.scaling

Measured: CPU time of one thread (the machine may be busy), bytes, requests, memory. Computed: everything about GPUs
and networks, by scaling_model.py from what is counted and from assumptions that the tables name. Prints the tables,
writes benchmarks/results/scaling.json and .md, and the same tables between the marks in docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clip_reading import CROP, HEIGHT, SHARP, WIDTH, content, finish, tree_size, write_store
from benchmarks.scaling_tables import NAMES, RESULTS, tables
from hypercut_core.clips.array_layout import ArrayLayout, Packing
from hypercut_core.clips.byte_source import LocalBytes
from hypercut_core.clips.clip_table import TABLE
from hypercut_core.clips.dataset import sample_indices
from hypercut_core.clips.layouts import PairedClip
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.shards import packed
from hypercut_core.clips.store import FORMAT, ClipStore
from hypercut_core.deblurring.models import SHAPES, build_deblurrer
from hypercut_core.deblurring.objectives import LossConfig, objective_loss
from hypercut_core.files import read_json, write_json, write_text

DOCUMENT = Path("docs/scaling.md")
MARKS = "<!-- benchmarks.scaling begins -->", "<!-- benchmarks.scaling ends -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the table that is opened")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--again", action="store_true", help="only make the tables again, of scaling.json")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.open:
        print(json.dumps(opened(options.open)))
        return
    if not options.again:
        with tempfile.TemporaryDirectory() as folder:
            measured = {"step": step_figures(options.rounds), **clip_figures(Path(folder), options.rounds),
                        "table": table_figures(Path(folder) / "table", options.rows)}
        write_json(RESULTS / "scaling.json", measured, digits=6)
    text = tables(read_json(RESULTS / "scaling.json"))
    print(text)
    write_text(RESULTS / "scaling.md", "# Scaling\n\nRead with [docs/scaling.md](../../docs/scaling.md). Command: "
               f"`.venv/bin/python -m benchmarks.scaling`\n\n{text}")
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(MARKS[0])
    write_text(DOCUMENT, f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")


def spent(call: Callable[[], Any]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def step_figures(rounds: int, crop: int = 128) -> dict[str, Any]:
    """A step of the default model, one crop at a time, on one core; parameters and FLOP of two models."""
    figures: dict[str, Any] = {"crop": crop}
    for name in NAMES:
        model = build_deblurrer(SHAPES[name], SHARP).train()
        sharp = torch.rand(1, SHARP, 3, CROP, CROP)
        with FlopCounterMode(display=False) as counter:
            loss_of(model, sharp).backward()
        figures[name] = {"parameters": sum(p.numel() for p in model.parameters()), "flop": counter.get_total_flops()}
    model = build_deblurrer(SHAPES["default"], SHARP).train()
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    sharp, times = torch.rand(1, SHARP, 3, crop, crop), []
    for _ in range(rounds + 1):
        start = time.process_time()
        loss = loss_of(model, sharp)
        middle = time.process_time()
        loss.backward()
        end = time.process_time()
        times.append((middle - start, end - middle, spent(optimiser.step)))
    figures |= {name: statistics.median(column) for name, column in
                zip(("forward", "backward", "optimiser"), zip(*times[1:], strict=True), strict=True)}
    return figures


def loss_of(model: torch.nn.Module, sharp: torch.Tensor) -> torch.Tensor:
    return objective_loss("hypercut_targets", model(sharp.mean(1)), sharp, torch.ones(len(sharp)), LossConfig())


class Counted(LocalBytes):
    """A folder that counts what is asked of it, in the runs in which an S3 store is asked."""

    merge_gap = 0

    def __init__(self, root: Path, merge_gap: int):
        super().__init__(root)
        self.merge_gap, self.reads, self.bytes = merge_gap, 0, 0

    def read(self, key: str, offset: int, length: int) -> bytes:
        self.reads, self.bytes = self.reads + 1, self.bytes + length
        return super().read(key, offset, length)


def read_all(store: ClipStore, draws: list[list[int]]) -> None:
    """Crops at (clip, top, left)."""
    for clip, top, left in draws:
        store.read_crop(clip, top, left, CROP, CROP)


def clip_figures(folder: Path, rounds: int) -> dict[str, Any]:
    """Reading and making clips of 720p."""
    from components.storage.clip_bytes import GAP

    sharp, what = content()
    clips = [finish(frames, 0.0) for frames in sharp]
    write_store(clips, folder / "clips", Packing())
    size = tree_size(folder / "clips") / len(clips)
    figures: dict[str, Any] = {"content": what, "clip_bytes": size, "raw_bytes": clips[0].nbytes}
    rng = np.random.default_rng(0)
    for name, gap in (("disk", 0), ("s3", GAP)):
        source = Counted(folder / "clips", gap)
        store, times = ClipStore(source), []
        for k in range(len(clips)):
            store.read_crop(k, 0, 0, 8, 8)  # the shard's index is read once
        source.reads = source.bytes = 0
        for _ in range(rounds):
            draws = rng.integers(0, (len(clips), HEIGHT - CROP + 1, WIDTH - CROP + 1), (16, 3)).tolist()
            times.append(spent(partial(read_all, store, draws)) / 16)
        figures[name] = {"cpu_seconds": statistics.median(times), "reads": source.reads / rounds / 16,
                         "bytes": source.bytes / rounds / 16}
    paired = as_files(clips[0], folder / "png")
    layout = ArrayLayout.plan(SHARP + 1, HEIGHT, WIDTH, Packing())
    figures["import_seconds"] = statistics.median(spent(lambda: packed(paired.load(), layout)) for _ in range(rounds))
    rendered = [spent(lambda: list(render_clips(MovingPhotosConfig(), "train", 16, 0, SHARP))) / 16
                for _ in range(rounds + 1)]
    figures["render_seconds"] = statistics.median(rendered[1:])
    figures["shard"] = {"clips": layout.shard_clips, "index_bytes": 16 * layout.index_entries + 4}
    return figures


def as_files(clip: np.ndarray, folder: Path) -> PairedClip:
    from PIL import Image

    folder.mkdir()
    files = [folder / f"{k}.png" for k in range(len(clip))]
    for file, frame in zip(files, clip, strict=True):
        Image.fromarray(frame).save(file, compress_level=6)
    return PairedClip("c", "s", "train", "c", "keep", files[0], tuple(files[1:]))


def table_figures(folder: Path, rows: int) -> dict[str, Any]:
    """A table of so many clips of 720p, opened in a process of its own."""
    large_store(folder, rows)
    done = subprocess.run([sys.executable, "-m", "benchmarks.scaling", "--open", str(folder)], check=True,
                          capture_output=True, text=True)
    return {"rows": rows, "file_bytes": (folder / TABLE).stat().st_size, **json.loads(done.stdout)}


def large_store(folder: Path, rows: int) -> None:
    """A store without its shards: opening reads none of them. Sources of 400 clips."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    array = f"{HEIGHT}x{WIDTH}"
    (folder / array).mkdir(parents=True)
    layout = replace(ArrayLayout.plan(SHARP + 1, HEIGHT, WIDTH, Packing()), clips=rows)
    write_json(folder / array / "zarr.json", layout.to_json())
    write_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group",
                                      "attributes": {"hypercut": {"format": FORMAT, "frames": SHARP}}})
    number, step = np.arange(rows), 1_000_000
    writer = None
    for start in range(0, rows, step):
        part = number[start:start + step]
        text = os.urandom(32 * len(part)).hex()
        same = {"array": array, "split": "train", "category": "hand", "blur": "captured", "response": "srgb"}
        columns: dict[str, Any] = {name: pa.array([word] * len(part)) for name, word in same.items()}
        columns |= {"clip_id": [f"seq{k // 400:06d}/{k % 400:06d}-0" for k in part.tolist()], "index": part,
                    "source": [f"seq{k // 400:06d}" for k in part.tolist()],
                    "sha256": [text[k:k + 64] for k in range(0, len(text), 64)],
                    "motion": np.random.default_rng(start).uniform(1, 40, len(part)), "noise": np.zeros(len(part)),
                    "height": np.full(len(part), HEIGHT), "width": np.full(len(part), WIDTH),
                    "frames": np.full(len(part), SHARP)}
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(folder / TABLE, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def opened(folder: Path) -> dict[str, float]:
    """Seconds and memory of opening a store, of its hash, and of one epoch's order."""
    import pyarrow.compute
    import pyarrow.parquet  # their memory is not the table's

    before, stores = memory("VmRSS"), []
    figures: dict[str, float] = {"open_seconds": spent(lambda: stores.append(ClipStore(folder)))}
    figures |= {"open_bytes": pyarrow.total_allocated_bytes(), "open_peak_bytes": memory("VmHWM") - before}
    store = stores[0]
    figures["indices_seconds"] = spent(lambda: store.indices("train"))
    figures["hash_seconds"] = spent(lambda: store.sha256)
    figures["order_seconds"] = spent(lambda: sample_indices(len(store), 8, 0, 0))
    before, few = memory("VmRSS"), min(len(store), 300_000)
    held = store.records[:few]
    figures["object_bytes"] = (memory("VmRSS") - before) / len(held)  # a row as a Python object, as all were once
    return figures


def memory(what: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))


if __name__ == "__main__":
    main()
