"""The local servers for tests: brought up by the command that users type, taken down whatever happens."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / "infra/local/services"
PATIENCE = 600  # s; the machine may be busy


def clean_environment() -> dict[str, str]:
    """This process's, without addresses and keys of other servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}


def services(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([COMMAND, *map(str, words)], capture_output=True, text=True, timeout=PATIENCE,
                          check=False, env=clean_environment())
    if check:
        assert done.returncode == 0, done.stderr
    return done


def bring_up(*words: object) -> None:
    """`services up`; without the packages the test is skipped, or fails where systems are required."""
    done = services("up", *words, check=False)
    if done.returncode and "apt-get install" in done.stderr and os.environ.get("REQUIRE_SYSTEMS") != "1":
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


@dataclass
class Services:
    """Running servers, and all that was said while they were used."""

    folder: Path
    env: dict[str, str]
    said: list[str] = field(default_factory=list)

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "state.json").read_text()))

    def keys(self, user: str) -> dict[str, str]:
        return dict(json.loads((self.folder / f"secrets/s3-{user}.json").read_text()))

    def secrets(self) -> set[str]:
        """Every password and key that was made for these servers."""
        found = {value for user in ("mlflow", "hypercut") for value in self.keys(user).values()}
        found.add((self.folder / "secrets/pgpass").read_text().strip().rsplit(":", 1)[1])
        found.update(re.findall(r"key = (\S+)", (self.folder / "ceph/keyring").read_text()))
        return found

    def bucket(self, user: str) -> Any:
        """boto3's client with a user's keys."""
        import boto3

        keys = self.keys(user)
        return boto3.session.Session().client(
            "s3", endpoint_url=self.env["AWS_ENDPOINT_URL_S3"], region_name=self.env["AWS_DEFAULT_REGION"],
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"], aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"])

    def run(self, *words: object, cwd: Path, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """A command pointed at these servers."""
        done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE,
                              check=False, env={**clean_environment(), **self.env, "PYTHONPATH": str(ROOT),
                                                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                                                "DVC_NO_ANALYTICS": "1", **env})
        self.said += [done.stdout, done.stderr]
        if check:
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done

    def hypercut(self, *words: object, cwd: Path, check: bool = True,
                 **env: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "pipelines.cli", *words, cwd=cwd, check=check, **env)

    def refused(self, *words: object, cwd: Path, **env: str) -> str:
        """The one paragraph with which `hypercut` refuses."""
        done = self.hypercut(*words, cwd=cwd, check=False, **env)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("hypercut: ")
        assert "To mend it:" in last
        return last


def running_services(folder: Path) -> Iterator[Services]:
    """Bring the servers up in `folder`, in memory, and take them down afterwards."""
    try:
        bring_up("--in-memory", "--state", folder)
        exports = services("env", "--state", folder).stdout
        pairs = (shlex.split(line)[1].split("=", 1) for line in exports.splitlines())
        yield Services(folder, dict(pairs))
    finally:
        services("down", "--delete", "--state", folder)
