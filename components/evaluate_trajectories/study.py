"""All systems on the same clips: what was found, its figures, and what is written of them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hypercut_core.clips.store import ClipStore
from hypercut_core.files import write_text
from hypercut_core.trajectories.figures import REPEAT, FollowedClip, followed_clip, system_figures
from hypercut_core.trajectories.following import GIVEN, TRUE, Finds, Follower, System
from hypercut_core.trajectories.page import Shown, render

COLUMNS = ("system", "clip_id", "source", "category", "kind", "motion_px", "subjects", "canonical", "rate", "found",
           "within", "error_px", "error", "lead", "motion", "roughness")


class Study:
    """The clips, and what the tracker finds on what every system makes of them.

    Args:
        chosen: rows of the store, each with what is looked for.
        systems: models; the blurry image and the true frames are always measured.
        directions: [N] +1: the stored order is canonical, -1: its reverse, 0: not known.
        kept: folder of what was found so far.
    """

    def __init__(self, clips: ClipStore, chosen: Sequence[tuple[int, str]], systems: Sequence[System],
                 directions: np.ndarray, tracker: Finds, kept: Path, most: int):
        self.clips, self.chosen, self.systems = clips, chosen, systems
        self.found = Follower(clips, tracker, kept, most).follow(
            [index for index, _ in chosen], [kind for _, kind in chosen], [*GIVEN, *systems])
        self.rows = [followed_clip(self._about(index, kind, int(direction)), found, clips.frames)
                     for (index, kind), direction, found in zip(chosen, directions, self.found, strict=True)]

    def _about(self, index: int, kind: str, direction: int) -> FollowedClip:
        record = self.clips.records[index]
        return FollowedClip(record.clip_id, record.source, record.category, kind, record.motion, direction, 0, False)

    def figures(self, default: str) -> dict[str, Any]:
        """All that goes into the metrics file; `default` is a system's name."""
        hashes = sorted(self.clips.records[index].sha256 for index, _ in self.chosen)
        categories = sorted({(row.category, row.kind) for row in self.rows})
        several = len(categories) > len({category for category, _ in categories})
        return {
            "test_set": hashlib.sha256("\n".join(hashes).encode()).hexdigest(), "frames": self.clips.frames,
            "default": default, **self._part(self.rows),
            "categories": {f"{category}, {kind}" if several else category: self._part(
                [row for row in self.rows if (row.category, row.kind) == (category, kind)])
                for category, kind in categories}}

    def _part(self, rows: Sequence[FollowedClip]) -> dict[str, Any]:
        return {"clips": len(rows), "sources": len({row.source for row in rows}),
                "with_truth": sum(bool(row.subjects) for row in rows),
                "true": system_figures(rows, TRUE), "repeat": system_figures(rows, REPEAT),
                "models": {system.name: system_figures(rows, system.name) for system in self.systems}}

    def write(self, folder: Path, figures: Mapping[str, Any], films: int, worst: int,
              provenance: Mapping[str, Any]) -> None:
        """The table of single clips and the page."""
        write_table(folder / "per_clip.csv", self.rows)
        gains = gains_of(self.rows, figures["default"])
        ranked = np.argsort(-gains, kind="stable")
        even = ranked[np.linspace(0, len(ranked) - 1, min(max(0, films), len(ranked))).round().astype(int)]
        bad = [place for place in ranked[::-1] if gains[place] < 0][:max(0, worst)]
        known = {f"model {system.name} (sha256)": system.identity for system in self.systems}
        write_text(folder / "report.html", render(
            figures, self.rows, [self._shown(int(place), self.systems) for place in even],
            [self._shown(int(place), self.systems[:1]) for place in bad],
            {"test set (sha256)": figures["test_set"], "clip store (sha256)": self.clips.sha256, **known,
             **provenance}))

    def _shown(self, place: int, systems: Sequence[System]) -> Shown:
        clip = self.clips.read(self.chosen[place][0])
        return Shown(place, clip, self.found[place], {system.name: system.make(clip) for system in systems})


def gains_of(rows: Sequence[FollowedClip], name: str) -> np.ndarray:
    """[N] landmarks met within 0.2 sizes above repeating the blurry image, or pictures with a detection where the
    true frames show nothing."""
    gains = [(one.measured[name].within - one.measured[REPEAT].within) if one.subjects
             else (one.measured[name].rate - one.measured[REPEAT].rate) for one in rows]
    return np.array(gains, np.float64)


def write_table(path: Path, rows: Sequence[FollowedClip]) -> None:
    """One row for each system and clip; without any, the names of the columns alone."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name in rows[0].measured if rows else ():
            for row in rows:
                one = row.measured[name]
                numbers = (one.rate, one.found, one.within, one.mean_error, one.mean_relative, one.lead, one.motion,
                           one.roughness)
                words = map(_plain, (name, row.clip_id, row.source, row.category))
                writer.writerow([*words, row.kind, _number(row.motion), row.subjects, row.canonical,
                                 *map(_number, numbers)])


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


def _plain(text: str) -> str:
    """Names come from footage: a spreadsheet must not take one for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
