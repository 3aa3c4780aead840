"""The eight ways to mirror and turn a picture by quarter turns: the dihedral group of the square."""

from __future__ import annotations

from torch import Tensor

DIHEDRAL = 8  # code = 4 * transpose + 2 * flip_vertical + flip_horizontal, the transpose first
QUARTER = (5, 7, 4, 6, 1, 3, 0, 2)  # code c, then a quarter turn clockwise, is code QUARTER[c]


def apply_dihedral(x: Tensor, code: int) -> Tensor:
    """Transform the last two axes (H, W): transpose if code & 4, then flip vertically if code & 2,
    then horizontally if code & 1."""
    if code & 4:
        x = x.transpose(-2, -1)
    axes = [axis for bit, axis in ((2, -2), (1, -1)) if code & bit]
    return x.flip(axes) if axes else x


def undo_dihedral(x: Tensor, code: int) -> Tensor:
    """Inverse of `apply_dihedral` with the same code: a flip along one axis before a transpose is a flip
    along the other one after it."""
    return apply_dihedral(x, 4 | (code & 1) << 1 | (code & 2) >> 1 if code & 4 else code)
