"""Which versions a process runs, and which of them must be the same on all machines of one training."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "ray", "numpy", "hypercut")
SOURCES = ("hypercut_core", "components")
MISSING = "not installed"


def versions() -> dict[str, str]:
    """Python, the packages that a result depends on, and a hash of Hypercut's own source files.

    The hash tells two states of one version apart: nodes of a cluster are seldom installed on the same day.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = MISSING
    return {**found, "code": _source_hash()}


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """One phrase for each version that is not the expected one, e.g. ``torch 2.4.0 instead of 2.13.0``.

    Builds of one version (``2.13.0+cpu``) count as the same: a head without a GPU has another than its workers.
    """
    return [f"{name} {found.get(name, MISSING)} instead of {wanted}" for name, wanted in expected.items()
            if found.get(name, MISSING).partition("+")[0] != wanted.partition("+")[0]]


def _source_hash() -> str:
    digest = hashlib.sha256()
    for package in SOURCES:
        spec = importlib.util.find_spec(package)  # finds it without running it
        if spec is None or not spec.submodule_search_locations:
            return MISSING
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
