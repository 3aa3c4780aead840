"""Antisymmetric against hyperplane encoder at equal CPU-seconds, and what recoloured pairs add.

    .venv/bin/python -m benchmarks.ordering [--seconds 45] [--seeds 0 1 2]

All learn HyperCUT's objective from the built-in training clips with the batches and the optimiser of
params.yaml at a constant rate; every few CPU-seconds of training their scores on clips of unseen photos are
taken (that time is not counted). "One axis" is the share of clips whose order is the sign of their mean motion
along one direction, the best of 36: an order that a blurry image can tell looks like that.
Writes benchmarks/results/ordering.md, .json and .png.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from components.params import load
from hypercut_core.clips.dataset import ClipBatches
from hypercut_core.clips.store import ClipStore
from hypercut_core.files import write_json, write_text
from hypercut_core.ordering.encoder import EncoderConfig, both_scores, build_encoder
from hypercut_core.ordering.labels import clip_tensor, score_clips
from hypercut_core.ordering.metrics import order_metrics
from hypercut_core.ordering.objective import hypercut_loss
from hypercut_core.ordering.recolour import recolour_pairs
from hypercut_core.ordering.rule import mean_motion
from pipelines import local
from pipelines.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
WORK = Path("work/benchmarks/ordering")
KINDS = {"antisymmetric, recoloured pairs": ("antisymmetric", True), "antisymmetric": ("antisymmetric", False),
         "hyperplane (the paper's)": ("hyperplane", False)}
COLOURS = ("#009e73", "#0072b2", "#d55e00")
SHOWN = {"hit": "hit", "con3": "Con@3", "joint3": "Joint@3", "axis": "one axis"}


def clips() -> ClipStore:
    """The demo's own clips."""
    ws, p = Workspace(WORK), load(Path("params.yaml"))
    if not Path(ws.clips).exists():
        local.collect_footage(ws, p)
        local.synthesize_blur(ws, p)
    return ClipStore(ws.clips)


def motions(store: ClipStore) -> torch.Tensor:
    """Mean motion of the test clips, (N, 2) px a frame."""
    return torch.cat([mean_motion(clip_tensor(store.read(int(i))[1:])[None]) for i in store.indices("test")])


def one_axis(scores: torch.Tensor, motion: torch.Tensor) -> float:
    """Greatest agreement of the sign of (N,) scores with the sign of motion (N, 2) along one direction."""
    angles = torch.arange(36) * (torch.pi / 36)
    along = motion[:, :1] * angles.cos() + motion[:, 1:] * angles.sin()
    same = ((scores > 0)[:, None] == (along > 0)).double().mean(0)
    return float(torch.maximum(same, 1 - same).max())


def learn(store: ClipStore, motion: torch.Tensor, name: str, seed: int, seconds: float, every: float
          ) -> list[dict[str, float]]:
    """Figures on unseen photos as training goes on."""
    kind, recolour = KINDS[name]
    p = load(Path("params.yaml"))
    torch.manual_seed(seed)
    model = EncoderConfig(kind="hyperplane") if kind == "hyperplane" else dataclasses.replace(p.encoder.model)
    encoder = build_encoder(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = p.encoder.training
    batches = ClipBatches(store, "train", training.batch, training.crop, seed, training.augmentation)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=training.rate, weight_decay=training.weight_decay)
    batches(0)
    spent, step = 0.0, 0
    curve: list[dict[str, float]] = []
    while spent < seconds:
        start = time.process_time()
        sharp = batches(step).sharp
        loss = hypercut_loss(*both_scores(encoder, recolour_pairs(sharp, seed, step) if recolour else sharp))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), training.clip_norm)
        optimiser.step()
        spent += time.process_time() - start
        step += 1
        if spent >= (len(curve) + 1) * every:
            scores = score_clips(encoder, store, store.indices("test"))
            curve.append({"seconds": spent, "steps": step, **order_metrics(*scores),
                          "axis": one_axis(scores[0][:, 0], motion)})
    return curve


def picture(found: dict[str, list[list[dict[str, float]]]], out: Path) -> None:
    """hit, Con@3 and Joint@3 over CPU-seconds, one line a seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(14, 3.4), sharey=True)
    for axis, name in zip(axes, SHOWN, strict=True):
        for kind, colour in zip(KINDS, COLOURS, strict=True):
            for number, curve in enumerate(found[kind]):
                axis.plot([c["seconds"] for c in curve], [100 * c[name] for c in curve], color=colour,
                          marker=".", alpha=0.8, label=kind if number == 0 else None)
        axis.set(title=SHOWN[name], xlabel="CPU-seconds", ylim=(-2, 102))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("% of clips of unseen photos")
    axes[-1].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def markdown(found: dict[str, list[list[dict[str, float]]]], seconds: float) -> str:
    """The last points as a table."""
    lines = ["# Ordering: antisymmetric against hyperplane", "",
             f"After {seconds:.0f} CPU-seconds of training, clips of unseen photos, mean (lowest to highest of"
             " the seeds). Con@3 alone is 100 % for a collapsed encoder: read Joint@3. One axis: share of clips",
             "ordered by the sign of their mean motion along one direction, the kind of order that a blurry image can"
             " tell.", "",
             "| encoder | steps | hit | Con@3 | Joint@3 | one axis | median abs(u) |", "|---|---|---|---|---|---|---|"]
    for kind in KINDS:
        ends = [curve[-1] for curve in found[kind]]
        cells = []
        for name in SHOWN:
            values = [100 * end[name] for end in ends]
            cells.append(f"{statistics.fmean(values):.1f} % ({min(values):.1f} to {max(values):.1f})")
        scores = statistics.fmean(end["median_score"] for end in ends)
        steps = statistics.fmean(end["steps"] for end in ends)
        lines.append(f"| {kind} | {steps:.0f} | {' | '.join(cells)} | {scores:.2g} |")
    return "\n".join([*lines, "", "![over time](ordering.png)", "",
                      "Made by `python -m benchmarks.ordering`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--every", type=float, default=7.5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    store = clips()
    motion = motions(store)
    found: dict[str, Any] = {name: [learn(store, motion, name, seed, given.seconds, given.every)
                                    for seed in given.seeds] for name in KINDS}
    write_json(RESULTS / "ordering.json", {"seeds": given.seeds, **found})
    write_text(RESULTS / "ordering.md", markdown(found, given.seconds))
    picture(found, RESULTS / "ordering.png")
    print(markdown(found, given.seconds))


if __name__ == "__main__":
    main()
