"""Exposure: the blurry image is the mean of its sharp frames in linear light.

    B = g( 1/T * sum_k g^-1(x_k) )            g: the camera's response curve

REDS-like data averages in linear light (`srgb`, `gamma2.2`), B-AIST++-like data averages the encoded
values (`none`); the curve is therefore a recorded parameter (SCIENCE notes, trap 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hypercut_core.errors import BadParameters

Response = Literal["srgb", "gamma2.2", "none"]
RESPONSES: tuple[str, ...] = get_args(Response)


@dataclass(frozen=True)
class ExposureConfig:
    """How sharp frames are exposed into one blurry image."""

    response: Response = "srgb"  # response curve between encoded values and linear light
    noise_read: float = 0.0  # standard deviation of signal-independent noise, linear light, 0..1
    noise_shot: float = 0.0  # variance of shot noise per unit of linear light, 0..1


def to_linear(encoded: Tensor, response: str = "srgb") -> Tensor:
    """Encoded values to linear light; any shape, values in [0, 1].

    Differentiable everywhere, and continued past [0, 1] so that `from_linear` is its inverse there too:
    the linear toe of sRGB runs on below 0, gamma 2.2 is continued as an odd function.

    Raises:
        BadParameters: unknown response curve.

    >>> round(float(to_linear(torch.tensor(0.5))), 4)
    0.214
    """
    if response == "none":
        return encoded
    if response == "gamma2.2":
        return encoded.sign() * encoded.abs().clamp_min(1e-8) ** 2.2
    if response == "srgb":
        curve = ((encoded.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
        return torch.where(encoded <= 0.04045, encoded / 12.92, curve)
    raise _unknown(response)


def from_linear(linear: Tensor, response: str = "srgb") -> Tensor:
    """Linear light to encoded values, the inverse of `to_linear`. Any shape.

    Raises:
        BadParameters: unknown response curve.
    """
    if response == "none":
        return linear
    if response == "gamma2.2":
        # the true slope at 0 is infinite; the floor keeps gradients finite (error < 3e-4 below 1e-8)
        return linear.sign() * linear.abs().clamp_min(1e-8) ** (1 / 2.2)
    if response == "srgb":
        curve = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
        return torch.where(linear <= 0.0031308, linear * 12.92, curve)
    raise _unknown(response)


def response_slope(encoded: Tensor, response: str = "srgb") -> Tensor:
    """d to_linear / d encoded, floored at 0.03 so that dark pixels can still change. Any shape."""
    if response == "none":
        return torch.ones_like(encoded)
    if response == "gamma2.2":
        return (2.2 * encoded.clamp_min(1e-4) ** 1.2).clamp_min(0.03)
    if response == "srgb":
        curve = 2.4 / 1.055 * ((encoded.clamp_min(0.04045) + 0.055) / 1.055) ** 1.4
        return torch.where(encoded <= 0.04045, 1 / 12.92, curve)
    raise _unknown(response)


def average(frames: Tensor, response: str = "srgb") -> Tensor:
    """Noise-free blurry image of sharp frames.

    Args:
        frames: (..., T, C, H, W) encoded values in [0, 1].

    Returns:
        (..., C, H, W) encoded values; differentiable with respect to `frames`.
    """
    return from_linear(to_linear(frames, response).mean(dim=-4), response)


def expose(frames: np.ndarray, config: ExposureConfig, rng: np.random.Generator) -> np.ndarray:
    """Blurry photo of sharp frames: mean in linear light, then noise, response curve and 8-bit rounding.

    Args:
        frames: (T, H, W, 3) uint8.
        rng: source of the noise; not touched when both noise levels are 0.

    Returns:
        (H, W, 3) uint8.
    """
    table = to_linear(torch.arange(256, dtype=torch.float64) / 255, config.response).numpy()
    mean = np.zeros(frames.shape[1:], np.float64)
    for frame in frames:
        mean += table[frame]
    mean /= len(frames)
    if config.noise_read or config.noise_shot:
        sigma = np.sqrt(config.noise_read**2 + config.noise_shot * mean)
        mean = mean + sigma * rng.standard_normal(mean.shape)
    encoded = from_linear(torch.from_numpy(mean), config.response).numpy()
    return np.rint(np.clip(encoded, 0, 1) * 255).astype(np.uint8)


def blur_error(blurry: np.ndarray, frames: np.ndarray, response: str) -> float:
    """PSNR in dB of `blurry` (H, W, 3) uint8 against the exposure of `frames` (T, H, W, 3) uint8.

    8-bit rounding alone gives 55 dB and more; a wrong response curve is far below that. Capped at 99 dB.
    """
    made = expose(frames, ExposureConfig(response=response), np.random.default_rng(0))  # type: ignore[arg-type]
    mse = float(np.mean((made.astype(np.float64) - blurry) ** 2)) / 255**2
    return min(99.0, -10 * np.log10(mse)) if mse > 0 else 99.0


def _unknown(response: str) -> BadParameters:
    return BadParameters(f"unknown response curve '{response}'", where="blur.exposure.response",
                         remedy=f"choose one of {', '.join(RESPONSES)}")
