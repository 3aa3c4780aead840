"""Two axes instead of one sign: an order of time without a seam.

One sign has a seam. Turn the motion through 180 degrees: the blurry image comes back to itself, the sequence
comes back reversed, so a target that is a function of the blurry image must jump somewhere, and a regression
rounds the jump off. What does come back to itself is the odd part times the cosine of the angle a between the
motion and any fixed axis: D turns into -D and cos(a) into -cos(a). So ask for two of them,

    O_1 = cos(a) D,    O_2 = sin(a) D,

both continuous functions of the blurry image all round. D follows from them up to its sign, which is all that
a blurry image can tell: the matrix <O_i, O_j> = |D|^2 (cos a, sin a)^T (cos a, sin a) has rank one, and with
its leading eigenvector v, D = +- (v_1 O_1 + v_2 O_2) (`views.py` joins views and axes in one go).

In training the direction c = (cos a, sin a) is known, up to the encoder's zero (`OrderTable.axes_for_clips`),
and the error is taken of what the axes say along it, and, with a smaller weight, of what they say across it. The
axes are turned before anything is rendered, so that a step costs what it costs with one axis (`Residuals`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hypercut_core.blur.exposure import from_linear, to_linear
from hypercut_core.deblurring.parts import Parts, join_parts, split_parts
from hypercut_core.ordering.rule import mean_motion


class Residuals(NamedTuple):
    """What the even/odd model says of a blurry image, before it is looked at from a direction.

    Linear light of a frame is `light` + `slope` times what the parts say of it: they are in encoded values, to
    first order.
    """

    light: Tensor  # (B, 3, H, W), the blurry image in linear light
    slope: Tensor  # (B, 3, H, W), of the response curve at the blurry image
    middle: Tensor  # (B, 3, H, W)
    even: Tensor  # (B, K, 3, H, W)
    odd: Tensor  # (B, axes, K, 3, H, W)

    def along(self, direction: Tensor, response: str) -> Tensor:
        """The sequence seen from a direction c: (B, T, 3, H, W), encoded; its odd part is sum_i c_i O_i.

        Args:
            direction: (B, axes), of length 1 if the sequence is to move as far as it did.
        """
        odd = (direction.view(*direction.shape, 1, 1, 1, 1) * self.odd).sum(1)
        steps = join_parts(Parts(self.middle, self.even, odd))
        return from_linear(self.light[:, None] + self.slope[:, None] * steps, response)

    def across(self, direction: Tensor) -> Tensor:
        """The odd part at right angles to a direction (B, 2), c_1 O_2 - c_2 O_1: (B, K, 3, H, W), encoded values to
        first order. Of a perfect prediction nothing moves across its own direction."""
        first, second = direction.view(-1, 2, 1, 1, 1, 1).unbind(1)
        return first * self.odd[:, 1] - second * self.odd[:, 0]


def nearest_direction(predicted: Residuals, sharp: Tensor, response: str) -> Tensor:
    """The unit vector c with the least sum_i |O_i - c_i D|^2: c = p / |p|, p_i = <O_i, D>, in linear light.

    With one axis it is the nearer of the two directions, and with two that on the whole circle.

    Args:
        sharp: (B, T, 3, H, W).

    Returns:
        (B, axes), without gradient.
    """
    with torch.no_grad():
        true = split_parts(to_linear(sharp, response)).odd * predicted.slope[:, None]
        inner = torch.einsum("ban,bn->ba", predicted.odd.flatten(2), true.flatten(1))
        return inner / inner.norm(dim=1, keepdim=True).clamp_min(1e-12)


def rule_axes(sharp: Tensor) -> Tensor:
    """The control: (cos, sin) of the angle of the mean motion of (B, T, 3, H, W), to the right and downwards;
    (B, 2)."""
    motion = mean_motion(sharp)
    return motion / motion.norm(dim=1, keepdim=True).clamp_min(1e-12)
