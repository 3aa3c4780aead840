"""What all tests share: a clean environment, small helpers, and where real footage lies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_table import fault_record

__all__ = ["fault_record"]

# one thread: the machine may be busy, and many small operations only get slower with more
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ["GX_ANALYTICS_ENABLED"] = "false"
for _name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(_name, None)

ROOT = Path(__file__).resolve().parents[1]

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `hypercut ...` in a process of its own, in `tmp_path` unless told otherwise."""

    def run(*words: object, cwd: Path = tmp_path, timeout: float = 300,
            env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "pipelines.cli", *map(str, words)], cwd=cwd, text=True,
                              capture_output=True, timeout=timeout, check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})})

    return run


@pytest.fixture(scope="session")
def real_footage() -> Path:
    """Folder of real clips; tests that need it skip where it is not."""
    folder = Path(os.environ.get("HYPERCUT_FOOTAGE", ROOT.parent / "shared/footage"))
    if not folder.is_dir():
        pytest.skip("no real footage here: set HYPERCUT_FOOTAGE to a folder of videos")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder],
                                      capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", folder], check=True)
