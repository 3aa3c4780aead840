"""What a deblurrer costs: parameters and multiply-adds, counted without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hypercut_core.deblurring.models import Config, build_deblurrer

KNOWN_SIZE = (240, 320)  # height and width at which the papers' multiply-adds are told


def parameters_of(config: Config, frames: int) -> int:
    """Number of weights of the deblurrer that `config` describes; nothing is allocated or drawn."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in build_deblurrer(config, frames).parameters())


def multiply_adds(make: Callable[[], Any], height: int, width: int,
                  call: Callable[[Any, torch.Tensor], Any] = lambda model, blurry: model(blurry)) -> float:
    """Multiply-adds of convolutions and matrix products for one image, in billions (GMAC).

    Args:
        make: makes the model; nothing is allocated or drawn.
        call: how it is called with the blurry image (1, 3, height, width).
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    with FakeTensorMode(), torch.no_grad():  # the meta device knows no autocast, which the even/odd model uses
        model = make()
        model.eval()
        with FlopCounterMode(display=False) as counter:
            call(model, torch.empty(1, 3, height, width))
    return counter.get_total_flops() / 2e9


def deblurrer_gmac(config: Config, frames: int, height: int = KNOWN_SIZE[0], width: int = KNOWN_SIZE[1]) -> float:
    """GMAC of a deblurrer for one photo, with everything that `restore` would run (views, own guidance); a model
    of the oracle protocol is given an image as its middle frame."""
    def call(model: Any, blurry: torch.Tensor) -> Any:
        oracle = getattr(model.config, "protocol", "blind") == "oracle"
        return model(blurry, blurry) if oracle else model(blurry)

    return multiply_adds(lambda: build_deblurrer(config, frames), height, width, call)
