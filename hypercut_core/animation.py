"""Recovered frames as something to look at: GIF, animated WebP, MP4, or a folder of PNG files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from hypercut_core.errors import BadParameters, StorageError
from hypercut_core.files import atomic_directory, atomic_file

MAX_FRAMES = 1000
LARGEST_SIDE = {".gif": 65535, ".webp": 16383, ".mp4": 16384}
SHORTEST = {".gif": 50.0, ".webp": 1000.0, ".mp4": 240.0, "": 1000.0}  # frames a second; GIF counts in 10 ms
VIDEO_ENCODERS = ("libx264", "mpeg4")


class Sound(Protocol):
    """What is heard beside the pictures of an MP4 (`hypercut_core.clips.sound`)."""

    def beside(self, container: Any) -> AbstractContextManager[Any]:
        """Add its track to a container of PyAV in which nothing has been written yet."""

    def until(self, seconds: float, container: Any) -> None:
        """Write what begins before this time."""


def resample_frames(frames: np.ndarray, count: int) -> np.ndarray:
    """Show the same exposure with `count` frames, interpolated linearly between the nearest two in time.

    The first and last frame stay the first and last; ``count=1`` gives the middle.

    Args:
        frames: uint8 ``[T, H, W, 3]``.
        count: 1 .. 1000.

    Returns:
        uint8 ``[count, H, W, 3]``.

    Raises:
        BadParameters: `count` is out of range.
    """
    return np.stack(list(playback(frames, count)))


def playback(frames: np.ndarray, count: int | None = None, reverse: bool = False,
             bounce: bool = False) -> Iterator[np.ndarray]:
    """The frames to show, one after the other (nothing but the current one is held).

    `bounce` goes there and back without showing either end twice: 2 * count - 2 frames.
    """
    steps = playback_times(len(frames), count, reverse, bounce)
    return (_between(frames, time) for time in steps)


def playback_times(available: int, count: int | None = None, reverse: bool = False,
                   bounce: bool = False) -> list[Fraction]:
    """The moments to show, in units of the frames' distance: 0 .. available - 1."""
    count = available if count is None else count
    if not 1 <= count <= MAX_FRAMES:
        raise BadParameters(f"{count} frames cannot be shown", where="--frames",
                            remedy=f"use 1 to {MAX_FRAMES}")
    times = [Fraction(i * (available - 1), count - 1) for i in range(count)] if count > 1 else \
        [Fraction(available - 1, 2)]
    if reverse:
        times.reverse()
    return times + times[-2:0:-1] if bounce else times


def _between(frames: np.ndarray, time: Fraction) -> np.ndarray:
    before = int(time)
    share = float(time - before)
    if share == 0:
        return frames[before]
    mixed = frames[before] * np.float32(1 - share) + frames[before + 1] * np.float32(share)
    return (mixed + np.float32(0.5)).astype(np.uint8)


def check_output(out: str | os.PathLike[str], fps: float | None = None, frames: int | None = None,
                 size: tuple[int, int] | None = None) -> str:
    """Refuse an output that could not be written before any work is done.

    Returns:
        its suffix, '' for a folder.

    Raises:
        BadParameters: unknown suffix, fps or frame count out of range, image (width, height) too large for
            the format, or a folder that holds other files.
    """
    path, suffix = Path(out), Path(out).suffix.lower()
    if path.is_dir():
        _check_folder(path)
        suffix = ""
    elif suffix not in SHORTEST:
        raise BadParameters(f"cannot write an animation of kind '{suffix}'", where=path,
                            remedy="name a .gif, .webp or .mp4 file, or a folder (no suffix) for PNG files")
    elif not suffix and path.exists():
        raise BadParameters("a file of this name is in the way of the folder", where=path,
                            remedy="choose another folder")
    if fps is not None and not 0.1 <= fps <= SHORTEST[suffix]:
        raise BadParameters(f"{fps:g} frames a second cannot be played", where="--fps",
                            remedy=f"use 0.1 to {SHORTEST[suffix]:g}")
    if frames is not None:
        playback_times(2, frames)
    if size is not None and max(size) > LARGEST_SIDE.get(suffix, max(size)):
        raise BadParameters(f"{suffix} holds at most {LARGEST_SIDE[suffix]} pixels a side, the photo has "
                            f"{size[0]} x {size[1]}", where=path, remedy="write a folder of PNG files")
    return suffix


def _check_folder(path: Path) -> None:
    strangers = [item.name for item in path.iterdir() if not _is_ours(item)]
    if strangers:
        raise BadParameters(f"the folder holds other files ({sorted(strangers)[0]}), which would be lost",
                            where=path, remedy="choose a new or empty folder")


def _is_ours(item: Path) -> bool:
    return item.suffix == ".png" and item.stem.startswith("frame_") and item.stem[6:].isdigit()


def write_animation(frames: np.ndarray, out: str | os.PathLike[str], *, bounce: bool = False,
                    reverse: bool = False, fps: float = 10.0, frames_shown: int | None = None) -> Path:
    """Write uint8 sRGB ``[T, H, W, 3]`` by the suffix of `out`; GIF and WebP loop for ever.

    MP4 needs even sides: an odd one is continued by one pixel. The output is whole or absent.

    Returns:
        the path written.

    Raises:
        BadParameters: see `check_output`; StorageError: the disk is full or not writable.
    """
    path = Path(out)
    suffix = check_output(path, fps=fps, frames=frames_shown, size=(frames.shape[2], frames.shape[1]))
    return write_shown(playback(frames, frames_shown, reverse, bounce), path, suffix, fps)


def write_shown(shown: Iterator[np.ndarray], path: Path, suffix: str, fps: float, sound: Sound | None = None) -> Path:
    """Write uint8 sRGB ``[H, W, 3]`` frames as they come; `suffix` and `fps` have passed `check_output`.

    MP4 and PNG files need the memory of one frame, GIF and WebP that of all. `sound` goes into MP4 alone.

    Returns:
        `path`, whole.
    """
    if not suffix:
        with atomic_directory(path) as folder:
            for index, frame in enumerate(shown, start=1):
                Image.fromarray(frame).save(folder / f"frame_{index:04d}.png", compress_level=4)
        return path
    with atomic_file(path) as partial:
        if suffix == ".mp4":
            _write_mp4(shown, partial, fps, sound)
        else:
            _write_image(shown, partial, suffix, fps)
    return path


def _write_image(shown: Iterator[np.ndarray], path: Path, suffix: str, fps: float) -> None:
    images = (Image.fromarray(frame) for frame in shown)
    options: dict[str, object] = {"save_all": True, "loop": 0, "duration": round(1000 / fps)}
    if suffix == ".webp":
        options |= {"quality": 90, "method": 4}
    else:
        images = (image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
                  for image in images)
    first = next(images)
    first.save(path, format=suffix[1:].upper(), append_images=images, **options)


def _write_mp4(shown: Iterator[np.ndarray], path: Path, fps: float, sound: Sound | None) -> None:
    import av

    encoder = _video_encoder()
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream: Any = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1000))
        stream.options = {"crf": "16"} if encoder == "libx264" else {"q": "2"}
        with sound.beside(container) if sound else nullcontext():
            for index, frame in enumerate(shown):
                frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
                if index == 0:
                    _describe(stream, frame)
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace="ITU709",
                                                             dst_color_range="MPEG")))
                if sound:
                    sound.until((index + 1) / fps, container)
            container.mux(stream.encode(None))


def _describe(stream: Any, frame: np.ndarray) -> None:
    """Size and colours of a stream of pictures, from the first one."""
    stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = 1  # BT.709
    context.color_trc, context.color_range = 13, 1  # sRGB curve, limited range


def _video_encoder() -> str:
    """The best encoder that this build of FFmpeg carries."""
    import av

    for name in VIDEO_ENCODERS:
        if name in av.codecs_available:
            return name
    raise StorageError("this build of FFmpeg has no MP4 encoder", where=".mp4",
                       remedy="write .webp or .gif instead, or install PyAV from the package registry")
