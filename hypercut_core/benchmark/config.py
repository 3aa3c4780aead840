"""What is compared, and with how much training."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from hypercut_core.errors import BadParameters

ROWS = ("repeat", "even_odd/hypercut_targets", "even_odd/sequence_min", "even_odd/order_invariant",
        "cascade/order_invariant", "cascade/hypercut_targets", "recurrent/order_invariant",
        "recurrent/hypercut_targets", "guided/naive", "guided/hypercut_targets", "event_integral")


@dataclass(frozen=True)
class BenchmarkConfig:
    """`hypercut benchmark`: rows, seeds and the budget that every training gets."""

    rows: tuple[str, ...] = ROWS  # MODEL/OBJECTIVE, repeat, event_integral; what is not blind gets rows of its own
    seeds: tuple[int, ...] = (0, 1, 2)  # each with an encoder, orders and trainings of its own
    samples: int = 0  # clips that each training sees; 0: as many as fit into `seconds`
    seconds: float = 120.0  # CPU-seconds of each training, by the measured time of its steps
    cost_height: int = 720  # size at which CPU-seconds and memory are measured, px
    cost_width: int = 1280  # its width, px; 0: costs are not measured
    films: int = 4  # clips that the page shows by every model


def with_budget(config: BenchmarkConfig, text: str) -> BenchmarkConfig:
    """The budget as it stands on a command line: ``samples=24000`` or ``seconds=600``.

    Raises:
        BadParameters: anything else.
    """
    found = re.fullmatch(r"(samples|seconds)=([0-9]+(?:\.[0-9]+)?)", text)
    if not found or not float(found[2]) > 0 or (found[1] == "samples" and "." in found[2]):
        raise BadParameters(f"'{text}' is no budget", where="--budget", remedy="write samples=24000 or seconds=600")
    if found[1] == "samples":
        return replace(config, samples=int(found[2]))
    return replace(config, samples=0, seconds=float(found[2]))


def budget_text(config: BenchmarkConfig) -> str:
    """The budget in words."""
    if config.samples:
        return f"{config.samples:,} clips seen by each training"
    return f"{config.seconds:,g} CPU-seconds for each training"
