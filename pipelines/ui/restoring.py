"""The work behind the page: one photo after the other is restored, its frames wait in the session's folder."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from hypercut_core.errors import HypercutError
from pipelines.ui.choices import LoadedModels

Stage = Literal["waiting", "restoring", "done", "failed"]
TILE = 768  # px: a photo of 640 px is restored whole
FRAMES = "frames.npy"
BLURRY = "blurry.npy"


@dataclass
class Job:
    """One photo on its way."""

    folder: Path  # of its own; the photo lies in it as `upload`
    model: Path
    side: int  # longest, px
    careful: bool  # all views that the model was made for, and not one
    max_pixels: int
    stage: Stage = "waiting"
    frames: int = 0
    size: tuple[int, int] = (0, 0)  # width, height
    problem: str = ""
    remedy: str = ""
    given_up: bool = False

    @property
    def upload(self) -> Path:
        return self.folder / "upload"

    def remove(self) -> None:
        """Nothing of it stays: neither its folder nor, if that is empty then, the session's."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()


class Restorer:
    """One thread that restores; use as a context manager. The network itself uses every core."""

    def __init__(self) -> None:
        self.models = LoadedModels()
        self._line: list[Job] = []
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "restoring")

    def __enter__(self) -> Restorer:
        return self

    def __exit__(self, *_: object) -> None:
        for job in self._line:
            job.given_up = True
        self._thread.shutdown(wait=True, cancel_futures=True)

    def warm_up(self, model: Path) -> None:
        """Load a model and run it once, so that the first visitor need not wait for that. Raises BadCheckpoint."""
        from hypercut_core.restore import restore

        restore(self.models.get(model, 1), np.zeros((64, 64, 3), np.uint8))

    def add(self, job: Job) -> None:
        with self._lock:
            self._line.append(job)
        self._thread.submit(self._work, job)

    def waiting(self) -> int:
        with self._lock:
            return sum(not job.given_up for job in self._line)

    def ahead(self, job: Job) -> int:
        """How many others are done before it."""
        with self._lock:
            before = self._line[:self._line.index(job)] if job in self._line else []
        return sum(not other.given_up for other in before)

    def _work(self, job: Job) -> None:
        try:
            if not job.given_up:
                self._restore(job)
        except HypercutError as error:  # its place is a path on this machine: not for visitors
            job.problem, job.remedy, job.stage = error.what, error.remedy or "", "failed"
        except MemoryError:
            job.problem, job.remedy, job.stage = "there is not enough memory for this photo", "choose a smaller size", \
                "failed"
        except Exception:
            if not job.given_up:  # else its folder was taken away under it
                traceback.print_exc(file=sys.stderr)
            job.problem, job.remedy, job.stage = "the photo could not be restored", "try another photo", "failed"
        finally:
            with self._lock:
                self._line.remove(job)
            job.upload.unlink(missing_ok=True)
            if job.given_up:
                job.remove()

    def _restore(self, job: Job) -> None:
        from hypercut_core.photos import load_photo
        from hypercut_core.restore import restore

        job.stage = "restoring"
        photo = shrink(load_photo(job.upload, job.max_pixels), job.side)
        job.upload.unlink(missing_ok=True)
        frames = restore(self.models.get(job.model, None if job.careful else 1), photo, tile=TILE)
        if job.given_up:
            return
        np.save(job.folder / BLURRY, photo, allow_pickle=False)
        np.save(job.folder / FRAMES, frames, allow_pickle=False)
        job.frames, job.size = len(frames), (frames.shape[2], frames.shape[1])
        job.stage = "done"


def shrink(photo: np.ndarray, side: int) -> np.ndarray:
    """Scale uint8 ``[H, W, 3]`` down so that no side is longer than `side`; smaller ones stay as they are."""
    height, width = photo.shape[:2]
    if max(height, width) <= side:
        return photo
    share = side / max(height, width)
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.array(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))


def picture(job: Job, number: int) -> bytes:
    """JPEG of a frame, 1 .. T, or of the blurry photo, 0. Raises OSError if the files are gone."""
    import io

    if number == 0:
        pixels = np.load(job.folder / BLURRY, allow_pickle=False)
    else:
        pixels = np.load(job.folder / FRAMES, mmap_mode="r", allow_pickle=False)[number - 1]
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(out, "JPEG", quality=93, subsampling=0)
    return out.getvalue()


def film(job: Job, kind: str, count: int, reverse: bool, bounce: bool, fps: float) -> Path:
    """A GIF, an MP4 or a ZIP of PNG files (there and not back), to be removed by the caller.

    Raises:
        BadParameters, StorageError; OSError: the files are gone.
    """
    import secrets
    import zipfile

    from hypercut_core.animation import playback, write_animation

    frames = np.load(job.folder / FRAMES, mmap_mode="r", allow_pickle=False)
    path = job.folder / f"{secrets.token_hex(8)}.{kind}"
    try:
        if kind != "zip":
            return write_animation(frames, path, bounce=bounce, reverse=reverse, fps=fps, frames_shown=count)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for n, frame in enumerate(playback(frames, count, reverse), start=1):
                with archive.open(f"frame_{n:04d}.png", "w") as member:
                    Image.fromarray(np.asarray(frame)).save(member, "PNG", compress_level=4)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
    return path
