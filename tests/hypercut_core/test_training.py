import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from hypercut_core.clips.dataset import Augmentation
from hypercut_core.clips.moving_photos import MovingPhotosConfig, render_clips
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.errors import BadParameters, TrainingCollapsed
from hypercut_core.files import file_sha256
from hypercut_core.ordering.encoder import EncoderConfig
from hypercut_core.ordering.training import fit_encoder
from hypercut_core.training.checkpoint import save_model
from hypercut_core.training.loop import TrainingConfig, forget, learning_rate, pick_device, training_facts

SHORT = TrainingConfig(steps=8, batch=4, crop=16, checkpoint_seconds=0.0, ema=0.9)
MODEL = DeblurrerTraining(DeblurrerConfig(width=4, blocks=(1, 1)), training=SHORT)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    path = tmp_path_factory.mktemp("store") / "clips"
    with ClipStoreWriter(path, 3) as writer:
        for k, clip in enumerate(render_clips(MovingPhotosConfig(size=20, subframes=1), "train", 12, 0, frames=3)):
            writer.add(clip.frames, clip_id=f"{k}", source=clip.source, split="train", category=clip.category,
                       motion=clip.motion)
    return ClipStore(path)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("kind", ["encoder", "deblurrer"])
@pytest.mark.parametrize("at", [1, 5, 7])
@pytest.mark.parametrize("optimiser", ["adamw", "adamax"])
def test_interrupted_training_ends_with_the_same_bytes(store: ClipStore, tmp_path: Path, kind: str, at: int,
                                                       optimiser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # an encoder whose scores have not left 0 counts as collapsed: eight steps must be long ones
    training = dataclasses.replace(SHORT, optimiser=optimiser, rate=0.03)  # type: ignore[arg-type]

    def fit(work: Path) -> torch.nn.Module:
        if kind == "encoder":
            return fit_encoder(store, EncoderConfig(width=4, blocks=1, features=8), training, 0, work)
        return fit_deblurrer(store, "sequence_min", dataclasses.replace(MODEL, training=training), 0, work)

    save_model(tmp_path / "whole", fit(tmp_path / "a"), {})
    from hypercut_core.training import loop
    real = loop.learning_rate

    def interrupt(config: TrainingConfig, step: int) -> float:
        if step == at:
            raise Stopped
        return real(config, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate", interrupt)
        with pytest.raises(Stopped):
            fit(tmp_path / "b")
    seen = []
    monkeypatch.setattr(loop, "learning_rate", lambda config, step: (seen.append(step), real(config, step))[1])
    save_model(tmp_path / "resumed", fit(tmp_path / "b"), {})
    assert seen[0] == at  # it went on, it did not start again
    assert file_sha256(tmp_path / "whole") == file_sha256(tmp_path / "resumed")


def test_other_settings_do_not_resume(store: ClipStore, tmp_path: Path) -> None:
    fit_deblurrer(store, "sequence_min", MODEL, 0, tmp_path / "w")
    fresh = fit_deblurrer(store, "sequence_min", MODEL, 1, tmp_path / "fresh")
    reused = fit_deblurrer(store, "sequence_min", MODEL, 1, tmp_path / "w")
    for a, b in zip(fresh.parameters(), reused.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_damaged_checkpoint_is_started_over(store: ClipStore, tmp_path: Path) -> None:
    whole = fit_deblurrer(store, "naive", MODEL, 0, tmp_path / "b")
    checkpoints = list((tmp_path / "b").iterdir())
    assert checkpoints
    for file in checkpoints:
        file.write_bytes(file.read_bytes()[:-100])
    again = fit_deblurrer(store, "naive", MODEL, 0, tmp_path / "b")
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    forget(tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_little_training_lowers_the_loss(store: ClipStore, tmp_path: Path) -> None:
    settings = DeblurrerTraining(DeblurrerConfig(width=8, blocks=(1, 1)),
                                 training=TrainingConfig(steps=60, batch=8, crop=16, rate=3e-3))
    model = fit_deblurrer(store, "sequence_min", settings, 0, tmp_path)
    clips = torch.stack([torch.from_numpy(store.read(i)) for i in range(12)]).movedim(-1, -3) / 255
    with torch.no_grad():
        out = model(clips[:, 0])
    trivial = (clips[:, :1] - clips[:, 1:]).square().mean()
    best = torch.minimum((out - clips[:, 1:]).square().mean((1, 2, 3, 4)),
                         (out.flip(1) - clips[:, 1:]).square().mean((1, 2, 3, 4))).mean()
    assert best < 0.97 * trivial


def test_hyperplane_encoder_that_sticks_at_its_saddle_is_refused(store: ClipStore, tmp_path: Path) -> None:
    training = TrainingConfig(steps=3, batch=4, crop=16, rate=1e-6)
    with pytest.raises(TrainingCollapsed, match="collapsed"):
        fit_encoder(store, EncoderConfig(kind="hyperplane"), training, 0, tmp_path)


def test_infinite_loss_stops_the_training(store: ClipStore, tmp_path: Path) -> None:
    wild = dataclasses.replace(MODEL, training=dataclasses.replace(SHORT, rate=1e30, clip_norm=0.0))
    with pytest.raises(TrainingCollapsed, match=r"loss is .* at step \d.*lower training\.rate"):
        fit_deblurrer(store, "naive", wild, 0, tmp_path)


def test_learning_rate_rises_then_falls_to_one_percent() -> None:
    config = TrainingConfig(steps=100, warmup=0.1, rate=1.0)
    rates = np.array([learning_rate(config, step) for step in range(100)])
    assert rates.argmax() in (9, 10)
    assert (np.diff(rates[:10]) > 0).all()
    assert (np.diff(rates[10:]) < 0).all()
    assert 0.01 <= rates[-1] < 0.012
    flat = dataclasses.replace(config, schedule="constant")
    assert learning_rate(flat, 99) == 1.0


def test_the_papers_stairs_fall_by_a_tenth_every_third_epoch() -> None:
    """100 epochs of 50 steps: the rate of an epoch depends on its number alone."""
    config = TrainingConfig(steps=5000, warmup=0.0, rate=5e-4, schedule="stairs")
    for step in (0, 149, 150, 299, 300, 2525, 4999):
        assert learning_rate(config, step) == pytest.approx(5e-4 * 0.9 ** (step // 50 // 3))


def test_devices_are_checked() -> None:
    with pytest.raises(BadParameters, match="'gpu0' is no device"):
        pick_device("gpu0")
    if not torch.cuda.is_available():
        with pytest.raises(BadParameters, match="no CUDA device"):
            pick_device("cuda")
        assert pick_device("auto").type == "cpu"


def test_a_training_without_defocus_is_known_as_before_there_was_any() -> None:
    """Checkpoints, finished benchmark rows and model files of older versions go on being those of that training."""
    plain = training_facts(TrainingConfig())
    assert plain["augmentation"] == {"flips": True, "transposes": True, "time_reversal": True}
    assert training_facts(TrainingConfig(augmentation=Augmentation(defocus_px=2.0))) == plain
    soft = training_facts(TrainingConfig(augmentation=Augmentation(defocus=0.5)))
    assert soft["augmentation"] == plain["augmentation"] | {"defocus": 0.5, "defocus_px": 4.0}
