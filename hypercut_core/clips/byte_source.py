"""Where a clip store's bytes come from: a folder now, an object store by the same two calls."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any, Protocol

OPEN_FILES = 64


class ByteSource(Protocol):
    """Random access to named byte strings. Keys are relative, with forward slashes.

    Both calls raise FileNotFoundError for a missing key; `read` raises EOFError if the
    key ends before offset + length. Safe to call from several threads.

    A source that is far away may offer two things more: `merge_gap`, bytes between two ranges up to which
    reading both as one is cheaper, and `prefetch(ranges)`, which starts to fetch (key, offset, length).
    """

    name: str  # for messages: the folder or URI

    def size(self, key: str) -> int: ...

    def read(self, key: str, offset: int, length: int) -> bytes | bytearray: ...


class LocalBytes:
    """A folder as a ByteSource. The last few files stay open, for opening costs more than reading."""

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root)
        self.name = str(root)
        self._files: dict[str, Any] = {}
        self._lock = threading.Lock()

    def size(self, key: str) -> int:
        return os.fstat(self._open(key).fileno()).st_size

    def read(self, key: str, offset: int, length: int) -> bytes:
        data = os.pread(self._open(key).fileno(), length, offset)
        if len(data) == length:
            return data
        return self._read_on(key, offset, length, data)

    def _read_on(self, key: str, offset: int, length: int, data: bytes) -> bytes:
        # one pread returns at most 2 GiB, and may return less
        parts, got = [data], len(data)
        while got < length:
            part = os.pread(self._open(key).fileno(), length - got, offset + got)
            if not part:
                raise EOFError(f"{key} ends at byte {offset + got}, {offset + length} expected")
            parts.append(part)
            got += len(part)
        return b"".join(parts)

    def _open(self, key: str) -> Any:
        file = self._files.get(key)
        if file is None:
            file = _open_regular(self.root / key)
            with self._lock:
                if len(self._files) >= OPEN_FILES:
                    # not closed here: another thread may be reading it; the last reference closes it
                    self._files.pop(next(iter(self._files)))
                self._files[key] = file
        return file

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "name": self.name}  # open files do not travel to other processes

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]


def _open_regular(path: Path) -> Any:
    # not blocking: opening a named pipe would wait for ever
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(f"{path} is not a file")
    return os.fdopen(handle, "rb", buffering=0)
