import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hypercut_core.blur.exposure import (
    RESPONSES,
    ExposureConfig,
    average,
    blur_error,
    expose,
    from_linear,
    to_linear,
)
from hypercut_core.errors import BadParameters


@pytest.mark.parametrize("response", RESPONSES)
@given(st.floats(-0.2, 1.5))
def test_from_linear_inverts_to_linear(response: str, value: float) -> None:
    x = torch.tensor(value, dtype=torch.float64)
    # gamma 2.2 has a floor of 1e-8 in linear light, about 2e-4 in encoded values
    assert abs(float(from_linear(to_linear(x, response), response)) - value) < 3e-4


def test_srgb_follows_the_standard() -> None:
    x = torch.tensor([0.0, 0.04045, 0.5, 1.0], dtype=torch.float64)
    np.testing.assert_allclose(to_linear(x, "srgb"), [0, 0.04045 / 12.92, 0.21404114, 1.0], atol=1e-8)


@pytest.mark.parametrize("response", RESPONSES)
@given(frame=arrays(np.uint8, (5, 6, 3)), count=st.sampled_from([3, 7, 15]))
@settings(max_examples=25)
def test_the_blur_of_a_still_clip_is_the_clip(response: str, frame: np.ndarray, count: int) -> None:
    frames = np.repeat(frame[None], count, 0)
    blurry = expose(frames, ExposureConfig(response=response), np.random.default_rng(0))  # type: ignore[arg-type]
    np.testing.assert_array_equal(blurry, frame)


@given(arrays(np.uint8, (7, 4, 4, 3)))
@settings(max_examples=25)
def test_order_of_time_does_not_matter_to_the_blur(frames: np.ndarray) -> None:
    config = ExposureConfig()
    forward = expose(frames, config, np.random.default_rng(0)).astype(int)
    backward = expose(frames[::-1], config, np.random.default_rng(0)).astype(int)
    assert np.abs(forward - backward).max() <= 1  # the sums differ in their last bit


def test_linear_light_is_brighter_than_the_mean_of_encoded_values() -> None:
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    frames[0] = 255
    linear = expose(frames, ExposureConfig(), np.random.default_rng(0))
    encoded = expose(frames, ExposureConfig(response="none"), np.random.default_rng(0))
    assert int(encoded[0, 0, 0]) == 85
    assert int(linear[0, 0, 0]) == 156  # 1.055 (1/3)^(1/2.4) - 0.055


def test_blur_error_tells_the_response_curves_apart() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)
    blurry = expose(frames, ExposureConfig(), np.random.default_rng(0))
    assert blur_error(blurry, frames, "srgb") == 99.0
    assert blur_error(blurry, frames, "none") < 35


def test_noise_has_the_size_that_was_asked_for() -> None:
    frames = np.full((3, 64, 64, 3), 188, np.uint8)
    config = ExposureConfig(response="none", noise_read=0.02)
    noisy = expose(frames, config, np.random.default_rng(1)).astype(float) / 255
    assert noisy.std() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("response", RESPONSES)
def test_average_is_differentiable(response: str) -> None:
    frames = torch.rand(2, 3, 3, 4, 4, dtype=torch.float64).mul(0.8).add(0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: average(x, response), (frames,))


def test_unknown_response_is_named_with_the_choices() -> None:
    with pytest.raises(BadParameters, match=r"'log'.*srgb, gamma2\.2, none"):
        to_linear(torch.zeros(1), "log")
