"""The seam of every order of time, shown on the built-in clips: the pictures of docs/method.md.

    .venv/bin/python -m benchmarks.seam [--seed 0] [--html out/seam.html]

Takes encoder, orders and deblurrers of `benchmarks.orders` (run that first; objectives that it has not trained
are left out, and said). Writes docs/method-angle.svg, docs/method-margin.svg and docs/method-turn.svg, and with
--html a page that needs no network: a slider turns the motion of one clip through 180 degrees.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.orders import ROWS, cell_name, place
from components.params import load
from hypercut_core.blur.exposure import average, from_linear
from hypercut_core.clips.photos import load_photo_linear
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.models import load_deblurrer
from hypercut_core.deblurring.parts import split_parts
from hypercut_core.errors import BadCheckpoint
from hypercut_core.files import atomic_file, write_text
from hypercut_core.ordering.encoder import load_encoder, pair_scores
from hypercut_core.ordering.labels import read_orders

DOCS = Path("docs")
SHOWN = {"order_invariant": "#8a6d00", "sequence_min": "#d55e00", "rule_targets": "#cc79a7",
         "hypercut_targets": "#0072b2", "hypercut_targets, two axes": "#009e73"}
FRAMES, SUBFRAMES, SIZE, PATH = 7, 3, 48, 7.0  # of the turning clip; PATH: px during the exposure
BINS = 6


def turning_clip(degrees: float) -> tuple[Tensor, Tensor]:
    """A textured disc that moves towards an angle over a soft background, both of test photos.

    Half a turn of the angle gives the same blurry image and the reversed sequence.

    Returns:
        Blurry image (3, S, S) and sharp frames (T, 3, S, S), encoded, in [0, 1].
    """
    instants = FRAMES * SUBFRAMES
    times = (torch.arange(instants) + 0.5) / instants - 0.5
    angle = math.radians(degrees)
    move = PATH * times[:, None] * torch.tensor([math.cos(angle), math.sin(angle)])
    y, x = torch.meshgrid(*[torch.arange(SIZE) - (SIZE - 1) / 2] * 2, indexing="ij")
    still = torch.stack([x, y], -1)[None]
    moved = still - move[:, None, None]
    back = _window("sklearn/flower.jpg", 0.15 * still, (0.25, 0.3))
    front = _window("skimage/astronaut.png", 0.8 * moved, (0.43, 0.22))
    cover = (15 - moved.norm(dim=-1) + 0.5).clamp(0, 1)[:, None]
    light = (back + cover * (front - back)).unflatten(0, (FRAMES, SUBFRAMES)).mean(1)
    sharp = from_linear(light.clamp(0, 1), "srgb").mul(255).round().div(255)
    return average(sharp, "srgb").mul(255).round().div(255), sharp


def _window(name: str, grid: Tensor, centre: tuple[float, float]) -> Tensor:
    """Photo pixels at `grid` (N, S, S, 2), x then y in px round a centre given as shares of the photo."""
    photo = load_photo_linear(name)
    size = torch.tensor([photo.shape[2], photo.shape[1]])
    place_ = 2 * (grid + torch.tensor(centre) * size) / size - 1
    return F.grid_sample(photo.expand(len(grid), -1, -1, -1), place_, mode="bicubic", align_corners=False).clamp(0, 1)


@dataclass(frozen=True)
class Turn:
    """What encoder and deblurrers make of the turning clip, a row an angle."""

    degrees: np.ndarray  # [A]
    clips: list[tuple[Tensor, Tensor]]  # blurry, sharp
    scores: np.ndarray  # [A] u of the sequence
    outputs: dict[str, Tensor]  # objective -> (A, T, 3, S, S)
    shares: dict[str, np.ndarray]  # objective -> [A] <D', D> / |D|^2: 1 the truth, -1 its reversal, 0 no motion


@torch.no_grad()
def turn(models: dict[str, Path], encoder_file: Path, every: float = 5.0) -> Turn:
    """Run everything on the clip as it turns through half a circle; one view, as the photo is."""
    degrees = np.arange(0, 180 + every / 2, every)
    clips = [turning_clip(float(d)) for d in degrees]
    blurry, sharp = (torch.stack(part) for part in zip(*clips, strict=True))
    scores = pair_scores(load_encoder(encoder_file), sharp)[:, 0].numpy()
    outputs = {name: torch.cat([load_deblurrer(file, 1)(one[None]) for one in blurry]) for name, file in models.items()}
    true = split_parts(sharp).odd.flatten(1)
    shares = {name: ((split_parts(out).odd.flatten(1) * true).sum(1) / true.square().sum(1)).numpy()
              for name, out in outputs.items()}
    return Turn(degrees, clips, scores, outputs, shares)


def models_of(seed: int) -> tuple[dict[str, Path], list[str]]:
    """The deblurrers that are there, and the names of those that are not."""
    steps = load(Path("params.yaml")).deblurrer.training.steps
    files = {name: place(seed, ROWS[name].order).root / f"models/{cell_name(name, steps)}.safetensors"
             for name in SHOWN}
    return ({name: file for name, file in files.items() if file.is_file()},
            [name for name, file in files.items() if not file.is_file()])


def angles_picture(seed: int, out: Path) -> dict[str, float]:
    """Left: the score u over the angle of the mean motion; right: the learned direction on the circle."""
    ws = place(seed, "hypercut")
    store, table = ClipStore(ws.clips), read_orders(ws.orders)
    indices = store.indices("test")
    motion = per_clip(seed, next(iter(models_of(seed)[0])))["motion"]
    angle = np.degrees(np.arctan2(motion[:, 1], motion[:, 0]))
    u, c = table.score[indices], table.axes_for_clips(store, indices)[:, 0]
    learned = np.degrees(np.arctan2(c[:, 1], c[:, 0]))
    fits = {sign: np.mean(np.exp(1j * np.radians(learned - sign * angle))) for sign in (1, -1)}
    sign = max(fits, key=lambda s: abs(fits[s]))
    zero = math.degrees(np.angle(fits[sign]))
    error = np.abs((learned - sign * angle - zero + 180) % 360 - 180)
    figure, (left, right) = _figure(2, (9.6, 3.4))
    left.scatter(angle, u, s=7, color="#0072b2", linewidths=0)
    for seam in ((90 - zero) * sign, (270 - zero) * sign):
        left.axvline((seam + 180) % 360 - 180, color="#d55e00", linestyle="--", linewidth=1)
    left.axhline(0, color="black", linewidth=0.6)
    left.set(xlabel="angle of the true motion, degrees", ylabel="score u", title="one sign: u = 0 is the seam")
    right.scatter(angle, (sign * (learned - zero) + 180) % 360 - 180, s=7, color="#009e73", linewidths=0)
    right.set(xlabel="angle of the true motion, degrees", ylabel="learned angle, degrees",
              title=f"two axes: half the clips within {np.median(error):.0f} degrees")
    for axis in (left, right):
        axis.set_xticks(range(-180, 181, 90))
    right.set_yticks(range(-180, 181, 90))
    _save(figure, out)
    return {"median": float(np.median(error)), "p90": float(np.percentile(error, 90)), "coherence": abs(fits[sign])}


def per_clip(seed: int, name: str) -> dict[str, np.ndarray]:
    """The arrays that `benchmarks.orders` kept of a cell, a row a test clip."""
    steps = load(Path("params.yaml")).deblurrer.training.steps
    kept = place(seed, ROWS[name].order).root / f"cells/{cell_name(name, steps)}.npz"
    with np.load(kept, allow_pickle=False) as file:
        return dict(file)


def margins_picture(seed: int, names: list[str], out: Path) -> list[str]:
    """Gain with one view and length of the predicted odd part, over the margin of the learned order and the rule."""
    ws = place(seed, "hypercut")
    store = ClipStore(ws.clips)
    u = np.abs(read_orders(ws.orders).score[store.indices("test")])
    motion = per_clip(seed, names[0])["motion"]
    margins = {"margin of the learned order": u, "margin of the rule": np.abs(motion[:, 0]) / np.hypot(*motion.T)}
    figure, axes = _figure(4, (13.0, 3.4))
    lines = [f"| objective | {' | '.join(f'sixth {k + 1}' for k in range(BINS))} |", "|---" * (BINS + 1) + "|"]
    for place_, (label, margin) in enumerate(margins.items()):
        group = np.argsort(np.argsort(margin)) * BINS // len(margin)
        for name in names:
            data = per_clip(seed, name)
            gain = data["one_ppsnr"].mean(1) - data["trivial"].mean(1)
            for axis, values in zip(axes[2 * place_:], (gain, data["one_strength"]), strict=False):
                means = [float(values[group == k].mean()) for k in range(BINS)]
                axis.plot(range(1, BINS + 1), means, marker=".", color=SHOWN[name], label=name)
                if place_ == 0 and axis is axes[0]:
                    lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in means)} |")
        for axis, title in zip(axes[2 * place_:], ("gain, dB", "length of D' over D"), strict=False):
            axis.set(xlabel=f"{label}, sixths", title=title)
            axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7, loc="best")
    _save(figure, out)
    return lines


def turn_picture(found: Turn, out: Path) -> None:
    """How much of the true motion each deblurrer predicts as the clip turns, and the encoder's score."""
    figure, (left, right) = _figure(2, (9.6, 3.4))
    left.plot(found.degrees, found.scores, color="#0072b2")
    left.axhline(0, color="black", linewidth=0.6)
    left.set(xlabel="direction of the motion, degrees", title="score u of the sequence")
    for name, share in found.shares.items():
        right.plot(found.degrees, np.abs(share), color=SHOWN[name], label=name)
    right.set(xlabel="direction of the motion, degrees", ylim=(0, 1.05),
              title="|<D', D>| / |D|²: motion that is predicted")
    right.legend(fontsize=7, loc="lower right")
    for axis in (left, right):
        axis.set_xticks(range(0, 181, 45))
        axis.grid(alpha=0.3)
    _save(figure, out)


def _figure(columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "hypercut", "font.size": 9,
                                "axes.titlesize": 9, "font.family": "sans-serif"})
    from matplotlib import pyplot as plt

    return plt.subplots(1, columns, figsize=size)


def _save(figure: Any, out: Path) -> None:
    figure.tight_layout()
    with atomic_file(out) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None}, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--html", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    models, absent = models_of(given.seed)
    if not models:
        raise BadCheckpoint("there is no trained deblurrer", where=place(given.seed, "").root,
                            remedy="run 'python -m benchmarks.orders --seeds 0' first")
    print(f"left out, not trained: {', '.join(absent) or 'none'}")
    print("learned angle:", angles_picture(given.seed, DOCS / "method-angle.svg"))
    print("\n".join(margins_picture(given.seed, list(models), DOCS / "method-margin.svg")))
    found = turn(models, place(given.seed, "hypercut").encoder)
    turn_picture(found, DOCS / "method-turn.svg")
    if given.html:
        from benchmarks.seam_page import page

        write_text(given.html, page(found))
        print(f"{given.html}: {given.html.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
