"""The picture of the pipeline: it is of the graph as it is, and shows all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from compiled import compiled
from source_imports import ROOT

from hypercut_core.errors import BadPipeline
from pipelines.package_graph import tasks
from pipelines.pipeline_picture import PLUMBING, draw, picture

SVG = "{http://www.w3.org/2000/svg}"


def words(text: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(text).iter(f"{SVG}text")]


def test_the_committed_picture_is_the_one_that_the_command_makes(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "pipelines.pipeline_picture", "-o", str(tmp_path / "made.svg")],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made.svg").read_text() == (ROOT / "docs/pipeline.svg").read_text(), \
        "the pipeline has changed: run 'python -m pipelines.pipeline_picture'"


def test_every_task_with_its_parameters_is_in_it() -> None:
    spec, platform = compiled()
    shown = words(picture(spec, platform))
    for task in tasks(spec):
        assert shown.count(task.name) == 1
        for parameter in task.parameters - PLUMBING - {task.loop}:
            assert any(parameter in line.split(", ") for line in shown)
    assert any("1 GPU" in line for line in shown)
    assert "once for each of the objectives, side by side" in shown
    assert "if registration" in shown


def test_every_flow_is_in_it() -> None:
    spec, platform = compiled()
    shown = words(picture(spec, platform))
    for task in tasks(spec):
        for flow in task.inputs:
            name = "manifest" if flow.output == "Output" else flow.output
            assert any(name in line.split(", ") for line in shown), flow


def test_another_graph_is_another_picture() -> None:
    spec, platform = compiled()
    before = picture(spec, platform)
    inside = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    del inside["evaluate"]["inputs"]["artifacts"]["encoder_metrics"]
    after = picture(spec, platform)
    assert "metrics" in words(before)
    assert "metrics" not in words(after)


def test_no_words_leave_the_picture() -> None:
    """At most 7 px a letter at 12 px."""
    root = ElementTree.fromstring(picture(*compiled()))
    width = float(root.get("width", "0"))
    for node in root.iter(f"{SVG}text"):
        if node.get("text-anchor") != "middle":
            size = float(node.get("font-size", "12"))
            assert float(node.get("x", "0")) + len(node.text or "") * size * 7 / 12 < width, node.text


def test_what_is_no_package_draws_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("1")
    with pytest.raises(BadPipeline):
        draw(tmp_path / "x.yaml", tmp_path / "x.svg")
    assert not (tmp_path / "x.svg").exists()
