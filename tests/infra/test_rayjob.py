"""The RayJob template: valid by itself, gone when the training ends, and one with the image and the pipeline."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from manifests import ROOT, containers, everything, load, pod_templates
from references import names
from typer.main import get_command

[JOB] = load("rayjob.yaml")
SPEC: dict[str, Any] = JOB["spec"]


def test_the_cluster_is_gone_when_the_training_ends_however_it_ends() -> None:
    assert SPEC["shutdownAfterJobFinishes"] is True
    assert SPEC["backoffLimit"] == 0
    assert 1 <= SPEC["submitterConfig"]["backoffLimit"] <= 5
    assert 60 <= SPEC["ttlSecondsAfterFinished"] <= 3600
    assert 0 < SPEC["activeDeadlineSeconds"] <= 7 * 24 * 3600
    assert SPEC["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"


def test_ray_is_the_version_of_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    [version] = re.findall(r"^ray(?:\[[\w,]+\])?==(\S+)$", lock, re.MULTILINE)
    assert SPEC["rayClusterSpec"]["rayVersion"] == version
    assert SPEC["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_one_image_for_the_whole_cluster() -> None:
    images = {container["image"] for template in pod_templates(JOB) for container in containers(template)}
    assert len(images) == 1


def test_workers_ask_for_gpus_and_a_fixed_number_of_them_within_the_quota() -> None:
    asked = 0
    for group in SPEC["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
        [container] = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        asked += group["replicas"] * int(container["resources"]["limits"]["nvidia.com/gpu"])
    [quota] = names(everything(), "ResourceQuota").values()
    assert 0 < asked <= int(quota["spec"]["hard"]["requests.nvidia.com/gpu"])
    assert SPEC["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_entrypoint_is_a_command_of_ours_in_the_mounted_store() -> None:
    from pipelines.cli import app

    program, name, *words = shlex.split(SPEC["entrypoint"])
    assert program == "hypercut"
    context = get_command(app).commands[name].make_context(name, words)  # type: ignore[attr-defined]
    mounts = {mount["mountPath"] for group in SPEC["rayClusterSpec"]["workerGroupSpecs"]
              for container in group["template"]["spec"]["containers"] for mount in container["volumeMounts"]}
    assert any(str(context.params["workspace"]).startswith(f"{mount}/") for mount in mounts - {"/tmp", "/dev/shm"})


def test_store_secrets_and_limits_are_those_of_the_pipeline() -> None:
    policy = pytest.importorskip("pipelines.task_policy", reason="the pipeline of containers is not there yet")
    claims = {volume["persistentVolumeClaim"]["claimName"] for template in pod_templates(JOB)
              for volume in template["spec"]["volumes"] if "persistentVolumeClaim" in volume}
    assert claims == {policy.STORE_CLAIM} == set(names(everything(), "PersistentVolumeClaim"))
    [group] = SPEC["rayClusterSpec"]["workerGroupSpecs"]
    [worker] = group["template"]["spec"]["containers"]
    assert policy.STORE_MOUNT in [mount["mountPath"] for mount in worker["volumeMounts"]]
    row = policy.POLICIES["train-deblurrer"]
    assert (worker["resources"]["limits"]["cpu"], worker["resources"]["limits"]["memory"]) == (row.cpu, row.memory)
    assert SPEC["activeDeadlineSeconds"] == row.hours * policy.HOUR
    assert set(policy.ADDRESSES) <= set(names(everything(), "ConfigMap")[policy.SERVICES]["data"])
    secrets = {one["valueFrom"]["secretKeyRef"]["name"] for one in worker["env"]
               if "secretKeyRef" in one.get("valueFrom", {})}
    assert secrets == {policy.S3_SECRET}


def test_the_costs_in_the_readme_are_those_of_the_pipeline() -> None:
    policy = pytest.importorskip("pipelines.task_policy", reason="the pipeline of containers is not there yet")
    text = (ROOT / "infra/README.md").read_text(encoding="utf-8")
    rows = {words[0]: tuple(words[1:]) for line in text.splitlines()
            if len(words := [cell.strip() for cell in line.strip("| ").split("|")]) == 6}
    for step, row in policy.POLICIES.items():
        assert rows[step] == (row.cpu, row.memory, str(row.gpus), f"{row.hours:g}", f"{row.gpus * row.hours:g}")
    most = sum(row.gpus * row.hours for row in policy.POLICIES.values())
    assert f"a GPU for {most:g} h at the most" in text
