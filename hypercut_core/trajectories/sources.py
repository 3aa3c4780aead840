"""What paths are taken from: a blurry photo, a clip of a store, a video or a folder of frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hypercut_core.errors import BadFootage, BadParameters

MOST_FRAMES = 600  # of a video or folder
MOST_BYTES = 2 * 2**30  # of its decoded frames


@dataclass(frozen=True)
class Exposure:
    """Sharp frames in a row, uint8 ``[T, H, W, 3]``, and the blurry photo that they were recovered from, if any."""

    frames: np.ndarray
    photo: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), px."""
        return self.frames.shape[2], self.frames.shape[1]


def from_photo(photo: Path, model: Path, *, tile: int = 512, views: int | None = None,
               device: str = "cpu") -> Exposure:
    """The frames that a deblurrer recovers.

    Raises:
        BadImage, BadCheckpoint, BadParameters.
    """
    from hypercut_core.deblurring.models import load_deblurrer
    from hypercut_core.photos import load_photo
    from hypercut_core.restore import restore

    pixels = load_photo(photo)
    deblurrer = load_deblurrer(model, views).to(device).eval()
    return Exposure(restore(deblurrer, pixels, tile=tile), pixels)


def from_clip(store: Path, clip: str) -> Exposure:
    """The true frames of one clip.

    Args:
        clip: its number in the store, or its clip_id.

    Raises:
        BadClipStore, BadParameters.
    """
    from hypercut_core.clips.store import ClipStore

    opened = ClipStore(store)
    index = int(clip) if clip.isdecimal() else next(
        (i for i in range(len(opened)) if opened.records[i].clip_id == clip), -1)
    if not 0 <= index < len(opened):
        raise BadParameters(f"there is no clip '{clip}' in the store", where=store,
                            remedy=f"give a number from 0 to {len(opened) - 1}, or a clip_id of clips.parquet")
    return Exposure(opened.read(index)[1:])


def from_footage(path: Path) -> Exposure:
    """All frames of a short video or of a folder of frames.

    Raises:
        BadFootage: it cannot be read, is damaged, has too many frames, or frames of several sizes.
    """
    from hypercut_core.clips.footage import is_video
    from hypercut_core.clips.frame_folder import read_frames
    from hypercut_core.clips.video import Damage, read_video

    damage: list[Damage] = []
    frames: list[np.ndarray] = []
    for frame in (read_video if is_video(path) else read_frames)(path, 0, damage):
        if frames and frame.pixels.shape != frames[0].shape:
            raise BadFootage("its frames have several sizes", where=path, remedy="bring them to one size")
        frames.append(frame.pixels)
        if len(frames) > MOST_FRAMES or len(frames) * frames[0].nbytes > MOST_BYTES:
            raise BadFootage(f"it has more than {MOST_FRAMES} frames, or more than {MOST_BYTES // 2**30} GiB of them",
                             where=path, remedy="cut out a shorter part, or scale it down")
    if damage or not frames:
        what = f"{damage[0].what} ({damage[0].place})" if damage else "it has no frames"
        raise BadFootage(what, where=path, remedy="copy the footage again from where it came from")
    return Exposure(np.stack(frames))
