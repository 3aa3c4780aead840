"""A clip store from a folder to S3: visible only when it is whole; what is there already is not sent again."""

from __future__ import annotations

import re
from pathlib import Path

from components.storage import objects
from components.storage.s3_client import SCHEME, split_uri
from hypercut_core.progress import Progress

GROUP, TABLE = "zarr.json", "clips.parquet"
_OURS = re.compile(r"\d+x\d+/(zarr\.json|c(/\d+)+)|clips\.parquet|imported\.json\.gz")


def upload_clips(folder: Path, uri: str) -> None:
    """Copy a finished clip store below a prefix; a store that was there is replaced.

    The group's zarr.json, without which nothing is a store, is deleted first and written last: whoever reads
    meanwhile is told that the store changed. An upload that was cut off goes on: objects that have their
    file's ETag already stay.

    Raises:
        StorageError: refused, or the server was away for too long.
    """
    bucket, key = split_uri(uri)
    prefix = f"{key.rstrip('/')}/" if key.rstrip("/") else ""
    there = objects.listing(uri)
    files = {name: objects.etag_of(folder / name) for name in objects.list_files(folder)}
    if all(there.get(name, (0, ""))[1] == etag for name, etag in files.items()):
        return
    if GROUP in there:
        objects.delete(bucket, [prefix + GROUP])
    late = (TABLE, GROUP)
    order = [*sorted(name for name in files if name not in late), *late]
    with Progress(f"uploading clips to {SCHEME}{bucket}/{prefix}", total=len(order)) as progress:
        for name in order:
            if name == GROUP:  # of a store that was there before
                old = [prefix + other for other in there if other not in files and _OURS.fullmatch(other)]
                objects.delete(bucket, old)
            if name == GROUP or there.get(name, (0, ""))[1] != files[name]:
                with (folder / name).open("rb") as stream:
                    objects.put(bucket, prefix + name, stream)
            progress.advance(note=name)
