"""The tables of benchmarks/scaling.py: what was measured, and what scaling_model.py computes from it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.clip_reading import CROP
from benchmarks.scaling_model import GPUS, Machine, Model, efficiency, exchange_seconds, ring_bytes, samples_per_second
from hypercut_core.files import read_json

RESULTS = Path(__file__).parent / "results"
CLIPS = {"RB2V": 38_000, "10 million": 10_000_000}
NAMES = ("default", "large")  # of the models, in SHAPES
BATCH = 512  # of all GPUs together, crops of 256 px
NETWORKS = (Machine("100 Gb/s", 100e9 / 8), Machine("25 Gb/s", 25e9 / 8))


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
