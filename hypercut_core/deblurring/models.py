"""Build, save and load deblurrers."""

from __future__ import annotations

import os
from dataclasses import asdict, fields
from typing import Any

from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
from hypercut_core.errors import BadCheckpoint, BadParameters
from hypercut_core.training.checkpoint import expect_model, load_weights, read_tensors, save_model

EVEN_ODD = "even_odd"

# Named shapes of the even/odd model: parameters (T = 7) and what they are for.
SHAPES: dict[str, DeblurrerConfig] = {
    "cpu": DeblurrerConfig(width=32, blocks=(2, 2, 2), block="conv"),  # 1.0 M: minutes on two CPU cores
    "default": DeblurrerConfig(width=32, blocks=(2, 2, 4, 8)),  # NAFNet-style, one GPU
    "large": DeblurrerConfig(width=64, blocks=(2, 2, 4, 8, 12)),  # NAFNet-style, several GPUs
}


def save_deblurrer(path: str | os.PathLike[str], model: EvenOddDeblurrer, card: dict[str, Any]) -> None:
    """Write a deblurrer with everything that is needed to use it; `card` says how it came about."""
    save_model(path, model, {"model": EVEN_ODD, "config": asdict(model.config), "frames": model.frames,
                             "card": card})


def load_deblurrer(path: str | os.PathLike[str], views: int | None = None) -> EvenOddDeblurrer:
    """Read a deblurrer in evaluation mode, on the CPU; `model.card` is what was saved beside it.

    Args:
        views: how many views it joins (1 is eight times as fast as 8); None: as its file says.

    Raises:
        BadCheckpoint: missing, damaged, or of another model; BadParameters: no such number of views.
    """
    if views not in (None, 1, 2, 4, 8):
        raise BadParameters(f"{views} views were asked for", where="views", remedy="choose 1, 2, 4 or 8")
    tensors, info = read_tensors(path)
    expect_model(path, info, (EVEN_ODD,))
    try:
        config = _config({**info["config"], **({"views": views} if views else {})})
        model = EvenOddDeblurrer(config, int(info["frames"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"the description of the model cannot be used ({error})", where=path,
                            remedy="train the model again with this version") from error
    load_weights(path, model, tensors)
    model.card = info.get("card", {})
    return model.eval()


def _config(described: dict[str, Any]) -> DeblurrerConfig:
    known = {f.name for f in fields(DeblurrerConfig)}
    if extra := set(described) - known:
        raise ValueError(f"unknown settings {sorted(extra)}")
    sizes = [described.get("width", 1), described.get("unshuffle", 1), *described.get("blocks", [])]
    if described.get("views", 1) not in (1, 2, 4, 8):
        raise ValueError("views out of range")
    if not all(isinstance(n, int) and 0 < n <= 1024 for n in sizes):
        raise ValueError("sizes out of range")
    return DeblurrerConfig(**{**described, "blocks": tuple(described["blocks"])})
