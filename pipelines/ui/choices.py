"""The models that the page offers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hypercut_core.errors import HypercutError, RegistryError

if TYPE_CHECKING:
    from hypercut_core.deblurring.models import Deblurrer

REGISTERED = "models:/hypercut-deblurrer@"
LOADED = 2  # models kept in memory


@dataclass(frozen=True)
class Choice:
    """One model on the page."""

    key: str
    label: str
    path: Path


def offered(asked_for: Sequence[str], workspace: Path, say: Callable[[str], None]) -> list[Choice]:
    """What was asked for by name, then champion, candidate and the files in models/; the first is the default.

    Raises:
        RegistryError: there is no model at all; BadCheckpoint, RegistryError: one that was asked for is missing.
    """
    from components.tracking import model_file, server_named, store_missing

    found = [(_label(model), model_file(model, workspace)) for model in asked_for]
    for alias in ("champion", "candidate"):
        if store_missing(workspace) and not server_named():
            break
        try:
            found.append((alias, model_file(REGISTERED + alias, workspace)))
        except HypercutError as error:
            say(f"no {alias} is offered: {error}")
    found += [(path.stem, path) for path in sorted((workspace / "models").glob("deblurrer-*.safetensors"))]
    if not found:
        raise RegistryError("there is no model to offer", where=workspace.resolve(),
                            remedy="train one with 'make demo', or name a file with --model")
    labels = dict(reversed(found))  # of two with one label the first stays
    return [Choice(str(n), label, labels[label]) for n, label in enumerate(dict(found))]


def _label(model: str) -> str:
    return model.removeprefix(REGISTERED) if model.startswith("models:/") else Path(model).stem


class LoadedModels:
    """Models that were used last stay in memory."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[tuple[Path, int | None], Deblurrer] = OrderedDict()

    def get(self, path: Path, views: int | None) -> Deblurrer:
        """Raises BadCheckpoint."""
        from hypercut_core.deblurring.models import load_deblurrer

        key = path, views
        model = self._loaded.pop(key, None)
        self._loaded[key] = load_deblurrer(path, views) if model is None else model
        while len(self._loaded) > LOADED:
            self._loaded.popitem(last=False)
        return self._loaded[key]
