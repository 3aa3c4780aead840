"""collect-footage: find footage, probe and hash it, decide the split by source, write the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypercut_core.clips.manifest import SPLITS, Manifest, Source, write_manifest
from hypercut_core.files import file_sha256


@dataclass(frozen=True)
class CollectConfig:
    """Which footage is used."""

    source: str = "builtin"  # "builtin" (moving photos), a file or folder, or s3://bucket/prefix
    layout: Literal["auto", "videos", "frames", "rb2v", "reds", "gopro"] = "auto"  # how the folder is laid out
    category: str = ""  # category of every source; empty: the first folder below the source
    categories: tuple[str, ...] = ()  # keep only these categories; empty: all
    licence: str = ""  # licence of the footage, recorded; empty: as SOURCES.md in the folder says, or unknown
    revision: str = ""  # DVC/git revision to fetch the source at; empty: as it lies there
    on_bad: Literal["fail", "skip"] = "fail"  # unreadable sources: stop, or leave them out and record it


def collect_footage(config: CollectConfig, out: Path, seed: int, work: Path | None = None) -> Manifest:
    """Write the footage manifest to `out`.

    Args:
        seed: not used (the split depends on contents only); every step takes one.
        work: folder for downloads; default: `work/` beside the folder of `out`.

    Raises:
        BadFootage: nothing usable, or a source that cannot be read (with its file and the remedy).
    """
    if config.source == "builtin":
        manifest = _builtin(config)
    else:
        raise NotImplementedError
    write_manifest(out, manifest)
    return manifest


def _builtin(config: CollectConfig) -> Manifest:
    from PIL import Image

    from hypercut_core.clips.photos import photo_names, photo_path

    rows = []
    for split in SPLITS:
        for name in photo_names(split):
            path = photo_path(name)
            with Image.open(path) as image:
                width, height = image.size
            rows.append(Source(source=name, uri=f"builtin:{name}", kind="photo", sha256=file_sha256(path),
                               width=width, height=height, frames=1, category=config.category or "photo",
                               licence=config.licence or "see the package's own notice", split=split))
    return Manifest(kind="builtin", layout="photos", root="builtin", revision="", sources=rows)
