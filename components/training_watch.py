"""Curves and pictures in MLflow while a training goes on, without being in its way.

A thread of its own talks to the server. It starts with the first figures (MLflow takes seconds to import), sends
what has gathered at once, and a server that is away or slow costs figures and never the training.
"""

from __future__ import annotations

import contextlib
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components import tracking
from hypercut_core.progress import say
from hypercut_core.training.execution import Watch

GATHERED = 200  # figures that wait for the server; older ones are dropped
PATIENCE = 60.0  # time between two tries with a server that does not answer, s
FAREWELL = 30.0  # longest wait for the last figures to arrive, s


@dataclass(frozen=True)
class MlflowWatch:
    """Makes the watch of one training, in whichever process trains first: may be pickled, holds no secrets.

    Nothing is watched where MLFLOW_TRACKING_URI is not set.
    """

    name: str  # of the run
    workspace: Path
    params: Mapping[str, Any]
    tags: Mapping[str, Any]
    experiment: str = tracking.EXPERIMENT

    def __call__(self) -> contextlib.AbstractContextManager[Watch | None]:
        return self._watching() if tracking.server_named() else contextlib.nullcontext()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[Watch]:
        teller = Teller(self._open)
        try:
            yield teller
        except Exception:
            teller.close("FAILED")
            raise
        except BaseException:
            teller.close("KILLED")
            raise
        teller.close("FINISHED")

    def _open(self) -> tracking.StepRun:
        return tracking.open_run(self.name, self.workspace, params=self.params, tags=self.tags,
                                 experiment=self.experiment)


@dataclass(frozen=True)
class _Moment:
    step: int
    figures: dict[str, float] = field(default_factory=dict)
    picture: np.ndarray | None = None


class Teller:
    """A `Watch` that hands on to a run in another thread."""

    def __init__(self, open_run: Callable[[], tracking.StepRun]):
        self._open_run = open_run
        self._run: tracking.StepRun | None = None
        self._queue: queue.Queue[_Moment | str] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._quiet_until = 0.0
        self._said = False

    def __call__(self, step: int, figures: dict[str, float], picture: np.ndarray | None) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()
        while self._queue.qsize() >= GATHERED:
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()
        self._queue.put(_Moment(step, dict(figures), picture))

    def close(self, status: str) -> None:
        """Send what is left, and end the run; waits for `FAREWELL` seconds at most."""
        if self._thread is not None:
            self._queue.put(status)
            self._thread.join(FAREWELL)

    def _work(self) -> None:
        while True:
            gathered = [self._queue.get()]
            if time.monotonic() < self._quiet_until and isinstance(gathered[0], _Moment):
                continue  # dropped: the server was away a moment ago
            with contextlib.suppress(queue.Empty):
                while True:
                    gathered.append(self._queue.get_nowait())
            moments = [one for one in gathered if isinstance(one, _Moment)]
            statuses = [one for one in gathered if isinstance(one, str)]
            self._send(moments, statuses)
            if statuses:
                return

    def _send(self, moments: list[_Moment], statuses: list[str]) -> None:
        try:
            self._run = self._run or self._open_run()
            self._run.points([(one.step, one.figures) for one in moments])
            for one in moments:
                if one.picture is not None:
                    _send_picture(self._run, one.step, one.picture)
            for status in statuses:
                self._run.end(status)
        except Exception as error:  # whatever it is: no training ends because nobody could watch it
            self._quiet_until = time.monotonic() + PATIENCE
            if not self._said:
                say(f"the training goes on, but MLflow cannot be told: {' '.join(str(error).split())[:300]}")
                self._said = True


def _send_picture(run: tracking.StepRun, step: int, picture: np.ndarray) -> None:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"step-{step:08d}.png"
        Image.fromarray(picture).save(file)
        run.artifact(file, "pictures")
