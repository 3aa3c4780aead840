"""How a training is spread: what is refused, and that none of it is part of the result's key."""

from __future__ import annotations

import dataclasses
import json

import pytest
import yaml
from source_imports import ROOT

from components.params import Parameters, flat
from components.train_deblurrer.scale import ScaleConfig, check_scale
from hypercut_core.errors import BadParameters
from hypercut_core.training.loop import TrainingConfig


def test_the_key_of_the_result_does_not_contain_it() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["train-deblurrer"]
    assert not [name for name in stage["params"] if "deblurrer.scale".startswith(name)]


def test_kubeflow_hands_the_step_nothing_of_it() -> None:
    from pipelines.training_pipeline import arguments

    wide = Parameters()
    wide = dataclasses.replace(wide, deblurrer=dataclasses.replace(
        wide.deblurrer, scale=ScaleConfig("ray", workers=3, keep=5)))
    assert arguments(wide) == arguments(Parameters())
    assert "lost_workers" not in json.dumps(arguments(wide))


def test_the_default_is_this_process() -> None:
    assert {name: value for name, value in flat(Parameters()).items() if name.startswith("deblurrer.scale.")} == {
        f"deblurrer.scale.{name}": value for name, value in dataclasses.asdict(ScaleConfig()).items()}
    check_scale(ScaleConfig(), TrainingConfig(batch=1))


@pytest.mark.parametrize(("change", "key"), [
    ({"workers": 2}, "workers"),
    ({"launcher": "ray", "workers": 0}, "workers"),
    ({"launcher": "ray", "workers": 9}, "workers"),
    ({"launcher": "ray", "gpus_per_worker": 2}, "gpus_per_worker"),
    ({"launcher": "ray", "cpus_per_worker": 0}, "cpus_per_worker"),
    ({"keep": 0}, "keep"),
    ({"hung_seconds": 0.0}, "hung_seconds"),
])
def test_what_cannot_run_is_refused_by_name(change: dict[str, object], key: str) -> None:
    with pytest.raises(BadParameters, match=rf"^deblurrer\.scale\.{key}: .*To mend it"):
        check_scale(dataclasses.replace(ScaleConfig(), **change), TrainingConfig(batch=8))  # type: ignore[arg-type]
