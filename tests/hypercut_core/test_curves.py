"""Learning curves: what a training tells on its way survives a kill, a torn line and an older version's files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hypercut_core.benchmark.curves import HEAD, Curve, CurveWriter, Learned, mean_gain, read_curve, validation_gain
from hypercut_core.benchmark.learning import learning_curves
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.recurrent import RecurrentConfig
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.evaluation.protocol import repeat_blurry
from hypercut_core.training.execution import Execution
from hypercut_core.training.loop import TrainingConfig
from tests.hypercut_core.counting import moving_clips

STEPS = 8
SHORT = TrainingConfig(steps=STEPS, batch=2, crop=24, checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    path = tmp_path_factory.mktemp("store") / "clips"
    blurry, sharp = moving_clips(8, 24)
    with ClipStoreWriter(path, 7) as writer:
        for k in range(8):
            frames = torch.cat([blurry[k, None], sharp[k]]).mul(255).round().byte().movedim(1, -1)
            writer.add(frames.numpy(), clip_id=f"{k}", source=f"s{k}", split="train" if k < 5 else "val", category="",
                       motion=6.0, response="none")
    return ClipStore(path)


def fit(store: ClipStore, work: Path, follow: CurveWriter | None, **changed: object) -> nn.Module:
    shape = DeblurrerConfig(width=4, blocks=(1, 1), views=2)
    settings = DeblurrerTraining(shape, training=dataclasses.replace(SHORT, **changed))  # type: ignore[arg-type]
    return fit_deblurrer(store, "sequence_min", settings, 0, work, execution=Execution(follow=follow))


class Killed(CurveWriter):
    """Dies after a step's line, before its checkpoint."""

    at = 5

    def __call__(self, module: nn.Module, step: int, loss: float) -> None:
        super().__call__(module, step, loss)
        if step == self.at:
            raise KeyboardInterrupt


def test_a_killed_training_keeps_its_curve(store: ClipStore, tmp_path: Path) -> None:
    whole = CurveWriter(tmp_path / "whole.csv", STEPS, validation_gain(store))
    model = fit(store, tmp_path / "whole", whole)
    file = tmp_path / "killed.csv"
    with pytest.raises(KeyboardInterrupt):
        fit(store, tmp_path / "killed", Killed(file, STEPS, validation_gain(store)))
    first = read_curve(file)
    assert first.steps == [1, 2, 3, 4, 5]
    file.write_text(file.read_text() + "6,0.2")  # torn
    second = CurveWriter(file, STEPS, validation_gain(store))
    again = fit(store, tmp_path / "killed", second)
    one, two = read_curve(tmp_path / "whole.csv"), read_curve(file)
    assert one.steps == two.steps == list(range(1, STEPS + 1))
    assert one.loss == two.loss
    assert [(step, db) for step, _, db in one.gain] == [(step, db) for step, _, db in two.gain]
    assert [step for step, *_ in one.gain] == [1, 2, 4, 8]
    assert two.cpu_seconds[:4] == first.cpu_seconds[:4]  # time goes on from the checkpoint, not from zero
    assert (np.diff(two.cpu_seconds) >= 0).all()
    assert second.cpu_seconds() >= two.cpu_seconds[-1]
    # a third process that finds everything done knows what it took
    assert CurveWriter(file, STEPS, None).cpu_seconds() == two.cpu_seconds[-1]
    # and following it changed nothing
    plain = fit(store, tmp_path / "plain", None)
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
        assert torch.equal(weight, again.state_dict()[name])


def test_another_training_starts_its_curve_again(store: ClipStore, tmp_path: Path) -> None:
    file = tmp_path / "curve.csv"
    fit(store, tmp_path / "one", CurveWriter(file, STEPS, None))
    fit(store, tmp_path / "two", CurveWriter(file, 3, None), steps=3)
    assert read_curve(file).steps == [1, 2, 3]
    assert read_curve(file).gain == []


def test_the_recurrent_model_itself_is_shown_and_not_its_lesson(store: ClipStore, tmp_path: Path) -> None:
    writer = CurveWriter(tmp_path / "curve.csv", 4, validation_gain(store))
    settings = DeblurrerTraining(RecurrentConfig(width=8, protocol="oracle"),
                                 training=dataclasses.replace(SHORT, steps=4))
    fit_deblurrer(store, "naive", settings, 0, tmp_path / "work", execution=Execution(follow=writer))
    curve = read_curve(tmp_path / "curve.csv")
    assert [step for step, *_ in curve.gain] == [1, 2, 4]
    assert curve.gain[0][2] > 0  # it was given the true middle frame


def test_repeating_the_blurry_image_gains_nothing(store: ClipStore) -> None:
    class Repeat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, blurry: torch.Tensor) -> torch.Tensor:
            return repeat_blurry(7)(blurry)

    gain = validation_gain(store)
    assert gain is not None
    assert gain(Repeat()) == 0
    assert validation_gain(store, "test") is None


@given(cut=st.integers(0, 200))
def test_a_file_cut_anywhere_gives_the_lines_before(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    lines = [HEAD, *(f"{k},{1 / k:.6g},{0.1 * k:.3f},{'' if k % 2 else -k}" for k in range(1, 9)), ""]
    text = "\n".join(lines)[:cut]
    file = tmp_path_factory.mktemp("cut") / "curve.csv"
    file.write_text(text)
    whole = text.count("\n") - 1
    assert read_curve(file).steps == list(range(1, max(0, whole) + 1))
    assert all(len(points) == 2 for points in read_curve(file).mean_loss(3))


def test_no_curve_is_no_error_and_no_section(tmp_path: Path) -> None:
    assert read_curve(tmp_path / "none.csv") == Curve()
    assert Curve().mean_loss() == []
    assert mean_gain([]) == []
    assert learning_curves([]) == ""


def test_the_page_draws_the_curves_and_keeps_protocols_apart() -> None:
    curve = Curve([1, 2], [0.5, 0.25], [1.0, 2.0], [(1, 1.0, -0.5), (2, 2.0, 1.5)])
    learned = [Learned(f"{model}/naive", model, seed, f"rows/{model}-naive/seed-{seed}/curve.csv", curve)
               for model in ("even_odd", "recurrent_oracle") for seed in (0, 1)]
    html = learning_curves(learned)
    blind, oracle = html.split("<h3>oracle-middle")
    assert "recurrent_oracle" not in blind
    assert "even_odd/naive" in blind
    assert "1.50" in blind
    assert "−0.50" in oracle
    assert html.count("<svg class=\"chart\"") == 4  # two of gains, two of losses
    told = learned[0].document()
    assert told["gain"] == [{"step": 1, "cpu_seconds": 1.0, "db": -0.5}, {"step": 2, "cpu_seconds": 2.0, "db": 1.5}]
    assert told["loss"] == [[1.0, 0.5], [2.0, 0.25]]
    assert told["file"] == "rows/even_odd-naive/seed-0/curve.csv"
    shorter = Curve([1], [0.5], [1.0], [(1, 3.0, 0.5)])
    assert mean_gain([curve, shorter]) == [(2.5, 1.0)]
