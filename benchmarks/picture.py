"""The README's picture: blurry photo, what the model makes of it, and the truth, on unseen photos.

    .venv/bin/python -m benchmarks.picture [--model models/deblurrer-hypercut_targets.safetensors]

Writes docs/restored.webp. The clips are of the test photos, larger than the training's and with another seed.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from components.params import load
from hypercut_core.clips.moving_photos import RenderedClip, render_clips
from hypercut_core.deblurring.models import load_deblurrer
from hypercut_core.restore import restore

OUT = Path("docs/restored.webp")
SIZE, SHOWN, ROWS, LABEL = 128, 192, 3, 18


def chosen() -> list[RenderedClip]:
    """One clip of each of three test photos: the one that moves most of its first sixteen."""
    p = load(Path("params.yaml"))
    photos = dataclasses.replace(p.blur.photos, size=SIZE, camera=1.0, both=0.0)
    by_source: dict[str, RenderedClip] = {}
    for clip in render_clips(photos, "test", 64, 7, p.frames, exposure=p.blur.exposure):
        best = by_source.get(clip.source)
        if best is None or clip.motion > best.motion:
            by_source[clip.source] = clip
    return [by_source[name] for name in sorted(by_source)][-ROWS:]


def nearer(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The direction of time that fits the truth: both are right, and a picture shows one."""
    error = [np.square(x.astype(float) - truth).mean() for x in (frames, frames[::-1])]
    return frames if error[0] <= error[1] else frames[::-1]


def panel(tiles: list[np.ndarray]) -> Image.Image:
    """One frame of the film: tiles side by side, row by row, under their names."""
    width = 3 * (SHOWN + 4) - 4
    image = Image.new("RGB", (width, LABEL + ROWS * (SHOWN + 4) - 4), "white")
    draw = ImageDraw.Draw(image)
    for column, name in enumerate(("one blurry photo", "recovered video", "truth")):
        draw.text((column * (SHOWN + 4) + 4, 3), name, fill="black")
    for place, tile in enumerate(tiles):
        row, column = divmod(place, 3)
        shown = Image.fromarray(tile).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)
        image.paste(shown, (column * (SHOWN + 4), LABEL + row * (SHOWN + 4)))
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/deblurrer-hypercut_targets.safetensors"))
    model = load_deblurrer(parser.parse_args().model)
    rows = []
    for clip in chosen():
        blurry, truth = clip.frames[0], clip.frames[1:]
        rows.append((blurry, nearer(restore(model, blurry), truth), truth))
    count = len(rows[0][2])
    order = [*range(count), *range(count - 2, 0, -1)]
    films = [panel([tile for blurry, made, truth in rows for tile in (blurry, made[k], truth[k])]) for k in order]
    OUT.parent.mkdir(exist_ok=True)
    films[0].save(OUT, save_all=True, append_images=films[1:], duration=110, loop=0, quality=80)
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
