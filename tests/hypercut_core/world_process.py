"""One of several real processes of a training, for test_world.py."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np


def train_as(rank: int, size: int, folder: Path, store: Path, settings: Any, objective: str, micro: int) -> None:
    """Train as one rank of a gloo group; losses, samples and weights go to `folder`."""
    import torch
    import torch.distributed as dist

    from hypercut_core.clips.store import ClipStore
    from hypercut_core.deblurring import training
    from hypercut_core.training.checkpoint import save_model
    from hypercut_core.training.execution import Execution
    from hypercut_core.training.world import World

    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size,
                                timeout=timedelta(seconds=120))
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
    model = training.fit_deblurrer(ClipStore(store), objective, settings, 0, folder / "work", execution=execution)
    save_model(folder / f"weights-{rank}.safetensors", model, {})
    (folder / f"seen-{rank}.json").write_text(json.dumps({"losses": losses, "seen": seen}), encoding="utf-8")
    if size > 1:
        dist.destroy_process_group()
