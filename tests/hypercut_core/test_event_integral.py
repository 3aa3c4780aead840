"""The event double integral: exact with known c, c found from the clip, direction never in doubt."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_footage import pan
from torch import Tensor

from hypercut_core.blur.events import EventConfig, Events, simulate_events
from hypercut_core.blur.exposure import ExposureConfig, average, expose, to_linear
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.deblurring.event_integral import (
    EventIntegral,
    EventIntegralConfig,
    exposure_times,
    integrate_events,
)
from hypercut_core.deblurring.event_levels import HALF_STEP, Between, event_counts
from hypercut_core.deblurring.threshold_search import (
    fibonacci_search,
    find_frame_thresholds,
    find_threshold,
    liveliest,
)
from hypercut_core.errors import BadParameters

START, END = 3.0, 3.02
MODEL = EventIntegral(EventIntegralConfig())


def psnr(made: Tensor, true: Tensor) -> Tensor:
    """(T,) dB of each frame."""
    return -10 * (made.clamp(0, 1) - true).square().mean((-3, -2, -1)).log10()


def observe(frames: np.ndarray, model: EventIntegral = MODEL, **camera: float | bool) -> tuple[Tensor, Tensor, Tensor]:
    """Blurry image (1, 3, H, W) of 8 bits, true frames (T, 3, H, W) and event counts of (T, H, W, 3) frames."""
    events = simulate_events(frames, exposure_times(START, END, 7), EventConfig(**camera),  # type: ignore[arg-type]
                             np.random.default_rng(0))
    blurry = expose(frames, ExposureConfig(), np.random.default_rng(0))
    image = lambda x: torch.from_numpy(x).movedim(-1, -3).float() / 255  # noqa: E731
    return image(blurry)[None], image(frames), model.counts(events, START, END)


def clips() -> list[np.ndarray]:
    """Two moving textures and three of the built-in clips: camera and objects in motion, to either side."""
    config = MovingPhotosConfig(size=96, motion_min=5, motion_max=14)
    built_in = [clip.frames[1:] for clip in render_clips(config, "test", 59, 1)]
    return [np.stack(pan(0, 7, 1.4)), np.stack(pan(1, 7, -1.1)), built_in[10], built_in[26], built_in[58]]


CLIPS = clips()


@pytest.mark.parametrize("number", range(len(CLIPS)))
def test_known_c_gives_40_db_on_every_frame_in_the_right_direction(number: int) -> None:
    blurry, sharp, counts = observe(CLIPS[number], threshold=0.05, colour=True)
    made = MODEL(blurry, counts, 0.05)[0]
    assert psnr(made, sharp).min() >= 40
    assert (psnr(made, sharp)[[0, -1]] > psnr(made.flip(0), sharp)[[0, -1]] + 10).all()
    assert psnr(blurry.expand_as(sharp), sharp).mean() < 32  # there was something to do


def test_a_grey_sensor_gives_40_db_on_a_grey_scene() -> None:
    grey = np.repeat(CLIPS[0].mean(-1, keepdims=True).round().astype(np.uint8), 3, -1)
    blurry, sharp, counts = observe(grey, threshold=0.05)
    assert counts.shape[2] == 1
    assert psnr(MODEL(blurry, counts, 0.05)[0], sharp).min() >= 40


@pytest.mark.parametrize("number", range(len(CLIPS)))
@pytest.mark.parametrize("colour", [False, True])
def test_c_is_recovered_within_two_percent(number: int, colour: bool) -> None:
    blurry, _sharp, counts = observe(CLIPS[number], threshold=0.05, colour=colour)
    found = find_threshold(blurry, counts)
    assert found == pytest.approx(0.05, rel=0.02)


def test_c_is_recovered_where_frames_close_in_time_mislead() -> None:
    """Here the frames next to each instant alone give a c that is 10 to 13 % too large."""
    clip = list(render_clips(MovingPhotosConfig(size=96, motion_min=5, motion_max=14), "val", 11, 5))[-1].frames[1:]
    blurry, _sharp, counts = observe(clip, threshold=0.1, colour=True)
    assert find_threshold(blurry, counts) == pytest.approx(0.1, rel=0.02)


def test_c_of_each_frame_and_of_the_clip_agree() -> None:
    blurry, _sharp, counts = observe(CLIPS[0][:, :64, :64], threshold=0.1, colour=True)
    each = find_frame_thresholds(blurry, counts)
    assert each.shape == (7,)
    assert (each / 0.1 - 1).abs().max() < 0.1
    assert (each / 0.1 - 1).abs().median() < 0.03
    made = MODEL(blurry, counts, each)
    for k in (0, 3, 6):
        assert torch.equal(made[:, k], MODEL(blurry, counts, float(each[k]))[:, k])


@pytest.mark.parametrize(("noise_rate", "gain"), [(5.0, 3.0), (100.0, 1.0)])  # 0.1 and 2 false events per pixel
def test_noisy_events_keep_the_direction(noise_rate: float, gain: float) -> None:
    for frames in CLIPS:
        blurry, sharp, counts = observe(frames, threshold=0.2, spread=0.05, noise_rate=noise_rate, refractory=1e-4)
        made = MODEL(blurry, counts, 0.2)[0]
        assert psnr(made, sharp).mean() > psnr(made.flip(0), sharp).mean() + 1
        assert psnr(made, sharp)[[0, -1]].mean() > psnr(blurry.expand_as(sharp), sharp)[[0, -1]].mean() + gain


@pytest.mark.parametrize("threshold", [0.01, 0.2, 2.0])
@pytest.mark.parametrize("response", ["srgb", "gamma2.2", "none"])
def test_frames_reblur_to_the_photo_whatever_c_is(threshold: float, response: str) -> None:
    torch.manual_seed(0)
    blurry, counts = torch.rand(2, 3, 9, 11), torch.randint(-4, 5, (2, 7, 1, 9, 11)).float()
    made = integrate_events(blurry.double(), counts.double(), threshold, response=response)
    torch.testing.assert_close(average(made, response), blurry.double(), atol=1e-6, rtol=0)


def test_hot_pixels_do_not_overflow() -> None:
    counts = torch.zeros(1, 7, 1, 8, 8)
    counts[0, 3:, 0, 2, 2] = 5000
    assert integrate_events(torch.rand(1, 3, 8, 8), counts, 1.0).isfinite().all()


def test_no_events_repeat_the_photo() -> None:
    blurry = torch.rand(1, 3, 8, 8)
    made = MODEL(blurry, torch.zeros(1, 7, 1, 8, 8), 0.3)
    torch.testing.assert_close(made, blurry[:, None].expand_as(made), atol=1e-6, rtol=0)
    with pytest.raises(BadParameters, match="no events"):
        find_threshold(torch.rand(1, 3, 32, 32), torch.zeros(1, 7, 1, 32, 32))


def test_reversed_time_gives_the_reversed_frames() -> None:
    torch.manual_seed(0)
    blurry, counts = torch.rand(1, 3, 9, 11), torch.randint(-4, 5, (1, 7, 3, 9, 11)).float()
    torch.testing.assert_close(MODEL(blurry, counts.flip(1), 0.2), MODEL(blurry, counts, 0.2).flip(1))
    # only differences of the count matter
    torch.testing.assert_close(MODEL(blurry, counts + 3, 0.2), MODEL(blurry, counts, 0.2), atol=1e-5, rtol=0)


def test_each_clip_has_its_own_c() -> None:
    torch.manual_seed(0)
    blurry, counts = torch.rand(2, 3, 5, 6), torch.randint(-4, 5, (2, 7, 1, 5, 6)).float()
    both = MODEL(blurry, counts, torch.tensor([0.1, 0.4]))
    for k, c in enumerate((0.1, 0.4)):
        torch.testing.assert_close(both[k:k + 1], MODEL(blurry[k:k + 1], counts[k:k + 1], c))


def test_a_long_exposure_is_sampled_more_often_than_it_has_frames() -> None:
    """The photo is the mean of 35 instants; frames are the middle one of every five."""
    fine = np.stack(pan(0, 35, 0.3))
    events = simulate_events(fine, exposure_times(START, END, 35), EventConfig(threshold=0.05, colour=True),
                             np.random.default_rng(0))
    blurry = torch.from_numpy(expose(fine, ExposureConfig(), np.random.default_rng(0))).movedim(-1, 0)[None] / 255
    model = EventIntegral(EventIntegralConfig(instants=5))
    sharp = torch.from_numpy(fine[2::5]).movedim(-1, 1).float() / 255
    made = model(blurry, model.counts(events, START, END), 0.05)[0]
    assert made.shape == sharp.shape
    assert psnr(made, sharp).min() >= 40


def handful() -> Events:
    return Events(np.array([0, 0, 1, 0]), np.array([0, 0, 0, 0]), np.array([0.1, 0.3, 0.5, 0.9]),
                  np.array([1, 1, -1, -1], np.int8), 1, 2)


def test_event_counts_of_a_handful_of_events() -> None:
    times = np.array([0.0, 0.2, 0.4, 1.0])
    plain = event_counts(handful(), times, "count")
    assert plain[:, 0, 0].tolist() == [[0, 0], [1, 0], [2, 0], [1, -1]]
    half = event_counts(handful(), times) - plain
    np.testing.assert_allclose(half[:, 0, 0], HALF_STEP * np.array([[0, 0], [1, 0], [1, 0], [-1, -1]]), rtol=1e-6)


def test_the_light_between_two_events_is_told_by_their_times() -> None:
    """Classes of time since the last and until the next event; unit: a seventh of 0.7 s."""
    times = np.array([0.0, 0.28, 0.46, 0.95])
    timed = event_counts(handful(), times, "timed", 0.7) - event_counts(handful(), times, "count")
    first, second = timed[:, 0, 0].T.tolist()
    assert first[0] == 0  # known
    assert first[1] == pytest.approx(0.57)  # long after one rise, just before another
    assert first[2] == pytest.approx(0.19)  # some time after a rise, long before a fall
    assert first[3] == pytest.approx(-0.55)  # after a fall, and nothing more
    assert second[2] == pytest.approx(-0.29)  # nothing yet, a fall is near
    assert second[3] == pytest.approx(-0.13)


@given(seed=st.integers(0, 1000), between=st.sampled_from(["count", "half_step", "timed"]))
def test_levels_stay_within_a_step_of_the_count_and_follow_the_sign(seed: int, between: Between) -> None:
    rng = np.random.default_rng(seed)
    size, times = int(rng.integers(0, 60)), np.linspace(0.0, 0.1, 5)
    events = Events(rng.integers(0, 4, size), rng.integers(0, 3, size), np.sort(rng.uniform(-0.05, 0.15, size)),
                    rng.choice(np.array([-1, 1], np.int8), size), 3, 4)
    levels = event_counts(events, times, between, 0.1)
    assert levels.shape == (5, 1, 3, 4)
    assert levels.isfinite().all()
    assert (levels - event_counts(events, times, "count")).abs().max() < 1
    turned = dataclasses.replace(events, p=-events.p)
    torch.testing.assert_close(event_counts(turned, times, between, 0.1), -levels)


@pytest.mark.parametrize("number", range(len(CLIPS)))
def test_times_of_events_tell_more_than_their_count(number: int) -> None:
    """With known c: 40 dB on every frame at c = 0.1 too, and nearer to the truth than the paper's count."""
    blurry, sharp, counts = observe(CLIPS[number], threshold=0.1, colour=True)
    timed = psnr(MODEL(blurry, counts, 0.1)[0], sharp)
    plain = EventIntegral(EventIntegralConfig(between="count"))
    _blurry, _sharp, counted = observe(CLIPS[number], plain, threshold=0.1, colour=True)
    counted_only = psnr(plain(blurry, counted, 0.1)[0], sharp)
    assert timed.min() >= 40
    assert timed.mean() > counted_only.mean() + 1


@pytest.mark.parametrize("place", [0.0, 0.37, 0.5, 1.0])
def test_fibonacci_search_halves_by_the_golden_ratio(place: float) -> None:
    asked: list[float] = []

    def score(x: float) -> float:
        asked.append(x)
        return abs(x - place)

    found = fibonacci_search(score, 0.0, 1.0, 12)
    assert abs(found - place) <= 1 / 144
    assert len(asked) == 13


def test_only_the_liveliest_part_is_looked_at() -> None:
    counts = torch.zeros(1, 7, 1, 200, 300)
    counts[0, 3:, 0, 150:190, 200:260] = 5
    blurry = torch.arange(200 * 300.0).view(1, 1, 200, 300).expand(1, 3, 200, 300)
    part, seen = liveliest(blurry, counts, 64)
    assert part.shape[-2:] == (64, 64)
    assert seen[0, -1].count_nonzero() > 0.9 * 40 * 60


@pytest.mark.parametrize("wrong", [{"frames": 6}, {"config": EventIntegralConfig(instants=2)}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadParameters, match="odd number"):
        EventIntegral(**{"config": EventIntegralConfig(), **wrong})  # type: ignore[arg-type]


def test_counts_of_another_size_are_refused() -> None:
    with pytest.raises(BadParameters, match="do not fit"):
        MODEL(torch.rand(1, 3, 8, 8), torch.zeros(1, 7, 1, 8, 9), 0.1)
    with pytest.raises(BadParameters, match="too small"):
        find_threshold(torch.rand(1, 3, 8, 8), torch.zeros(1, 7, 1, 8, 8))


def test_the_mean_of_the_frames_is_the_photo_before_rounding() -> None:
    blurry, _sharp, counts = observe(CLIPS[0], threshold=0.1)
    made = to_linear(MODEL(blurry, counts, 0.1)).mean(1)
    torch.testing.assert_close(made, to_linear(blurry), atol=1e-5, rtol=0)
