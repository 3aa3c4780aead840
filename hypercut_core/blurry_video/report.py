"""What was found out about the directions of a video's frames, for people and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hypercut_core.blurry_video.shots import Shot
from hypercut_core.blurry_video.signs import Margins, margins

SURE = float(np.log(19))  # nats: odds of 19 to 1
MODEL_SHARE = 0.5  # of the picture; where less of it is the model's, the neighbours' motion has the direction
LIMITS = ("what the model makes of a frame is turned as a whole: regions that move independently are not told apart "
          "there; confidence is that of this turn, from made videos (docs/use.md)")


@dataclass(frozen=True)
class Findings:
    """Counts over a whole video."""

    frames: int
    shots: int
    unsure: int  # frames whose direction is a guess
    still: int  # frames in which next to nothing moves


def shot_record(shot: Shot) -> dict[str, Any]:
    """One shot, with a row a frame."""
    found = _margins(shot)
    between = [float("nan"), *found.links]
    rows = [{"frame": shot.frames[t], "seconds": shot.seconds[t], "direction": -1 if shot.states[t] else 1,
             "margin": found.frames[t], "confidence": confidence(found.frames[t]), "motion_px": shot.motion[t],
             "neighbours_px": shot.speed[t], "restored_share": shot.restored[t],
             "agrees_with_the_one_before": confidence(between[t]), "note": note}
            for t, note in enumerate(notes(shot, found))]
    return {"first": shot.frames[0], "last": shot.frames[-1], "begins_with": shot.why, "forced": shot.forced,
            "margin_of_the_whole_against_its_reverse": found.whole, "confidence": confidence(found.whole),
            "frames": rows}


def notes(shot: Shot, found: Margins) -> list[str]:
    """"" where the direction is sure, else "still" or "guess", a frame each."""
    return ["still" if still else "" if margin >= SURE or share < MODEL_SHARE else "guess"
            for still, margin, share in zip(shot.still, found.frames, shot.restored, strict=True)]


def findings(shots: list[Shot]) -> Findings:
    said = [note for shot in shots for note in notes(shot, _margins(shot))]
    return Findings(len(said), len(shots), said.count("guess"), said.count("still"))


def confidence(margin: float) -> float:
    """Probability of the answer from its margin in nats."""
    return float(1 / (1 + np.exp(-np.clip(margin, -500, 500))))


def _margins(shot: Shot) -> Margins:
    return margins(np.array(shot.links).reshape(-1, 2, 2), shot.states)
