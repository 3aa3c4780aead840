"""Settings of every kind of deblurrer, and the one parameter that chooses among them.

The even/odd model is described by the group `deblurrer.model`; each peer has a group of its own, with the shape
of the paper's model and what only its training needs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from hypercut_core.deblurring.cascade import CascadeConfig
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.guided import GuidedConfig
from hypercut_core.deblurring.models import KINDS, Config
from hypercut_core.deblurring.recurrent import RecurrentConfig
from hypercut_core.errors import BadParameters

KindName = Literal["even_odd", "cascade", "recurrent", "guided"]
STAGES = (0.25, 0.25, 0.5)


@dataclass(frozen=True)
class CascadeSettings:
    """The cascade of Jin et al. 2018."""

    rate: float = 5e-4  # highest learning rate, in place of training.rate; 0: that one
    model: CascadeConfig = field(default_factory=CascadeConfig)


@dataclass(frozen=True)
class RecurrentSettings:
    """The recurrent model of Purohit et al. 2019."""

    rate: float = 5e-4  # highest learning rate, in place of training.rate; 0: that one
    stages: tuple[float, float, float] = STAGES  # shares of the steps: video autoencoder, embedding, all together
    model: RecurrentConfig = field(default_factory=RecurrentConfig)


@dataclass(frozen=True)
class GuidedSettings:
    """The motion-guided model of Zhong et al. 2022."""

    rate: float = 1e-4  # highest learning rate, in place of training.rate; 0: that one
    model: GuidedConfig = field(default_factory=GuidedConfig)


@dataclass(frozen=True)
class PeerSettings:
    """The systems that the paper stands on; only the chosen kind's group is used."""

    cascade: CascadeSettings = field(default_factory=CascadeSettings)
    recurrent: RecurrentSettings = field(default_factory=RecurrentSettings)
    guided: GuidedSettings = field(default_factory=GuidedSettings)


def described(kind: str, even_odd: DeblurrerConfig, peers: PeerSettings) -> Config:
    """The configuration of the model of a kind.

    Raises:
        BadParameters: there is no such kind, or sizes that no model can have.
    """
    configs: dict[str, Config] = {"even_odd": even_odd, "cascade": peers.cascade.model,
                                  "recurrent": peers.recurrent.model, "guided": peers.guided.model}
    if kind not in configs:
        raise BadParameters(f"there is no deblurrer of the kind '{kind}'", where="deblurrer.kind",
                            remedy=f"choose one of {', '.join(configs)}")
    try:
        KINDS[kind].config(asdict(configs[kind]))
    except ValueError as error:
        where = "deblurrer.model" if kind == "even_odd" else f"deblurrer.peers.{kind}.model"
        raise BadParameters(f"no {kind} model can be made: {error}", where=where,
                            remedy="set sizes above 0 and not far above the defaults") from error
    return configs[kind]


def rate(kind: str, peers: PeerSettings, usual: float) -> float:
    """Highest learning rate of a kind: its own, or the usual one where it has none."""
    own = {"cascade": peers.cascade.rate, "recurrent": peers.recurrent.rate, "guided": peers.guided.rate}
    return own.get(kind, 0.0) or usual
