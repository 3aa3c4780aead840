"""The table of a clip store, clips.parquet: one row for each clip."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints, overload

import numpy as np

from hypercut_core.clips.byte_source import ByteSource
from hypercut_core.clips.shards import REMEDY
from hypercut_core.errors import BadClipStore

TABLE = "clips.parquet"
SPLITS = ("train", "val", "test")
BLURS = ("synthetic", "captured")
RESPONSES = ("srgb", "gamma2.2", "none")
MAX_TABLE = 2**31  # bytes, of the file and of its decompressed pages
MAX_ROWS = 10**7
BLOCK = 2**16  # rows that are turned into Python objects at once
ARRAY = r"[1-9]\d{0,4}x[1-9]\d{0,4}"
REPEATED = ["array", "source", "split", "category", "blur", "response"]  # columns of few different texts


@dataclass(frozen=True)
class ClipRecord:
    """One row of clips.parquet."""

    clip_id: str  # unique in the store
    array: str  # the Zarr array that holds it, "<height>x<width>"
    index: int  # row in that array
    source: str  # the footage source that it was cut from; no source is in two splits
    split: str  # train, val or test
    category: str
    height: int  # px
    width: int  # px
    frames: int  # T, number of sharp frames
    motion: float  # px over the exposure
    sha256: str  # of the T + 1 frames' bytes
    blur: str  # synthetic, or captured (a camera's own blur)
    response: str  # the curve in which the blur is a mean: srgb, gamma2.2 or none
    noise: float  # standard deviation of the read noise added to the blurry image


def problem_of(record: ClipRecord) -> str | None:
    """What is wrong with a row by itself, or None."""
    if not record.clip_id or not re.fullmatch(ARRAY, record.array, re.ASCII):
        return "an empty clip_id or a wrong array name"
    if record.array != f"{record.height}x{record.width}":
        return f"array '{record.array}' does not hold clips of {record.height}x{record.width}"
    if record.index < 0 or not (math.isfinite(record.motion) and record.motion >= 0) \
            or not (math.isfinite(record.noise) and record.noise >= 0):
        return "index, motion and noise must be finite and at least 0"
    if not re.fullmatch(r"[0-9a-f]{64}", record.sha256):
        return "sha256 is not a SHA-256"
    for name, choices in (("split", SPLITS), ("blur", BLURS), ("response", RESPONSES)):
        if getattr(record, name) not in choices:
            return f"{name} is '{getattr(record, name)}', one of {', '.join(choices)} expected"
    return None


@cache
def _columns() -> dict[str, type]:
    hints = get_type_hints(ClipRecord)
    return {field.name: hints[field.name] for field in dataclasses.fields(ClipRecord)}


def write_table(path: Path, records: list[ClipRecord]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    table = pa.table({name: pa.array([getattr(record, name) for record in records], arrow[kind])
                      for name, kind in _columns().items()})
    pq.write_table(table, path)


class ClipTable(Sequence[ClipRecord]):
    """The rows of clips.parquet, kept as columns: about a tenth of the memory of as many ClipRecords.

    Args:
        columns: one array for each field of ClipRecord, of its type and without nulls; texts that repeat may be
            dictionary arrays.
    """

    def __init__(self, columns: dict[str, Any]):
        import pyarrow as pa

        self._plain = {name: column for name, column in columns.items() if not pa.types.is_dictionary(column.type)}
        self._codes = {name: column.indices.to_numpy(zero_copy_only=False) for name, column in columns.items()
                       if name not in self._plain}
        self._words = {name: columns[name].dictionary.to_pylist() for name in self._codes}
        self._length = len(columns["clip_id"])

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, i: int) -> ClipRecord: ...

    @overload
    def __getitem__(self, i: slice) -> list[ClipRecord]: ...

    def __getitem__(self, i: int | slice) -> ClipRecord | list[ClipRecord]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(self._length))]
        if not -self._length <= i < self._length:
            raise IndexError(f"there is no clip {i}, there are {self._length}")
        i = int(i) % self._length
        return ClipRecord(*(self._words[name][self._codes[name][i]] if name in self._codes
                            else self._plain[name][i].as_py() for name in _columns()))

    def __iter__(self) -> Iterator[ClipRecord]:
        for start in range(0, self._length, BLOCK):
            yield from (ClipRecord(*row) for row in self._rows(start))

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers, int64 or float64 [n]."""
        return np.asarray(self._plain[name].to_numpy(zero_copy_only=False))

    def where(self, name: str, value: str) -> np.ndarray:
        """Rows whose text in a column is `value`, bool [n]."""
        import pyarrow.compute as pc

        if name in self._plain:
            return np.asarray(pc.equal(self._plain[name], value).to_numpy(zero_copy_only=False))
        codes = [code for code, word in enumerate(self._words[name]) if word == value]
        return np.isin(self._codes[name], codes)

    def different(self, name: str) -> list[str]:
        """The texts of a column, each once, in the order in which they come."""
        import pyarrow.compute as pc

        if name in self._plain:
            return [str(word) for word in pc.unique(self._plain[name]).to_pylist()]
        codes, first = np.unique(self._codes[name], return_index=True)
        return list(dict.fromkeys(self._words[name][code] for code in codes[np.argsort(first)]))

    def repeated(self, name: str) -> np.ndarray:
        """Rows whose text in a column was there before, bool [n]; for columns whose texts rarely repeat."""
        import pyarrow.compute as pc

        again = np.zeros(self._length, bool)
        if pc.count_distinct(self._plain[name]).as_py() < self._length:
            seen: set[str] = set()
            for i, word in enumerate(self._plain[name].to_pylist()):
                again[i] = word in seen
                seen.add(word)
        return again

    def sha256(self) -> str:
        """Hash of all rows, as the JSON of the list of them."""
        digest = hashlib.sha256(b"[")
        for start in range(0, self._length, BLOCK):
            text = json.dumps(self._rows(start), separators=(",", ":"))
            digest.update((("," if start else "") + text[1:-1]).encode())
        digest.update(b"]")
        return digest.hexdigest()

    def _rows(self, start: int) -> list[tuple[Any, ...]]:
        stop = min(self._length, start + BLOCK)
        columns = [[self._words[name][code] for code in self._codes[name][start:stop]] if name in self._codes
                   else self._plain[name][start:stop].to_pylist() for name in _columns()]
        return list(zip(*columns, strict=True))

    def first_problem(self) -> int | None:
        """The first row that `problem_of` objects to."""
        import pyarrow.compute as pc

        good = np.asarray(pc.match_substring_regex(self._plain["sha256"], r"\A[0-9a-f]{64}\z"))
        good &= np.asarray(pc.not_equal(self._plain["clip_id"], ""))
        good &= self.numbers("index") >= 0
        for name in ("motion", "noise"):
            good &= np.isfinite(self.numbers(name)) & (self.numbers(name) >= 0)
        for name, choices in (("split", SPLITS), ("blur", BLURS), ("response", RESPONSES)):
            for word in set(self.different(name)) - set(choices):
                good &= ~self.where(name, word)
        height, width = self.numbers("height"), self.numbers("width")
        for array in self.different("array"):
            sizes = [int(side) for side in array.split("x")] if re.fullmatch(ARRAY, array, re.ASCII) else [0, 0]
            good &= ~self.where("array", array) | ((height == sizes[0]) & (width == sizes[1]) & (sizes[0] > 0))
        bad = np.flatnonzero(~good)
        return int(bad[0]) if len(bad) else None


def read_table(source: ByteSource) -> ClipTable:
    """Read and check every row.

    Raises:
        BadClipStore: the table is missing, damaged, lacks a column, or holds a row that cannot be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        size = source.size(TABLE)
        if size > MAX_TABLE:
            raise _bad(source, f"the table is larger than {MAX_TABLE} bytes")
        data = pa.BufferReader(source.read(TABLE, 0, size))
        table = ClipTable(_read_columns(source, pq.ParquetFile(data, read_dictionary=REPEATED)))
        del data
        pa.default_memory_pool().release_unused()  # of a large table, several times its size
    except (OSError, EOFError) as error:
        raise _bad(source, "the table of the clip store is missing or damaged") from error
    except pa.ArrowException as error:
        raise _bad(source, f"the table is not valid Parquet ({str(error)[:200]})") from error
    wrong = table.first_problem()
    if wrong is not None:
        raise _bad(source, f"clip '{table[wrong].clip_id[:80]}': {problem_of(table[wrong])}")
    return table


def _read_columns(source: ByteSource, file: Any) -> dict[str, Any]:
    import pyarrow as pa

    meta = file.metadata
    pages = sum(meta.row_group(k).total_byte_size for k in range(meta.num_row_groups))
    if meta.num_rows > MAX_ROWS or pages > MAX_TABLE:
        raise _bad(source, f"the table has {meta.num_rows} rows in {pages} bytes, too many to be one")
    kinds = _columns()
    for name in kinds:
        if name not in file.schema_arrow.names:
            raise _bad(source, f"the table has no column '{name}'")
    table = file.read(columns=list(kinds)).unify_dictionaries()
    columns = {}
    for name, kind in kinds.items():
        column = table.column(name).combine_chunks()
        if name not in REPEATED and pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        of = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        right = {str: pa.types.is_string(of) or pa.types.is_large_string(of), int: pa.types.is_integer(of),
                 float: pa.types.is_floating(of)}[kind]
        if not right or column.null_count:
            raise _bad(source, f"column '{name}' must hold {kind.__name__} in every row")
        columns[name] = column if kind is str else column.cast(pa.int64() if kind is int else pa.float64())
    return columns


def _bad(source: ByteSource, what: str) -> BadClipStore:
    return BadClipStore(what, where=f"{source.name}/{TABLE}", remedy=REMEDY)
