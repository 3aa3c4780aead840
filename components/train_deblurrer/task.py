"""What is to be trained, as every process that takes part in it gets it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from components.clip_stores import open_clips
from hypercut_core.deblurring.even_odd import EvenOddDeblurrer
from hypercut_core.deblurring.training import DeblurrerTraining, fit_deblurrer
from hypercut_core.files import FileStore, LocalFiles
from hypercut_core.ordering.encoder import Encoder
from hypercut_core.ordering.labels import OrderTable
from hypercut_core.training.execution import Execution, Watch

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

    def train(self, work: Path, execution: Execution) -> EvenOddDeblurrer:
        """Train in this process, alone or as one of several."""
        return fit_deblurrer(open_clips(self.clips), self.objective, self.settings, self.seed, work,
                             orders=self.orders, encoder=self.encoder, execution=execution)


def checkpoint_place(task: DeblurrerTask, data: str, checkpoints: str, work: Path) -> str:
    """Folder or s3:// prefix of a training's checkpoints.

    Args:
        data: hash of the clips.
        checkpoints: where the trainings of all kinds have theirs, each in a folder of its own; "": `work` itself.
    """
    if not checkpoints:
        return str(work.resolve())
    facts = [data, task.objective, asdict(task.settings), task.seed, task.orders.directions8.tobytes().hex()]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    name = f"train-deblurrer-{task.objective}-{key}"
    return f"{checkpoints.rstrip('/')}/{name}" if "://" in checkpoints else str(Path(checkpoints).resolve() / name)


def open_checkpoints(place: str) -> FileStore:
    """The place as the process that asks sees it."""
    if "://" not in place:
        return LocalFiles(place)
    from components.storage import S3Files

    return S3Files(place)
