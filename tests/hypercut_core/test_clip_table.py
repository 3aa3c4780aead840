"""The table as columns says what the rows say, one by one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercut_core.clips import clip_table
from hypercut_core.clips.byte_source import LocalBytes
from hypercut_core.clips.clip_table import TABLE, ClipRecord, ClipTable, problem_of, read_table, write_table
from hypercut_core.errors import BadClipStore

GOOD = ClipRecord("c", "8x16", 0, "s", "train", "hand", 8, 16, 7, 1.5, "0" * 64, "synthetic", "srgb", 0.0)
DEFECTS: list[dict[str, object]] = [
    {"clip_id": ""}, {"array": "8x17"}, {"array": "08x16"}, {"array": "x"}, {"array": "8x16\n"}, {"height": 9},
    {"index": -1}, {"motion": float("nan")}, {"motion": -1.0}, {"motion": float("inf")}, {"noise": float("-inf")},
    {"sha256": "0" * 63}, {"sha256": "G" * 64}, {"sha256": "0" * 64 + "\n"}, {"split": "dev"}, {"blur": ""},
    {"response": "sRGB"}]
ROWS = st.lists(st.one_of(st.just({}), st.sampled_from([{"array": "9x9", "height": 9, "width": 9}, {"split": "val"}]),
                          st.sampled_from(DEFECTS)), min_size=1, max_size=12)


def stored(rows: list[ClipRecord], folder: Path) -> ClipTable:
    write_table(folder / TABLE, rows)
    return read_table(LocalBytes(folder))


@settings(max_examples=80, deadline=None)
@given(ROWS)
def test_the_first_bad_row_is_found_and_named_as_the_writer_would(changes) -> None:
    rows = [dataclasses.replace(GOOD, clip_id=f"c{k}", index=k) for k in range(len(changes))]
    rows = [dataclasses.replace(row, **change) for row, change in zip(rows, changes, strict=True)]
    bad = next((row for row in rows if problem_of(row)), None)
    with tempfile.TemporaryDirectory() as name:
        if bad is None:
            assert list(stored(rows, Path(name))) == rows
            return
        with pytest.raises(BadClipStore) as caught:
            stored(rows, Path(name))
        assert caught.value.what == f"clip '{bad.clip_id}': {problem_of(bad)}"


def test_rows_columns_and_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_table, "BLOCK", 3)  # several blocks
    rows = [dataclasses.replace(GOOD, clip_id=f"c{k}", index=k, motion=k / 3, split=("val", "train")[k % 2],
                                category=f"ü{k % 3}") for k in range(8)]
    table = stored(rows, tmp_path)
    assert len(table) == 8
    assert list(table) == rows == [table[np.int64(k)] for k in range(8)] == table[:]
    assert (table[-1], table[2:4]) == (rows[-1], rows[2:4])
    assert table.sha256() == hashlib.sha256(
        json.dumps([dataclasses.astuple(row) for row in rows], separators=(",", ":")).encode()).hexdigest()
    assert table.numbers("motion").tolist() == [row.motion for row in rows]
    assert table.where("split", "val").tolist() == [row.split == "val" for row in rows]
    assert table.where("clip_id", "c3").tolist() == [k == 3 for k in range(8)]
    assert not table.where("category", "none").any()
    assert table.different("category") == ["ü0", "ü1", "ü2"]
    assert list(pickle.loads(pickle.dumps(table))) == rows
    with pytest.raises(IndexError):
        table[8]


@pytest.mark.parametrize("column", ["clip_id", "sha256", "split", "array"])
def test_columns_may_come_as_dictionaries_or_not(tmp_path: Path, column: str) -> None:
    rows = [dataclasses.replace(GOOD, clip_id=f"c{k}", index=k) for k in range(3)]
    write_table(tmp_path / TABLE, rows)
    table = pq.read_table(tmp_path / TABLE)
    place = table.schema.get_field_index(column)
    for values in (table.column(column).dictionary_encode(), table.column(column).cast(pa.large_string())):
        pq.write_table(table.set_column(place, column, values), tmp_path / TABLE)
        assert list(read_table(LocalBytes(tmp_path))) == rows


@pytest.mark.parametrize("values", [pa.array([None, 1]), pa.array([1.5, 2.0]), pa.array(["1", "2"]),
                                    pa.array([True, False])])
def test_columns_of_another_type(tmp_path: Path, values: pa.Array) -> None:
    write_table(tmp_path / TABLE, [dataclasses.replace(GOOD, clip_id=f"c{k}", index=k) for k in range(2)])
    table = pq.read_table(tmp_path / TABLE)
    pq.write_table(table.set_column(table.schema.get_field_index("index"), "index", values), tmp_path / TABLE)
    with pytest.raises(BadClipStore, match="column 'index' must hold int in every row"):
        read_table(LocalBytes(tmp_path))
