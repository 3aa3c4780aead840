"""A workspace with a tiny model and its evaluation, and an MLflow store that costs no seconds."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from hypercut_core.files import file_sha256, write_json

TEST_SET = "a" * 64


def scores(ppsnr: float, **others: Any) -> dict[str, Any]:
    """Figures of one model as `summarise` gives them, as far as the gate looks."""
    return {"ppsnr": ppsnr, "ends": ppsnr - 2, "middle": ppsnr + 2, "pssim": ppsnr / 40, "not_finite": 0,
            **others}


def evaluation(ppsnr: float = 27.0, sha256: str = "m" * 64, test_set: str = TEST_SET,
               **others: Any) -> dict[str, Any]:
    """The content of metrics/evaluate.json; `others` change the model's figures."""
    return {"test_set": test_set, "split": "test", "clips": 12, "frames": 3, "default": "sequence_min",
            "models": {"sequence_min": {**scores(ppsnr, **others), "model_sha256": sha256, "parameters": 9}},
            "trivial": scores(24.0), "order": {"hit": 1.0, "joint3": 0.97}, "champion": None}


def tiny_model(path: Path, seed: int = 0) -> Path:
    import torch

    from hypercut_core.deblurring.even_odd import DeblurrerConfig, EvenOddDeblurrer
    from hypercut_core.deblurring.models import save_deblurrer

    torch.manual_seed(seed)
    model = EvenOddDeblurrer(DeblurrerConfig(width=4, blocks=(1, 1)), frames=3)
    save_deblurrer(path, model, {"objective": "sequence_min", "seed": seed, "training": {"steps": 10}})
    return path


def challenger(workspace: Path, seed: int, ppsnr: float = 27.0, **others: Any) -> tuple[Path, Path]:
    """A model and its metrics file, ready to be registered."""
    model = tiny_model(workspace / f"models/{seed}.safetensors", seed)
    metrics = workspace / f"metrics/evaluate-{seed}.json"
    write_json(metrics, evaluation(ppsnr, file_sha256(model), **others))
    return metrics, model


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No MLflow setting of the machine reaches a test."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)


def with_store(workspace: Path) -> Path:
    """Put an empty MLflow store into the workspace: its tables take seconds to create, so they are copied."""
    workspace.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_empty_store(), workspace / "mlflow.db")
    return workspace


@functools.cache
def _empty_store() -> Path:
    from components import tracking

    folder = Path(tempfile.mkdtemp(prefix="hypercut-test-store-"))
    tracking.client(folder)
    return folder / "mlflow.db"
