"""What a data set or a clip store holds, in figures: a look before a training of hours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hypercut_core.clips import layouts
from hypercut_core.clips.frame_folder import image_size
from hypercut_core.clips.layouts import LayoutCounts, PairedClip
from hypercut_core.clips.motion import path_length
from hypercut_core.clips.rb2v import read_document
from hypercut_core.clips.store import ClipStore
from hypercut_core.errors import BadFootage
from hypercut_core.progress import track

# train and test clips of RB2V, as published (Pham et al. 2023)
RB2V = {"street": (9000, 2053), "face": (8000, 2157), "hand": (12000, 4722)}


def describe(folder: Path, sample: int = 12) -> dict[str, Any]:
    """Figures of a clip store, or of the data sets in a folder.

    Args:
        sample: clips, spread evenly, whose pixels are read: for size, motion and response curve.

    Raises:
        BadFootage: it is neither, or a data set is damaged.
        BadClipStore: the store is damaged.
    """
    if (folder / "clips.parquet").is_file():
        return {"clip store": _store(ClipStore(folder), sample)}
    found = layouts.roots(folder)
    if not found:
        raise BadFootage("there is no data set and no clip store here", where=folder,
                         remedy=f"name a folder of one of the layouts {', '.join(layouts.NAMES)} or a clip store")
    return {base.name or str(base): _data_set(base, layout, sample) for base, layout in found}


def _data_set(root: Path, layout: str, sample: int) -> dict[str, Any]:
    counts = LayoutCounts()
    clips = list(layouts.read(root, layout, None, counts))
    if not clips:
        raise BadFootage("the data set holds no clips that can be used", where=root,
                         remedy="copy it again from where it came from")
    figures: dict[str, Any] = {"layout": layout}
    if layout in layouts.WITH_METADATA:
        document = read_document(root)
        figures["name"] = document.get("name", "rb2v")
        figures["orders"] = dict(Counter(str(entry.get("order")) for entry in document["data"]))
    figures |= {"clips": dict(Counter(clip.partition or "not said" for clip in clips)),
                "sequences": _sequences(clips), "left out": dict(counts.skipped),
                "sharp frames a clip": len(clips[0].sharp)}
    published = next((name for name in RB2V if name in str(figures.get("name", "")).lower()), "")
    if layout == "rb2v" and published:
        train, test = RB2V[published]
        figures["published"] = {"set": f"RB2V {published}", "train": train, "test": test}
    chosen = [clips[place] for place in _even(len(clips), sample)]
    figures |= _pixels((clip.load() for clip in track(chosen, "reading clips")),
                       layouts.convention(layout, clips[0].blurry))
    figures["sizes"] = dict(Counter("{}x{}".format(*image_size(clip.blurry)) for clip in chosen))
    return {**figures, "licence": layouts.NOTICES[layout]}


def _sequences(clips: Sequence[PairedClip]) -> dict[str, int]:
    """Sequences of each partition; those that are in several, which the import mends, are counted apart."""
    where: dict[str, set[str]] = {}
    for clip in clips:
        where.setdefault(clip.source, set()).add(clip.partition or "not said")
    return dict(Counter("in several" if len(parts) > 1 else next(iter(parts)) for parts in where.values()))


def _store(store: ClipStore, sample: int) -> dict[str, Any]:
    records = store.records
    chosen = _even(len(store), sample)
    motion = np.array([record.motion for record in records])
    measured = _pixels((store.read(i) for i in track(chosen, "reading clips")), None)
    return {
        "clips": dict(Counter(record.split for record in records)),
        "categories": dict(Counter(record.category for record in records)),
        "sequences": len({record.source for record in records}),
        "sharp frames a clip": store.frames,
        "sizes": dict(Counter(f"{record.width}x{record.height}" for record in records)),
        "blur": dict(Counter(record.blur for record in records)),
        "recorded response": dict(Counter(record.response for record in records)),
        **{key: value for key, value in measured.items() if key != "motion, px"},
        "motion, px": _quantiles(motion), "content": store.sha256,
    }


def _pixels(clips: Any, known: str | None) -> dict[str, Any]:
    """Response curve and motion of some clips."""
    motion, kept = [], []
    for clip in clips:
        motion.append(path_length(clip[1:]))
        shrink = max(1, clip.shape[1] // 256)
        kept.append(clip[:, ::shrink, ::shrink])  # every n-th pixel tells the curve as well as all do
    curve, fit = layouts.response_of(kept, known)
    return {"response": curve, "response by convention": known or "not known",
            "blur against the mean of its frames, dB": round(fit, 2), "motion, px": _quantiles(np.array(motion))}


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {name: round(float(np.quantile(values, share)), 2)
            for name, share in (("5 %", 0.05), ("median", 0.5), ("95 %", 0.95))}


def _even(count: int, most: int) -> list[int]:
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, max(1, most)))})


def as_text(figures: dict[str, Any]) -> str:
    """The figures as indented lines."""
    lines = []
    for name, one in figures.items():
        lines.append(name)
        for key, value in one.items():
            shown = ", ".join(f"{inner} {number}" for inner, number in value.items()) \
                if isinstance(value, dict) else value
            lines.append(f"  {key}: {shown if shown != '' else 'none'}")
    return "\n".join(lines)
