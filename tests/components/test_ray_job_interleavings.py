"""Property: whatever happens in whatever order, no RayJob is left running, and every launcher tells the truth.

Two hundred seeds, each a random story: how the command ends, launchers that are stopped, killed and tried again, a
second one beside the first, somebody with kubectl, failing and silent servers, broken and expired watches.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kuberay_operator import FATES, GOOD, Plan
from kubernetes_cluster import NAMESPACE, Cluster, Failure
from kubernetes_server import Server
from launcher_world import DEADLINE, PACE, TICK, Actor, Killed, World

from components.train_deblurrer.ray_job import Displaced
from hypercut_core.errors import Interrupted, RayJobError

SEEDS = range(200)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server(Cluster())
    yield made
    made.stop()


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("account")
    (folder / "namespace").write_text(NAMESPACE)
    return folder


@dataclass
class Story:
    """What is done to the launchers and the server, as far as it excuses what they say."""

    outage: float = 0.0  # s without any answer
    removed: bool = False  # by somebody with kubectl
    words: list[str] = field(default_factory=list)


def tell(world: World, dice: random.Random) -> Story:
    """Put a random story on the agenda."""
    story = Story()

    def note(when: float, word: str) -> float:
        story.words.append(f"{when:.0f} s: {word}")
        return world.time + when

    for _ in range(dice.randrange(5)):
        status, times = dice.choice([500, 502, 503, 429, 408]), dice.randrange(1, 6)
        operation = dice.choice(["*", "create", "get", "list", "watch", "patch", "delete"])
        failure = Failure(operation, status, times=times, done=dice.random() < 0.4, drop=dice.random() < 0.3,
                          headers={"Retry-After": "20"} if status == 429 else {})
        world.at(note(dice.uniform(0, 500), f"{failure}"), lambda it=failure: world.cluster.failures.append(it))
    for _ in range(dice.randrange(3)):
        world.at(note(dice.uniform(0, 500), "events forgotten"), world.cluster.forget)
    if dice.random() < 0.4:
        cut = dice.randrange(1, 20000)
        begin = dice.uniform(0, 300)
        world.at(note(begin, f"watches break after {cut} bytes"), lambda: setattr(world.cluster, "cut", cut))
        world.at(world.time + begin + dice.uniform(20, 300), lambda: setattr(world.cluster, "cut", 0))
    if dice.random() < 0.25:
        silence = Failure("*", drop=True, times=10**9)
        begin, story.outage = dice.uniform(0, 400), dice.choice([60.0, 150.0, 400.0, 1000.0])
        world.at(note(begin, f"no answer for {story.outage:.0f} s"), lambda: world.cluster.failures.insert(0, silence))
        world.at(world.time + begin + story.outage, lambda: setattr(silence, "times", 0))
    if dice.random() < 0.1:
        story.removed = True
        world.at(note(dice.uniform(20, 300), "kubectl delete"), lambda: remove(world))
    if dice.random() < 0.5:
        world.way = dice.choice(["stop", "kill"])
        if dice.random() < 0.5:
            world.at(note(dice.uniform(5, 400), world.way), world.actors[0].end)
        else:
            world.actors[0].end_at_request = dice.randrange(1, 12)
            story.words.append(f"{world.way} at request {world.actors[0].end_at_request}")
            if dice.random() < 0.3:  # the server does what it is asked after we have left
                world.cluster.failures.append(Failure("create", late=dice.uniform(1, 30)))
                world.actors[0].end_at_request = 2
    return story


def remove(world: World) -> None:
    for job in list(world.cluster.jobs.values()):
        world.cluster.begin_deletion(job)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_interleaving_leaks_a_job_and_all_is_told_right(seed: int, server: Server, account: Path) -> None:
    dice = random.Random(seed)
    plans = [Plan(dice.choice([*FATES, *["succeeded"] * 3]), *(dice.uniform(0, most) for most in (60, 90, 400, 60)))
             for _ in range(4)]
    world = World(server, account, plans)
    first = Actor(world, "launcher-0", "pod-0")
    world.actors.append(first)
    story = tell(world, dice)
    first.start()
    if dice.random() < 0.3:  # beside the first one, such as by a node that was thought to be lost
        when = world.time + dice.uniform(0, 300)
        world.launch_at(when)
        if dice.random() < 0.5:  # which ends before it could notice
            world.at(when + dice.uniform(1, 30), first.end)
    world.run(world.quiet)
    if isinstance(first.error, Killed) and dice.random() < 0.6:  # tried again, as Kubeflow does
        world.pass_time(dice.uniform(10, 300))
        world.at(world.time + dice.uniform(1, 200), lambda: world.cluster.pod_objects.pop("pod-0", None))
        world.launch()
        world.run(world.quiet)
    for actor in world.actors:
        check_told(world, actor, story)
    check_gone(world, story)


def check_gone(world: World, story: Story) -> None:
    """Nothing runs, and nothing is left."""
    context = (story.words, [(actor.lines, actor.error) for actor in world.actors])
    unable = [actor for actor in world.actors
              if isinstance(actor.error, Killed) or any("could not be deleted" in line for line in actor.lines)]
    assert not [actor.left for actor in world.actors if actor.left and actor not in unable], context
    world.cluster.failures.clear()
    if not unable:
        world.pass_time(60)
        assert world.cluster.jobs == {}, context
    world.pass_time(PACE.lease + 600 + 120)  # lease, ttlSecondsAfterFinished, and the operator's own pace
    assert world.operator.clusters == set(), context  # whoever was killed
    world.cluster.pod_objects.clear()
    world.pass_time(120)
    assert world.cluster.jobs == {}, context  # and no object is left once the launchers' pods are gone
    assert world.cluster.violations == []


def check_told(world: World, actor: Actor, story: Story) -> None:
    """What a launcher says is what happened."""
    context = (story.words, actor.lines, actor.error, world.operator.fates)
    fates, times = world.operator.fates, world.operator.times
    ours = [fates[uid] for uid in fates if times[uid] >= actor.began]
    others = world.actors[world.actors.index(actor) + 1:]
    if not (story.removed or actor.how or others or actor.silence >= PACE.patience) and \
            all(plan.fate in GOOD for plan in world.operator.taken.values()):
        assert actor.result is not None, context
    if actor.result is not None:
        assert fates[actor.result["metadata"]["uid"]] in GOOD, context
        return
    assert isinstance(actor.error, Killed | RayJobError | Interrupted), context
    text = str(actor.error)
    if isinstance(actor.error, Killed):
        assert actor.how == "kill"
    elif isinstance(actor.error, Interrupted):
        assert actor.how == "stopped", context
    elif isinstance(actor.error, Displaced):
        assert others, context
    elif "did not end well" in text:
        assert set(ours) & (set(FATES) - set(GOOD) | {"deadline"}), context
        assert ("no launcher had renewed it" in text) <= ("deadline" in ours), context
        if "no launcher had renewed it" in text:
            assert actor.silence >= PACE.lease - 2 * PACE.renew or world.time - actor.began >= DEADLINE - TICK, context
    elif "no answer for" in text:
        assert actor.silence >= PACE.patience, context
    elif "not over after" in text:
        assert world.time - actor.began >= DEADLINE - 600, context
        assert "hangs" in {plan.fate for plan in world.operator.taken.values()}, context
    else:
        assert "deleted by somebody" in text or "replaced" in text or "being deleted" in text, context
        assert story.removed or others, context
