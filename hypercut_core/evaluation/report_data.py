"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hypercut_core.evaluation.protocol import ClipScores


@dataclass(frozen=True)
class ClipLabel:
    """What the report says of a clip."""

    clip_id: str
    source: str
    category: str
    motion: float  # px over the exposure


@dataclass(frozen=True)
class Example:
    """A clip to look at. `place` is its row in the scores."""

    place: int
    clip: np.ndarray  # uint8 [T+1, H, W, 3], the blurry image first
    recovered: dict[str, np.ndarray]  # model -> uint8 [T, H, W, 3], turned the way that scored best


@dataclass(frozen=True)
class ReportData:
    """All that a report shows; `scores` and `summaries` by model, the default model first."""

    default: str
    scores: Mapping[str, ClipScores]
    summaries: Mapping[str, Mapping[str, Any]]
    trivial: ClipScores
    trivial_summary: Mapping[str, Any]
    clips: Sequence[ClipLabel]
    given_more: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # summaries that are not blind
    examples: Sequence[Example] = ()  # an even choice from best to worst
    worst: Sequence[Example] = ()
    margins: np.ndarray | None = None  # [N] |u| of each clip in the learned order, nan where unknown
    order_figures: Mapping[str, float] = field(default_factory=dict)  # hit, con2, con3, joint3
    predictability: Mapping[str, float] = field(default_factory=dict)  # order -> share told right from blur
    categories: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()  # what was asked for and could not be measured, and why
    title: str = "Hypercut evaluation"

    @property
    def frames(self) -> int:
        return self.trivial.forward.shape[1]

    @property
    def gain(self) -> np.ndarray:
        """[N] dB of the default above repeating the blurry image."""
        return self.scores[self.default].ppsnr.mean(1) - self.trivial.ppsnr.mean(1)
