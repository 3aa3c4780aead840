from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercut_core.clips.byte_source import LocalBytes
from hypercut_core.clips.shards import crc32c
from hypercut_core.clips.store import ClipStore, ClipStoreWriter, Packing
from hypercut_core.errors import BadClipStore, BadParameters, StorageError

SHARD = "c/0/0/0/0/0"


def picture(seed: int, frames: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 1 + rng.integers(1, 256), (frames + 1, height, width, 3), dtype=np.uint8)


def write(path: Path, sizes: list[tuple[int, int]], frames: int = 3, **packing) -> list[np.ndarray]:
    clips = [picture(k, frames, *size) for k, size in enumerate(sizes)]
    with ClipStoreWriter(path, frames, Packing(**packing)) as writer:
        for k, clip in enumerate(clips):
            writer.add(clip, clip_id=f"clip-{k}", source=f"video-{k // 2}", split=("train", "test")[k % 2],
                       category=("street", "hand", "face")[k % 3], motion=k / 3, noise=0.5)
    return clips


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write(tmp_path / "clips", [(20, 30), (20, 30), (17, 9)], chunk=8)
    return tmp_path / "clips"


def read_all(path: Path) -> None:
    opened = ClipStore(path)
    for i in range(len(opened)):
        opened.read(i)


def refused(path: Path, *words: str) -> BadClipStore:
    """Opening or reading everything fails, naming the file, the remedy and `words`."""
    with pytest.raises(BadClipStore) as caught:
        read_all(path)
    message = str(caught.value)
    assert "synthesize-blur" in message
    assert str(path) in message
    for word in words:
        assert word in message
    return caught.value


# --- what is written is what is read, by us and by zarr-python

SIZES = st.tuples(st.integers(1, 45), st.integers(1, 45))


@settings(max_examples=15, deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=4), st.sampled_from([3, 5, 7]), st.integers(12, 64),
       st.sampled_from([1, 20_000, 2**30]), st.sampled_from(["zstd", "lz4", "lz4hc"]),
       st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]), st.data())
def test_equals_zarr(sizes, frames, chunk, shard_bytes, codec, shuffle, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips"
        sizes = [*sizes, sizes[0], sizes[0]]  # several clips in one array
        clips = write(path, sizes, frames, chunk=chunk, shard_bytes=shard_bytes, codec=codec, shuffle=shuffle)
        opened, group = ClipStore(path), zarr.open_group(path, mode="r")
        for i, (record, clip) in enumerate(zip(opened.records, clips, strict=True)):
            array = group[record.array]
            np.testing.assert_array_equal(opened.read(i), clip)
            np.testing.assert_array_equal(array[record.index], clip)
            top = data.draw(st.integers(0, record.height - 1))
            left = data.draw(st.integers(0, record.width - 1))
            high = data.draw(st.integers(1, record.height - top))
            wide = data.draw(st.integers(1, record.width - left))
            crop = opened.read_crop(i, top, left, high, wide)
            np.testing.assert_array_equal(crop, array[record.index, :, top:top + high, left:left + wide])


def test_array_that_zarr_wrote_with_empty_chunks_left_out(store: Path):
    """A writer may leave out chunks that are all zero: both readers give zeros."""
    layout = json.loads((store / "20x30/zarr.json").read_text())
    group = zarr.open_group(store, mode="r+")
    black = np.zeros((4, 20, 30, 3), np.uint8)
    black[:, 9, 9] = 200
    group["20x30"][1] = black
    assert json.loads((store / "20x30/zarr.json").read_text()) == layout
    np.testing.assert_array_equal(ClipStore(store).read(1), black)
    np.testing.assert_array_equal(ClipStore(store).read(0), picture(0, 3, 20, 30))
    with pytest.raises(BadClipStore, match="sha256"):
        ClipStore(store).verify(1)
    ClipStore(store).verify(0)


def test_crop_reads_only_its_chunks(tmp_path: Path):
    write(tmp_path / "clips", [(256, 256)], chunk=64)

    class Counting(LocalBytes):
        got = 0

        def read(self, key: str, offset: int, length: int) -> bytes:
            self.got += length if SHARD in key else 0
            return super().read(key, offset, length)

    source = Counting(tmp_path / "clips")
    opened = ClipStore(source)
    opened.read_crop(0, 64, 64, 64, 64)
    one = source.got
    opened.read(0)
    assert one < 1.3 * (source.got - one) / 16


def test_few_files_and_metadata(tmp_path: Path):
    write(tmp_path / "clips", [(16, 16)] * 30, shard_bytes=4 * 16 * 16 * 3 * 10)
    files = [path for path in (tmp_path / "clips").rglob("*") if path.is_file()]
    assert len(files) == 3 + 3  # three shards; group, array, table
    array = zarr.open_group(tmp_path / "clips", mode="r")["16x16"]
    assert array.shape == (30, 4, 16, 16, 3)
    assert array.metadata.dimension_names == ("clip", "frame", "height", "width", "channel")


def test_records_and_indices(store: Path):
    opened = ClipStore(store)
    assert len(opened) == 3
    assert opened.frames == 3
    first = opened.records[0]
    assert (first.clip_id, first.array, first.index, first.source) == ("clip-0", "20x30", 0, "video-0")
    assert (first.height, first.width, first.frames, first.blur, first.noise) == (20, 30, 3, "synthetic", 0.5)
    assert opened.records[2].motion == 2 / 3
    assert opened.indices("train").tolist() == [0, 2]
    assert opened.indices("test", "hand").tolist() == [1]
    assert opened.indices("val").tolist() == []
    for i in range(3):
        opened.verify(i)


def test_same_clips_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        write(tmp_path / name, [(70, 90), (70, 90), (9, 9)])
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(names) == 6
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert ClipStore(tmp_path / "a").sha256 == ClipStore(tmp_path / "b").sha256


def test_content_hash_changes_with_pixels(store: Path, tmp_path: Path):
    clip = picture(0, 3, 20, 30)
    hashes = set()
    for change in (0, 1):
        clip[2, 3, 4, 0] ^= change
        with ClipStoreWriter(tmp_path / "one", 3) as writer:
            writer.add(clip, clip_id="a", source="s", split="train", category="c", motion=0)
        hashes.add(ClipStore(tmp_path / "one").sha256)
    assert len(hashes) == 2


def test_threads_and_pickling(tmp_path: Path):
    clips = write(tmp_path / "clips", [(40, 40)] * 6, chunk=16, shard_bytes=1)
    opened = pickle.loads(pickle.dumps(ClipStore(tmp_path / "clips")))
    wrong: list[int] = []

    def compare() -> None:
        wrong.extend(i for i in range(6) for _ in range(10) if not np.array_equal(opened.read(i), clips[i]))

    threads = [threading.Thread(target=compare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_more_shards_than_open_files(tmp_path: Path):
    clips = write(tmp_path / "clips", [(8, 8)] * 70, shard_bytes=1)
    opened = ClipStore(tmp_path / "clips")
    for i in [*range(70), *range(70)]:
        np.testing.assert_array_equal(opened.read(i), clips[i])
    assert len(opened.source._files) <= 64


# --- writing: all or nothing

def write_twice(path: Path, clip: np.ndarray) -> None:
    with ClipStoreWriter(path, 3) as writer:
        writer.add(clip, **GOOD)
        writer.add(clip, **GOOD)


def test_error_while_writing_leaves_nothing(tmp_path: Path):
    with pytest.raises(BadClipStore, match="already"):
        write_twice(tmp_path / "clips", picture(0, 3, 8, 8))
    assert list(tmp_path.iterdir()) == []


def test_failed_rewrite_keeps_the_old_store(store: Path):
    before = ClipStore(store).sha256
    with pytest.raises(BadClipStore, match="no clip"), ClipStoreWriter(store, 3):
        pass
    assert ClipStore(store).sha256 == before
    write(store, [(8, 8)])
    assert len(ClipStore(store)) == 1
    assert [path.name for path in store.parent.iterdir()] == ["clips"]


def test_killed_writer_leaves_nothing_that_reads_as_whole(tmp_path: Path):
    script = """
import os, signal, sys
import numpy as np
from hypercut_core.clips.store import ClipStoreWriter
with ClipStoreWriter(sys.argv[1], 3) as writer:
    for k in range(5):
        writer.add(np.full((4, 8, 8, 3), k, np.uint8), clip_id=str(k), source="s", split="train",
                   category="c", motion=0)
    writer._store.finish()  # even with every file written, before the folder takes its name
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "clips"
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    refused(path, "no clip store here")
    write(path, [(8, 8)])
    assert [left.name for left in tmp_path.iterdir()] == ["clips"]  # the remains are swept


def write_to_full_disk(path: Path) -> None:
    with ClipStoreWriter(path, 3) as writer:
        shard = writer._store.folder / "8x8" / SHARD
        shard.parent.mkdir(parents=True)
        shard.symlink_to("/dev/full")  # every write to it fails as on a full disk
        writer.add(picture(0, 3, 8, 8), **GOOD)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(tmp_path: Path):
    with pytest.raises(StorageError, match="disk is full") as caught:
        write_to_full_disk(tmp_path / "clips")
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


GOOD = {"clip_id": "b", "source": "s", "split": "train", "category": "c", "motion": 0.0}


@pytest.mark.parametrize(("frames", "changes", "message"), [
    (picture(0, 2, 8, 8), {}, r"\[4, H, W, 3\]"),
    (picture(0, 3, 8, 8)[..., :1], {}, r"\[4, H, W, 3\]"),
    (picture(0, 3, 8, 8).astype(np.float32), {}, "float32"),
    (np.zeros((4, 0, 8, 3), np.uint8), {}, "expected"),
    (picture(0, 3, 8, 8), {"clip_id": "a"}, "already"),
    (picture(0, 3, 8, 8), {"clip_id": ""}, "empty clip_id"),
    (picture(0, 3, 8, 8), {"split": "dev"}, "split is 'dev'"),
    (picture(0, 3, 8, 8), {"motion": float("nan")}, "finite"),
    (picture(0, 3, 8, 8), {"blur": "none"}, "blur is 'none'"),
    (picture(0, 3, 8, 8), {"response": "rec709"}, "response is 'rec709'"),
])
def test_writer_refuses(tmp_path: Path, frames, changes, message):
    with ClipStoreWriter(tmp_path / "clips", 3) as writer:
        writer.add(picture(0, 3, 8, 8), **{**GOOD, "clip_id": "a"})
        with pytest.raises(BadClipStore, match=message):
            writer.add(frames, **{**GOOD, **changes})
    assert len(ClipStore(tmp_path / "clips")) == 1


def test_settings_refused(tmp_path: Path):
    for frames in (2, 1, 17):
        with pytest.raises(BadParameters, match="odd"):
            ClipStoreWriter(tmp_path, frames)
    for wrong in ({"chunk": 2}, {"codec": "zip"}, {"level": 0}, {"shuffle": "yes"}, {"shard_bytes": 0}):
        with pytest.raises(BadParameters):
            Packing(**wrong)


# --- reading what others made: every damage is one clear error

def test_missing_folder_and_files(store: Path, tmp_path: Path):
    refused(tmp_path / "nowhere", "no clip store here")
    for name in ("clips.parquet", "20x30/zarr.json", "zarr.json", f"17x9/{SHARD}"):
        content = (store / name).read_bytes()
        (store / name).unlink()
        refused(store, name)
        (store / name).write_bytes(content)
    ClipStore(store).read(2)


@pytest.mark.parametrize("name", ["zarr.json", "20x30/zarr.json", "clips.parquet"])
@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b"{}", b"null", b"[" * 100_000, b"\xff\xfe"])
def test_garbage_files(store: Path, name: str, content: bytes):
    (store / name).write_bytes(content)
    refused(store, name)


def test_named_pipe_does_not_hang(store: Path):
    (store / "zarr.json").unlink()
    os.mkfifo(store / "zarr.json")
    refused(store, "zarr.json")


def test_large_json_is_not_read(store: Path):
    with (store / "zarr.json").open("ab") as stream:
        stream.truncate(2**40)  # sparse
    refused(store, "larger than")


@pytest.mark.parametrize(("place", "value"), [
    (["zarr_format"], 2), (["node_type"], "group"), (["data_type"], "float32"), (["fill_value"], 1),
    (["shape", 0], 3), (["shape", 0], -1), (["shape", 0], 2**40), (["shape", 0], True), (["shape", 1], 5),
    (["shape", 2], 0), (["shape", 2], 21), (["shape", 3], "30"), (["shape", 4], 4), (["shape"], 5),
    (["shape"], [2, 4, 20, 30]), (["chunk_grid", "name"], "rectangular"),
    (["chunk_grid", "configuration", "chunk_shape", 0], 0),
    (["chunk_grid", "configuration", "chunk_shape", 0], 10**9),
    (["chunk_grid", "configuration", "chunk_shape", 2], 8),
    (["chunk_key_encoding", "configuration", "separator"], "."),
    (["codecs"], []), (["codecs"], {}), (["codecs", 0, "name"], "gzip"),
    (["codecs", 0, "configuration", "chunk_shape", 2], 0),
    (["codecs", 0, "configuration", "chunk_shape", 1], 1),
    (["codecs", 0, "configuration", "codecs", 1, "name"], "zstd"),
    (["codecs", 0, "configuration", "index_codecs", 1, "name"], "crc32"),
    (["codecs", 0, "configuration", "index_codecs", 0, "configuration", "endian"], "big"),
    (["codecs", 0, "configuration", "index_location"], "start"),
])
def test_wrong_array_metadata(store: Path, place: list, value):
    path = store / "20x30/zarr.json"
    meta = json.loads(path.read_text())
    inside = meta
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    path.write_text(json.dumps(meta))
    refused(store)


@pytest.mark.parametrize("attributes", [
    {}, {"hypercut": 3}, {"hypercut": {"format": 2, "frames": 3}}, {"hypercut": {"format": 1, "frames": "3"}},
    {"hypercut": {"format": 1, "frames": 4}}, {"hypercut": {"format": 1, "frames": 5}},
])
def test_wrong_group(store: Path, attributes):
    (store / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    refused(store)


def damage(store: Path, change) -> None:
    path = store / "20x30" / SHARD
    path.write_bytes(bytes(change(bytearray(path.read_bytes()))))


ENTRIES = 2 * 3 * 4  # two clips of 20x30 in chunks of 7x8


def reindexed(content: bytearray, entry: int, offset: int, size: int) -> bytearray:
    """Change an index entry and mend the checksum: damage that only bounds checks find."""
    start = len(content) - 4 - 16 * ENTRIES
    index = bytearray(content[start:-4])
    index[16 * entry:16 * entry + 16] = np.array([offset, size], "<u8").tobytes()
    return content[:start] + index + crc32c(bytes(index)).to_bytes(4, "little")


@pytest.mark.parametrize("change", [
    lambda b: b[:0], lambda b: b[:100], lambda b: b[:-1], lambda b: b[1:], lambda b: b[1000:],
    lambda b: b[:-2] + bytes([b[-2] ^ 1]) + b[-1:],  # the checksum
    lambda b: b[:-20] + b"\x01" + b[-19:],  # the index
    lambda b: reindexed(b, 0, len(b), 10),
    lambda b: reindexed(b, 0, 2**63, 10),
    lambda b: reindexed(b, 0, 2**64 - 1, 10),
    lambda b: reindexed(b, 0, 10, 2**64 - 1),
    lambda b: reindexed(b, 0, 2**64 - 5, 100),
    lambda b: reindexed(b, 0, 0, 0),
    lambda b: reindexed(b, 0, 0, 15),
    lambda b: reindexed(b, 0, 1, 200),
    lambda b: reindexed(b, 0, 0, 100_000),
    lambda b: b"\x00" * 16 + b[16:],  # a chunk's header
    lambda b: b[:4] + b"\xff\xff\xff\x7f" + b[8:],  # it claims to hold 2 GiB
    lambda b: b[:12] + b"\xff\xff\xff\x7f" + b[16:],  # it claims to be 2 GiB long
    lambda b: b[:2] + b"\xff" + b[3:],  # an unknown compressor
])
def test_damaged_shard(store: Path, change):
    damage(store, change)
    refused(store, SHARD)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_flipped_bytes_never_crash(data):
    """Whatever byte is wrong: the clip reads, or one BadClipStore says so. verify() finds silent ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips"
        clip = write(path, [(24, 24)], chunk=16, shard_bytes=1)[0]
        shard = path / "24x24" / SHARD
        content = bytearray(shard.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.one_of(st.integers(0, 40), st.integers(0, len(content) - 1)))
            content[at] = data.draw(st.integers(0, 255))
        shard.write_bytes(bytes(content))
        opened = ClipStore(path)
        try:
            opened.verify(0)
        except BadClipStore:
            return
        np.testing.assert_array_equal(opened.read(0), clip)


def test_shard_truncated_while_open(store: Path):
    opened = ClipStore(store)
    opened.read(0)
    os.truncate(store / "20x30" / SHARD, 100)
    with pytest.raises(BadClipStore, match="truncated"):
        opened.read(1)


@pytest.mark.parametrize("crop", [(-1, 0, 4, 4), (0, -1, 4, 4), (17, 0, 4, 4), (0, 27, 4, 4), (0, 0, 0, 4),
                                  (0, 0, 4, -4), (0, 0, 21, 30)])
def test_crop_outside(store: Path, crop):
    with pytest.raises(IndexError):
        ClipStore(store).read_crop(0, *crop)
    with pytest.raises(IndexError):
        ClipStore(store).read(3)


def retable(store: Path, change) -> None:
    path = store / "clips.parquet"
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize(("change", "message"), [
    (lambda rows: rows[0].update(index=2), "row 2 of an array of 2"),
    (lambda rows: rows[0].update(index=1), "twice"),
    (lambda rows: rows[0].update(index=-1), "at least 0"),
    (lambda rows: rows[0].update(clip_id="clip-1"), "twice"),
    (lambda rows: rows[0].update(height=30, width=20), "does not hold"),
    (lambda rows: rows[0].update(array="../x"), "array"),
    (lambda rows: rows[0].update(array="40x40", height=40, width=40), "40x40/zarr.json"),
    (lambda rows: rows[0].update(frames=5), "5 sharp frames"),
    (lambda rows: rows[0].update(split="dev"), "split is 'dev'"),
    (lambda rows: rows[0].update(sha256="0" * 63), "sha256"),
    (lambda rows: rows[0].update(motion=float("inf")), "finite"),
    (lambda rows: rows[0].update(source=None), "'source' must hold str"),
    (lambda rows: [row.update(index=str(row["index"])) for row in rows], "'index' must hold int"),
    (lambda rows: [row.pop("motion") for row in rows], "no column 'motion'"),
    (lambda rows: rows.pop(), "20x30 holds|no clips|17x9"),
    (lambda rows: rows.pop(0), "holds 2 clips, the table lists 1"),
])
def test_table_that_does_not_match(store: Path, change, message):
    retable(store, change)
    if message.startswith("20x30 holds"):
        assert len(ClipStore(store)) == 2  # an array that no row names is not looked at
    else:
        with pytest.raises(BadClipStore, match=message):
            ClipStore(store)


def test_empty_table(store: Path):
    path = store / "clips.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    refused(store, "no clips")


def test_array_with_other_frame_count(store: Path, tmp_path: Path):
    write(tmp_path / "other", [(20, 30), (20, 30)], frames=5)
    for path in ("20x30/zarr.json", f"20x30/{SHARD}"):
        (store / path).write_bytes((tmp_path / "other" / path).read_bytes())
    refused(store, "3 sharp frames in the table and 5")
