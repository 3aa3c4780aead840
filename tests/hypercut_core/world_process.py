"""One of several real processes of a training, for test_world.py."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np


def join(rank: int, size: int, folder: Path) -> None:
    """Become one rank of a gloo group that meets at a file."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size,
                                timeout=timedelta(seconds=240))


def train_as(rank: int, size: int, folder: Path, store: Path, settings: Any, objective: str, micro: int,
             start: Path | None = None) -> None:
    """Train as one rank of a gloo group; losses, samples and weights go to `folder`."""
    import torch.distributed as dist

    from hypercut_core.clips.store import ClipStore
    from hypercut_core.deblurring import training
    from hypercut_core.deblurring.start import read_start
    from hypercut_core.training.checkpoint import save_model
    from hypercut_core.training.execution import Execution
    from hypercut_core.training.world import World

    join(rank, size, folder)
    losses: list[float] = []
    seen: list[list[int]] = []

    class Recorded(training.ClipBatches):
        def __call__(self, step: int, places: range | None = None) -> Any:
            batch = super().__call__(step, places)
            seen.append([step, *batch.clips.tolist()])
            return batch

    def watch(step: int, figures: dict[str, float], picture: np.ndarray | None) -> None:
        losses.append(figures["loss"])

    training.ClipBatches = Recorded  # type: ignore[misc]
    execution = Execution(World.here(), micro_batch=micro, watch=watch, watch_seconds=0)
    model = training.fit_deblurrer(ClipStore(store), objective, settings, 0, folder / "work", execution=execution,
                                   start=read_start(start) if start else None)
    save_model(folder / f"weights-{rank}.safetensors", model, {})
    (folder / f"seen-{rank}.json").write_text(json.dumps({"losses": losses, "seen": seen}), encoding="utf-8")
    if size > 1:
        dist.destroy_process_group()


def train_halves(rank: int, size: int, folder: Path, begin: int, stop: int) -> None:
    """Train a model of two halves, of which one is used from step `begin` on; stop the process dead after `stop`."""
    import os

    import torch
    import torch.distributed as dist

    from hypercut_core.clips.dataset import Batch
    from hypercut_core.training.checkpoint import save_model
    from hypercut_core.training.execution import Execution
    from hypercut_core.training.loop import TrainingConfig, train
    from hypercut_core.training.world import World

    join(rank, size, folder)
    torch.manual_seed(0)
    module = torch.nn.ModuleDict({"first": torch.nn.Conv2d(3, 40, 3), "second": torch.nn.Conv2d(3, 40, 3)})

    def batches(step: int, places: range) -> Batch:
        if step == stop:
            os._exit(9)
        pictures = torch.stack([torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(100 * step + place))
                                for place in places])
        return Batch(pictures, pictures[:, None], torch.ones(len(places)), np.array(places), np.array(places))

    def loss(whole: torch.nn.Module, batch: Batch, step: int) -> torch.Tensor:
        assert isinstance(whole, torch.nn.ModuleDict)  # the module itself, however its gradients are shared
        # gradients arrive last first, which is not the order in which DDP has its parameters before it has seen any
        parts = [whole[name](batch.blurry) for name in (("first", "second") if step >= begin else ("first",))]
        return sum(parts, torch.zeros(())).square().mean()

    config = TrainingConfig(steps=8, batch=12, checkpoint_seconds=0.0, rate=0.01)
    train(module, loss, batches, config, folder / "work", identity={}, execution=Execution(World.here(), 2),
          in_parts=begin > 0)
    save_model(folder / f"weights-{rank}.safetensors", module, {})
    if size > 1:
        dist.destroy_process_group()
