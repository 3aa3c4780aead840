"""A pipeline's store on S3: each step works in a folder of its own, and the small state goes down and up.

Footage manifests and clip stores are read and written by their content's name where they are needed; of a run,
its notes, metrics, verdicts and lineage are fetched before a step and sent after it. Only files that the step
itself changed are sent, so that steps at the same moment do not undo each other's. Work and unfinished outputs
stay on the step's own disk, but for the checkpoints of trainings.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from components import storage
from components.storage import objects, s3_client

ORIGIN = ".store-on-s3"  # file in the folder: the URI
_LOCAL = ("work/", "unfinished/")  # of a run: what stays here


def mirror(uri: str) -> Path:
    """The folder in which a store on S3 is worked on: one for each process, below the temporary folder.

    Raises:
        StorageError: no such bucket, or refused.
    """
    storage.exists(uri)  # tells wrong keys now, and not after the step's work
    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"hypercut-store-{os.getuid()}-{os.getpid()}-{name}"
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / ORIGIN).write_text(uri.rstrip("/"), encoding="utf-8")
    return folder


def origin(store: Path) -> str:
    """The URI of the store that a folder stands for; "" for a store that is this folder."""
    file = store / ORIGIN
    return file.read_text(encoding="utf-8") if file.is_file() else ""


class RunState:
    """The small files of a run, between a step's folder and S3. Does nothing for a store that is a folder."""

    def __init__(self, store: Path, relative: str):
        self.folder = store / relative
        self.uri = f"{origin(store)}/{relative}" if origin(store) else ""
        self._known: dict[str, str] = {}  # name -> ETag of what is here and there

    def pull(self) -> None:
        """Fetch what other steps left."""
        if not self.uri:
            return
        for name, (_, etag) in objects.listing(self.uri).items():
            if not name.startswith(_LOCAL) and self._known.get(name) != etag and ".." not in name.split("/"):
                storage.download(f"{self.uri}/{name}", self.folder / name)
                self._known[name] = objects.etag_of(self.folder / name)

    def push(self) -> None:
        """Send what changed here."""
        for name in storage.list_files(self.folder) if self.uri and self.folder.is_dir() else ():
            if name.startswith(_LOCAL):
                continue
            etag = objects.etag_of(self.folder / name)
            if self._known.get(name) != etag:
                storage.upload(self.folder / name, f"{self.uri}/{name}")
                self._known[name] = etag

    def remove(self) -> None:
        """Delete all of the run on S3, its checkpoints too."""
        if self.uri:
            bucket, key = s3_client.split_uri(self.uri)
            objects.delete(bucket, [f"{key}/{name}" for name in objects.listing(self.uri)])
