"""One launcher and its RayJob: every state, every failure of the API, cancel, deadline, others; in simulated time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kuberay_operator import FATES, GOOD, Plan
from kubernetes_cluster import NAMESPACE, TOKEN, Cluster, Failure
from kubernetes_server import Server
from launcher_world import DEADLINE, PACE, Actor, Killed, World, manifest
from source_imports import ROOT

from components.train_deblurrer.ray_job import Displaced
from components.train_deblurrer.ray_job_status import succeeded
from hypercut_core.errors import Interrupted, RayJobError

NAME = manifest("me")["metadata"]["name"]
MakeWorld = Callable[..., World]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server(Cluster())
    yield made
    made.stop()


@pytest.fixture
def make_world(server: Server, tmp_path: Path) -> Iterator[MakeWorld]:
    (tmp_path / "namespace").write_text(NAMESPACE)
    worlds = []

    def make(*plans: Plan) -> World:
        worlds.append(World(server, tmp_path, list(plans) or [Plan()]))
        return worlds[-1]

    yield make
    for world in worlds:
        assert world.cluster.violations == []


def launched(world: World, *failures: Failure) -> Actor:
    """A launcher that has come to its end."""
    world.cluster.failures += failures
    actor = world.launch()
    world.run(world.quiet)
    return actor


# -- every state --


@pytest.mark.parametrize("fate", GOOD)
def test_a_training_that_ends_well_leaves_nothing(make_world: MakeWorld, fate: str) -> None:
    world = make_world(Plan(fate))
    actor = launched(world)
    assert actor.error is None
    assert actor.result is not None
    assert succeeded(actor.result)
    assert world.cluster.jobs == {}
    assert world.operator.clusters == set()
    lines = [line.removeprefix(f"RayJob {NAME}: ") for line in actor.lines]
    assert lines[:4] == ["created", "not seen by KubeRay yet", "Initializing", "Running, command RUNNING"]
    assert lines[-1] == "gone"


@pytest.mark.parametrize(("fate", "words"), [
    ("failed", "the training failed; .*Job entrypoint command failed with exit code 1"),
    ("stopped", "somebody stopped it"),
    ("not submitted", "could not be submitted"),
    ("invalid", "KubeRay does not accept it.*KubeRay version of infra/README.md"),
])
def test_a_training_that_ends_badly_says_why_and_leaves_nothing(make_world: MakeWorld, fate: str, words: str) -> None:
    world = make_world(Plan(fate))
    actor = launched(world)
    assert isinstance(actor.error, RayJobError)
    with pytest.raises(RayJobError, match=words):
        raise actor.error
    assert world.cluster.jobs == {}


def test_all_fates_are_looked_at() -> None:
    assert set(FATES) == {*GOOD, "failed", "stopped", "not submitted", "invalid", "hangs"}


@pytest.mark.parametrize("state", ["Suspending", "Suspended", "Retrying", "Waiting", "SomethingNew"])
def test_a_state_that_is_no_end_is_waited_through(make_world: MakeWorld, state: str) -> None:
    world = make_world(Plan(command=100))
    world.at(world.time + 60, lambda: world.cluster.set_status(NAME, jobDeploymentStatus=state))
    world.at(world.time + 200, lambda: world.cluster.set_status(NAME, jobDeploymentStatus="Running"))
    actor = launched(world)
    assert actor.result is not None, (actor.lines, actor.error)
    assert any(line.split(": ", 1)[1].startswith(state) for line in actor.lines)


def test_the_deadline_ends_it_and_says_what_it_waited_for(make_world: MakeWorld) -> None:
    world = make_world(Plan(ready=10**6))
    world.cluster.pod_objects["w"] = {
        "metadata": {"name": "w", "uid": "w", "labels": {"ray.io/cluster": f"{NAME}-abcde"}},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False",
                                   "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"}]}}
    actor = launched(world)
    assert "not over after" in str(actor.error)
    assert "pod w: not placed (0/3 nodes are available: 3 Insufficient nvidia.com/gpu)" in str(actor.error)
    assert DEADLINE <= world.time - actor.began <= DEADLINE + PACE.watch + 120
    assert world.cluster.jobs == {}
    assert [line for line in actor.lines if "Insufficient nvidia.com/gpu" in line]  # long before the end, too


# -- every way in which the API fails --


@pytest.mark.parametrize("operation", ["create", "get", "list", "watch", "patch", "delete", "pods"])
@pytest.mark.parametrize("failure", [
    Failure("", 500), Failure("", 503), Failure("", 429, headers={"Retry-After": "30"}), Failure("", drop=True),
    Failure("", drop=True, done=True), Failure("", 500, done=True), Failure("", 200, b"<html>"),
], ids=["500", "503", "429", "drop", "done and drop", "done and 500", "a page"])
def test_what_passes_is_waited_for(make_world: MakeWorld, operation: str, failure: Failure) -> None:
    world = make_world()
    made = Failure(operation, failure.status, failure.body, failure.headers, failure.drop, done=failure.done, times=3)
    actor = launched(world, made)
    assert actor.result is not None, (actor.lines, actor.error)
    assert len(world.cluster.made) == 1
    assert world.cluster.jobs == {}


@pytest.mark.parametrize(("operation", "status", "words"), [
    ("create", 403, "403: made to fail.*hypercut-rayjob-launcher"), ("create", 422, "422"), ("get", 403, "403"),
    ("list", 403, "403"), ("watch", 403, "403"), ("patch", 403, "403"), ("create", 404, "404"),
])
def test_a_refusal_ends_it_with_its_reason(make_world: MakeWorld, operation: str, status: int, words: str) -> None:
    world = make_world(Plan("hangs"))
    actor = launched(world, Failure(operation, status))
    with pytest.raises(RayJobError, match=words):
        raise actor.error or AssertionError(actor.result)
    assert world.cluster.jobs == {}


def test_a_watch_that_falls_behind_lists_again(make_world: MakeWorld) -> None:
    world = make_world()
    for second in range(5, 250, 7):
        world.at(world.time + second, world.cluster.forget)
    actor = launched(world)
    assert actor.result is not None, (actor.lines, actor.error)
    assert world.cluster.calls.count("list") > 3


def test_silence_is_borne_for_a_while(make_world: MakeWorld) -> None:
    world = make_world()
    silence = Failure("*", drop=True, times=10**6)
    world.at(world.time + 60, lambda: world.cluster.failures.append(silence))
    world.at(world.time + 60 + PACE.patience - 100, lambda: setattr(silence, "times", 0))
    assert launched(world).result is not None


def test_silence_for_too_long_is_told_and_the_lease_ends_what_runs(make_world: MakeWorld) -> None:
    world = make_world(Plan("hangs"))
    world.at(world.time + 60, lambda: world.cluster.failures.append(Failure("*", drop=True, times=10**6)))
    actor = launched(world)
    assert "no answer for" in str(actor.error)
    assert f"kubectl -n hypercut delete rayjob {NAME}" in actor.lines[-1]
    assert world.operator.clusters
    world.pass_time(PACE.lease + 600 + 60)
    assert world.operator.clusters == set()


def test_a_deletion_that_is_refused_is_told(make_world: MakeWorld) -> None:
    world = make_world()
    actor = launched(world, Failure("delete", 403, times=10))
    assert actor.result is not None
    assert "could not be deleted (Kubernetes refuses this (403" in actor.lines[-1]


def test_a_deletion_that_takes_for_ever_is_told(make_world: MakeWorld) -> None:
    world = make_world(Plan(deletion=10**6))
    actor = launched(world)
    assert actor.result is not None
    assert "not gone after" in actor.lines[-1]


# -- tried again, two at once, cancelled, deleted --


def killed(world: World, after: float) -> Actor:
    first = world.launch()
    world.way = "kill"
    world.at(world.time + after, first.end)
    world.run(world.quiet)
    assert isinstance(first.error, Killed)
    return first


def test_a_launcher_that_is_tried_again_takes_the_same_job_over(make_world: MakeWorld) -> None:
    world = make_world(Plan(command=300))
    killed(world, 100)
    again = world.launch()
    world.pass_time(5)
    [job] = world.cluster.jobs.values()
    assert job["metadata"]["ownerReferences"][0]["name"] == again.pod  # and not the old one's, which will go
    world.run(world.quiet)
    assert again.result is not None
    assert len(world.cluster.made) == 1


def test_a_result_that_came_while_no_launcher_lived_is_found(make_world: MakeWorld) -> None:
    world = make_world(Plan(command=50))
    killed(world, 60)
    world.pass_time(200)
    again = launched(world)
    assert again.result is not None
    assert len(world.cluster.made) == 1
    assert world.cluster.jobs == {}


def test_a_failure_that_came_while_no_launcher_lived_is_tried_again(make_world: MakeWorld) -> None:
    world = make_world(Plan("failed", command=50), Plan())
    killed(world, 60)
    world.pass_time(200)
    again = launched(world)
    assert again.result is not None
    assert len(world.cluster.made) == 2
    assert any("an earlier one ended without a result" in line for line in again.lines)


def test_a_job_with_other_settings_is_left_alone(make_world: MakeWorld) -> None:
    world = make_world(Plan("hangs"))
    other = manifest("somebody", workers=7)
    world.cluster.create(other)
    actor = launched(world)
    with pytest.raises(RayJobError, match=r"runs with other settings.*kubectl -n hypercut delete rayjob"):
        raise actor.error or AssertionError
    assert world.cluster.jobs[NAME]["spec"] == other["spec"]


def test_a_finished_job_with_other_settings_is_replaced(make_world: MakeWorld) -> None:
    world = make_world()
    world.cluster.create(manifest("somebody", workers=7))
    world.pass_time(400)
    assert world.cluster.jobs[NAME]["status"]["jobStatus"] == "SUCCEEDED"
    actor = launched(world)
    assert actor.result is not None
    assert actor.result["spec"] == manifest("me")["spec"] | {"activeDeadlineSeconds": actor.result["spec"][
        "activeDeadlineSeconds"]}


def test_one_that_is_being_deleted_is_waited_for(make_world: MakeWorld) -> None:
    world = make_world(Plan(deletion=100), Plan())
    world.cluster.create(manifest("somebody"))
    world.pass_time(60)
    world.cluster.begin_deletion(world.cluster.jobs[NAME])
    actor = launched(world)
    assert actor.result is not None
    assert len(world.cluster.made) == 2


def test_the_launcher_that_came_last_looks_after_it(make_world: MakeWorld) -> None:
    world = make_world(Plan(command=400))
    first = world.launch()
    world.pass_time(80)
    second = world.launch()
    world.run(world.quiet)
    assert isinstance(first.error, Displaced)
    assert second.result is not None
    assert len(world.cluster.made) == 1


@pytest.mark.parametrize("when", [0.0, 3.0, 30.0, 120.0])
def test_a_stopped_launcher_deletes_its_job(make_world: MakeWorld, when: float) -> None:
    world = make_world(Plan("hangs"))
    actor = world.launch()
    world.at(world.time + when, actor.end)
    world.run(world.quiet)
    assert isinstance(actor.error, Interrupted)
    assert "stopped by SIGTERM; the RayJob is deleted" in str(actor.error)
    assert world.cluster.jobs == {}


def test_a_creation_that_comes_true_after_the_stop_is_deleted_too(make_world: MakeWorld) -> None:
    world = make_world(Plan("hangs"))
    world.cluster.failures.append(Failure("create", late=15.0))
    actor = world.launch()
    world.at(world.time + 1, actor.end)
    world.run(world.quiet)
    assert isinstance(actor.error, Interrupted)
    assert len(world.cluster.made) == 1
    assert world.cluster.jobs == {}


def test_deleted_by_somebody_else(make_world: MakeWorld) -> None:
    world = make_world(Plan("hangs"))
    world.at(world.time + 100, lambda: world.cluster.remove(NAME))
    with pytest.raises(RayJobError, match=r"was deleted by somebody else while its training ran.*last checkpoint"):
        raise launched(world).error or AssertionError


def test_a_namesake_that_came_later_is_not_touched(make_world: MakeWorld) -> None:
    world = make_world(Plan("hangs"))

    def replace() -> None:
        world.cluster.remove(NAME)
        world.cluster.create(manifest("somebody"))

    world.at(world.time + 100, replace)
    actor = launched(world)
    assert "somebody else" in str(actor.error) or "another one of its name" in str(actor.error)
    assert world.cluster.jobs[NAME]["metadata"]["annotations"]["hypercut.dev/launcher"] == "somebody"


def test_the_lease_is_moved_on_while_the_launcher_lives(make_world: MakeWorld) -> None:
    world = make_world(Plan(command=3 * PACE.lease))
    actor = launched(world)
    assert actor.result is not None, (actor.lines, actor.error)
    assert actor.result["spec"]["activeDeadlineSeconds"] <= DEADLINE


def test_without_a_launcher_it_ends_within_its_lease(make_world: MakeWorld) -> None:
    world = make_world(Plan("hangs"))
    killed(world, 200)
    world.pass_time(PACE.lease + 600 + 60)
    assert world.operator.clusters == set()
    assert world.cluster.jobs[NAME]["status"]["reason"] == "DeadlineExceeded"


# -- a real process and a real signal --


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_real_process_deletes_the_job(server: Server, tmp_path: Path, number: int) -> None:
    (tmp_path / "namespace").write_text(NAMESPACE)
    (tmp_path / "token").write_text(TOKEN)
    server.cluster = Cluster(live=True, tokens=set())
    code = textwrap.dedent(f"""
        import json, pathlib, sys
        from components.train_deblurrer.ray_job import RayJobRun
        from components.train_deblurrer.ray_job_api import RayJobApi
        from hypercut_core.errors import Interrupted
        api = RayJobApi({server.url!r}, pathlib.Path({str(tmp_path)!r}))
        try:
            RayJobRun(api, json.loads(sys.argv[1]), 3600, lambda line: print(line, flush=True)).run()
        except Interrupted as error:
            print(error, flush=True)
            sys.exit(130)
    """)
    process = subprocess.Popen([sys.executable, "-c", code, json.dumps(manifest("process"))], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert next(lines) == f"RayJob {NAME}: created\n"
        assert "not seen" in next(lines)
        process.send_signal(number)
        rest = "".join(lines)
        assert process.wait(60) == 130
    finally:
        process.kill()
    assert f"stopped by {signal.Signals(number).name}; the RayJob is deleted" in rest
    assert server.cluster.jobs == {}
