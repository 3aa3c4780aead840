"""One watcher a folder: locks that end with their process, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from hypercut_core.errors import StorageError
from hypercut_core.files import explain_os_errors

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def only_watcher(folder: Path, state: Path) -> Iterator[None]:
    """Hold the watched folder and the outputs' state folder.

    Raises:
        StorageError: another watcher holds one of them.
    """
    with _held(state / "lock", os.O_RDWR | os.O_CREAT, folder) as lock:
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        # a second watcher with another OUT; the folder may be read-only, so it is held by itself
        with _held(folder, os.O_RDONLY, folder):
            yield


@contextlib.contextmanager
def _held(path: Path, flags: int, folder: Path) -> Iterator[int]:
    with explain_os_errors(path):
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                raise _taken(path, folder) from error
            if path != folder:  # network shares may not be able to lock a folder
                raise StorageError(f"the lock cannot be taken ({error.strerror})", where=path,
                                   remedy="put the outputs on a disk that can lock files: -o") from error
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(path: Path, folder: Path) -> StorageError:
    owner = ""
    with contextlib.suppress(OSError):
        owner = path.read_text(encoding="utf-8")[:20].strip()
    who = f" (process {owner})" if owner.isdigit() else ""
    return StorageError(f"another 'hypercut watch' is at work here{who}", where=folder,
                        remedy="end that one first, or watch another folder")
