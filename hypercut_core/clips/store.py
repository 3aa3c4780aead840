"""The clip store: a Zarr v3 group of clips, one array for each clip size, and clips.parquet beside it.

    data/clips/zarr.json             the group; its attributes say T
    data/clips/720x1280/zarr.json    uint8 [clip, T + 1, 720, 1280, 3], sRGB; frame 0 is the blurry image
    data/clips/720x1280/c/0/0/0/0/0  a shard of some clips
    data/clips/clips.parquet         one row for each clip: see ClipRecord

`zarr.open_group("data/clips")` reads it as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np

from hypercut_core.clips.array_layout import ArrayLayout, Packing
from hypercut_core.clips.byte_source import ByteSource, LocalBytes
from hypercut_core.clips.clip_table import TABLE, ClipRecord, problem_of, read_table, write_table
from hypercut_core.clips.shards import REMEDY, ShardReader, ShardWriter, read_json
from hypercut_core.errors import BadClipStore, BadParameters
from hypercut_core.files import atomic_directory

__all__ = ["ClipRecord", "ClipStore", "ClipStoreWriter", "Packing"]
FORMAT = 1


class ClipStoreWriter:
    """Writes a clip store, one clip in memory at a time. Use as a context manager:
    the store appears under `path` when the block ends without an error, and not before.

    Args:
        path: folder of the store; what was there is replaced.
        frames: T, odd, 3 to 15.
        packing: chunks, codec and shard size.

    Same clips in the same order give the same bytes.
    """

    def __init__(self, path: str | os.PathLike[str], frames: int, packing: Packing | None = None):
        if frames % 2 == 0 or not 3 <= frames <= 15:
            raise BadParameters(f"frames is {frames}; it must be odd and from 3 to 15",
                                remedy="set frames to 7")
        self.path, self.frames, self.packing = Path(path), frames, packing or Packing()
        self.records: list[ClipRecord] = []
        self._arrays: dict[str, ShardWriter] = {}
        self._ids: set[str] = set()
        self._folder: contextlib.AbstractContextManager[Path] | None = None

    def __enter__(self) -> ClipStoreWriter:
        self._folder = atomic_directory(self.path)
        self._partial = self._folder.__enter__()
        return self

    def add(self, frames: np.ndarray, *, clip_id: str, source: str, split: str, category: str, motion: float,
            blur: str = "synthetic", response: str = "srgb", noise: float = 0.0) -> None:
        """Append a clip.

        Args:
            frames: uint8 sRGB [T + 1, H, W, 3], the blurry image first. Other arguments: see ClipRecord.

        Raises:
            BadClipStore: wrong shape or type, a clip_id that is there already, an unknown split, blur or
                response.
        """
        if self._folder is None:
            raise RuntimeError("use ClipStoreWriter as a context manager")
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[0] != self.frames + 1 \
                or frames.shape[3] != 3 or not 1 <= min(frames.shape[1:3]) <= max(frames.shape[1:3]) < 2**16:
            raise self._refuse(clip_id, f"frames are {frames.dtype} {list(frames.shape)}, "
                                        f"uint8 [{self.frames + 1}, H, W, 3] expected")
        height, width = frames.shape[1:3]
        array = f"{height}x{width}"
        frames = np.ascontiguousarray(frames)
        writer = self._arrays.get(array)
        record = ClipRecord(clip_id, array, writer.clips if writer else 0, source, split, category, height,
                            width, self.frames, float(motion), hashlib.sha256(frames.data).hexdigest(), blur,
                            response, float(noise))
        problem = problem_of(record)
        if problem is None and clip_id in self._ids:
            problem = "the clip_id is in the store already"
        if problem:
            raise self._refuse(clip_id, problem)
        if writer is None:
            layout = ArrayLayout.plan(self.frames + 1, height, width, self.packing)
            writer = self._arrays[array] = ShardWriter(self._partial / array, layout)
        writer.add(frames)
        self.records.append(record)
        self._ids.add(clip_id)

    def attach(self, name: str, data: bytes) -> None:
        """Put a small file beside the table, such as what a data set says of itself. It is no part of the
        store's hash."""
        if self._folder is None:
            raise RuntimeError("use ClipStoreWriter as a context manager")
        (self._partial / name).write_bytes(data)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        assert self._folder is not None
        if error is not None:
            self._folder.__exit__(kind, error, trace)
            return
        with contextlib.ExitStack() as stack:
            stack.push(self._folder)
            self._finish()

    def _finish(self) -> None:
        if not self.records:
            raise BadClipStore("no clip was written", where=self.path,
                               remedy="give footage with more, longer or steadier shots, or widen the limits "
                                      "on motion")
        for writer in self._arrays.values():
            writer.finish()
        group = {"zarr_format": 3, "node_type": "group",
                 "attributes": {"hypercut": {"format": FORMAT, "frames": self.frames}}}
        (self._partial / "zarr.json").write_text(json.dumps(group, indent=2, sort_keys=True) + "\n",
                                                 encoding="utf-8")
        write_table(self._partial / TABLE, self.records)

    def _refuse(self, clip_id: str, what: str) -> BadClipStore:
        return BadClipStore(f"clip '{clip_id}' cannot be stored: {what}", where=self.path)


class ClipStore:
    """Read access to a clip store. Cheap to open, safe to share between threads, may be pickled.

    Args:
        path: folder of the store, or a ByteSource over one.

    Raises:
        BadClipStore: something is missing, or the table and the arrays do not match.
    """

    def __init__(self, path: str | os.PathLike[str] | ByteSource):
        if isinstance(path, str | os.PathLike):
            if not Path(path).is_dir():
                raise BadClipStore("there is no clip store here", where=path,
                                   remedy="run synthesize-blur first")
            path = LocalBytes(path)
        self.source: ByteSource = path
        self.path = Path(path.name)
        self.frames: int = self._read_group()
        self.records: list[ClipRecord] = read_table(self.source)
        names = dict.fromkeys(record.array for record in self.records)
        self._arrays = {name: ShardReader(self.source, name) for name in names}
        self._check()

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def sha256(self) -> str:
        """Hash of the content: of all rows of the table, each of which holds its frames' own hash."""
        rows = [dataclasses.astuple(record) for record in self.records]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()

    def read(self, i: int) -> np.ndarray:
        """Clip `i` whole, uint8 [T + 1, H, W, 3], the blurry image first."""
        record = self.records[i]
        return self.read_crop(i, 0, 0, record.height, record.width)

    def read_crop(self, i: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A crop of clip `i`, uint8 [T + 1, height, width, 3]; reads only the chunks that it touches.

        Raises:
            IndexError: no such clip, or the crop reaches outside it.
            BadClipStore: a shard is missing, truncated or damaged.
        """
        record = self.records[i]
        return self._arrays[record.array].read(record.index, top, left, height, width)

    def verify(self, i: int) -> None:
        """Read clip `i` and compare it with its recorded hash.

        Raises:
            BadClipStore: the frames are not those that were written.
        """
        record = self.records[i]
        if hashlib.sha256(self.read(i).data).hexdigest() != record.sha256:
            raise BadClipStore(f"clip '{record.clip_id}' does not have its recorded sha256",
                               where=self.path / record.array, remedy=REMEDY)

    def attachment(self, name: str, limit: int) -> bytes | None:
        """A file beside the table, or None if there is none.

        Raises:
            BadClipStore: it is larger than `limit` bytes, or damaged.
        """
        try:
            size = self.source.size(name)
            if size > limit:
                raise self._bad(name, f"the file is larger than {limit} bytes")
            return self.source.read(name, 0, size)
        except FileNotFoundError:
            return None
        except (OSError, EOFError) as error:
            raise self._bad(name, "the file is damaged") from error

    def indices(self, split: str, category: str | None = None) -> np.ndarray:
        """Clips of a split (and category), int64 [n], in the store's order."""
        return np.array([i for i, record in enumerate(self.records)
                         if record.split == split and category in (None, record.category)], dtype=np.int64)

    def _read_group(self) -> int:
        meta = read_json(self.source, "zarr.json")
        try:
            attributes = meta["attributes"]["hypercut"]
            frames, version = attributes["frames"], attributes["format"]
        except (KeyError, TypeError) as error:
            raise self._bad("zarr.json", "this is not the group of a clip store") from error
        if version != FORMAT:
            raise self._bad("zarr.json", f"the format is {str(version)[:20]}, this version reads {FORMAT}")
        if type(frames) is not int or frames % 2 == 0 or not 3 <= frames <= 15:
            raise self._bad("zarr.json", f"frames is {str(frames)[:20]}, an odd number from 3 to 15 expected")
        return frames

    def _check(self) -> None:
        """Hold every row of the table against its array."""
        if not self.records:
            raise self._bad(TABLE, "the store holds no clips")
        ids: set[str] = set()
        rows: dict[str, set[int]] = {name: set() for name in self._arrays}
        for record in self.records:
            problem = self._mismatch(record)
            if problem is None and (record.clip_id in ids or record.index in rows[record.array]):
                problem = "is listed twice"
            if problem:
                raise self._bad(TABLE, f"clip '{record.clip_id}' {problem}")
            ids.add(record.clip_id)
            rows[record.array].add(record.index)
        for name, reader in self._arrays.items():
            if len(rows[name]) != reader.layout.clips:
                raise self._bad(TABLE, f"array {name} holds {reader.layout.clips} clips, the table lists "
                                       f"{len(rows[name])}")

    def _mismatch(self, record: ClipRecord) -> str | None:
        layout = self._arrays[record.array].layout
        if record.frames != self.frames or layout.frames != self.frames + 1:
            return (f"has {record.frames} sharp frames in the table and {layout.frames - 1} in its array, "
                    f"the store says {self.frames}")
        if (record.height, record.width) != (layout.height, layout.width):
            return (f"is {record.height}x{record.width} in the table and {layout.height}x{layout.width} "
                    "in its array")
        if record.index >= layout.clips:
            return f"is row {record.index} of an array of {layout.clips}"
        return None

    def _bad(self, key: str, what: str) -> BadClipStore:
        return BadClipStore(what, where=f"{self.source.name}/{key}", remedy=REMEDY)
