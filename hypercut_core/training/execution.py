"""Where and by whom a training is carried out, and what it shows meanwhile. Nothing here changes its result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import nn

from hypercut_core.files import FileStore
from hypercut_core.progress import say
from hypercut_core.training.world import World

Picture = Callable[[nn.Module], np.ndarray]
PICTURES = 10  # a picture with every so many figures


class Watch(Protocol):
    def __call__(self, step: int, figures: dict[str, float], picture: np.ndarray | None) -> None:
        """Told now and then how a training goes; must be quick and must not fail. `picture`: uint8 (H, W, 3)."""


class Follow(Protocol):
    def __call__(self, module: nn.Module, step: int, loss: float) -> None:
        """Told every step with the loss of the whole batch; `module` is in training mode and must stay as it is."""


@dataclass(frozen=True)
class Execution:
    """Alone, with checkpoints in the given folder and nobody watching, if nothing else is said."""

    world: World = field(default_factory=World)
    micro_batch: int = 0  # most clips in memory at once; 0: this process's share of the batch
    checkpoints: FileStore | None = None  # None: a folder of this machine
    keep: int = 2  # newest checkpoints that are kept, beside the one of the lowest loss
    watch: Watch | None = None  # told in the first process only
    watch_seconds: float = 30.0  # time between two calls of `watch`, s
    say: Callable[[str], None] = say  # told in one line what went wrong and was survived
    follow: Follow | None = None  # told every step, in the first process only


class Watcher:
    """Tells `execution.watch` the figures every few seconds, and shows a picture every tenth time.

    A training that is over before the first time came is not told at all.
    """

    def __init__(self, execution: Execution, picture: Picture | None, batch: int, start: int):
        self._watch = execution.watch if execution.world.first else None
        self._every, self._picture, self._batch = execution.watch_seconds, picture, batch
        self._step, self._time, self._looks = start, time.monotonic(), 0

    def look(self, module: nn.Module, step: int, loss: float, rate: float, last: bool) -> None:
        """Called after each step with the loss of the whole batch."""
        seconds = time.monotonic() - self._time
        if self._watch is None or not (seconds >= self._every or (last and self._looks)):
            return
        figures = {"loss": loss, "learning_rate": rate,
                   "samples_per_second": (step - self._step) * self._batch / max(seconds, 1e-9)}
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            figures["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        shown = last or self._looks % PICTURES == 0
        self._watch(step, figures, self._shown(module) if shown else None)
        self._step, self._time, self._looks = step, time.monotonic(), self._looks + 1

    def _shown(self, module: nn.Module) -> np.ndarray | None:
        if self._picture is None:
            return None
        module.eval()
        with torch.no_grad():
            shown = self._picture(module)
        module.train()
        return shown
