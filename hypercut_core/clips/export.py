"""A clip store and its order table as an RB2V-like data set, so that others' code can use our orders.

    out/<seq>/blur/0000.png  out/<seq>/sharp/0000_1.png … 0000_T.png  out/metadata.json  out/export.json

The folder takes its name only when all of it is there. An export that was killed goes on where it stopped: files
that are there are kept, for each took its own name only when it was whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hypercut_core.clips.export_plan import ClipFiles, ExportConfig, ExportPlan, plan_export
from hypercut_core.clips.imported import read_imported
from hypercut_core.clips.store import ClipStore
from hypercut_core.clips.unfinished import is_there, unfinished
from hypercut_core.errors import BadClipStore
from hypercut_core.files import PARTIAL
from hypercut_core.ordering.labels import OrderTable
from hypercut_core.photos import load_photo
from hypercut_core.progress import Progress

SUMMARY = "export.json"
COMPRESSION = 3  # of PNG, 0 to 9: twice as fast as 6 for a few per cent more bytes


def export_rb2v(store: ClipStore, orders: OrderTable | None, out: Path, config: ExportConfig | None = None,
                threads: int = 0) -> dict[str, Any]:
    """Write the data set to `out`; one clip is in memory at a time.

    Args:
        orders: None: see `export_plan` for what `order` then says.
        threads: images compressed at once; 0: all cores.

    Returns:
        What export.json holds: counts, the rule, and the stamp of its origin.

    Raises:
        BadClipStore, BadParameters: see `plan_export`; a clip is damaged.
        StorageError: something else is at `out`, or it cannot be written.
    """
    config = config or ExportConfig()
    plan = plan_export(store, read_imported(store), orders, config)
    texts = {prefix: json.dumps(document, indent=1, ensure_ascii=True) + "\n"
             for prefix, document in plan.documents.items()}
    summary: dict[str, Any] = {
        "stamp": _stamp(store, texts), "clips": len(plan.clips), "counts": dict(sorted(plan.counts.items())),
        "rule": asdict(config), "ordered": orders is not None}
    if is_there(out, SUMMARY, summary["stamp"]):
        return summary
    with unfinished(out, "export", summary["stamp"]) as partial:
        _write_clips(store, plan, partial, threads)
        for prefix, text in texts.items():
            (partial / prefix / "metadata.json").write_text(text, encoding="ascii")
        (partial / SUMMARY).write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return summary


def _stamp(store: ClipStore, texts: dict[str, str]) -> str:
    """Same clips and same metadata: same export."""
    digest = hashlib.sha256(store.sha256.encode())
    for prefix, text in sorted(texts.items()):
        digest.update(f"\0{prefix}\0".encode() + hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()


def _write_clips(store: ClipStore, plan: ExportPlan, folder: Path, threads: int) -> None:
    with Progress("exporting clips", len(plan.clips)) as progress, \
            ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for clip in plan.clips:
            _write_clip(store, clip, plan, folder, pool)
            progress.advance()


def _write_clip(store: ClipStore, clip: ClipFiles, plan: ExportPlan, folder: Path, pool: ThreadPoolExecutor) -> None:
    paths = (clip.blurry, *clip.sharp)
    files = [folder / path for path in paths]
    if all(file.is_file() for file in files) and plan.shared.isdisjoint(paths):
        return
    frames = store.read(clip.index)
    sharp = frames[:0:-1] if clip.turned else frames[1:]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    images = [frames[0], *sharp]
    for path, file, image in zip(paths, files, images, strict=True):
        if path in plan.shared and file.is_file() and not np.array_equal(load_photo(file), image):
            raise BadClipStore(f"clip '{store.records[clip.index].clip_id}' and another one have different pixels "
                               f"for the file '{path}'", where=store.path,
                               remedy="run 'hypercut synthesize-blur' again")
    list(pool.map(write_png, files, images))


def write_png(file: Path, pixels: np.ndarray) -> None:
    """(H, W, 3) uint8 as a PNG file that is whole or absent."""
    handle, name = tempfile.mkstemp(prefix=PARTIAL, dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=COMPRESSION)
        Path(name).chmod(0o644)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
