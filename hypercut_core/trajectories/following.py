"""What the tracker finds on the clips of a store: on the blurry image, on the true frames, on what models restore.

    kept/<clip>-<pictures>-<how>.npz     what was found on the pictures of one clip by one system

Restoring and tracking take minutes to hours, so each result is kept as soon as it is there: a run that was stopped
goes on from them, and figures are made from the files alone. The names hold hashes of the clip, of the model and of
how was looked, so that nothing stale is ever taken.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from hypercut_core.clips.store import ClipStore
from hypercut_core.errors import BadCheckpoint
from hypercut_core.evaluation.protocol_names import labelled
from hypercut_core.files import atomic_file, file_sha256
from hypercut_core.progress import Progress
from hypercut_core.trajectories.landmarks import Detection
from hypercut_core.trajectories.measure import Picture
from hypercut_core.trajectories.tracker import PROCESS

BLURRY, TRUE = "blurry image", "true frames"
PIXELS_AT_ONCE = 2**25  # of the pictures in one call of the tracker: about 100 MB


class Finds(Protocol):
    """What is needed of `hypercut_core.trajectories.tracker.Tracker`."""

    def detect(self, frames: Sequence[np.ndarray], kind: str, most: int = 1) -> list[list[Detection]]: ...


@dataclass(frozen=True)
class System:
    """Something that makes pictures out of a clip: uint8 [T + 1, H, W, 3], the blurry image first, -> [n, H, W, 3]."""

    name: str
    identity: str  # changes with what it makes: hash of a model file
    make: Callable[[np.ndarray], np.ndarray]


GIVEN = (System(BLURRY, "blurry", lambda clip: clip[:1]), System(TRUE, "true", lambda clip: clip[1:]))


def load_system(name: str, path: Path, frames: int, device: str = "cpu") -> System:
    """A model file as a system; its name says its protocol where it was given more than the blurry image.

    Raises:
        BadCheckpoint: missing, damaged, or made for another number of frames.
    """
    import torch

    from hypercut_core.deblurring.models import load_deblurrer
    from hypercut_core.evaluation.protocols import ways

    model = load_deblurrer(path).to(device).eval()
    if model.frames != frames:
        raise BadCheckpoint(f"the model gives {model.frames} frames, the clips have {frames}", where=path,
                            remedy="train it on this clip store")
    usual = ways(model)[0]

    def make(clip: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            images = torch.from_numpy(clip).permute(0, 3, 1, 2)[None].float().to(device) / 255
            sharp = usual.predict(images[:, 0], images[:, 1:])[0].nan_to_num(0).clamp(0, 1)
            return sharp.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()

    return System(labelled(name, usual.protocol), file_sha256(path), make)


class Follower:
    """Finds landmarks on clips and keeps what was found.

    Args:
        clips: the store.
        tracker: what finds faces and hands in pictures.
        kept: folder of results; made if need be.
        most: faces or hands looked for in a picture.
    """

    def __init__(self, clips: ClipStore, tracker: Finds, kept: Path, most: int):
        self.clips, self.tracker, self.kept, self.most = clips, tracker, kept, most
        self._how = hashlib.sha256(PROCESS.read_bytes() + f"{most}".encode()).hexdigest()[:8]

    def follow(self, indices: Sequence[int], kinds: Sequence[str],
               systems: Sequence[System]) -> list[dict[str, list[Picture]]]:
        """For each clip: what was found on the pictures of each system, by its name.

        Args:
            indices: rows of the store.
            kinds: "face" or "hand" for each of them.
            systems: those of `GIVEN`, models and the like.

        Raises:
            TrackerMissing, TrackerError: the tracker is not there or does not do its work.
        """
        with Progress("following faces and hands", len(indices)) as progress:
            waiting: dict[Path, np.ndarray] = {}
            for number, (index, kind) in enumerate(zip(indices, kinds, strict=True)):
                waiting |= dict(self._missing(index, kind, systems))
                last = number + 1 == len(indices) or kinds[number + 1] != kind
                if last or sum(one[..., 0].size for one in waiting.values()) >= PIXELS_AT_ONCE:
                    self._find(waiting, kind)
                    waiting = {}
                progress.advance()
        return [{one.name: _read(self._file(index, kind, one), kind) or [] for one in systems}
                for index, kind in zip(indices, kinds, strict=True)]

    def lacks(self, indices: Sequence[int], kinds: Sequence[str], system: System) -> int:
        """On how many of the clips it still has to be looked what is found on the pictures of a system."""
        return sum(_read(self._file(index, kind, system), kind) is None
                   for index, kind in zip(indices, kinds, strict=True))

    def _missing(self, index: int, kind: str, systems: Sequence[System]) -> Iterator[tuple[Path, np.ndarray]]:
        """Files that are still to be made, with the pictures that they are about."""
        clip = None
        for system in systems:
            file = self._file(index, kind, system)
            if _read(file, kind) is None:
                clip = self.clips.read(index) if clip is None else clip
                yield file, system.make(clip)

    def _find(self, waiting: Mapping[Path, np.ndarray], kind: str) -> None:
        found = iter(self.tracker.detect([picture for one in waiting.values() for picture in one], kind, self.most))
        for file, pictures in waiting.items():
            _write(file, [next(found) for _ in pictures])

    def _file(self, index: int, kind: str, system: System) -> Path:
        clip = self.clips.records[index].sha256
        return self.kept / f"{clip[:24]}-{system.identity[:24]}-{kind}-{self._how}.npz"


def _write(file: Path, pictures: Sequence[Picture]) -> None:
    """Detections of a few pictures as arrays: exact, and read without any unpickling."""
    found = [(place, one) for place, picture in enumerate(pictures) for one in picture]
    width = max((len(one.points) for _, one in found), default=0)
    points = np.full((len(found), width, 2), np.nan, np.float32)
    for row, (_, one) in enumerate(found):
        points[row, :len(one.points)] = one.points
    with atomic_file(file) as partial:
        np.savez(partial, pictures=len(pictures), place=np.array([place for place, _ in found], np.int64),
                 points=points, confidence=np.array([one.confidence for _, one in found], np.float64),
                 handedness=np.array([one.handedness for _, one in found], "U8"))


def _read(file: Path, kind: str) -> list[Picture] | None:
    """What `_write` wrote; None if it is not there or damaged: then it is made again."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            pictures: list[list[Detection]] = [[] for _ in range(int(kept["pictures"]))]
            for place, points, confidence, side in zip(kept["place"], kept["points"], kept["confidence"],
                                                       kept["handedness"], strict=True):
                known = points[np.isfinite(points[:, 0])]
                pictures[int(place)].append(Detection(known, float(confidence), kind, str(side)))
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return None
    return list(pictures)
