"""Video files, frame by frame with bounded memory (PyAV)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hypercut_core.errors import BadFootage

SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv",
            ".3gp", ".ogv")
MAX_PIXELS = 8192 * 4608  # a frame larger than this is refused before it is decoded
MAX_ERRORS = 200  # unreadable packets after which a video is given up
_COPY_AGAIN = "copy the file again from where it came from, or remove it"
_SKIP = "or leave unreadable sources out with --set footage.on_bad=skip"


@dataclass(frozen=True)
class Frame:
    """One frame at the working size. `broken` says why it does not continue the frame before, or is ""."""

    pixels: np.ndarray  # (H, W, 3) uint8
    index: int  # place in the source, from 0
    seconds: float | None  # time in a video; None in a folder of frames
    broken: str = ""  # "", "corrupt_frames" or "missing_frames"


@dataclass(frozen=True)
class Damage:
    """A part that could not be decoded: which file, and where in it."""

    file: str
    place: str  # "at 3.280 s" or a frame's file name
    what: str


@dataclass(frozen=True)
class Probe:
    """What is known of a source without decoding it."""

    width: int  # px
    height: int  # px
    frames: int
    fps: float | None
    problems: tuple[str, ...] = ()


def probe_video(path: Path) -> Probe:
    """Read all packets of a video without decoding them.

    Raises:
        BadFootage: empty, no video, cut off, or with frames too large to be decoded safely.
    """
    with open_video(path) as (container, stream):
        count, end = 0, 0.0
        try:
            for packet in container.demux(stream):
                if packet.size:
                    count += 1
                    if packet.pts is not None and packet.time_base:
                        begin = float((packet.pts - (stream.start_time or 0)) * packet.time_base)
                        end = max(end, begin)
        except Exception as error:
            raise BadFootage(f"the video cannot be read to its end ({_reason(error)})", where=path,
                             remedy=f"{_COPY_AGAIN}, {_SKIP}") from error
        if count == 0:
            raise BadFootage("the video holds no frame", where=path, remedy=f"{_COPY_AGAIN}, {_SKIP}")
        _check_whole(path, container, stream, count, end)
        width, height = stream.codec_context.width, stream.codec_context.height
        rate = stream.average_rate or stream.guessed_rate
        return Probe(width, height, count, float(rate) if rate else None)


def _check_whole(path: Path, container: Any, stream: Any, count: int, end: float) -> None:
    """Compare what was found with what the file's header promises."""
    if stream.frames and count < stream.frames:
        raise BadFootage(f"the video is cut off: {count} of its {stream.frames} frames are there", where=path,
                         remedy=f"{_COPY_AGAIN}, {_SKIP}")
    seconds = stream.duration and float(stream.duration * stream.time_base)
    promised = seconds or (container.duration or 0) / 1e6
    # sound may go on after the picture; a second and a tenth of the length are allowed for that
    only_picture = all(other is stream for other in container.streams)
    if only_picture and not stream.frames and end < 0.9 * promised - 1.0:
        raise BadFootage(f"the video is cut off: {end:.1f} of its {promised:.1f} seconds are there",
                         where=path, remedy=f"{_COPY_AGAIN}, {_SKIP}")


def read_video(path: Path, height: int, damage: list[Damage]) -> Iterator[Frame]:
    """Yield the frames of a video, scaled down to `height` px (0: as they are; never scaled up).

    After a frame that cannot be decoded, frames are left out up to the next key frame, because they are
    built upon it; the first frame after the hole has `broken` set. The same where time stamps show that
    frames are missing.

    Args:
        damage: what could not be decoded is appended here, with its time.

    Raises:
        BadFootage: the file cannot be opened as a video.
    """
    with open_video(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        typical = 1 / float(rate) if rate else None
        index, last, hole, found = -1, None, "", len(damage)
        for frame, at in _decoded(container, stream, path, damage):
            index += 1
            if frame is None:
                hole = "corrupt_frames"
                continue
            if hole == "corrupt_frames" and not frame.key_frame:
                continue
            seconds = frame.time if frame.time is not None else at
            if last is not None and typical and seconds is not None and seconds - last > 1.5 * typical:
                hole = hole or "missing_frames"
            yield Frame(_scaled(frame, height), index, seconds, hole)
            last, hole = seconds, ""
            if len(damage) - found > MAX_ERRORS:
                return


def _decoded(container: Any, stream: Any, path: Path,
             damage: list[Damage]) -> Iterator[tuple[Any | None, float | None]]:
    """Frames and times; None for each that cannot be decoded or that the decoder marks as corrupt."""
    packets = container.demux(stream)
    errors = 0
    while errors <= MAX_ERRORS:
        at = None
        try:
            packet = next(packets)
            at = float(packet.pts * packet.time_base) if packet.pts is not None else None
            frames = packet.decode()
        except StopIteration:
            return
        except Exception as error:
            errors += 1
            damage.append(_damage(path, at, _reason(error)))
            yield None, at
            if at is None:  # the container itself is damaged: no further packet will come
                return
            continue
        for frame in frames:
            if frame.is_corrupt:
                errors += 1
                damage.append(_damage(path, frame.time, "the decoder marks the frame as corrupt"))
                yield None, frame.time
            else:
                yield frame, at


def _damage(path: Path, at: float | None, what: str) -> Damage:
    return Damage(str(path), "at an unknown time" if at is None else f"at {at:.3f} s", what)


def _scaled(frame: Any, height: int) -> np.ndarray:
    turns = (round(frame.rotation / 90) if frame.rotation else 0) % 4
    wide, high = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
    scale = min(1.0, height / high) if height else 1.0
    size = (max(1, round(wide * scale)), max(1, round(high * scale)))
    if turns % 2:
        size = size[::-1]
    how = "AREA" if scale < 1 else "BICUBIC"
    pixels = frame.reformat(*size, format="rgb24", interpolation=how).to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """The opened file and its first stream of pictures.

    Raises:
        BadFootage: it cannot be opened as a video, or its frames are too large to be decoded safely.
    """
    import av

    if not path.is_file():
        raise BadFootage("there is no such video", where=path, remedy="check the path")
    if path.stat().st_size == 0:
        raise BadFootage("the file is empty", where=path, remedy=f"{_COPY_AGAIN}, {_SKIP}")
    try:
        # a name like "concat:" or "http://" must not make the library open something else
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise BadFootage(f"the file cannot be opened as a video ({_reason(error)})", where=path,
                         remedy=f"{_COPY_AGAIN}, {_SKIP}") from error
    with container:
        if not container.streams.video:
            raise BadFootage("the file holds no video", where=path, remedy=f"remove it, {_SKIP}")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None or not 0 < context.width * context.height <= MAX_PIXELS:
            size = "unknown" if context is None else f"{context.width} x {context.height}"
            raise BadFootage(f"the frame size is {size}, at most {MAX_PIXELS:,} pixels are decoded safely",
                             where=path, remedy=f"scale the video down with another program, {_SKIP}")
        stream.thread_type = "NONE"  # errors are then reported for the packet that has them
        yield container, stream


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).split("\n")[0][:100]
