"""The pipeline compiled once for all tests, and what its two documents say of a task."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.compile import compile_pipeline, read_package

IMAGE = "registry.example/hypercut@sha256:" + "0123456789abcdef" * 4
TRACKER = "registry.example/hypercut-tracker@sha256:" + "fedcba9876543210" * 4


@cache
def _compiled(image: str, options: tuple[tuple[str, Any], ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    with TemporaryDirectory() as folder:
        out = Path(folder) / "pipeline.yaml"
        compile_pipeline(image, out, **dict(options))
        return read_package(out)


def compiled(image: str = IMAGE, **options: bool | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pipeline and platform documents, free to be changed."""
    return copy.deepcopy(_compiled(image, tuple(sorted(options.items()))))


def task_specs(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task that runs a container, wherever it is nested, by name."""
    dags = [spec["root"]["dag"], *(one["dag"] for one in spec["components"].values() if "dag" in one)]
    return {name: task for dag in dags for name, task in dag["tasks"].items()
            if "executorLabel" in spec["components"][task["componentRef"]["name"]]}


def executor(spec: dict[str, Any], task: str) -> str:
    return str(spec["components"][task_specs(spec)[task]["componentRef"]["name"]]["executorLabel"])


def container(spec: dict[str, Any], task: str) -> dict[str, Any]:
    return dict(spec["deploymentSpec"]["executors"][executor(spec, task)]["container"])


def kubernetes(spec: dict[str, Any], platform: dict[str, Any], task: str) -> dict[str, Any]:
    """What the platform document says of a task."""
    return dict(platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][executor(spec, task)])
