"""Where a pixel of one camera lies in the picture of another: a homography, and a smooth rest.

Positions are normalised: x and y from -1 (left, upper edge) to 1 (right, lower edge) of each picture, so that a
mapping does not depend on the size at which it was found. A homography H takes a position of the blurry image to
the sharp one:

    (u, v) = (h0 x + h1 y + h2, h3 x + h4 y + h5) / (h6 x + h7 y + 1)

It is found by Gauss-Newton (Lucas and Kanade 1981; Baker and Matthews 2004, forward additive) on an image
pyramid, jointly over several pairs, with a gain and an offset of brightness for each pair and Huber weights; what
the pyramid starts from is the best of a coarse grid of shifts, turns and scales by correlation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[Tensor, Tensor]  # blurry and sharp picture, each (1, H, W), linear light
COARSE = 30  # px, height of the coarsest level
SCALES, TURNS, SHIFTS = (0.8, 0.9, 1.0, 1.11, 1.25), (-6.0, -3.0, 0.0, 3.0, 6.0), (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3)
OVERLAP = 0.6  # share of the blurry image that the sharp one must cover
ITERATIONS = 25  # most of one level
ENOUGH = 1e-5  # a step that changes no number by more ends a level; 0.005 px of 1000
PIXELS = 6000  # of each picture that one level looks at, about
HUBER = 2.0  # differences beyond so many median ones count less
FIELD = (4, 6)  # rows and columns of the control points of the smooth rest
FIELD_ITERATIONS = 4
DISPLACEMENT, BENDING = 1e-3, 1e-2  # penalties of the smooth rest, as shares of the data's own stiffness


def identity() -> Tensor:
    """The homography that moves nothing, (8,)."""
    return torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0], dtype=torch.float64)


def positions(height: int, width: int) -> Tensor:
    """Normalised centres of all pixels, (H, W, 2), x then y, float64."""
    y = (2 * torch.arange(height, dtype=torch.float64) + 1) / height - 1
    x = (2 * torch.arange(width, dtype=torch.float64) + 1) / width - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def mapped(homography: Tensor, at: Tensor) -> Tensor:
    """Positions (.., 2) seen through a homography (8,), same shape."""
    x, y = at[..., 0], at[..., 1]
    h = homography
    below = h[6] * x + h[7] * y + 1
    return torch.stack([(h[0] * x + h[1] * y + h[2]) / below, (h[3] * x + h[4] * y + h[5]) / below], dim=-1)


def sample(image: Tensor, at: Tensor, mode: str = "bilinear") -> Tensor:
    """Values of `image` (B, C, H, W) at normalised positions (h, w, 2): (B, C, h, w); edge pixels go on."""
    grid = at.to(image)[None].expand(len(image), -1, -1, -1)
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=False)


def inside(at: Tensor) -> Tensor:
    """Which positions (.., 2) lie in the picture, bool (..)."""
    return (at.abs() <= 1).all(dim=-1)


def find_homography(pairs: Sequence[Pair], start: Tensor | None = None) -> Tensor:
    """The homography from the blurry pictures to the sharp ones, (8,) float64.

    Args:
        pairs: of one size each side; blurry pictures and what they should look like, linear light.
        start: a first guess; None: the best of a coarse grid.
    """
    height = pairs[0][0].shape[-2]
    levels = [size for size in (height / 2**k for k in range(10)) if size >= COARSE][::-1] or [height]
    small = [_shrunk(pair, levels[0]) for pair in pairs]
    homography = _best_of_grid(small) if start is None else start.clone()
    for number, level in enumerate(levels):
        if start is not None and number < len(levels) - 2:
            continue  # a good guess needs the fine levels alone
        affine = number == 0 and len(levels) > 1
        homography = _descend([_shrunk(pair, level) for pair in pairs], homography, 6 if affine else 8)
    return homography


def _shrunk(pair: Pair, height: float) -> Pair:
    """Both pictures at so many rows, averaged down."""
    made = []
    for picture in pair:
        scale = height / pair[0].shape[-2]
        size = (max(8, round(picture.shape[-2] * scale)), max(8, round(picture.shape[-1] * scale)))
        made.append(picture if scale >= 1 else F.interpolate(picture[None], size=size, mode="area")[0])
    return made[0], made[1]


def _best_of_grid(pairs: Sequence[Pair]) -> Tensor:
    """Similarity (scale, turn, shift) under which the pictures correlate best."""
    height, width = pairs[0][0].shape[-2:]
    aspect, at = width / height, positions(height, width)
    blurry, sharp = (torch.stack([pair[side][0] for pair in pairs]) for side in (0, 1))
    best, found = -2.0, identity()
    for scale, turn in itertools.product(SCALES, TURNS):
        cos, sin = scale * math.cos(math.radians(turn)), scale * math.sin(math.radians(turn))
        for dx, dy in itertools.product(SHIFTS, SHIFTS):
            guess = torch.tensor([cos, -sin / aspect, dx, sin * aspect, cos, dy, 0, 0], dtype=torch.float64)
            there = mapped(guess, at)
            seen = inside(there)
            if seen.double().mean() < OVERLAP:
                continue
            score = _correlation(blurry[:, seen], sample(sharp[None], there)[0][:, seen])
            if score > best:
                best, found = score, guess
    return found


def _correlation(a: Tensor, b: Tensor) -> float:
    """Mean correlation of rows, (P, N) each."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return float(((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-9)).mean())


def _descend(pairs: Sequence[Pair], start: Tensor, free: int) -> Tensor:
    """Gauss-Newton with damping at one level; the first `free` of the eight numbers change."""
    system = _System(pairs)
    homography, damping = start, 1e-3
    cost, matrix, vector = system.at(homography, free)
    for _ in range(ITERATIONS):
        damped = matrix + damping * torch.diag(matrix.diagonal().clamp_min(1e-12))
        step = torch.zeros(8, dtype=torch.float64)
        step[:free] = torch.linalg.solve(damped, -vector)
        tried = system.at(homography + step, free)
        if tried[0] < cost:
            gained = cost - tried[0]
            homography, damping = homography + step, max(damping / 4, 1e-9)
            cost, matrix, vector = tried
            if step.abs().max() < ENOUGH or gained < 1e-5 * cost:
                break
        else:
            damping *= 8
            if damping > 1e6:
                break
    return homography


class _System:
    """Normal equations of all pairs at one level, on a grid of at most about `PIXELS` pixels of each."""

    def __init__(self, pairs: Sequence[Pair]):
        height, width = pairs[0][0].shape[-2:]
        every = max(1, math.isqrt(height * width // PIXELS))
        self.positions = positions(height, width)[every // 2::every, every // 2::every]
        self.targets = [blurry[0, every // 2::every, every // 2::every].double() for blurry, _ in pairs]
        self.sharp = [torch.cat([sharp, _slopes(sharp)])[None] for _, sharp in pairs]

    def at(self, homography: Tensor, free: int) -> tuple[float, Tensor, Tensor]:
        """Cost, J^T W J and J^T W r; the cost is infinite where too little overlaps."""
        there = mapped(homography, self.positions)
        seen = inside(there)
        matrix, vector = torch.eye(free, dtype=torch.float64), torch.zeros(free, dtype=torch.float64)
        if seen.double().mean() < OVERLAP / 2:
            return math.inf, matrix, vector
        total, matrix = 0.0, torch.zeros_like(matrix)
        du, dv = _derivatives(homography, self.positions[seen], there[seen])
        for picture, all_targets in zip(self.sharp, self.targets, strict=True):
            values = sample(picture, there)[0].double()[:, seen]
            target = all_targets[seen]
            gain, offset = _line(values[0], target)
            rest = gain * values[0] + offset - target
            limit = HUBER * rest.abs().median().clamp_min(1e-6)
            weight = (limit / rest.abs().clamp_min(1e-12)).clamp_max(1)
            total += float((weight * rest.square()).mean() / target.var().clamp_min(1e-9))
            jacobian = gain * (values[1, :, None] * du + values[2, :, None] * dv)[:, :free]
            weighted = weight[:, None] * jacobian
            matrix += weighted.T @ jacobian
            vector += weighted.T @ rest
        return total / len(self.sharp), matrix, vector


def _derivatives(homography: Tensor, at: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the mapped positions (N, 2) by the eight numbers: (N, 8) for u and for v."""
    x, y, u, v = at[:, 0], at[:, 1], there[:, 0], there[:, 1]
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    below = (homography[6] * x + homography[7] * y + 1)[:, None]
    return (torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1) / below,
            torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1) / below)


def _slopes(picture: Tensor) -> Tensor:
    """Change of a picture (1, H, W) along x and y, per normalised unit: (2, H, W)."""
    padded = F.pad(picture[None], (1, 1, 1, 1), mode="replicate")[0]
    x = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2 * picture.shape[-1] / 2
    y = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2 * picture.shape[-2] / 2
    return torch.cat([x, y])


def _line(values: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and offset that bring `values` nearest to `target`."""
    mean, other = values.mean(), target.mean()
    gain = ((values - mean) * (target - other)).sum() / (values - mean).square().sum().clamp_min(1e-12)
    return gain, other - gain * mean


def find_field(pairs: Sequence[Pair], homography: Tensor) -> Tensor:
    """What a homography leaves, such as the distortion of a lens: displacement of positions in the blurry image,
    (2, *FIELD) normalised, control points of a bicubic surface.

    Gauss-Newton again, over all pairs, with a penalty on displacement and on bending.
    """
    height, width = pairs[0][0].shape[-2:]
    units = torch.eye(FIELD[0] * FIELD[1]).view(-1, 1, *FIELD)
    basis = F.interpolate(units, size=(height, width), mode="bicubic", align_corners=False)[:, 0]
    thin = torch.zeros(height, width, dtype=torch.bool)
    thin[::2, ::2] = True  # a quarter of the pixels says enough for so few numbers
    field = torch.zeros(2, *FIELD)
    for _ in range(FIELD_ITERATIONS):
        there = source_positions(homography, field, height, width)
        pick = inside(there) & thin
        weights = basis[:, pick].T.double()
        matrix = torch.zeros(2 * len(units), 2 * len(units), dtype=torch.float64)
        vector = torch.zeros(2 * len(units), dtype=torch.float64)
        for blurry, sharp in pairs:
            values = sample(torch.cat([sharp, _slopes(sharp)])[None], there)[0].double()[:, pick]
            target = blurry[0].double()[pick]
            gain, offset = _line(values[0], target)
            rest = gain * values[0] + offset - target
            limit = HUBER * rest.abs().median().clamp_min(1e-6)
            robust = (limit / rest.abs().clamp_min(1e-12)).clamp_max(1)
            slopes = gain * _through(homography, values[1:], there[pick])
            jacobian = torch.cat([slopes[0, :, None] * weights, slopes[1, :, None] * weights], 1)
            matrix += (robust[:, None] * jacobian).T @ jacobian
            vector += (robust[:, None] * jacobian).T @ rest
        stiff = _stiffness() * float(matrix.diagonal().mean())
        flat = field.flatten().double()
        field = (flat - torch.linalg.solve(matrix + stiff, vector + stiff @ flat)).float().view(2, *FIELD)
    return field


def _through(homography: Tensor, slopes: Tensor, there: Tensor) -> Tensor:
    """Slopes along u and v (2, N) as slopes along x and y, by the chain rule at positions (N, 2) after the map."""
    h, (u, v) = homography, there.unbind(-1)
    # x and y are found back from u and v by the inverse matrix; only the denominator is needed of it
    full = torch.cat([h, h.new_ones(1)]).view(3, 3).inverse()
    back = torch.stack([u, v, torch.ones_like(u)]).T @ full.T
    below = h[6] * back[:, 0] / back[:, 2] + h[7] * back[:, 1] / back[:, 2] + 1
    return torch.stack([slopes[0] * (h[0] - u * h[6]) + slopes[1] * (h[3] - v * h[6]),
                        slopes[0] * (h[1] - u * h[7]) + slopes[1] * (h[4] - v * h[7])]) / below


def _stiffness() -> Tensor:
    """Penalty of displacement and of bending for both components, in units of the data's own stiffness."""
    count = FIELD[0] * FIELD[1]
    surface = torch.eye(count, dtype=torch.float64).view(count, 1, *FIELD)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)[None, None]
    bend = F.conv2d(F.pad(surface, (1, 1, 1, 1), mode="replicate"), kernel).flatten(1)
    return torch.block_diag(*[DISPLACEMENT * torch.eye(count, dtype=torch.float64) + BENDING * bend @ bend.T] * 2)


def source_positions(homography: Tensor, field: Tensor | None, height: int, width: int) -> Tensor:
    """Where each pixel of a blurry image of this size lies in the sharp picture, (H, W, 2) normalised."""
    at = positions(height, width)
    if field is not None:
        smooth = F.interpolate(field[None], size=(height, width), mode="bicubic", align_corners=False)[0]
        at = at + smooth.permute(1, 2, 0).to(at)
    return mapped(homography, at)


def covered(there: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the largest rectangle, found by shaving off its worst side, that the sharp picture
    covers; even numbers of both."""
    seen = inside(there)
    top, bottom, left, right = 0, seen.shape[0], 0, seen.shape[1]
    while bottom - top > 2 and right - left > 2:
        part = seen[top:bottom, left:right].float()
        sides = [float(one.mean()) for one in (part[0], part[-1], part[:, 0], part[:, -1])]
        worst = min(range(4), key=sides.__getitem__)
        if sides[worst] == 1:
            break
        top, bottom, left, right = (top + (worst == 0), bottom - (worst == 1), left + (worst == 2),
                                    right - (worst == 3))
    return slice(top, bottom - (bottom - top) % 2), slice(left, right - (right - left) % 2)
