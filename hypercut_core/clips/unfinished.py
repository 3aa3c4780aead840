"""Folders that take long to write: they take their name when they are whole, and go on after a kill."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hypercut_core.errors import StorageError
from hypercut_core.files import PARTIAL, explain_os_errors, read_json

STAMP = "stamp"


def is_there(out: Path, summary: str, stamp: str) -> bool:
    """Whether `out` is there already and its summary, a JSON file, bears this stamp.

    Raises:
        StorageError: something else is there.
    """
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return False
    found = None
    if out.is_dir():
        with contextlib.suppress(StorageError, OSError):
            found = read_json(out / summary, 2**26)
    if isinstance(found, dict) and found.get("stamp") == stamp:
        return True
    raise StorageError("something else is here already", where=out, remedy="name a new folder, or remove this one")


@contextlib.contextmanager
def unfinished(out: Path, what: str, stamp: str) -> Iterator[Path]:
    """Yield a folder beside `out`, with what a killed run of the same stamp left in it; it becomes `out` if the
    block succeeds, and stays for the next run if it does not."""
    partial = out.with_name(f".{out.name}{PARTIAL}{what}")
    mark = partial / STAMP
    with explain_os_errors(out):
        if partial.is_dir() and not (mark.is_file() and mark.read_text(encoding="utf-8", errors="replace") == stamp):
            shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
        for left in partial.rglob(f"{PARTIAL}*"):
            left.unlink()
        mark.write_text(stamp, encoding="utf-8")
        yield partial
        mark.unlink()
        if out.is_dir():  # an empty one
            out.rmdir()
        partial.rename(out)
