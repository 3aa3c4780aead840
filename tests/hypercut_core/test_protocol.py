"""The protocol on predictors whose scores are known beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hypercut_core.errors import BadCheckpoint
from hypercut_core.evaluation.image_quality import PSNR_CEILING
from hypercut_core.evaluation.protocol import (
    ClipScores,
    evaluate_clips,
    motion_error,
    odd_part,
    repeat_blurry,
    same_size_batches,
    score_batch,
    summarise,
)


@dataclass
class Record:
    height: int
    width: int
    response: str = "none"


class Clips:
    """Clips in memory, of several sizes: a bright square that moves right, over noise."""

    def __init__(self, sizes: list[tuple[int, int]], frames: int = 5, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.frames, self.reads = frames, 0
        self.records = [Record(*size) for size in sizes]
        self.arrays = []
        for height, width in sizes:
            back = rng.integers(0, 120, (height, width, 3))
            sharp = np.repeat(back[None], frames, 0)
            for t in range(frames):
                sharp[t, 3:9, 2 + t:8 + t] = 230
            blurry = np.rint(sharp.mean(0, keepdims=True))
            self.arrays.append(np.concatenate([blurry, sharp]).astype(np.uint8))

    def read(self, i: int) -> np.ndarray:
        self.reads += 1
        return self.arrays[i]

    def truth(self, i: int) -> torch.Tensor:
        return torch.from_numpy(self.arrays[i][1:]).permute(0, 3, 1, 2).float() / 255

    def knower(self, turn: bool = False):
        """A predictor that looks the truth up by the blurry image."""
        def predict(blurry: torch.Tensor) -> torch.Tensor:
            made = []
            for image in blurry:
                for i, clip in enumerate(self.arrays):
                    key = torch.from_numpy(clip[0]).permute(2, 0, 1).float() / 255
                    if key.shape == image.shape and torch.equal(key, image):
                        made.append(self.truth(i).flip(0) if turn else self.truth(i))
            return torch.stack(made)
        return predict


SIZES = [(16, 20), (12, 12), (16, 20), (12, 12), (16, 20)]


def random_batch(seed: int, clips: int = 3, frames: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sharp = torch.rand(clips, frames, 3, 12, 13, generator=generator)
    return (sharp + 0.3 * torch.randn(sharp.shape, generator=generator)).clamp(0, 1), sharp


def as_scores(arrays: dict, directions: dict | None = None) -> ClipScores:
    return ClipScores("x", np.arange(len(arrays["forward"])), directions=directions or {}, **arrays)


def test_the_truth_scores_the_ceiling_in_either_direction():
    clips = Clips(SIZES)
    everything = np.arange(len(SIZES))
    for turn in (False, True):
        scores = evaluate_clips(clips.knower(turn), clips, everything, directions=np.ones(5), batch=2)
        assert np.all(scores.ppsnr == PSNR_CEILING)
        assert scores.ssim == pytest.approx(1.0)
        assert np.all(scores.reversed == turn)
        assert scores.order_agreement("order") == (0.0 if turn else 1.0)
        assert np.all(scores.odd_strength == pytest.approx(1.0))
        assert scores.reblur.min() > 50  # only rounding lies between
    # the last prediction is the reversed truth: in canonical order only its middle frame is right
    assert scores.canonical("order").mean() < PSNR_CEILING - 20


def test_repeating_the_blurry_image_has_no_direction():
    clips = Clips(SIZES)
    order = {"a": np.array([1, -1, 1, 0, 0])}
    trivial = evaluate_clips(repeat_blurry(5), clips, np.arange(5), directions=order)
    assert np.array_equal(trivial.forward, trivial.backward)
    assert not trivial.reversed.any()
    assert np.all(trivial.odd_strength == 0)
    assert trivial.order_agreement("a") == 0
    summary = summarise(trivial, trivial)
    assert summary["gain"] == 0
    assert summary["worse_than_trivial"] == 0
    assert summary["canonical"]["a"] == pytest.approx(trivial.ppsnr[:3].mean())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20))
@example(seed=123)  # has a value half way between two grey levels
def test_reversing_the_prediction_changes_no_blind_score(seed: int):
    prediction, sharp = random_batch(seed)
    blurry = sharp.mean(1)
    ahead = as_scores(score_batch(prediction, sharp, blurry, "srgb"))
    back = as_scores(score_batch(prediction.flip(1), sharp, blurry, "srgb"))
    assert np.array_equal(ahead.ppsnr, back.ppsnr)
    assert np.allclose(ahead.ssim, back.ssim, atol=1e-12)
    assert np.array_equal(ahead.reblur, back.reblur)
    assert np.allclose(ahead.agreement, -back.agreement)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), signs=st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3))
def test_canonical_never_exceeds_ppsnr(seed: int, signs: list[int]):
    prediction, sharp = random_batch(seed)
    scores = as_scores(score_batch(prediction, sharp, sharp.mean(1), "none"), {"order": np.array(signs)})
    assert np.all(scores.canonical("order").mean(1) <= scores.ppsnr.mean(1))
    opposite = as_scores(score_batch(prediction, sharp, sharp.mean(1), "none"), {"order": -np.array(signs)})
    best = np.maximum(scores.canonical("order").mean(1), opposite.canonical("order").mean(1))
    assert np.array_equal(best, scores.ppsnr.mean(1))


def test_the_direction_is_chosen_once_per_sequence_and_not_per_frame():
    _, sharp = random_batch(1, clips=1)
    prediction = sharp.flip(1).clone()
    prediction[:, 0] = sharp[:, 0]  # one frame right ahead, the others right backwards
    scores = as_scores(score_batch(prediction, sharp, sharp.mean(1), "none"))
    assert scores.reversed.tolist() == [True]
    assert scores.ppsnr[0, 1] == PSNR_CEILING
    # prediction frame 1 stands for true frame T in the chosen direction, and is wrong there
    assert scores.ppsnr[0, -1] < 15
    assert scores.ssim[0, -1] < 0.5
    assert scores.ssim[0, 1] == pytest.approx(1)


def test_batches_hold_one_size_and_bounded_pixels():
    clips = Clips([*SIZES, (1100, 1100)], frames=3)
    places = list(same_size_batches(clips, np.arange(6), batch=2))
    assert sorted(int(p) for group in places for p in group) == list(range(6))
    for group in places:
        assert len({(clips.records[p].height, clips.records[p].width) for p in group}) == 1
        assert len(group) <= 2
    assert next(iter(same_size_batches(clips, np.array([5, 5]), batch=2))).tolist() == [0]


def test_scores_do_not_depend_on_the_batch_size_or_order_of_clips():
    clips = Clips(SIZES)
    noisy = lambda blurry: (repeat_blurry(5)(blurry) + torch.linspace(0, 0.2, 5).view(1, 5, 1, 1, 1)) ** 1.1  # noqa: E731
    one = evaluate_clips(noisy, clips, np.arange(5), batch=1)
    many = evaluate_clips(noisy, clips, np.array([4, 3, 2, 1, 0]), batch=5)
    assert np.allclose(one.ppsnr, many.ppsnr[::-1], atol=1e-9)
    assert np.allclose(one.ssim, many.ssim[::-1], atol=1e-5)


def test_a_model_of_another_number_of_frames_is_refused_by_name():
    clips = Clips(SIZES)
    with pytest.raises(BadCheckpoint, match=r"naive: the model gives 7 frames .* clips of 5") as caught:
        evaluate_clips(repeat_blurry(7), clips, np.arange(5), name="naive")
    assert caught.value.remedy


def test_inf_and_nan_are_counted_and_scored_low():
    clips = Clips(SIZES)

    def broken(blurry: torch.Tensor) -> torch.Tensor:
        return torch.full((len(blurry), 5, *blurry.shape[1:]), float("nan"))

    scores = evaluate_clips(broken, clips, np.arange(5))
    assert summarise(scores)["not_finite"] == 5
    assert np.isfinite(scores.ppsnr).all()


def test_the_odd_part_changes_sign_when_the_sequence_is_reversed():
    prediction, _ = random_batch(3)
    assert torch.equal(odd_part(prediction), -odd_part(prediction.flip(1)))


def moving(speed: float, frames: int = 5, side: int = 48) -> torch.Tensor:
    """A soft texture that moves to the right by `speed` px a frame, `[1, T, 3, side, side]`."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    made = [0.5 + 0.2 * torch.sin((x - speed * t) / 3.0) + 0.2 * torch.sin(y / 4.0 + (x - speed * t) / 6.0)
            for t in range(frames)]
    return torch.stack(made)[None, :, None].expand(-1, -1, 3, -1, -1)


def test_the_error_of_the_recovered_motion():
    true = moving(1.0)
    assert float(motion_error(true, true)) == 0
    still = float(motion_error(true[:, 2:3].expand_as(true), true))
    assert still == pytest.approx(4.0, abs=0.6)  # what does not move errs by the motion itself
    half = float(motion_error(moving(0.5), true))
    assert half == pytest.approx(2.0, abs=0.5)
    assert float(motion_error(true.flip(1), true)) == pytest.approx(8.0, abs=1.2)


def test_what_is_measured_on_request_follows_the_chosen_direction():
    from hypercut_core.evaluation.lpips import Lpips

    torch.manual_seed(0)
    lpips = Lpips("alex").requires_grad_(False)
    for head in lpips.heads:
        torch.nn.init.uniform_(head)
    true = moving(1.0)
    plain = score_batch(true.flip(1), true, true.mean(1), "none")
    assert not {"lpips", "motion_error"} & set(plain)
    asked = score_batch(true.flip(1), true, true.mean(1), "none", lpips=lpips, motion=True)
    assert all(np.array_equal(asked[key], value) for key, value in plain.items())
    assert asked["motion_error"][0] < 0.02  # the prediction is rounded to 8 bits, this truth is not
    assert asked["lpips"].tolist() == [[0.0] * 5]
    trivial = as_scores(score_batch(true.mean(1, keepdim=True).expand_as(true), true, true.mean(1), "none",
                                    lpips=lpips, motion=True))
    summary = summarise(trivial)
    assert summary["motion_error"] > 3
    assert len(summary["plpips_frames"]) == 5
    assert summary["plpips"] == pytest.approx(np.mean(summary["plpips_frames"]))
    assert summary["plpips"] > 0
    small = score_batch(true[..., :24], true[..., :24], true[..., :24].mean(1), "none", lpips=lpips)
    assert np.isnan(small["lpips"]).all()
    assert "plpips" not in summarise(as_scores(small))
