"""Middle, even and odd parts of a sequence: reversal in time is one sign.

With K = T // 2 and k = 1..K, a sequence is its middle frame, K even parts and K odd parts:

    S_k = (x_k + x_{T+1-k}) / 2        D_k = (x_k - x_{T+1-k}) / 2

Reversing the sequence leaves the middle and the even parts alone and turns every D into -D.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Parts(NamedTuple):
    """Middle frame (B, 3, H, W), even and odd parts (B, K, 3, H, W)."""

    middle: Tensor
    even: Tensor
    odd: Tensor


def split_parts(frames: Tensor) -> Parts:
    """(B, T, 3, H, W), T odd, to middle, even and odd parts."""
    half = frames.shape[1] // 2
    first, last = frames[:, :half], frames[:, half + 1:].flip(1)
    return Parts(frames[:, half], (first + last) / 2, (first - last) / 2)


def join_parts(parts: Parts) -> Tensor:
    """Inverse of `split_parts`: (B, T, 3, H, W)."""
    return torch.cat([parts.even + parts.odd, parts.middle[:, None], (parts.even - parts.odd).flip(1)], dim=1)
