"""Where everything lies in a workspace: the repository itself for DVC, or any folder for `hypercut run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The paths of the nine steps' inputs and outputs below one folder.

    Args:
        root: the folder.
        elsewhere: single paths that lie somewhere else, by the name of the property or method below.
    """

    root: Path
    elsewhere: Mapping[str, Path | str] = field(default_factory=dict)

    @property
    def manifest(self) -> Path:
        return self._at("manifest", "data/footage.json")

    @property
    def clips(self) -> Path | str:
        """The clip store: a folder, or s3://bucket/prefix."""
        elsewhere = str(self.elsewhere.get("clips") or "")
        return elsewhere if elsewhere.startswith("s3://") else self._at("clips", "data/clips")

    @property
    def orders(self) -> Path:
        return self._at("orders", "data/orders.parquet")

    @property
    def encoder(self) -> Path:
        return self._at("encoder", "models/encoder.safetensors")

    @property
    def report(self) -> Path:
        """Folder of the evaluation report."""
        return self._at("report", "reports/evaluation")

    @property
    def trajectories(self) -> Path:
        """Folder of the page on faces and hands."""
        return self._at("trajectories", "reports/trajectories")

    @property
    def work(self) -> Path:
        """Checkpoints of unfinished trainings and downloads: may be deleted, is never an output."""
        return self._at("work", "work")

    def deblurrer(self, objective: str) -> Path:
        return self._at("deblurrer", f"models/deblurrer-{objective}.safetensors")

    def metrics(self, step: str) -> Path:
        return self._at(f"metrics of {step}", f"metrics/{step}.json")

    def verdict(self, step: str) -> Path:
        return self._at("verdict", f"reports/{step}.json")

    def _at(self, name: str, usual: str) -> Path:
        return Path(self.elsewhere.get(name) or self.root / usual)
