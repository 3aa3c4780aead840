from __future__ import annotations

import socket
import traceback
from datetime import timedelta
from pathlib import Path

import pytest
from made_footage import pan, write_video

from components import storage
from components.storage import objects, s3_client, s3_files
from hypercut_core.clips.manifest import read_manifest
from hypercut_core.errors import StorageError
from hypercut_core.files import FileStore, LocalFiles

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
        with pytest.raises(StorageError, match=r"AWS_ENDPOINT_URL.*HYPERCUT_S3_PATIENCE") as caught:
            storage.exists(f"{bucket}/x")
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3_client.client.cache_clear()
    with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID"):
        storage.exists(f"{bucket}/x")


@pytest.fixture(params=["folder", "bucket"])
def files(request: pytest.FixtureRequest, bucket: str, tmp_path: Path) -> FileStore:
    if request.param == "folder":
        return LocalFiles(tmp_path / "some/place")
    return storage.S3Files(f"{bucket}/some/place")


def test_a_place_of_files(files: FileStore) -> None:
    """A folder and a prefix keep the same promises."""
    assert files.names() == []
    with pytest.raises(FileNotFoundError):
        files.read("a")
    for name, data in (("b.bin", b"1"), ("a.bin", b""), ("b.bin", b"22" * 1000)):
        files.write(name, data)
    assert files.names() == ["a.bin", "b.bin"]
    assert files.read("a.bin") == b""
    assert files.read("b.bin") == b"22" * 1000
    files.delete("b.bin")
    files.delete("b.bin")
    assert files.names() == ["a.bin"]


def test_only_the_prefix_itself_is_the_place(bucket: str) -> None:
    for key in ("place/a", "place/sub/b", "places/c", "place.d"):
        s3_client.client().put_object(Bucket="footage", Key=key, Body=b"x")
    assert storage.S3Files(f"{bucket}/place/").names() == ["a"]


def test_large_files_go_up_in_parts_and_an_interrupted_one_is_not_there(
        bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = 5 * 2**20  # the smallest that S3 takes
    monkeypatch.setattr(objects, "PART", part)
    files = storage.S3Files(f"{bucket}/place")
    for size in (part, part + 1, 2 * part, 2 * part + 100):
        data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        files.write("large", data)
        assert files.read("large") == data
        (tmp_path / "large").write_bytes(data)
        assert objects.listing(f"{bucket}/place")["large"] == (size, objects.etag_of(tmp_path / "large"))

    client, sent = s3_client.client(), []
    upload_part = client.upload_part

    def breaks(**given: object) -> object:
        sent.append(given["PartNumber"])
        if len(sent) == 2:
            raise KeyboardInterrupt
        return upload_part(**given)

    monkeypatch.setattr(client, "upload_part", breaks)
    with pytest.raises(KeyboardInterrupt):
        files.write("other", data)
    assert files.names() == ["large"]
    assert "Uploads" not in client.list_multipart_uploads(Bucket="footage")


def test_parts_that_a_killed_process_left_are_removed_when_they_are_old(
        bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PART", 5 * 2**20)
    client = s3_client.client()
    for key in ("place/mine", "other/theirs"):
        client.create_multipart_upload(Bucket="footage", Key=key)
    data = b"x" * (objects.PART + 1)
    monkeypatch.setattr(s3_files, "ABANDONED", timedelta(days=40000))  # the double's uploads are of 2010
    storage.S3Files(f"{bucket}/place").write("new", data)
    assert len(client.list_multipart_uploads(Bucket="footage")["Uploads"]) == 2  # it may be alive
    monkeypatch.setattr(s3_files, "ABANDONED", timedelta(hours=1))
    storage.S3Files(f"{bucket}/place").write("new", data)
    left = client.list_multipart_uploads(Bucket="footage")["Uploads"]
    assert [upload["Key"] for upload in left] == ["other/theirs"]
    client.abort_multipart_upload(Bucket="footage", Key="other/theirs", UploadId=left[0]["UploadId"])


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
