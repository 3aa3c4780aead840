"""What went into the store, and what did not."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from hypercut_core.clips.manifest import SPLITS
from hypercut_core.clips.parts import Head

MOST_DAMAGE = 50  # damaged places that are listed; the rest is counted


@dataclass
class Tally:
    """Counts over the parts, in order: the figures do not depend on who made them."""

    clips: Counter[tuple[str, str]] = field(default_factory=Counter)  # (split, category)
    motion: Counter[str] = field(default_factory=Counter)
    responses: Counter[str] = field(default_factory=Counter)  # of imported clips
    windows: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # by category
    per_source: dict[str, Counter[str]] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)

    def add(self, head: Head) -> None:
        for record in head.records:
            self.clips[record.split, record.category] += 1
            self.motion[record.split] += record.motion  # type: ignore[assignment]
            self.responses.update([record.response] if record.blur == "captured" else [])
        for category, found in head.notes.get("windows", {}).items():
            self.windows[category].update(found)
        if "source" in head.notes:
            self.per_source[head.notes["source"]] = Counter(head.notes["skipped"])
            self.damage += head.notes["damage"]

    def figures(self, frames: int) -> dict[str, Any]:
        clips = {split: sum(n for (s, _), n in self.clips.items() if s == split) for split in SPLITS}
        return {
            "frames": frames,
            "clips": clips,
            "clips_by_category": {f"{split}/{category}": n for (split, category), n in self.clips.items()},
            "motion_mean_px": {split: self.motion[split] / max(1, clips[split]) for split in SPLITS},
            "windows": {category: dict(counts) for category, counts in self.windows.items()},
            **({"response_curves": dict(self.responses)} if self.responses else {}),
            "damaged_places": len(self.damage),
            "damage": self.damage[:MOST_DAMAGE],
        }
