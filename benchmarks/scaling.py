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
from benchmarks.scaling_model import GPUS, Machine, Model, efficiency, exchange_seconds, ring_bytes, samples_per_second
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

RESULTS, DOCUMENT = Path(__file__).parent / "results", Path("docs/scaling.md")
MARKS = "<!-- benchmarks.scaling begins -->", "<!-- benchmarks.scaling ends -->"
CLIPS = {"RB2V": 38_000, "10 million": 10_000_000}
NAMES = ("default", "large")  # of the models, in SHAPES
BATCH = 512  # of all GPUs together, crops of 256 px
NETWORKS = (Machine("100 Gb/s", 100e9 / 8), Machine("25 Gb/s", 25e9 / 8))


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


def tables(m: dict[str, Any]) -> str:
    return "\n".join([*costs(m), "", *gpus(m), "", *sizes(m), ""])


def costs(m: dict[str, Any]) -> list[str]:
    step, table = m["step"], m["table"]
    pixels = 1e3 / step["crop"]**2 * CROP**2
    rows = [
        (f"forward pass, default model, a crop of {step['crop']} px, one core", f"{1e3 * step['forward']:.0f} ms"),
        ("backward pass", f"{1e3 * step['backward']:.0f} ms"),
        ("optimiser (AdamW, fused)", f"{1e3 * step['optimiser']:.0f} ms"),
        *((f"{name} model: parameters; FLOP of a {CROP} px sample, forward and backward",
           f"{step[name]['parameters'] / 1e6:.1f} M; {step[name]['flop'] / 1e9:.0f} G") for name in NAMES),
        (f"a {CROP} px sample out of a 720p store on disk, one core", f"{1e3 * m['disk']['cpu_seconds']:.1f} ms"),
        ("the same: bytes read; reads", f"{m['disk']['bytes'] / 1e3:.0f} kB; {m['disk']['reads']:.1f}"),
        ("the same as S3 is asked: bytes; requests", f"{m['s3']['bytes'] / 1e3:.0f} kB; {m['s3']['reads']:.1f}"),
        ("a 720p clip in the store (of its raw bytes)",
         f"{m['clip_bytes'] / 1e6:.1f} MB ({m['clip_bytes'] / m['raw_bytes']:.0%})"),
        ("importing a 720p clip of eight PNG files, one core", f"{m['import_seconds']:.2f} s"),
        ("rendering a 48 px clip of moving photos, one core", f"{1e3 * m['render_seconds']:.0f} ms"),
        (f"clips.parquet of {table['rows']:,} clips: file", f"{table['file_bytes'] / 1e6:.0f} MB"),
        ("the same: opening and checking it, one core", f"{table['open_seconds']:.1f} s"),
        ("the same: memory; peak while opening",
         f"{table['open_bytes'] / 1e6:.0f} MB; {table['open_peak_bytes'] / 1e6:.0f} MB"),
        ("the same: hash of all rows; order of one epoch",
         f"{table['hash_seconds']:.1f} s; {table['order_seconds']:.2f} s"),
        ("a row as a Python object, as every row was before", f"{table['object_bytes']:.0f} bytes")]
    rows += exchanged()
    cpu = pixels * (step["forward"] + step["backward"]) / 1e3
    return ["### What was measured here", "", f"CPU time of one thread; clips: {m['content']}.", "",
            "| what | figure | |", "|---|---|---|", *(f"| {what} | {figure} | measured |" for what, figure in rows),
            f"| a {CROP} px sample, forward and backward, one core | {cpu:.1f} s | computed: by its area |"]


def exchanged() -> list[tuple[str, str]]:
    """What benchmarks/workers.py counted of two processes, beside what a ring of two sends."""
    file = RESULTS / "workers.json"
    if not file.is_file():
        return []
    found = {"cases": [], "bytes_counted": False, **read_json(file)}
    ring = 2 * ring_bytes(4 * found["parameters"], 2)
    return [(f"two workers over gloo, {found['parameters'] / 1e6:.2f} M parameters: exchanged a step "
             f"(a ring of two: {ring / 1e6:.2f} MB)", f"{one['bytes_per_step'] / 1e6:.2f} MB")
            for one in found["cases"][:1] if found["bytes_counted"]]


def models(m: dict[str, Any]) -> list[Model]:
    return [Model(name, m["step"][name]["parameters"], m["step"][name]["flop"]) for name in NAMES]


def gpus(m: dict[str, Any]) -> list[str]:
    one = NETWORKS[0]
    lines = ["### 1 to 64 GPUs", "",
             f"All *computed* by benchmarks/scaling_model.py. Assumed: {one.node} GPUs a node; "
             f"{one.flop_rate / 1e12:.0f} TFLOP/s of a GPU on this model; {one.nvlink / 1e9:.0f} GB/s in a ring inside "
             f"a node; gradients hide behind {one.hidden:.0%} of the backward pass; {one.latency * 1e6:.0f} µs a "
             f"message. A batch of {BATCH} crops of {CROP} px is shared by all GPUs.", ""]
    for model in models(m):
        lines += [f"{model.name}: {model.gradient_bytes / 1e6:.0f} MB of gradients a step", "",
                  "| GPUs | clips a GPU | sent by each GPU a step | samples/s, 100 Gb/s | exchange, 100 Gb/s "
                  "| efficiency, 100 Gb/s | exchange, 25 Gb/s | efficiency, 25 Gb/s | cores to read |",
                  "|---|---|---|---|---|---|---|---|---|"]
        for count in GPUS:
            rate = samples_per_second(model, one, count, BATCH)
            inside, nodes = min(count, one.node), max(1, count // one.node)
            sent = ring_bytes(model.gradient_bytes, inside) + ring_bytes(model.gradient_bytes, nodes) / inside
            cells = [f"{1e3 * exchange_seconds(model, net, count):.1f} ms | "
                     f"**{efficiency(model, net, count, BATCH):.0%}**" for net in NETWORKS]
            lines.append(f"| {count} | {BATCH / count:g} | {sent / 1e6:.0f} MB | {rate:,.0f} | {cells[0]} | {cells[1]} "
                         f"| {rate * m['disk']['cpu_seconds']:.0f} |")
        lines.append("")
    return lines


def sizes(m: dict[str, Any]) -> list[str]:
    small, large = models(m)
    table, shard = m["table"], m["shard"]
    row = table["file_bytes"] / table["rows"]
    rates = {count: samples_per_second(small, NETWORKS[0], count, BATCH) for count in (1, 8, 64)}
    lines = ["### 38,000 and 10 million clips of 720p", "",
             "*Computed* from the measured figures above; the default model on a 100 Gb/s network.", "",
             "| | " + " | ".join(f"{name} ({clips:,} clips)" for name, clips in CLIPS.items()) + " |",
             "|---|---|---|"]

    def line(what: str, figure: Callable[[int], str]) -> None:
        lines.append(f"| {what} | " + " | ".join(figure(clips) for clips in CLIPS.values()) + " |")

    def epoch(rate: float, n: int) -> str:
        return duration(n / rate)

    def traffic(rate: float, n: int) -> str:
        return f"{rate * m['s3']['bytes'] / 1e9:.2f} GB/s; {rate * m['s3']['reads']:,.0f}/s"

    line("store", lambda n: f"{n * m['clip_bytes'] / 1e12:.2f} TB")
    line("objects (shards)", lambda n: f"{-(-n // shard['clips']):,}")
    line("importing it, 64 cores", lambda n: duration(n * m["import_seconds"] / 64))
    line("clips.parquet", lambda n: f"{n * row / 1e6:,.0f} MB")
    line("opening the store, CPU time (measured at the larger)",
         lambda n: f"{n * table['open_seconds'] / table['rows']:.1f} s")
    line("memory of the open table, each process", lambda n: f"{n * table['open_bytes'] / table['rows'] / 1e6:,.0f} MB")
    line("the same as Python objects", lambda n: f"{n * table['object_bytes'] / 1e6:,.0f} MB")
    line("orders of epochs (8 bytes a clip, 8 kept)", lambda n: f"{8 * 8 * n / 1e6:,.0f} MB")
    line("shards' indexes, if all were kept",
         lambda n: f"{-(-n // shard['clips']) * shard['index_bytes'] / 1e9:.2f} GB")
    for count, rate in rates.items():
        line(f"epoch on {count} GPU{'s' * (count > 1)}", partial(epoch, rate))
    for count, rate in rates.items():
        line(f"reading for {count} GPU{'s' * (count > 1)}: disk or network; S3 requests",
             partial(traffic, rate))
    line("a checkpoint, default; large", lambda n: f"{small.checkpoint_bytes() / 1e6:.0f} MB; "
                                                   f"{large.checkpoint_bytes() / 1e6:,.0f} MB")
    line("checkpoint traffic at one in 20 s", lambda n: f"{small.checkpoint_bytes() / 20e6:.1f}; "
                                                       f"{large.checkpoint_bytes() / 20e6:.0f} MB/s")
    return lines


def duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
