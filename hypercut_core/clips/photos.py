"""The built-in photographs: real photos that ship inside scikit-image and scikit-learn."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hypercut_core.blur.exposure import to_linear
from hypercut_core.errors import BadParameters, MissingExtra

# Split by photo, never by clip; the two motorcycle photos are one scene and stay together. The test
# photos are what people take: a face, an animal, a table, a flower.
PHOTOS: dict[str, tuple[str, ...]] = {
    "train": ("skimage/brick.png", "skimage/camera.png", "sklearn/china.jpg", "skimage/coins.png",
              "skimage/gravel.png", "skimage/hubble_deep_field.jpg", "skimage/ihc.png",
              "skimage/motorcycle_left.png", "skimage/motorcycle_right.png", "skimage/page.png",
              "skimage/retina.jpg", "skimage/text.png"),
    "val": ("skimage/grass.png", "skimage/rocket.jpg"),
    "test": ("skimage/astronaut.png", "skimage/chelsea.png", "skimage/coffee.png", "sklearn/flower.jpg"),
}
_FOLDERS = {"skimage": ("skimage", "data"), "sklearn": ("sklearn", "datasets/images")}
SHORT_SIDE = 300  # photos are brought to about this size, so that one cut-out scale fits them all


def photo_names(split: str) -> list[str]:
    """Names of the built-in photos of a split ("train", "val" or "test")."""
    if split not in PHOTOS:
        raise BadParameters(f"unknown split '{split}'", remedy="choose train, val or test")
    return list(PHOTOS[split])


def photo_path(name: str) -> Path:
    """Where the installed package keeps the photo.

    Raises:
        MissingExtra: scikit-image or scikit-learn is not installed.
    """
    package, file = name.split("/", 1)
    module, folder = _FOLDERS[package]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtra({"skimage": "scikit-image", "sklearn": "scikit-learn"}[package], "photos")
    return Path(spec.origin).parent / folder / file


@lru_cache(maxsize=32)
def load_photo_linear(name: str) -> Tensor:
    """One photo in linear light, (3, H, W) float32 in [0, 1], short side at most `SHORT_SIDE`."""
    from PIL import Image

    with Image.open(photo_path(name)) as image:
        rgb = image.convert("RGB")
        scale = SHORT_SIDE / min(rgb.size)
        if scale < 1:
            size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
            rgb = rgb.resize(size, Image.Resampling.LANCZOS)
        pixels = np.asarray(rgb, np.float32) / 255
    return to_linear(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), "srgb")
