"""Blocks of clip stores on this machine's disk: shared, checked, bounded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from components.storage.block_cache import BlockCache, _name
from hypercut_core.errors import StorageError

DATA = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()


def test_the_cache_is_shared_checked_and_kept_within_its_bound(tmp_path: Path) -> None:
    first, second = BlockCache(tmp_path, 1000), BlockCache(tmp_path, 1000)
    first.write("a", DATA[:300])
    first.write("a", DATA[:300])
    assert second.read("a", 300, 10, 20) == DATA[10:30]
    assert first.size == second.size == 304
    block = next(tmp_path.glob("??/*.block"))
    third = BlockCache(tmp_path, 1000)
    block.write_bytes(block.read_bytes()[:-1] + b"!")  # a disk that lies
    assert third.read("a", 300, 0, 10) is None
    assert not block.exists()
    assert third.size == 0
    for name in "abcdefgh":
        second.write(name, DATA[:300])
        assert sum(path.stat().st_size for path in tmp_path.glob("??/*")) == second.size <= 1000
    assert second.read("h", 300, 0, 300) == DATA[:300]
    assert BlockCache(tmp_path, 1000).read("a", 300, 0, 300) is None
    second.write("huge", DATA)
    assert not second.holds("huge")
    (tmp_path / "size").write_text("nonsense")
    assert BlockCache(tmp_path, 1000).size == sum(path.stat().st_size for path in tmp_path.glob("??/*"))


def test_the_block_that_was_not_opened_for_longest_goes_first(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 1000)
    for age, name in enumerate(("old", "middle", "young")):
        cache.write(name, DATA[:300])
        os.utime(cache._path(_name(name)), (age, age))
    assert BlockCache(tmp_path, 1000).read("old", 300, 0, 1) == DATA[:1]  # opened just now
    cache.write("new", DATA[:300])
    assert {name for name in ("old", "middle", "young", "new") if BlockCache(tmp_path, 1000).holds(name)} \
        == {"old", "new"}


def test_a_cache_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="HYPERCUT_S3_CACHE"):
        BlockCache(tmp_path / "file/cache", 1000)
