"""A registered model in a program: input checked first, so that a mistake is told in one line.

    model = load_registered("models:/hypercut-deblurrer@champion", Path("."))
    frames = model.predict(photos)          # uint8 (B, H, W, 3) -> uint8 (B, T, H, W, 3)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components import tracking
from hypercut_core.errors import BadImage, RegistryError


@dataclass(frozen=True)
class RegisteredDeblurrer:
    """MLflow's model behind a check (MLflow itself would print the whole array)."""

    model: Any

    def predict(self, photos: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) to uint8 (B, T, H, W, 3).

        Raises:
            BadImage: another type or shape.
        """
        from components.register_model.deblurrer_pyfunc import checked

        try:
            checked(photos)
        except ValueError as error:
            raise BadImage(str(error), remedy="stack photos of one size, as load_photo reads them") from error
        return np.asarray(self.model.predict(photos))


def load_registered(uri: str, workspace: Path) -> RegisteredDeblurrer:
    """Load `models:/name@alias` or `models:/name/version`.

    Raises:
        RegistryError: there is no such model, or the registry does not answer.
    """
    tracking.client(workspace)
    import mlflow

    with tracking.explain(tracking.tracking_uri(workspace)):
        try:
            return RegisteredDeblurrer(mlflow.pyfunc.load_model(uri))
        except mlflow.exceptions.MlflowException as error:
            raise RegistryError(f"the model '{uri}' cannot be loaded ({str(error).splitlines()[0][:200]})",
                                where=tracking.shown_uri(tracking.tracking_uri(workspace)),
                                remedy="run 'hypercut register-model' first") from error
