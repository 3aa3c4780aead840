"""Parameters and multiply-adds of a network, counted without computing anything; and small clips that move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hypercut_core.clips.store import ClipStore, ClipStoreWriter

SMALL, PHOTO, ODD = (240, 320), (720, 1280), (211, 317)


def count(make: Callable[[], Any], call: Callable[[Any, Tensor], Tensor], size: tuple[int, int] = SMALL,
          parts: Callable[[Any], list[nn.Module]] = lambda model: [model]) -> tuple[float, float, tuple[int, ...]]:
    """Millions of parameters (of `parts`), billions of multiply-adds, and the shape of the output."""
    with torch.device("meta"), torch.no_grad():
        model = make()
        model.eval()
        with FlopCounterMode(display=False) as counter:
            out = call(model, torch.empty(1, 3, *size))
    parameters = sum(p.numel() for part in parts(model) for p in part.parameters())
    return parameters / 1e6, counter.get_total_flops() / 2e9, tuple(out.shape)


def moving_clips(count: int, size: int, seed: int = 0, step: int = 1, frames: int = 7) -> tuple[Tensor, Tensor]:
    """Blurry images (B, 3, S, S) and sharp frames (B, T, 3, S, S) of soft textures that move to the right."""
    draw = torch.Generator().manual_seed(seed)
    wide = nn.functional.interpolate(torch.rand(count, 3, size // 4, size // 2, generator=draw),
                                     size=(size, 2 * size), mode="bicubic").clamp(0, 1)
    start = size // 2
    sharp = torch.stack([wide[..., start - step * k:start - step * k + size] for k in range(frames)], 1)
    return sharp.mean(1), sharp


def stored_clips(path: Path, count: int, size: int) -> ClipStore:
    """`moving_clips` as the training clips of a store."""
    blurry, sharp = moving_clips(count, size)
    with ClipStoreWriter(path, sharp.shape[1]) as writer:
        for k in range(count):
            frames = torch.cat([blurry[k, None], sharp[k]]).mul(255).round().byte().movedim(1, -1)
            writer.add(frames.numpy(), clip_id=f"{k}", source=f"s{k}", split="train", category="", motion=6.0,
                       response="none")
    return ClipStore(path)
