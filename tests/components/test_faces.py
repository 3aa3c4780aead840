"""The Kubeflow faces of the steps: small, typed, compilable, and nothing but a call of the step."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest
from source_imports import ROOT

FACES = sorted(path.parent.name for path in (ROOT / "components").glob("*/component.py"))
STEPS = sorted(path.parent.name for path in (ROOT / "components").glob("*/step.py"))
IN, OUT = "inputDefinitions", "outputDefinitions"

# step -> type of each artifact that it takes and makes
ARTIFACTS = {
    "collect_footage": ({}, {"manifest": "Dataset"}),
    "validate_footage": ({}, {"verdict": "Artifact", "report": "HTML"}),
    "synthesize_blur": ({}, {"clips": "Dataset", "metrics": "Metrics"}),
    "validate_clips": ({"clips": "Dataset"}, {"verdict": "Artifact", "report": "HTML"}),
    "train_encoder": ({"clips": "Dataset"}, {"model": "Model", "metrics": "Metrics"}),
    "assign_order": ({"clips": "Dataset", "encoder": "Model"}, {"orders": "Dataset", "metrics": "Metrics"}),
    "train_deblurrer": ({"clips": "Dataset", "orders": "Dataset", "encoder": "Model"},
                        {"model": "Model", "metrics": "Metrics"}),
    "evaluate": ({"clips": "Dataset", "orders": "Dataset", "encoder_metrics": "Metrics", "models": "Model"},
                 {"model": "Model", "metrics": "Metrics", "report": "HTML", "per_frame": "Dataset",
                  "per_clip": "Dataset"}),
    "evaluate_trajectories": ({"clips": "Dataset", "orders": "Dataset", "models": "Model"},
                              {"metrics": "Metrics", "report": "HTML", "per_clip": "Dataset"}),
    "register_model": ({"evaluation": "Metrics", "model": "Model", "report": "HTML"},
                       {"metrics": "Metrics", "card": "Markdown", "registration": "Artifact"}),
    "close_run": ({}, {"summary": "Markdown"}),
}


def compiled(name: str, folder: Path) -> dict[str, Any]:
    """A component compiled alone."""
    import yaml
    from kfp.compiler import Compiler

    component = getattr(importlib.import_module(f"components.{name}.component"), name)
    Compiler().compile(component, str(folder / "component.yaml"))
    return dict(yaml.safe_load((folder / "component.yaml").read_text(encoding="utf-8")))


def types(spec: dict[str, Any], name: str, way: str) -> dict[str, str]:
    component = spec["components"][f"comp-{name.replace('_', '-')}"]
    return {key: value["artifactType"]["schemaTitle"].removeprefix("system.")
            for key, value in component.get(way, {}).get("artifacts", {}).items()}


def test_every_step_has_a_face_and_the_exit_handler_too() -> None:
    assert set(FACES) == {*STEPS, "close_run"} == set(ARTIFACTS)


@pytest.mark.parametrize("name", FACES)
def test_a_face_is_at_most_25_lines(name: str) -> None:
    assert len((ROOT / f"components/{name}/component.py").read_text(encoding="utf-8").splitlines()) <= 25


@pytest.mark.parametrize("name", FACES)
def test_a_face_compiles_alone_with_its_types(name: str, tmp_path: Path) -> None:
    spec = compiled(name, tmp_path)
    assert (types(spec, name, IN), types(spec, name, OUT)) == ARTIFACTS[name]


@pytest.mark.parametrize("name", FACES)
def test_a_face_installs_nothing_when_it_runs(name: str, tmp_path: Path) -> None:
    (executor,) = compiled(name, tmp_path)["deploymentSpec"]["executors"].values()
    words = " ".join([*executor["container"]["command"], *executor["container"]["args"]])
    assert "pip" not in words.split()
    assert "kfp.dsl.executor_main" in words


@pytest.mark.parametrize("name", FACES)
def test_a_face_imports_our_code_only_inside(name: str) -> None:
    """KFP takes the function's text alone into the container: nothing above it exists there."""
    tree = ast.parse((ROOT / f"components/{name}/component.py").read_text(encoding="utf-8"))
    above = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(line.startswith(("from kfp ", "from kfp.dsl ", "import kfp")) for line in above)
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    inside = [ast.unparse(node) for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
    assert any(line.startswith("from components.") for line in inside)


def test_models_come_as_a_list() -> None:
    from components.evaluate.component import evaluate
    from components.evaluate_trajectories.component import evaluate_trajectories

    for face in (evaluate, evaluate_trajectories):
        assert face.component_spec.inputs["models"].is_artifact_list
