"""Every kind of deblurrer through the one training loop: with every objective, stage by stage, killed and resumed."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from hypercut_core.clips.dataset import Batch
from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.cascade import CascadeConfig
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.guided import GuidedConfig, GuidedDeblurrer
from hypercut_core.deblurring.kinds_training import lesson_of, stage_at, turned
from hypercut_core.deblurring.models import load_deblurrer, save_deblurrer
from hypercut_core.deblurring.objectives import OBJECTIVES
from hypercut_core.deblurring.peers import CascadeSettings, GuidedSettings, PeerSettings, described, rate
from hypercut_core.deblurring.recurrent import RecurrentConfig, RecurrentDeblurrer
from hypercut_core.deblurring.recurrent_stages import stage_parameters
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.errors import BadParameters
from hypercut_core.files import file_sha256
from hypercut_core.ordering.encoder import EncoderConfig, build_encoder
from hypercut_core.ordering.labels import OrderTable
from hypercut_core.restore import restore
from hypercut_core.training.loop import TrainingConfig
from tests.hypercut_core.counting import moving_clips, stored_clips

STAGES = (0.25, 0.25, 0.5)
SHORT = TrainingConfig(steps=8, batch=2, crop=24, rate=1e-3, checkpoint_seconds=0.0)
CONFIGS = {
    "even_odd": DeblurrerConfig(width=4, blocks=(1, 1), views=1),
    "cascade": CascadeConfig(width=4, side_width=4, colour=4),
    "recurrent": RecurrentConfig(width=8, middle_width=4),
    "recurrent, oracle": RecurrentConfig(width=8, protocol="oracle"),
    "guided": GuidedConfig(width=4, blocks=1, refine=1, predictor_width=4),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return stored_clips(tmp_path_factory.mktemp("store") / "clips", 6, 24)


def orders(store: ClipStore) -> OrderTable:
    direction = np.resize(np.array([1, -1], np.int8), len(store))
    return OrderTable([one.clip_id for one in store.records], direction, -direction.astype(np.float32),
                      np.ones(len(store), np.float32), np.ones(len(store), bool), np.tile(direction[:, None], 8))


def fit(store: ClipStore, kind: str, objective: str, work: Path, **changed: object) -> torch.nn.Module:
    settings = DeblurrerTraining(CONFIGS[kind], training=dataclasses.replace(SHORT, **changed), stages=STAGES)
    torch.manual_seed(9)
    encoder = build_encoder(EncoderConfig(width=4, blocks=1, features=8)).requires_grad_(False)
    return fit_deblurrer(store, objective, settings, 0, work, orders=orders(store), encoder=encoder)


PAIRS = [*(("cascade", one) for one in ("order_invariant", "hypercut_targets")),  # its loss is the even/odd model's
         *((kind, one) for kind in ("recurrent", "guided") for one in OBJECTIVES), ("recurrent, oracle", "naive")]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_kind_that_is_not_taught_in_parts_moves_all_of_itself_in_every_step(name: str) -> None:
    """DDP waits for ever for the gradient of a parameter that has none, unless it was told to look."""
    blurry, sharp = moving_clips(2, 24)
    batch = Batch(blurry, sharp, torch.tensor([1.0, -1.0]), np.arange(2), np.arange(2))
    for step in range(2):
        lesson = lesson_of(CONFIGS[name], 7, "sequence_min", 2, STAGES)
        lesson.loss(lesson.module, batch, step, lambda mine, true, _: (mine - true).square().mean()).backward()
        left_out = [own for own, p in lesson.module.named_parameters() if p.requires_grad and p.grad is None]
        assert lesson.in_parts or left_out == []
    assert lesson.in_parts == name.startswith("recurrent")


@pytest.mark.parametrize(("kind", "objective"), PAIRS)
def test_every_kind_is_trained_with_every_objective(store: ClipStore, tmp_path: Path, kind: str,
                                                    objective: str) -> None:
    """All weights of the kept model move, in whichever stage."""
    torch.manual_seed(0)
    fresh = lesson_of(CONFIGS[kind], 7, objective, 8, STAGES).model
    model = fit(store, kind, objective, tmp_path, weight_decay=0.0)
    before = dict(fresh.named_parameters())
    still = [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]
    assert [name for name in still if not name.endswith("conv1.bias")] == []  # which a normalisation takes off again
    assert all(weight.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("kind", ["cascade", "recurrent", "guided"])
@pytest.mark.parametrize("at", [1, 3, 6])  # in each of the three stages
def test_a_killed_training_ends_with_the_same_bytes(store: ClipStore, tmp_path: Path, kind: str, at: int,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    from hypercut_core.training import loop
    real, seen, stopped = loop.learning_rate, [], []

    def stop(config: TrainingConfig, step: int) -> float:
        seen.append(step)
        if step == at and not stopped:
            stopped.append(step)
            raise KeyboardInterrupt
        return real(config, step)

    save_deblurrer(tmp_path / "whole", fit(store, kind, "hypercut_targets", tmp_path / "a"), {})
    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(store, kind, "hypercut_targets", tmp_path / "b")
        save_deblurrer(tmp_path / "resumed", fit(store, kind, "hypercut_targets", tmp_path / "b"), {})
    assert [step for step, _ in itertools.groupby(seen)] == list(range(8))  # nothing twice, but what was stopped
    assert file_sha256(tmp_path / "whole") == file_sha256(tmp_path / "resumed")


@pytest.mark.parametrize("kind", ["recurrent", "recurrent, oracle"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_stage_moves_what_it_is_for_and_nothing_else(kind: str, stage: int) -> None:
    torch.manual_seed(0)
    lesson = lesson_of(CONFIGS[kind], 7, "sequence_min", 4, STAGES)
    assert isinstance(lesson.model, RecurrentDeblurrer)
    blurry, sharp = moving_clips(2, 24)
    batch = Batch(blurry, sharp, torch.ones(2), np.arange(2), np.arange(2))
    lesson.loss(lesson.module, batch, stage - 1,
                lambda mine, true, direction: (mine - true).square().mean()).backward()
    moved = {name for name, weight in lesson.module.named_parameters() if weight.grad is not None}
    meant = {id(weight) for weight in stage_parameters(lesson.model, lesson.module.video_encoder, stage)}
    assert moved == {name for name, weight in lesson.module.named_parameters() if id(weight) in meant}


def test_stages_follow_each_other_and_may_be_left_out() -> None:
    for shares in ((0.2, 0.3, 0.5), (0.0, 0.0, 1.0), (1.0, 0.0, 1.0)):
        stages = [stage_at(step, 100, shares) for step in range(100)]
        assert stages == sorted(stages)
        for number, share in enumerate(shares, 1):
            assert stages.count(number) == pytest.approx(100 * share / sum(shares), abs=1)
    with pytest.raises(BadParameters, match="shares"):
        lesson_of(CONFIGS["recurrent"], 7, "naive", 4, (0.5, 0.5, 0.0))


def test_targets_turn_the_truth_before_anything_else_sees_it() -> None:
    _, sharp = moving_clips(2, 24)
    batch = Batch(sharp.mean(1), torch.stack([sharp[0], sharp[1].flip(0)]), torch.tensor([-1.0, 1.0]), np.arange(2),
                  np.arange(2))
    assert torch.equal(turned("naive", batch), batch.sharp)
    assert torch.equal(turned("sequence_min", batch), batch.sharp)
    assert torch.equal(turned("hypercut_targets", batch), torch.stack([sharp[0].flip(0), sharp[1].flip(0)]))
    assert torch.equal(turned("rule_targets", batch), sharp)  # they move to the right
    with pytest.raises(BadParameters, match="assign-order"):
        turned("hypercut_targets", dataclasses.replace(batch, direction=torch.zeros(2)))


@pytest.mark.parametrize("kind", ["cascade", "recurrent", "guided"])
def test_a_photo_of_an_odd_size_is_restored_from_the_file(tmp_path: Path, kind: str) -> None:
    size = (211, 317)
    torch.manual_seed(0)
    save_deblurrer(tmp_path / "model.safetensors", lesson_of(CONFIGS[kind], 7, "naive", 1, STAGES).model, {})
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    frames = restore(load_deblurrer(tmp_path / "model.safetensors"), photo)
    assert frames.shape == (7, *size, 3)
    assert np.abs(frames.astype(int) - photo).mean() < 40  # a fresh model shows about the photo itself


def test_what_guided_assumes_follows_from_what_it_was_taught() -> None:
    assumed = {}
    for objective in OBJECTIVES:
        model = lesson_of(CONFIGS["guided"], 7, objective, 1, STAGES).model
        assert isinstance(model, GuidedDeblurrer)
        assumed[objective] = model.config.assumes
    assert assumed == {"naive": "rightward", "order_invariant": "rightward", "hypercut": "rightward",
                       "sequence_min": "likeliest", "hypercut_targets": "likeliest", "rule_targets": "likeliest"}
    chosen = dataclasses.replace(CONFIGS["guided"], assumes="rightward")
    assert lesson_of(chosen, 7, "rule_targets", 1, STAGES).model.config.assumes == "rightward"


def test_each_kind_has_its_own_rate_and_sizes_that_can_be() -> None:
    peers = PeerSettings(cascade=CascadeSettings(rate=0.0), guided=GuidedSettings(rate=3e-5))
    assert [rate(kind, peers, 1e-3) for kind in ("even_odd", "cascade", "recurrent", "guided")] \
        == [1e-3, 1e-3, 5e-4, 3e-5]
    wrong = PeerSettings(cascade=CascadeSettings(model=CascadeConfig(width=0)))
    with pytest.raises(BadParameters, match=r"deblurrer\.peers\.cascade\.model.*sizes"):
        described("cascade", DeblurrerConfig(), wrong)
    with pytest.raises(BadParameters, match="choose one of even_odd, cascade"):
        described("transformer", DeblurrerConfig(), peers)
