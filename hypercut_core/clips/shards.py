"""One Zarr v3 array of clips `[clip, frame, height, width, 3]`, written and read shard by shard.

zarr-python reads these arrays too (a test holds both to the same bytes). The project has its own
reader because a random crop touches some twenty small chunks, and zarr-python spends more on its
bookkeeping for each of them than decoding takes: `benchmarks/clip_reading` measures it.

A shard file is its chunks one after another, clip by clip, then an index of (offset, bytes) pairs
as little-endian uint64 and the CRC-32C of the index.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import blosc

from hypercut_core.clips.array_layout import SHUFFLES, ArrayLayout
from hypercut_core.clips.byte_source import ByteSource
from hypercut_core.errors import BadClipStore

try:  # zarr brings one of the two
    from google_crc32c import value as crc32c
except ImportError:  # pragma: no cover
    from crc32c import crc32c  # type: ignore[no-redef]

REMEDY = "run synthesize-blur again"
INDEX_BYTES = 2**28  # of shard indexes that are kept: those of 70,000 clips of 720p
MISSING = np.uint64(2**64 - 1)  # Zarr's mark of a chunk that was not written: all zero


class ShardWriter:
    """Appends clips to an array on disk; holds one clip and the open shard's index in memory."""

    def __init__(self, folder: Path, layout: ArrayLayout):
        self.folder, self.layout = folder, layout
        self.clips = 0
        self._index: list[tuple[int, int]] = []
        self._offset = 0

    def add(self, clip: np.ndarray) -> int:
        """Append one clip, uint8 [frames, height, width, 3]; returns its row."""
        path = self._shard_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            for tile in _tiles(clip, self.layout):
                chunk = compress(tile, self.layout)
                stream.write(chunk)
                self._index.append((self._offset, len(chunk)))
                self._offset += len(chunk)
        self.clips += 1
        if self.clips % self.layout.shard_clips == 0:
            self._close_shard(path)
        return self.clips - 1

    def finish(self) -> ArrayLayout:
        """Close the last shard and write the array's metadata; returns the final layout."""
        if self.clips < self.layout.shard_clips:
            # a single shard that is not full: cut to size, or its index would be mostly empty
            self.layout = dataclasses.replace(self.layout, shard_clips=self.clips)
        if self._index:
            self._close_shard(self.folder / shard_key((self.clips - 1) // self.layout.shard_clips))
        layout = dataclasses.replace(self.layout, clips=self.clips)
        (self.folder / "zarr.json").write_text(json.dumps(layout.to_json(), indent=2, sort_keys=True) + "\n",
                                               encoding="utf-8")
        return layout

    def _shard_path(self) -> Path:
        return self.folder / shard_key(self.clips // self.layout.shard_clips)

    def _close_shard(self, path: Path) -> None:
        index = np.full((self.layout.index_entries, 2), MISSING, dtype="<u8")
        index[:len(self._index)] = np.array(self._index, dtype="<u8")
        data = index.tobytes()
        with path.open("ab") as stream:
            stream.write(data + crc32c(data).to_bytes(4, "little"))
        self._index, self._offset = [], 0


def shard_key(shard: int) -> str:
    return f"c/{shard}/0/0/0/0"


def compress(tile: np.ndarray, layout: ArrayLayout) -> bytes:
    # one Blosc block a chunk: fastest to decode, and no thread can reorder blocks (same bytes every time)
    return bytes(blosc.compress(tile.reshape(-1).view("V3"), layout.codec.encode(), layout.level,
                                SHUFFLES.index(layout.shuffle), layout.chunk_bytes))


def _tiles(clip: np.ndarray, layout: ArrayLayout) -> Iterator[np.ndarray]:
    """Cut a clip into full-sized chunks, zero beyond its edges, row by row."""
    high, wide = layout.chunk_height, layout.chunk_width
    for top in range(0, layout.height, high):
        for left in range(0, layout.width, wide):
            part = clip[:, top:top + high, left:left + wide]
            if part.shape[1:3] == (high, wide):
                yield np.ascontiguousarray(part)
            else:
                tile = np.zeros((layout.frames, high, wide, 3), np.uint8)
                tile[:, :part.shape[1], :part.shape[2]] = part
                yield tile


@dataclasses.dataclass
class _Run:
    """Chunks of a shard that are read at once; end -1: one that was not written."""

    begin: int
    end: int
    chunks: list[tuple[int, int, int, int]]  # row, column, offset in the shard, bytes


class ShardReader:
    """Reads crops of one array, touching only the chunks that the crop needs.

    Args:
        source: where the bytes are.
        array: the array's name, e.g. "720x1280".

    Raises:
        BadClipStore: the metadata is missing or not that of a clip array.
    """

    def __init__(self, source: ByteSource, array: str):
        self.source, self.array = source, array
        self.layout = self._read_layout()
        self._indexes: dict[int, np.ndarray] = {}

    def read(self, clip: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """One crop, uint8 [frames, height, width, 3].

        Raises:
            IndexError: the crop reaches outside the clip.
            BadClipStore: the shard is missing, truncated or damaged.
        """
        layout = self.layout
        if not (0 <= clip < layout.clips and 0 <= top < top + height <= layout.height
                and 0 <= left < left + width <= layout.width):
            raise IndexError(f"crop {height}x{width} at ({top}, {left}) of clip {clip} is outside "
                             f"{layout.clips} clips of {layout.height}x{layout.width}")
        out = np.empty((layout.frames, height, width, 3), np.uint8)
        shard = clip // layout.shard_clips
        tile = np.empty((layout.frames, layout.chunk_height, layout.chunk_width, 3), np.uint8)
        for row, column, data in self._chunks(shard, self._runs(clip, top, left, height, width)):
            # overlap of the chunk and the crop, first in the crop's coordinates
            y, x = row * layout.chunk_height - top, column * layout.chunk_width - left
            y0, y1 = max(y, 0), min(y + layout.chunk_height, height)
            x0, x1 = max(x, 0), min(x + layout.chunk_width, width)
            if data is None:
                out[:, y0:y1, x0:x1] = 0
            elif out.shape == tile.shape and x == y == 0:
                self._decode(shard, data, out)
            else:
                self._decode(shard, data, tile)
                out[:, y0:y1, x0:x1] = tile[:, y0 - y:y1 - y, x0 - x:x1 - x]
        return out

    def ranges(self, clip: int, top: int, left: int, height: int, width: int) -> list[tuple[str, int, int]]:
        """What `read` will ask of the source for a crop: (key, offset, bytes)."""
        key = f"{self.array}/{shard_key(clip // self.layout.shard_clips)}"
        return [(key, run.begin, run.end - run.begin) for run in self._runs(clip, top, left, height, width)
                if run.end > run.begin]

    def _runs(self, clip: int, top: int, left: int, height: int, width: int) -> list[_Run]:
        """The chunks under a crop in the order of their bytes, neighbours in one run."""
        layout = self.layout
        shard, within = divmod(clip, layout.shard_clips)
        index, gap = self._index(shard), getattr(self.source, "merge_gap", 0)
        first, last = left // layout.chunk_width, (left + width - 1) // layout.chunk_width
        runs: list[_Run] = []
        for row in range(top // layout.chunk_height, (top + height - 1) // layout.chunk_height + 1):
            start = (within * layout.rows + row) * layout.columns
            for column, (begin, length) in enumerate(index[start + first:start + last + 1].tolist(), first):
                if length < 0:
                    runs.append(_Run(0, -1, [(row, column, 0, 0)]))
                elif runs and runs[-1].end >= 0 and 0 <= begin - runs[-1].end <= gap:
                    runs[-1].chunks.append((row, column, begin, length))
                    runs[-1].end = begin + length
                else:
                    runs.append(_Run(begin, begin + length, [(row, column, begin, length)]))
        return runs

    def _chunks(self, shard: int, runs: list[_Run]) -> Iterator[tuple[int, int, memoryview | None]]:
        """Yield (row, column, bytes, or None for a chunk that is all zero)."""
        for run in runs:
            if run.end < 0:
                yield *run.chunks[0][:2], None
                continue
            data = memoryview(self._read(shard_key(shard), run.begin, run.end - run.begin))
            for row, column, begin, length in run.chunks:
                yield row, column, data[begin - run.begin:begin - run.begin + length]

    def _decode(self, shard: int, data: memoryview, out: np.ndarray) -> None:
        # the header's two sizes are checked first: Blosc trusts them
        if (len(data) < 16 or int.from_bytes(data[4:8], "little") != out.nbytes
                or int.from_bytes(data[12:16], "little") != len(data) or data[3] == 0):
            raise self._bad(shard_key(shard), "a chunk of the shard is damaged")
        try:
            blosc.decompress(data, out)
        except (RuntimeError, ValueError) as error:
            raise self._bad(shard_key(shard), f"a chunk of the shard cannot be decoded ({error})") from error

    def _index(self, shard: int) -> np.ndarray:
        """The shard's index, int64 [entries, 2]: offset and bytes, (-1, -1) for a missing chunk."""
        index = self._indexes.get(shard)
        if index is None:
            index = self._read_index(shard)
            while self._indexes and (len(self._indexes) + 1) * index.nbytes > INDEX_BYTES:
                self._indexes.pop(next(iter(self._indexes)), None)
            self._indexes[shard] = index
        return index

    def _read_index(self, shard: int) -> np.ndarray:
        key, length = shard_key(shard), self.layout.index_entries * 16
        size = self._size(key)
        limit = size - length - 4
        if limit < 0:
            raise self._bad(key, f"the shard is truncated ({size} bytes, less than its index)")
        data = bytes(self._read(key, limit, length + 4))
        if crc32c(data[:length]) != int.from_bytes(data[length:], "little"):
            raise self._bad(key, "the shard's index is damaged or the file is truncated (wrong checksum)")
        table = np.frombuffer(data, "<u8", length // 8).reshape(-1, 2)
        offset, count = table[:, 0], table[:, 1]
        missing = (offset == MISSING) & (count == MISSING)
        largest = min(limit, self.layout.chunk_bytes + 4096)
        # no sum: offset + count could wrap
        fits = (count <= largest) & (offset <= limit - np.minimum(count, largest))
        if not bool((fits | missing).all()):
            raise self._bad(key, "the shard's index points outside the file")
        return table.astype(np.int64)  # MISSING becomes -1

    def _read_layout(self) -> ArrayLayout:
        try:
            layout = ArrayLayout.from_json(read_json(self.source, f"{self.array}/zarr.json"))
        except ValueError as error:
            raise self._bad("zarr.json", f"the array's metadata is wrong: {error}") from error
        return layout

    def _size(self, key: str) -> int:
        try:
            return self.source.size(f"{self.array}/{key}")
        except OSError as error:
            raise self._bad(key, f"the shard cannot be opened ({error.strerror or error})") from error

    def _read(self, key: str, offset: int, length: int) -> bytes | bytearray:
        try:
            return self.source.read(f"{self.array}/{key}", offset, length)
        except EOFError as error:
            raise self._bad(key, f"the shard is truncated ({error})") from error
        except OSError as error:
            raise self._bad(key, f"the shard cannot be read ({error.strerror or error})") from error

    def _bad(self, key: str, what: str) -> BadClipStore:
        return BadClipStore(what, where=f"{self.source.name}/{self.array}/{key}", remedy=REMEDY)


def read_json(source: ByteSource, key: str, limit: int = 2**20) -> Any:
    """Read a small JSON file of a store.

    Raises:
        BadClipStore: it is missing, larger than `limit` bytes, or not JSON.
    """
    where = f"{source.name}/{key}"
    try:
        size = source.size(key)
        if size > limit:
            raise BadClipStore(f"the file is larger than {limit} bytes", where=where, remedy=REMEDY)
        return json.loads(source.read(key, 0, size).decode("utf-8"))
    except (OSError, EOFError) as error:
        raise BadClipStore("the file of the clip store is missing or cannot be read", where=where,
                           remedy=REMEDY) from error
    except (ValueError, RecursionError) as error:
        raise BadClipStore(f"the file is not valid JSON ({error})", where=where, remedy=REMEDY) from error
