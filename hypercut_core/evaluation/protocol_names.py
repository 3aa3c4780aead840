"""What a model is given when it is measured. Figures of two protocols never stand in one row.

=================  ==================================================================
blind              the blurry image, nothing else: what a photo gives
oracle-middle      and the true middle frame (the released Purohit backbone)
oracle-guidance    and the directions of motion of the true frames (Zhong et al.)
best of n          n guesses, the best of which is chosen by the truth (Zhong et al.)
events             and the events of the exposure, here simulated from the true frames
=================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BLIND, ORACLE_MIDDLE, ORACLE_GUIDANCE, EVENTS = "blind", "oracle-middle", "oracle-guidance", "events"
HYPOTHESES = 5  # the paper reports 1, 3 and 5
BEST = f"best of {HYPOTHESES}"
GIVEN = {BLIND: "the blurry image alone",
         ORACLE_MIDDLE: "also the true middle frame, which stands in the mean with 100 dB",
         ORACLE_GUIDANCE: "also the directions of the true motion",
         BEST: f"the best of {HYPOTHESES} guesses, chosen by the truth",
         EVENTS: "also events, simulated from the truth"}


def labelled(name: str, protocol: str) -> str:
    """A row's name: what is not blind says so."""
    return name if protocol == BLIND else f"{name} ({protocol})"


def protocol_of(figures: Mapping[str, Any]) -> str:
    """The protocol of a model's figures; those that do not say are blind."""
    return str(figures.get("protocol", BLIND))
