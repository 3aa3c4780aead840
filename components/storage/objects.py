"""Files and objects by one name: a local path, or an s3:// URI."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from components.storage.s3_client import SCHEME, ask, explained, is_remote, split_uri
from hypercut_core.errors import StorageError
from hypercut_core.files import atomic_directory, atomic_file

PART = 64 * 2**20  # bytes; larger files go up in parts of this size


@contextlib.contextmanager
def open_read(uri: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file or object for reading bytes; an object is streamed, not seekable.

    Raises:
        StorageError: it is not there, or may not be read.
    """
    if not is_remote(uri):
        with contextlib.ExitStack() as stack:
            try:
                stream = stack.enter_context(Path(uri).open("rb"))
            except OSError as error:
                raise StorageError(f"it cannot be opened ({error.strerror})", where=uri,
                                   remedy="check the path and its permissions") from error
            yield stream
        return
    bucket, key = split_uri(os.fspath(uri))
    body = ask(os.fspath(uri), lambda s3: s3.get_object(Bucket=bucket, Key=key)["Body"])
    with contextlib.closing(body):
        yield body


def exists(uri: str | os.PathLike[str]) -> bool:
    """Whether there is such a file, folder, object or prefix with objects."""
    if not is_remote(uri):
        return Path(uri).exists()
    bucket, key = split_uri(os.fspath(uri))
    page = ask(os.fspath(uri), lambda s3: s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1000))
    return any(_is_or_below(item["Key"], key) for item in page.get("Contents", []))


def list_files(uri: str | os.PathLike[str]) -> list[str]:
    """All files below a folder or prefix, sorted, relative to it; "" for a single file or object."""
    if not is_remote(uri):
        path = Path(uri)
        if path.is_file():
            return [""]
        return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return sorted(listing(os.fspath(uri)))


def listing(uri: str) -> dict[str, tuple[int, str]]:
    """Size and ETag of all objects below a prefix, by their names relative to it."""
    bucket, key = split_uri(uri)

    def pages(s3: Any) -> list[dict[str, Any]]:
        found = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        return [item for page in found for item in page.get("Contents", [])]

    items = {item["Key"]: (int(item["Size"]), str(item.get("ETag", ""))) for item in ask(uri, pages)}
    prefix = key.rstrip("/")
    below = {name[len(prefix):].lstrip("/"): facts for name, facts in items.items() if _is_or_below(name, key)}
    return {name: facts for name, facts in below.items()
            if not name.endswith("/") and (name or prefix in items)}


def download(uri: str, target: Path) -> Path:
    """Copy an object to a file, or all objects below a prefix to a folder; whole or not at all.

    Raises:
        StorageError: nothing there, refused, a key that would leave `target`, or the disk is full.
    """
    bucket, key = split_uri(uri)
    names = list_files(uri)
    if not names:
        raise StorageError("there is nothing at this URI", where=uri, remedy="check bucket and key")

    def fetch(object_key: str, file: Path) -> None:
        ask(f"{SCHEME}{bucket}/{object_key}", lambda s3: s3.download_file(bucket, object_key, os.fspath(file)))

    if names == [""]:
        with atomic_file(target) as partial:
            fetch(key, partial)
        return target
    with atomic_directory(target) as folder:
        for name in names:
            parts = PurePosixPath(name).parts
            if not parts or ".." in parts or name.startswith("/"):
                raise StorageError(f"the object '{name}' would be written outside its folder", where=uri,
                                   remedy="rename the object")
            file = folder.joinpath(*parts)
            file.parent.mkdir(parents=True, exist_ok=True)
            fetch(f"{key.rstrip('/')}/{name}" if key else name, file)
    return target


def upload(path: Path, uri: str) -> None:
    """Copy a file to an object, or a folder's files to objects below a prefix.

    Raises:
        StorageError: `path` is not there, or writing is refused.
    """
    bucket, key = split_uri(uri)
    if not path.exists():
        raise StorageError("there is nothing to upload", where=path, remedy="check the path")
    for name in list_files(path):
        target = "/".join(part for part in (key.rstrip("/"), name) if part)
        with (path / name if name else path).open("rb") as stream:
            put(bucket, target, stream)


def put(bucket: str, key: str, stream: IO[bytes], wait: float | None = None) -> None:
    """Write an object, whole or not at all; the server checks every part's MD5.

    Args:
        wait: seconds to wait for a server that is away; default: what the environment says.

    Raises:
        StorageError: writing is refused, or the server was away for too long.
    """
    uri, first = f"{SCHEME}{bucket}/{key}", stream.read(PART)
    second = stream.read(1) if len(first) == PART else b""
    if not second:
        ask(uri, lambda s3: s3.put_object(Bucket=bucket, Key=key, Body=first, ContentMD5=_md5(first)), wait)
        return
    upload_id = str(ask(uri, lambda s3: s3.create_multipart_upload(Bucket=bucket, Key=key), wait)["UploadId"])
    whole = {"Bucket": bucket, "Key": key, "UploadId": upload_id}
    try:
        parts: list[dict[str, Any]] = []
        data = first
        while data:
            number = len(parts) + 1
            done = ask(uri, lambda s3, data=data, number=number: s3.upload_part(  # type: ignore[misc]
                **whole, PartNumber=number, Body=data, ContentMD5=_md5(data)), wait)
            parts.append({"ETag": done["ETag"], "PartNumber": number})
            data = second + stream.read(PART - len(second))
            second = b""
        ask(uri, lambda s3: s3.complete_multipart_upload(**whole, MultipartUpload={"Parts": parts}), wait)
    except BaseException:
        with contextlib.suppress(Exception), explained(uri):
            ask(uri, lambda s3: s3.abort_multipart_upload(**whole), wait=0)
        raise


def etag_of(path: Path) -> str:
    """The ETag that `put` gives a file's object: its MD5, or that of its parts' MD5s and their number."""
    digests = []
    with path.open("rb") as stream:
        while data := stream.read(PART):
            digests.append(hashlib.md5(data, usedforsecurity=False).digest())
    if len(digests) > 1:
        return f'"{hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"'
    return f'"{(digests or [hashlib.md5(b"", usedforsecurity=False).digest()])[0].hex()}"'


def delete(bucket: str, keys: list[str], wait: float | None = None) -> None:
    """Delete objects; those that are not there are fine."""
    for key in keys:
        ask(f"{SCHEME}{bucket}/{key}", lambda s3, key=key: s3.delete_object(  # type: ignore[misc]
            Bucket=bucket, Key=key), wait)


def local_path(uri: str | os.PathLike[str], cache: Path) -> Path:
    """A local path with the contents of `uri`: itself, or its copy below `cache`, downloaded once."""
    if not is_remote(uri):
        return Path(uri)
    target = cache / cache_name(os.fspath(uri))
    return target if target.exists() else download(os.fspath(uri), target)


def cache_name(uri: str) -> str:
    """Unique for the URI, readable, and with its suffix, by which videos are told."""
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_"
                   for letter in uri.rstrip("/").split("/")[-1])[-60:].lstrip(".")
    return f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}-{name}"


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii")


def _is_or_below(name: str, key: str) -> bool:
    return not key or name == key or name.startswith(key.rstrip("/") + "/")
