"""An RB2V-like data set from one's own captures: a blurry and a sharp stream of each scene.

Two cameras look at the same happening (through a beam splitter, or side by side at things far away): one with a
long exposure, one fast. `fit_capture` finds how they belong together; here the sharp frames of each exposure are
brought to the blurry camera's view and colours, and written beside the blurry image as it was captured. Each clip
says how well the mean of its frames explains its blur, after each stage; clips below a limit are left out.

    out/<scene>/blur/0000.png  out/<scene>/sharp/0000_1.png …  out/metadata.json  out/capture.json  out/capture.html
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypercut_core.blur.exposure import blur_error, from_linear
from hypercut_core.clips.capture_fit import CaptureFit, FitConfig, corner_shift, fit_capture
from hypercut_core.clips.capture_streams import Scene, find_scenes, frames_of, light, look
from hypercut_core.clips.export import write_png
from hypercut_core.clips.export_plan import distinct
from hypercut_core.clips.motion import path_length
from hypercut_core.clips.registration import covered, identity, sample, source_positions
from hypercut_core.clips.unfinished import is_there, unfinished
from hypercut_core.errors import BadFootage, BadParameters
from hypercut_core.files import write_json, write_text
from hypercut_core.progress import Progress

SUMMARY = "capture.json"
STAGES = ("time", "colour", "geometry", "rest")  # what has been matched, one after the other
SMALLEST = 64  # px, shorter side of what both cameras see


@dataclass(frozen=True)
class CaptureConfig:
    """How captures become clips."""

    fit: FitConfig = field(default_factory=FitConfig)  # how the two streams are matched
    name: str = "captured"  # name of the data set
    min_psnr: float = 30.0  # clips whose frames explain their blur worse are left out, dB
    height: int = 0  # clips are scaled down to this height, px; 0: as the blurry camera has them


@dataclass(frozen=True)
class Aligned:
    """Positions in the sharp picture for each pixel of the blurry one, and the part that both see."""

    identity: Tensor
    homography: Tensor
    complete: Tensor
    rows: slice
    columns: slice


def build_data_set(folder: Path, out: Path, config: CaptureConfig | None = None) -> dict[str, Any]:
    """Write the data set of all scenes of `folder` to `out`; finished scenes of a killed run are kept.

    Returns:
        What capture.json holds: for each scene the fit, PSNR after each stage, and what was left out and why.

    Raises:
        BadFootage: a scene cannot be read or matched, or no clip of any scene is good enough.
        BadParameters: settings that make no sense.
        StorageError: something else is at `out`, or it cannot be written.
    """
    config = config or CaptureConfig()
    _check(config)
    scenes = find_scenes(folder)
    names = dict(zip((scene.name for scene in scenes), distinct(scene.name for scene in scenes), strict=True))
    stamp = _stamp(scenes, config)
    if is_there(out, SUMMARY, stamp):
        return json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    with unfinished(out, "capture", _stamp([], config)) as partial:
        for stray in partial.iterdir():
            if stray.is_dir() and stray.name not in names.values():  # of a scene that has been taken out since
                shutil.rmtree(stray)
        found = {names[scene.name]: _scene(scene, names[scene.name], partial, config) for scene in scenes}
        entries = {name: one.pop("entries") for name, one in found.items()}
        summary = {"stamp": stamp, "clips": sum(map(len, entries.values())), "frames": config.fit.frames,
                   "rule": asdict(config), "scenes": found}
        if not summary["clips"]:
            shutil.rmtree(partial)
            raise BadFootage(f"no clip explains its blur by {config.min_psnr:g} dB: {_why(found)}", where=folder,
                             remedy="look at the cameras' alignment, or lower --min-psnr")
        _write_metadata(partial, entries, config)
        write_json(partial / SUMMARY, summary)
        from hypercut_core.clips.capture_report import write_capture_report

        write_capture_report(partial, summary, entries)
        for mark in partial.glob("*.done"):
            mark.unlink()
    return summary


def partitions(names: Sequence[str]) -> dict[str, str]:
    """Partition of each scene, decided by its name alone; fewer than three scenes are all for training."""
    turn = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    tests = max(1, round(0.2 * len(turn))) if len(turn) >= 3 else 0
    vals = max(1, round(0.1 * len(turn))) if len(turn) >= 3 else 0
    return {name: "test" if place < tests else "val" if place < tests + vals else "train"
            for place, name in enumerate(turn)}


def _check(config: CaptureConfig) -> None:
    if config.fit.frames % 2 == 0 or not 3 <= config.fit.frames <= 15:
        raise BadParameters(f"the number of sharp frames is {config.fit.frames}", where="frames",
                            remedy="choose an odd number from 3 to 15")
    for name, value in (("rate", config.fit.rate), ("height", config.height), ("min_psnr", config.min_psnr)):
        if not 0 <= value < 1e6:
            raise BadParameters(f"'{name}' is {value:g}", where=name, remedy="give a number from 0 upwards")
    if 0 < config.fit.rate < 1:
        raise BadParameters(f"the rate is {config.fit.rate:g} sharp frames per blurry image", where="rate",
                            remedy="the sharp camera must be the faster one")


def _stamp(scenes: Sequence[Scene], config: CaptureConfig) -> str:
    """Same files, by name, size and time, and same settings."""
    rows = []
    for scene in scenes:
        for path in (scene.blurry, scene.sharp):
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            rows += [(scene.name, file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([rows, asdict(config)]).encode()).hexdigest()


def _scene(scene: Scene, name: str, folder: Path, config: CaptureConfig) -> dict[str, Any]:
    """Fit and clips of one scene; what a killed run finished is read back."""
    done, stamp = folder / f"{name}.done", _stamp([scene], config)
    if done.is_file() and (before := json.loads(done.read_text(encoding="utf-8"))).pop("stamp") == stamp:
        return before
    shutil.rmtree(folder / name, ignore_errors=True)
    with Progress(f"matching {scene.name}"):
        fit = fit_capture(scene, config.fit)
    left_out: Counter[str] = Counter()
    entries: list[dict[str, Any]] = []
    aligned: Aligned | None = None
    with Progress(f"writing {scene.name}", total=look(scene.blurry).frames) as progress:
        for place, blurry, sharp in _exposures(scene, fit, config, left_out):
            progress.advance(place + 1 - progress.done)
            aligned = aligned or _aligned(fit, blurry, scene)
            clip, psnr = _clip(blurry, sharp, fit, aligned)
            if psnr[STAGES[-1]] < config.min_psnr:
                left_out["below the limit"] += 1
                continue
            stem = f"{len(entries):04d}"
            _write_clip(folder / name, stem, clip)
            entries.append(_entry(name, stem, place, clip, fit, psnr))
    seen = look(scene.blurry)
    result = {**_facts(fit, seen.width, seen.height), "clips": len(entries), "left out": dict(left_out),
              "psnr": _means([entry["capture"]["psnr"] for entry in entries]), "entries": entries}
    write_text(done, json.dumps({**result, "stamp": stamp}))
    return result


def _exposures(scene: Scene, fit: CaptureFit, config: CaptureConfig, left_out: Counter[str]
               ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each blurry image with the T sharp frames that are nearest to its exposure; memory holds one window."""
    stream = frames_of(scene.sharp)
    window: dict[int, np.ndarray] = {}
    read = -1
    for place, blurry in frames_of(scene.blurry, config.height):
        first = round(fit.timing.start(place))
        wanted = range(first, first + config.fit.frames)
        if first < 0:
            left_out["before the sharp stream begins"] += 1
            continue
        window = {number: pixels for number, pixels in window.items() if number >= first}
        while read < wanted[-1] and (step := next(stream, None)) is not None:
            read = step[0]
            if read >= first:
                window[read] = step[1]
        if read < wanted[-1]:
            left_out["after the sharp stream ends"] += 1
        elif any(number not in window for number in wanted):
            left_out["a sharp frame is missing"] += 1
        else:
            frames = np.stack([window[number] for number in wanted])
            yield place, blurry, np.ascontiguousarray(frames[:, :, ::-1]) if fit.mirrored else frames


def _aligned(fit: CaptureFit, blurry: np.ndarray, scene: Scene) -> Aligned:
    height, width = blurry.shape[:2]
    complete = source_positions(fit.homography, fit.field, height, width)
    rows, columns = covered(complete)
    if min(rows.stop - rows.start, columns.stop - columns.start) < SMALLEST:
        common = f"{columns.stop - columns.start} x {rows.stop - rows.start}"
        raise BadFootage(f"both cameras see only {common} px in common",
                         where=scene.blurry.parent, remedy="point both cameras at the same part of the scene")
    cut = (rows, columns)
    return Aligned(source_positions(identity(), None, height, width)[cut],
                   source_positions(fit.homography, None, height, width)[cut], complete[cut], rows, columns)


def _clip(blurry: np.ndarray, sharp: np.ndarray, fit: CaptureFit, aligned: Aligned
          ) -> tuple[np.ndarray, dict[str, float]]:
    """(T + 1, H, W, 3) uint8, and the PSNR of the blur against the mean of the frames after each stage."""
    target = blurry[aligned.rows, aligned.columns]
    mean = torch.stack([light(frame) for frame in sharp]).mean(0).permute(1, 2, 0)
    psnr = {}
    for stage, picture, there in zip(STAGES, (mean, fit.colours(mean), fit.colours(mean)), (
            aligned.identity, aligned.identity, aligned.homography), strict=False):
        made = _encoded(sample(picture.permute(2, 0, 1)[None], there, "bicubic")[0].permute(1, 2, 0))
        psnr[stage] = blur_error(target, made[None], "none")
    frames = [_encoded(fit.colours(sample(light(frame)[None], aligned.complete, "bicubic")[0].permute(1, 2, 0)))
              for frame in sharp]
    psnr[STAGES[-1]] = blur_error(target, np.stack(frames), "srgb")
    return np.stack([target, *frames]), {stage: round(value, 3) for stage, value in psnr.items()}


def _encoded(linear: Tensor) -> np.ndarray:
    """(H, W, 3) linear light to uint8 sRGB."""
    return from_linear(linear.clamp(0, 1)).mul(255).round().byte().contiguous().numpy()


def _write_clip(folder: Path, stem: str, clip: np.ndarray) -> None:
    for kind in ("blur", "sharp"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    write_png(folder / "blur" / f"{stem}.png", clip[0])
    for number, frame in enumerate(clip[1:], start=1):
        write_png(folder / "sharp" / f"{stem}_{number}.png", frame)


def _entry(name: str, stem: str, place: int, clip: np.ndarray, fit: CaptureFit, psnr: dict[str, float]
           ) -> dict[str, Any]:
    """The clip's entry of metadata.json. The direction of time is known, its canonical one is not: "random"."""
    start = fit.timing.start(place)
    files = {f"frame{number:03d}_path": f"{name}/sharp/{stem}_{number}.png" for number in range(1, len(clip))}
    return {"id": f"{name}_{stem}", "order": "random", "partition": "train", "blur_path": f"{name}/blur/{stem}.png",
            **files, "capture": {"image": place, "first_sharp_frame": round(start), "off_by_frames":
                                 round(start - round(start), 3), "motion": round(path_length(clip[1:]), 2),
                                 "psnr": psnr}}


def _facts(fit: CaptureFit, width: int, height: int) -> dict[str, Any]:
    """The fit in numbers that people read."""
    bend = None if fit.field is None else float((fit.field * torch.tensor([width / 2, height / 2]).view(2, 1, 1))
                                                .norm(dim=0).max())
    return {"offset": round(float(fit.timing.offset), 4), "rate": round(float(fit.timing.rate), 6),
            "correlation": round(fit.correlation, 4), "mirrored": fit.mirrored,
            "homography": [round(float(value), 6) for value in fit.homography],
            "corner_shift_px": round(corner_shift(fit.homography, height, width), 2),
            "rest_px": None if bend is None else round(bend, 2), "gamma": round(fit.colours.gamma, 4),
            "colour_matrix": [[round(float(value), 5) for value in row] for row in fit.colours.matrix],
            "stray_light": [round(float(value), 5) for value in fit.colours.offset]}


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {stage: round(float(np.mean([row[stage] for row in rows])), 2) for stage in STAGES} if rows else {}


def _why(found: Mapping[str, Mapping[str, Any]]) -> str:
    reasons: Counter[str] = Counter()
    for one in found.values():
        reasons.update(one["left out"])
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "there are no exposures"


def _write_metadata(folder: Path, entries: Mapping[str, list[dict[str, Any]]], config: CaptureConfig) -> None:
    split = partitions([name for name, rows in entries.items() if rows])
    for name, rows in entries.items():
        for row in rows:
            row["partition"] = split[name]
    document = {"name": config.name, "frame_per_seq": config.fit.frames,
                "data": [row for rows in entries.values() for row in rows]}
    (folder / "metadata.json").write_text(json.dumps(document, indent=1) + "\n", encoding="ascii")
