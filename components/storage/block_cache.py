"""Blocks of objects on a local disk: bounded, shared by all processes of the machine, checked when read."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypercut_core.errors import StorageError

OPEN = 64  # files that stay open: opening costs more than reading
FULL = 0.9  # share of the limit that is left after old blocks were deleted
SUFFIX = ".block"


class BlockCache:
    """A folder of blocks named by the hash of what they are. Safe for threads and processes.

    A file is a block and its CRC-32, written beside its name and renamed. The folder's `size` file counts
    the bytes; whoever writes holds its lock. The block that was not opened for longest goes first.

    Args:
        folder: made if need be.
        limit: bytes of all blocks together.

    Raises:
        StorageError: the folder cannot be used.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int):
        self.folder, self.limit = Path(folder), limit
        self._files: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._off = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "size").touch()
        except OSError as error:
            raise StorageError(f"the cache folder cannot be used ({error.strerror})", where=self.folder,
                               remedy="set HYPERCUT_S3_CACHE to a folder that you may write to, or unset it") from error

    def read(self, what: str, size: int, offset: int, length: int) -> bytes | None:
        """Bytes offset .. offset + length of the block `what`, which has `size` bytes; None if it is not here."""
        name = _name(what)
        file = self._files.get(name) or self._opened(name, size)
        if file is None:
            return None
        data = os.pread(file.fileno(), length, offset)
        return data if len(data) == length else None

    def holds(self, what: str) -> bool:
        """Whether there is such a block; it may still turn out to be damaged."""
        name = _name(what)
        return name in self._files or self._path(name).exists()

    def write(self, what: str, data: bytes) -> None:
        """Keep a block. A disk that is full or fails is said once, and nothing more is kept."""
        if self._off or len(data) + 4 > self.limit:
            return
        path = self._path(_name(what))
        try:
            with self._counted() as count:
                if path.exists():
                    return
                count[0] += len(data) + 4
                if count[0] > self.limit:
                    count[0] = self._make_room(int(FULL * self.limit) - len(data) - 4) + len(data) + 4
                partial = path.with_suffix(".partial")
                path.parent.mkdir(exist_ok=True)
                try:
                    with partial.open("wb") as stream:
                        stream.write(data)
                        stream.write(zlib.crc32(data).to_bytes(4, "little"))
                    partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)
        except OSError as error:
            self._off = True
            print(f"hypercut: {self.folder}: the cache takes no more ({error.strerror}); reading goes on from S3",
                  file=sys.stderr, flush=True)

    @property
    def size(self) -> int:
        """Bytes of all blocks, as counted."""
        with self._counted() as count:
            return count[0]

    def _opened(self, name: str, size: int) -> Any:
        path = self._path(name)
        try:
            file = path.open("rb", buffering=0)
        except OSError:
            return None
        data = file.read(size + 5)
        if len(data) != size + 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            file.close()
            self._discard(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        with self._lock:
            while len(self._files) >= OPEN:
                self._files.popitem(last=False)  # not closed here: another thread may be reading it
            self._files[name] = file
        return file

    def _discard(self, path: Path) -> None:
        """Delete a damaged block."""
        with contextlib.suppress(OSError), self._counted() as count:
            size = path.stat().st_size
            path.unlink()
            count[0] = max(0, count[0] - size)

    def _make_room(self, left: int) -> int:
        """Delete what was not opened for longest until `left` bytes are left; the bytes that are there then."""
        found = []
        for path in self.folder.glob("??/*"):
            if path.suffix != SUFFIX:
                path.unlink(missing_ok=True)  # of a process that was killed: we hold the lock
                continue
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                found.append((stat.st_mtime_ns, path.name, stat.st_size, path))
        total = sum(entry[2] for entry in found)
        for _, _, size, path in sorted(found):
            if total <= left:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total

    @contextlib.contextmanager
    def _counted(self) -> Iterator[list[int]]:
        """The count of bytes, to be changed while no other process writes."""
        with self._lock, (self.folder / "size").open("r+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = file.read().strip()
            # a folder without a count, or with a damaged one, is counted afresh
            count = [int(text)] if text.isdigit() else [self._make_room(self.limit)]
            before = count[0] if text.isdigit() else -1
            try:
                yield count
            finally:
                if count[0] != before:
                    file.seek(0)
                    file.write(f"{count[0]}\n")
                    file.truncate()

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}{SUFFIX}"

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], state["limit"])  # type: ignore[misc]


def _name(what: str) -> str:
    return hashlib.sha256(what.encode()).hexdigest()[:40]
