"""A face that moves along a known curve: how near to it the recovered paths come.

    .venv/bin/python -m benchmarks.trajectories [--model models/deblurrer-hypercut_targets.safetensors]

The photo of a face that ships with scikit-image, which no model has seen in training, moves along a bent path at
changing speed in a window of 256 px; its T frames are blurred into one photo in linear light. The truth is the
tracker's landmarks of the photo at rest, moved along the curve. Needs `make tracker`. Writes
benchmarks/results/trajectories.md and .json, docs/trajectories.png and docs/trajectories.webp.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from hypercut_core.blur.exposure import from_linear, to_linear
from hypercut_core.clips.photos import photo_path
from hypercut_core.deblurring.models import load_deblurrer
from hypercut_core.files import write_json, write_text
from hypercut_core.photos import load_photo
from hypercut_core.progress import track
from hypercut_core.restore import restore
from hypercut_core.trajectories.drawing import draw_frames, draw_still
from hypercut_core.trajectories.landmarks import FACE, Detection
from hypercut_core.trajectories.paths import follow, frame_times, path_error
from hypercut_core.trajectories.tracker import Tracker

RESULTS, DOCS = Path(__file__).parent / "results", Path("docs")
PHOTO, CENTRE = "skimage/astronaut.png", (224.0, 130.0)  # of the face in it, px
SIZE, FRAMES, SUBFRAMES = 256, 7, 9
BEND, SPEED_UP = 0.3, 0.2  # of the path: sideways, and how much faster its second half is
LENGTHS, ANGLES = (6, 8, 10, 14), (20, 140)  # px over the exposure; degrees
SHOWN = 10  # length of the path in the picture, px
ROWS = {"true": "true frames", "repeated": "the blurry photo, repeated", "restored": "restored frames"}


@dataclass(frozen=True)
class MovedFace:
    """`frames` uint8 [T, S, S, 3], their `blurry` photo and the photo at rest (`still`), both uint8 [S, S, 3];
    `path` float64 [T, 2], where the middle of each frame's part of the exposure has carried the face, px."""

    frames: np.ndarray
    blurry: np.ndarray
    still: np.ndarray
    path: np.ndarray


def moved_face(length: float, degrees: float, frames: int = FRAMES) -> MovedFace:
    """The face moved along p(t) = length R(angle) (t + SPEED_UP (t^2 - 1/4), BEND (4 t^2 - 1) / 2), |t| < 1/2."""
    pixels = torch.from_numpy(load_photo(photo_path(PHOTO))).permute(2, 0, 1)[None].float() / 255
    photo = to_linear(pixels, "srgb")
    instants = curve(length, degrees, (np.arange(frames * SUBFRAMES) + 0.5) / (frames * SUBFRAMES))
    light = torch.stack([_window(photo, *place) for place in instants]).unflatten(0, (frames, SUBFRAMES)).mean(1)
    path = instants.reshape(frames, SUBFRAMES, 2).mean(axis=1)
    return MovedFace(_encoded(light), _encoded(light.mean(0)), _encoded(_window(photo, 0, 0)), path)


def curve(length: float, degrees: float, times: np.ndarray) -> np.ndarray:
    """The path at the given times of the exposure (0 .. 1), [n, 2], px."""
    t, angle = times - 0.5, math.radians(degrees)
    along, aside = t + SPEED_UP * (t**2 - 0.25), BEND * (4 * t**2 - 1) / 2
    cos, sin = math.cos(angle), math.sin(angle)
    return length * np.stack([cos * along - sin * aside, sin * along + cos * aside], axis=-1)


def _window(photo: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """What a window of SIZE pixels shows when the photo has moved by (x, y): [3, S, S], linear light."""
    height, width = photo.shape[-2:]
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    across, down = (axis + CENTRE[0] - x) * (2 / width) - 1, (axis + CENTRE[1] - y) * (2 / height) - 1
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)[None]
    return F.grid_sample(photo, grid, mode="bicubic", padding_mode="reflection", align_corners=False)[0].clamp(0, 1)


def _encoded(light: torch.Tensor) -> np.ndarray:
    return from_linear(light, "srgb").mul(255).round().to(torch.uint8).movedim(-3, -1).contiguous().numpy()


def errors(found: Sequence[Sequence[Detection]], truth: np.ndarray) -> dict[str, float]:
    """Mean landmark error up to the direction of time, px: of the landmarks as found, and of the smooth paths."""
    seen = sum(map(bool, found))
    paths = follow(found, FACE, (SIZE, SIZE))
    if seen < len(found) or not paths.tracks:
        return {"found": seen / len(found), "raw": math.nan, "smooth": math.nan}
    return {"found": 1.0, "raw": path_error(np.stack([frame[0].points for frame in found]), truth)[0],
            "smooth": path_error(paths.tracks[0].points, truth)[0]}


def measure(model: torch.nn.Module, tracker: Tracker) -> dict[int, dict[str, dict[str, float]]]:
    """length -> row -> figures, means over the directions."""
    cases = list(itertools.product(LENGTHS, ANGLES))
    faces = [moved_face(*case) for case in track(cases, "moving the face")]
    restored = [restore(model, face.blurry) for face in track(faces, "restoring")]
    pictures = [picture for face, made in zip(faces, restored, strict=True)
                for picture in (face.still, face.blurry, *face.frames, *made)]
    found = tracker.detect(pictures, FACE)
    each = len(found) // len(cases)
    table: dict[int, dict[str, list[dict[str, float]]]] = {}
    for (length, _), face, start in zip(cases, faces, range(0, len(found), each), strict=True):
        rest, blurry, *others = found[start:start + each]
        truth = rest[0].points + face.path[:, None]
        rows = {"true": others[:FRAMES], "repeated": [blurry] * FRAMES, "restored": others[FRAMES:]}
        for name, detections in rows.items():
            table.setdefault(length, {}).setdefault(name, []).append(errors(detections, truth))
    return {length: {name: {key: statistics.fmean(case[key] for case in cases_) for key in cases_[0]}
                     for name, cases_ in rows.items()} for length, rows in table.items()}


def draw(model: torch.nn.Module, tracker: Tracker) -> None:
    """docs/trajectories.png and .webp: paths from one blurry photo of the face."""
    face = moved_face(SHOWN, ANGLES[0])
    frames = restore(model, face.blurry)
    paths = follow(tracker.detect(list(frames), FACE), FACE, (SIZE, SIZE))
    still = Image.fromarray(draw_still(frames[FRAMES // 2], paths))
    blurry = Image.fromarray(face.blurry).resize((720, 720), Image.Resampling.BICUBIC)
    both = Image.new("RGB", (still.width + 724, still.height), "white")
    both.paste(blurry, (0, 0))
    both.paste(still, (724, 0))
    both.resize((both.width * 2 // 3, both.height * 2 // 3), Image.Resampling.LANCZOS).save(DOCS / "trajectories.png")
    films = [Image.fromarray(picture).resize((360, 360), Image.Resampling.LANCZOS)
             for picture in draw_frames(iter(frames), paths)]
    films += films[-2:0:-1]
    films[0].save(DOCS / "trajectories.webp", save_all=True, append_images=films[1:], duration=110, loop=0, quality=80)


def markdown(table: dict[int, dict[str, dict[str, float]]], model: str) -> str:
    """The table for people."""
    lines = ["# Paths of a face that moved along a known curve", "",
             f"Mean distance of 478 landmarks from the truth, px at {SIZE} px, up to the direction of time; mean over",
             f"{len(ANGLES)} directions of a bent path at changing speed. As found in each frame, and as smooth paths.",
             f"The face is in no training clip. Model: `{model}`. Made by `python -m benchmarks.trajectories`.", "",
             "| path over the exposure, px | frames | face found | as found | smooth |", "|---|---|---|---|---|"]
    for length, rows in table.items():
        lines += [f"| {length} | {ROWS[name]} | {100 * row['found']:.0f} % | {row['raw']:.2f} | {row['smooth']:.2f} |"
                  for name, row in rows.items()]
    return "\n".join([*lines, ""]).replace(" nan ", " – ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/deblurrer-hypercut_targets.safetensors"))
    given: Any = parser.parse_args()
    torch.set_num_threads(1)
    model, tracker = load_deblurrer(given.model).eval(), Tracker()
    table = measure(model, tracker)
    write_json(RESULTS / "trajectories.json", {"lengths": table, "model": given.model.name, "frames": FRAMES,
                                               "moments": frame_times(FRAMES)})
    write_text(RESULTS / "trajectories.md", markdown(table, given.model.name))
    print(markdown(table, given.model.name))
    draw(model, tracker)


if __name__ == "__main__":
    main()
