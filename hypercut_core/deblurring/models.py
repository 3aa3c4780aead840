"""Build, save and load deblurrers: the even/odd model and the peers that the paper names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from torch import nn

from hypercut_core.blur.exposure import RESPONSES
from hypercut_core.deblurring.cascade import CascadeConfig, CascadeDeblurrer
from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.deblurring.guided import GuidedConfig, GuidedDeblurrer
from hypercut_core.deblurring.recurrent import Protocol, RecurrentConfig, RecurrentDeblurrer
from hypercut_core.errors import BadCheckpoint, BadParameters
from hypercut_core.training.checkpoint import expect_model, load_weights, read_tensors, save_model

EVEN_ODD = "even_odd"
LARGEST = 1024  # of any size that a description may ask for

# Named shapes of the even/odd model: parameters (T = 7) and what they are for.
SHAPES: dict[str, DeblurrerConfig] = {
    "cpu": DeblurrerConfig(width=32, blocks=(2, 2, 2), block="conv"),  # 1.0 M: minutes on two CPU cores
    "default": DeblurrerConfig(width=32, blocks=(2, 2, 4, 8)),  # NAFNet-style, one GPU
    "large": DeblurrerConfig(width=64, blocks=(2, 2, 4, 8, 12)),  # NAFNet-style, several GPUs
}

Config = DeblurrerConfig | CascadeConfig | RecurrentConfig | GuidedConfig
Deblurrer = EvenOddDeblurrer | CascadeDeblurrer | RecurrentDeblurrer | GuidedDeblurrer


@dataclass(frozen=True)
class Kind:
    """A kind of deblurrer: its class, that of its configuration, and how a description becomes one."""

    model: type[nn.Module]
    described_by: type
    config: Callable[[dict[str, Any]], Any]


def build_deblurrer(config: Config, frames: int = 7) -> Deblurrer:
    """A fresh deblurrer of the kind that the configuration belongs to, (B, 3, H, W) -> (B, T, 3, H, W).

    Raises:
        BadParameters: the kind cannot have so many frames.
    """
    return KINDS[kind_of(config)].model(config, frames)  # type: ignore[return-value]


def kind_of(config: Config) -> str:
    """Name of the kind that a configuration describes."""
    for name, kind in KINDS.items():
        if isinstance(config, kind.described_by):
            return name
    raise TypeError(f"no deblurrer is described by {type(config).__name__}")


def save_deblurrer(path: str | os.PathLike[str], model: nn.Module, card: dict[str, Any]) -> None:
    """Write a deblurrer with everything that is needed to use it; `card` says how it came about."""
    name = next(name for name, kind in KINDS.items() if isinstance(model, kind.model))
    save_model(path, model, {"model": name, "config": asdict(model.config),  # type: ignore[call-overload]
                             "frames": model.frames, "card": card})


def load_deblurrer(path: str | os.PathLike[str], views: int | None = None) -> Deblurrer:
    """Read a deblurrer in evaluation mode, on the CPU; `model.card` is what was saved beside it.

    Args:
        views: how many views the even/odd model joins (1 is eight times as fast as 8); None: as its file says.
            The other kinds have one.

    Raises:
        BadCheckpoint: missing, damaged, or of another model; BadParameters: no such number of views.
    """
    if views not in (None, 1, 2, 4, 8):
        raise BadParameters(f"{views} views were asked for", where="views", remedy="choose 1, 2, 4 or 8")
    tensors, info = read_tensors(path)
    expect_model(path, info, tuple(KINDS))
    if views and info["model"] != EVEN_ODD:
        if views > 1:
            raise BadParameters(f"the model '{info['model']}' joins no views", where=path, remedy="leave views out")
        views = None
    try:
        model = build_deblurrer(config_of(info, **({"views": views} if views else {})), int(info["frames"]))
    except (KeyError, TypeError, ValueError, BadParameters) as error:
        raise BadCheckpoint(f"the description of the model cannot be used ({error})", where=path,
                            remedy="train the model again with this version") from error
    load_weights(path, model, tensors)
    model.card = info.get("card", {})
    return model.eval()


def config_of(info: Mapping[str, Any], **changed: Any) -> Config:
    """The configuration that a model file describes; KeyError, TypeError or ValueError where it describes none."""
    return KINDS[info["model"]].config({**info["config"], **changed})


def _even_odd(described: dict[str, Any]) -> DeblurrerConfig:
    sizes = [described.get("width", 1), described.get("unshuffle", 1), *described.get("blocks", [])]
    _check(DeblurrerConfig, described, sizes)
    if described.get("views", 1) not in (1, 2, 4, 8):
        raise ValueError("views out of range")
    if described.get("axes", 1) not in (1, 2):
        raise ValueError("axes out of range")
    return DeblurrerConfig(**{**described, "blocks": tuple(described["blocks"])})


def _cascade(described: dict[str, Any]) -> CascadeConfig:
    _check_peer(CascadeConfig, described, {"width": 512, "side_width": 512, "colour": 512})
    return CascadeConfig(**described)


def _recurrent(described: dict[str, Any]) -> RecurrentConfig:
    _check_peer(RecurrentConfig, described, {"width": 512, "middle_width": 256})
    if described.get("protocol", "blind") not in get_args(Protocol):
        raise ValueError("unknown protocol")
    return RecurrentConfig(**described)


def _guided(described: dict[str, Any]) -> GuidedConfig:
    _check_peer(GuidedConfig, described, {"width": 256, "blocks": 64, "refine": 16, "predictor_width": 256})
    if type(described.get("symmetric", False)) is not bool:
        raise ValueError("symmetric is neither true nor false")
    if described.get("assumes", "auto") not in ("auto", "rightward", "likeliest"):
        raise ValueError("unknown assumption")
    return GuidedConfig(**described)


def _check(config: type, described: dict[str, Any], sizes: list[Any]) -> None:
    known = {f.name for f in fields(config)}
    if extra := set(described) - known:
        raise ValueError(f"unknown settings {sorted(extra)}")
    if not all(isinstance(n, int) and 0 < n <= LARGEST for n in sizes):
        raise ValueError("sizes out of range")


def _check_peer(config: type, described: dict[str, Any], largest: dict[str, int]) -> None:
    _check(config, described, [described.get(key, 1) for key in largest])
    if any(described.get(key, 1) > most for key, most in largest.items()):
        raise ValueError("sizes out of range")
    if described.get("response", "srgb") not in RESPONSES:
        raise ValueError("unknown response curve")


KINDS: dict[str, Kind] = {  # by the name that stands in a checkpoint
    EVEN_ODD: Kind(EvenOddDeblurrer, DeblurrerConfig, _even_odd),
    "cascade": Kind(CascadeDeblurrer, CascadeConfig, _cascade),
    "recurrent": Kind(RecurrentDeblurrer, RecurrentConfig, _recurrent),
    "guided": Kind(GuidedDeblurrer, GuidedConfig, _guided),
}
