"""What must be the same in every process that trains one model: other versions mean other figures, or a hang."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hypercut_core.errors import ClusterError

PACKAGES = ("torch", "numpy", "ray", "hypercut")
CODE = "code"  # the source itself: its version number is the same for months


def versions() -> dict[str, str]:
    """Of this process: Python, the packages that figures depend on, and a hash of the source."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}, CODE: _code()}


def differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """One phrase for each that differs, such as "torch 2.9.1 instead of 2.13.0"."""
    return [f"{name} {found.get(name) or 'missing'} instead of {value}" for name, value in wanted.items()
            if found.get(name) != value]


def check_versions(wanted: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """Refuse a node that would train with something else.

    Args:
        wanted: of the process that started the training.
        found: of the worker.
        where: the worker's node.

    Raises:
        ClusterError: names the node and what differs.
    """
    if wrong := differences(wanted, found):
        raise ClusterError(f"a node was refused, for it would train with {', '.join(wrong)}", where=where,
                           remedy="give all nodes the image (or environment) of the node that starts the training,"
                                  " then run the same command again: it goes on from the last checkpoint")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@functools.cache
def _code() -> str:
    tree = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for file in sorted(file for folder in ("hypercut_core", "components") for file in (tree / folder).rglob("*.py")):
        digest.update(file.relative_to(tree).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
