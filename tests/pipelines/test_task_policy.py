"""The table of task_policy.py, found again in the compiled YAML: no local runner obeys any of it."""

from __future__ import annotations

import re

import pytest
from compiled import IMAGE, TRACKER, compiled, container, kubernetes, task_specs

from pipelines.local import STEPS
from pipelines.task_policy import POLICIES

SPEC, PLATFORM = compiled(tracker_image=TRACKER)
NAMES = sorted(POLICIES)
UNCACHED = {"collect-footage", "train-encoder", "train-deblurrer", "evaluate", "evaluate-trajectories",
            "register-model", "close-run"}


def cached(**options: bool) -> set[str]:
    return {name for name, task in task_specs(compiled(tracker_image=TRACKER, **options)[0]).items()
            if task["cachingOptions"].get("enableCache", False)}


def test_every_task_has_its_row() -> None:
    assert set(POLICIES) == set(task_specs(SPEC)) == {*STEPS, "close-run"}


@pytest.mark.parametrize("name", NAMES)
def test_resources(name: str) -> None:
    policy, asked = POLICIES[name], container(SPEC, name)["resources"]
    assert {asked["resourceCpuRequest"], asked["resourceCpuLimit"]} == {policy.cpu}
    assert {asked["resourceMemoryRequest"], asked["resourceMemoryLimit"]} == {policy.memory}
    assert re.fullmatch(r"\d+Gi", policy.memory)
    assert asked.get("accelerator", {}).get("resourceCount") == (str(policy.gpus) if policy.gpus else None)
    assert asked.get("accelerator", {}).get("resourceType") == ("nvidia.com/gpu" if policy.gpus else None)


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_comes_with_the_nodes_that_have_one(name: str) -> None:
    pod = kubernetes(SPEC, PLATFORM, name)
    if POLICIES[name].gpus:
        assert pod["nodeSelector"]["labels"] == {"nvidia.com/gpu.present": "true"}
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    else:
        assert not {"nodeSelector", "tolerations"} & set(pod)


def test_trainings_and_evaluation_get_gpus_and_a_cluster_without_can_do_without() -> None:
    assert {name for name in NAMES if POLICIES[name].gpus} == {"train-encoder", "train-deblurrer", "evaluate"}
    spec, platform = compiled(gpus=False)
    text = str(spec["deploymentSpec"]) + str(platform)
    assert "accelerator" not in text
    assert "nvidia" not in text


def test_a_training_that_only_launches_a_rayjob_needs_no_gpu_and_all_else_is_the_same() -> None:
    spec, platform = compiled(rayjob=True, tracker_image=TRACKER)
    asked = container(spec, "train-deblurrer")["resources"]
    assert "accelerator" not in asked
    assert (asked["resourceCpuLimit"], asked["resourceMemoryLimit"]) == ("1", "4Gi")
    pod, usual = kubernetes(spec, platform, "train-deblurrer"), kubernetes(SPEC, PLATFORM, "train-deblurrer")
    assert not {"nodeSelector", "tolerations"} & set(pod)
    assert pod["pvcMount"] == usual["pvcMount"]
    assert pod["activeDeadlineSeconds"] == usual["activeDeadlineSeconds"]
    for name in set(NAMES) - {"train-deblurrer"}:
        assert container(spec, name) == container(SPEC, name)
        assert kubernetes(spec, platform, name) == kubernetes(SPEC, PLATFORM, name)


@pytest.mark.parametrize("name", NAMES)
def test_retries_and_time_limits(name: str) -> None:
    policy = POLICIES[name]
    assert task_specs(SPEC)[name]["retryPolicy"] == {
        "maxRetryCount": policy.retries, "backoffDuration": f"{policy.backoff}s", "backoffFactor": 2.0,
        "backoffMaxDuration": f"{policy.backoff_most}s"}
    assert 1 <= policy.retries <= 3
    assert kubernetes(SPEC, PLATFORM, name)["activeDeadlineSeconds"] == str(int(policy.hours * 3600))


def test_local_runs_try_once() -> None:
    assert not [name for name, task in task_specs(compiled(retries=False)[0]).items() if "retryPolicy" in task]


def test_what_may_come_from_the_cache() -> None:
    assert cached() == set(POLICIES) - UNCACHED
    assert cached(cache_trainings=True) - cached() == {"train-encoder", "train-deblurrer"}


def test_nothing_that_kubeflow_cannot_see_comes_from_the_cache() -> None:
    """Not even when trainings may: the footage where it lies, the champion, the registry."""
    assert not cached(cache_trainings=True) & {"collect-footage", "evaluate", "evaluate-trajectories", "register-model",
                                               "close-run"}


@pytest.mark.parametrize("name", NAMES)
def test_the_shared_store_and_room_for_temporary_files(name: str) -> None:
    pod = kubernetes(SPEC, PLATFORM, name)
    (claim,) = pod["pvcMount"]
    assert (claim["constant"], claim["mountPath"]) == ("hypercut-store", "/mnt/hypercut")
    assert SPEC["root"]["inputDefinitions"]["parameters"]["store"]["defaultValue"] == claim["mountPath"]
    rooms = {room["mountPath"]: room for room in pod["emptyDirMounts"]}
    assert "medium" not in rooms["/tmp"]
    assert rooms.get("/dev/shm", {}).get("sizeLimit", "") == POLICIES[name].shared_memory
    assert rooms.get("/dev/shm", {"medium": "Memory"})["medium"] == "Memory"
    assert len({room["volumeName"] for room in rooms.values()}) == len(rooms)


def test_with_a_store_on_s3_nobody_mounts_the_volume_and_all_have_the_keys() -> None:
    spec, platform = compiled(s3_store=True, tracker_image=TRACKER)
    for name in NAMES:
        pod = kubernetes(spec, platform, name)
        assert "pvcMount" not in pod
        assert "hypercut-s3" in {one["secretName"] for one in pod["secretAsEnv"]}
        assert pod["configMapAsEnv"]
        assert {room["mountPath"]: room["sizeLimit"] for room in pod["emptyDirMounts"]}["/tmp"] == "100Gi"


def test_torch_gets_shared_memory_where_it_trains() -> None:
    assert {name for name in NAMES if POLICIES[name].shared_memory} \
        == {"train-encoder", "train-deblurrer", "evaluate"}


@pytest.mark.parametrize("name", NAMES)
def test_secrets_and_addresses_are_named_and_only_where_needed(name: str) -> None:
    policy, pod = POLICIES[name], kubernetes(SPEC, PLATFORM, name)
    secrets = {one["secretName"]: {key["envVar"] for key in one["keyToEnv"]} for one in pod.get("secretAsEnv", [])}
    expected = {}
    if policy.s3:
        expected["hypercut-s3"] = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    if policy.mlflow:
        expected["hypercut-mlflow"] = {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    assert secrets == expected
    assert bool(pod.get("configMapAsEnv")) == bool(policy.s3 or policy.mlflow)
    assert "env" not in container(SPEC, name)


def test_trainings_see_no_secret() -> None:
    for name in ("train-encoder", "train-deblurrer", "assign-order", "validate-footage", "validate-clips"):
        assert "secretAsEnv" not in kubernetes(SPEC, PLATFORM, name)


@pytest.mark.parametrize("name", NAMES)
def test_nobody_runs_as_root(name: str) -> None:
    assert kubernetes(SPEC, PLATFORM, name)["securityContext"] == {"runAsNonRoot": True}


@pytest.mark.parametrize("name", NAMES)
def test_every_task_has_the_image_that_was_given(name: str) -> None:
    assert container(SPEC, name)["image"] == (TRACKER if name == "evaluate-trajectories" else IMAGE)
