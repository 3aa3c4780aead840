"""The landmark tracker, called across a process boundary.

MediaPipe wants older numpy and protobuf than the rest of Hypercut, so it lives in an environment of its own
(``make tracker``). Frames go to it as files in a temporary folder, its answer comes back as one JSON file and is
believed in nothing: not in its size, its shapes or its numbers. One process finds all frames of one call.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hypercut_core.errors import BadImage, BadParameters, TrackerError, TrackerMissing
from hypercut_core.trajectories.landmarks import POINTS, SIDES, Detection, known_kind

ENVIRONMENT = ".venv-tracker"
INSTALL = "make tracker"
REMEDY = f"'{INSTALL}' in Hypercut's folder; in a container, the image target 'tracker'"
PROCESS = Path(__file__).with_name("tracker_process.py")
MOST = 8  # faces or hands in a frame
MAX_FRAMES = 10_000
MAX_BYTES = 4 * 2**30  # of frames, which lie on the disk while they are looked at
LONGEST_SIDE = 1920  # pixels; larger frames are shrunk: the models look at 128 to 256 pixels of a face anyway
STARTING, A_FRAME = 120.0, 5.0  # seconds before the tracker is given up: to start, and for each frame
A_POINT = 64  # bytes of JSON at most, generously


def tracker_python() -> Path:
    """Where the tracker's Python is or would be: beside this environment, else in the current folder."""
    beside = Path(sys.prefix).parent / ENVIRONMENT / "bin/python"
    here = Path(ENVIRONMENT) / "bin/python"
    return here.absolute() if here.exists() and not beside.exists() else beside


class Tracker:
    """Faces and hands in frames, by a process of its own.

    Args:
        python: the Python of the tracker's environment; None: `.venv-tracker/bin/python` beside this
            environment, or in the current folder.
        timeout: seconds that one call may take; None: two minutes and five seconds a frame.
        confidence: detections that the detector is less sure of are left out, in [0, 1].
    """

    def __init__(self, python: str | os.PathLike[str] | None = None, timeout: float | None = None,
                 confidence: float = 0.5):
        if not 0 <= confidence <= 1:
            raise BadParameters(f"the tracker's confidence is {confidence}, not in 0 .. 1")
        self.python = tracker_python() if python is None else Path(os.path.abspath(python))  # noqa: PTH100
        self.timeout = timeout
        self.confidence = confidence

    def missing(self) -> str | None:
        """What is not there for it to run, as one sentence without a full stop; None: it can be started."""
        if not self.python.exists():
            return "the tracker's environment is not installed"
        if not os.access(self.python, os.X_OK):
            return "the tracker's Python cannot be started"
        return None

    def detect(self, frames: Sequence[np.ndarray], kind: str, most: int = 1) -> list[list[Detection]]:
        """Find faces or hands in every frame, each frame on its own.

        Args:
            frames: uint8 sRGB ``[H, W, 3]`` each; sizes may differ.
            kind: "face" or "hand".
            most: how many to look for in a frame, 1 .. 8.

        Returns:
            a list for each frame, the surest detection first; empty where nothing was found.

        Raises:
            TrackerMissing: its environment is not installed.
            TrackerError: it died, took too long, or answered nonsense.
            BadImage, BadParameters: a frame, `kind` or `most` is none of the above.
        """
        _check(frames, known_kind(kind), most)
        missing = self.missing()
        if missing is not None:
            raise TrackerMissing(missing, where=self.python, remedy=REMEDY)
        if not frames:
            return []
        with tempfile.TemporaryDirectory(prefix="hypercut-tracker-") as made:
            folder = Path(made)
            shrinks = _write_request(folder, frames, kind, most, self.confidence)
            self._run(folder, len(frames))
            limit = 4096 + len(frames) * (most + 1) * A_POINT * max(POINTS[kind])
            answer = self._read(folder / "landmarks.json", limit)
            try:
                return _detections(answer, frames, shrinks, kind, most)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise self._nonsense(str(error) or type(error).__name__) from error

    def _run(self, folder: Path, frames: int) -> None:
        patience = STARTING + A_FRAME * frames if self.timeout is None else self.timeout
        complaints = folder / "complaints"
        with complaints.open("wb") as stream:
            try:
                process = subprocess.Popen([str(self.python), "-I", str(PROCESS), str(folder)], cwd=folder,
                                           stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                                           env=_surroundings(folder), start_new_session=True)
            except OSError as error:
                raise TrackerMissing(f"the tracker's Python cannot be started ({error.strerror or error})",
                                     where=self.python, remedy=REMEDY) from error
            try:
                code = process.wait(patience)
            except subprocess.TimeoutExpired as error:
                raise TrackerError(f"the tracker did not answer within {patience:.0f} seconds", where=self.python,
                                   remedy="give it fewer frames at once, or more time") from error
            finally:
                if process.returncode is None:
                    _end(process)
        if code:
            last = _last_line(complaints)
            raise TrackerError(f"the tracker ended with exit code {code}" + (f" ({last})" if last else ""),
                               where=self.python, remedy=f"'hypercut trajectories --doctor', or '{INSTALL}' again")

    def _read(self, file: Path, limit: int) -> Any:
        try:
            status = file.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                raise self._nonsense(f"{file.name} is no file of at most {limit} bytes")
            return json.loads(file.read_bytes())
        except FileNotFoundError as error:
            raise self._nonsense(f"it wrote no {file.name}") from error
        except (ValueError, RecursionError) as error:
            raise self._nonsense(f"{file.name} is not valid JSON") from error

    def _nonsense(self, why: str) -> TrackerError:
        return TrackerError(f"the tracker's answer cannot be used: {why}", where=self.python,
                            remedy=f"'{INSTALL}' again")


def _check(frames: Sequence[np.ndarray], kind: str, most: int) -> None:
    if not 1 <= most <= MOST:
        raise BadParameters(f"the tracker cannot look for {most} of a {kind}", remedy=f"choose 1 to {MOST}")
    if len(frames) > MAX_FRAMES or sum(frame.nbytes for frame in frames) > MAX_BYTES:
        raise BadParameters(f"{len(frames)} frames of this size are too many for the tracker at once",
                            remedy=f"give it at most {MAX_FRAMES} frames and {MAX_BYTES // 2**30} GiB in one call")
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise BadImage(f"a frame must be uint8 [H, W, 3], this one is {frame.dtype} {list(frame.shape)}")


def _write_request(folder: Path, frames: Sequence[np.ndarray], kind: str, most: int,
                   confidence: float) -> list[np.ndarray]:
    """request.json and the frames; returns by how much each frame was shrunk along x and y (1: not)."""
    from PIL import Image

    shrinks, names = [], []
    for index, frame in enumerate(frames):
        height, width = frame.shape[:2]
        shrink = max(height, width) / LONGEST_SIDE
        if shrink > 1:
            size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
            frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))
        names.append(f"{index:05d}.npy")
        np.save(folder / names[-1], frame, allow_pickle=False)
        shrinks.append(np.array([width / frame.shape[1], height / frame.shape[0]], np.float32))
    request = {"kind": kind, "most": most, "confidence": confidence, "frames": names}
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    return shrinks


def _surroundings(folder: Path) -> dict[str, str]:
    """The tracker's whole environment: it may write into its folder only and draws nothing."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), "MPLBACKEND": "Agg",
            "MPLCONFIGDIR": str(folder), "GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2",
            "PYTHONDONTWRITEBYTECODE": "1"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Also what the process may have started: its whole session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(file: Path, most: int = 300) -> str:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 4096))
        lines = stream.read().decode("utf-8", errors="replace").strip().splitlines()
    return "".join(letter for letter in (lines[-1] if lines else "") if letter.isprintable())[:most]


def _detections(answer: Any, frames: Sequence[np.ndarray], shrinks: Sequence[np.ndarray], kind: str,
                most: int) -> list[list[Detection]]:
    """The checked answer; ValueError and the like for anything that is not what the contract says."""
    found = answer["frames"]
    if not isinstance(found, list) or len(found) != len(frames):
        raise ValueError(f"it does not speak of {len(frames)} frames")
    result = []
    for detections, frame, shrink in zip(found, frames, shrinks, strict=True):
        if not isinstance(detections, list) or len(detections) > most:
            raise ValueError(f"a frame has no list of at most {most} detections")
        one = [_detection(detection, frame.shape, shrink, kind) for detection in detections]
        result.append(sorted(one, key=lambda detection: -detection.confidence))
    return result


def _detection(values: Mapping[str, Any], shape: tuple[int, ...], shrink: np.ndarray, kind: str) -> Detection:
    points = np.array(values["points"], np.float32)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) not in POINTS[kind]:
        raise ValueError(f"a {kind} has points of shape {list(points.shape)}")
    points = points * shrink
    far = 2 * max(shape[:2])
    if not np.isfinite(points).all() or np.abs(points).max() > far:
        raise ValueError("a point lies far outside its frame")
    confidence = float(values["confidence"])
    if not (math.isfinite(confidence) and 0 <= confidence <= 1):
        raise ValueError(f"a confidence is {confidence}")
    if values["handedness"] not in SIDES:
        raise ValueError("a handedness is neither left nor right")
    return Detection(points, confidence, kind, values["handedness"])
