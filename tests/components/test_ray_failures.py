"""What made workers fail, how often that is made up for, and which nodes are refused."""

from __future__ import annotations

import pickle

import pytest

from components.train_deblurrer.failures import Budgets, HungWorker, LostWorker, kind_of
from components.train_deblurrer.scale import ScaleConfig
from components.train_deblurrer.versions import check_versions, differences, versions
from hypercut_core.errors import BadClipStore, BadParameters, ClusterError, HypercutError, MissingExtra

ray = pytest.importorskip("ray")

from ray.exceptions import ActorDiedError, NodeDiedError, WorkerCrashedError  # noqa: E402
from ray.train import ControllerError  # noqa: E402
from ray.train.v2._internal.exceptions import (  # noqa: E402
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)

DAMAGED = BadClipStore("shard 3 is damaged", where="s3://b/clips", remedy="make it again")
DIED = WorkerHealthCheckFailedError("health check failed", ActorDiedError())
WAITED = RuntimeError("[../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 5000ms for recv operation to"
                      " complete")
BROKEN = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:9311")


class OutOfMemoryError(RuntimeError):  # torch's own cannot be made without a GPU's memory
    pass


@pytest.mark.parametrize(("failures", "kind"), [
    ({0: DAMAGED}, BadClipStore),
    ({0: WAITED, 1: DAMAGED}, BadClipStore),
    ({0: DIED, 1: DAMAGED}, BadClipStore),
    ({1: DIED}, LostWorker),
    ({0: BROKEN, 1: DIED}, LostWorker),
    ({0: WAITED, 1: DIED}, LostWorker),
    ({0: ValueError("shape"), 1: DIED}, LostWorker),  # the next try will tell whether it was a bug
    ({0: NodeDiedError("gone")}, LostWorker),
    ({0: WorkerCrashedError()}, LostWorker),
    ({0: BROKEN}, LostWorker),
    ({0: ray.exceptions.OutOfMemoryError("node memory")}, LostWorker),
    ({0: ControllerError(WorkerGroupStartupTimeoutError(2))}, LostWorker),
    ({0: ControllerError(ValueError("shape"))}, type(None)),
    ({0: WAITED}, HungWorker),
    ({0: BROKEN, 1: WAITED}, HungWorker),
    ({2: WorkerHealthCheckTimeoutError("no answer")}, HungWorker),
    ({0: OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")}, BadParameters),
    ({0: ValueError("shape")}, type(None)),
    ({0: BROKEN, 1: ValueError("shape")}, type(None)),
])
def test_the_cause_is_found_among_what_followed_from_it(failures: dict[int, BaseException],
                                                        kind: type[object]) -> None:
    assert type(kind_of(failures)) is kind


def test_the_workers_that_did_not_answer_are_named() -> None:
    assert "worker 1, 3 died" in str(kind_of({0: WAITED, 3: DIED, 1: DIED}))
    assert "deblurrer.scale.micro_batch" in str(kind_of({0: OutOfMemoryError("CUDA out of memory")}))


def test_each_kind_has_its_own_budget() -> None:
    budgets = Budgets(ScaleConfig(lost_workers=2, hung_workers=1))
    lost, hung = LostWorker("a"), HungWorker("b")
    assert [budgets.spend(lost), budgets.spend(hung), budgets.spend(lost)] == [1, 0, 0]
    for failure in (lost, hung):
        with pytest.raises(type(failure)):
            budgets.spend(failure)


def test_bad_input_has_none() -> None:
    with pytest.raises(BadClipStore, match="shard 3 is damaged"):
        Budgets(ScaleConfig(lost_workers=99)).spend(DAMAGED)


@pytest.mark.parametrize("error", [DAMAGED, MissingExtra("ray", "ray"), LostWorker("x", where="y")])
def test_errors_travel_between_processes(error: HypercutError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.where, again.remedy) == (type(error), str(error), error.where, error.remedy)


def test_this_process_fits_itself() -> None:
    check_versions(versions(), versions(), "node 10.0.0.1")
    assert set(versions()) == {"python", "torch", "numpy", "ray", "hypercut", "code"}
    assert all(versions().values())


def test_a_node_with_other_versions_is_refused_with_what_differs() -> None:
    other = {**versions(), "torch": "2.0.0", "numpy": ""}
    with pytest.raises(ClusterError, match=r"^node 10\.0\.0\.2: a node was refused, for it would train with torch "
                                           r"2\.0\.0 instead of .*, numpy missing instead of .*To mend it: give all"):
        check_versions(versions(), other, "node 10.0.0.2")
    assert differences(versions(), {**versions(), "more": "1"}) == []
