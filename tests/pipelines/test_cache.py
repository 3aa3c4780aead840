"""Caching: what a second run executes, by a model of Kubeflow's backend (cache_model.py) over the compiled YAML."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from cache_model import Backend, Run
from compiled import IMAGE, compiled

from components.params import Parameters, load
from components.schema import leaves
from pipelines.training_pipeline import arguments

ALWAYS = {"collect-footage", "evaluate", "register-model", "close-run"}
DEBLURRERS = {"train-deblurrer"}
AFTER_ENCODER = {"assign-order"} | DEBLURRERS
AFTER_CLIPS = {"validate-clips", "train-encoder"} | AFTER_ENCODER
EVERYTHING = {"validate-footage", "synthesize-blur"} | AFTER_CLIPS | ALWAYS

# parameter -> another value, and what depends on it; with trainings from the cache, so that all of it shows
CHANGES: dict[str, tuple[Any, set[str]]] = {
    "seed": (1, {"synthesize-blur"} | AFTER_CLIPS),
    "frames": (5, {"synthesize-blur"} | AFTER_CLIPS),
    "footage.licence": ("CC0", {"validate-footage", "synthesize-blur"} | AFTER_CLIPS),
    "validate_footage.sources_min": (3, {"validate-footage"}),
    "blur.photos.size": (40, {"synthesize-blur"} | AFTER_CLIPS),
    "blur.exposure.response": ("none", {"synthesize-blur"} | AFTER_CLIPS),
    "blur.scale.workers": (2, set()),
    "validate_clips.side_min": (33, {"validate-clips"}),
    "encoder.model.width": (12, {"train-encoder"} | AFTER_ENCODER),
    "encoder.training.rate": (0.003, {"train-encoder"} | AFTER_ENCODER),
    "encoder.checkpoints": ("/elsewhere", set()),
    "order.threads": (2, AFTER_ENCODER),
    "deblurrer.kind": ("cascade", DEBLURRERS),
    "deblurrer.start": ("s3://a/b", DEBLURRERS),
    "deblurrer.model.width": (40, DEBLURRERS),
    "deblurrer.peers.cascade.rate": (0.001, DEBLURRERS),
    "deblurrer.loss.alpha": (0.3, DEBLURRERS),
    "deblurrer.training.steps": (9, DEBLURRERS),
    "deblurrer.objective": ("order_invariant", set()),
    "evaluate.films": (3, set()),
    "trajectories.films": (3, set()),
    "register.min_gain": (0.5, set()),
    "register.name": ("other", set()),
}
FOOTAGE = ["as it lay there"]  # what collect-footage finds: Kubeflow sees none of it


def finds(task: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The hash of the manifest follows from the footage and its parameters."""
    return {"Output": hashlib.sha256(f"{given['footage']} {FOOTAGE[-1]}".encode()).hexdigest()} \
        if task == "collect-footage" else {}


def runs(*settings: str, first: str = IMAGE, second: str = IMAGE, cache_trainings: bool = True) -> tuple[Run, Run]:
    """A run with the defaults and then one with some settings changed, on one server."""
    backend = Backend(finds)
    made = [backend.run(compiled(image, cache_trainings=cache_trainings), arguments(load(None, None, changed)))
            for image, changed in ((first, ()), (second, settings))]
    return made[0], made[1]


def test_the_first_run_executes_everything() -> None:
    first, _ = runs()
    assert first.cached == []
    assert set(first.executed) == EVERYTHING
    assert first.executed.count("train-deblurrer") == len(Parameters().objectives)


def test_a_second_identical_run_executes_nothing_that_may_be_cached() -> None:
    _, second = runs()
    assert set(second.executed) == ALWAYS
    assert set(second.cached) == EVERYTHING - ALWAYS


def test_no_training_comes_from_the_cache_unless_asked_for() -> None:
    _, second = runs(cache_trainings=False)
    assert set(second.cached) == {"validate-footage", "synthesize-blur", "validate-clips"}
    assert {"train-encoder", "train-deblurrer", "register-model"} <= set(second.executed)


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_changed_parameter_runs_again_just_what_depends_on_it(name: str) -> None:
    value, dependents = CHANGES[name]
    _, second = runs(f"{name}={value}")
    assert set(second.executed) == dependents | ALWAYS
    assert set(second.cached) == EVERYTHING - dependents - ALWAYS


def test_a_new_objective_is_trained_and_the_others_are_not() -> None:
    backend, package = Backend(finds), compiled(cache_trainings=True)
    backend.run(package, arguments(load(None, None, ["objectives=[sequence_min, hypercut_targets]"])))
    second = backend.run(package, arguments(Parameters()))
    assert second.executed.count("train-deblurrer") == 1
    assert second.cached.count("train-deblurrer") == 2


def test_every_group_of_parameters_is_changed_above() -> None:
    groups = {name.split(".")[0] for name, _ in leaves(Parameters)} - {"objectives", "benchmark"}  # of no step
    assert {name.split(".")[0] for name in CHANGES} == groups


def test_other_footage_under_the_same_name_runs_everything_again() -> None:
    backend, package = Backend(finds), compiled(cache_trainings=True)
    backend.run(package, arguments(Parameters()))
    FOOTAGE.append("one video more")
    try:
        second = backend.run(package, arguments(Parameters()))
    finally:
        FOOTAGE.pop()
    assert second.cached == []


def test_another_image_runs_everything_again() -> None:
    _, second = runs(second="registry.example/hypercut@sha256:" + "f" * 64)
    assert second.cached == []


def test_another_store_runs_everything_again() -> None:
    backend, package = Backend(finds), compiled(cache_trainings=True)
    backend.run(package, arguments(Parameters()))
    assert backend.run(package, arguments(Parameters(), store="/mnt/other")).cached == []


def test_a_run_without_registration_registers_nothing() -> None:
    run = Backend(finds).run(compiled(), arguments(Parameters(), registration=False))
    assert set(run.executed) == EVERYTHING - {"register-model"}
