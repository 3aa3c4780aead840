"""Two workers on two cores against one worker on one core: samples a second, and bytes exchanged a step.

    .venv/bin/python -m benchmarks.workers

The deblurrer of params.yaml is trained by the training loop itself, alone and as two processes of a gloo group
that share the same batches, one thread and one core each. Both ways take turns in every round. Bytes are
counted on the loopback device of a network namespace of its own, where the machine permits one. Prints a
table and writes benchmarks/results/workers.md and .json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.params import Parameters, load
from hypercut_core.clips.moving_photos import render_clips
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.training import DeblurrerTraining
from hypercut_core.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
APART = "--in-own-network"
LARGER = ((16, 64),)  # (batch, crop) beside the recipe of params.yaml
WARM_UP = 5  # steps that are not timed: kernels are chosen, DDP's buckets settle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="timed steps a round")
    parser.add_argument(APART, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.in_own_network and own_network():
        raise SystemExit(subprocess.call([*UNSHARED, sys.executable, "-m", "benchmarks.workers", *sys.argv[1:], APART],
                                         cwd=ROOT))
    parameters = load(ROOT / "params.yaml")
    recipe = parameters.deblurrer
    cases = []
    for batch, crop in dict.fromkeys([(recipe.training.batch, recipe.training.crop), *LARGER]):
        training = replace(recipe.training, steps=WARM_UP + options.steps, batch=batch, crop=crop, threads=1,
                           device="cpu", checkpoint_seconds=1e9)
        cases.append(case(DeblurrerTraining(recipe.model, recipe.loss, training), parameters, options))
    result = {"parameters": count(recipe.model, parameters.frames), "steps": options.steps, "rounds": options.rounds,
              "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0],
              "bytes_counted": bool(options.in_own_network), "cases": cases}
    text = table(result)
    print(text)
    write_json(RESULTS / "workers.json", result, digits=4)
    write_text(RESULTS / "workers.md", text)


UNSHARED = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


def own_network() -> bool:
    """Whether this process may make a network namespace."""
    return bool(shutil.which("unshare") and shutil.which("ip")) and subprocess.run(
        [*UNSHARED, "true"], capture_output=True, check=False).returncode == 0


def measure(size: int, store: Path, settings: DeblurrerTraining, folder: Path, count_bytes: bool) -> dict[str, float]:
    """One training by `size` processes: wall and CPU seconds and bytes of the timed steps."""
    meeting = Path(tempfile.mkdtemp(dir=folder))
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    cores = sorted(os.sched_getaffinity(0))
    ranks = [context.Process(target=train_as, args=(rank, size, cores[rank % len(cores)], store, settings, meeting,
                                                    count_bytes, answers)) for rank in range(size)]
    for process in ranks:
        process.start()
    told = [answers.get(timeout=600) for _ in ranks]
    for process in ranks:
        process.join()
    return {"seconds": max(one["seconds"] for one in told), "cpu": sum(one["cpu"] for one in told),
            "bytes": max(one["bytes"] for one in told)}


def train_as(rank: int, size: int, core: int, store: Path, settings: DeblurrerTraining, meeting: Path,
             count_bytes: bool, answers: Any) -> None:
    """One process: trains its share, and tells what the steps after the warm-up took."""
    os.sched_setaffinity(0, {core})
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch.distributed as dist

    from hypercut_core.clips.dataset import Batch
    from hypercut_core.deblurring import training
    from hypercut_core.training.execution import Execution
    from hypercut_core.training.world import World

    if size > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        dist.init_process_group("gloo", init_method=f"file://{meeting}/meeting", rank=rank, world_size=size)
    start: list[tuple[float, float, int]] = []

    class Timed(training.ClipBatches):
        def __call__(self, step: int, places: range | None = None) -> Batch:
            if step == WARM_UP and not start:
                if size > 1:
                    dist.barrier()
                start.append((time.perf_counter(), time.process_time(), sent() if count_bytes else 0))
            return super().__call__(step, places)

    training.ClipBatches = Timed  # type: ignore[misc]
    training.fit_deblurrer(ClipStore(store), "sequence_min", settings, 0, meeting / "work",
                           execution=Execution(World.here()))
    wall, cpu, before = start[0]
    answers.put({"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu,
                 "bytes": sent() - before if count_bytes else 0})
    if size > 1:
        dist.destroy_process_group()


def sent() -> int:
    """Bytes that went over the loopback device of this network namespace."""
    line = next(line for line in Path("/proc/net/dev").read_text(encoding="utf-8").splitlines() if "lo:" in line)
    return int(line.split(":")[1].split()[8])


def case(settings: DeblurrerTraining, parameters: Parameters, options: argparse.Namespace) -> dict[str, Any]:
    """One size of batches and crops, by one worker and by two in turn."""
    training = settings.training
    photos = replace(parameters.blur.photos, size=training.crop + 8)
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "clips"
        with ClipStoreWriter(store, parameters.frames) as writer:
            for k, clip in enumerate(render_clips(photos, "train", 64, 0, frames=parameters.frames)):
                writer.add(clip.frames, clip_id=str(k), source=clip.source, split="train", category=clip.category,
                           motion=clip.motion)
        for _ in range(options.rounds):
            for size, found in runs.items():
                found.append(measure(size, store, settings, Path(folder), options.in_own_network))
    samples = options.steps * training.batch
    both = list(zip(runs[1], runs[2], strict=True))
    return {"batch": training.batch, "crop": training.crop,
            "ratios": [one["seconds"] / two["seconds"] for one, two in both],
            "cpu_ratios": [two["cpu"] / one["cpu"] for one, two in both],
            "samples_per_second": {str(size): statistics.median(samples / one["seconds"] for one in found)
                                   for size, found in runs.items()},
            "bytes_per_step": statistics.median(two["bytes"] / options.steps for two in runs[2])}


def count(model: DeblurrerConfig, frames: int) -> int:
    return sum(p.numel() for p in EvenOddDeblurrer(model, frames).parameters())


def table(result: dict[str, Any]) -> str:
    megabytes = 4 * result["parameters"] / 1e6
    rows = ["# Two workers against one", "",
            f"The deblurrer of params.yaml ({result['parameters'] / 1e6:.2f} M parameters, {megabytes:.2f} MB of "
            f"gradients) on {result['cores']} cores: one worker on one core, and two workers on two that share "
            f"the same batches, one thread each; {result['steps']} timed steps, medians of {result['rounds']} "
            "rounds (lowest to highest). CPU: CPU-seconds of both workers against those of the one for the same "
            "samples, which is what exchange and smaller shares cost whatever else the machine does. Load of the "
            "machine at the end: "
            f"{result['load']:.1f}.", "", "Command: `.venv/bin/python -m benchmarks.workers`", "",
            "| batch, crop | one worker, samples/s | two workers | ratio | CPU | MB exchanged a step |",
            "|---|---|---|---|---|---|"]
    for one in result["cases"]:
        count = f"{one['bytes_per_step'] / 1e6:.2f}" if result["bytes_counted"] else "not counted"
        rates = one["samples_per_second"]
        rows.append(f"| {one['batch']} clips, {one['crop']} px | {rates['1']:.1f} | {rates['2']:.1f} | "
                    f"**{spread(one['ratios'])}** | {spread(one['cpu_ratios'])} | {count} |")
    rows += ["", "N workers in a ring send 2 (N - 1) times the gradients a step, all together (computed): "
                 f"{2 * megabytes:.2f} MB for two. The first row is the recipe of the laptop, with shares of a few "
                 "small clips; the second is what workers are for.", ""]
    return "\n".join(rows)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    main()
