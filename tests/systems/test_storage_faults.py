"""Training on the real S3 server, and what can go wrong with it: each fault is a test, and notes its row.

A training survives with the weights of an undisturbed one, or ends with one clear error and goes on to those
same weights once that is mended. The last good checkpoint can be loaded after each of them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fault_table import FaultRecord
from local_services import ROOT, clean_environment
from s3_training import STEPS, Case, Server, Steps, good_checkpoints, made_clips, names, place_of, s3_server_alone

from components.assign_order.step import OrderConfig, assign_order
from components.storage import S3Files, s3_client, upload_clips
from hypercut_core.errors import BadClipStore, HypercutError, StorageError
from hypercut_core.files import LocalFiles
from hypercut_core.ordering.encoder import EncoderConfig, build_encoder, save_encoder

pytestmark = pytest.mark.system

AWAY = 20.0  # s
MIDDLE = 10  # the step after which things go wrong
BUCKET = "s3://hypercut"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3_server_alone(tmp_path_factory.mktemp("s3") / "state") as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """With its keys and address in the environment; nothing of a store is kept in memory or on disk."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_", "HYPERCUT_S3")):
            monkeypatch.delenv(name)
    for name, value in {**running.env, "HYPERCUT_S3_MEMORY_MB": "0"}.items():
        monkeypatch.setenv(name, value)
    s3_client.client.cache_clear()
    yield running
    running.wait()
    s3_client.client.cache_clear()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    torch.manual_seed(0)
    save_encoder(folder / "encoder.safetensors", build_encoder(EncoderConfig(width=8, blocks=1, features=16)), {})
    case = Case(made_clips(folder / "clips"), folder / "orders.parquet", folder / "encoder.safetensors")
    assign_order(case.clips, case.encoder, OrderConfig(threads=1), case.orders, folder / "orders.json")
    case.weights, ended = case.train(folder)
    assert list(ended) == list(range(1, STEPS + 1))
    return case


@pytest.fixture
def on_s3(server: Server, case: Case, request: pytest.FixtureRequest) -> str:
    """The clips on S3, and nothing else below the test's prefix."""
    uri = f"{BUCKET}/{request.node.name.translate(str.maketrans('[]-', '___'))}"
    upload_clips(case.clips, f"{uri}/clips")
    return f"{uri}/clips"


class Killed(BaseException):
    """A process that dies cleans nothing up and passes no error on."""


def die() -> None:
    raise Killed


def computed_twice(first: dict[int, float], second: dict[int, float]) -> int:
    return len(set(first) & set(second))


def test_a_training_on_s3_is_the_one_on_disk(case: Case, on_s3: str, tmp_path: Path) -> None:
    weights, _ = case.train(tmp_path, on_s3, f"{BUCKET}/ends/checkpoints")
    assert weights == case.weights
    assert S3Files(f"{BUCKET}/ends/checkpoints").names() == []
    bucket, prefix = s3_client.split_uri(f"{BUCKET}/ends")
    assert "Contents" not in s3_client.client().list_objects_v2(Bucket=bucket, Prefix=prefix)  # it is over


@pytest.mark.parametrize(("how", "seconds"), [("hung", AWAY), ("killed", 3.0)])
def test_server_away_while_clips_are_read(server: Server, case: Case, on_s3: str, tmp_path: Path, how: str,
                                          seconds: float, capsys: pytest.CaptureFixture[str],
                                          fault_record: FaultRecord) -> None:
    weights, ended = case.train(tmp_path, on_s3, each_step=Steps().then(MIDDLE, lambda: server.away(how, seconds)))
    assert weights == case.weights
    assert list(ended) == list(range(1, STEPS + 1))
    recovered = next(when for when in ended.values() if when > server.back) - server.back
    if how == "killed":
        said = capsys.readouterr().err
        assert said.count("the S3 server does not answer as it should") == 1
        assert said.count("answers again") == 1
    fault_record(fault=f"S3 server {how} for {seconds:.0f} s while clips are read", tries=1, survived=1,
                 lost_steps=0, recovery_seconds=recovered)


@pytest.mark.parametrize(("how", "seconds"), [("killed", AWAY), ("hung", 3.0)])
def test_server_away_while_a_checkpoint_is_written(server: Server, case: Case, tmp_path: Path, how: str,
                                                   seconds: float, fault_record: FaultRecord) -> None:
    place = f"{BUCKET}/away-{how}"
    weights, ended = case.train(tmp_path, checkpoints=place,
                                each_step=Steps().then(MIDDLE, lambda: server.away(how, seconds)))
    assert weights == case.weights
    assert list(ended) == list(range(1, STEPS + 1))
    recovered = next(when for when in ended.values() if when > server.back) - server.back
    fault_record(fault=f"S3 server {how} for {seconds:.0f} s while checkpoints are written", tries=1, survived=1,
                 lost_steps=0, recovery_seconds=recovered)


def test_server_away_for_longer_than_the_patience(server: Server, case: Case, on_s3: str, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch, fault_record: FaultRecord) -> None:
    """It ends with an error that names the setting, and goes on from its last checkpoint afterwards."""
    monkeypatch.setenv("HYPERCUT_S3_PATIENCE", "1")
    first = Steps()
    with pytest.raises(StorageError, match="HYPERCUT_S3_PATIENCE"):
        case.train(tmp_path, on_s3, each_step=first.then(MIDDLE, lambda: server.away("killed", 4.0)))
    server.wait()
    [folder] = (tmp_path / "work").iterdir()
    assert good_checkpoints(LocalFiles(folder))[-1] == max(first)
    weights, second = case.train(tmp_path, on_s3)
    assert weights == case.weights
    fault_record(fault="S3 server away for longer than HYPERCUT_S3_PATIENCE", tries=1, survived=0,
                 lost_steps=computed_twice(first, second))


@pytest.mark.parametrize("when", ["before", "in the middle"])
def test_truncated_object(server: Server, case: Case, on_s3: str, tmp_path: Path, when: str,
                          fault_record: FaultRecord) -> None:
    bucket, prefix = s3_client.split_uri(on_s3)
    client = s3_client.client()

    def cut() -> None:
        for shard in range(6):
            whole = (case.clips / f"48x48/c/{shard}/0/0/0/0").read_bytes()
            client.put_object(Bucket=bucket, Key=f"{prefix}/48x48/c/{shard}/0/0/0/0", Body=whole[:len(whole) // 2])

    first = Steps()
    if when == "before":
        cut()
        with pytest.raises(BadClipStore, match=r"truncated.*run synthesize-blur again"):
            case.train(tmp_path, on_s3)
    else:
        with pytest.raises(BadClipStore, match=r"the store changed while it was read.*run the step again"):
            case.train(tmp_path, on_s3, each_step=first.then(MIDDLE, cut))
        [folder] = (tmp_path / "work").iterdir()
        assert good_checkpoints(LocalFiles(folder))[-1] == max(first)
    assert not (tmp_path / "model.safetensors").exists()
    upload_clips(case.clips, on_s3)  # sends what differs
    weights, second = case.train(tmp_path, on_s3)
    assert weights == case.weights
    fault_record(fault=f"objects of the clip store truncated {when}", tries=1, survived=0,
                 lost_steps=computed_twice(first, second))


def test_store_replaced_in_the_middle(case: Case, on_s3: str, tmp_path: Path, fault_record: FaultRecord) -> None:
    others, first = made_clips(tmp_path / "others", seed=1), Steps()
    with pytest.raises(BadClipStore, match=r"the store changed while it was read.*run the step again"):
        case.train(tmp_path / "one", on_s3, each_step=first.then(MIDDLE, lambda: upload_clips(others, on_s3)))
    upload_clips(case.clips, on_s3)
    weights, second = case.train(tmp_path / "one", on_s3)
    assert weights == case.weights
    fault_record(fault="clip store replaced by another one in the middle", tries=1, survived=0,
                 lost_steps=computed_twice(first, second))


def test_wrong_keys_before(server: Server, on_s3: str, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                           fault_record: FaultRecord) -> None:
    """As a user sees it: one paragraph, exit code 2, nothing written, no key shown."""
    wrong = {**server.env, "AWS_SECRET_ACCESS_KEY": "w" * 40}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "assign-order", "--clips", on_s3, "--encoder", case.encoder,
         "-w", tmp_path / "ws"], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        env={**clean_environment(), **wrong})
    assert done.returncode == 2, done.stderr
    assert "refuses the credentials" in done.stderr
    assert "To mend it: set AWS_ACCESS_KEY_ID" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [name for name, key in wrong.items() if "KEY" in name and key in done.stderr]
    assert not (tmp_path / "ws").exists()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    s3_client.client.cache_clear()
    with pytest.raises(StorageError, match=r"refuses the credentials \(InvalidAccessKeyId\)"):
        case.train(tmp_path, on_s3)
    fault_record(fault="wrong S3 keys from the beginning", tries=2, survived=0)


@pytest.mark.parametrize("what", ["clips", "checkpoints"])
def test_keys_revoked_in_the_middle(server: Server, case: Case, on_s3: str, tmp_path: Path, what: str,
                                    capsys: pytest.CaptureFixture[str], fault_record: FaultRecord) -> None:
    place, first = f"{BUCKET}/revoked-{what}", Steps()
    try:
        with pytest.raises(StorageError, match=r"refuses the credentials.*AWS_ACCESS_KEY_ID"):
            case.train(tmp_path, on_s3 if what == "clips" else "", place,
                       first.then(MIDDLE, lambda: server.user("suspend")))
    finally:
        server.user("enable")
    reached = good_checkpoints(place_of(place))[-1]
    assert reached == MIDDLE
    if what == "checkpoints":  # it trains on while it can hope to write the next one
        assert max(first) in (STEPS, STEPS - 1)
        assert "the training goes on" in capsys.readouterr().err
    weights, second = case.train(tmp_path, on_s3 if what == "clips" else "", place)
    assert weights == case.weights
    fault_record(fault=f"S3 keys revoked in the middle ({what})", tries=1, survived=0,
                 lost_steps=computed_twice(first, second))


def test_disk_full_for_checkpoints(case: Case, tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str],
                                   fault_record: FaultRecord) -> None:
    """Full for a while: a warning. Full to the end: an error; the last good checkpoint stays and is gone on from."""
    other = small_disk / "other"

    def fill() -> None:
        with contextlib.suppress(OSError), other.open("wb", buffering=0) as stream:
            while stream.write(bytes(4096)) == 4096:
                pass

    def each_step(step: int) -> None:
        Steps().then(MIDDLE, fill)(step)
        Steps().then(MIDDLE + 3, other.unlink)(step)

    weights, ended = case.train(tmp_path / "a", checkpoints=small_disk / "a", each_step=each_step)
    assert weights == case.weights
    assert "no checkpoint at step 11, the training goes on" in capsys.readouterr().err
    fault_record(fault="disk full for a while when checkpoints are written", tries=1, survived=1, lost_steps=0,
                 recovery_seconds=ended[MIDDLE + 4] - ended[MIDDLE + 3])

    first = Steps()
    with pytest.raises(StorageError, match="the disk is full"):
        case.train(tmp_path / "b", checkpoints=small_disk / "b", each_step=first.then(MIDDLE, fill))
    [folder] = (small_disk / "b").iterdir()
    assert good_checkpoints(LocalFiles(folder))[-1] == MIDDLE
    assert not [path for path in small_disk.rglob("*") if ".partial-" in path.name]
    other.unlink()
    weights, second = case.train(tmp_path / "b", checkpoints=small_disk / "b")
    assert weights == case.weights
    fault_record(fault="disk full to the end when checkpoints are written", tries=1, survived=0,
                 lost_steps=computed_twice(first, second))


def test_disk_full_for_the_cache_of_clips(case: Case, on_s3: str, tmp_path: Path, small_disk: Path,
                                          monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                          fault_record: FaultRecord) -> None:
    monkeypatch.setenv("HYPERCUT_S3_CACHE", str(small_disk / "cache"))
    (small_disk / "other").write_bytes(bytes(900 * 1024))
    weights, _ = case.train(tmp_path, on_s3)
    assert weights == case.weights
    assert capsys.readouterr().err.count("the cache takes no more") == 1
    assert not list(small_disk.rglob("*.partial"))
    fault_record(fault="disk full for the cache of clips", tries=1, survived=1, lost_steps=0)


def test_checkpoint_cut_off_half_way(case: Case, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str],
                                     fault_record: FaultRecord) -> None:
    """An upload in parts that nobody finished, and a truncated object in place of the newest checkpoint."""
    place = f"{BUCKET}/cut"
    with pytest.raises(Killed):
        case.train(tmp_path, checkpoints=place, each_step=Steps().then(MIDDLE, die))
    kept = place_of(place)
    last = names(kept)[-1]
    bucket, prefix = s3_client.split_uri(kept.name)
    client = s3_client.client()

    data, key = kept.read(last), f"{prefix}/{last.replace(last.split('-')[1], f'{MIDDLE + 1:08d}')}"
    begun = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    client.upload_part(Bucket=bucket, Key=key, UploadId=begun, PartNumber=1, Body=data[:len(data) // 2])
    assert names(kept)[-1] == last
    resumed, again = Steps(), time.monotonic()
    with pytest.raises(Killed):
        case.train(tmp_path, checkpoints=place, each_step=resumed.then(MIDDLE + 4, die))
    assert min(resumed) == MIDDLE + 1
    fault_record(fault="killed while a checkpoint went up in parts", tries=1, survived=1, lost_steps=0,
                 recovery_seconds=resumed[MIDDLE + 1] - again)

    newest, before = names(kept)[-1], good_checkpoints(kept)[-2]
    client.put_object(Bucket=bucket, Key=f"{prefix}/{newest}", Body=kept.read(newest)[:1000])
    again = time.monotonic()
    weights, ended = case.train(tmp_path, checkpoints=place)
    assert weights == case.weights
    assert min(ended) == before + 1
    assert f"checkpoint of step {MIDDLE + 4} in {kept.name} is passed over" in capsys.readouterr().err
    fault_record(fault="newest checkpoint truncated", tries=1, survived=1, lost_steps=computed_twice(resumed, ended),
                 recovery_seconds=min(ended.values()) - again)


def test_a_training_that_ends_in_an_error_says_so_once(case: Case, tmp_path: Path, server: Server) -> None:
    """Whatever the fault, the error is one of ours: one paragraph with a remedy."""
    with pytest.raises(HypercutError) as caught:
        replace(case, clips=f"{BUCKET}/nothing").train(tmp_path)
    assert "run synthesize-blur first" in str(caught.value)
