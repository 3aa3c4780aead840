"""The footage manifest: one row a source, the only thing that later steps know about where footage lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from hypercut_core.errors import BadFootage
from hypercut_core.files import file_sha256, read_json, write_json

Kind = Literal["photo", "video", "frames", "paired"]
SPLITS = ("train", "val", "test")
VERSION = 1
_REMEDY = "run 'hypercut collect-footage' again"


@dataclass(frozen=True)
class Source:
    """One video, photo, folder of frames or paired sequence."""

    source: str  # its name: unique, stable, "/"-separated
    uri: str  # where it lies: "builtin:<name>", or the manifest's root followed by a relative path
    kind: Kind
    sha256: str  # of its bytes (folders: of names and bytes)
    width: int  # px
    height: int  # px
    frames: int  # frames in a video or folder, clips in a paired sequence, 1 for a photo
    category: str
    licence: str
    split: str  # "train", "val" or "test"
    fps: float | None = None  # frames a second, where known


@dataclass(frozen=True)
class Problem:
    """Something that was left out, and why."""

    file: str
    what: str


@dataclass(frozen=True)
class Manifest:
    """What `collect-footage` found. `root` is the path or URI that sources' URIs begin with."""

    kind: str  # "builtin", "videos", "frames" or "paired"
    layout: str
    root: str
    revision: str
    sources: list[Source] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)  # files that could not be read
    notes: list[Problem] = field(default_factory=list)  # what was left out on purpose, or looks odd

    def relative(self, source: Source) -> str:
        """Path of a source below `root` ("" where the source is the root itself).

        Raises:
            BadFootage: the URI is not below the root.
        """
        root = self.root.rstrip("/")
        path = source.uri.removeprefix(root)
        if not source.uri.startswith(root) or path[:1] not in ("", "/", ":") or ".." in path.split("/"):
            raise BadFootage(f"the URI '{source.uri}' of source '{source.source}' is not below '{self.root}'",
                             where="data/footage.json", remedy=_REMEDY)
        return path.lstrip("/:")


def files_sha256(files: Iterable[Path]) -> str:
    """One file: the SHA-256 of its bytes. Several: of their names and bytes, in order."""
    files = list(files)
    if len(files) == 1:
        return file_sha256(files[0])
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()


def write_manifest(path: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write the manifest as JSON with stable key order."""
    write_json(path, {"version": VERSION, **asdict(manifest)})


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest and check the shape of every row.

    Raises:
        StorageError: missing or no JSON.
        BadFootage: of another version, or with missing, unknown or mistyped fields.
    """
    document = read_json(path)
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise BadFootage(f"the footage manifest is not of version {VERSION}", where=path, remedy=_REMEDY)
    document = {key: value for key, value in document.items() if key != "version"}
    try:
        sources = [Source(**row) for row in document.pop("sources")]
        problems = [Problem(**row) for row in document.pop("problems", [])]
        notes = [Problem(**row) for row in document.pop("notes", [])]
        manifest = Manifest(**document, sources=sources, problems=problems, notes=notes)
    except (TypeError, KeyError) as error:
        raise BadFootage(f"the footage manifest is not in shape ({error})", where=path,
                         remedy=_REMEDY) from error
    for row in manifest.sources:
        _check(row, path)
        manifest.relative(row)
    if len({row.source for row in manifest.sources}) < len(manifest.sources):
        raise BadFootage("the footage manifest names a source twice", where=path, remedy=_REMEDY)
    return manifest


def _check(row: Source, path: str | os.PathLike[str]) -> None:
    types: dict[str, Any] = {"int": int, "str": str, "Kind": str, "float | None": (int, float, type(None))}
    for entry in fields(row):
        if not isinstance(getattr(row, entry.name), types[str(entry.type)]):
            raise BadFootage(f"'{entry.name}' of source '{row.source}' has the wrong type", where=path,
                             remedy=_REMEDY)
    if row.split not in SPLITS or row.kind not in get_args(Kind):
        raise BadFootage(f"source '{row.source}' has split '{row.split}' and kind '{row.kind}'", where=path,
                         remedy=_REMEDY)
