"""A training on real Ray nodes while nodes, driver, head and workers are lost: it ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray_training
import torch
from fault_table import FaultRecord
from ray_nodes import PYTHONPATH, Node, RayCluster, end, ray_cluster, wait_until

from hypercut_core.training.checkpoint import read_tensors

pytest.importorskip("ray")
pytestmark = [pytest.mark.system, pytest.mark.cluster]

SAME = 1e-5  # greatest difference of a weight
WORKER = "ray::RayTrainWorker"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A head that drives, and two nodes that each have room for one worker."""
    with ray_cluster() as cluster:
        cluster.start_head(cpus=0)
        ray_training.prepare(cluster.folder)
        yield cluster


def new_node(cluster: RayCluster, wait: bool = True, **env: str) -> Node:
    return cluster.join(f"node{len(cluster.nodes) + 1}", wait=wait, **env)


def two_nodes(cluster: RayCluster) -> list[Node]:
    """Whatever an earlier test left behind."""
    for driver in cluster.head.drivers:
        if driver.poll() is None:
            end(driver)
    nodes = cluster.others + [new_node(cluster, wait=False) for _ in range(2 - len(cluster.others))]
    for node in nodes:
        node.wait_until_started()
    return nodes


@dataclass
class Training:
    """One training, driven from the head; it may be started more than once."""

    cluster: RayCluster
    folder: Path
    nodes: list[Node]
    scale: dict[str, Any] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[str]:
        self.folder.mkdir(exist_ok=True)
        return self.cluster.head.launch(sys.executable, ray_training.__file__, self.cluster.folder, self.folder,
                                        json.dumps(self.scale))

    def start_and_save(self) -> subprocess.Popen[str]:
        """Up to its first checkpoint and a little further."""
        driver = self.start()
        wait_until(lambda: driver.poll() is not None or self._is_beyond_a_checkpoint(),
                   "a checkpoint is written")
        assert driver.poll() is None, self.cluster.head.output(driver)[-4000:]
        return driver

    def _is_beyond_a_checkpoint(self) -> bool:
        done = self.steps.numbers
        return bool(done) and 0 < ray_training.saved(self.folder) < done[-1] - 5

    def finish(self, driver: subprocess.Popen[str]) -> str:
        driver.wait(600)
        said = self.cluster.head.output(driver)
        assert driver.returncode == 0, said[-6000:]
        return said

    @property
    def steps(self) -> ray_training.Steps:
        return ray_training.Steps.of(self.folder)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return read_tensors(self.folder / "model.safetensors")[0]

    def equals(self, other: dict[str, torch.Tensor]) -> bool:
        own = self.weights
        return own.keys() == other.keys() and all(
            float((own[name] - other[name]).abs().max()) <= SAME for name in other)


@pytest.fixture
def training(cluster: RayCluster, request: pytest.FixtureRequest) -> Training:
    return Training(cluster, cluster.folder / request.node.name, two_nodes(cluster))


@pytest.fixture(scope="module")
def undisturbed(cluster: RayCluster) -> dict[str, torch.Tensor]:
    """The weights that every training has to end with."""
    training = Training(cluster, cluster.folder / "undisturbed", two_nodes(cluster))
    training.finish(training.start())
    assert training.steps.numbers == list(range(1, ray_training.CONFIG.training.steps + 1))
    return training.weights


def workers(cluster: RayCluster) -> list[psutil.Process]:
    return [process for node in cluster.nodes.values() for process in node.processes(WORKER)]


def test_a_killed_node_is_made_up_for_by_one_that_joins(
        training: Training, undisturbed: dict[str, torch.Tensor], fault_record: FaultRecord) -> None:
    driver = training.start_and_save()
    training.nodes[1].kill()
    new_node(training.cluster)
    whole = time.time()
    assert "going on from the last checkpoint" in training.finish(driver)
    assert training.equals(undisturbed)
    fault_record(fault="kill -9 of a node, another one joins", tries=1, survived=1, lost_steps=training.steps.twice,
                 recovery_seconds=training.steps.first_after(whole))


def test_a_killed_driver_is_started_again(
        training: Training, undisturbed: dict[str, torch.Tensor], fault_record: FaultRecord) -> None:
    driver = training.start_and_save()
    old = workers(training.cluster)
    assert len(old) == 2
    end(driver)
    killed = time.time()
    done = len(training.steps.numbers)
    again = training.start()
    wait_until(lambda: again.poll() is not None or not any(process.is_running() for process in old),
               "the workers of the killed driver end")
    known = len(training.steps.numbers)
    training.finish(again)
    steps = training.steps
    assert steps.numbers[known] <= steps.numbers[known - 1], "the old workers went on beside the new ones"
    assert training.equals(undisturbed)
    assert done <= known
    fault_record(fault="kill -9 of the driver, the command is run again", tries=1, survived=1, lost_steps=steps.twice,
                 recovery_seconds=steps.first_after(killed))


def test_a_worker_that_hangs_is_given_up(
        training: Training, undisturbed: dict[str, torch.Tensor], fault_record: FaultRecord) -> None:
    training.scale["hung_seconds"] = 15
    driver = training.start_and_save()
    worker = workers(training.cluster)[-1]
    worker.send_signal(signal.SIGSTOP)
    stopped = time.time()
    assert "waited in vain" in training.finish(driver)
    assert not worker.is_running(), "the worker that hung is still there"
    assert training.equals(undisturbed)
    fault_record(fault="a worker hangs (SIGSTOP) for longer than 15 s", tries=1, survived=1,
                 lost_steps=training.steps.twice, recovery_seconds=training.steps.first_after(stopped))


def test_a_node_with_another_version_is_refused(
        training: Training, undisturbed: dict[str, torch.Tensor], fault_record: FaultRecord) -> None:
    """It joins in the place of a node that was killed; with a right one in its place the same command trains."""
    cluster = training.cluster
    other = cluster.folder / "other/hypercut-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: hypercut\nVersion: 9.9\n")
    training.nodes[0].kill()
    wrong = new_node(cluster, PYTHONPATH=f"{other.parent}:{PYTHONPATH}")
    driver = training.start()
    driver.wait(600)
    said = cluster.head.output(driver)
    assert driver.returncode == 1
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert "refused" in last
    assert "hypercut 9.9 instead of 0.1.0" in last
    assert wrong.address in last
    assert "To mend it:" in last
    wrong.kill()
    new_node(cluster)
    training.finish(training.start())
    assert training.equals(undisturbed)
    fault_record(fault="a node of another version joins: refused with its name, then replaced", tries=1, survived=1,
                 lost_steps=training.steps.twice)


def test_a_head_that_restarts_loses_the_nodes_but_not_the_training(
        training: Training, undisturbed: dict[str, torch.Tensor], fault_record: FaultRecord) -> None:
    """Driver and cluster state die with it; the nodes end by themselves and are started again, as KubeRay does."""
    cluster = training.cluster
    training.start_and_save()
    cluster.head.kill()
    cluster.head.start()
    for node in training.nodes:
        wait_until(lambda node=node: node.ended and not node.pids(), f"{node.name} ends without its head")
        node.start(wait=False)
    for node in training.nodes:
        node.wait_until_started()
    whole = time.time()
    training.finish(training.start())
    assert training.equals(undisturbed)
    fault_record(fault="the head restarts, its nodes and the driver with it", tries=1, survived=1,
                 lost_steps=training.steps.twice, recovery_seconds=training.steps.first_after(whole))
