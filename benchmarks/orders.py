"""Orders against each other: what a deblurrer gains from each, at equal steps and at equal CPU-seconds.

    nice .venv/bin/python -m benchmarks.orders [--seeds 0 1 2] [--rows ROW ...] [--steps 3000] [--table]

A row is an objective, an order and a number of axes; a cell is a row with one seed: its own clips, encoder,
orders and initial weights, made by the pipeline's own steps with the values of params.yaml. Everything that is
finished is kept in work/benchmarks/orders and never trained again, and a stopped training goes on, so the
command may be stopped at any time; the table is written after each cell and names those that are missing.
Writes benchmarks/results/orders.md and .json. A cell is a training: 5 to 8 minutes on one idle core.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.objectives import spread
from components.params import Parameters, load
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.models import load_deblurrer, save_deblurrer
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.evaluation.protocol import ClipScores, evaluate_clips, repeat_blurry, summarise
from hypercut_core.files import read_json, write_json, write_text
from hypercut_core.ordering.labels import OrderTable, clip_tensor, read_orders
from hypercut_core.ordering.rule import mean_motion
from hypercut_core.training.loop import forget
from pipelines import local
from pipelines.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
WORK = Path("work/benchmarks/orders")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    objective: str
    order: str = ""  # encoder.objective of the order that it needs or is measured against
    axes: int = 1
    longer: float = 1.0  # steps, as a multiple of the others': what the encoder costs, given to the deblurrer


ROWS = {
    "sequence_min": Row("sequence_min"),
    "rule_targets": Row("rule_targets"),
    "hypercut_targets": Row("hypercut_targets", "hypercut"),
    "distilled_targets": Row("hypercut_targets", "distilled"),
    "sequence_min, two axes": Row("sequence_min", axes=2),
    "rule_targets, two axes": Row("rule_targets", axes=2),
    "hypercut_targets, two axes": Row("hypercut_targets", "hypercut", axes=2),
    "distilled_targets, two axes": Row("hypercut_targets", "distilled", axes=2),
    "sequence_min, 1.33 x steps": Row("sequence_min", longer=4 / 3),
    "rule_targets, 1.33 x steps": Row("rule_targets", longer=4 / 3),
}


def place(seed: int, order: str) -> Workspace:
    """The workspace of a seed; each order has an encoder and a table of its own beside the same clips."""
    root = WORK / f"seed-{seed}"
    name = order or "hypercut"
    return Workspace(root, {"encoder": root / f"models/encoder-{name}.safetensors",
                            "orders": root / f"data/orders-{name}.parquet",
                            "metrics of train-encoder": root / f"metrics/train-encoder-{name}.json"})


def prepare(seed: int, order: str) -> tuple[ClipStore, OrderTable | None, float]:
    """Clips of a seed, the order table, and the CPU-seconds that the encoder and the table took."""
    ws = place(seed, order)
    p = load(Path("params.yaml"), overrides=[f"seed={seed}", "order.threads=1",
                                             f"encoder.objective={order or 'hypercut'}"])
    if not ws.clips.exists():
        local.collect_footage(ws, p)
        local.synthesize_blur(ws, p)
    if not order:
        return ClipStore(ws.clips), None, 0.0
    cost = ws.root / f"metrics/cost-{order}.json"
    if not ws.orders.exists():
        start, before = time.process_time(), read_json(cost)["seconds"] if cost.exists() else 0.0
        try:
            if not ws.encoder.exists():
                local.train_encoder(ws, p)
            local.assign_order(ws, p)
        finally:
            write_json(cost, {"seconds": before + time.process_time() - start})
    return ClipStore(ws.clips), read_orders(ws.orders), float(read_json(cost)["seconds"])


def run_cell(seed: int, name: str, p: Parameters) -> dict[str, Any]:
    """Train and score one cell, or read what an earlier call found."""
    row = ROWS[name]
    steps = round(p.deblurrer.training.steps * row.longer)
    tag = f"{name.replace(', ', '-').replace(' ', '_')}-{steps}"
    ws = place(seed, row.order)
    found, file = ws.root / f"cells/{tag}.json", ws.root / f"models/{tag}.safetensors"
    if found.exists():
        return dict(read_json(found))
    store, orders, encoder_cost = prepare(seed, row.order)
    cost = ws.root / f"cells/{tag}-cost.json"
    if not file.exists():
        start, before = time.process_time(), read_json(cost)["seconds"] if cost.exists() else 0.0
        d = p.deblurrer
        settings = DeblurrerTraining(dataclasses.replace(d.model, axes=row.axes), d.loss,  # type: ignore[arg-type]
                                     dataclasses.replace(d.training, steps=steps))
        try:
            model = fit_deblurrer(store, row.objective, settings, seed, ws.work / tag, orders=orders)
            save_deblurrer(file, model, {"objective": row.objective, "data": store.sha256, "seed": seed})
            forget(ws.work / tag)
        finally:
            write_json(cost, {"seconds": before + time.process_time() - start})
    figures = score_cell(store, orders, file, ws.root / f"cells/{tag}.npz")
    figures |= {"steps": steps, "seconds": read_json(cost)["seconds"], "encoder_seconds": encoder_cost}
    write_json(found, figures)
    return figures


def score_cell(store: ClipStore, orders: OrderTable | None, file: Path, per_clip: Path) -> dict[str, Any]:
    """Figures on the test clips with one view and with the views of params.yaml; clip by clip into `per_clip`."""
    indices = store.indices("test")
    motion = torch.cat([mean_motion(clip_tensor(store.read(int(i))[1:])[None]) for i in indices]).numpy()
    directions = {"rule": np.where(motion[:, 0] >= 0, 1, -1)}
    if orders is not None:
        directions["learned"] = orders.for_clips(store, indices)[:, 0]
    trivial = evaluate_clips(repeat_blurry(store.frames), store, indices, name="repeat")
    scores: dict[str, ClipScores] = {}
    for label, views in (("one", 1), ("views", None)):
        scores[label] = evaluate_clips(load_deblurrer(file, views), store, indices, directions=directions,
                                       name=f"{file.stem}, {label}")
    arrays = {f"{label}_{key}": value for label, one in scores.items() for key, value in
              {"ppsnr": one.ppsnr, "agreement": one.agreement, "strength": one.odd_strength}.items()}
    per_clip.parent.mkdir(exist_ok=True, parents=True)
    np.savez_compressed(per_clip, motion=motion, trivial=trivial.ppsnr, **arrays, **directions)
    result: dict[str, Any] = {}
    for label, one in scores.items():
        summary = summarise(one, trivial)
        result[label] = {key: summary[key] for key in ("gain", "gain_ends", "middle", "ppsnr", "agreement")}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    parser.add_argument("--steps", type=int, default=3000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in given.seeds:
        p = load(Path("params.yaml"), overrides=[f"seed={seed}", f"deblurrer.training.steps={given.steps}"])
        for name in given.rows:
            cell = run_cell(seed, name, p)
            print(seed, name, cell, flush=True)


if __name__ == "__main__":
    main()
