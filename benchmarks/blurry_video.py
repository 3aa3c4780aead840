"""Blurry videos: do neighbouring frames settle the direction of time?

    nice .venv/bin/python -m benchmarks.blurry_video [--models FILE ...] [--footage FOLDER]
    .venv/bin/python -m benchmarks.blurry_video --picture docs/blurry-video.webp

Videos of photos that no model saw (`hypercut_core/clips/moving_videos.py`), whose true direction is known, are
restored frame by frame and turned as `hypercut restore VIDEO` does. The direction of a frame is the sign of the inner
product of its odd part with the true one. Each kind of video is a cell; finished cells are kept in
work/benchmarks/blurry_video, so that a stopped benchmark goes on (delete them to measure again). About six
CPU-minutes. With --footage, blurry videos are made of real ones too, by averaging 7 frames in a row.
Writes benchmarks/results/blurry_video.md and .json.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from hypercut_core.blur.exposure import ExposureConfig, expose
from hypercut_core.blurry_video.report import SURE, findings
from hypercut_core.blurry_video.shots import OrderedVideo, Shot
from hypercut_core.blurry_video.signs import margins
from hypercut_core.clips.footage import is_video
from hypercut_core.clips.moving_photos import KINDS, MovingPhotosConfig
from hypercut_core.clips.moving_videos import render_videos
from hypercut_core.clips.video import Frame, read_video
from hypercut_core.deblurring.models import load_deblurrer
from hypercut_core.files import read_json, write_json, write_text
from hypercut_core.restore import restore
from hypercut_core.tiles import agreement

RESULTS = Path(__file__).parent / "results"
WORK = Path("work/benchmarks/blurry_video")
MODELS = [Path(f"models/deblurrer-{name}.safetensors") for name in ("hypercut_targets", "sequence_min")]
DUTIES = (1.0, 0.5)
VIDEOS, LENGTH, SIZE = 8, 10, 96  # videos a cell, exposures a video, px
REAL_HEIGHT, REAL_LENGTH = 128, 12  # px, exposures
MOVES = 1.0  # px an exposure: less is still


@dataclass(frozen=True)
class Scene:
    """A blurry video whose truth is known: (N, H, W, 3), (N, T, H, W, 3), and px an exposure, (N,)."""

    blurry: np.ndarray
    sharp: np.ndarray
    speed: np.ndarray


def made_scenes(kind: str, duty: float, seed: int, videos: int = VIDEOS, length: int = LENGTH) -> list[Scene]:
    """The first `videos` of a chunk of test photos."""
    found = list(render_videos(MovingPhotosConfig(size=SIZE), "test", seed, seed, length=length, duty=duty, kind=kind))
    return [Scene(*(np.stack([getattr(one, name)[v] for one in found]) for name in ("blurry", "sharp", "speed")))
            for v in range(videos)]


def real_scenes(folder: Path, frames: int = 7) -> Iterator[tuple[str, Scene]]:
    """Windows of real videos in a row, averaged: the shutter never closes."""
    for path in sorted(path for path in folder.rglob("*") if is_video(path)):
        pixels = [f.pixels for f in itertools.islice(read_video(path, REAL_HEIGHT, []), REAL_LENGTH * frames)]
        whole = len(pixels) // frames
        if whole < 4 or min(pixels[0].shape[:2]) < 64:
            continue
        sharp = np.stack(pixels[:whole * frames]).reshape(whole, frames, *pixels[0].shape)
        rng = np.random.default_rng(0)
        blurry = np.stack([expose(window, ExposureConfig(), rng) for window in sharp])
        yield path.name, Scene(blurry, sharp, np.full(whole, np.nan))


def ordered(model: nn.Module, scene: Scene) -> tuple[list[Shot], list[np.ndarray], list[np.ndarray]]:
    """The shots, the frames as the model gives them, and as they were turned."""
    own: list[np.ndarray] = []

    def one(pixels: np.ndarray) -> np.ndarray:
        own.append(restore(model, pixels))
        return own[-1]

    video = OrderedVideo(one)
    turned = list(video.turned((Frame(pixels, t, None) for t, pixels in enumerate(scene.blurry)), Path("made")))
    return video.shots, own, turned


def measure(model: nn.Module, scene: Scene) -> dict[str, Any]:
    """What a table is made of: a row a frame."""
    shots, own, turned = ordered(model, scene)
    right = [1 if agreement(made, true) > 0 else -1 for made, true in zip(turned, scene.sharp, strict=True)]
    alone = [1 if agreement(made, true) > 0 else -1 for made, true in zip(own, scene.sharp, strict=True)]
    sure = [margin >= SURE for shot in shots
            for margin in margins(np.array(shot.links).reshape(-1, 2, 2), shot.states).frames]
    return {"own": alone, "turned": right, "sure": sure, "speed": scene.speed, "shots": len(shots),
            "still": findings(shots).still}


def cell(name: str, model: Path, scenes: Iterable[Scene]) -> list[dict[str, Any]]:
    """Rows of a cell, measured or read."""
    file = WORK / f"{name}-{model.stem}.json"
    if not file.exists():
        loaded = load_deblurrer(model)
        write_json(file, [measure(loaded, scene) for scene in scenes])
    return read_json(file)  # type: ignore[no-any-return]


def shares(videos: list[dict[str, Any]], key: str, moving: bool = False) -> dict[str, float]:
    """Consistent neighbours, right directions, and how many neighbours there were. `moving`: both move by MOVES px.
    Directions at random are drawn a hundred times."""
    same, pairs, right, frames = 0, 0, 0, 0
    rng, draws = np.random.default_rng(0), 100 if key == "random" else 1
    for video in videos * draws:
        signs = rng.choice([-1, 1], len(video["own"])) if key == "random" else np.array(video[key])
        moves = np.array(video["speed"], float) >= MOVES if moving else np.ones(len(signs), bool)
        both = moves[:-1] & moves[1:]
        same, pairs = same + int((signs[:-1] == signs[1:])[both].sum()), pairs + int(both.sum())
        right, frames = right + int((signs > 0)[moves].sum()), frames + int(moves.sum())
    return {"consistent": same / pairs, "right": right / frames, "pairs": pairs // draws}


def sure_share(videos: list[dict[str, Any]]) -> tuple[float, float]:
    """How many frames the report calls sure, and how many of those are right."""
    sure = np.concatenate([np.array(video["sure"], bool) for video in videos])
    right = np.concatenate([np.array(video["turned"]) > 0 for video in videos])
    return float(sure.mean()), float(right[sure].mean()) if sure.any() else float("nan")


ROWS = {"random": "frame by frame, direction drawn at random", "own": "frame by frame, the model's own direction",
        "turned": "neighbours settle it"}


Found = dict[str, dict[str, list[dict[str, Any]]]]  # model -> kind of video -> a row a video


def markdown(made: Found, real: Found) -> str:
    """The tables for people."""
    lines = ["# Blurry videos: one order of time over the whole video", "",
             "Consistent: share of consecutive frames that run the same way. Right: share of frames that run the way",
             "that they were taken. Made videos of photos that no model saw, 96 px, 4 to 10 px of motion an exposure,",
             "directions turning all the time; duty is the share of time in which the shutter is open. Moving: both",
             "frames move by 1 px or more. Made by `python -m benchmarks.blurry_video`.", "",
             "| model | direction of a frame | videos | neighbours | consistent | right | consistent, moving |",
             "|---|---|---|---|---|---|---|"]
    for model, cells in made.items():
        videos = [video for found in cells.values() for video in found]
        for key, label in ROWS.items():
            all_, moving = shares(videos, key), shares(videos, key, moving=True)
            lines.append(f"| {model} | {label} | {len(videos)} | {all_['pairs']:.0f} | {all_['consistent']:.1%} | "
                         f"{all_['right']:.1%} | {moving['consistent']:.1%} |")
    lines += ["", "By kind of video (consistent / right), and what the report's confidence is worth:", "",
              "| model | video | neighbours settle it | the model's own | sure frames | right of those | shots of "
              f"{VIDEOS} |", "|---|---|---|---|---|---|---|"]
    for model, cells in made.items():
        lines += [_cell_line(model, name, videos) for name, videos in cells.items()]
    if real:
        lines += ["", f"Real videos at {REAL_HEIGHT} px, 7 frames in a row averaged to one (the shutter never closes); "
                  "no model was trained on real video, and in most of them little of the picture moves:", "",
                  "| model | video | neighbours settle it | the model's own | sure frames | right of those | shots |",
                  "|---|---|---|---|---|---|---|"]
        for model, cells in real.items():
            lines += [_cell_line(model, name, videos) for name, videos in cells.items()]
            lines.append(_cell_line(model, "**all**", [video for videos in cells.values() for video in videos]))
    return "\n".join([*lines, ""])


def _cell_line(model: str, name: str, videos: list[dict[str, Any]]) -> str:
    turned, own = shares(videos, "turned"), shares(videos, "own")
    sure, right = sure_share(videos)
    return (f"| {model} | {name} | {turned['consistent']:.1%} / {turned['right']:.1%} | {own['consistent']:.1%} / "
            f"{own['right']:.1%} | {sure:.0%} | {right:.1%} | {sum(video['shots'] for video in videos)} |")


def run(models: list[Path], footage: Path | None) -> None:
    """All cells, then the table."""
    made: dict[str, dict[str, Any]] = {model.stem.removeprefix("deblurrer-"): {} for model in models}
    real: dict[str, dict[str, Any]] = {name: {} for name in made} if footage else {}
    for seed, (kind, duty) in enumerate(itertools.product(KINDS, DUTIES)):
        files = [WORK / f"{kind}-{duty:g}-{model.stem}.json" for model in models]
        scenes = [] if all(file.exists() for file in files) else made_scenes(kind, duty, seed)
        for model, found in zip(models, made.values(), strict=True):
            found[f"{kind}, duty {duty:g}"] = cell(f"{kind}-{duty:g}", model, scenes)
        print(f"{kind}, duty {duty:g}: done", flush=True)
    for name, scene in real_scenes(footage) if footage else ():
        for model, found in zip(models, real.values(), strict=True):
            found[name] = cell(f"real-{name}", model, [scene])
    text = markdown(made, real)
    write_json(RESULTS / "blurry_video.json", {"made": made, "real": real})
    write_text(RESULTS / "blurry_video.md", text)
    print(text)


PICTURED = ((0, 3), (2, 0))  # cell and video of the benchmark


def picture(model: Path, out: Path) -> None:
    """Blurry video in, sharp video out, side by side."""
    rows = []
    for seed, video in PICTURED:
        file = WORK / f"picture-{seed}-{video}-{model.stem}.npz"
        if not file.exists():
            kind, duty = list(itertools.product(KINDS, DUTIES))[seed]
            scene = made_scenes(kind, duty, seed)[video]
            _, own, turned = ordered(load_deblurrer(model), scene)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, blurry=scene.blurry, own=np.stack(own), turned=np.stack(turned))
        with np.load(file) as held:
            rows.append((held["blurry"], held["own"], held["turned"]))
    count = len(rows[0][1][0])
    films = [_panel([image for blurry, own, turned in rows for image in (blurry[t], own[t][k], turned[t][k])])
             for t, k in itertools.product(range(LENGTH), range(count))]
    out.parent.mkdir(exist_ok=True)
    films[0].save(out, save_all=True, append_images=films[1:], duration=70, loop=0, quality=70, method=6)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def _panel(tiles: list[np.ndarray], shown: int = 160, label: int = 18) -> Image.Image:
    columns = ("blurry video", "restored, each frame alone", "restored, one direction")
    image = Image.new("RGB", (3 * (shown + 4) - 4, label + len(tiles) // 3 * (shown + 4) - 4), "white")
    draw = ImageDraw.Draw(image)
    for column, name in enumerate(columns):
        draw.text((column * (shown + 4) + 4, 3), name, fill="black")
    for place, tile in enumerate(tiles):
        row, column = divmod(place, 3)
        scaled = Image.fromarray(tile).resize((shown, shown), Image.Resampling.BICUBIC)
        image.paste(scaled, (column * (shown + 4), label + row * (shown + 4)))
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", default=MODELS)
    parser.add_argument("--footage", type=Path, help="folder of real videos")
    parser.add_argument("--picture", type=Path, help="make this picture with the first model, and nothing else")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.picture:
        picture(given.models[0], given.picture)
    else:
        run(given.models, given.footage)


if __name__ == "__main__":
    main()
