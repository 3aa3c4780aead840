"""dvc.yaml against the code: the steps, their parameters, and that the declared deps cover the imports."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from source_imports import ROOT, closure

from components.params import Parameters
from components.schema import hints_of, load_file
from pipelines.local import STEPS
from pipelines.workspace import Workspace

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, dict[str, Any]] = PIPELINE["stages"]
WIRING = ("components/params.py", "components/schema.py")


def outputs(stage: dict[str, Any]) -> list[str]:
    entries = [*stage.get("outs", []), *stage.get("metrics", [])]
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def covered(path: Path, deps: list[str]) -> bool:
    return any(path == Path(dep) or Path(dep) in path.parents for dep in deps)


def does_nothing(path: Path) -> bool:
    """Empty, or words only: a package's docstring and version."""
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    return all(isinstance(getattr(node, "value", None), ast.Constant) for node in body)


def test_the_ten_steps_have_one_name_everywhere() -> None:
    assert list(STAGES) == list(STEPS)
    assert all(stage["cmd"].split()[:2] == ["hypercut", name] for name, stage in STAGES.items())


@pytest.mark.parametrize("name", list(STAGES))
def test_deps_cover_everything_that_the_step_imports(name: str) -> None:
    step = Path("components") / name.replace("-", "_") / "step.py"
    code = {path for path in closure(step) if not does_nothing(path)}
    missing = sorted(str(path) for path in code if not covered(path, STAGES[name]["deps"]))
    assert missing == []


@pytest.mark.parametrize("name", list(STAGES))
def test_deps_exist_or_are_made_by_an_earlier_step(name: str) -> None:
    made = [output.replace("${item.objective}", "x") for earlier in list(STAGES)[:list(STAGES).index(name)]
            for output in outputs(STAGES[earlier])]
    for dep in STAGES[name]["deps"]:
        earlier = any(Path(dep) == Path(output) or Path(dep) in Path(output).parents for output in made)
        assert earlier or (ROOT / dep).exists(), f"{name} depends on {dep}, which nobody makes"


def test_the_wiring_is_no_dependency() -> None:
    for stage in STAGES.values():
        assert not [dep for dep in stage["deps"] if dep.startswith("pipelines") or dep in WIRING]


@pytest.mark.parametrize("name", list(STAGES))
def test_parameters_exist_and_each_group_has_its_stage(name: str) -> None:
    for dotted in STAGES[name]["params"]:
        kind: Any = Parameters
        for part in dotted.split("."):
            assert part in hints_of(kind), f"{name} depends on the parameter {dotted}, which does not exist"
            kind = hints_of(kind)[part]


def test_every_parameter_group_belongs_to_a_stage() -> None:
    used = {dotted.split(".")[0] for stage in STAGES.values() for dotted in stage["params"]}
    assert used | {"objectives", "benchmark"} == set(hints_of(Parameters))  # `hypercut benchmark` is no stage


def test_outputs_lie_where_the_workspace_says() -> None:
    ws = Workspace(Path())
    made = {output for stage in STAGES.values() for output in outputs(stage)}
    expected = {ws.manifest, ws.clips, ws.orders, ws.encoder, ws.report, ws.trajectories,
                ws.deblurrer("${item.objective}"), ws.verdict("validate-clips"), ws.metrics("evaluate"),
                ws.metrics("evaluate-trajectories"), ws.metrics("register-model"),
                ws.metrics("train-deblurrer-${item.objective}")}
    assert {str(path) for path in expected} <= made
    assert not [path for path in made if Path(path).parts[0] == "work"]


def test_a_rejected_verdict_stops_what_follows() -> None:
    """The verdicts are dependencies: DVC runs nothing behind a failed gate."""
    assert "reports/validate-footage.json" in STAGES["synthesize-blur"]["deps"]
    assert "reports/validate-clips.json" in STAGES["train-encoder"]["deps"]


def test_metrics_are_small_files_for_git() -> None:
    for stage in STAGES.values():
        for metric in stage.get("metrics", []):
            assert next(iter(metric.values())) == {"cache": False}


def test_plots_show_every_objective_that_is_shipped() -> None:
    shown = next(iter(PIPELINE["plots"][0]["recovered"]["y"].values()))
    assert shown == ["repeat_blurry", *load_file(ROOT / "params.yaml")["objectives"]]


def test_analytics_are_off() -> None:
    assert "analytics = false" in (ROOT / ".dvc/config").read_text(encoding="utf-8")


def test_caches_of_the_interpreter_are_no_change() -> None:
    ignored = (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()
    assert {"__pycache__", "*.pyc", ".gitignore", ".*.partial-*"} <= set(ignored)
