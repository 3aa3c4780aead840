"""From the measures of single clips to the figures of a table: means, spread, and every system against repeating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hypercut_core.trajectories.following import BLURRY, TRUE
from hypercut_core.trajectories.measure import Measured, Picture, mean, measure, moves, subjects_of
from hypercut_core.trajectories.spread import interval

REPEAT = "repeat the blurry image"  # the same landmarks as BLURRY, held against every true frame


@dataclass(frozen=True)
class FollowedClip:
    """One clip, with the measures of every system."""

    clip_id: str
    source: str
    category: str
    kind: str
    motion: float  # over the exposure, px, as the store says
    canonical: int  # +1: the stored order is the canonical one, -1: the reverse, 0: not known
    subjects: int  # on the true frames
    moves: bool
    measured: dict[str, Measured] = field(default_factory=dict)  # by the system's name

    def shared(self, name: str, other: str = REPEAT, relative: bool = True) -> tuple[float, float]:
        """Mean errors of two systems on the subjects and frames that both found; nan where there are none."""
        one, two = self.measured[name], self.measured[other]
        both = np.isfinite(one.error) & np.isfinite(two.error)
        size = one.sizes[:, None] if relative else 1.0
        return (mean(np.where(both, one.error / size, np.nan)), mean(np.where(both, two.error / size, np.nan)))


def followed_clip(about: FollowedClip, found: dict[str, list[Picture]], frames: int) -> FollowedClip:
    """`about` with the measures of all systems in `found`, which holds BLURRY and TRUE."""
    subjects = subjects_of(found[TRUE])
    measured = {REPEAT if name == BLURRY else name: measure(subjects, pictures, frames)
                for name, pictures in found.items()}
    return FollowedClip(about.clip_id, about.source, about.category, about.kind, about.motion, about.canonical,
                        len(subjects), moves(subjects), measured)


def system_figures(clips: Sequence[FollowedClip], name: str) -> dict[str, Any]:
    """The figures of one system over clips; None where nothing could be measured.

    rate: share of its pictures with a detection; error_px, error: mean landmark error, px and sizes; within: share of
    the true landmarks met within 0.2 sizes; found: share of the true faces or hands; motion, roughness: see
    `measure.py`; direction: share of the clips with a known canonical order, in which something moves, whose
    pictures run in it. `against_repeating` compares on the same clips, subjects and frames.
    """
    sources = [clip.source for clip in clips]
    each = [clip.measured[name] for clip in clips]
    columns = {"rate": [one.rate for one in each], "found": [one.found for one in each],
               "within": [one.within for one in each], "error": [one.mean_relative for one in each],
               "error_px": [one.mean_error for one in each]}
    figures: dict[str, Any] = {"clips": len(clips)}
    for key, values in columns.items():
        figures[key] = _mean(values)
        figures[f"{key}_interval"] = interval(values, sources)
    figures["motion"] = _mean([one.motion for one in each])
    figures["roughness"] = _mean([one.roughness for one in each])
    if name in (TRUE, REPEAT):
        return figures
    told = [clip.measured[name].lead * clip.canonical > 0 for clip in clips
            if clip.canonical and clip.moves and clip.measured[name].lead]
    figures |= {"direction": _mean(told), "direction_clips": len(told), "against_repeating": _against(clips, name)}
    return figures


def _against(clips: Sequence[FollowedClip], name: str) -> dict[str, Any]:
    """Gains are above 0 where the system is better: more is found, the error is less."""
    sources = [clip.source for clip in clips]
    rate = np.array([clip.measured[name].rate - clip.measured[REPEAT].rate for clip in clips])
    pairs = np.array([clip.shared(name) for clip in clips]).reshape(-1, 2)
    pixels = np.array([clip.shared(name, relative=False) for clip in clips]).reshape(-1, 2)
    gain, gain_px = pairs[:, 1] - pairs[:, 0], pixels[:, 1] - pixels[:, 0]
    known = np.isfinite(gain)
    found = np.array([clip.measured[name].found - clip.measured[REPEAT].found for clip in clips])
    return {
        "rate_gain": _mean(rate), "rate_gain_interval": interval(rate, sources),
        "rate_higher": int((rate > 0).sum()), "rate_same": int((rate == 0).sum()), "rate_lower": int((rate < 0).sum()),
        "found_gain": _mean(found), "found_gain_interval": interval(found, sources),
        "error_clips": int(known.sum()), "error": _mean(pairs[known, 0]), "repeat_error": _mean(pairs[known, 1]),
        "error_gain": _mean(gain), "error_gain_interval": interval(gain, sources),
        "error_gain_px": _mean(gain_px), "error_gain_px_interval": interval(gain_px, sources),
        "error_lower": int((gain > 0).sum()), "error_higher": int((gain < 0).sum())}


def _mean(values: Sequence[Any] | np.ndarray) -> float:
    return mean(np.asarray(values, np.float64))
