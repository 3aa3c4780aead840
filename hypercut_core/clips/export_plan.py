"""What an export will write: the metadata of each data set, and which clip goes into which files.

**Order.** The store holds clips the way that the import turned them. A clip's files are written in the order in
which the data set had them (so a clip that came in by "reverse" is turned back), and `order` says how they are
to be taken: "keep" or "reverse", from the order table; without one, what it said before, and "random" for clips
that were never in such a data set.

**Ignored.** With an order table, training and validation clips become "ignore" when the pairs of their frames do
not agree on a direction, or when their margin is below a limit; test clips only on request, so that figures on
the test set can be compared. Clips that the data set itself ignores were not imported: their entries are written
as they were, and their files are not there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from hypercut_core.clips.clip_table import ClipRecord
from hypercut_core.clips.imported import IMPORTED, Documents
from hypercut_core.clips.rb2v import MAX_ID, inner_path
from hypercut_core.clips.store import ClipStore
from hypercut_core.errors import BadClipStore, BadParameters
from hypercut_core.ordering.labels import OrderTable

OURS = "hypercut"  # the field in which an entry carries what we know of the clip


@dataclass(frozen=True)
class ExportConfig:
    """Which clips are written as "ignore", and what the data set is called."""

    name: str = ""  # name of a data set that was not imported as one; empty: the clips' category
    ignore_disagreeing: bool = True  # clips whose pairs of frames do not agree on a direction
    min_margin: float = 0.0  # clips whose order margin |u| is below this
    ignore_test: bool = False  # hold test clips to both rules too


@dataclass(frozen=True)
class ClipFiles:
    """A clip of the store and the files, relative to the export, of its blurry image and sharp frames."""

    index: int
    blurry: PurePosixPath
    sharp: tuple[PurePosixPath, ...]
    turned: bool  # the files hold the sharp frames backwards


@dataclass
class ExportPlan:
    """Metadata of each data set by its folder ("" is the export's own), and the clips to write."""

    documents: Documents = field(default_factory=dict)
    clips: list[ClipFiles] = field(default_factory=list)
    shared: set[PurePosixPath] = field(default_factory=set)  # files of several clips, as of overlapping windows
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Direction:
    """A row of the order table."""

    keep: bool
    margin: float
    agree: bool


def plan_export(store: ClipStore, imported: Documents, orders: OrderTable | None,
                config: ExportConfig) -> ExportPlan:
    """Decide everything that an export writes, from the tables alone.

    Raises:
        BadClipStore: the order table is of another store, or what was imported does not fit the clips.
        BadParameters: the margin is below 0 or given without an order table, or the name cannot be one.
    """
    if not 0 <= config.min_margin < float("inf") or (config.min_margin and orders is None):
        raise BadParameters(f"the least margin is {config.min_margin:g}", where="min_margin",
                            remedy="give a number from 0 upwards, with an order table")
    if config.name and (len(config.name) > 100 or not re.fullmatch(r"[\w .+-]+", config.name)):
        raise BadParameters(f"'{config.name:.40}' cannot be the name of a data set", where="name",
                            remedy="use letters, digits, spaces, '.', '+' and '-'")
    plan = ExportPlan()
    rows = _directions(store, orders)
    indices = {record.clip_id: index for index, record in enumerate(store.records)}
    for prefix, document in imported.items():
        _again(plan, store, rows, indices, prefix, document, config)
    _anew(plan, store, rows, sorted(indices.values()), config)
    files = Counter(path for clip in plan.clips for path in {clip.blurry, *clip.sharp})
    plan.shared = {path for path, clips in files.items() if clips > 1}
    folders = {parent for path in files for parent in path.parents}
    if folders & set(files):
        raise BadClipStore(f"'{min(folders & set(files))}' is a file of one clip and a folder of another",
                           where=store.path, remedy="run 'hypercut synthesize-blur' again")
    return plan


def _directions(store: ClipStore, orders: OrderTable | None) -> dict[str, _Direction]:
    if orders is None:
        return {}
    rows = {clip: _Direction(bool(keep > 0), float(margin), bool(agree)) for clip, keep, margin, agree
            in zip(orders.clip_ids, orders.direction, orders.margin, orders.agree, strict=True)}
    for record in store.records:
        if record.clip_id not in rows:
            raise BadClipStore(f"the order table has no row for clip '{record.clip_id}'", where="orders.parquet",
                               remedy="run 'hypercut assign-order' on this clip store")
    return rows


def _again(plan: ExportPlan, store: ClipStore, rows: dict[str, _Direction], indices: dict[str, int], prefix: str,
           document: dict[str, Any], config: ExportConfig) -> None:
    """Clips of a data set that was imported: its own entries, with the new order; taken out of `indices`."""
    if document.get("frame_per_seq") != store.frames or (prefix and inner_path(prefix) is None):
        raise _misfit(store, f"the data set '{prefix}' has {document.get('frame_per_seq')!r:.20} frames a clip")
    data = []
    for entry in document["data"]:
        if not isinstance(entry, dict):
            raise _misfit(store, "an entry is no object")
        known = str(entry.get("id"))
        index = indices.pop(f"{prefix}/{known}" if prefix else known, None)
        if index is None:
            if entry.get("order") == "ignore":
                data.append(entry)
                plan.counts["ignored before the import"] += 1
            else:
                plan.counts["not in the clip store"] += 1
            continue
        turned = entry.get("order") == "reverse"
        data.append(_entry(entry, store.records[index], rows, turned, config, plan.counts))
        paths = [_png(store, data[-1], key, prefix) for key in _keys(store.frames)]
        plan.clips.append(ClipFiles(index, paths[0], tuple(paths[1:]), turned))
    if data:
        plan.documents[prefix] = {**document, "data": data}


def _anew(plan: ExportPlan, store: ClipStore, rows: dict[str, _Direction], indices: Iterable[int],
          config: ExportConfig) -> None:
    """Clips of other origin: a data set for each category (RB2V's street, face, hand), a folder each source."""
    indices = list(indices)
    categories = list(dict.fromkeys(store.records[index].category for index in indices))
    folders = dict(zip(categories, distinct(categories, plan.documents), strict=True))
    for category in categories:
        prefix = folders[category] if len(categories) > 1 or plan.documents else ""
        members = [index for index in indices if store.records[index].category == category]
        sources = list(dict.fromkeys(store.records[index].source for index in members))
        sequences = dict(zip(sources, distinct(sources), strict=True))
        places: Counter[str] = Counter()
        data = []
        for index in members:
            record = store.records[index]
            sequence = sequences[record.source]
            stem = f"{places[sequence]:04d}"
            places[sequence] += 1
            names = {"blur_path": f"{sequence}/blur/{stem}.png"}
            names |= {key: f"{sequence}/sharp/{stem}_{place}.png"
                      for place, key in enumerate(_keys(store.frames)[1:], start=1)}
            known = record.clip_id if len(record.clip_id) <= MAX_ID else f"{sequence}/{stem}"
            first: dict[str, Any] = {"id": known, "order": "random", "partition": record.split, **names}
            data.append(_entry(first, record, rows, False, config, plan.counts))
            paths = [PurePosixPath(prefix) / path for path in names.values()]
            plan.clips.append(ClipFiles(index, paths[0], tuple(paths[1:]), False))
        name = config.name or folders[category]
        plan.documents[prefix] = {"name": name, "frame_per_seq": store.frames, "data": data}


def _entry(entry: dict[str, Any], record: ClipRecord, rows: dict[str, _Direction], turned: bool,
           config: ExportConfig, counts: Counter[str]) -> dict[str, Any]:
    """The entry with its new order, and what we know of the clip under "hypercut"."""
    ours: dict[str, Any] = {"source": record.source, "category": record.category, "motion": record.motion,
                            "blur": record.blur, "response": record.response, "noise": record.noise}
    order, row = entry.get("order"), rows.get(record.clip_id)
    if row is not None:
        order = "keep" if row.keep != turned else "reverse"
        ours |= {"direction": order, "margin": round(row.margin, 6), "agree": row.agree}
        reason = _ignored(row, record.split, config)
        if reason:
            order = "ignore"
            ours["ignored"] = reason
            counts[f"ignored: {reason}"] += 1
    counts[f"order {order}"] += 1
    return {**entry, "order": order, OURS: ours}


def _ignored(row: _Direction, split: str, config: ExportConfig) -> str:
    if split == "test" and not config.ignore_test:
        return ""
    if config.ignore_disagreeing and not row.agree:
        return "its pairs do not agree"
    return "its margin is small" if row.margin < config.min_margin else ""


def _keys(frames: int) -> list[str]:
    return ["blur_path", *(f"frame{place:03d}_path" for place in range(1, frames + 1))]


def _png(store: ClipStore, entry: dict[str, Any], key: str, prefix: str) -> PurePosixPath:
    """The file of an entry's field. Files of lossy formats get a new name, in the entry too."""
    path = inner_path(entry.get(key))
    if path is None:
        raise _misfit(store, f"the {key} of clip '{entry.get('id')}' is no path inside a data set")
    if path.suffix.lower() != ".png":
        path = path.with_name(path.name + ".png")
        entry[key] = path.as_posix()
    if path.name == "metadata.json" or inner_path(path.as_posix()) is None:
        raise _misfit(store, f"the {key} of clip '{entry.get('id')}' cannot be a file's name")
    return PurePosixPath(prefix) / path


def distinct(names: Iterable[str], taken: Iterable[str] = ()) -> Iterator[str]:
    """A folder's name for each name, no two alike, also where upper and lower case are one."""
    used = {name.lower() for name in taken}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:80] or "sequence"
        number, made = 1, plain
        while made.lower() in used:
            number += 1
            made = f"{plain}-{number}"
        used.add(made.lower())
        yield made


def _misfit(store: ClipStore, what: str) -> BadClipStore:
    return BadClipStore(f"what was imported does not fit the clips: {what}", where=f"{store.source.name}/{IMPORTED}",
                        remedy="run 'hypercut synthesize-blur' again")
