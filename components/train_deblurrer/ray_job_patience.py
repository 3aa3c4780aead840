"""Patience with the Kubernetes API, and a line for every change."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from components.train_deblurrer.ray_job_api import NoAnswer
from hypercut_core.errors import RayJobError

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """How long things take at most, s."""

    watch: float = 60.0  # one watch; a connection that died silently is noticed that late
    between: float = 1.0  # least time between two looks
    longest_pause: float = 30.0  # between two tries; the first pause is `between`, doubled each time
    patience: float = 600.0  # without any answer, until the launcher gives up
    lease: float = 1800.0  # KubeRay ends a RayJob that no launcher has renewed for so long
    renew: float = 300.0  # between two renewals
    removal: float = 600.0  # until a deleted RayJob and its cluster are gone
    farewell: float = 300.0  # without any answer, until the deletion is left to the lease


@dataclass(frozen=True)
class Clock:
    """Time as a launcher sees it, s."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Patient:
    """Asks again where no answer came, until none has come for a while.

    Args:
        who: before every line that is said.
    """

    def __init__(self, who: str, say: Callable[[str], None], clock: Clock, pace: Pace):
        self.who, self._say, self.clock, self.pace = who, say, clock, pace
        self._line = ""
        self.begin(pace.patience)

    def begin(self, patience: float) -> None:
        """From now on, bear a silence of `patience` s."""
        self.heard, self.patience = self.clock.now(), patience

    def ask(self, call: Callable[[], T]) -> T:
        """The answer of `call`.

        Raises:
            RayJobError: no answer for too long; whatever else `call` raises.
        """
        pause = self.pace.between
        while True:
            try:
                answer = call()
            except NoAnswer as error:
                silent = self.clock.now() - self.heard
                if silent >= self.patience:
                    raise RayJobError(f"no answer for {silent:.0f} s: {error.what}", where=error.where,
                                      remedy="look at the cluster, then run it again: it goes on from its last "
                                             "checkpoint") from error
                self.tell(f"{error.what}; trying again")
                self.clock.sleep(min(max(pause, error.after), 2 * self.pace.longest_pause))
                pause = min(2 * pause, self.pace.longest_pause)
            else:
                self.heard = self.clock.now()
                return answer

    def tell(self, line: str) -> None:
        """Say it, unless it was said last."""
        if line != self._line:
            self._line = line
            self._say(f"{self.who}: {line}")
