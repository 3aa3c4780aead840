"""The registered model as MLflow loads it.

MLflow runs this file where only hypercut_core is shipped beside it: import nothing of `components` here.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

# MLflow would take type hints of `predict` for a second schema, and misses them when they are not there
warnings.filterwarnings("ignore", message=".*Add type hints to the `predict` method", category=UserWarning)


class Deblurrer(PythonModel):
    """uint8 sRGB (B, H, W, 3), any H and W, to sharp frames uint8 (B, T, H, W, 3)."""

    def load_context(self, context: Any) -> None:
        from hypercut_core.deblurring.models import load_deblurrer

        self.model = load_deblurrer(context.artifacts["deblurrer"]).eval()

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        from hypercut_core.restore import restore

        photos = checked(model_input)
        return np.stack([restore(self.model, photo) for photo in photos])


def checked(model_input: Any) -> np.ndarray:
    """`model_input` as uint8 (B, H, W, 3), or a short error that prints no pixels.

    Raises:
        ValueError: another type, dtype or shape.
    """
    asked = "asked for is a NumPy array uint8 (B, H, W, 3), all photos of one size"
    if not isinstance(model_input, np.ndarray):
        raise ValueError(f"the input is a {type(model_input).__name__}; {asked}")
    if model_input.dtype != np.uint8 or model_input.ndim != 4 or model_input.shape[3] != 3:
        raise ValueError(f"the input is {model_input.dtype} {model_input.shape}; {asked}")
    if 0 in model_input.shape:
        raise ValueError(f"the input {model_input.shape} holds no pixels; {asked}")
    return model_input


set_model(Deblurrer())
