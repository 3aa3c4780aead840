"""Pairs of a clip in random colours, so that its order follows from motion and not from looks.

The paper's objective rewards any order that all pairs of a clip agree on, also one that hangs on textures and
that no blurry image could tell. Here every pair (x_k, x_{T+1-k}) is shown through a rotation or reflection of
colour space of its own, dark and bright swapped as often as not: what the pairs still have in common is how
things move. The order becomes more consistent and predictable from blur (benchmarks/results/ordering.md).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def recolour_pairs(sharp: Tensor, seed: int, step: int, places: np.ndarray | None = None) -> Tensor:
    """Turn the colours of each pair about mid grey, both frames alike.

    Args:
        sharp: (B, T, 3, H, W) in [0, 1].
        seed, step: the same two give the same colours.
        places: where the clips stand in their batch, int64 (B,); None: they are all of it.

    Returns:
        (B, T, 3, H, W), in about [-0.4, 1.4]; the middle frame as it is.
    """
    batch, frames = sharp.shape[:2]
    half = frames // 2
    places = np.arange(batch) if places is None else places
    drawn = np.random.default_rng([seed, 3, step]).standard_normal((int(places.max()) + 1, half, 3, 3))
    random = drawn[places]
    q, r = np.linalg.qr(random)
    turns = torch.from_numpy(q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :])  # evenly over O(3)
    whole = torch.cat([turns, torch.eye(3).to(turns).expand(batch, 1, 3, 3), turns.flip(1)], 1).to(sharp)
    return torch.einsum("btij,btjhw->btihw", whole, sharp - 0.5) + 0.5
