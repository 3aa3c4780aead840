"""`hypercut trajectories`: source -> frames -> landmarks -> paths -> files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hypercut_core.clips.footage import is_moving
from hypercut_core.errors import BadImage, BadParameters, TrackerMissing
from hypercut_core.progress import say
from hypercut_core.trajectories.landmarks import HAND, known_kind
from hypercut_core.trajectories.paths import Trajectories, follow
from hypercut_core.trajectories.sources import Exposure, from_clip, from_footage, from_photo
from hypercut_core.trajectories.tracker import REMEDY, Tracker
from hypercut_core.trajectories.writing import check_folder, write_trajectories


def trajectories_command(source: Path, out: Path, *, kind: str = "face", model: Callable[[], Path] | None = None,
                         clip: str | None = None, most: int | None = None, moments: int | None = None,
                         reverse: bool = False, overlay: str = "webp", tile: int = 512, views: int | None = None,
                         tracker: Tracker | None = None) -> Trajectories:
    """Find the paths of a face or of hands and write them into the folder `out`.

    Args:
        source: a blurry photo; a video or folder of frames; a clip store, with `clip`.
        model: gives a deblurrer's file; only called for a photo.
        most: how many faces or hands to look for; None: one face, two hands.
        moments: at how many moments the paths are given; None: one for each frame.
        reverse: run time the other way.

    Raises:
        TrackerError: the tracker is missing or fails.
        BadImage: nothing was found in at least half of the frames; or see `load_photo`.
        BadFootage, BadClipStore, BadCheckpoint, BadParameters, StorageError.
    """
    known_kind(kind)
    check_folder(out, overlay)
    tracker = Tracker() if tracker is None else tracker
    missing = tracker.missing()
    if missing is not None:
        raise TrackerMissing(missing, where=tracker.python, remedy=REMEDY)
    exposure = _frames_of(source, clip, model, tile, views)
    paths, facts = trace(exposure, tracker, kind, most=most, moments=moments, reverse=reverse)
    if not paths.tracks:
        raise _nothing_found(source, kind, facts, len(exposure.frames))
    frames = exposure.frames[::-1] if reverse else exposure.frames
    write_trajectories(paths, frames, out, overlay=overlay, facts={"source": source.name, "clip": clip, **facts})
    return paths


def trace(exposure: Exposure, tracker: Tracker, kind: str, *, most: int | None = None, moments: int | None = None,
          reverse: bool = False) -> tuple[Trajectories, dict[str, Any]]:
    """Paths of an exposure, and in how much of it the tracker found something.

    Returns:
        the paths, and {"found_in_photo": bool or None, "found_in_frames": int}.
    """
    most = (2 if kind == HAND else 1) if most is None else most
    pictures: list[np.ndarray] = [*exposure.frames, *([] if exposure.photo is None else [exposure.photo])]
    say(f"looking for a {kind} in {len(exposure.frames)} frames")
    found = tracker.detect(pictures, kind, most)
    count = len(exposure.frames)
    paths = follow(found[:count], kind, exposure.size, moments=moments, ambiguous=exposure.photo is not None,
                   reverse=reverse)
    return paths, {"frames": count, "found_in_frames": sum(map(bool, found[:count])),
                   "found_in_photo": bool(found[count]) if exposure.photo is not None else None}


def _frames_of(source: Path, clip: str | None, model: Callable[[], Path] | None, tile: int,
               views: int | None) -> Exposure:
    if clip is not None:
        return from_clip(source, clip)
    if is_moving(source):
        if (source / "zarr.json").is_file():
            raise BadParameters("this is a clip store, and no clip of it was chosen", where=source,
                                remedy="add --clip with a number or clip_id")
        return from_footage(source)
    if model is None:
        raise BadParameters("a photo needs a model", where=source, remedy="give --model")
    say("restoring the photo")
    return from_photo(source, model(), tile=tile, views=views)


def _nothing_found(source: Path, kind: str, facts: dict[str, Any], count: int) -> BadImage:
    in_photo = {True: " (and in the photo as it is)", False: "", None: ""}[facts["found_in_photo"]]
    found = facts["found_in_frames"]
    return BadImage(f"a {kind} was found in {found} of {count} frames{in_photo}: not enough for a path", where=source,
                    remedy=f"cut the picture so that the {kind} fills more of it, or try --kind "
                           f"{'face' if kind == HAND else 'hand'}")
