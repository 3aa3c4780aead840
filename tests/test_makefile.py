"""The Makefile finds a Python that runs, says so where there is none, and sets up once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder: Path, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": path or os.environ["PATH"]}
    env.pop("MAKEFLAGS", None)
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
                          env=env)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile and the two files that it looks at, and no environment yet."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    return folder


def tools(folder: Path, **scripts: str) -> str:
    """A PATH with the basic tools and the given commands alone."""
    bin_ = folder / "bin"
    bin_.mkdir()
    for name in ("sh", "make", "sed", "awk", "echo", "touch", "tr", "rm", "find", "env"):
        found = shutil.which(name)
        if found:
            (bin_ / name).symlink_to(found)
    for name, script in scripts.items():
        file = bin_ / name.replace("_", ".")
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    return str(bin_)


def test_help_lists_every_target_without_any_set_up(checkout: Path) -> None:
    done = make(checkout)
    assert done.returncode == 0
    for target in ("help", "demo", "test", "lint", "system", "cluster", "images", "tracker", "clean"):
        assert f"\n  {target} " in done.stdout
    assert not (checkout / ".venv").exists()


def test_without_a_fitting_python_it_says_what_is_needed(checkout: Path, tmp_path: Path) -> None:
    """A stub that exists and does not run, as version managers leave them, and an old Python."""
    path = tools(tmp_path, python3_12="echo 'command not found' >&2; exit 127", python3="exit 1")
    done = make(checkout, "test", path=path)
    assert done.returncode == 2
    assert "Hypercut needs Python 3.11 or 3.12" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_finished_set_up_is_not_done_again(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv/.ready").touch()
    done = make(checkout, "--dry-run", "setup")
    assert "pip install" not in done.stdout
    os.utime(checkout / ".venv/.ready", (0, 0))  # the lock is newer now
    assert "pip install" in make(checkout, "--dry-run", "setup").stdout


def test_the_lock_names_no_host() -> None:
    for name in ("requirements.lock", "requirements-tracker.lock"):
        lock = (ROOT / name).read_text(encoding="utf-8")
        for word in ("://", "file:", "--find-links", "--index", "+cpu", "@"):
            assert word not in lock
