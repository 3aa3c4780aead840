"""Parts of a clip store: made one by one, anywhere and in any order, and joined in theirs to the same bytes that
one `ClipStoreWriter` writes.

    <name>.data   the compressed chunks, clip after clip
    <name>.json   the clips' rows, the bytes of each chunk, and notes of whoever made them
    store/        the store so far

A part is there when its .json is. Once its chunks are in the store, its .data is removed and its .json stays: by
these a join that was killed knows how much of the store's files holds good, cuts off the rest and goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from hypercut_core.clips.array_layout import Packing
from hypercut_core.clips.clip_table import ClipRecord
from hypercut_core.clips.shards import ShardWriter, packed
from hypercut_core.clips.store import StoreFolder, describe
from hypercut_core.errors import BadClipStore, StorageError
from hypercut_core.files import atomic_file, explain_os_errors, move_directory, read_json, write_text

MAX_HEAD = 2**30  # bytes


@dataclass
class Head:
    """What a part holds, without the pixels."""

    records: list[ClipRecord] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)  # bytes of each chunk of each clip
    notes: dict[str, Any] = field(default_factory=dict)  # plain JSON


@dataclass(frozen=True)
class Part:
    """Where a part lies. The name says all that its content depends on: two parts of one name are the same."""

    folder: Path
    name: str

    @property
    def data(self) -> Path:
        return self.folder / f"{self.name}.data"

    @property
    def head_file(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def made(self) -> bool:
        return self.head_file.exists() and self.data.exists()

    def head(self) -> Head | None:
        """None: not made, or damaged."""
        try:
            found = read_json(self.head_file, MAX_HEAD)
            return Head([ClipRecord(*row) for row in found["rows"]], found["lengths"], found["notes"])
        except (StorageError, KeyError, TypeError):
            return None

    def void(self) -> None:
        self.head_file.unlink(missing_ok=True)
        self.data.unlink(missing_ok=True)


class PartWriter:
    """Makes a part, one clip in memory at a time; a context manager: the part is whole or not there."""

    def __init__(self, part: Part, frames: int, packing: Packing | None = None):
        self.part, self.head = part, Head()
        self._plan = StoreFolder(part.folder, part.folder, frames, packing)  # only says how clips are cut
        self._file = atomic_file(part.data)
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> PartWriter:
        self._stream = self._file.__enter__().open("wb")
        return self

    def add(self, frames: np.ndarray, **words: Any) -> None:
        """Append a clip; the arguments are those of `ClipStoreWriter.add`."""
        assert self._stream is not None
        record = describe(frames, self._plan.frames, self.part.folder, **words)
        chunks = packed(frames, self._plan.layout(record))
        self._stream.writelines(chunks)
        self.head.records.append(record)
        self.head.lengths.append([len(chunk) for chunk in chunks])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        assert self._stream is not None
        if error is not None:
            with contextlib.suppress(OSError):  # of a full disk, once more
                self._stream.close()
            self._file.__exit__(kind, error, trace)
            return
        with contextlib.ExitStack() as stack:
            stack.push(self._file)
            self._stream.close()
        head = {"rows": [dataclasses.astuple(record) for record in self.head.records],
                "lengths": self.head.lengths, "notes": self.head.notes}
        write_text(self.part.head_file, json.dumps(head, separators=(",", ":")))


class Join:
    """Joins parts, in order, to the store `out`.

    Args:
        folder: of the parts and of the store while it grows.
        frames: T.
    """

    def __init__(self, folder: Path, out: Path, frames: int, packing: Packing | None = None):
        self.folder, self.out, self.frames, self.packing = folder, out, frames, packing
        self._store = self._fresh()

    def resume(self, parts: Sequence[Part]) -> list[Head]:
        """Go on where a killed join stopped; returns the heads of the first parts, which are in the store.

        Parts that cannot be used are removed, and so is everything else in the folder.
        """
        heads: list[Head] = []
        for part in parts:
            head = None if part.data.exists() else part.head()
            if head is None:
                break
            heads.append(head)
        try:
            self._take_up(heads)
        except (BadClipStore, OSError):
            heads, self._store = [], self._fresh()
        if not heads:
            shutil.rmtree(self._store.folder, ignore_errors=True)
        for part in parts[len(heads):]:
            if not part.made:
                part.void()
        known = {path for part in parts for path in (part.data, part.head_file)} | {self._store.folder}
        for path in set(self.folder.iterdir()) - known if self.folder.exists() else ():
            if path.suffix in (".data", ".json") or ".partial-" in path.name:
                path.unlink(missing_ok=True)
        return heads

    def add(self, part: Part) -> Head:
        """Append a part's clips to the store and remove their chunks from the part.

        Raises:
            BadClipStore: a clip_id is in the store already, or the part is damaged.
        """
        head = part.head()
        if head is None:
            raise BadClipStore("the part of a clip store is damaged", where=part.head_file,
                               remedy="run synthesize-blur again")
        with explain_os_errors(self.out), part.data.open("rb") as stream:
            for record, lengths in zip(head.records, head.lengths, strict=True):
                self._store.append(record, [stream.read(length) for length in lengths])
            for writer in self._store.arrays.values():
                writer.sync()
        part.data.unlink()
        return head

    def attach(self, name: str, data: bytes) -> None:
        """As `StoreFolder.attach`."""
        with explain_os_errors(self.out):
            self._store.attach(name, data)

    def finish(self) -> None:
        """Complete the store and put it in its place.

        Raises:
            BadClipStore: there is no clip in it.
        """
        with explain_os_errors(self.out):
            self._store.finish()
        move_directory(self._store.folder, self.out)

    def _fresh(self) -> StoreFolder:
        return StoreFolder(self.folder / "store", self.out, self.frames, self.packing)

    def _take_up(self, heads: list[Head]) -> None:
        lengths: dict[str, list[list[int]]] = {}
        layouts = {}
        for head in heads:
            for record, sizes in zip(head.records, head.lengths, strict=True):
                rows = lengths.setdefault(record.array, [])
                self._store.note(record, len(rows))
                layouts[record.array] = self._store.layout(record)
                rows.append(sizes)
        for array, layout in layouts.items():
            writer = self._store.arrays[array] = ShardWriter(self._store.folder / array, layout)
            writer.resume(np.array(lengths[array], dtype=np.uint32))
        for left in self._store.folder.iterdir() if heads and self._store.folder.exists() else ():
            if left.is_dir() and left.name not in layouts:
                shutil.rmtree(left)
