"""What joining mirrored and turned views of a photo gains, and what it costs.

    .venv/bin/python -m benchmarks.views [--seeds 0 1 2]

Takes the trained models of `benchmarks.objectives` (run that first) and scores each with 1, 2, 4 and 8 views
on the same clips of unseen photos. The cost is CPU-seconds as a ratio to one view, measured in the same run.
Writes benchmarks/results/views.md and .json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.objectives import WORK, spread
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.models import load_deblurrer
from hypercut_core.errors import BadCheckpoint
from hypercut_core.evaluation.protocol import evaluate_clips, repeat_blurry, summarise
from hypercut_core.files import write_json, write_text
from pipelines.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
COUNTS = (1, 2, 4, 8)


def measure(ws: Workspace, objectives: list[str]) -> dict[str, dict[int, dict[str, float]]]:
    """objective -> views -> gains in dB above repeating the blurry image, and CPU-seconds."""
    store = ClipStore(ws.clips)
    indices = store.indices("test")
    trivial = evaluate_clips(repeat_blurry(store.frames), store, indices)
    found: dict[str, dict[int, dict[str, float]]] = {}
    for objective in objectives:
        if not ws.deblurrer(objective).is_file():
            raise BadCheckpoint("there is no trained model", where=ws.deblurrer(objective),
                                remedy="run 'python -m benchmarks.objectives' first")
        rows = found.setdefault(objective, {})
        for views in COUNTS:
            model = load_deblurrer(ws.deblurrer(objective), views)
            start = time.process_time()
            with torch.inference_mode():
                for index in indices[:64]:
                    model(torch.from_numpy(store.read(int(index))[0]).permute(2, 0, 1)[None].float() / 255)
            seconds = time.process_time() - start
            summary = summarise(evaluate_clips(model, store, indices, name=f"{objective}, {views}"), trivial)
            rows[views] = {"seconds": seconds, "gain": summary["gain"], "gain_ends": summary["gain_ends"],
                           "pssim": summary["pssim"]}
    return found


def markdown(runs: list[dict[str, dict[int, dict[str, float]]]]) -> str:
    """The table for people."""
    lines = ["# Views: mirrored and turned copies of a photo, joined", "",
             "Blind gain above repeating the blurry image on clips of unseen photos, dB (mean ± standard deviation",
             f"over {len(runs)} seeds), with 1, 2, 4 and 8 views of each photo joined by `deblurring/views.py`;",
             "CPU-seconds of restoring as a ratio to one view in the same run. Made by `python -m benchmarks.views`.",
             "", "| objective | views | gain | frames 1 and T | pSSIM | cost |", "|---|---|---|---|---|---|"]
    for objective in runs[0]:
        for views in COUNTS:
            rows = [run[objective][views] for run in runs]
            cost = statistics.fmean(run[objective][views]["seconds"] / run[objective][1]["seconds"] for run in runs)
            lines.append(f"| {objective} | {views} | {spread([r['gain'] for r in rows])} | "
                         f"{spread([r['gain_ends'] for r in rows])} | {spread([r['pssim'] for r in rows], 4)} | "
                         f"{cost:.1f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--objectives", nargs="+", default=["sequence_min", "hypercut_targets"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs: dict[int, Any] = {seed: measure(Workspace(WORK / f"seed-{seed}"), given.objectives)
                            for seed in given.seeds}
    write_json(RESULTS / "views.json", {"seeds": given.seeds, "runs": [
        {o: {str(v): row for v, row in rows.items()} for o, rows in run.items()} for run in runs.values()]})
    write_text(RESULTS / "views.md", markdown(list(runs.values())))
    print(markdown(list(runs.values())))


if __name__ == "__main__":
    main()
