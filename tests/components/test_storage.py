from __future__ import annotations

import socket
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_footage import pan, write_video

from components import storage
from components.storage import objects, s3_client
from hypercut_core.clips.manifest import read_manifest
from hypercut_core.errors import StorageError

SECRET = "secret-that-must-not-show"


def test_local_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.bin").write_bytes(b"123")
    (tmp_path / "b.bin").write_bytes(b"4")
    assert storage.list_files(tmp_path) == ["a/x.bin", "b.bin"]
    assert storage.list_files(tmp_path / "b.bin") == [""]
    assert storage.exists(tmp_path / "a")
    assert not storage.exists(tmp_path / "c")
    with storage.open_read(tmp_path / "a/x.bin") as stream:
        assert stream.read() == b"123"
    with pytest.raises(StorageError, match="cannot be opened"), storage.open_read(tmp_path / "none"):
        pass
    assert storage.local_path(tmp_path, tmp_path / "cache") == tmp_path
    assert storage.fetch(str(tmp_path), "", tmp_path / "cache") == tmp_path


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "s3://bucket/a/../b", "s3://bucket/a\0b"])
def test_uris_that_are_none(uri: str) -> None:
    with pytest.raises(StorageError, match="s3://<bucket>/<key>"):
        storage.split_uri(uri)


def test_a_uri_with_a_login_is_refused_and_not_shown(tmp_path: Path) -> None:
    for ask in (storage.exists, storage.list_files, lambda uri: storage.fetch(uri, "", tmp_path)):
        with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID") as caught:
            ask(f"s3://key:{SECRET}@bucket/x")
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert list(tmp_path.iterdir()) == []


def test_a_revision_of_a_bucket(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="revision"):
        storage.fetch("s3://bucket/a", "v1", tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    double = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    double.start()
    host, port = double.get_host_and_port()
    yield f"http://{host}:{port}"
    double.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import boto3

    for name, value in (("HYPERCUT_S3_PATIENCE", "0"), ("AWS_ENDPOINT_URL", server), ("AWS_ACCESS_KEY_ID", "testing"),
                        ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_DEFAULT_REGION", "us-east-1"),
                        ("AWS_CONFIG_FILE", "/nonexistent"), ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")):
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_PROFILE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    s3_client.client.cache_clear()
    client = boto3.client("s3", endpoint_url=server)
    client.create_bucket(Bucket="footage")
    yield "s3://footage"
    for item in client.list_objects_v2(Bucket="footage").get("Contents", []):
        client.delete_object(Bucket="footage", Key=item["Key"])
    s3_client.client.cache_clear()


def test_there_and_back(bucket: str, tmp_path: Path) -> None:
    for name in ("in/hand/a.bin", "in/b.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 1000)
    storage.upload(tmp_path / "in", f"{bucket}/set")
    storage.upload(tmp_path / "in/b.bin", f"{bucket}/set2/b.bin")
    assert storage.list_files(f"{bucket}/set") == ["b.bin", "hand/a.bin"]  # and nothing of set2
    assert storage.list_files(f"{bucket}/set/b.bin") == [""]
    assert storage.exists(f"{bucket}/set")
    assert not storage.exists(f"{bucket}/se")
    with storage.open_read(f"{bucket}/set/b.bin") as stream:
        assert stream.read() == b"in/b.bin" * 1000
    local = storage.local_path(f"{bucket}/set", tmp_path / "cache")
    assert (local / "hand/a.bin").read_bytes() == b"in/hand/a.bin" * 1000
    assert storage.local_path(f"{bucket}/set", tmp_path / "cache") == local
    assert storage.local_path(f"{bucket}/set/b.bin", tmp_path / "cache").suffix == ".bin"


def test_what_is_not_there(bucket: str, tmp_path: Path) -> None:
    for uri, says in ((f"{bucket}/none", "nothing at this URI"), ("s3://nobucket/x", "no such bucket")):
        with pytest.raises(StorageError, match=says):
            storage.download(uri, tmp_path / "x")
    with pytest.raises(StorageError, match="no such object"), storage.open_read(f"{bucket}/none"):
        pass
    with pytest.raises(StorageError, match="no such bucket"):
        storage.upload(Path(__file__), "s3://nobucket/x")
    assert list(tmp_path.iterdir()) == []


def test_object_names_cannot_leave_the_folder(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.upload(Path(__file__), f"{bucket}/set/fine")
    monkeypatch.setattr(objects, "list_files", lambda uri: ["fine", "../outside"])
    with pytest.raises(StorageError, match="outside"):
        storage.download(f"{bucket}/set", tmp_path / "in/target")
    assert not (tmp_path / "in/outside").exists()
    assert not (tmp_path / "in/target").exists()


@pytest.mark.parametrize(("code", "says"), [("SignatureDoesNotMatch", "refuses the credentials"),
                                            ("AccessDenied", "refuses the credentials"),
                                            ("SlowDown", "did not answer as it should"),
                                            ("InvalidRequest", "refuses the request")])
def test_refusals_show_no_secret(bucket: str, monkeypatch: pytest.MonkeyPatch, code: str, says: str) -> None:
    from botocore.exceptions import ClientError

    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": code, "Message": SECRET}}, "GetObject")

    monkeypatch.setattr(s3_client.client(), "get_object", refuse)
    with pytest.raises(StorageError, match=says) as caught, storage.open_read(f"{bucket}/x"):
        pass
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_server_and_no_keys(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:{SECRET}@127.0.0.1:{unused.getsockname()[1]}")
        s3_client.client.cache_clear()
        with pytest.raises(StorageError, match="AWS_ENDPOINT_URL") as caught:
            storage.exists(f"{bucket}/x")
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3_client.client.cache_clear()
    with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID"):
        storage.exists(f"{bucket}/x")


def test_footage_is_collected_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    from components.collect_footage.step import CollectConfig, collect_footage

    for seed in range(3):
        write_video(tmp_path / f"in/hand/{seed}.mp4", pan(seed, 8, 2.0, 48, 64))
    storage.upload(tmp_path / "in", f"{bucket}/clips")
    out = tmp_path / "data/footage.json"
    collect_footage(CollectConfig(source=f"{bucket}/clips"), out, 0)
    manifest = read_manifest(out)
    assert [source.uri for source in manifest.sources] == [f"{bucket}/clips/hand/{n}.mp4" for n in range(3)]
    assert [manifest.relative(source) for source in manifest.sources] == [f"hand/{n}.mp4" for n in range(3)]
    assert len(list((tmp_path / "work/footage").iterdir())) == 1
