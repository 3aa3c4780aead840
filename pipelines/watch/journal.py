"""What a watcher has done: a file of JSON lines that a killed process cannot spoil.

A photo is known by its name and the SHA-256 of its content. Its output has a name made from both, and appears by
one rename; the line about it is written after that. So a process that is killed between the two finds the output
when it starts again, and only writes the line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hypercut_core.files import explain_os_errors, write_text

BEGUN, STOPPED, RESTORED, SET_ASIDE = "begun", "stopped", "restored", "set aside"
Signature = tuple[int, ...]  # size, times and inode of a file: while they stay, so does its content


@dataclass(frozen=True)
class Entry:
    """The last thing that is known of one photo."""

    key: str  # of the photo: digest of its name and content
    name: str
    event: str
    signature: Signature
    attempts: int = 0  # begun and neither finished nor stopped in good order
    out: str = ""
    why: str = ""


def photo_key(name: str, sha256: str) -> str:
    """What a photo is known by: 16 hexadecimal digits."""
    return hashlib.sha256(os.fsencode(name) + b"\0" + sha256.encode()).hexdigest()[:16]


class Journal:
    """All photos that a watcher has met. Use as a context manager.

    Raises:
        StorageError: the folder cannot be written to.
    """

    def __init__(self, path: Path):
        self.path = path
        self._entries = {entry.key: entry for entry in _read(path)}
        self._unchanged = {(entry.name, entry.signature): entry.key for entry in self._entries.values()}
        # written anew at each start: one line a photo, and no torn last line
        write_text(path, "".join(_line(entry) for entry in self._entries.values()))
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def entry(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def finished(self, key: str) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.event in (RESTORED, SET_ASIDE)

    def known(self, name: str, signature: Signature) -> bool:
        """Whether this file was finished, judged without reading it."""
        key = self._unchanged.get((name, signature))
        return key is not None and self.finished(key)

    def count(self, event: str) -> int:
        return sum(entry.event == event for entry in self._entries.values())

    def set_aside(self) -> list[Entry]:
        return sorted((entry for entry in self._entries.values() if entry.event == SET_ASIDE),
                      key=lambda entry: entry.name)

    def write(self, entry: Entry) -> None:
        """Add a line; it is on the disk when this returns."""
        with explain_os_errors(self.path):
            self._file.write(_line(entry))
            self._file.flush()
            os.fsync(self._file.fileno())
        self._entries[entry.key] = entry
        self._unchanged[entry.name, entry.signature] = entry.key

    def forget_set_aside(self) -> None:
        """Let what was set aside be tried again."""
        for entry in self.set_aside():
            self.write(Entry(entry.key, entry.name, STOPPED, entry.signature))


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry), sort_keys=True) + "\n"


def _read(path: Path) -> Iterator[Entry]:
    """The entries that can be read: a killed process may have left half a line at the end."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                yield _entry(json.loads(line))


def _entry(read: dict[str, Any]) -> Entry:
    if set(read) != {field.name for field in fields(Entry)}:
        raise ValueError("not a line of a journal")
    kinds = {"signature": list, "attempts": int}
    if not all(isinstance(value, kinds.get(name, str)) for name, value in read.items()):
        raise ValueError("not a line of a journal")
    return Entry(**{**read, "signature": tuple(int(part) for part in read["signature"])})
