"""Where a model comes from: what the report, the model card and every MLflow run say of its origin."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

GIT, FOOTAGE, MANIFEST = "git", "footage revision", "footage manifest (sha256)"
TAGS = {GIT: "git", FOOTAGE: "footage_revision", MANIFEST: "footage_manifest"}  # → tags of runs and versions
UNVERSIONED = "none, as it lay there"


def provenance(manifest: Path | None, seed: int, source_revision: str,
               changed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Facts by their titles; none of them goes into metrics.

    Args:
        manifest: the footage manifest; None or missing: its facts are left out.
        source_revision: git revision of the code.
        changed: parameters that are not at their defaults.

    Raises:
        BadFootage: the manifest is damaged.
    """
    import platform

    import torch

    facts: dict[str, Any] = {"seed": seed, GIT: source_revision, "python": platform.python_version(),
                             "torch": torch.__version__, "hypercut": _version("hypercut"),
                             "numpy": _version("numpy"), "threads": torch.get_num_threads()}
    if manifest is not None and manifest.is_file():
        from hypercut_core.clips.manifest import read_manifest
        from hypercut_core.files import file_sha256

        facts |= {FOOTAGE: read_manifest(manifest).revision or UNVERSIONED, MANIFEST: file_sha256(manifest)}
    return facts | dict(changed or {})


def tags(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts that runs and model versions are found by, as tags."""
    return {tag: str(facts[title]) for title, tag in TAGS.items() if facts.get(title)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
