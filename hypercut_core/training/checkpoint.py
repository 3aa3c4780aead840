"""Model files and training checkpoints: tensors as safetensors, everything else as JSON in its header.

One file holds both, so that it is written whole or not at all, and needs no flags to be used. Nothing is
ever unpickled.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from hypercut_core.errors import BadCheckpoint
from hypercut_core.files import atomic_file

INFO_KEY = "hypercut"
FORMAT = 1
CURE = "give a .safetensors file that 'hypercut train-deblurrer' or 'hypercut train-encoder' wrote"


def save_tensors(path: str | os.PathLike[str], tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write tensors and their JSON description; the same content gives the same bytes."""
    plain, metadata = _plain(tensors, info)
    with atomic_file(path) as partial:
        save_file(plain, partial, metadata=metadata)


def pack(tensors: dict[str, Tensor], info: dict[str, Any]) -> bytes:
    """What `save_tensors` writes, in memory."""
    plain, metadata = _plain(tensors, info)
    return save_bytes(plain, metadata=metadata)


def unpack(data: bytes, where: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Inverse of `pack`.

    Raises:
        BadCheckpoint: the bytes are cut off, damaged or something else.
    """
    try:
        tensors = load_bytes(data)  # checks that the header fits the rest
        header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
        info = json.loads(header["__metadata__"][INFO_KEY])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadCheckpoint(f"the checkpoint is damaged or of another kind ({error})", where=where) from error
    return tensors, _described(info, where)


def _plain(tensors: dict[str, Tensor], info: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return plain, {INFO_KEY: json.dumps({"format": FORMAT, **info}, sort_keys=True)}


def read_info(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON description of a model file.

    Raises:
        BadCheckpoint: missing, damaged, or not written by this program.
    """
    return _read(path, with_tensors=False)[1]


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a file that `save_tensors` wrote. Raises BadCheckpoint as `read_info`."""
    return _read(path, with_tensors=True)


def _read(path: str | os.PathLike[str], with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not Path(path).is_file():
        raise BadCheckpoint("there is no such model file", where=path, remedy=CURE)
    try:
        with safe_open(path, framework="pt") as file:
            info = json.loads((file.metadata() or {}).get(INFO_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        raise BadCheckpoint(f"the model file is damaged or of another kind ({error})", where=path,
                            remedy=CURE) from error
    return tensors, _described(info, path)


def _described(info: Any, where: str | os.PathLike[str]) -> dict[str, Any]:
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise BadCheckpoint("the file holds no description of a Hypercut model", where=where, remedy=CURE)
    return info


def save_model(path: str | os.PathLike[str], module: nn.Module, info: dict[str, Any]) -> None:
    """Write a module's weights; `info` has at least ``model`` (its name) and ``config``."""
    save_tensors(path, module.state_dict(), info)


def load_weights(path: str | os.PathLike[str], module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put `tensors` into `module`; every name and shape must fit.

    Raises:
        BadCheckpoint: the file belongs to a model of another shape.
    """
    try:
        module.load_state_dict(tensors, strict=True)
    except (RuntimeError, KeyError) as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise BadCheckpoint(f"the weights do not fit the model that the file describes ({first[0].strip()})",
                            where=path, remedy="train the model again, or give the file of this model") from error


def expect_model(path: str | os.PathLike[str], info: dict[str, Any], names: tuple[str, ...]) -> None:
    """Raise BadCheckpoint unless the file holds one of the models `names`."""
    if info.get("model") not in names:
        raise BadCheckpoint(f"the file holds the model '{info.get('model')}', not {' or '.join(names)}",
                            where=path, remedy="give the file of the right step (models/encoder.safetensors or"
                                               " models/deblurrer-*.safetensors)")


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors; the parameters are numbered in their order."""
    found = {}
    for number, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            found[f"optimiser.{number}.{name}"] = torch.as_tensor(value)
    return found


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimiser_tensors`; hyper-parameters stay those of `optimiser`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    parameters: list[Tensor] = [p for group in optimiser.param_groups for p in group["params"]]
    for place, values in state.items():  # fused optimisers walk memory: strides must be those of the parameter
        like = parameters[place]
        values |= {name: torch.empty_like(like).copy_(value) for name, value in values.items()
                   if value.shape == like.shape}
    whole = optimiser.state_dict()
    optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
