"""Opens a clip store wherever it lies: a folder, or s3://bucket/prefix."""

from __future__ import annotations

import os

from components import storage
from hypercut_core.clips.store import ClipStore


def open_clips(where: str | os.PathLike[str]) -> ClipStore:
    """The clip store at a path or URI.

    Raises:
        BadClipStore: there is none, or it is damaged.
        StorageError: the S3 server refuses, or is away for too long.
    """
    return ClipStore(storage.clip_source(os.fspath(where)) if storage.is_remote(where) else where)
