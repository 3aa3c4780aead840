"""The MLflow registry: versions with their figures, the aliases `candidate` and `champion`.

Only versions are added and aliases moved; nothing is ever deleted.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hypercut_core
from components import tracking
from components.register_model.gate import GateDecision, RegisterConfig, decision_from_json
from hypercut_core.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

CANDIDATE, CHAMPION = "candidate", "champion"
FIGURES_TAG, DECISION_TAG, PROMOTED_TAG = "hypercut.figures", "hypercut.gate", "hypercut.promoted"
BEATEN_TAG, SHA_TAG, TEST_SET_TAG = "hypercut.beat_version", "hypercut.model_sha256", "hypercut.test_set"
REQUIREMENTS = ("mlflow", "numpy", "torch", "safetensors", "pillow")  # all that a loaded model imports
PYFUNC = Path(__file__).with_name("deblurrer_pyfunc.py")


@dataclass(frozen=True)
class Version:
    """A registered version as the gate needs it."""

    number: int
    model_sha256: str
    figures: dict[str, Any]
    decision: GateDecision | None
    beat: str  # number of the champion that it was promoted over, "none" for the first, "" if it was not
    run_id: str
    created: int  # ms
    updated: int  # ms


@dataclass(frozen=True)
class Registry:
    """One registered model on one server."""

    client: MlflowClient
    name: str
    uri: str

    @property
    def local(self) -> bool:
        """Whether `tracking.store_lock` makes all registrations take turns."""
        return self.uri.startswith("sqlite:")

    def version(self, alias: str) -> Version | None:
        """The version behind an alias.

        Raises:
            RegistryError: the version was not made by this step.
        """
        with _expecting("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model, no such alias
            return _version(self.client.get_model_version_by_alias(self.name, alias))
        return None

    def versions(self) -> Iterator[Version]:
        for found in self.client.search_model_versions(f"name = '{self.name}'"):
            if SHA_TAG in found.tags:
                yield _version(found)

    def find(self, model_sha256: str, figures: Mapping[str, Any]) -> Version | None:
        """The version of exactly this model with exactly these figures: registering twice adds nothing."""
        same = [one for one in self.versions() if one.model_sha256 == model_sha256 and one.figures == figures]
        return min(same, key=lambda one: one.number, default=None)

    def add(self, source: str, run_id: str, model_id: str | None, card: str,
            figures: Mapping[str, Any], origin: Mapping[str, Any] | None = None) -> Version:
        """A new version; `origin`: tags that say what it was made from."""
        with _expecting("RESOURCE_ALREADY_EXISTS"):
            self.client.create_registered_model(
                self.name, description="One motion-blurred photo to the sharp frames behind it.")
        tags = {FIGURES_TAG: json.dumps(figures, sort_keys=True), SHA_TAG: str(figures["model_sha256"]),
                TEST_SET_TAG: str(figures["test_set"]),
                **{f"hypercut.{name}": text for name, text in tracking.clean(origin or {}).items()}}
        made = self.client.create_model_version(self.name, source, run_id, tags=tags, description=card[:5000],
                                                model_id=model_id)
        return _version(made)

    def point(self, alias: str, number: int) -> None:
        self.client.set_registered_model_alias(self.name, alias, str(number))

    def record(self, number: int, decision: GateDecision, beat: str) -> None:
        """Write the decision into the version's tags."""
        tags = {DECISION_TAG: json.dumps(decision.to_json(), sort_keys=True), BEATEN_TAG: beat,
                PROMOTED_TAG: str(decision.promote).lower()}
        tags |= {f"{DECISION_TAG}.{reason.check}": f"{'yes' if reason.passed else 'no'}: {reason.text}"
                 for reason in decision.reasons}
        for key, value in tags.items():
            self.client.set_model_version_tag(self.name, str(number), key, value)


@contextlib.contextmanager
def _expecting(*codes: str) -> Iterator[None]:
    """Pass over MLflow's errors of these codes; a server that is down is none of them."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in codes:
            raise


def open_registry(config: RegisterConfig, workspace: Path) -> Registry:
    """The registry of MLFLOW_TRACKING_URI, or of the workspace's own file."""
    return Registry(tracking.client(workspace), config.name, tracking.tracking_uri(workspace))


def log_pyfunc(model: Path, frames: int, card: Path) -> tuple[str, str | None]:
    """Log `model` into the active run with all that loading it takes: (source address, MLflow's model id)."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
                               Schema([TensorSpec(np.dtype(np.uint8), (-1, frames, -1, -1, 3))]))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*type hint", category=UserWarning)  # the signature is given
        code = Path(folder) / "hypercut_core"
        source = Path(hypercut_core.__file__).parent
        shutil.copytree(source, code, ignore=shutil.ignore_patterns("__pycache__"))
        weights = Path(folder) / tracking.MODEL_FILE
        shutil.copyfile(model, weights)
        logged = mlflow.pyfunc.log_model(
            name="deblurrer", python_model=str(PYFUNC), code_paths=[str(code)], signature=signature,
            artifacts={"deblurrer": str(weights), "card": str(card)}, input_example=example_photo()[None],
            pip_requirements=requirements())
    return logged.model_uri, getattr(logged, "model_id", None)


def requirements() -> list[str]:
    """Exact versions of what a loaded model imports; a local build suffix is no part of them."""
    return [f"{name}=={installed_version(name).split('+')[0]}" for name in REQUIREMENTS]


def example_photo(height: int = 32, width: int = 48) -> np.ndarray:
    """A small blurry picture, uint8 [H, W, 3]: a bright bar swept over a shaded ground."""
    y, x = np.mgrid[:height, :width]
    bar = np.clip(8 - np.abs(x - width / 2), 0, 6) / 6
    light = 0.15 + 0.25 * y[..., None] / height + np.array([0.5, 0.35, 0.2]) * bar[..., None]
    return (light.clip(0, 1) * 255).round().astype(np.uint8)


def _version(found: Any) -> Version:
    tags = found.tags
    try:
        figures = json.loads(tags[FIGURES_TAG])
        decided = json.loads(tags[DECISION_TAG]) if DECISION_TAG in tags else None
        decision = decision_from_json(decided, found.name) if decided else None
        return Version(int(found.version), tags[SHA_TAG], figures, decision, tags.get(BEATEN_TAG, ""),
                       found.run_id or "", int(found.creation_timestamp), int(found.last_updated_timestamp))
    except (KeyError, ValueError) as error:
        raise RegistryError(f"version {found.version} carries no figures, so nothing can be compared with it",
                            where=f"models:/{found.name}",
                            remedy="point the alias 'champion' at a version that 'hypercut register-model' "
                                   "made, or delete the alias") from error
