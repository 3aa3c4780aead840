"""Mirrored and turned views of one blurry image, joined into one sequence: a way round the seam.

Every order of time has a seam (turn the motion axis through 180 degrees and the blurry image comes back to
itself, the sequence reversed), and a regression hedges near it. The seam belongs to the order and not to the
photo: seen in a mirror or turned by a quarter, the same motion lies elsewhere. With P_g the prediction of the
view g, mapped back, and D_g its odd part in linear light,

    G_gh = <D_g, D_h>,   G v = lambda_max v,   c_g = v_g |v_g| / sum_h v_h^2,   D = sum_g c_g D_g

The leading eigenvector gives every view its direction (the sign) and says how far from its seam it is (the
size): a view that hedges has a weak odd part. Middle and even parts are plain means. All of it is linear in
linear light, so sequences that re-blur to the photo still do once they are joined.

A model with two axes (`axes.py`) gives two sequences a view, with the odd parts D cos(a) and D sin(a). They
join by the same eigenvector, in which every view has its D once: D = sum_i v_i D_i / sqrt(views).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hypercut_core.blur.exposure import from_linear, to_linear
from hypercut_core.clips.dihedral import apply_dihedral, undo_dihedral
from hypercut_core.deblurring.parts import Parts, join_parts, split_parts

# Dihedral codes in the order in which they help: as it is, a quarter turn (which moves the seam furthest), ...
VIEWS = (0, 5, 1, 4, 3, 6, 2, 7)


def join_views(predict: Callable[[Tensor], Tensor], blurry: Tensor, views: int, response: str) -> Tensor:
    """Predict the first `views` of `VIEWS` and join them.

    Args:
        predict: (B, 3, H, W) -> (B, T, 3, H, W), or (B, 2, T, 3, H, W) of a model with two axes, encoded
            values; called once a view, with H and W swapped for the turned ones.
        blurry: (B, 3, H, W) encoded values.

    Returns:
        (B, T, 3, H, W), in the direction of the image as it is. With all 8 views a mirrored or turned
        image gives the mirrored or turned sequence, up to its direction.
    """
    sequences = [undo_dihedral(predict(apply_dihedral(blurry, code)), code) for code in VIEWS[:views]]
    two_axes = sequences[0].ndim == 6
    if two_axes:
        sequences = [axis for sequence in sequences for axis in sequence.unbind(1)]
    parts = [split_parts(to_linear(one, response)) for one in sequences]
    odd = torch.stack([one.odd for one in parts], 1)  # (B, views * axes, K, 3, H, W)
    share = axis_shares(odd.flatten(2), views) if two_axes else view_shares(odd.flatten(2))
    joined = Parts(torch.stack([one.middle for one in parts]).mean(0),
                   torch.stack([one.even for one in parts]).mean(0),
                   (odd * share.view(*share.shape, 1, 1, 1, 1)).sum(1))
    return from_linear(join_parts(joined), response)


def view_shares(odd: Tensor) -> Tensor:
    """Signed share of each view in the joint odd part.

    Args:
        odd: (B, V, N), the odd parts of V views.

    Returns:
        (B, V); absolute values add up to 1, the first view's share is not negative.
    """
    leading = _leading(odd)
    return (leading * leading.abs()).to(odd)  # eigenvectors have unit length: the squares add up to 1


def axis_shares(odd: Tensor, views: int) -> Tensor:
    """Share of each sequence in the joint odd part of a model with two axes.

    Args:
        odd: (B, 2 * views, N), the odd parts D cos(a), D sin(a) of each view.

    Returns:
        (B, 2 * views); the first is not negative, the squares add up to 1 / views.
    """
    return (_leading(odd) / views**0.5).to(odd)


def _leading(odd: Tensor) -> Tensor:
    """Eigenvector of the greatest eigenvalue of the inner products of (B, V, N), (B, V), its first entry >= 0."""
    leading = torch.linalg.eigh((odd @ odd.transpose(1, 2)).double())[1][..., -1]
    return torch.where(leading[:, :1] < 0, -leading, leading)
