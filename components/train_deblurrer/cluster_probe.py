"""Ask every node of a Ray cluster what it has and whom it reaches, within a bounded time.

    facts = probe_cluster(address, store, ProbeConfig(), say)

A node that does not answer has `answered` false and the reason in `problem`; the others are examined without it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.ray_address import silence
from components.train_deblurrer import node_facts
from components.train_deblurrer import versions as version_facts
from hypercut_core.errors import ClusterError, MissingExtra

CLOCK_READS = 5


@dataclass(frozen=True)
class ProbeConfig:
    """How long and how much."""

    patience: float = 60.0  # s that a node has for each question
    read_mb: int = 32  # MB that each node reads of the clip store, all at the same time
    reduce_mb: int = 16  # MB of the all-reduce


@dataclass
class NodeFacts:
    """What is known of one node."""

    name: str  # unique: the host name, with the address where several have one
    address: str
    resources: dict[str, float]  # as Ray counts them
    answered: bool = False
    problem: str = ""  # why it did not answer
    machine: dict[str, Any] = field(default_factory=dict)  # NodeProbe.machine
    clock_ahead: float | None = None  # s, of this process's clock
    clock_error: float = 0.0  # s, greatest error of that
    store: dict[str, Any] = field(default_factory=dict)  # node_facts.read_store, or {"error": ...}
    unreachable: dict[str, str] = field(default_factory=dict)  # node -> why it cannot be reached from here
    own_name: str = ""  # the address that its host name leads to
    cuda: str | None = None  # "" if torch can use its GPU, or why not; None: not asked


@dataclass
class GroupFacts:
    """A process group of all nodes that answered."""

    backend: str
    nodes: list[str]
    gb_s: float | None = None  # that cross each node's network card, the slowest node's figure
    problems: dict[str, str] = field(default_factory=dict)  # by node


@dataclass
class ClusterFacts:
    """What `probe_cluster` found out."""

    address: str
    versions: dict[str, str]  # of this process, the driver
    nodes: list[NodeFacts]
    gone: list[str]  # nodes that Ray counts as dead, and that no new one replaced
    groups: list[GroupFacts]


def probe_cluster(address: str, store: str | None, config: ProbeConfig, say: Callable[[str], None]) -> ClusterFacts:
    """Examine all nodes at once.

    Args:
        address: host:port of the head, or "auto" for the cluster that this machine is in.
        store: folder or s3:// prefix of a clip store, as the nodes see it; None: not asked.

    Raises:
        ClusterError: there is no cluster, or its head does not answer.
        MissingExtra: Ray is not installed.
    """
    with _connected(address) as ray:
        probes = _Probes(ray, config, say)
        probes.start()
        probes.machines()
        probes.clocks()
        if store is not None:
            probes.stores(store)
        probes.pairs()
        groups = [probes.group("gloo", list(probes.actors))]
        with_gpu = [name for name in probes.actors if probes.nodes[name].resources.get("GPU")]
        if with_gpu:
            groups.append(probes.gpus(with_gpu))
        return ClusterFacts(ray.get_runtime_context().gcs_address, version_facts.versions(),
                            list(probes.nodes.values()), probes.gone, groups)


class _connected:
    """Ray, connected to a cluster that is there: `ray.init` alone would wait two minutes for one that is not."""

    def __init__(self, address: str):
        self.address = address

    def __enter__(self) -> Any:
        try:
            import ray
        except ImportError as error:
            raise MissingExtra("ray", "ray") from error
        self.ray = ray
        if why := silence(self.address):
            raise _no_cluster(self.address, why)
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:
            raise _no_cluster(self.address, str(error).split("\n")[0]) from error
        return ray

    def __exit__(self, *trace: object) -> None:
        self.ray.shutdown()  # ends the actors too


def _no_cluster(address: str, why: str) -> ClusterError:
    here = "this machine is in no Ray cluster" if address == "auto" else "no Ray cluster answers"
    return ClusterError(f"{here} ({why})", where=None if address == "auto" else address,
                        remedy="start one with 'ray start --head', or give the address of its head with --address or "
                               "RAY_ADDRESS, and its token with RAY_AUTH_TOKEN_PATH")


class _Probes:
    """The actors, one for each node, and what they said so far."""

    def __init__(self, ray: Any, config: ProbeConfig, say: Callable[[str], None]):
        self.ray, self.config, self.say = ray, config, say
        alive = [node for node in ray.nodes() if node["Alive"]]
        names = [node["NodeManagerHostname"] for node in alive]
        self.ids = {node["NodeManagerHostname"] if names.count(node["NodeManagerHostname"]) == 1
                    else f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})": node for node in alive}
        self.nodes = {name: NodeFacts(name, node["NodeManagerAddress"], _resources(node["Resources"]))
                      for name, node in sorted(self.ids.items())}
        here = {node["NodeManagerAddress"] for node in alive} | set(names)
        self.gone = sorted({node["NodeManagerHostname"] for node in ray.nodes() if not node["Alive"]
                            and not {node["NodeManagerAddress"], node["NodeManagerHostname"]} & here})
        self.actors: dict[str, Any] = {}

    def start(self) -> None:
        from ray import cloudpickle

        for module in (node_facts, version_facts):  # whatever is installed there, or not
            cloudpickle.register_pickle_by_value(module)
        self.actors = {name: self._actor(name) for name in self.nodes}

    def machines(self) -> None:
        self.say(f"asking {len(self.actors)} nodes what they have")
        answers, problems = self._ask({name: actor.machine.remote() for name, actor in self.actors.items()})
        for name, machine in answers.items():
            self.nodes[name].machine, self.nodes[name].answered = machine, True
        self._leave_out(problems)

    def clocks(self) -> None:
        for name, actor in list(self.actors.items()):
            trips = []
            for _ in range(CLOCK_READS):
                before = time.time()
                answers, problems = self._ask({name: actor.clock.remote()})
                if problems:
                    self._leave_out(problems)
                    break
                after = time.time()
                trips.append((after - before, answers[name] - (before + after) / 2))
            else:
                trip, self.nodes[name].clock_ahead = min(trips)
                self.nodes[name].clock_error = trip / 2

    def stores(self, uri: str) -> None:
        self.say(f"all nodes read {uri}")
        patience = self.config.patience
        calls = {name: actor.read_store.remote(uri, self.config.read_mb * 10**6, patience / 3, number)
                 for number, (name, actor) in enumerate(self.actors.items())}
        answers, problems = self._ask(calls)
        for name in calls:
            self.nodes[name].store = answers.get(name) or {"error": problems[name]}
        self._replace_stuck(problems)

    def pairs(self) -> None:
        """Whether each node gets through to each other one, on ports as gloo and NCCL take them."""
        self.say("every node calls every other")
        ports, problems = self._ask({name: actor.listen.remote(self.nodes[name].address)
                                     for name, actor in self.actors.items()})
        calls = {}
        for name in ports:
            others = {other: (self.nodes[other].address, port) for other, port in ports.items() if other != name}
            calls[name] = self.actors[name].reach.remote(others, min(10.0, self.config.patience / 3))
        answers, late = self._ask(calls)
        for name, reached in answers.items():
            self.nodes[name].unreachable = {other: why for other, why in reached.items() if why}
        for name, why in {**problems, **late}.items():
            self.nodes[name].unreachable = {"any other": why}
        names, _ = self._ask({name: actor.interface.remote() for name, actor in self.actors.items()})
        for name, found in names.items():
            self.nodes[name].own_name = found

    def group(self, backend: str, names: list[str], actors: Mapping[str, Any] | None = None) -> GroupFacts:
        """A process group over `names`; the first one is where they meet."""
        facts, actors = GroupFacts(backend, names), actors or self.actors
        if len(names) < 2:
            return facts
        self.say(f"{len(names)} nodes sum {self.config.reduce_mb} MB over {backend}")
        first, patience = self.nodes[names[0]].address, self.config.patience / 3
        ports, problems = self._ask({names[0]: actors[names[0]].meeting_point.remote(first, len(names), patience)})
        if problems:
            facts.problems = problems
            return facts
        meeting, size = (first, ports[names[0]]), self.config.reduce_mb * 10**6
        answers, facts.problems = self._ask({
            name: actors[name].all_reduce.remote(backend, meeting, rank, len(names), size, patience)
            for rank, name in enumerate(names)})
        facts.problems |= {name: "the sum is wrong" for name, answer in answers.items() if not answer["right"]}
        if not facts.problems:
            facts.gb_s = min(answer["gb_s"] for answer in answers.values())
        return facts

    def gpus(self, names: list[str]) -> GroupFacts:
        """NCCL over one GPU of each node that has some; nodes whose GPUs are all in use cannot be asked."""
        actors = {name: self._actor(name, gpus=1) for name in names}
        answers, problems = self._ask({name: actor.cuda.remote() for name, actor in actors.items()})
        for name in names:
            self.nodes[name].cuda = answers.get(name, problems.get(name))
        return self.group("nccl", [name for name in names if self.nodes[name].cuda == ""], actors)

    def _actor(self, name: str, gpus: int = 0) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        where = NodeAffinitySchedulingStrategy(self.ids[name]["NodeID"], soft=False)
        return self.ray.remote(node_facts.NodeProbe).options(
            num_cpus=0, num_gpus=gpus, max_restarts=0, scheduling_strategy=where).remote()

    def _leave_out(self, problems: Mapping[str, str]) -> None:
        """Nodes that do not answer are not asked again."""
        for name, why in problems.items():
            self.nodes[name].answered, self.nodes[name].problem = False, why
            self.ray.kill(self.actors.pop(name))

    def _replace_stuck(self, problems: Mapping[str, str]) -> None:
        """A read that hangs would keep the node's actor from its next answer."""
        for name in problems:
            self.ray.kill(self.actors[name])
            self.actors[name] = self._actor(name)

    def _ask(self, calls: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Answers, and for those that gave none the reason; all are waited for at once, within the patience."""
        from ray.exceptions import RayError

        pending = list(calls.values())
        ready = set(self.ray.wait(pending, num_returns=len(pending), timeout=self.config.patience)[0]) if calls else ()
        answers, problems = {}, {}
        for name, call in calls.items():
            if call not in ready:
                problems[name] = f"no answer within {self.config.patience:.0f} s"
                continue
            try:
                answers[name] = self.ray.get(call)
            except RayError as error:
                problems[name] = _reason(error)
        return answers, problems


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None)
    text = (str(cause if isinstance(cause, BaseException) else error).strip() or type(error).__name__).splitlines()[0]
    return text[:300]


def _resources(counts: Mapping[str, float]) -> dict[str, float]:
    return {name: count for name, count in sorted(counts.items()) if name in ("CPU", "GPU", "memory")}
