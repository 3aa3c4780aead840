"""Can each kind of deblurrer learn eight clips by heart? What cannot is broken, or badly taught.

    .venv/bin/python -m benchmarks.overfit [--only NAME ...]

Eight built-in clips of 24 px whose cut-outs move by 2 to 4 px, nothing augmented, each model at its full width and
through the pipeline's own `fit_deblurrer`. Every row is measured under the protocols that the model knows, and on the
way, so that a row that stops short shows whether it was still climbing. A stopped row goes on from its checkpoint.

Writes benchmarks/results/overfit.md and .json.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from hypercut_core.clips.dataset import Augmentation
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.cascade import CascadeConfig
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.guided import GuidedConfig
from hypercut_core.deblurring.models import Config
from hypercut_core.deblurring.objectives import LossConfig
from hypercut_core.deblurring.peers import STAGES
from hypercut_core.deblurring.recurrent import RecurrentConfig
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.evaluation.protocol import Given, evaluate_clips
from hypercut_core.evaluation.protocol_names import BLIND, ORACLE_MIDDLE
from hypercut_core.evaluation.protocols import ways
from hypercut_core.files import read_json, write_json, write_text
from hypercut_core.training.execution import Execution
from hypercut_core.training.loop import TrainingConfig

RESULTS = Path(__file__).parent / "results"
WORK = Path("work/benchmarks/overfit")
CLIPS, SIDE, WANTED = 8, 24, 35.0  # dB
MOTION = (2.0, 4.0)  # px during the exposure
NOTE = """\
The recurrent model needs a long round at a high rate: 400 steps at 1e-3 ended at 32.4 dB, 240 more with a new optimiser
at 34.0. Flows fitted to the frames by themselves, without a network, reach 46.5. Adding the error at all four scales
(weight 10) to the joint stage made it worse: 25.2 dB after 120 steps of batch 2, against 27.4 without, one seed, on
clips of 32 px with 4 px of motion, where the untaught model has 25.3. Rows that are missing have not been run."""
POINTS = 10  # of a learning curve


@dataclass(frozen=True)
class Recipe:
    """A model and how it is taught."""

    model: Config
    steps: int
    rate: float
    stages: tuple[float, float, float] = STAGES  # of the recurrent model
    reconstruction: str = "log_mse"
    clip_norm: float = 1.0
    warmup: float = 0.02
    batch: int = 2  # clips
    precision: Literal["float32", "bf16"] = "float32"  # of training; the measuring is in float32


ORACLE = RecurrentConfig(protocol="oracle")
ALONE = (0.0, 0.0, 1.0)  # the recurrent model's joint stage, without the two before it
RECIPES = {
    "even_odd": Recipe(DeblurrerConfig(views=1), 1200, 1e-3),
    "cascade": Recipe(CascadeConfig(), 400, 5e-4),
    "recurrent, true middle frame": Recipe(ORACLE, 2000, 1e-3, (0.35, 0.15, 0.5)),
    "recurrent, true middle frame, joint stage alone": Recipe(ORACLE, 1000, 1.5e-3, ALONE, batch=8, precision="bf16"),
    "recurrent": Recipe(RecurrentConfig(), 2000, 1e-3, (0.35, 0.15, 0.5)),
    "guided": Recipe(GuidedConfig(), 400, 1e-4),
}


def clips() -> ClipStore:
    """The eight clips, each of other photos; made once."""
    path = WORK / "clips"
    if not path.exists():
        config = MovingPhotosConfig(size=SIDE, motion_min=MOTION[0], motion_max=MOTION[1])
        drawn = list(render_clips(config, "train", 16 * CLIPS, 0))[::16]
        with ClipStoreWriter(path, 7) as writer:
            for number, clip in enumerate(drawn):
                writer.add(clip.frames, clip_id=str(number), source=f"{clip.source}-{number}", split="train",
                           category=clip.category, motion=clip.motion, response="srgb")
    return ClipStore(path)


def scored(store: ClipStore, protocol: str, predict: Given) -> dict[str, float]:
    """Mean pPSNR over clips and frames, and that of the worst clip, dB; without a frame that was given."""
    shown = [k for k in range(store.frames) if protocol != ORACLE_MIDDLE or k != store.frames // 2]
    each = evaluate_clips(None, store, np.arange(len(store)), given=predict, name=protocol).ppsnr[:, shown].mean(1)
    return {"mean": float(each.mean()), "worst": float(each.min())}


def measured(model: nn.Module, store: ClipStore) -> dict[str, dict[str, float]]:
    """Protocol -> scores."""
    return {way.protocol: scored(store, way.protocol, way.predict) for way in ways(model)}


def nothing_learned(store: ClipStore) -> str:
    """What the trivial answers reach, in words."""
    blurry = scored(store, BLIND, lambda blurry, sharp: blurry[:, None].expand_as(sharp))
    middle = scored(store, ORACLE_MIDDLE, lambda blurry, sharp: sharp[:, sharp.shape[1] // 2, None].expand_as(sharp))
    return (f"Repeating the blurry image: {blurry['mean']:.1f}, worst clip {blurry['worst']:.1f}. "
            f"Repeating the true middle frame: {middle['mean']:.1f}, worst clip {middle['worst']:.1f}.")


def run(name: str, recipe: Recipe, store: ClipStore) -> dict[str, Any]:
    """Train by a recipe and measure, also on the way."""
    folder = WORK / name.replace(", ", "-").replace(" ", "_")
    curve: list[dict[str, Any]] = read_json(folder / "curve.json") if (folder / "curve.json").is_file() else []
    started = time.process_time() - (curve[-1]["seconds"] if curve else 0.0)  # of all its runs

    def follow(module: nn.Module, step: int, loss: float) -> None:
        if step > 1 and step % max(1, recipe.steps // POINTS):
            return
        module.eval()
        curve[:] = [one for one in curve if one["step"] < step]
        reached = {key: one["mean"] for key, one in measured(module, store).items()}
        curve.append({"step": step, "loss": loss, "seconds": time.process_time() - started, "ppsnr": reached})
        module.train()
        write_json(folder / "curve.json", curve)
        print(name, curve[-1], flush=True)

    training = TrainingConfig(steps=recipe.steps, batch=recipe.batch, crop=0, rate=recipe.rate, warmup=recipe.warmup,
                              clip_norm=recipe.clip_norm, weight_decay=0.0, precision=recipe.precision,
                              checkpoint_seconds=60.0, augmentation=Augmentation(False, False, False))
    settings = DeblurrerTraining(recipe.model, LossConfig(reconstruction=recipe.reconstruction),  # type: ignore[arg-type]
                                 training, recipe.stages)
    model = fit_deblurrer(store, "naive", settings, 0, folder / "training", execution=Execution(follow=follow))
    found = {"steps": recipe.steps, "rate": recipe.rate, "stages": list(recipe.stages), "loss": recipe.reconstruction,
             "seconds": curve[-1]["seconds"], "protocols": measured(model, store), "curve": curve}
    write_json(folder / "result.json", found)
    shutil.rmtree(folder / "training")
    return found


def markdown(found: dict[str, dict[str, Any]], trivial: str) -> str:
    """The table for people."""
    lines = ["# Eight clips by heart", "",
             f"{CLIPS} built-in clips of {SIDE} px, motion of {MOTION[0]:g} to {MOTION[1]:g} px, whole and unchanged, "
             "objective naive.", f"pPSNR over clips and frames, dB; a frame that was given is left out. Wanted: "
             f"{WANTED:g} dB.", "", trivial, "",
             "Made by `python -m benchmarks.overfit`.", "",
             "| row | protocol | steps | CPU-s | mean | worst clip | on the way (step: mean) |",
             "|---|---|---|---|---|---|---|"]
    for name, row in found.items():
        for protocol, one in row["protocols"].items():
            way = ", ".join(f"{point['step']}: {point['ppsnr'][protocol]:.1f}" for point in row["curve"])
            lines.append(f"| {name} | {protocol} | {row['steps']} | {row['seconds']:.0f} | {one['mean']:.1f} | "
                         f"{one['worst']:.1f} | {way} |")
    return "\n".join([*lines, "", NOTE, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(RECIPES), default=list(RECIPES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    store, file = clips(), RESULTS / "overfit.json"
    trivial = nothing_learned(store)
    for name in given.only:
        found = read_json(file) if file.is_file() else {}
        found[name] = run(name, RECIPES[name], store)
        write_json(file, found)
        write_text(RESULTS / "overfit.md", markdown({key: found[key] for key in RECIPES if key in found}, trivial))
    print((RESULTS / "overfit.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
