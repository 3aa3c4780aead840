"""The model whose weights a training begins with, in place of fresh ones."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

from hypercut_core.deblurring.models import EVEN_ODD, Deblurrer, kind_of, load_deblurrer
from hypercut_core.errors import BadParameters
from hypercut_core.files import file_sha256

PLACE = "deblurrer.start"
# Settings that leave the weights' meaning as it is: the training that goes on may choose them anew.
FREE = ("views", "projection", "response", "assumes", "symmetric")


@dataclass(frozen=True)
class Start:
    """A model that exists; small beside the clips, so it travels to whatever process trains."""

    model: Deblurrer
    sha256: str  # of its file: part of what makes a training this training
    name: str  # what it was asked for by

    def give_to(self, model: Deblurrer) -> None:
        """Put the weights into a model of the same kind, shape and number of frames.

        Raises:
            BadParameters: says in what the two differ.
        """
        theirs, mine = kind_of(self.model.config), kind_of(model.config)
        if theirs != mine:
            raise BadParameters(f"{self.name} is of the kind {theirs}, and the kind {mine} is trained", where=PLACE,
                                remedy=f"set deblurrer.kind to {theirs}, or give a model of the kind {mine}")
        if self.model.frames != model.frames:
            raise BadParameters(f"{self.name} gives {self.model.frames} frames, the clips have {model.frames}",
                                where=PLACE, remedy=f"make clips of {self.model.frames} frames, or give another model")
        own, asked = asdict(self.model.config), asdict(model.config)
        other = {key: value for key, value in own.items() if key not in FREE and value != asked[key]}
        if other:
            group = "deblurrer.model" if mine == EVEN_ODD else f"deblurrer.peers.{mine}.model"
            what = ", ".join(f"{key} is {_shown(value)} and not {_shown(asked[key])}" for key, value in other.items())
            settings = ", ".join(f"{group}.{key}={_shown(value)}" for key, value in other.items())
            raise BadParameters(f"{self.name} has another shape than what is trained: {what}", where=PLACE,
                                remedy=f"set {settings}, or give a model of this shape and objective")
        model.load_state_dict(self.model.state_dict())


def read_start(path: str | os.PathLike[str], name: str = "") -> Start:
    """The model of a file.

    Args:
        name: what the user calls it; "": the path.

    Raises:
        BadCheckpoint: missing, damaged, or no deblurrer.
    """
    model = load_deblurrer(path)  # says what is wrong with the file, so it comes first
    return Start(model, file_sha256(path), name or os.fspath(path))


def _shown(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
