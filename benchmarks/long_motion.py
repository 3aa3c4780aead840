"""Long and curved motion: a model trained for 15 frames against one of 7 frames that is interpolated.

    nice .venv/bin/python -m benchmarks.long_motion [--other models/deblurrer-sequence_min.safetensors] [--steps N]

Clips and training by the preset `long-motion`, made small (about four CPU-minutes):
few clips, and a third of the steps. The other model is the demo's, whose frames `restore --frames 15` interpolates; it
was trained longer, on shorter and straighter paths. A stopped training goes on. Writes
benchmarks/results/long_motion.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.params import load
from hypercut_core.animation import resample_frames
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.models import load_deblurrer, save_deblurrer
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.evaluation.protocol import Predict, evaluate_clips, repeat_blurry, summarise
from hypercut_core.files import write_text
from pipelines import local
from pipelines.workspace import Workspace

OUT = Path(__file__).parent / "results/long_motion.md"
WORK = Path("work/benchmarks/long_motion")
CLIPS = "blur.clips={train: 400, val: 16, test: 64}"


def interpolated(file: Path, frames: int) -> Predict:
    """A model's frames as `restore --frames` shows them, (B, 3, H, W) -> (B, frames, 3, H, W)."""
    model = load_deblurrer(file)

    def predict(blurry: Tensor) -> Tensor:
        made = (model(blurry).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
        shown = np.stack([resample_frames(one, frames) for one in made])
        return torch.from_numpy(shown).permute(0, 1, 4, 2, 3).float() / 255

    return predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, default=Path("models/deblurrer-sequence_min.safetensors"))
    parser.add_argument("--steps", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = (CLIPS, f"deblurrer.training.steps={given.steps}")
    ws, p = Workspace(WORK), load(Path("params.yaml"), "long-motion", settings)
    if not Path(ws.clips).exists():
        local.collect_footage(ws, p)
        local.synthesize_blur(ws, p)
    store, file = ClipStore(ws.clips), ws.root / f"models/sequence_min-{given.steps}.safetensors"
    if not file.exists():
        d = p.deblurrer
        model = fit_deblurrer(store, "sequence_min", DeblurrerTraining(d.model, d.loss, d.training), p.seed, ws.work)
        save_deblurrer(file, model, {"objective": "sequence_min", "data": store.sha256, "seed": p.seed})
    indices = store.indices("test")
    trivial = evaluate_clips(repeat_blurry(store.frames), store, indices)
    models: dict[str, Predict] = {"trained for 15 frames": load_deblurrer(file),
              "trained for 7 frames, interpolated to 15": interpolated(given.other, store.frames)}
    lines = ["# Long and curved motion: 15 frames", "",
             f"Blind pPSNR in dB on {len(indices)} clips of unseen photos with paths of 6 to 16 px that bend by up to",
             "0.35 of their length and change their speed by up to 0.6 of it (preset `long-motion`), one seed. The",
             f"15-frame model: {p.deblurrer.training.steps} steps on {p.blur.clips.train} clips; the other: the "
             "demo's, 3000 steps on 3000", "clips of straighter paths of 4 to 10 px. Made by "
             "`python -m benchmarks.long_motion`.", "",
             "| model | mean | gain | frames 1 and 15 | gain |", "|---|---|---|---|---|"]
    row = summarise(trivial, trivial)
    lines.append(f"| repeat the blurry image | {row['ppsnr']:.2f} | | {row['ends']:.2f} | |")
    for name, predict in models.items():
        row = summarise(evaluate_clips(predict, store, indices, name=name), trivial)
        lines.append(f"| {name} | {row['ppsnr']:.2f} | {row['gain']:+.2f} | {row['ends']:.2f} | "
                     f"{row['gain_ends']:+.2f} |")
    write_text(OUT, "\n".join([*lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
