"""Real footage: videos and folders of frames → windows of T frames that can honestly be averaged to blur.

A window is kept where its frames follow each other without a scene cut, hole or repeated frame, and where
the picture moves enough to blur and not so much that the mean of the frames shows ghosts. Out of each
window, square crops are taken where most moves; everything that is left out is counted by its reason.

>>> counts = WindowCounts()
>>> for window in windows(Path("walk.mp4"), 7, WindowConfig(), counts):  # doctest: +SKIP
...     print(window.start, window.frames.shape, window.motion)
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hypercut_core.clips.crops import Crop, choose_crops
from hypercut_core.clips.frame_folder import probe_frames, read_frames
from hypercut_core.clips.motion import BLOCK, STEP, FrameMotion, GreyFrame, frame_motion, grey_frame
from hypercut_core.clips.video import SUFFIXES, Damage, Frame, Probe, probe_video, read_video
from hypercut_core.errors import BadFootage, BadParameters

REPEATED_LEVELS = 0.5  # where frames usually differ by more than so many grey levels,
REPEATED_SHARE = 0.15  # two that differ by less than this share of it are one frame shown twice


@dataclass(frozen=True)
class WindowConfig:
    """Which windows of real footage become clips. Motion is measured at the working height."""

    height: int = 256  # frames are scaled down to this height, px; 0 keeps their own
    crop: int = 96  # clips are squares of this size, cut where most moves, px, multiple of 8; 0: whole
    crops: int = 4  # most clips out of one window
    stride: int = 3  # frames from the start of one window to that of the next; 0: as many as a window has
    max_motion: float = 5.0  # more motion between two frames shows ghosts, px a frame
    min_motion: float = 0.5  # less motion shows no blur, px a frame, mean over the window
    moving_share: float = 0.2  # least share of a clip's area that moves by min_motion
    fast_share: float = 0.05  # greatest share of a clip's area that may move by more than max_motion


@dataclass(frozen=True)
class Window:
    """T frames in a row. `frames` is (T, H, W, 3) uint8."""

    frames: np.ndarray
    start: int  # place of its first frame in the source
    motion: float  # px over the exposure: 95th percentile, over the picture, of the path's length
    seconds: float | None  # time of its first frame, in a video
    crop: Crop


@dataclass
class WindowCounts:
    """How many windows there were, and what became of them."""

    frames: int = 0  # frames decoded
    kept: int = 0  # windows with at least one clip
    clips: int = 0
    cuts: list[int] = field(default_factory=list)  # frames that begin a new shot
    skipped: Counter[str] = field(default_factory=Counter)  # reason → windows
    damage: list[Damage] = field(default_factory=list)  # what could not be decoded, and where


def is_video(path: Path) -> bool:
    """Whether the file's name is that of a video."""
    return path.suffix.lower() in SUFFIXES


def is_moving(path: Path) -> bool:
    """Whether the frames in a row are meant, and no photo: a folder, or a file with a video's name."""
    return path.is_dir() or is_video(path)


def probe(path: Path) -> Probe:
    """Size, frame count and rate of a video file or a folder of frames, without decoding it.

    Raises:
        BadFootage: it cannot be used; the message names the file and the remedy.
    """
    return probe_frames(path) if path.is_dir() else probe_video(path)


def windows(path: Path, frames: int, config: WindowConfig,
            counts: WindowCounts | None = None) -> Iterator[Window]:
    """Yield the usable windows of a video file or a folder of frames, in order; memory holds one window.

    Args:
        frames: T.
        counts: is filled in on the way.

    Raises:
        BadFootage: the file cannot be opened, or none of its frames can be decoded.
        BadParameters: settings that make no sense.
    """
    _check(config, frames)
    counts = WindowCounts() if counts is None else counts
    read = read_frames if path.is_dir() else read_video
    buffer: deque[tuple[Frame, FrameMotion | None]] = deque()  # each with its motion from the frame before
    last: GreyFrame | None = None
    pause = 0  # frames between two windows, where the stride is longer than a window
    for frame in read(path, config.height, counts.damage):
        counts.frames += 1
        if pause:
            pause, last = pause - 1, None
            continue
        if min(frame.pixels.shape[:2]) < max(config.crop, 2 * BLOCK):
            raise _too_small(path, frame, config)
        grey = grey_frame(frame.pixels)
        motion = None
        if last is not None and not frame.broken and last.half.shape == grey.half.shape:
            motion = frame_motion(last, grey, config.max_motion * 1.5)
        reason = frame.broken or _why_not_continued(last, motion)
        if reason == "scene_cut":
            counts.cuts.append(frame.index)
        if reason and buffer:
            counts.skipped[reason] += 1
            buffer.clear()
        buffer.append((frame, motion))
        last = grey
        if len(buffer) == frames:
            yield from _judge(list(buffer), config, counts)
            stride = config.stride or frames
            for _ in range(min(stride, frames)):
                buffer.popleft()
            pause = max(0, stride - frames)
    if buffer and len(buffer) < frames and not counts.kept and not counts.skipped:
        counts.skipped["too_short"] += 1
    if not counts.frames:
        raise BadFootage("no frame of it can be decoded", where=path,
                         remedy="copy the footage again from where it came from, or remove it")


def _check(config: WindowConfig, frames: int) -> None:
    if frames % 2 == 0 or not 3 <= frames <= 15:
        raise BadParameters(f"the number of sharp frames is {frames}", where="frames",
                            remedy="choose an odd number from 3 to 15")
    if not 0 <= config.min_motion < config.max_motion:
        raise BadParameters(f"min_motion {config.min_motion} and max_motion {config.max_motion} do not fit",
                            where="blur.windows", remedy="set 0 <= min_motion < max_motion")
    if config.crop and (config.crop < 2 * BLOCK or config.crop % STEP):
        raise BadParameters(f"crop is {config.crop}", where="blur.windows.crop",
                            remedy=f"set 0 (whole frames) or a multiple of {STEP} from {2 * BLOCK} upwards")
    if min(config.height, config.stride, config.crops - 1) < 0:
        raise BadParameters("height or stride is below 0, or crops below 1", where="blur.windows",
                            remedy="set numbers from 0 upwards")


def _too_small(path: Path, frame: Frame, config: WindowConfig) -> BadFootage:
    height, width = frame.pixels.shape[:2]
    return BadFootage(f"its frames are {width} x {height} at the working height, smaller than a clip of "
                      f"{config.crop or 2 * BLOCK} px", where=path,
                      remedy="lower blur.windows.crop, raise blur.windows.height, or remove the footage")


def _why_not_continued(last: GreyFrame | None, motion: FrameMotion | None) -> str:
    if last is None:
        return ""
    if motion is None:
        return "size_change"
    return "scene_cut" if motion.cut else ""


def _judge(buffer: list[tuple[Frame, FrameMotion | None]], config: WindowConfig,
           counts: WindowCounts) -> Iterator[Window]:
    """Clips of one full buffer; counts what is skipped."""
    motions = [motion for _, motion in buffer[1:] if motion is not None]
    if _repeats(motions):
        counts.skipped["repeated_frame"] += 1
        return
    lengths = np.stack([motion.length for motion in motions])
    first = buffer[0][0]
    chosen, reason = choose_crops(
        lengths, first.pixels.shape[:2], config.crop, config.crops, max_motion=config.max_motion,
        min_motion=config.min_motion, moving_share=config.moving_share, fast_share=config.fast_share)
    if reason:
        counts.skipped[reason] += 1
        return
    counts.kept += 1
    for crop, path_length in chosen:
        counts.clips += 1
        pixels = np.stack([frame.pixels[crop.rows, crop.columns] for frame, _ in buffer])
        yield Window(pixels, first.index, path_length, first.seconds, crop)


def _repeats(motions: list[FrameMotion]) -> bool:
    """Whether a frame is shown twice amid motion (in a still shot all frames are alike)."""
    changes = np.array([motion.change for motion in motions])
    usual = float(np.median(changes))
    return usual > REPEATED_LEVELS and bool(changes.min() < REPEATED_SHARE * usual)
