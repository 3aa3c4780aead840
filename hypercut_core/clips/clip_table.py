"""The table of a clip store, clips.parquet: one row for each clip."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hypercut_core.clips.byte_source import ByteSource
from hypercut_core.clips.shards import REMEDY
from hypercut_core.errors import BadClipStore

TABLE = "clips.parquet"
SPLITS = ("train", "val", "test")
BLURS = ("synthetic", "captured")
RESPONSES = ("srgb", "gamma2.2", "none")
MAX_TABLE = 2**28  # bytes, of the file and of its decompressed pages
MAX_ROWS = 10**7


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
    if not record.clip_id or not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", record.array, re.ASCII):
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


def read_table(source: ByteSource) -> list[ClipRecord]:
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
        file = pq.ParquetFile(pa.BufferReader(source.read(TABLE, 0, size)))
        columns = _read_columns(source, file)
    except (OSError, EOFError) as error:
        raise _bad(source, "the table of the clip store is missing or damaged") from error
    except pa.ArrowException as error:
        raise _bad(source, f"the table is not valid Parquet ({str(error)[:200]})") from error
    records = [ClipRecord(*row) for row in zip(*columns, strict=True)]
    for record in records:
        problem = problem_of(record)
        if problem:
            raise _bad(source, f"clip '{record.clip_id[:80]}': {problem}")
    return records


def _read_columns(source: ByteSource, file: Any) -> list[list[Any]]:
    meta = file.metadata
    pages = sum(meta.row_group(k).total_byte_size for k in range(meta.num_row_groups))
    if meta.num_rows > MAX_ROWS or pages > MAX_TABLE:
        raise _bad(source, f"the table has {meta.num_rows} rows in {pages} bytes, too many to be one")
    kinds = _columns()
    for name in kinds:
        if name not in file.schema_arrow.names:
            raise _bad(source, f"the table has no column '{name}'")
    table = file.read(columns=list(kinds))
    columns = [table.column(name).to_pylist() for name in kinds]
    for (name, kind), values in zip(kinds.items(), columns, strict=True):
        if any(type(value) is not kind for value in values):
            raise _bad(source, f"column '{name}' must hold {kind.__name__} in every row")
    return columns


def _bad(source: ByteSource, what: str) -> BadClipStore:
    return BadClipStore(what, where=f"{source.name}/{TABLE}", remedy=REMEDY)
