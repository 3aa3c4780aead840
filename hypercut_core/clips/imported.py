"""What imported data sets say of themselves, kept whole beside the clips: an export gives every field back.

    data/clips/imported.json.gz    {folder of the data set: its metadata.json}; "" where it is the root
"""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

from hypercut_core.clips import layouts
from hypercut_core.clips.rb2v import MAX_BYTES, read_document
from hypercut_core.clips.store import ClipStore
from hypercut_core.errors import BadClipStore

IMPORTED = "imported.json.gz"
MOST = 4 * MAX_BYTES  # bytes of text, of all data sets together
Documents = dict[str, dict[str, Any]]


def imported_documents(root: Path, layout: str) -> Documents:
    """The metadata of all data sets at `root` by their folder; none for layouts without metadata.

    Raises:
        BadFootage: one cannot be read.
    """
    if layout not in layouts.WITH_METADATA:
        return {}
    return {"" if base == root else base.relative_to(root).as_posix(): read_document(base)
            for base, _ in layouts.roots(root, layout)}


def pack(documents: Documents) -> bytes:
    """The same documents give the same bytes."""
    return gzip.compress(json.dumps(documents, ensure_ascii=True).encode(), compresslevel=6, mtime=0)


def read_imported(store: ClipStore) -> Documents:
    """What was imported into a store; empty for stores of other origin.

    Raises:
        BadClipStore: the file is damaged or too large.
    """
    data = store.attachment(IMPORTED, MOST)
    if data is None:
        return {}
    where, cure = f"{store.source.name}/{IMPORTED}", "run 'hypercut synthesize-blur' again"
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            text = stream.read(MOST + 1)
        documents = json.loads(text) if len(text) <= MOST else None
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise BadClipStore(f"what was imported cannot be read ({error!r:.80})", where=where,
                           remedy=cure) from error
    if not isinstance(documents, dict) or not all(isinstance(one, dict) and isinstance(one.get("data"), list)
                                                  for one in documents.values()):
        raise BadClipStore("this is not what was imported", where=where, remedy=cure)
    return documents
