"""What can be a row of the benchmark: a model, and the objective that it is trained with."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.models import Config
from hypercut_core.deblurring.objectives import OBJECTIVES
from hypercut_core.deblurring.peers import PeerSettings, described, rate
from hypercut_core.deblurring.recurrent import RecurrentConfig
from hypercut_core.errors import BadParameters

REPEAT, EVENT_INTEGRAL, ORACLE = "repeat", "event_integral", "recurrent_oracle"
TRAINED = {
    "even_odd": "ours: even/odd parts, exact re-blur",
    "cascade": "Jin et al. 2018: four networks in sequence",
    "recurrent": "Purohit et al. 2019, blind: with its own middle frame",
    ORACLE: "Purohit et al. 2019, given the true middle frame",
    "guided": "Zhong et al. 2022: motion guidance, and a predictor of it",
}
UNTRAINED = {REPEAT: "the blurry image, seven times", EVENT_INTEGRAL: "Pan et al. 2019: event double integral"}
MODELS = {**TRAINED, **UNTRAINED}


@dataclass(frozen=True)
class Row:
    """`model/objective`, or the model alone where nothing is trained."""

    model: str
    objective: str = ""

    @property
    def name(self) -> str:
        return f"{self.model}/{self.objective}" if self.objective else self.model

    @property
    def file(self) -> str:
        """The name as one word for folders."""
        return self.name.replace("/", "-")


@dataclass(frozen=True)
class Shapes:
    """The models that rows are made of."""

    even_odd: DeblurrerConfig = field(default_factory=DeblurrerConfig)
    peers: PeerSettings = field(default_factory=PeerSettings)

    def config(self, model: str) -> Config:
        """Raises BadParameters for sizes that no model can have."""
        kind = "recurrent" if model == ORACLE else model
        config = described(kind, self.even_odd, self.peers)
        if model == ORACLE and isinstance(config, RecurrentConfig):
            return replace(config, protocol="oracle")
        return config

    def rate(self, model: str, usual: float) -> float:
        """Highest learning rate of a model."""
        return rate("recurrent" if model == ORACLE else model, self.peers, usual)


def known_rows() -> list[str]:
    """Every row that there can be."""
    return [*(f"{model}/{objective}" for model in TRAINED for objective in OBJECTIVES), *UNTRAINED]


def parse_row(name: str) -> Row:
    """A row by its name.

    Raises:
        BadParameters: there is no such row; names the closest.
    """
    known = known_rows()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean '{close[0]}'" if close else f"rows are MODEL/OBJECTIVE, or {' or '.join(UNTRAINED)}"
        raise BadParameters(f"there is no row '{name}'", where="benchmark.rows", remedy=remedy)
    model, _, objective = name.partition("/")
    return Row(model, objective)


def chosen(rows: Sequence[str], patterns: Sequence[str]) -> list[Row]:
    """The rows that a pattern such as ``cascade/*`` names, or that are named whole; all where nothing is asked.

    Raises:
        BadParameters: an unknown row, or a pattern that fits none.
    """
    if not patterns:
        return [parse_row(name) for name in dict.fromkeys(rows)]
    found: list[str] = []
    for pattern in patterns:
        fitting = fnmatch.filter(rows, pattern)
        if not fitting and any(mark in pattern for mark in "*?["):
            raise BadParameters(f"no row fits '{pattern}'", where="--rows", remedy=f"choose among {', '.join(rows)}")
        found += fitting or [pattern]
    return [parse_row(name) for name in dict.fromkeys(found)]


def measured_views(views: int) -> dict[str, int]:
    """The numbers of views that a model is measured with, by their word: its own, and every half of it down to 1."""
    counts = [views >> halved for halved in range(views.bit_length())]
    return {f"{count} view{'s' * (count > 1)}": count for count in counts}
