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
and the error is taken of what the axes say along it, and, with a smaller weight, of what they say across it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hypercut_core.blur.exposure import from_linear, to_linear
from hypercut_core.deblurring.parts import Parts, join_parts, split_parts
from hypercut_core.ordering.rule import mean_motion


def turn_axes(predicted: Tensor, direction: Tensor, response: str) -> tuple[Tensor, Tensor]:
    """Look at two axes from a direction c: the odd parts c_1 O_1 + c_2 O_2 along it and c_1 O_2 - c_2 O_1 across.

    Of a perfect prediction, the one is the sequence itself and the other does not move.

    Args:
        predicted: (B, 2, T, 3, H, W).
        direction: (B, 2), of length 1.

    Returns:
        Two sequences (B, T, 3, H, W); middle and even parts are those of `predicted`, odd parts are turned in
        linear light.
    """
    first, second = (split_parts(x) for x in to_linear(predicted, response).unbind(1))
    cos, sin = direction.view(-1, 2, 1, 1, 1, 1).unbind(1)
    middle, even = (first.middle + second.middle) / 2, (first.even + second.even) / 2
    along, across = cos * first.odd + sin * second.odd, cos * second.odd - sin * first.odd
    return (from_linear(join_parts(Parts(middle, even, along)), response),
            from_linear(join_parts(Parts(middle, even, across)), response))


def nearest_direction(predicted: Tensor, sharp: Tensor, response: str) -> Tensor:
    """The unit vector c with the least sum_i |O_i - c_i D|^2: c = p / |p|, p_i = <O_i, D>, in linear light.

    With one axis it is the nearer of the two directions, and with two that on the whole circle.

    Args:
        predicted: (B, A, T, 3, H, W).
        sharp: (B, T, 3, H, W).

    Returns:
        (B, A), without gradient.
    """
    with torch.no_grad():
        true = split_parts(to_linear(sharp, response)).odd.flatten(1)
        made = split_parts(to_linear(predicted.flatten(0, 1), response)).odd
        made = made.unflatten(0, predicted.shape[:2]).flatten(2)
        inner = torch.einsum("ban,bn->ba", made, true)
        return inner / inner.norm(dim=1, keepdim=True).clamp_min(1e-12)


def rule_axes(sharp: Tensor) -> Tensor:
    """The control: (cos, sin) of the angle of the mean motion of (B, T, 3, H, W), to the right and downwards;
    (B, 2)."""
    motion = mean_motion(sharp)
    return motion / motion.norm(dim=1, keepdim=True).clamp_min(1e-12)
