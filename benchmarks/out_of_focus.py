"""What deblurrers do to clips that are out of focus: a soft edge is not a moving one.

    nice .venv/bin/python -m benchmarks.out_of_focus CLIPS NAME=MODEL ... [--split val] [--most 48]

CLIPS is a clip store (`data/clips` of a workspace), MODEL a deblurrer of `hypercut benchmark`
(`benchmark/rows/even_odd-hypercut_targets/seed-0/model.safetensors`) or of the pipeline; models of one name are seeds.
Every clip is put out of focus by a Gaussian of each width, blurry image and sharp frames alike, and so stays the mean
of its frames; what is told is the gain over repeating that blurry image. Prints the table.
--picture PNG shows the clips at 2 px that the first model does most harm to: the blurry image, the true first frame and
that of the first model of each name.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from hypercut_core.benchmark.scoring import scored_clips
from hypercut_core.benchmark.table import spread
from hypercut_core.clips.defocus import out_of_focus
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.models import load_deblurrer
from hypercut_core.evaluation.protocol import evaluate_clips, repeat_blurry, summarise

WIDTHS = (0.0, 0.5, 1.0, 2.0, 4.0)  # px
SHOWN_WIDTH, ROWS, SIDE, GAP, LABEL = 2.0, 3, 192, 4, 18


class OutOfFocus:
    """A clip store as a lens that is out of focus would have filled it."""

    def __init__(self, store: ClipStore, width: float):
        self.store, self.width, self.records, self.frames = store, width, store.records, store.frames

    def read(self, i: int) -> np.ndarray:
        """uint8 [T+1, H, W, 3], the blurry image first."""
        clip = self.store.read(i)
        if not self.width:
            return clip
        images = torch.from_numpy(clip).permute(0, 3, 1, 2).double() / 255
        soft = out_of_focus(images, self.width, self.records[i].response)
        return soft.mul(255).round().byte().permute(0, 2, 3, 1).numpy()


def measure(store: ClipStore, indices: np.ndarray, models: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    """One entry a width: what repeating reaches, dB, and the gains of the mean and of the ends by model and seed."""
    found = []
    for width in WIDTHS:
        clips = OutOfFocus(store, width)
        trivial = evaluate_clips(repeat_blurry(store.frames), clips, indices)
        entry: dict[str, Any] = {"width": width, "repeat": summarise(trivial)["ppsnr"], "gain": {}, "gain_ends": {}}
        for name, files in models.items():
            for file in files:
                scores = summarise(evaluate_clips(load_deblurrer(file), clips, indices, name=f"{name}, {width:g} px"),
                                   trivial)
                entry["gain"].setdefault(name, []).append(scores["gain"])
                entry["gain_ends"].setdefault(name, []).append(scores["gain_ends"])
        found.append(entry)
    return found


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """Mean gain / gain of the ends by width."""
    names = list(found[0]["gain"])
    lines = ["| out of focus, px | repeat, dB | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    for one in found:
        cells = [f"{spread(one['gain'][name])} / {spread(one['gain_ends'][name])}" for name in names]
        lines.append(f"| {one['width']:g} | {one['repeat']:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(store: ClipStore, indices: np.ndarray, models: Mapping[str, Sequence[Path]]) -> Image.Image:
    """Rows of clips under the names of their columns."""
    clips = OutOfFocus(store, SHOWN_WIDTH)
    loaded = {name: load_deblurrer(files[0]) for name, files in models.items()}
    trivial, *scores = (evaluate_clips(model, clips, indices)
                        for model in (repeat_blurry(store.frames), *loaded.values()))
    worst = np.argsort(scores[0].ppsnr.mean(1) - trivial.ppsnr.mean(1))[:ROWS]
    rows = []
    for place in worst:
        clip = clips.read(int(indices[place]))
        blurry = torch.from_numpy(clip[:1]).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            made = [model(blurry)[0, -1 if one.reversed[place] else 0] for model, one in
                    zip(loaded.values(), scores, strict=True)]
        tiles = [*clip[:2], *(frame.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy() for frame in made)]
        rows.append([Image.fromarray(tile).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for tile in tiles])
    sheet = Image.new("RGB", (len(rows[0]) * (SIDE + GAP) - GAP, LABEL + len(rows) * (SIDE + GAP) - GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(["blurry, out of focus", "true first frame", *models]):
        draw.text((column * (SIDE + GAP) + 4, 3), name, fill="black")
    for row, tiles_of_row in enumerate(rows):
        for column, tile in enumerate(tiles_of_row):
            sheet.paste(tile, (column * (SIDE + GAP), LABEL + row * (SIDE + GAP)))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--split", default="val")
    parser.add_argument("--most", type=int, default=48)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    models: dict[str, list[Path]] = {}
    for text in asked.models:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            parser.error(f"'{text}' is no NAME=MODEL")
        models.setdefault(name, []).append(Path(file))
    torch.set_num_threads(1)
    store = ClipStore(asked.clips)
    indices = scored_clips(store, asked.split, asked.most)
    if asked.picture:
        picture(store, indices, models).save(asked.picture)
    print(markdown(measure(store, indices, models)), end="")


if __name__ == "__main__":
    main()
