"""The distilled order: an encoder learns the direction that a teacher tells from blur alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from components.train_encoder.step import TrainEncoderConfig, train_encoder
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.errors import TrainingCollapsed
from hypercut_core.files import read_json
from hypercut_core.ordering import distillation
from hypercut_core.ordering.distillation import (
    TeacherConfig,
    distilled_loss,
    fit_teacher,
    odd_cosine,
    taught_direction,
)
from hypercut_core.ordering.encoder import EncoderConfig, both_scores, build_encoder, load_encoder
from hypercut_core.ordering.labels import score_clips
from hypercut_core.ordering.rule import rule_direction
from hypercut_core.ordering.training import fit_encoder, measure_encoder
from hypercut_core.training.checkpoint import read_info
from hypercut_core.training.loop import TrainingConfig

SMALL = EncoderConfig(width=8, blocks=1, features=16)
SHORT = TrainingConfig(steps=120, batch=8, crop=32, rate=4e-3, device="cpu")


class Rightwards(nn.Module):
    """A teacher that needs no training: it predicts that the blurry image moves to the right.

    A frame later is the blurry image a little further left of where it is looked at: x_t = B - t dB/dx.
    """

    def __init__(self) -> None:
        super().__init__()
        self.speed = nn.Parameter(torch.tensor(0.1))

    def forward(self, blurry: Tensor) -> Tensor:
        slope = torch.gradient(blurry, dim=3)[0]
        return torch.stack([blurry - t * self.speed * slope for t in range(-1, 2)], 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    folder = tmp_path_factory.mktemp("distillation") / "clips"
    photos = MovingPhotosConfig(size=32, motion_min=2.0, motion_max=4.0, camera=1.0, both=0.0, subframes=1)
    with ClipStoreWriter(folder, 3) as writer:
        for split, count in (("train", 96), ("test", 48)):
            for number, clip in enumerate(render_clips(photos, split, count, 0, 3)):
                writer.add(clip.frames, clip_id=f"{split}{number}", source=clip.source, split=split,
                           category=clip.category, motion=clip.motion)
    return ClipStore(folder)


@given(seed=st.integers(0, 999), frames=st.sampled_from([3, 7]))
@settings(max_examples=20, deadline=None)
def test_cosine_turns_with_the_sequence_and_knows_no_brightness(seed: int, frames: int) -> None:
    a, b = torch.rand(2, 3, frames, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(odd_cosine(a, b.flip(1)), -odd_cosine(a, b))
    torch.testing.assert_close(odd_cosine(0.5 * a + 0.2, b), odd_cosine(a, b), atol=1e-5, rtol=0)
    torch.testing.assert_close(odd_cosine(a, a), torch.ones(3, dtype=torch.float64))
    assert odd_cosine(a[:, :1].expand_as(a), b).abs().max() < 1e-9  # a still prediction says nothing, finitely


def test_the_loss_pushes_taught_clips_to_the_negative_side() -> None:
    u = torch.tensor([[-2.0, -3.0, -1.0], [2.0, 3.0, 1.0]])
    right, wrong = torch.tensor([1.0, -1.0]), torch.tensor([-1.0, 1.0])
    assert distilled_loss(u, -u, right) < 0.2 < 2 < distilled_loss(u, -u, wrong)
    v = torch.zeros_like(u)
    assert distilled_loss(u, v, right) > distilled_loss(u, -u, right)  # swapped pairs must go to the other side


def test_a_teacher_names_the_direction_that_it_predicts(store: ClipStore) -> None:
    clips = [torch.from_numpy(store.read(int(i))).permute(0, 3, 1, 2).float() / 255 for i in store.indices("test")]
    batch = torch.stack(clips)
    told = taught_direction(Rightwards(), batch[:, 0], batch[:, 1:])
    assert set(told.tolist()) == {1.0, -1.0}
    assert torch.equal(taught_direction(Rightwards(), batch[:, 0], batch[:, 1:].flip(1)), -told)
    # not always: a slanted motion across slanted texture fools it
    assert float((told == rule_direction(batch[:, 1:])).float().mean()) > 0.8


def test_the_encoder_learns_its_teachers_order(store: ClipStore, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = fit_encoder(store, SMALL, SHORT, 0, tmp_path, teacher=Rightwards().requires_grad_(False))
    figures = measure_encoder(encoder, store, Rightwards())["test"]
    assert figures["teacher"] > 0.85  # on photos that it never saw; chance is 0.5
    forward, swapped = score_clips(encoder, store, store.indices("test"))
    assert torch.equal(forward, -swapped)


def test_another_teacher_does_not_go_on_from_the_checkpoint(store: ClipStore, tmp_path: Path) -> None:
    few = TrainingConfig(steps=30, batch=4, crop=32, rate=1e-2, device="cpu")
    start = lambda teacher: fit_encoder(store, SMALL, few, 0, tmp_path, teacher=teacher)  # noqa: E731
    leftwards = Rightwards()
    with torch.no_grad():
        leftwards.speed.neg_()
    first = start(Rightwards())
    again = start(leftwards)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_teacher_that_knows_no_motion_is_refused(store: ClipStore, tmp_path: Path) -> None:
    settings = TeacherConfig(DeblurrerConfig(width=4, blocks=(1, 1)), training=TrainingConfig(
        steps=1, rate=0.0, batch=2, crop=16, device="cpu"))
    with pytest.raises(TrainingCollapsed, match=r"encoder\.teacher.*no motion.*objective=hypercut"):
        fit_teacher(store, settings, 0, tmp_path)


def test_the_step_trains_its_teacher_resumes_and_says_what_it_was(store: ClipStore, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies between the two trainings does not train the teacher twice."""
    monkeypatch.setattr(distillation, "LEAST_COSINE", 0.0)  # six steps teach nothing
    teacher = TeacherConfig(DeblurrerConfig(width=4, blocks=(1, 1), axes=2), training=TrainingConfig(
        steps=6, batch=2, crop=16, device="cpu"))
    config = TrainEncoderConfig(SMALL, TrainingConfig(steps=40, batch=8, crop=32, rate=4e-3, device="cpu"),
                                objective="distilled", teacher=teacher)
    fit_teacher(store, teacher, 5, tmp_path / "work/train-encoder-teacher")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the teacher is trained again")

    monkeypatch.setattr("hypercut_core.deblurring.training.objective_loss", never)
    out = tmp_path / "encoder.safetensors"
    figures = train_encoder(store.path, config, out, tmp_path / "m.json", 5, tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())
    assert read_json(tmp_path / "m.json")["test"]["teacher"] == pytest.approx(figures["test"]["teacher"], abs=1e-5)
    assert 0 <= figures["test"]["teacher"] <= 1
    assert read_info(out)["card"]["objective"] == "distilled"
    assert read_info(out)["card"]["teacher"]["training"]["steps"] == 6
    with torch.no_grad():
        u, v = both_scores(load_encoder(out), torch.rand(2, 3, 3, 16, 16))
    assert torch.equal(u, -v)


def test_hyperplane_encoders_can_be_distilled_too() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(kind="hyperplane"))
    u, v = both_scores(encoder, torch.rand(1, 3, 3, 32, 32))
    loss = distilled_loss(u, v, torch.ones(1))
    loss.backward()
    assert np.isfinite(float(loss.detach()))
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())
