"""Every objective on the demo's own clips, over several seeds: one table whatever it says.

    .venv/bin/python -m benchmarks.objectives [--seeds 0 1 2] [--all-seeds OBJECTIVE ...]

Each seed has its own clips, encoder, orders and initial weights, made by the pipeline's own steps with the
values of params.yaml; every objective gets the same steps. Finished trainings are kept in work/ and not
trained again, so that a stopped benchmark goes on. Writes benchmarks/results/objectives.md and .json.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any, cast

from hypercut_core.deblurring.objectives import OBJECTIVES, Objective
from hypercut_core.files import read_json, write_json, write_text

RESULTS = Path(__file__).parent / "results"
MAIN = ("sequence_min", "order_invariant", "hypercut_targets")  # what claims are made about: trained with every seed
WORK = Path("work/benchmarks/objectives")
FIGURES = {"mean": "ppsnr", "ends": "ends", "middle": "middle"}


def run_seed(seed: int, objectives: list[str]) -> dict[str, Any]:
    """Figures of one seed: what metrics/evaluate.json says of the objectives."""
    import dataclasses

    from components.params import load
    from pipelines import local
    from pipelines.workspace import Workspace

    ws = Workspace(WORK / f"seed-{seed}")
    p = load(Path("params.yaml"), overrides=[f"seed={seed}"])
    p = dataclasses.replace(p, objectives=tuple(cast(Objective, name) for name in objectives))
    if not Path(ws.clips).exists():
        local.collect_footage(ws, p)
        local.synthesize_blur(ws, p)
    if not ws.encoder.exists():
        local.train_encoder(ws, p)
    if not ws.orders.exists():
        local.assign_order(ws, p)
    for objective in objectives:
        if not ws.deblurrer(objective).exists():
            local.train_deblurrer(ws, p, objective)
    local.evaluate(ws, p)
    return {**read_json(ws.metrics("evaluate")), "encoder": read_json(ws.metrics("train-encoder"))["test"]}


def gather(runs: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds: objective → figure → [values]."""
    table: dict[str, dict[str, list[float]]] = {}
    for run in runs.values():
        trivial = run["trivial"]
        for name, model in {"repeat": trivial, **run["models"]}.items():
            row = table.setdefault(name, {})
            for label, key in FIGURES.items():
                row.setdefault(label, []).append(model[key])
                row.setdefault(f"gain_{label}", []).append(model[key] - trivial[key])
            for order, share in (model.get("agreement") or {}).items():
                row.setdefault(f"agreement_{order}", []).append(share)
    encoder = {key: [run["encoder"][key] for run in runs.values()] for key in ("hit", "con2", "con3", "joint3")}
    return {"seeds": sorted(runs), "objectives": table, "encoder": encoder}


def spread(values: list[float] | None, digits: int = 2, percent: bool = False) -> str:
    """ "27.55 ± 0.10", the sample standard deviation where there are two values or more."""
    if not values:
        return ""
    scale, unit = (100, " %") if percent else (1, "")
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}{unit}" if len(values) > 1 else mean + unit


def markdown(found: dict[str, Any]) -> str:
    """The table for people."""
    lines = ["# Objectives on the built-in clips", "",
             "Blind pPSNR in dB on unseen photos (mean ± standard deviation over seeds). Gain: above repeating",
             "the blurry image. Order followed: how often the predicted direction is that of the learned order",
             "and of the rule (mean motion to the right); for `hypercut_targets` and `rule_targets` it is the",
             "predictability of the order that they were trained on. Made by"
             " `python -m benchmarks.objectives`.", "",
             "| objective | seeds | mean | gain | frames 1 and T | gain | middle | learned order | rule |",
             "|---|---|---|---|---|---|---|---|---|"]
    rows = sorted(found["objectives"].items(), key=lambda item: -statistics.fmean(item[1]["mean"]))
    for name, row in rows:
        lines.append(f"| {name} | {len(row['mean'])} | {spread(row['mean'])} | {spread(row['gain_mean'])} | "
                     f"{spread(row['ends'])} | {spread(row['gain_ends'])} | {spread(row['middle'])} | "
                     f"{spread(row.get('agreement_hypercut') or row.get('agreement_learned'), 1, True)} | "
                     f"{spread(row.get('agreement_rule'), 1, True)} |")
    encoder = ", ".join(f"{key} {spread(values, 1, True)}" for key, values in found["encoder"].items())
    return "\n".join([*lines, "", f"The encoder's order on unseen photos: {encoder}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--all-seeds", nargs="+", default=list(MAIN), choices=OBJECTIVES,
                        help="objectives that are trained with every seed; the others with the first alone")
    parser.add_argument("--only", nargs="+", default=list(OBJECTIVES), choices=OBJECTIVES)
    given = parser.parse_args()
    runs = {}
    for seed in given.seeds:
        first = seed == given.seeds[0]
        runs[seed] = run_seed(seed, [o for o in given.only if first or o in given.all_seeds])
        found = gather(runs)
        write_json(RESULTS / "objectives.json", found)
        write_text(RESULTS / "objectives.md", markdown(found))
        print(markdown(found), flush=True)


if __name__ == "__main__":
    main()
