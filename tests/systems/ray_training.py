"""A small training for tests of a cluster; `python ray_training.py DATA RUN` drives it as the command line does.

DATA holds clips, orders and encoder (see `prepare`). All that belongs to one training lies in RUN: its checkpoints,
`model.safetensors` at the end, and `steps.txt`, into which the first worker writes a line `step time` after each
step.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import default_rng

from components.train_deblurrer.scale import ScaleConfig
from components.train_deblurrer.step import TrainDeblurrerConfig, train_deblurrer
from hypercut_core.clips.store import ClipStore, ClipStoreWriter
from hypercut_core.deblurring.even_odd import DeblurrerConfig
from hypercut_core.errors import HypercutError
from hypercut_core.ordering.encoder import AntisymmetricEncoder, EncoderConfig, save_encoder
from hypercut_core.ordering.labels import assign_orders, write_orders
from hypercut_core.training.checkpoint_folder import NAME
from hypercut_core.training.execution import Watch
from hypercut_core.training.loop import TrainingConfig

CONFIG = TrainDeblurrerConfig(
    model=DeblurrerConfig(width=8, blocks=(1, 1)),
    training=TrainingConfig(steps=600, batch=4, crop=32, checkpoint_seconds=1.0),
    scale=ScaleConfig(launcher="ray", workers=2, join_seconds=600.0, watch_seconds=1e-6))


def prepare(folder: Path) -> None:
    """What earlier steps of the pipeline would have written."""
    with ClipStoreWriter(folder / "clips", 3) as writer:
        for number in range(12):
            frames = default_rng(number).integers(0, 256, (4, 40, 40, 3), dtype="uint8")
            writer.add(frames, clip_id=f"{number}", source=f"{number}", split="train", category="a", motion=1.0)
    encoder = AntisymmetricEncoder(EncoderConfig(width=4, blocks=1, features=8))
    save_encoder(folder / "encoder.safetensors", encoder, {})
    write_orders(folder / "orders.parquet", assign_orders(encoder, ClipStore(folder / "clips")))


@dataclass(frozen=True)
class StepLog:
    """Notes each step that was finished, and when."""

    file: Path

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Watch]:
        with self.file.open("a", encoding="utf-8") as lines:
            def watch(step: int, figures: dict[str, float], picture: np.ndarray | None) -> None:
                lines.write(f"{step} {time.time()}\n")
                lines.flush()

            yield watch


@dataclass(frozen=True)
class Steps:
    """What `steps.txt` tells: the steps in the order in which they were finished, and when (s since the epoch)."""

    numbers: list[int]
    times: list[float]

    @classmethod
    def of(cls, run: Path) -> Steps:
        file = run / "steps.txt"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        lines = [line.split() for line in text[:text.rfind("\n") + 1].splitlines()]  # the last one may be half there
        return cls([int(line[0]) for line in lines], [float(line[1]) for line in lines])

    @property
    def twice(self) -> int:
        """How many steps were done more than once."""
        return len(self.numbers) - len(set(self.numbers))

    def first_after(self, when: float) -> float:
        """Seconds from `when` to the first step of the try that came after it."""
        start = next(i for i in range(1, len(self.numbers)) if self.numbers[i] <= self.numbers[i - 1])
        return max(0.0, self.times[start] - when)


def saved(run: Path) -> int:
    """Step of the newest checkpoint; 0: there is none."""
    names = (NAME.fullmatch(path.name) for path in (run / "checkpoints").glob("*/*.safetensors"))
    return max((int(name["step"]) for name in names if name), default=0)


def train(data: Path, run: Path, scale: dict[str, Any]) -> None:
    wanted = replace(CONFIG, scale=replace(CONFIG.scale, checkpoints=str(run / "checkpoints"), **scale))
    train_deblurrer(data / "clips", data / "orders.parquet", data / "encoder.safetensors", wanted, "sequence_min",
                    run / "model.safetensors", run / "metrics.json", 1, run / "work", watch=StepLog(run / "steps.txt"))


if __name__ == "__main__":
    try:
        train(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
    except HypercutError as error:
        sys.exit(f"hypercut: {error}")
