"""`hypercut doctor --cluster`: would an expensive training run on this cluster, and what mends the rest."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from components.train_deblurrer.cluster_probe import ClusterFacts, GroupFacts, NodeFacts, ProbeConfig, probe_cluster
from components.train_deblurrer.scale import ScaleConfig
from components.train_deblurrer.versions import differences
from pipelines.doctor import MARKS, ROOM, Finding

SKEW = 1.0  # s; more makes logs of several nodes hard to read
REFUSED_SKEW = 300.0  # s; S3 refuses signatures that are 15 minutes old
SHM = 2**30  # bytes; Ray's object store lies on the disk where /dev/shm is too small for it
SLOW = 3.0  # times slower than the median node
SLOW_LINK = 0.1  # GB/s; ordinary 1 Gbit/s Ethernet


@dataclass(frozen=True)
class Request:
    """What is to be examined."""

    address: str  # of the head, host:port, or "auto"
    store: str | None  # folder or s3:// prefix of the clips, as the nodes see it; None: not examined
    scale: ScaleConfig  # the training that is to run
    probe: ProbeConfig = field(default_factory=ProbeConfig)


def examine_cluster(request: Request, as_json: bool, say: Callable[[str], None], show: Callable[[str], None]) -> bool:
    """Look at every node and show tables and findings, or one JSON document; true if nothing is bad.

    Raises:
        ClusterError: there is no cluster that answers.
    """
    facts = probe_cluster(request.address, request.store, request.probe, say)
    findings = [*verdict(facts), *room_for(request.scale, facts.nodes)]
    fine = all(finding.state != "bad" for finding in findings)
    if as_json:
        listed = [dataclasses.asdict(one) for one in findings]
        document = {**dataclasses.asdict(facts), "findings": listed, "fine": fine}
        show(json.dumps(document, indent=2, sort_keys=True))
        return fine
    for line in tables(facts):
        show(line)
    for one in findings:
        show(f"{MARKS[one.state]} {one.what:20} {one.found}" + (f" ({one.remedy})" if one.remedy else ""))
    if not findings:
        show("ok   nothing to mend")
    return fine


def verdict(facts: ClusterFacts) -> Iterator[Finding]:
    """What would make an expensive run fail ("bad") or slow ("note"), each with its remedy."""
    answering = [node for node in facts.nodes if node.answered]
    for node in facts.nodes:
        if not node.answered:
            yield Finding(node.name, f"does not answer: {node.problem}", "bad",
                          "look at the node and at /tmp/ray/session_latest/logs there; stop its Ray with 'ray stop' "
                          "if it is not to take part")
    if facts.gone:
        yield Finding("cluster", f"left or died: {', '.join(facts.gone)}", "note", "start Ray there if they are needed")
    if len(facts.nodes) == 1:
        yield Finding("cluster", "there is one node only", "note", "join others with 'ray start --address'")
    yield from _versions(facts, answering)
    for node in answering:
        yield from _room(node)
        yield from _clock(node)
        yield from _gpu(node)
    yield from _different_gpus(answering)
    yield from _stores(answering)
    yield from _links(facts, answering)


def room_for(scale: ScaleConfig, nodes: list[NodeFacts]) -> Iterator[Finding]:
    """Whether the training's workers find room; it would wait for more nodes, and in the end give up."""
    if scale.launcher == "local":
        return
    wanted = {"CPU": scale.cpus_per_worker, "GPU": scale.gpus_per_worker}
    room = sum(int(min(node.resources.get(name, 0) // count for name, count in wanted.items() if count))
               for node in nodes if node.answered)
    if room < scale.workers:
        each = " and ".join(f"{count} {name}" for name, count in wanted.items() if count)
        yield Finding("cluster", f"has room for {room} of the {scale.workers} workers, which take {each} each", "bad",
                      "add nodes, or set deblurrer.scale.workers: the result stays the same")


def _versions(facts: ClusterFacts, nodes: list[NodeFacts]) -> Iterator[Finding]:
    """Who differs from the majority; this process, which will drive the training, has a vote too."""
    found = {"here": facts.versions, **{node.name: node.machine["versions"] for node in nodes}}
    alike = {name: sum(not (differences(one, other) or differences(other, one)) for other in found.values())
             for name, one in found.items()}
    reference = found[max(found, key=lambda name: alike[name])]
    for name, one in found.items():
        wrong = differences(reference, one)
        if wrong:
            yield Finding(name, f"other versions than most: {', '.join(wrong)}", "bad",
                          "use the same image, or the same lock file and commit, on all nodes and here")


def _room(node: NodeFacts) -> Iterator[Finding]:
    machine = node.machine
    if machine["disk_free"] < ROOM:
        yield Finding(node.name, f"{_gib(machine['disk_free'])} free at {machine['disk']}", "bad",
                      f"free {ROOM / 2**30:.0f} GiB: logs, spilled objects and caches need room")
    if machine["shm"] < SHM:
        gpus = len(machine["gpus"]) > 1
        yield Finding(node.name, f"/dev/shm has {_gib(machine['shm'])}", "bad" if gpus else "note",
                      ("NCCL between its GPUs needs 1 GiB" if gpus else "Ray's objects then lie on the disk")
                      + ": give the container --shm-size=2g, or mount an emptyDir of medium Memory")


def _clock(node: NodeFacts) -> Iterator[Finding]:
    ahead = node.clock_ahead
    if ahead is not None and abs(ahead) - node.clock_error > SKEW:
        yield Finding(node.name, f"its clock is {abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}",
                      "bad" if abs(ahead) > REFUSED_SKEW else "note",
                      "run an NTP client there; S3 refuses requests that are 15 minutes off")


def _gpu(node: NodeFacts) -> Iterator[Finding]:
    present, counted = len(node.machine["gpus"]), node.resources.get("GPU", 0)
    if node.cuda and node.cuda.startswith("no answer"):
        yield Finding(node.name, "its GPUs were not free within the time", "note",
                      "stop what uses them ('ray list actors'), or ask again with a longer --timeout")
    elif node.cuda:
        yield Finding(node.name, f"torch cannot use its GPU: {node.cuda}", "bad",
                      f"its driver runs CUDA {node.machine['cuda'] or '?'}: install a torch built for that, or a newer "
                      "driver")
    if present != counted:
        yield Finding(node.name, f"Ray counts {counted:.0f} GPUs, the driver {present}",
                      "bad" if counted > present else "note", "start Ray there with --num-gpus as the driver counts")


def _different_gpus(nodes: list[NodeFacts]) -> Iterator[Finding]:
    for what, key in (("GPUs", "name"), ("drivers", "driver")):
        kinds = Counter(gpu[key] for node in nodes for gpu in node.machine["gpus"])
        if len(kinds) > 1:
            named = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common())
            yield Finding("cluster", f"different {what}: {named}", "note", "the slowest GPU sets the pace of all")


def _stores(nodes: list[NodeFacts]) -> Iterator[Finding]:
    read = [node for node in nodes if node.store]
    good = [node for node in read if "error" not in node.store]
    for node in read:
        if "error" in node.store:
            yield Finding(node.name, f"cannot read the clip store: {node.store['error']}", "bad",
                          "check address, keys (AWS_*) and network policy from this node, or mount the folder there")
    prints = Counter(node.store["fingerprint"] for node in good)
    usual = prints.most_common(1)[0][0] if prints else ""
    median = statistics.median([node.store["mb_s"] for node in good] or [0.0])
    for node in good:
        if node.store["fingerprint"] != usual:
            yield Finding(node.name, "sees another clip store under this name than the other nodes", "bad",
                          "use an s3:// store or a folder that all nodes share")
        if node.store["mb_s"] * SLOW < median:
            yield Finding(node.name, f"reads {node.store['mb_s']:.1f} MB/s, the median node {median:.1f}", "note",
                          "look at its network card and zone")


def _links(facts: ClusterFacts, nodes: list[NodeFacts]) -> Iterator[Finding]:
    for node in nodes:
        for other, why in node.unreachable.items():
            yield Finding(node.name, f"does not reach {other}: {why}", "bad",
                          "open all TCP ports between the nodes (firewall, NetworkPolicy, security group)")
    for group in facts.groups:
        for name, why in group.problems.items():
            yield Finding(name, f"{group.backend}: {why}", "bad", _group_remedy(group, nodes))
        if group.gb_s is not None and group.gb_s < SLOW_LINK:
            yield Finding("cluster", f"{group.backend} moves {group.gb_s:.3f} GB/s", "note",
                          f"name the fast network card with {_variable(group)}")


def _group_remedy(group: GroupFacts, nodes: list[NodeFacts]) -> str:
    astray = [f"{node.name} to {node.own_name}" for node in nodes if node.own_name != node.address]
    if any(node.unreachable for node in nodes):
        return "mend the ways between the nodes first"
    if astray and group.backend == "gloo":
        return f"host names lead elsewhere ({', '.join(astray)}): name the network card with {_variable(group)}=eth0"
    return f"name the network card with {_variable(group)}, and read the nodes' logs"


def _variable(group: GroupFacts) -> str:
    return f"{group.backend.upper()}_SOCKET_IFNAME"


def tables(facts: ClusterFacts) -> Iterator[str]:
    """The facts for a terminal: machines, then versions."""
    yield f"cluster {facts.address}"
    yield from columns([("node", "address", "CPUs", "memory", "GPUs", "driver/CUDA", "disk", "shm", "clock", "store")]
                       + [_row(node) for node in facts.nodes])
    for group in facts.groups:
        found = f"{group.gb_s:.2f} GB/s" if group.gb_s is not None else "failed" if group.problems else "not tried"
        yield f"{group.backend} over {len(group.nodes)} nodes: {found}"
    names = list(facts.versions)
    yield from columns([("versions", *names), ("here", *facts.versions.values()),
                        *((node.name, *(node.machine["versions"].get(name, "?") for name in names))
                          for node in facts.nodes if node.answered)])


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()


def _row(node: NodeFacts) -> tuple[str, ...]:
    if not node.answered:
        return (node.name, node.address, *["?"] * 8)
    machine, store = node.machine, node.store
    gpus = Counter(f"{gpu['name']} {_gib(gpu['memory'])}" for gpu in machine["gpus"])
    drivers = sorted({gpu["driver"] for gpu in machine["gpus"]})
    clock = "?" if node.clock_ahead is None else f"{node.clock_ahead * 1e3:+.1f} ms"
    read = "-" if not store else "failed" if "error" in store else \
        f"{store['mb_s']:.0f} MB/s, {store['latency_ms']:.1f} ms"
    return (node.name, node.address, f"{node.resources.get('CPU', 0):.0f} of {machine['cpus']}",
            f"{_gib(machine['memory_available'])} of {_gib(machine['memory'])}",
            ", ".join(f"{count} × {kind}" for kind, count in gpus.items()) or "-",
            f"{', '.join(drivers)}/{machine['cuda']}" if drivers else "-", _gib(machine["disk_free"]),
            _gib(machine["shm"]), clock, read)


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
