"""What a deblurrer makes of a few clips, as one picture to look at while it trains."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hypercut_core.clips.store import ClipStore

LARGEST = 160  # side of the clips' middle that is shown, px
GAP = 2  # px between the pictures


def sample_clips(store: ClipStore, count: int = 2) -> np.ndarray:
    """The middle of `count` clips that are not trained on, spread over the split: uint8 [n, T + 1, h, w, 3].

    They are of one size; a store without validation or test clips gives none.
    """
    for split in ("val", "test"):
        found = store.indices(split)
        if len(found):
            break
    alike = [i for i in found if store.records[i].array == store.records[found[0]].array]
    chosen = [alike[place] for place in np.linspace(0, len(alike) - 1, min(count, len(alike))).round().astype(int)]
    shown = []
    for i in chosen:
        record = store.records[i]
        height, width = (min(size, LARGEST) // 8 * 8 or size for size in (record.height, record.width))
        shown.append(store.read_crop(int(i), (record.height - height) // 2, (record.width - width) // 2, height, width))
    return np.stack(shown) if shown else np.empty((0, store.frames + 1, 0, 0, 3), np.uint8)


def contact_sheet(module: nn.Module, clips: np.ndarray) -> np.ndarray:
    """Two rows a clip: the blurry image and what is made of it, and below it the truth.

    Args:
        module: (B, 3, H, W) in [0, 1] -> (B, T, 3, H, W), in evaluation mode.
        clips: uint8 [n, T + 1, h, w, 3], the blurry image first; n at least 1.

    Returns:
        uint8 (2 n (h + gap), (T + 1) (w + gap), 3).
    """
    like = next(module.parameters())
    blurry = torch.from_numpy(clips[:, 0]).movedim(-1, 1).to(like.device).float() / 255
    restored = to_pixels(module(blurry))
    rows = []
    for clip, frames in zip(clips, restored, strict=True):
        rows += [_row([clip[0], *frames]), _row([np.full_like(clip[0], 255), *clip[1:]])]
    return np.concatenate(rows)


def to_pixels(frames: Tensor) -> np.ndarray:
    """(..., 3, H, W) in [0, 1] -> uint8 (..., H, W, 3)."""
    return (frames.detach().float().clamp(0, 1) * 255).round().byte().movedim(-3, -1).cpu().numpy()


def _row(pictures: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.pad(one, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for one in pictures], 1)
