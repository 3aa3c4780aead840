"""The sound of a video for another video of the same length: its packets are copied as they are, never decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypercut_core.clips.video import open_video

IN_MP4 = ("aac", "alac", "ac3", "eac3", "flac", "mp3", "opus")  # what MP4 can hold and players know there
LEAD = 0.1  # s before the first picture: what a decoder needs to begin with, and players leave out


def sound_codec(path: Path) -> str | None:
    """The codec of a video's sound, "unknown" without a decoder for it; None: it has no sound.

    Raises:
        BadFootage: the file cannot be opened as a video.
    """
    with open_video(path) as (container, _):
        return _codec(container.streams.audio[0]) if container.streams.audio else None


class SoundCopy:
    """Copies a video's first sound track into an MP4 beside its pictures, a packet in memory at a time.

    Time runs from the first picture of `source`. Packets that cannot be read end the sound; those without a time, or
    not later than the one before, are left out, since MP4 cannot hold them.

    Args:
        source: a video whose `sound_codec` is in `IN_MP4`.
    """

    def __init__(self, source: Path):
        self.source = source
        self.left_out = 0  # packets
        self.broken = ""  # why the sound ends early
        self._stream: Any = None
        self._next: Any = None
        self._last: int | None = None

    @contextlib.contextmanager
    def beside(self, container: Any) -> Iterator[SoundCopy]:
        """Add the track to `container`, an MP4 of PyAV in which nothing has been written yet."""
        with open_video(self.source) as (source, pictures):
            track = source.streams.audio[0]
            self._stream = container.add_stream_from_template(track, opaque=True)  # needs no encoder
            self._packets = source.demux(track)
            self._begin = float((pictures.start_time or 0) * pictures.time_base)
            self._next = self._read()
            yield self

    def until(self, seconds: float, container: Any) -> None:
        """Write what begins before this time."""
        while self._next is not None and self._seconds(self._next) < seconds:
            packet = self._next
            self._next = self._read()
            packet.stream = self._stream
            container.mux_one(packet)

    def _read(self) -> Any:
        """The next packet that can be written, its time counted from the first picture; None at the end."""
        while True:
            try:
                packet = next(self._packets)
            except StopIteration:
                return None
            except Exception as error:  # PyAV's errors have no common base but this
                self.broken = str(error)[:100]
                return None
            if packet.size == 0:  # the demuxer's sign that this was all
                continue
            if packet.pts is None or packet.dts is None or packet.is_corrupt:
                self.left_out += 1
                continue
            shift = round(self._begin / float(packet.time_base))
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if self._seconds(packet) < -LEAD:
                continue
            if self._last is not None and packet.dts <= self._last:
                self.left_out += 1
                continue
            self._last = packet.dts
            return packet

    @staticmethod
    def _seconds(packet: Any) -> float:
        return float(packet.dts * packet.time_base)


def _codec(track: Any) -> str:
    context = track.codec_context
    return "unknown" if context is None else str(context.codec.canonical_name)
