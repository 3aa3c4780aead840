"""The Kubeflow pipeline against dvc.yaml: the same steps, the same edges, the same parameters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from compiled import IMAGE, TRACKER, compiled, container, kubernetes, task_specs
from source_imports import ROOT

from components.params import Parameters, load
from components.schema import build, hints_of
from components.synthesize_blur.step import SynthesisConfig
from components.train_encoder.step import TrainEncoderConfig
from hypercut_core.errors import BadPipeline
from pipelines.compile import compile_pipeline
from pipelines.local import STEPS
from pipelines.package_graph import Task, tasks
from pipelines.training_pipeline import arguments, training_pipeline

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PLUMBING = {"store", "tracking_folder", "registration", "deblurrer_scale"}  # where and how far, not what
GRAPH = {task.name: task for task in tasks(compiled(tracker_image=TRACKER)[0])}


def dvc_edges() -> dict[str, set[str]]:
    """Stage -> stages whose outputs it depends on."""
    made = {Path(output if isinstance(output, str) else next(iter(output))): name for name, stage in STAGES.items()
            for output in [*stage.get("outs", []), *stage.get("metrics", [])]}
    return {name: {maker for output, maker in made.items() for dep in map(Path, stage["deps"])
                   if dep == output or dep in output.parents} for name, stage in STAGES.items()}


def reachable(edges: dict[str, set[str]], name: str) -> set[str]:
    return edges[name].union(*(reachable(edges, other) for other in edges[name]))


def reduced(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the edges that follow from others: the order in which everything must run."""
    return {name: {one for one in before if not any(one in reachable(edges, other) for other in before - {one})}
            for name, before in edges.items()}


def steps() -> list[Task]:
    return [task for task in GRAPH.values() if not task.closing]


def test_the_same_ten_steps() -> None:
    assert {task.name for task in steps()} == set(STAGES) == set(STEPS)
    assert [task.name for task in GRAPH.values() if task.closing] == ["close-run"]


def test_without_an_image_of_the_tracker_there_is_no_trace_of_its_step() -> None:
    spec, platform = compiled()
    assert {*task_specs(spec), "evaluate-trajectories"} == set(GRAPH)
    assert "tracker" not in json.dumps(spec["deploymentSpec"]) + json.dumps(platform)
    left = "pipelinechannel--trajectories"
    assert left not in json.dumps(spec["components"])  # the parameter is there, and nothing reads it


def test_the_image_of_the_tracker_is_that_of_its_step_alone_and_all_else_is_the_same() -> None:
    plain, (spec, platform) = compiled(), compiled(tracker_image=TRACKER)
    assert container(spec, "evaluate-trajectories")["image"] == TRACKER
    for name in task_specs(plain[0]):
        assert container(spec, name) == container(plain[0], name)
        assert kubernetes(spec, platform, name) == kubernetes(*plain, name)


def test_an_image_of_the_tracker_that_may_move_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPipeline, match="may mean another one tomorrow"):
        compile_pipeline(IMAGE, tmp_path / "out.yaml", tracker_image="hypercut:latest")
    assert list(tmp_path.iterdir()) == []


def test_the_same_order() -> None:
    edges = {task.name: task.upstream for task in steps()}
    assert reduced(edges) == reduced(dvc_edges())


def test_every_edge_is_one_of_dvc() -> None:
    edges = dvc_edges()
    assert {task.name: task.upstream - edges[task.name] for task in steps() if task.upstream - edges[task.name]} == {}


def test_every_file_that_dvc_hands_on_is_handed_on() -> None:
    """All edges but those that dvc.yaml only has because it depends on the whole folder models/."""
    folder = {("register-model", "train-encoder"), ("register-model", "train-deblurrer"),
              ("evaluate-trajectories", "train-encoder")}
    gates = {("synthesize-blur", "validate-footage"), ("train-encoder", "validate-clips")}
    missing = {(name, other) for name, before in dvc_edges().items() for other in before - GRAPH[name].upstream}
    assert missing <= folder
    for name, gate in gates:
        assert gate in GRAPH[name].waits


@pytest.mark.parametrize("name", list(STAGES))
def test_the_same_parameters(name: str) -> None:
    task = GRAPH[name]
    whole = ("blur", "encoder")  # groups that travel as one, less what is no part of any key
    listed = {dotted.split(".")[0] if dotted.split(".")[0] in whole else dotted.replace(".", "_")
              for dotted in STAGES[name]["params"]}
    matrix = {"objectives"} if "matrix" in STAGES[name] else set()
    assert task.parameters - PLUMBING == listed | matrix
    assert task.loop == ("objectives" if matrix else "")


@pytest.mark.parametrize(("step", "group", "config", "apart"), [
    ("synthesize-blur", "blur", SynthesisConfig, "scale"),
    ("train-encoder", "encoder", TrainEncoderConfig, "checkpoints")])
def test_how_work_is_spread_and_where_it_rests_is_no_part_of_any_key(step: str, group: str, config: type,
                                                                     apart: str) -> None:
    listed = {dotted.removeprefix(f"{group}.") for dotted in STAGES[step]["params"] if dotted.startswith(f"{group}.")}
    assert listed == set(json.loads(arguments(Parameters())[group])) == set(hints_of(config)) - {apart}


def test_every_parameter_of_the_pipeline_is_used() -> None:
    given = set(arguments(Parameters()))
    assert given == set(compiled()[0]["root"]["inputDefinitions"]["parameters"])
    used = set().union(*(task.parameters for task in GRAPH.values())) | {GRAPH["register-model"].condition}
    assert used == given


def test_arguments_say_everything_that_the_parameters_say() -> None:
    """Nothing is lost on the way: the groups of a recipe with unusual values, put together again."""
    odd = load(ROOT / "params.yaml", "paper", ["seed=7", "frames=5", "evaluate.films=3", "register.name=other",
                                               "deblurrer.training.rate=1.25e-05", "deblurrer.loss.alpha=0.125",
                                               'deblurrer.start=s3://a/"b"',
                                               "deblurrer.kind=guided", "deblurrer.peers.guided.rate=2e-4",
                                               "deblurrer.scale.launcher=rayjob", "deblurrer.scale.workers=4"])
    given = json.loads(json.dumps(arguments(odd)))
    groups = {name: json.loads(value) for name, value in given.items()
              if isinstance(value, str) and value.startswith("{")}
    deblurrer = {name: groups.pop(f"deblurrer_{name}") for name in ("model", "peers", "loss", "training", "scale")}
    deblurrer |= {name: given[f"deblurrer_{name}"] for name in ("objective", "kind")}
    deblurrer["start"] = json.loads(given["deblurrer_start"])
    values = {**groups, "deblurrer": deblurrer,
              **{name: given[name] for name in ("seed", "frames", "objectives")}}
    assert build(Parameters, values, "test") == odd
    assert given["register_name"] == "other"


def test_a_revision_reaches_the_footage() -> None:
    plain = Parameters(footage=replace(Parameters().footage, source="data/videos"))
    given = arguments(plain, data_rev="v1.2", store="/somewhere")
    assert json.loads(given["footage"])["revision"] == "v1.2"
    assert given["store"] == "/somewhere"
    assert {name for name, value in given.items() if value != arguments(plain)[name]} == {"footage", "store"}


def test_no_cached_task_knows_the_run() -> None:
    """A run's id among its inputs would keep a task out of the cache for ever."""
    told = {name for name, task in task_specs(compiled()[0]).items() if "{{$.pipeline_job" in json.dumps(task)}
    assert told == {"evaluate", "register-model", "close-run"}
    assert not [name for name in told if GRAPH[name].cached]


def test_the_closing_task_runs_whatever_happened() -> None:
    spec = compiled()[0]
    closing, group = spec["root"]["dag"]["tasks"]["close-run"], spec["root"]["dag"]["tasks"]["exit-handler-1"]
    assert closing["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert closing["inputs"]["parameters"]["status"] == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}
    inside = spec["components"][group["componentRef"]["name"]]["dag"]["tasks"]
    assert {"collect-footage", "evaluate"} <= set(inside)


def test_objectives_are_trained_side_by_side() -> None:
    spec = compiled()[0]
    inside = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    (loop,) = [task for task in inside.values() if "parameterIterator" in task]
    assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--objectives"}
    assert "iteratorPolicy" not in loop  # as many at once as there are
    assert list(spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"]) == ["train-deblurrer"]


def test_registration_is_conditional() -> None:
    inside = compiled()[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    conditions = {name: task["triggerPolicy"]["condition"] for name, task in inside.items()
                  if "condition" in task.get("triggerPolicy", {})}
    assert list(conditions.values()) == ["inputs.parameter_values['pipelinechannel--registration'] == true"]
    assert GRAPH["register-model"].condition == "registration"


def test_the_pipeline_is_a_pipeline_of_kfp() -> None:
    from pipelines.task_policy import Build

    assert training_pipeline(Build("hypercut@sha256:" + "0" * 64)).pipeline_spec.pipeline_info.name \
        == "hypercut-training"
