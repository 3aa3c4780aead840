"""What a system test needs of the machine: skipped without it, or failed where systems are required."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from hypercut_core.trajectories.tracker import Tracker

ROOT = Path(__file__).resolve().parents[2]


def not_here(why: str) -> NoReturn:
    if os.environ.get("REQUIRE_SYSTEMS") == "1":
        pytest.fail(why)
    pytest.skip(why)


def install(packages: Mapping[str, str]) -> None:
    """Debian packages of the commands (command -> package) that are missing."""
    missing = sorted({package for command, package in packages.items() if shutil.which(command) is None})
    if not missing:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (["apt-get", "update", "-qq"],
                        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, env=environment)
    except (OSError, subprocess.SubprocessError) as error:
        not_here(f"{missing} cannot be installed: {error}\n{getattr(error, 'stderr', '') or ''}")


def real_tracker() -> Tracker:
    """The landmark tracker, installed if it is not."""
    if Tracker().missing() is not None:
        done = subprocess.run(["make", "tracker"], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            not_here(f"the tracker's environment cannot be made:\n{done.stderr[-2000:]}")
    return Tracker()
