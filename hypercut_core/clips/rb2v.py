"""`metadata.json` of RB2V, HyperCUT and B-AIST++, read with distrust: every path stays inside the data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from hypercut_core.errors import BadFootage, StorageError
from hypercut_core.files import read_json

MAX_ID = 200  # characters of a clip's id
MAX_BYTES = 128 * 2**20  # the three RB2V files together are about 20 MB
PARTITIONS = ("train", "val", "test")
ORDERS = ("ignore", "keep", "reverse", "random")
Entry = tuple[str, str, str, str, str, Path, tuple[Path, ...]]  # the fields of a PairedClip
_COPY = "copy the data set again from where it came from"


def read_document(root: Path) -> dict[str, Any]:
    """The metadata of a data set as it is written, fields that nobody knows included; entries are not checked.

    Raises:
        BadFootage: missing, too large, no JSON, or without a list of clips.
    """
    file = root / "metadata.json"
    try:
        document = read_json(file, MAX_BYTES)
    except StorageError as error:
        raise BadFootage(error.what, where=file, remedy=_COPY) from error
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        raise BadFootage("the metadata is no object with a list 'data'", where=file, remedy=_COPY)
    return document


def read_rb2v(root: Path, frames: int | None, skipped: Counter[str]) -> Iterator[Entry]:
    """Yield clip id, source, partition, category, order, blurry image and sharp frames of every clip.

    Raises:
        BadFootage: the metadata is missing, too large, mistyped, names a path outside `root`, a file that is
            not there, or another number of frames than `frames` (None: any odd number from 3 to 15).
    """
    file = root / "metadata.json"
    name, entries, frames = _head(file, read_document(root), frames)
    seen: set[str] = set()
    for number, entry in enumerate(entries):
        clip_id, order, partition = _fields(file, number, entry)
        if clip_id in seen:
            raise _wrong(file, number, f"the id '{clip_id}' is there twice")
        seen.add(clip_id)
        if order == "ignore":
            skipped["order_ignore"] += 1
            continue
        blurry = _path(root, file, number, entry, "blur_path")
        sharp = tuple(_path(root, file, number, entry, f"frame{place:03d}_path")
                      for place in range(1, frames + 1))
        if order == "reverse":
            sharp = sharp[::-1]
        relative = blurry.relative_to(root).parts
        source = relative[0] if len(relative) > 1 else clip_id
        yield clip_id, source, partition, name, order, blurry, sharp


def _head(file: Path, document: dict[str, Any], frames: int | None) -> tuple[str, list[Any], int]:
    name = document.get("name", "rb2v")
    if not isinstance(name, str) or not 0 < len(name) <= 100 or "/" in name or not _is_text(name):
        raise BadFootage("'name' is not a short text", where=file, remedy="give the data set a name there")
    count = document.get("frame_per_seq")
    if type(count) is not int:
        raise BadFootage(f"'frame_per_seq' is {count!r:.40}, not a whole number", where=file, remedy=_COPY)
    if frames is None and (count % 2 == 0 or not 3 <= count <= 15):
        raise BadFootage(f"'frame_per_seq' is {count}; odd numbers from 3 to 15 can be used", where=file,
                         remedy="use another data set, or leave frames out evenly and correct the number")
    if frames is not None and count != frames:
        raise BadFootage(f"the data set has {count} sharp frames a clip, 'frames' is {frames}", where=file,
                         remedy=f"set frames to {count}: --set frames={count}")
    return name, document["data"], count


def _fields(file: Path, number: int, entry: Any) -> tuple[str, str, str]:
    if not isinstance(entry, dict):
        raise _wrong(file, number, "it is no object")
    clip_id = entry.get("id")
    if type(clip_id) not in (str, int) or not 0 < len(str(clip_id)) <= MAX_ID or not _is_text(str(clip_id)):
        raise _wrong(file, number, f"its id is {clip_id!r:.40}")
    order, partition = entry.get("order"), entry.get("partition")
    if order not in ORDERS:
        raise _wrong(file, number, f"its order is {order!r:.40}, not one of {', '.join(ORDERS)}")
    if partition not in PARTITIONS:
        raise _wrong(file, number, f"its partition is {partition!r:.40}, not one of {', '.join(PARTITIONS)}")
    return str(clip_id), order, partition


def inner_path(text: Any) -> PurePosixPath | None:
    """A path as it stands in the metadata; None if it is no path or could lead out of the data set."""
    if not isinstance(text, str) or not 0 < len(text) <= 1000 or not _is_text(text):
        return None
    path = PurePosixPath(text.replace("\\", "/"))
    inside = path.parts and not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]
    return path if inside and all(len(part.encode()) <= 255 for part in path.parts) else None


def _is_text(text: str) -> bool:
    """Whether it can be a name on disk and in a table: no control characters, no halves of a character."""
    return not any(ord(one) < 32 or 0xD800 <= ord(one) < 0xE000 for one in text)


def _path(root: Path, file: Path, number: int, entry: dict[str, Any], key: str) -> Path:
    text = entry.get(key)
    parts = inner_path(text)
    if parts is None and isinstance(text, str) and 0 < len(text) <= 1000 and _is_text(text):
        raise _wrong(file, number, f"its {key} '{text:.100}' leads out of the data set",
                     "paths in it must be relative, without '..'")
    if parts is None:
        raise _wrong(file, number, f"its {key} is {text!r:.40}, not a path")
    path = root / parts
    real = path.resolve()
    if not real.is_relative_to(root):
        raise _wrong(file, number, f"its {key} '{text:.100}' leads out of the data set through a link",
                     "put the file itself there instead of a link")
    if not real.is_file():
        raise _wrong(file, number, f"its {key} '{text:.100}' is not there")
    return path


def _wrong(file: Path, number: int, what: str, remedy: str = _COPY) -> BadFootage:
    return BadFootage(f"clip {number} of the metadata cannot be used: {what}", where=file, remedy=remedy)
