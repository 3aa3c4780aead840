"""One opener for local paths and s3:// URIs, and for footage at a DVC revision.

A revision is a commit, tag or branch of the repository here, or of any other: `git+<address>@<revision>`.

The only module that knows boto3, and the only one that reads the S3 variables of the environment:
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`,
`AWS_DEFAULT_REGION` (boto3's own) and `MLFLOW_S3_ENDPOINT_URL` as a last resort.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from components.redaction import has_login, shown
from hypercut_core.errors import HypercutError, MissingExtra, StorageError
from hypercut_core.files import atomic_directory, atomic_file

SCHEME = "s3://"
_NO_BUCKET = "check the name in the URI, or create the bucket"
_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may read and write there"


def is_remote(uri: str | os.PathLike[str]) -> bool:
    """Whether the URI is of S3; anything else is a local path."""
    return os.fspath(uri).startswith(SCHEME)


def split_uri(uri: str) -> tuple[str, str]:
    """s3://bucket/some/key → (bucket, key).

    Raises:
        StorageError: no bucket, or a key that could not be a path below a folder.
    """
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if has_login(uri):
        raise StorageError("the URI holds a login, which would be recorded", where=shown(uri), remedy=_KEYS)
    if not bucket or ".." in key.split("/") or "\0" in key:
        raise StorageError("this is no URI of the form s3://bucket/key", where=uri,
                           remedy="write s3://<bucket>/<key>, without '..'")
    return bucket, key


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
    with _explained(uri):
        body = _client().get_object(Bucket=bucket, Key=key)["Body"]
    with contextlib.closing(body):
        yield body


def exists(uri: str | os.PathLike[str]) -> bool:
    """Whether there is such a file, folder, object or prefix with objects."""
    if not is_remote(uri):
        return Path(uri).exists()
    bucket, key = split_uri(os.fspath(uri))
    with _explained(uri):
        page = _client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1000)
    return any(_is_or_below(item["Key"], key) for item in page.get("Contents", []))


def list_files(uri: str | os.PathLike[str]) -> list[str]:
    """All files below a folder or prefix, sorted, relative to it; "" for a single file or object."""
    if not is_remote(uri):
        path = Path(uri)
        if path.is_file():
            return [""]
        return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    bucket, key = split_uri(os.fspath(uri))
    with _explained(uri):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    prefix = key.rstrip("/")
    below = [name[len(prefix):].lstrip("/") for name in keys if _is_or_below(name, key)]
    return sorted(name for name in below if not name.endswith("/") and (name or prefix in keys))


def download(uri: str, target: Path) -> Path:
    """Copy an object to a file, or all objects below a prefix to a folder; whole or not at all.

    Raises:
        StorageError: nothing there, refused, a key that would leave `target`, or the disk is full.
    """
    bucket, key = split_uri(uri)
    names = list_files(uri)
    if not names:
        raise StorageError("there is nothing at this URI", where=uri, remedy="check bucket and key")
    if names == [""]:
        with _explained(uri), atomic_file(target) as partial:
            _client().download_file(bucket, key, os.fspath(partial))
        return target
    with _explained(uri), atomic_directory(target) as folder:
        for name in names:
            parts = PurePosixPath(name).parts
            if not parts or ".." in parts or name.startswith("/"):
                raise StorageError(f"the object '{name}' would be written outside its folder", where=uri,
                                   remedy="rename the object")
            file = folder.joinpath(*parts)
            file.parent.mkdir(parents=True, exist_ok=True)
            _client().download_file(bucket, f"{key.rstrip('/')}/{name}" if key else name, os.fspath(file))
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
        with _explained(f"{SCHEME}{bucket}/{target}"):
            _client().upload_file(os.fspath(path / name if name else path), bucket, target)


def local_path(uri: str | os.PathLike[str], cache: Path) -> Path:
    """A local path with the contents of `uri`: itself, or its copy below `cache`, downloaded once."""
    if not is_remote(uri):
        return Path(uri)
    target = cache / _cache_name(os.fspath(uri))
    return target if target.exists() else download(os.fspath(uri), target)


def fetch(uri: str, revision: str, cache: Path) -> Path:
    """A local path with `uri` as it lies there, or, if `revision` is set, as git and DVC have it then.

    Args:
        uri: with a revision: the path inside its repository.
        revision: "", a revision of the repository here, or `git+<address>@<revision>`.

    Raises:
        StorageError: no such revision or path, or it may not be read.
        MissingExtra: a revision is asked for and DVC is not installed.
    """
    if not revision:
        return local_path(uri, cache)
    if is_remote(uri):
        raise StorageError("a revision goes with a path that DVC tracks, not with a URI", where=uri,
                           remedy="leave 'revision' empty, or give the path in the repository")
    repository, name = _split_revision(pinned(revision))
    target = cache / _cache_name(f"{uri}@{repository}@{name}")
    if target.exists():
        return target
    with atomic_directory(target.with_name(f"{target.name}.fetch")) as folder:
        tried = f"dvc get {repository} {uri} --rev {name}"
        with _dvc(uri, f"revision '{name}' cannot be fetched", f"check that '{tried}' works") as repo:
            repo.get(repository, uri, out=os.fspath(folder / "out"), rev=name)
        (folder / "out").rename(target)
    shutil.rmtree(target.with_name(f"{target.name}.fetch"), ignore_errors=True)
    return target


def pinned(revision: str) -> str:
    """The same revision by its commit, so that a branch that moves on changes nothing that was fetched.

    Raises:
        StorageError: no such repository or revision, or a login in the address; MissingExtra: no DVC.
    """
    repository, name = _split_revision(revision)
    if not re.fullmatch(r"[0-9a-f]{40}", name):
        with _dvc(repository, f"there is no revision '{name}' in this repository",
                  "name a commit, tag or branch; 'git log --oneline' shows some") as repo, \
                repo.open(repository, rev=name, uninitialized=True) as opened:
            name = opened.get_rev()
    return name if repository == "." else f"git+{repository}@{name}"


def published(revision: str) -> str:
    """A pinned revision as another machine can fetch it: one of the repository here gets its origin's address.

    Raises:
        StorageError: there is no origin that others reach, or the commit was not pushed to it.
    """
    import subprocess

    repository, name = _split_revision(revision)
    if repository != ".":
        return revision

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()

    origin = shown(git("remote", "get-url", "origin"))  # its login stays here
    if "://" not in origin.removeprefix("file://") and not re.match(r"[\w.-]+@[\w.-]+:", origin):
        raise StorageError("this repository has no origin that another machine could fetch the revision from",
                           where=name, remedy="write it as git+<address>@<revision>")
    if not git("branch", "--remotes", "--contains", name):
        raise StorageError("this commit is not in the origin yet", where=name,
                           remedy="run 'git push' (and 'dvc push'), then submit again")
    return f"git+{origin}@{name}"


def _split_revision(revision: str) -> tuple[str, str]:
    """'v1' → ('.', 'v1'); 'git+<address>@v1' → (address, 'v1')."""
    if not revision.startswith("git+"):
        return ".", revision
    repository, _, name = revision.removeprefix("git+").rpartition("@")
    if not repository or not name:
        raise StorageError("this is no revision of the form git+<address>@<revision>", where=shown(revision),
                           remedy="end it with @ and a commit, tag or branch")
    if has_login(repository) and not repository.startswith("ssh://"):
        raise StorageError("the address holds a login, which would be recorded", where=shown(revision),
                           remedy="give the address alone; git's credential helper knows the login")
    return repository, name


@contextlib.contextmanager
def _dvc(where: str, what: str, remedy: str) -> Iterator[Any]:
    """DVC's `Repo`, with its errors (they have no common base that is public) as ours."""
    try:
        from dvc.repo import Repo
        from dvc.repo.open_repo import clean_repos
    except ImportError as error:
        raise MissingExtra("dvc", "pipeline") from error
    try:
        yield Repo
    except HypercutError:
        raise
    except Exception as error:
        raise StorageError(f"{what} ({_first_line(error)})", where=where, remedy=remedy) from error
    finally:
        clean_repos()  # clones lie in the temporary folder


def _cache_name(uri: str) -> str:
    """Unique for the URI, readable, and with its suffix, by which videos are told."""
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_"
                   for letter in uri.rstrip("/").split("/")[-1])[-60:].lstrip(".")
    return f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}-{name}"


def _is_or_below(name: str, key: str) -> bool:
    return not key or name == key or name.startswith(key.rstrip("/") + "/")


@functools.lru_cache(maxsize=1)
def _client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise MissingExtra("boto3", "s3") from error
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") \
        or os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    config = Config(connect_timeout=10, read_timeout=60, retries={"max_attempts": 3, "mode": "standard"})
    return boto3.session.Session().client("s3", endpoint_url=endpoint or None, config=config)


@contextlib.contextmanager
def _explained(uri: str | os.PathLike[str]) -> Iterator[None]:
    """boto3's errors as ours; never with keys or signed addresses in them."""
    try:
        import botocore.exceptions as aws
        from boto3.exceptions import Boto3Error
    except ImportError as error:
        raise MissingExtra("boto3", "s3") from error
    try:
        yield
    except aws.ClientError as error:
        raise _refused(uri, str(error.response.get("Error", {}).get("Code", ""))) from None
    except (aws.NoCredentialsError, aws.PartialCredentialsError):
        raise StorageError("no S3 credentials were found", where=uri, remedy=_KEYS) from None
    except (aws.BotoCoreError, Boto3Error) as error:
        code = next((code for code in ("AccessDenied", "NoSuchBucket", "InvalidAccessKeyId",
                                       "SignatureDoesNotMatch") if code in str(error)), "")
        if code:
            raise _refused(uri, code) from None
        raise StorageError(f"the S3 server did not answer as it should ({type(error).__name__})", where=uri,
                           remedy="check AWS_ENDPOINT_URL and the network, then run it again") from None


def _refused(uri: str | os.PathLike[str], code: str) -> StorageError:
    if code in ("NoSuchBucket",):
        return StorageError("there is no such bucket", where=uri, remedy=_NO_BUCKET)
    if code in ("NoSuchKey", "404", "NotFound"):
        return StorageError("there is no such object", where=uri, remedy="check bucket and key")
    if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled"):
        return StorageError(f"the S3 server refuses the credentials ({code})", where=uri, remedy=_KEYS)
    return StorageError(f"the S3 server refuses the request ({code or 'no reason given'})", where=uri,
                        remedy="check the URI and the server's log")


def _first_line(error: Exception) -> str:
    return shown(str(error) or type(error).__name__).split("\n")[0][:200]
