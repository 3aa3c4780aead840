"""The watched folder: which files are photos by their name, and which of them have stopped changing."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from pathlib import Path

from hypercut_core.files import PARTIAL
from pipelines.watch.journal import Signature

# HEIC cannot be read; a phone's photo shall be named as such, not passed over
SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib",
                      ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".tga", ".heic", ".heif"))
UNFINISHED = frozenset((".part", ".partial", ".crdownload", ".download", ".tmp", ".temp", ".filepart"))


class Inbox:
    """The photos in a folder (not in the folders below it).

    Args:
        folder: the watched folder.
        out: folder of the outputs; whatever lies in it is no input, not even through a link.
        tell: called once a name for files that are passed over.
        clock: seconds that never go back. The times of files are only compared with each other: on a network share
            they come from another clock.
    """

    def __init__(self, folder: Path, out: Path, tell: Callable[[str], None],
                 clock: Callable[[], float] = time.monotonic):
        self.folder, self.out = folder, out.resolve()
        self._tell, self._clock = tell, clock
        self._resting: dict[str, tuple[Signature, float]] = {}
        self._told: set[str] = set()

    def look(self) -> list[tuple[str, Signature]]:
        """Name and signature of every photo that is there, oldest first.

        Raises:
            OSError: the folder cannot be read.
        """
        found = {}
        for path in self.folder.iterdir():
            signature = self.signature(path.name) if self._is_photo(path) else None
            if signature is not None:
                found[path.name] = signature
        now = self._clock()
        self._resting = {name: self._resting[name] if self._resting.get(name, ((), 0))[0] == signature
                         else (signature, now) for name, signature in found.items()}
        return sorted(found.items(), key=lambda item: (item[1][1], item[0]))

    def rested(self, name: str) -> float:
        """Seconds since the file was first seen as it is now."""
        return self._clock() - self._resting[name][1]

    def signature(self, name: str) -> Signature | None:
        """None: there is no such regular file (any more)."""
        try:
            status = (self.folder / name).stat()
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino

    def _is_photo(self, path: Path) -> bool:
        suffix = path.suffix.lower()
        if path.name.startswith(".") or PARTIAL in path.name or suffix in UNFINISHED:
            return False
        if path.is_symlink() and path.resolve().is_relative_to(self.out):
            return False
        if suffix in SUFFIXES:
            return True
        if path.name not in self._told and path.is_file():
            self._told.add(path.name)
            self._tell(f"passed over: {path.name} (its name is not that of a photo)")
        return False
