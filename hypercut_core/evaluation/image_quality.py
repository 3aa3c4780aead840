"""PSNR and SSIM of images in [0, 1], measured on what a viewer gets: values clamped and rounded to 8 bits."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

PSNR_CEILING = 100.0  # dB given to two equal images, so that means stay finite
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
BLOCK = 118  # windows along one line that are averaged in one product


def quantise(image: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to the 256 levels of an 8-bit file; same shape, float32."""
    return _levels(image).div(255)


def _levels(image: Tensor) -> Tensor:
    return image.float().clamp(0, 1).mul(255).round()


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, 10 log10(1 / mean (a - b)^2), in dB.

    Args:
        a, b: images `[.., 3, H, W]` in [0, 1]; leading axes broadcast.
    Returns:
        `[..]` float64, at most `PSNR_CEILING` (reached by equal images).
    """
    _check(a, b)
    # squares of whole levels are exact, and so is their sum: it does not depend on the order of summation
    squares = (_levels(a) - _levels(b)).square()
    mse = squares.sum(dim=(-3, -2, -1), dtype=torch.float64) / (a.shape[-3:].numel() * 255**2)
    return -10 * torch.log10(mse.clamp(min=10 ** (-PSNR_CEILING / 10)))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004): 11 x 11 Gaussian window of sigma 1.5, data range 1.

    Equals `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)` per image: the mean over channels and over the
    pixels whose whole window lies inside the image.

    Args:
        a, b: images `[.., 3, H, W]` in [0, 1], both sides at least 11 px; leading axes broadcast.
    Returns:
        `[..]` float64 in [-1, 1].
    """
    _check(a, b)
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW} px a side, not {tuple(a.shape[-2:])}")
    x, y = torch.broadcast_tensors(quantise(a), quantise(b))
    lead, (height, width) = x.shape[:-3], x.shape[-2:]
    x, y = x.reshape(-1, height, width), y.reshape(-1, height, width)
    # variances do not depend on the origin; near 0 they lose fewer float32 digits
    origin_x, origin_y = x.mean((1, 2), keepdim=True), y.mean((1, 2), keepdim=True)
    x, y = x - origin_x, y - origin_y
    mean_x, mean_y, xx, yy, xy = (_window_mean(part) for part in (x, y, x * x, y * y, x * y))
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x.square() + yy - mean_y.square()
    mean_x, mean_y = mean_x + origin_x, mean_y + origin_y
    similarity = ((2 * mean_x * mean_y + K1**2) * (2 * covariance + K2**2)
                  / ((mean_x.square() + mean_y.square() + K1**2) * (variances + K2**2)))
    return similarity.double().mean(dim=(-2, -1)).reshape(*lead, 3).mean(-1)


def _window_mean(x: Tensor) -> Tensor:
    """Gaussian mean over each window that fits: `[N, H, W]` -> `[N, H-10, W-10]`.

    As products with band matrices, a block at a time: on a CPU far faster than a convolution.
    """
    band = _band(min(BLOCK, max(x.shape[-2:]) - WINDOW + 1)).to(x)
    across = [x[..., start:start + len(band)] @ _fit(band, x.shape[-1] - start)
              for start in range(0, x.shape[-1] - WINDOW + 1, band.shape[1])]
    x = across[0] if len(across) == 1 else torch.cat(across, dim=-1)
    down = [_fit(band, x.shape[-2] - start).T @ x[..., start:start + len(band), :]
            for start in range(0, x.shape[-2] - WINDOW + 1, band.shape[1])]
    return down[0] if len(down) == 1 else torch.cat(down, dim=-2)


@functools.lru_cache(maxsize=8)
def _band(columns: int) -> Tensor:
    """`[columns + 10, columns]`: column j holds the window's weights from row j on."""
    offset = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weight = torch.exp(-0.5 * (offset / SIGMA) ** 2)
    band = torch.zeros(columns + WINDOW - 1, columns, dtype=torch.float64)
    for column in range(columns):
        band[column:column + WINDOW, column] = weight / weight.sum()
    return band


def _fit(band: Tensor, left: int) -> Tensor:
    """The part of the band for the last `left` pixels of a line."""
    return band if left >= len(band) else band[:left, :left - WINDOW + 1]


def _check(a: Tensor, b: Tensor) -> None:
    if a.ndim < 3 or a.shape[-3:] != b.shape[-3:] or a.shape[-3] != 3:
        raise ValueError(f"two images of one size [.., 3, H, W] are needed, not {tuple(a.shape)} "
                         f"and {tuple(b.shape)}")
