"""A cluster, an operator and launchers in simulated time: one thread runs at a time, and time passes only while all
of them sleep, so that a seed gives the same interleaving always. Launchers speak to the server over real HTTP.

A launcher can be stopped (as by SIGTERM) or killed (as by SIGKILL: not one more request) while it sleeps, or while a
request is on its way and its answer not read yet.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kuberay_operator import Operator, Plan
from kubernetes_cluster import NAMESPACE, Cluster
from kubernetes_server import Server

from components.train_deblurrer.ray_job import RayJobRun
from components.train_deblurrer.ray_job_api import NoAnswer, RayJobApi
from components.train_deblurrer.ray_job_patience import Clock, Pace
from components.train_deblurrer.ray_job_status import launcher
from components.train_deblurrer.ray_job_template import Wanted, filled, read_template

IMAGE = "registry.example/hypercut@sha256:" + "a" * 64
PACE = Pace(watch=60, between=10, longest_pause=60, patience=250, lease=400, renew=100, removal=300, farewell=150)
DEADLINE = 1500.0
TICK = 10.0  # s between two looks of the operator


def manifest(who: str, name: str = "hypercut-test-0123456789ab", workers: int = 2, lease: float = PACE.lease,
             pod: str = "") -> dict[str, Any]:
    """The RayJob that a launcher wants."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": f"uid-of-{pod}"} if pod else None
    return filled(read_template(), Wanted(name, NAMESPACE, who, IMAGE, ["hypercut", "train-deblurrer"], workers,
                                          1, 0, lease, owner))


class Killed(BaseException):
    """As SIGKILL: nothing of the launcher runs any more."""


class LauncherApi(RayJobApi):
    """The real client, of a launcher that may be ended while a request is on its way."""

    actor: Actor

    @contextlib.contextmanager
    def _answer(self, *words: Any, **others: Any) -> Iterator[Any]:
        actor = self.actor
        actor.perhaps_ended()
        actor.requests += 1
        if actor.requests >= actor.end_at_request > 0:
            actor.end_at_request = 0
            actor.end()
        actor.silence = max(actor.silence, actor.world.time - actor.heard)
        try:
            with super()._answer(*words, **others) as answer:
                actor.heard = actor.world.time
                actor.perhaps_ended()
                yield answer
        except NoAnswer:
            actor.perhaps_ended()
            raise


@dataclass
class Actor:
    """One launcher."""

    world: World
    name: str
    pod: str
    lines: list[str] = field(default_factory=list)
    result: dict[str, Any] | None = None
    error: BaseException | None = None
    requests: int = 0
    end_at_request: int = 0
    how: str = ""  # "stop" or "kill", once that is wanted
    began: float = 0.0
    heard: float = 0.0  # when the server last answered
    silence: float = 0.0  # longest time without an answer, s
    left: list[dict[str, Any]] = field(default_factory=list)  # RayJobs in its care when it ended
    ended: bool = False
    awake: threading.Event = field(default_factory=threading.Event)
    asleep: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self.began = self.heard = self.world.time
        self.world.cluster.pod_objects[self.pod] = {"metadata": {"name": self.pod, "uid": f"uid-of-{self.pod}"}}
        api = LauncherApi(self.world.server.url, self.world.account, now=self.world.now)
        api.actor = self
        self.run = RayJobRun(api, manifest(self.name, pod=self.pod), DEADLINE, self.lines.append,
                             clock=Clock(self.world.now, self.sleep), pace=PACE)
        threading.Thread(target=self._live, daemon=True).start()
        self._wait_until_asleep()

    def _live(self) -> None:
        try:
            self.result = self.run.run()
        except BaseException as error:
            self.error = error
        self.left = [job for job in self.world.cluster.jobs.values() if launcher(job) == self.name]
        self.ended = True
        self.asleep.set()

    def sleep(self, seconds: float) -> None:
        """In the launcher's thread: let others run until the time has come."""
        self.perhaps_ended()
        self.world.at(self.world.time + seconds, self._wake)
        self.asleep.set()
        assert self.awake.wait(60)
        self.awake.clear()
        self.perhaps_ended()

    def perhaps_ended(self) -> None:
        if self.how == "kill":
            raise Killed
        if self.how == "stop":
            self.how = "stopped"
            self.run._stop("SIGTERM")

    def end(self) -> None:
        """In the launcher's thread, or in the world's while it sleeps."""
        self.how = self.how or self.world.way

    def _wake(self) -> None:
        self.awake.set()
        self._wait_until_asleep()

    def _wait_until_asleep(self) -> None:
        assert self.asleep.wait(60)
        self.asleep.clear()


class World:
    def __init__(self, server: Server, account: Path, plans: list[Plan]):
        self.time = 1.8e9
        self.cluster = server.cluster = Cluster(now=self.now, tokens=set())
        self.cluster.defer = lambda seconds, action: self.at(self.time + seconds, action)
        self.server, self.account, self.operator = server, account, Operator(self.cluster, plans)
        self.actors: list[Actor] = []
        self.way = "stop"
        self.expected = 0  # launchers that are on the agenda
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()
        self.at(self.time, self._tick)

    def now(self) -> float:
        return self.time

    def at(self, when: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._agenda, (when, next(self._count), action))

    def launch(self) -> Actor:
        actor = Actor(self, f"launcher-{len(self.actors)}", f"pod-{len(self.actors)}")
        self.actors.append(actor)
        actor.start()
        return actor

    def run(self, until: Callable[[], bool], longest: float = 20000.0) -> None:
        """Let time pass until that is true."""
        end = self.time + longest
        while not until():
            self.time, _, action = heapq.heappop(self._agenda)
            assert self.time < end, [actor.lines[-3:] for actor in self.actors]
            action()

    def pass_time(self, seconds: float) -> None:
        end = self.time + seconds
        self.run(lambda: self.time >= end, seconds + 2 * TICK)

    def launch_at(self, when: float) -> None:
        self.expected += 1
        self.at(when, self._launch_expected)

    def _launch_expected(self) -> None:
        self.expected -= 1
        self.launch()

    def quiet(self) -> bool:
        return not self.expected and all(actor.ended for actor in self.actors)

    def _tick(self) -> None:
        self.operator.reconcile()
        self.at(self.time + TICK, self._tick)
