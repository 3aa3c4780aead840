"""The two streams of a capture, a blurry and a sharp one, read frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from hypercut_core.blur.exposure import to_linear
from hypercut_core.clips.footage import is_video, probe
from hypercut_core.clips.frame_folder import frame_files, read_frames
from hypercut_core.clips.synchronise import THUMB
from hypercut_core.clips.video import Damage, Probe, read_video
from hypercut_core.errors import BadFootage

MOST_FRAMES = 200_000  # of one stream: the small pictures of all are kept in memory, 400 bytes each
NAMES = {"blurry": ("blurry", "blur"), "sharp": ("sharp",)}
_TABLE = to_linear(torch.arange(256, dtype=torch.float64) / 255, "srgb").float()


@dataclass(frozen=True)
class Scene:
    """One capture: two videos or folders of frames of the same happening."""

    name: str
    blurry: Path
    sharp: Path


def find_scenes(folder: Path) -> list[Scene]:
    """Scenes of a folder: itself, if it holds `blurry` and `sharp` (videos or folders of frames), else its folders.

    Raises:
        BadFootage: there is none, or a scene lacks one of the two or has one twice.
    """
    if not folder.is_dir():
        raise BadFootage("there is no such folder", where=folder, remedy="check the path")
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = []
    for base in [folder] if any(_streams(folder, kind) for kind in NAMES) else inner:
        streams = {kind: _streams(base, kind) for kind in NAMES}
        if not any(streams.values()) and base != folder:
            continue
        for kind, paths in streams.items():
            if len(paths) != 1:
                raise BadFootage(f"the scene has {len(paths)} streams named '{kind}'", where=base,
                                 remedy=f"put one video {kind}.mp4 (or .mkv, .mov …) or one folder {kind}/ there")
        found.append(Scene(base.resolve().name, streams["blurry"][0], streams["sharp"][0]))
    if not found:
        raise BadFootage("there is no capture here", where=folder,
                         remedy="make a folder for each scene, with blurry.mp4 and sharp.mp4 or folders of frames")
    return found


def _streams(base: Path, kind: str) -> list[Path]:
    return sorted(path for path in base.iterdir() if path.stem.lower() in NAMES[kind] and not path.name.startswith(".")
                  and (is_video(path) or (path.is_dir() and frame_files(path))))


def look(path: Path) -> Probe:
    """Size, frame count and rate.

    Raises:
        BadFootage: unreadable, or too long.
    """
    known = probe(path)
    if known.frames > MOST_FRAMES:
        raise BadFootage(f"the stream has {known.frames:,} frames, at most {MOST_FRAMES:,} are taken", where=path,
                         remedy="cut it into several scenes")
    return known


def frames_of(path: Path, height: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """Place and pixels (H, W, 3) uint8 of every frame that can be decoded, scaled down to `height` px (0: not)."""
    damage: list[Damage] = []
    read = read_frames if path.is_dir() else read_video
    for frame in read(path, height, damage):
        yield frame.index, frame.pixels


def light(pixels: np.ndarray) -> torch.Tensor:
    """(.., H, W, 3) uint8 sRGB to (.., 3, H, W) float32 linear light."""
    return _TABLE[torch.from_numpy(pixels).int()].movedim(-1, -3)


def thumbs_of(path: Path) -> np.ndarray:
    """Small grey pictures of all frames, linear light, (N, P) float32; of a lost frame, that of the one before.

    Raises:
        BadFootage: no frame can be decoded.
    """
    rows: list[np.ndarray] = []
    for place, pixels in frames_of(path, 120):
        thumb = F.adaptive_avg_pool2d(light(pixels).mean(0)[None, None], THUMB)[0, 0].flatten().numpy()
        rows += [thumb] * max(1, place + 1 - len(rows))
    if not rows:
        raise BadFootage("no frame of it can be decoded", where=path, remedy="copy it again from the camera")
    return np.stack(rows)


def mirrored_thumbs(thumbs: np.ndarray) -> np.ndarray:
    """The same pictures in a mirror."""
    return thumbs.reshape(-1, *THUMB)[:, :, ::-1].reshape(len(thumbs), -1)
