"""Clip stores read from S3: ranges, patience, a store that changes, other processes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3_double import FaultyS3, chunked, dropped, faulty_s3, halved, status
from self_signed import authority

from components.clip_stores import open_clips
from components.storage import clip_bytes, clip_source, patience, s3_client
from components.storage.block_cache import BlockCache
from hypercut_core.clips.dataset import ClipBatches
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.errors import BadClipStore, BadParameters, StorageError

SECRET = "secret-that-must-not-show"
URI = "s3://bucket/store"
DATA = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    with faulty_s3() as server:
        for name in list(os.environ):
            if name.lower().endswith("_proxy") or name.startswith(("AWS_", "HYPERCUT_S3")):
                monkeypatch.delenv(name)
        for name, value in (("AWS_ENDPOINT_URL", server.address), ("AWS_ACCESS_KEY_ID", "testing"),
                            ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_DEFAULT_REGION", "us-east-1"),
                            ("AWS_CONFIG_FILE", "/nonexistent"), ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")):
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(patience, "FIRST", 0.001)
        monkeypatch.setattr(patience._outage, "_told", -patience.QUIET)
        s3_client.client.cache_clear()
        server.objects["store/a/b"] = DATA
        yield server
        s3_client.client.cache_clear()


def made(folder: Path, seed: int = 0, clips: int = 6) -> Path:
    """A store of three arrays' worth of small clips, two clips a shard."""
    from hypercut_core.clips.array_layout import Packing

    rng = np.random.default_rng(seed)
    with ClipStoreWriter(folder, 3, Packing(chunk=16, shard_bytes=2 * 4 * 32 * 48 * 3)) as writer:
        for number in range(clips):
            frames = rng.integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)
            writer.add(frames, clip_id=f"c{number}", source=f"s{number}", split="train", category="x", motion=1.0)
    return folder


def put(server: FaultyS3, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            server.objects[f"store/{path.relative_to(folder).as_posix()}"] = path.read_bytes()


WAYS = {"exact": {"memory_mb": 1, "cache_folder": ""}, "memory": {"memory_mb": 1, "cache_folder": ""},
        "disk": {"memory_mb": 0, "cache_mb": 1}}


def source(way: str, folder: Path) -> clip_bytes.S3Bytes:
    options = WAYS[way] if "cache_folder" in WAYS[way] else {**WAYS[way], "cache_folder": folder / "cache"}
    opened = clip_source(URI, patience=5.0, **options)  # type: ignore[arg-type]
    if way == "exact":
        opened._kept = None  # as if the store did not fit into memory, in which ranges then wait
    return opened


READS = st.lists(st.tuples(st.integers(0, 4999), st.integers(1, 700), st.booleans()), min_size=1, max_size=25)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reads=READS)
def test_any_sequence_of_reads_gives_the_object_s_bytes(
        s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str,
        reads: list[tuple[int, int, bool]]) -> None:
    monkeypatch.setattr(clip_bytes, "BLOCK", 64)
    opened = source(way, tmp_path)
    if opened.cache is not None:
        opened.cache = BlockCache(tmp_path / "tiny", 20 * 68)  # 20 blocks: evicts all the time
    wanted = [("a/b", offset, min(length, len(DATA) - offset)) for offset, length, _ in reads]
    opened.prefetch([read for read, (_, _, ahead) in zip(wanted, reads, strict=True) if ahead])
    for key, offset, length in wanted:
        assert opened.read(key, offset, length) == DATA[offset:offset + length]
    if opened.cache is not None:
        blocks = list((tmp_path / "tiny").glob("??/*.block"))
        assert sum(block.stat().st_size for block in blocks) == opened.cache.size <= 20 * 68


@pytest.mark.parametrize("way", WAYS)
def test_a_store_reads_the_same_as_from_its_folder(s3: FaultyS3, tmp_path: Path, way: str) -> None:
    local = ClipStore(made(tmp_path / "clips"))
    put(s3, tmp_path / "clips")
    remote = ClipStore(source(way, tmp_path))
    assert remote.sha256 == local.sha256
    assert remote.path == URI
    for crop in ((0, 0, 32, 48), (3, 5, 20, 30), (31, 47, 1, 1)):
        for i in range(len(local)):
            np.testing.assert_array_equal(remote.read_crop(i, *crop), local.read_crop(i, *crop))
    for crop in (0, 24):
        batches = [ClipBatches(store, "train", 4, crop, 3, cache_bytes=20000) for store in (local, remote)]
        for step in (0, 1, 2, 7):
            for k, part in ((0, None), (1, range(1, 3))):
                one, other = (b(step, part) if k else b(step) for b in batches)
                assert one.sharp.equal(other.sharp)
                assert one.blurry.equal(other.blurry)


@pytest.mark.parametrize("fault", [dropped, halved, status(500, "InternalError"), status(503, "SlowDown"), chunked],
                         ids=["dropped", "halved", "500", "slow-down", "chunked"])
def test_a_server_that_stumbles_is_asked_again_and_told_once(
        s3: FaultyS3, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: object) -> None:
    opened = source("exact", tmp_path)
    opened.read("a/b", 0, 10)  # a kept connection
    for tries in (1, 3):
        s3.faults.extend([fault] * tries)  # type: ignore[list-item]
        assert opened.read("a/b", 100, 900) == DATA[100:1000]
        s3.faults.clear()
    said = capsys.readouterr().err
    times = 0 if fault is chunked else 1
    assert said.count("does not answer as it should") == said.count("answers again") == times
    assert SECRET not in said
    assert "Signature" not in said


def test_patience_has_an_end_that_names_its_setting(s3: FaultyS3, capsys: pytest.CaptureFixture[str]) -> None:
    opened = clip_source(URI, memory_mb=0, patience=0.5)
    s3.faults.extend([status(503, "SlowDown")] * 10000)
    with pytest.raises(StorageError, match=r"SlowDown.*HYPERCUT_S3_PATIENCE"):
        opened.read("a/b", 0, 10)
    assert 1 < 10000 - len(s3.faults) < 10000
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("number", "code", "error", "says"), [
    (403, "AccessDenied", StorageError, "refuses the credentials.*AWS_ACCESS_KEY_ID"),
    (403, "InvalidAccessKeyId", StorageError, "refuses the credentials.*AWS_ACCESS_KEY_ID"),
    (404, "NoSuchKey", BadClipStore, "the store changed while it was read"),
    (404, "NoSuchBucket", StorageError, "no such bucket"),
    (400, "InvalidRequest", StorageError, "refuses the request"),
])
def test_a_refusal_is_final(s3: FaultyS3, tmp_path: Path, number: int, code: str, error: type, says: str) -> None:
    opened = source("exact", tmp_path)
    s3.faults.extend([status(number, code)] * 5)
    with pytest.raises(error, match=says):
        opened.read("a/b", 0, 10)
    assert len(s3.faults) == 4
    opened.prefetch([("a/b", 0, 10)])
    with pytest.raises(error, match=says):
        opened.read("a/b", 0, 10)


def test_a_signed_address_that_grew_old_is_made_again(s3: FaultyS3, tmp_path: Path) -> None:
    opened = source("exact", tmp_path)
    opened.read("a/b", 0, 10)
    url, time = opened.ranges._signed["store/a/b"]
    opened.ranges._signed["store/a/b"] = url, time - 100
    s3.faults.append(status(403, "AccessDenied"))
    assert opened.read("a/b", 0, 10) == DATA[:10]
    opened.ranges._signed["store/a/b"] = url, time - 100
    s3.faults.extend([status(403, "AccessDenied")] * 9)
    with pytest.raises(StorageError, match="refuses the credentials"):  # the keys are wrong by now
        opened.read("a/b", 0, 10)


def test_by_boto3_itself_the_same(s3: FaultyS3, tmp_path: Path) -> None:
    """As behind a proxy: the same bytes, patience and errors."""
    opened = source("exact", tmp_path)
    opened.ranges._through_boto = True
    s3.faults.extend([halved, status(503, "SlowDown"), dropped])
    assert opened.read("a/b", 100, 900) == DATA[100:1000]
    s3.objects["store/a/b"] = DATA[::-1]
    for conditions in (True, False):
        s3.conditions = conditions
        with pytest.raises(BadClipStore, match="the store changed while it was read"):
            opened.read("a/b", 0, 10)
    del s3.objects["store/a/b"]
    with pytest.raises(BadClipStore, match="the store changed while it was read"):
        opened.read("a/b", 0, 10)


def test_over_tls_only_a_server_that_is_believed(s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, context = authority(tmp_path)
    with faulty_s3(context) as secure:
        secure.objects["store/a/b"] = DATA
        monkeypatch.setenv("AWS_ENDPOINT_URL", secure.address)
        s3_client.client.cache_clear()
        with pytest.raises(StorageError, match=r"SSLError.*AWS_CA_BUNDLE"):
            source("exact", tmp_path)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        s3_client.client.cache_clear()
        opened = source("exact", tmp_path)
        secure.faults.extend([halved, dropped])
        assert opened.read("a/b", 100, 900) == DATA[100:1000]
        assert opened.ranges._through_boto is False
        monkeypatch.delenv("AWS_CA_BUNDLE")
        opened.ranges._context, opened.ranges._idle = None, []
        with pytest.raises(StorageError, match=r"certificate is not believed.*AWS_CA_BUNDLE"):
            opened.read("a/b", 0, 10)


@pytest.mark.parametrize("conditions", [True, False], ids=["If-Match", "without If-Match"])
@pytest.mark.parametrize("way", WAYS)
def test_a_store_that_changes_is_never_mixed(s3: FaultyS3, tmp_path: Path, way: str, conditions: bool) -> None:
    put(s3, made(tmp_path / "clips"))
    s3.conditions = conditions
    store = ClipStore(source(way, tmp_path))
    if way == "disk":  # what was read once does not come from the server again
        store.read(0)
    put(s3, made(tmp_path / "others", seed=1))
    with pytest.raises(BadClipStore, match=r"the store changed while it was read.*run the step again"):
        [store.read(i) for i in range(len(store))]
    again = ClipStore(source(way, tmp_path))
    [again.verify(i) for i in range(len(again))]


def test_truncated_objects(s3: FaultyS3, tmp_path: Path) -> None:
    put(s3, made(tmp_path / "clips"))
    shard = "store/32x48/c/1/0/0/0/0"
    whole = s3.objects[shard]
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        s3.objects[shard] = whole[:cut]
        store = ClipStore(source("exact", tmp_path))
        store.read(0)
        with pytest.raises(BadClipStore, match=r"truncated.*run synthesize-blur again"):
            store.read(2)
    del s3.objects["store/zarr.json"]
    with pytest.raises(BadClipStore, match="missing"):
        ClipStore(source("exact", tmp_path))


def test_nothing_there_and_beyond_the_end(s3: FaultyS3, tmp_path: Path) -> None:
    with pytest.raises(BadClipStore, match=r"no clip store here.*synthesize-blur"):
        open_clips("s3://bucket/elsewhere")
    opened = source("exact", tmp_path)
    with pytest.raises(FileNotFoundError):
        opened.size("c")
    with pytest.raises(EOFError):
        opened.read("a/b", 4990, 11)
    assert opened.read("a/b", 4990, 0) == b""
    assert s3.gets == []


def test_settings_of_the_machine(s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERCUT_S3_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("HYPERCUT_S3_MEMORY_MB", "0")
    opened = clip_source(URI)
    opened.read("a/b", 0, 10)
    assert opened.cache is not None
    assert opened.cache.size == len(DATA) + 4
    monkeypatch.setenv("HYPERCUT_S3_PATIENCE", "soon")
    with pytest.raises(BadParameters, match="HYPERCUT_S3_PATIENCE is 'soon'"):
        clip_source(URI)


def test_reading_ahead_is_bounded_and_each_byte_comes_once(s3: FaultyS3) -> None:
    s3.objects["store/a/b"] = DATA * 1000
    opened = clip_source(URI, memory_mb=1, patience=5.0)
    wanted = [("a/b", k * 200_000, 200_000) for k in range(20)]
    opened.prefetch(wanted)
    opened.prefetch(wanted[-2:])  # are asked for already
    assert opened._ahead_bytes <= 2**20
    assert len(opened._ahead) == 5
    for key, offset, length in wanted[-2:]:
        assert opened.read(key, offset, length) == (DATA * 1000)[offset:offset + length]
    assert len(opened._ahead) == 3
    assert sum(read[1].startswith("bytes=3800000-") for read in s3.gets) == 1


def test_a_source_that_nobody_uses_leaves_no_threads(s3: FaultyS3, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    opened = source("exact", tmp_path)
    opened.prefetch([("a/b", k, 10) for k in range(20)])
    assert opened.read("a/b", 3, 10) == DATA[3:13]
    mine = [thread for thread in threading.enumerate() if thread not in before and thread.name.endswith("(_work)")]
    assert len(mine) == clip_bytes.READERS
    del opened
    for thread in mine:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in mine)


READER = """
import pickle, sys
source = pickle.load(open(sys.argv[1], "rb"))
sys.stdout.buffer.write(source.read("a/b", 100, 1000))
"""


def test_it_travels_to_another_process_without_keys(s3: FaultyS3, tmp_path: Path) -> None:
    opened = source("disk", tmp_path)
    opened.read("a/b", 0, 10)
    data = pickle.dumps(opened)
    assert SECRET.encode() not in data
    assert b"testing" not in data
    assert b"Signature" not in data
    (tmp_path / "source.pickle").write_bytes(data)
    done = subprocess.run([sys.executable, "-c", READER, str(tmp_path / "source.pickle")], capture_output=True,
                          check=True, timeout=300, cwd=Path(__file__).parents[2])
    assert done.stdout == DATA[100:1100]
    s3.objects["store/a/b"] = DATA[::-1]  # the other process has the pins of this one
    (tmp_path / "exact.pickle").write_bytes(pickle.dumps(clip_bytes.S3Bytes(URI, 0, None, 1.0, opened._pins)))
    done = subprocess.run([sys.executable, "-c", READER, str(tmp_path / "exact.pickle")], capture_output=True,
                          check=False, timeout=300, cwd=Path(__file__).parents[2])
    assert b"the store changed while it was read" in done.stderr


def test_a_forked_process_reads_on_connections_of_its_own(s3: FaultyS3, tmp_path: Path) -> None:
    opened = source("exact", tmp_path)
    opened.read("a/b", 0, 10)
    kept = opened.ranges._idle[0]
    child = os.fork()
    if child == 0:
        good = opened.read("a/b", 50, 100) == DATA[50:150] and kept not in opened.ranges._idle
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert opened.read("a/b", 7, 100) == DATA[7:107]


def test_threads_share_a_source(s3: FaultyS3, tmp_path: Path) -> None:
    opened, wrong = source("exact", tmp_path), []
    s3.faults.extend([halved, dropped] * 5)

    def read(seed: int) -> None:
        for offset in np.random.default_rng(seed).integers(0, 4000, 30).tolist():
            if opened.read("a/b", offset, 1000) != DATA[offset:offset + 1000]:
                wrong.append(offset)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert opened.ranges.requests == 180
    assert len(opened.ranges._idle) <= 6
