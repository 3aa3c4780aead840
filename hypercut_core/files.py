"""Writes that are whole or absent: a killed process never leaves a half-written output behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from hypercut_core.errors import StorageError

PARTIAL = ".partial-"  # marks unfinished outputs; readers never open such a name


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" and "permission denied" into errors that name the path and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError("the disk is full, nothing was written", where=path,
                               remedy="free some space or choose another folder, then run it again") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StorageError("writing is not permitted here", where=path,
                               remedy="choose a folder that you may write to") from error
        raise


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the final name only if the block succeeds."""
    final = Path(path)
    with explain_os_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.name}{PARTIAL}{os.getpid()}-", suffix=final.suffix,
                                        dir=final.parent)
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.chmod(0o666 & ~_umask())
            partial.replace(final)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it replaces whatever `path` was.

    Folders that a killed process of the same name left behind are removed first.
    """
    final = Path(path)
    with explain_os_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}{PARTIAL}{os.getpid()}-", dir=final.parent))
        remove_abandoned(final)
        try:
            yield partial
            partial.chmod(0o777 & ~_umask())
            _take_place(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def move_directory(made: Path, path: str | os.PathLike[str]) -> None:
    """Give a finished folder its final place; it replaces whatever was there. To another file system it is
    copied first."""
    final = Path(path)
    with explain_os_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(final)
        made.chmod(0o777 & ~_umask())
        beside = final.with_name(f".{final.name}{PARTIAL}{os.getpid()}-new")
        try:
            made.rename(beside)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with atomic_directory(final) as partial:
                shutil.copytree(made, partial, dirs_exist_ok=True)
            shutil.rmtree(made)
            return
        _take_place(beside, final)


def _take_place(made: Path, final: Path) -> None:
    if not final.exists():
        made.rename(final)
        return
    old = made.with_name(made.name + ".old")
    final.rename(old)
    made.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def remove_abandoned(final: Path) -> None:
    """Delete partial files and folders of `final` whose process is gone."""
    for left in final.parent.glob(f".{final.name}{PARTIAL}*-*"):
        owner = left.name.split(PARTIAL)[-1].split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any, digits: int | None = 6) -> None:
    """Write JSON with sorted keys; floats rounded to `digits` decimals, not-a-number as null."""
    write_text(path, json.dumps(_plain(value, digits), indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str], limit: int = 256 * 2**20) -> Any:
    """Read JSON of at most `limit` bytes.

    Raises:
        StorageError: the file is missing, too large, or not JSON.
    """
    try:
        if Path(path).stat().st_size > limit:
            raise StorageError(f"the file is larger than {limit} bytes", where=path)
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StorageError("the file does not exist", where=path,
                           remedy="run the step that writes it first ('dvc repro' runs all)") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"the file is not valid JSON ({error})", where=path,
                           remedy="run the step that writes it again") from error


class FileStore(Protocol):
    """Named files in one place: a folder, or a prefix of an object store. Names have no folders in them.

    All calls raise StorageError where the place cannot be used; `read` raises FileNotFoundError for a name
    that is not there.
    """

    name: str  # for messages: the folder or URI

    def names(self) -> list[str]:
        """Sorted; unfinished files are not among them."""

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None:
        """Whole or not at all; replaces what was there."""

    def delete(self, name: str) -> None:
        """A name that is not there is fine."""


class LocalFiles:
    """A folder as a FileStore; it is made when the first file is written."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self.name = str(folder)

    def names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.is_file() and PARTIAL not in path.name)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        with atomic_file(self.folder / name) as partial:
            partial.write_bytes(data)

    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)


def file_sha256(path: str | os.PathLike[str]) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(value: Any, digits: int | None) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, digits) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), digits)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else round(value, digits)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
