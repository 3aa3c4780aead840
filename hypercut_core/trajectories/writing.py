"""Paths as files: CSV and JSON for programs, a still and an animation for people."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hypercut_core.animation import playback, write_animation
from hypercut_core.errors import BadParameters
from hypercut_core.files import atomic_directory
from hypercut_core.trajectories.ambiguity import MEANING
from hypercut_core.trajectories.anatomy import region_of
from hypercut_core.trajectories.drawing import draw_frames, draw_still
from hypercut_core.trajectories.paths import Track, Trajectories

FILES = ("paths.csv", "paths.json", "paths.png", "overlay.webp", "overlay.gif")
OVERLAYS = ("webp", "gif")
COLUMNS = ("track", "side", "landmark", "region", "mark", "moment", "time", "x", "y", "x_normalised", "y_normalised",
           "confidence")
MOST_PICTURES = 120  # of an animation
DIRECTION = {True: "blur does not tell which way time ran: the reversed paths explain the photo as well",
             False: "known from the frames' order"}


def check_folder(out: Path, overlay: str) -> None:
    """Refuse what could not be written, or would replace other files, before any work is done.

    Raises:
        BadParameters: `out` is a file or holds other files, or there is no such kind of overlay.
    """
    if overlay not in OVERLAYS:
        raise BadParameters(f"there is no overlay of kind '{overlay}'", remedy="choose webp or gif")
    if out.exists() and not out.is_dir():
        raise BadParameters("a file of this name is in the way of the folder", where=out,
                            remedy="choose another folder")
    strangers = sorted(item.name for item in out.iterdir() if item.name not in FILES) if out.is_dir() else []
    if strangers:
        raise BadParameters(f"the folder holds other files ({strangers[0]}), which would be lost", where=out,
                            remedy="choose a new or empty folder")


def write_trajectories(paths: Trajectories, frames: np.ndarray, out: Path, *, overlay: str = "webp",
                       facts: dict[str, Any] | None = None) -> Path:
    """Write paths.csv, paths.json, paths.png and overlay.webp or overlay.gif into `out`, all or nothing.

    Args:
        frames: uint8 ``[T, H, W, 3]`` that the paths were found in, in the paths' direction of time.
        facts: more to say in paths.json, such as where the frames came from.

    Raises:
        BadParameters: see `check_folder`; StorageError: the disk is full or not writable.
    """
    check_folder(out, overlay)
    with atomic_directory(out) as folder:
        _write_csv(folder / "paths.csv", paths)
        text = json.dumps({**(facts or {}), **as_json(paths)}, allow_nan=False, ensure_ascii=False)
        (folder / "paths.json").write_text(text + "\n", encoding="utf-8")
        Image.fromarray(draw_still(frames[len(frames) // 2], paths)).save(folder / "paths.png")
        shown = thinned(paths, MOST_PICTURES)
        pictures = np.stack(list(draw_frames(playback(frames, len(shown.moments)), shown)))
        write_animation(pictures, folder / f"overlay.{overlay}", bounce=paths.ambiguous and len(pictures) > 2)
    return out


def as_json(paths: Trajectories) -> dict[str, Any]:
    """Everything that is known, as plain values. Lists over landmarks are in the mesh's order."""
    width, height = paths.size
    return {"format": 1, "kind": paths.kind, "width": width, "height": height,
            "moments": _rounded(paths.moments, 6),
            "direction": {"ambiguous": paths.ambiguous, "reversed": paths.reversed,
                          "meaning": DIRECTION[paths.ambiguous]},
            "tracks": [_track(track, paths.size) for track in paths.tracks]}


def _track(track: Track, size: tuple[int, int]) -> dict[str, Any]:
    return {"side": track.handedness, "seen_in_frames": track.seen.tolist(), "scale_px": round(track.scale, 3),
            "length_px": round(track.length, 3), "may_run_otherwise": track.may_run_otherwise,
            "regions": [{"name": region.name, "landmarks": list(region.points), "length_px": round(region.length, 3),
                         "own_px": round(region.own, 3), "mark": region.mark, "meaning": MEANING[region.mark]}
                        for region in track.regions],
            "noise_px": _rounded(track.noise, 3), "confidence": _rounded(track.confidence, 3),
            "points_px": _rounded(track.points, 3), "points_normalised": _rounded(track.points / np.array(size), 6)}


def _rounded(values: np.ndarray, digits: int) -> Any:
    return np.round(values.astype(np.float64), digits).tolist()


def _write_csv(file: Path, paths: Trajectories) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number, track in enumerate(paths.tracks):
            names = [region_of(paths.kind, point) for point in range(track.points.shape[1])]
            marks = {region.name: region.mark for region in track.regions}
            for point, moment in itertools.product(range(track.points.shape[1]), range(len(paths.moments))):
                x, y = (float(value) for value in track.points[moment, point])
                writer.writerow([number, track.handedness, point, names[point], marks.get(names[point], ""), moment,
                                 f"{paths.moments[moment]:.6f}", f"{x:.3f}", f"{y:.3f}", f"{x / paths.size[0]:.6f}",
                                 f"{y / paths.size[1]:.6f}", f"{track.confidence[moment, point]:.3f}"])


def thinned(paths: Trajectories, most: int) -> Trajectories:
    """The same paths at `most` of their moments, evenly chosen."""
    if len(paths.moments) <= most:
        return paths
    chosen = np.linspace(0, len(paths.moments) - 1, most).round().astype(int)
    tracks = tuple(dataclasses.replace(track, points=track.points[chosen], confidence=track.confidence[chosen])
                   for track in paths.tracks)
    return dataclasses.replace(paths, moments=paths.moments[chosen], tracks=tracks)

