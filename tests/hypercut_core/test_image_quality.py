"""PSNR and SSIM against scikit-image, and what they promise about rounding, ranges and shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercut_core.evaluation.image_quality import PSNR_CEILING, psnr, quantise, ssim

metrics = pytest.importorskip("skimage.metrics")


def photo(size: tuple[int, int] = (45, 131)) -> torch.Tensor:
    from skimage.data import astronaut

    return torch.from_numpy(astronaut()[100:100 + size[0], 150:150 + size[1]]).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("size", [(11, 11), (45, 131), (64, 64), (65, 12)])
@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_equals_scikit_image(size: tuple[int, int], noise: float):
    a = photo(size)
    b = a + noise * torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    x, y = (quantise(image).double().numpy() for image in (a, b))
    theirs = metrics.structural_similarity(x, y, gaussian_weights=True, sigma=1.5, data_range=1,
                                           use_sample_covariance=False, channel_axis=0)
    assert float(ssim(a, b)) == pytest.approx(theirs, abs=2e-6)
    assert float(psnr(a, b)) == pytest.approx(metrics.peak_signal_noise_ratio(x, y, data_range=1), abs=1e-5)


def test_flat_dark_and_bright_images_keep_their_digits():
    for level in (0.0, 0.02, 1.0):
        a = torch.full((3, 30, 30), level)
        b = a.clone()
        b[:, ::2] = abs(level - 2 / 255)
        x, y = (quantise(image).double().numpy() for image in (a, b))
        theirs = metrics.structural_similarity(x, y, gaussian_weights=True, use_sample_covariance=False,
                                               data_range=1, channel_axis=0)
        assert float(ssim(a, b)) == pytest.approx(theirs, abs=2e-5)


def test_leading_axes_and_broadcasting():
    frames = torch.rand(2, 3, 3, 16, 17)
    single = frames[:, :1]
    assert psnr(frames, single).shape == ssim(frames, single).shape == (2, 3)
    alone = float(ssim(frames[1, 2], frames[1, 0]))
    assert float(ssim(frames, single)[1, 2]) == pytest.approx(alone, abs=1e-6)
    assert psnr(frames[0, 0], frames[0, 1]).shape == ()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.floats(0, 0.5))
def test_symmetric_and_bounded(seed: int, noise: float):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(3, 14, 13, generator=generator)
    b = a + noise * torch.randn(a.shape, generator=generator)
    assert float(psnr(a, b)) == float(psnr(b, a)) <= PSNR_CEILING
    assert -1 <= float(ssim(a, b)) <= 1 + 1e-6
    assert float(ssim(a, b)) == pytest.approx(float(ssim(b, a)), abs=1e-6)


def test_equal_images_reach_the_ceiling_and_values_are_clamped_and_rounded():
    a = photo()
    assert float(psnr(a, a)) == PSNR_CEILING
    assert float(ssim(a, a)) == pytest.approx(1.0)
    assert float(psnr(a, a + 0.4 / 255)) == PSNR_CEILING  # less than half a level: the same 8-bit image
    assert float(psnr(torch.full((3, 12, 12), 7.0), torch.ones(3, 12, 12))) == PSNR_CEILING
    one_level = psnr(torch.zeros(3, 12, 12), torch.full((3, 12, 12), 1 / 255))
    assert float(one_level) == pytest.approx(20 * np.log10(255))


@pytest.mark.parametrize("shapes", [((3, 12, 12), (3, 12, 13)), ((1, 12, 12),) * 2, ((12, 12),) * 2])
def test_other_shapes_are_refused(shapes: tuple):
    with pytest.raises(ValueError, match="3, H, W"):
        psnr(*(torch.zeros(shape) for shape in shapes))


def test_ssim_of_a_tiny_image_is_refused():
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim(torch.zeros(3, 10, 40), torch.zeros(3, 10, 40))
