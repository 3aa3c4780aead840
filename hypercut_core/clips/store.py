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
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np

from hypercut_core.clips.array_layout import ArrayLayout, Packing
from hypercut_core.clips.byte_source import ByteSource, LocalBytes
from hypercut_core.clips.clip_table import TABLE, ClipRecord, ClipTable, problem_of, read_table, write_table
from hypercut_core.clips.shards import REMEDY, ShardReader, ShardWriter, packed, read_json
from hypercut_core.errors import BadClipStore, BadParameters
from hypercut_core.files import atomic_directory

__all__ = ["ClipRecord", "ClipStore", "ClipStoreWriter", "Packing", "StoreFolder", "describe"]
FORMAT = 1


def describe(frames: np.ndarray, count: int, where: Path, *, clip_id: str, source: str, split: str, category: str,
             motion: float, blur: str = "synthetic", response: str = "srgb", noise: float = 0.0) -> ClipRecord:
    """The row of a clip; its index is not known yet.

    Args:
        frames: uint8 sRGB [T + 1, H, W, 3], the blurry image first. Other arguments: see ClipRecord.
        count: T.
        where: for messages.

    Raises:
        BadClipStore: wrong shape or type, or an unknown split, blur or response.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[0] != count + 1 \
            or frames.shape[3] != 3 or not 1 <= min(frames.shape[1:3]) <= max(frames.shape[1:3]) < 2**16:
        raise _refused(where, clip_id, f"frames are {frames.dtype} {list(frames.shape)}, "
                                       f"uint8 [{count + 1}, H, W, 3] expected")
    height, width = frames.shape[1:3]
    digest = hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()
    record = ClipRecord(clip_id, f"{height}x{width}", 0, source, split, category, height, width, count,
                        float(motion), digest, blur, response, float(noise))
    problem = problem_of(record)
    if problem:
        raise _refused(where, clip_id, problem)
    return record


def _refused(where: Path, clip_id: str, what: str) -> BadClipStore:
    return BadClipStore(f"clip '{clip_id}' cannot be stored: {what}", where=where)


class StoreFolder:
    """The files of a store that is being written, in `folder`; `path` is where it will be, for messages."""

    def __init__(self, folder: Path, path: Path, frames: int, packing: Packing | None = None):
        if frames % 2 == 0 or not 3 <= frames <= 15:
            raise BadParameters(f"frames is {frames}; it must be odd and from 3 to 15",
                                remedy="set frames to 7")
        self.folder, self.path, self.frames, self.packing = folder, path, frames, packing or Packing()
        self.records: list[ClipRecord] = []
        self.arrays: dict[str, ShardWriter] = {}
        self._ids: set[str] = set()

    def layout(self, record: ClipRecord) -> ArrayLayout:
        """How a clip's array is cut."""
        return ArrayLayout.plan(self.frames + 1, record.height, record.width, self.packing)

    def append(self, record: ClipRecord, chunks: list[bytes]) -> None:
        """Append a clip that was described and packed already; it gets its index here.

        Raises:
            BadClipStore: the clip_id is in the store.
        """
        writer = self.arrays.get(record.array)
        self.note(record, writer.clips if writer else 0)
        if writer is None:
            writer = self.arrays[record.array] = ShardWriter(self.folder / record.array, self.layout(record))
        writer.append(chunks)

    def note(self, record: ClipRecord, index: int) -> None:
        """Only the row of a clip, whose chunks are in the array."""
        if record.clip_id in self._ids:
            raise _refused(self.path, record.clip_id, "the clip_id is in the store already")
        self.records.append(dataclasses.replace(record, index=index))
        self._ids.add(record.clip_id)

    def attach(self, name: str, data: bytes) -> None:
        """Put a small file beside the table, such as what a data set says of itself. It is no part of the
        store's hash."""
        (self.folder / name).write_bytes(data)

    def finish(self) -> None:
        """Write what makes a store of the folder.

        Raises:
            BadClipStore: there is no clip in it.
        """
        if not self.records:
            raise BadClipStore("no clip was written", where=self.path,
                               remedy="give footage with more, longer or steadier shots, or widen the limits "
                                      "on motion")
        for writer in self.arrays.values():
            writer.finish()
        group = {"zarr_format": 3, "node_type": "group",
                 "attributes": {"hypercut": {"format": FORMAT, "frames": self.frames}}}
        (self.folder / "zarr.json").write_text(json.dumps(group, indent=2, sort_keys=True) + "\n",
                                               encoding="utf-8")
        write_table(self.folder / TABLE, self.records)


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
        self.path = Path(path)
        self._store = StoreFolder(self.path, self.path, frames, packing)
        self._folder: contextlib.AbstractContextManager[Path] | None = None

    def __enter__(self) -> ClipStoreWriter:
        self._folder = atomic_directory(self.path)
        self._store.folder = self._folder.__enter__()
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
        record = describe(frames, self._store.frames, self.path, clip_id=clip_id, source=source, split=split,
                          category=category, motion=motion, blur=blur, response=response, noise=noise)
        self._store.append(record, packed(frames, self._store.layout(record)))

    def attach(self, name: str, data: bytes) -> None:
        """As `StoreFolder.attach`."""
        if self._folder is None:
            raise RuntimeError("use ClipStoreWriter as a context manager")
        self._store.attach(name, data)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        assert self._folder is not None
        if error is not None:
            self._folder.__exit__(kind, error, trace)
            return
        with contextlib.ExitStack() as stack:
            stack.push(self._folder)
            self._store.finish()


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
        self.path: str = path.name  # the folder or URI, for messages
        self.frames: int = self._read_group()
        self.records: ClipTable = read_table(self.source)
        self._arrays = {name: ShardReader(self.source, name) for name in self.records.different("array")}
        self._check()

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def sha256(self) -> str:
        """Hash of the content: of all rows of the table, each of which holds its frames' own hash."""
        return self.records.sha256()

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

    @property
    def far(self) -> bool:
        """Whether the bytes come from so far away that it pays to ask for them early (`prefetch`)."""
        return hasattr(self.source, "prefetch")

    def prefetch(self, crops: Sequence[tuple[int, int, int, int, int]]) -> None:
        """Start to fetch crops (clip, top, left, height, width) that will be read soon, if the store is far."""
        if self.far:
            self.source.prefetch([  # type: ignore[attr-defined]
                wanted for i, *crop in crops
                for wanted in self._arrays[self.records[i].array].ranges(self.records[i].index, *crop)])

    def verify(self, i: int) -> None:
        """Read clip `i` and compare it with its recorded hash.

        Raises:
            BadClipStore: the frames are not those that were written.
        """
        record = self.records[i]
        if hashlib.sha256(self.read(i).data).hexdigest() != record.sha256:
            raise BadClipStore(f"clip '{record.clip_id}' does not have its recorded sha256",
                               where=f"{self.path}/{record.array}", remedy=REMEDY)

    def attachment(self, name: str, limit: int) -> bytes | None:
        """A file beside the table, or None if there is none.

        Raises:
            BadClipStore: it is larger than `limit` bytes, or damaged.
        """
        try:
            size = self.source.size(name)
            if size > limit:
                raise self._bad(name, f"the file is larger than {limit} bytes")
            return bytes(self.source.read(name, 0, size))
        except FileNotFoundError:
            return None
        except (OSError, EOFError) as error:
            raise self._bad(name, "the file is damaged") from error

    def indices(self, split: str, category: str | None = None) -> np.ndarray:
        """Clips of a split (and category), int64 [n], in the store's order."""
        wanted = self.records.where("split", split)
        if category is not None:
            wanted &= self.records.where("category", category)
        return np.flatnonzero(wanted).astype(np.int64)

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
        table = self.records
        if not len(table):
            raise self._bad(TABLE, "the store holds no clips")
        good = table.numbers("frames") == self.frames
        index, height, width = (table.numbers(name) for name in ("index", "height", "width"))
        twice = table.repeated("clip_id")
        listed = {}
        for name, reader in self._arrays.items():
            rows, layout = np.flatnonzero(table.where("array", name)), reader.layout
            good[rows] &= ((index[rows] < layout.clips) & (height[rows] == layout.height)
                           & (width[rows] == layout.width) & (layout.frames == self.frames + 1))
            first = np.unique(index[rows], return_index=True)[1]
            twice[np.delete(rows, first)] = True
            listed[name] = len(rows)
        wrong = np.flatnonzero(~good | twice)
        if len(wrong):
            record = table[int(wrong[0])]
            raise self._bad(TABLE, f"clip '{record.clip_id}' {self._mismatch(record) or 'is listed twice'}")
        for name, reader in self._arrays.items():
            if listed[name] != reader.layout.clips:
                raise self._bad(TABLE, f"array {name} holds {reader.layout.clips} clips, the table lists "
                                       f"{listed[name]}")

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
