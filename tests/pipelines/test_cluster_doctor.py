"""What the facts of a cluster mean: each thing that would make an expensive run fail is named, with its remedy."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.train_deblurrer.cluster_probe import ClusterFacts, GroupFacts, NodeFacts
from components.train_deblurrer.node_facts import NodeProbe, read_store
from components.train_deblurrer.scale import ScaleConfig
from hypercut_core.clips.store import ClipStoreWriter
from pipelines.cluster_doctor import room_for, tables, verdict

GIB = 2**30
VERSIONS = {"python": "3.11.7", "torch": "2.13.0+cpu", "ray": "2.60.0", "numpy": "2.4.6", "hypercut": "0.1.0",
            "code": "0123456789ab"}
GPU = {"name": "NVIDIA H100", "driver": "570.1", "memory": 80 * GIB}


def node(name: str, number: int) -> NodeFacts:
    machine = {"hostname": name, "cpus": 8, "memory": 64 * GIB, "memory_available": 60 * GIB, "gpus": [dict(GPU)],
               "cuda": "12.8", "disk_free": 100 * GIB, "disk": "/tmp", "shm": 8 * GIB, "versions": dict(VERSIONS)}
    store = {"mb_s": 400.0, "latency_ms": 0.8, "bytes": 32_000_000, "clips": 100, "fingerprint": "aa"}
    return NodeFacts(name, f"10.0.0.{number}", {"CPU": 8.0, "GPU": 1.0}, True, "", machine, 0.001, 0.0005, store, {},
                     f"10.0.0.{number}", "")


@pytest.fixture
def facts() -> ClusterFacts:
    """A sound cluster of three nodes."""
    nodes = [node(name, number) for number, name in enumerate(("one", "two", "three"), 1)]
    names = [one.name for one in nodes]
    groups = [GroupFacts("gloo", names, 1.2), GroupFacts("nccl", names, 20.0)]
    return ClusterFacts("10.0.0.1:6379", dict(VERSIONS), nodes, [], groups)


def test_a_sound_cluster_has_no_findings(facts: ClusterFacts) -> None:
    assert list(verdict(facts)) == []


Change = Callable[[NodeFacts, ClusterFacts], Any]
# what is wrong with node two -> state, words of the finding
CASES: list[tuple[str, Change, str, str]] = [
    ("silent", lambda two, all: two.__dict__.update(answered=False, machine={}, problem="no answer within 9 s"), "bad",
     "does not answer: no answer within 9 s"),
    ("torch", lambda two, all: two.machine["versions"].update(torch="2.4.0"), "bad", "torch 2.4.0 instead of"),
    ("code", lambda two, all: two.machine["versions"].update(code="ffff"), "bad", "code ffff instead of 0123456789ab"),
    ("no hypercut", lambda two, all: two.machine["versions"].pop("hypercut"), "bad", "hypercut missing instead"),
    ("disk", lambda two, all: two.machine.update(disk_free=GIB), "bad", "1.0 GiB free at /tmp"),
    ("shm", lambda two, all: two.machine.update(shm=GIB // 16), "note", "/dev/shm has 0.1 GiB"),
    ("shm of GPUs", lambda two, all: two.machine.update(shm=GIB // 16, gpus=[GPU, GPU]), "bad", "/dev/shm"),
    ("clock", lambda two, all: two.__dict__.update(clock_ahead=-4.0), "note", "4.0 s behind"),
    ("clock for S3", lambda two, all: two.__dict__.update(clock_ahead=900.0), "bad", "900.0 s ahead"),
    ("store", lambda two, all: two.__dict__.update(store={"error": "refused"}), "bad", "cannot read the clip store"),
    ("other store", lambda two, all: two.store.update(fingerprint="bb"), "bad", "another clip store"),
    ("slow store", lambda two, all: two.store.update(mb_s=20.0), "note", "reads 20.0 MB/s, the median node 400.0"),
    ("no way", lambda two, all: two.unreachable.update(one="timed out"), "bad", "does not reach one: timed out"),
    ("gloo", lambda two, all: all.groups[0].problems.update(two="connection refused"), "bad", "gloo: connection"),
    ("cuda", lambda two, all: two.__dict__.update(cuda="driver too old"), "bad", "torch cannot use its GPU"),
    ("busy GPU", lambda two, all: two.__dict__.update(cuda="no answer within 9 s"), "note", "were not free"),
    ("hidden GPU", lambda two, all: two.resources.pop("GPU"), "note", "Ray counts 0 GPUs, the driver 1"),
    ("no GPU", lambda two, all: two.machine["gpus"].clear(), "bad", "Ray counts 1 GPUs, the driver 0"),
]


@pytest.mark.parametrize(("change", "state", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_fault_is_found_on_its_node(facts: ClusterFacts, change: Change, state: str, words: str) -> None:
    facts = copy.deepcopy(facts)
    change(facts.nodes[1], facts)
    found = [one for one in verdict(facts) if one.what == "two"]
    assert any(one.state == state and words in one.found for one in found), found
    assert all(one.remedy for one in found)
    assert list(tables(facts))


def test_if_all_nodes_differ_from_here_it_is_here_that_is_wrong(facts: ClusterFacts) -> None:
    facts.versions["ray"] = "2.50.0"
    assert [(one.what, one.state) for one in verdict(facts)] == [("here", "bad")]


def test_mixed_gpus_and_lost_nodes_are_told(facts: ClusterFacts) -> None:
    facts.nodes[2].machine["gpus"][0]["name"] = "NVIDIA T4"
    facts.gone = ["four"]
    assert [one.state for one in verdict(facts)] == ["note", "note"]
    assert any("2 × NVIDIA H100, 1 × NVIDIA T4" in one.found for one in verdict(facts))


def test_workers_that_find_no_room_are_told(facts: ClusterFacts) -> None:
    scale = ScaleConfig(launcher="ray", workers=3, cpus_per_worker=8, gpus_per_worker=1)
    assert list(room_for(scale, facts.nodes)) == []
    facts.nodes[0].resources.pop("GPU")
    assert [one.found for one in room_for(scale, facts.nodes)] == [
        "has room for 2 of the 3 workers, which take 8 CPU and 1 GPU each"]
    assert list(room_for(ScaleConfig(), [])) == []


def test_gloo_that_fails_where_ways_are_open_blames_the_host_names(facts: ClusterFacts) -> None:
    facts.nodes[1].own_name = "127.0.1.1"
    facts.groups[0].problems = {"two": "connectFullMesh failed"}
    finding = next(one for one in verdict(facts) if one.state == "bad")
    assert "two to 127.0.1.1" in finding.remedy
    assert "GLOO_SOCKET_IFNAME" in finding.remedy


def test_tables_have_a_row_for_each_node(facts: ClusterFacts) -> None:
    text = "\n".join(tables(facts))
    assert "1 × NVIDIA H100 80.0 GiB" in text
    assert "gloo over 3 nodes: 1.20 GB/s" in text
    assert all(text.count(f"{name} ") >= 2 for name in ("one", "two", "three"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    from numpy.random import default_rng

    with ClipStoreWriter(tmp_path / "clips", 3) as writer:
        for number in range(4):
            frames = default_rng(number).integers(0, 256, (4, 64, 64, 3), dtype="uint8")
            writer.add(frames, clip_id=f"{number}", source=f"{number}", split="train", category="a", motion=1.0)
    return tmp_path / "clips"


def test_reading_a_store_is_bounded_and_tells_stores_apart(store: Path) -> None:
    found = read_store(str(store), 200_000, 60.0, seed=0)
    assert 200_000 <= found["bytes"] < 400_000  # a clip has 49 kB
    assert found["clips"] == 4
    assert found["mb_s"] > 0
    assert read_store(str(store), 1, 60.0, seed=1)["fingerprint"] == found["fingerprint"]
    group = json.loads((store / "zarr.json").read_text())
    (store / "zarr.json").write_text(json.dumps({**group, "note": "changed"}))
    assert read_store(str(store), 1, 60.0, seed=1)["fingerprint"] != found["fingerprint"]


def test_a_probe_reaches_what_listens_and_says_why_it_does_not() -> None:
    one, two = NodeProbe(), NodeProbe()
    port = two.listen("127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        reached = one.reach({"two": ("127.0.0.1", port), "three": closed.getsockname()}, 5.0)
    assert reached["two"] == ""
    assert "refused" in reached["three"]


def test_no_cluster_is_a_clear_error(cli: Callable[..., Any]) -> None:
    pytest.importorskip("ray")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        done = cli("doctor", "--cluster", "--address", f"127.0.0.1:{closed.getsockname()[1]}")
    assert done.returncode == 2
    assert "no Ray cluster answers" in done.stderr
    assert "Traceback" not in done.stderr
