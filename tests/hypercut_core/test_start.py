"""Training on from a model that exists: its weights come first, and they are part of what the training is."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from hypercut_core.clips.store import ClipStore
from hypercut_core.deblurring.cascade import CascadeConfig
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.deblurring.guided import GuidedConfig
from hypercut_core.deblurring.kinds_training import lesson_of
from hypercut_core.deblurring.models import Config, build_deblurrer, load_deblurrer, save_deblurrer
from hypercut_core.deblurring.recurrent import RecurrentConfig
from hypercut_core.deblurring.start import Start, read_start
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.errors import BadCheckpoint, BadParameters
from hypercut_core.files import file_sha256
from hypercut_core.training import loop
from hypercut_core.training.execution import Execution
from hypercut_core.training.loop import TrainingConfig
from tests.hypercut_core.counting import stored_clips

SHORT = TrainingConfig(steps=4, batch=2, crop=24, rate=1e-3, checkpoint_seconds=0.0)
CONFIGS: dict[str, Config] = {
    "even_odd": DeblurrerConfig(width=4, blocks=(1, 1), views=2),
    "cascade": CascadeConfig(width=4, side_width=4, colour=4),
    "recurrent": RecurrentConfig(width=8, middle_width=4),
    "guided": GuidedConfig(width=4, blocks=1, refine=1, predictor_width=4),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return stored_clips(tmp_path_factory.mktemp("store") / "clips", 4, 24)


def model_file(path: Path, config: Config, seed: int = 7, frames: int = 7) -> Path:
    torch.manual_seed(seed)
    save_deblurrer(path, lesson_of(config, frames, "naive", 4, (0.0, 0.0, 1.0)).model, {})
    return path


def fit(store: ClipStore, config: Config, work: Path, start: Start | None, execution: Execution | None = None,
        **changed: object) -> nn.Module:
    settings = DeblurrerTraining(config, training=dataclasses.replace(SHORT, **changed))
    return fit_deblurrer(store, "naive", settings, 0, work, start=start, execution=execution)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_first_weights_are_those_of_the_start(store: ClipStore, tmp_path: Path, kind: str) -> None:
    """With a rate of next to nothing they are also the last ones; without a start they are others."""
    start = read_start(model_file(tmp_path / "start", CONFIGS[kind]))
    model = fit(store, CONFIGS[kind], tmp_path / "a", start, rate=1e-20, weight_decay=0.0)
    own = model.state_dict()
    for name, weight in start.model.state_dict().items():
        assert torch.allclose(own[name], weight, rtol=0, atol=1e-12), name
    fresh = fit(store, CONFIGS[kind], tmp_path / "b", None, rate=1e-20, weight_decay=0.0).state_dict()
    assert any(not torch.allclose(fresh[name], weight) for name, weight in own.items())


@pytest.mark.parametrize("kind", CONFIGS)
def test_training_on_moves_every_weight_that_is_kept(store: ClipStore, tmp_path: Path, kind: str) -> None:
    """The start itself stays as it is. The recurrent model is taught all together from the first step."""
    start = read_start(model_file(tmp_path / "start", CONFIGS[kind]))
    before = {name: weight.clone() for name, weight in start.model.state_dict().items()}
    moved = fit(store, CONFIGS[kind], tmp_path / "work", start, weight_decay=0.0)
    still = [name for name, weight in moved.named_parameters() if torch.equal(weight, before[name])]
    assert [name for name in still if not name.endswith("conv1.bias")] == []  # which a normalisation takes off again
    for name, weight in start.model.state_dict().items():
        assert torch.equal(weight, before[name])


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(store: ClipStore, tmp_path: Path, kind: str,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    start = read_start(model_file(tmp_path / "start", CONFIGS[kind]))
    real, seen, stopped = loop.learning_rate, list[int](), list[int]()

    def stop(config: TrainingConfig, step: int) -> float:
        seen.append(step)
        if step == 2 and not stopped:
            stopped.append(step)
            raise KeyboardInterrupt
        return real(config, step)

    save_deblurrer(tmp_path / "whole", fit(store, CONFIGS[kind], tmp_path / "a", start), {})
    monkeypatch.setattr(loop, "learning_rate", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(store, CONFIGS[kind], tmp_path / "b", start)
    save_deblurrer(tmp_path / "resumed", fit(store, CONFIGS[kind], tmp_path / "b", start), {})
    assert [step for step, _ in itertools.groupby(seen)] == [0, 1, 2, 3]  # nothing twice, but what was stopped
    assert file_sha256(tmp_path / "whole") == file_sha256(tmp_path / "resumed")


def test_checkpoints_of_another_start_are_left_alone(store: ClipStore, tmp_path: Path) -> None:
    """Neither another start's nor those from fresh weights are gone on with."""
    config = CONFIGS["even_odd"]
    starts = [None, *(read_start(model_file(tmp_path / f"{seed}", config, seed)) for seed in (1, 2))]
    made, said = [], list[str]()
    for number, start in enumerate(starts):
        save_deblurrer(tmp_path / "alone", fit(store, config, tmp_path / f"work {number}", start), {})
        shared = fit(store, config, tmp_path / "shared", start, Execution(say=said.append))
        save_deblurrer(tmp_path / "shared model", shared, {})
        assert file_sha256(tmp_path / "alone") == file_sha256(tmp_path / "shared model")
        made.append(file_sha256(tmp_path / "alone"))
    assert len(set(made)) == 3
    assert [one.partition(" ")[2].partition(" in ")[0] for one in said] == ["checkpoints"] * 2


@pytest.mark.parametrize(("theirs", "frames", "what", "remedy"), [
    (CONFIGS["cascade"], 7, "of the kind cascade, and the kind even_odd", "deblurrer.kind to cascade"),
    (CONFIGS["even_odd"], 5, "gives 5 frames, the clips have 7", "clips of 5 frames"),
    (DeblurrerConfig(width=8, blocks=(1, 2), views=2), 7, r"width is 8 and not 4, blocks is \[1, 2\] and not \[1, 1\]",
     r"set deblurrer.model.width=8, deblurrer.model.blocks=\[1, 2\]"),
    (DeblurrerConfig(width=4, blocks=(1, 1), axes=2), 7, "axes is 2 and not 1", "this shape and objective"),
])
def test_a_model_that_does_not_fit_is_refused_with_what_differs(store: ClipStore, tmp_path: Path, theirs: Config,
                                                                frames: int, what: str, remedy: str) -> None:
    torch.manual_seed(0)
    save_deblurrer(tmp_path / "start", build_deblurrer(theirs, frames), {})
    start = read_start(tmp_path / "start", "models:/mine@champion")
    with pytest.raises(BadParameters, match=what) as refused:
        fit(store, CONFIGS["even_odd"], tmp_path / "work", start)
    assert refused.match(f"deblurrer.start: models:/mine@champion.*{remedy}")
    assert not (tmp_path / "work").exists()


def test_settings_that_no_weight_depends_on_may_change(store: ClipStore, tmp_path: Path) -> None:
    start = read_start(model_file(tmp_path / "start", CONFIGS["even_odd"]))
    other = DeblurrerConfig(width=4, blocks=(1, 1), views=8, projection=0.0, response="none")
    assert fit(store, other, tmp_path / "work", start).config == other


def test_files_that_hold_no_deblurrer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="no such model file"):
        read_start(tmp_path / "missing")
    (tmp_path / "torn").write_bytes(model_file(tmp_path / "whole", CONFIGS["even_odd"]).read_bytes()[:-9])
    with pytest.raises(BadCheckpoint, match="damaged"):
        read_start(tmp_path / "torn")
    assert read_start(tmp_path / "whole").name == str(tmp_path / "whole")
    assert load_deblurrer(tmp_path / "whole").config == CONFIGS["even_odd"]
