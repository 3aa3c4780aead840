"""Orders against each other: what a deblurrer gains from each, at equal steps and at equal CPU-seconds.

    nice .venv/bin/python -m benchmarks.orders [--seeds 0 1 2] [--rows ROW ...]
    .venv/bin/python -m benchmarks.orders --steps

A row is an objective, an order and a number of axes; a cell is a row with one seed: its own clips, encoder,
orders and initial weights, made by the pipeline's own steps with the values of params.yaml. Everything that is
finished is kept in work/benchmarks/orders and in benchmarks/results/orders.json and is never trained again, and a
stopped training goes on, so the command may be stopped at any time; the table is written after each cell and names
those that are missing. Cells that `benchmarks.objectives` has trained (same clips, seeds and parameters) are taken
from its results. Writes benchmarks/results/orders.md and .json. A cell is a training: 3 to 5 minutes on one core.
--steps measures what a step costs, the rows taking turns, and writes it below the table.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.objectives import spread
from components.params import Parameters, load
from hypercut_core.clips.dataset import ClipBatches
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.even_odd import EvenOddDeblurrer
from hypercut_core.deblurring.models import load_deblurrer, save_deblurrer
from hypercut_core.deblurring.objectives import objective_loss
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.evaluation.protocol import ClipScores, evaluate_clips, repeat_blurry, summarise
from hypercut_core.files import read_json, write_json, write_text
from hypercut_core.ordering.encoder import save_encoder
from hypercut_core.ordering.labels import OrderTable, clip_tensor, read_orders
from hypercut_core.ordering.rule import mean_motion
from hypercut_core.ordering.training import fit_encoder, measure_encoder
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
    longer: float = 1.0  # steps, as a multiple of the others'


ROWS = {
    "order_invariant": Row("order_invariant"),
    "sequence_min": Row("sequence_min"),
    "rule_targets": Row("rule_targets"),
    "hypercut_targets": Row("hypercut_targets", "hypercut"),
    "distilled_targets": Row("hypercut_targets", "distilled"),
    "sequence_min, two axes": Row("sequence_min", axes=2),
    "rule_targets, two axes": Row("rule_targets", axes=2),
    "hypercut_targets, two axes": Row("hypercut_targets", "hypercut", axes=2),
    "distilled_targets, two axes": Row("hypercut_targets", "distilled", axes=2),
    # a step with two axes takes 1.05 times the CPU-seconds: the same seconds for all, the order's own left out
    "hypercut_targets, two axes, 0.95 x steps": Row("hypercut_targets", "hypercut", axes=2, longer=1 / 1.05),
    "hypercut_targets, two axes, 1.27 x steps": Row("hypercut_targets", "hypercut", axes=2, longer=4 / 3 / 1.05),
    "sequence_min, 1.33 x steps": Row("sequence_min", longer=4 / 3),
    "rule_targets, 1.33 x steps": Row("rule_targets", longer=4 / 3),
}
TIMED = ("rule_targets", "sequence_min", "hypercut_targets", "hypercut_targets, two axes", "rule_targets, two axes",
         "sequence_min, two axes")


def place(seed: int, order: str) -> Workspace:
    """The workspace of a seed; each order has an encoder and a table of its own beside the same clips."""
    root = WORK / f"seed-{seed}"
    name = order or "hypercut"
    return Workspace(root, {"encoder": root / f"models/encoder-{name}.safetensors",
                            "orders": root / f"data/orders-{name}.parquet",
                            "metrics of train-encoder": root / f"metrics/train-encoder-{name}.json"})


def prepare(seed: int, order: str, p: Parameters) -> tuple[ClipStore, OrderTable | None, float]:
    """Clips of a seed, the order table, and the CPU-seconds that encoder (with its teacher) and table took."""
    ws = place(seed, order)
    if not Path(ws.clips).exists():
        local.collect_footage(ws, p)
        local.synthesize_blur(ws, p)
    if not order:
        return ClipStore(ws.clips), None, 0.0
    teaching = run_cell(seed, "sequence_min", p)["seconds"] if order == "distilled" else 0.0
    if not ws.orders.exists():
        with counted(ws.root / f"metrics/cost-{order}.json"):
            if not ws.encoder.exists() and order == "distilled":
                distil(ws, p)
            elif not ws.encoder.exists():
                local.train_encoder(ws, p)
            local.assign_order(ws, p)
    return ClipStore(ws.clips), read_orders(ws.orders), seconds(ws.root / f"metrics/cost-{order}.json") + teaching


def distil(ws: Workspace, p: Parameters) -> None:
    """train-encoder with encoder.objective=distilled, except that its teacher is there: the row `sequence_min`."""
    store, e = ClipStore(ws.clips), p.encoder
    teacher = load_deblurrer(ws.root / f"models/sequence_min-{p.deblurrer.training.steps}.safetensors", views=1)
    encoder = fit_encoder(store, e.model, e.training, p.seed, ws.work / "encoder-distilled", recolour=e.recolour,
                          teacher=teacher.requires_grad_(False))
    write_json(ws.metrics("train-encoder"), measure_encoder(encoder, store, teacher))
    save_encoder(ws.encoder, encoder, {"data": store.sha256, "seed": p.seed, "objective": "distilled"})


@contextlib.contextmanager
def counted(file: Path) -> Iterator[None]:
    """Add the CPU-seconds of the block to those in `file`, also where it is interrupted."""
    start, before = time.process_time(), seconds(file)
    try:
        yield
    finally:
        write_json(file, {"seconds": before + time.process_time() - start})


def seconds(file: Path) -> float:
    return float(read_json(file)["seconds"]) if file.exists() else 0.0


def cell_name(name: str, steps: int) -> str:
    """A row's files begin with this."""
    return f"{name.replace(', ', '-').replace(' ', '_')}-{steps}"


def run_cell(seed: int, name: str, p: Parameters) -> dict[str, Any]:
    """Train and score one cell, or read what an earlier call found."""
    row = ROWS[name]
    steps = round(p.deblurrer.training.steps * row.longer)
    tag = cell_name(name, steps)
    ws = place(seed, row.order)
    found, file = ws.root / f"cells/{tag}.json", ws.root / f"models/{tag}.safetensors"
    if found.exists():
        return dict(read_json(found))
    store, orders, encoder_cost = prepare(seed, row.order, p)
    cost = ws.root / f"cells/{tag}-cost.json"
    if not file.exists():
        d = p.deblurrer
        settings = DeblurrerTraining(dataclasses.replace(d.model, axes=row.axes), d.loss,  # type: ignore[arg-type]
                                     dataclasses.replace(d.training, steps=steps))
        with counted(cost):
            model = fit_deblurrer(store, row.objective, settings, seed, ws.work / tag, orders=orders)
        save_deblurrer(file, model, {"objective": row.objective, "data": store.sha256, "seed": seed})
        forget(ws.work / tag)
    figures = score_cell(store, orders, file, ws.root / f"cells/{tag}.npz")
    if orders is not None:
        figures["order"] = read_json(ws.metrics("train-encoder"))["test"]
    figures |= {"steps": steps, "seconds": seconds(cost), "encoder_seconds": encoder_cost}
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
    np.savez_compressed(per_clip, motion=motion, trivial=trivial.ppsnr, **arrays, **directions)  # type: ignore[arg-type]
    result: dict[str, Any] = {}
    for label, one in scores.items():
        summary = summarise(one, trivial)
        result[label] = {key: summary[key] for key in ("gain", "gain_ends", "middle", "agreement")}
    return result


def measured_before() -> dict[str, dict[str, Any]]:
    """Cells of `benchmarks.objectives`: row -> seed -> figures (joined views alone, no CPU-seconds)."""
    if not (RESULTS / "objectives.json").exists():
        return {}
    found = read_json(RESULTS / "objectives.json")
    cells: dict[str, dict[str, Any]] = {}
    for name in ("order_invariant", "sequence_min", "rule_targets", "hypercut_targets"):
        row = found["objectives"].get(name, {"gain_mean": []})
        for at, gain in enumerate(row["gain_mean"]):
            order = {"order": {key: found["encoder"][key][at] for key in found["encoder"]}} if ROWS[name].order else {}
            cells.setdefault(name, {})[str(found["seeds"][at])] = {
                "views": {"gain": gain, "gain_ends": row["gain_ends"][at], "middle": row["middle"][at],
                          "agreement": {"learned": row["agreement_learned"][at], "rule": row["agreement_rule"][at]}},
                "steps": 3000, "before": True, **order}
    return cells


def markdown(cells: dict[str, dict[str, Any]], seeds: list[int], costs: dict[str, float]) -> str:
    """The table for people, best first, and the cells that are missing."""
    lines = ["# Orders, one axis and two", "",
             "Blind gain in dB above repeating the blurry image, clips of unseen photos, mean ± standard deviation",
             "over the seeds; four mirrored and turned views joined, and the photo as it is (one view). Predicted: how",
             "often the direction predicted from blur is that of the order that was trained on. CPU-seconds of the",
             "deblurrer and, apart, of its order (encoder, table and, for a distilled one, its teacher), on a machine",
             "that was shared.",
             "Made by `python -m benchmarks.orders`.", "",
             "| row | seeds | gain | frames 1 and T | gain, one view | predicted | Joint@3 | steps | CPU-s | + order |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    mean = lambda name: statistics.fmean(c["views"]["gain"] for c in cells[name].values())  # noqa: E731
    for name in sorted(cells, key=mean, reverse=True):
        found = list(cells[name].values())
        here = [c for c in found if "one" in c]
        order = "rule" if ROWS[name].objective == "rule_targets" else "learned"
        shares = [c["views"]["agreement"][order] for c in found] if "targets" in name else []
        lines.append(
            f"| {name} | {' '.join(sorted(cells[name]))} | {spread([c['views']['gain'] for c in found])} | "
            f"{spread([c['views']['gain_ends'] for c in found])} | {spread([c['one']['gain'] for c in here])} | "
            f"{spread(shares, 1, True)} | {spread([c['order']['joint3'] for c in found if 'order' in c], 1, True)} | "
            f"{found[0]['steps']} | {_cost(here, 'seconds')} | {_cost(here, 'encoder_seconds')} |")
    missing = [f"{name}: {' '.join(str(s) for s in seeds if str(s) not in cells.get(name, {}))}" for name in ROWS
               if any(str(s) not in cells.get(name, {}) for s in seeds)]
    before = sorted({name for name, row in cells.items() if any("before" in c for c in row.values())})
    return "\n".join([*lines, "", f"Seeds that are missing: {'; '.join(missing) or 'none'}.",
                      f"Taken from [objectives](objectives.md), some or all seeds: {', '.join(before) or 'none'}.", "",
                      *_steps_table(costs)])


def _steps_table(costs: dict[str, float]) -> list[str]:
    if not costs:
        return []
    base = costs["rule_targets"]
    rows = [f"| {name} | {1000 * cost:.1f} | {cost / base:.3f} |" for name, cost in costs.items()]
    return ["CPU time of a training step, one thread, the rows taking turns (median; `--steps`):", "",
            "| row | ms | against rule_targets |", "|---|---|---|", *rows, ""]


def _cost(cells: list[dict[str, Any]], key: str) -> str:
    values = [c[key] for c in cells if c[key]]
    return f"{statistics.fmean(values):.0f}" if values else ""


def step_costs(p: Parameters, rounds: int = 10, steps: int = 12) -> dict[str, float]:
    """Median CPU-seconds of a training step of each row with an order of its own kind; the rows take turns."""
    store, orders, _ = prepare(p.seed, "hypercut", p)
    spent: dict[str, list[float]] = {}
    steppers = {name: _stepper(store, orders, ROWS[name], p) for name in TIMED}
    for turn in range(rounds):
        for name, step in steppers.items():
            for number in range(steps):
                start = time.process_time()
                step(turn * steps + number)
                if turn:  # the first one warms up
                    spent.setdefault(name, []).append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in spent.items()}


def _stepper(store: ClipStore, orders: OrderTable | None, row: Row, p: Parameters) -> Callable[[int], None]:
    """One step of a row's training, as `fit_deblurrer` takes it."""
    d, train = p.deblurrer, store.indices("train")
    torch.manual_seed(p.seed)
    model = EvenOddDeblurrer(dataclasses.replace(d.model, axes=row.axes), store.frames).train()  # type: ignore[arg-type]
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), d.training.rate)
    known = orders and row.order and (orders.for_clips if row.axes == 1 else orders.axes_for_clips)(store, train)
    batches = ClipBatches(store, "train", d.training.batch, d.training.crop, p.seed, d.training.augmentation,
                          known if isinstance(known, np.ndarray) else None)

    def step(number: int) -> None:
        batch = batches(number)
        seen = batch.blurry.contiguous(memory_format=torch.channels_last)
        loss = objective_loss(row.objective, model(seen), batch.sharp, batch.direction, d.loss)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def write_table(new: dict[str, dict[str, Any]], seeds: list[int], costs: dict[str, float] | None = None) -> str:
    """Join `new` cells (and the costs of steps) with what earlier calls found, and write both files."""
    file = RESULTS / "orders.json"
    costs = costs or (read_json(file).get("steps", {}) if file.exists() else {})
    cells: dict[str, dict[str, Any]] = measured_before()
    for source in (read_json(file)["cells"] if file.exists() else {}, new):
        for name, row in source.items():
            cells.setdefault(name, {}).update(row)
    write_json(file, {"cells": cells, "steps": costs})
    text = markdown(cells, seeds, costs)
    write_text(RESULTS / "orders.md", text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    parser.add_argument("--steps", action="store_true", help="measure what a step costs, and train nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.steps:
        print(write_table({}, [0, 1, 2], step_costs(load(Path("params.yaml"), overrides=["order.threads=1"]))))
        return
    for seed in given.seeds:
        p = load(Path("params.yaml"), overrides=[f"seed={seed}", "order.threads=1"])
        for name in given.rows:
            cell = run_cell(seed, name, p)
            print(write_table({name: {str(seed): cell}}, [0, 1, 2]), flush=True)


if __name__ == "__main__":
    main()
