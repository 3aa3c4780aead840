"""HyperCUT's objective (Pham et al., CVPR 2023, section 3): opposite sides for a pair and its swap, one
side for all pairs of a clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hypercut_core.errors import TrainingCollapsed


def hypercut_loss(forward: Tensor, swapped: Tensor) -> Tensor:
    """L = 1/2 mean_k sp(u_k v_k) + 1/2 mean_{i<j} sp(-u_i u_j), sp(z) = log(1 + e^z).

    Args:
        forward, swapped: u and v, (B, K) scores of the pairs and of the swapped pairs.

    Returns:
        Scalar mean over the batch. With K = 1 there is no second term.
    """
    different = F.softplus(forward * swapped).mean()
    pairs = forward.shape[1]
    if pairs < 2:
        return different
    i, j = torch.triu_indices(pairs, pairs, offset=1, device=forward.device)
    same = F.softplus(-forward[:, i] * forward[:, j]).mean()
    return 0.5 * different + 0.5 * same


def check_collapse(forward: Tensor, swapped: Tensor, least_score: float = 1e-2, least_hit: float = 0.5) -> None:
    """Refuse an encoder whose scores say nothing.

    Con@K is 100 % for an encoder that answers the same for every pair: only hit and |u| give it away.

    Raises:
        TrainingCollapsed: median |u| below `least_score`, or hit below `least_hit`.
    """
    size = float(forward.abs().median())
    hit = float((forward[:, 0] * swapped[:, 0] < 0).float().mean())
    if not (size >= least_score and hit >= least_hit):
        raise TrainingCollapsed(
            f"the encoder has collapsed: median |u| is {size:.2g} and hit is {hit:.1%}, so its order means"
            " nothing", where="encoder",
            remedy="use encoder.model.kind=antisymmetric, for which hit is 100 % by construction, or another"
                   " seed or learning rate")
