"""What is to be trained, as every process that takes part in it gets it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.clip_stores import open_clips
from hypercut_core.deblurring.models import Deblurrer
from hypercut_core.deblurring.start import Start
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.ordering.encoder import Encoder
from hypercut_core.ordering.labels import OrderTable
from hypercut_core.training.execution import Execution, Watch
from hypercut_core.training.loop import training_facts

WatchMaker = Callable[[], AbstractContextManager[Watch | None]]  # opened by the process that watches; picklable


@dataclass(frozen=True)
class DeblurrerTask:
    """A deblurrer to be trained. Clips are opened where it is trained; orders and encoder are small and travel."""

    clips: str  # folder or s3:// prefix
    objective: str
    settings: DeblurrerTraining
    seed: int
    orders: OrderTable
    encoder: Encoder
    start: Start | None = None  # whose weights come first

    def train(self, work: Path, execution: Execution) -> Deblurrer:
        """Train in this process, alone or as one of several."""
        return fit_deblurrer(open_clips(self.clips), self.objective, self.settings, self.seed, work,
                             orders=self.orders, encoder=self.encoder, execution=execution, start=self.start)

    def facts(self, data: str) -> list[Any]:
        """What makes this training this training, with the hash of the clips; JSON."""
        settings = asdict(self.settings) | {"training": training_facts(self.settings.training)}
        return [data, self.objective, settings, self.seed, self.orders.directions8.tobytes().hex(),
                *([self.start.sha256] if self.start else [])]
