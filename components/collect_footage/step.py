"""collect-footage: find footage, probe and hash it, decide the split by source, write the manifest."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components import storage
from components.collect_footage.discover import discover
from components.collect_footage.split import split_sources
from hypercut_core.clips import layouts
from hypercut_core.clips.manifest import SPLITS, Manifest, Source, write_manifest
from hypercut_core.errors import BadFootage
from hypercut_core.files import file_sha256


@dataclass(frozen=True)
class CollectConfig:
    """Which footage is used."""

    source: str = "builtin"  # "builtin" (moving photos), a file or folder, or s3://bucket/prefix
    layout: Literal["auto", "videos", "frames", "rb2v", "b-aist++", "reds", "gopro"] = "auto"  # how it is laid out
    category: str = ""  # category of every source; empty: the first folder below the source
    categories: tuple[str, ...] = ()  # keep only these categories; empty: all
    licence: str = ""  # licence of the footage, recorded; empty: as SOURCES.md in the folder says, or unknown
    revision: str = ""  # DVC/git revision to fetch the source at, or git+<address>@<revision>; empty: as it lies
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
        if config.revision:
            raise BadFootage("the built-in photos come with the package and have no revision",
                             where="footage.revision", remedy="set footage.source to the path that it is of")
        manifest = _builtin(config)
    else:
        manifest = _collected(config, (work or out.parent.parent / "work") / "footage")
    write_manifest(out, manifest)
    for note in manifest.problems + manifest.notes:
        print(f"{note.file}: {note.what}", file=sys.stderr)
    return manifest


def _collected(config: CollectConfig, cache: Path) -> Manifest:
    revision = storage.pinned(config.revision) if config.revision else ""
    try:
        folder = storage.fetch(config.source, revision, cache)
        findings = discover(folder, config.layout, config.categories, config.on_bad == "skip")
    except PermissionError as error:
        raise BadFootage("this user may not read the footage", where=error.filename or config.source,
                         remedy="let all users read it: containers run as another one") from error
    if len(findings.sources) < 3:
        raise BadFootage(f"{len(findings.sources)} usable sources were found; train, val and test need one "
                         "each", where=config.source,
                         remedy="give a folder with at least three videos, folders of frames or sequences"
                                " (a single video: cut it into three files)")
    splits = split_sources([(row.category, row.sha256, row.partition) for row in findings.sources])
    known, otherwise = licences(folder), layouts.NOTICES.get(findings.layout, "unknown")
    root = config.source.rstrip("/") or config.source
    rows = [Source(source=row.path or folder.stem, uri=f"{root}/{row.path}" if row.path else root,
                   kind=row.kind, sha256=row.sha256, width=row.width, height=row.height,  # type: ignore[arg-type]
                   frames=row.frames, fps=row.fps, category=config.category or row.category,
                   licence=config.licence or known.get(row.path, otherwise), split=split)
            for row, split in zip(findings.sources, splits, strict=True)]
    return Manifest(kind=findings.kind, layout=findings.layout, root=root, revision=revision,
                    sources=rows, problems=findings.problems, notes=findings.notes)


def licences(folder: Path) -> dict[str, str]:
    """Licences by file, from the table with the columns "file" and "licence" in the folder's SOURCES.md."""
    file = folder / "SOURCES.md"
    if not folder.is_dir() or not file.is_file() or file.stat().st_size > 2**20:
        return {}
    found: dict[str, str] = {}
    columns: list[str] = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        lower = [cell.lower() for cell in cells]
        if "file" in lower and ("licence" in lower or "license" in lower):
            columns = ["licence" if cell == "license" else cell for cell in lower]
        elif columns and len(cells) == len(columns):
            row = dict(zip(columns, cells, strict=True))
            found[row["file"]] = row["licence"]
    return found


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
