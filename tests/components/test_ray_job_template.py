"""The template filled in: what a training asks for, strictly as KubeRay and Kubernetes take it."""

from __future__ import annotations

import copy
import dataclasses
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from kuberay_operator import Plan
from kubernetes_cluster import NAMESPACE, Cluster
from kubernetes_server import Server
from launcher_world import IMAGE, World, manifest

from components.train_deblurrer.ray_job_template import (
    NAME,
    Wanted,
    deadline,
    filled,
    image_of,
    job_name,
    read_template,
    shared_folders,
)
from hypercut_core.errors import RayJobError
from tests.infra.manifests import containers, pod_templates, validate_ray

TEMPLATE = read_template()
WANTED = Wanted("hypercut-x-0123", NAMESPACE, "me", IMAGE, ["hypercut", "train-deblurrer", "--workspace", "/a b"], 16,
                4, 1, 1800.0, {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"})


def worker(job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    [group] = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    return group, group["template"]["spec"]


def test_what_is_filled_in() -> None:
    job = filled(TEMPLATE, WANTED)
    group, pod = worker(job)
    assert shlex.split(job["spec"]["entrypoint"]) == WANTED.entrypoint
    assert {one["image"] for template in pod_templates(job) for one in containers(template)} == {IMAGE}
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 16
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")
    assert job["spec"]["activeDeadlineSeconds"] == 1800
    assert job["metadata"]["ownerReferences"] == [WANTED.owner]
    assert read_template() == TEMPLATE  # nothing was written into it


def test_workers_without_gpus_run_on_any_node() -> None:
    group, pod = worker(filled(TEMPLATE, dataclasses.replace(WANTED, gpus=0)))
    assert pod["containers"][0]["resources"]["requests"] == {"cpu": "4", "memory": "32Gi"}
    assert not {"nodeSelector", "tolerations"} & set(pod)
    assert group["groupName"] == "cpu"


def test_more_cores_than_the_templates_are_given() -> None:
    _, pod = worker(filled(TEMPLATE, dataclasses.replace(WANTED, cpus=12)))
    assert pod["containers"][0]["resources"]["limits"]["cpu"] == "12"


@pytest.mark.parametrize("change", [{}, {"gpus": 0}, {"workers": 1, "cpus": 32}, {"owner": None}], ids=str)
def test_it_is_strictly_valid(change: dict[str, Any]) -> None:
    validate_ray(filled(TEMPLATE, dataclasses.replace(WANTED, **change)))


def test_the_check_would_notice() -> None:
    wrong = copy.deepcopy(filled(TEMPLATE, WANTED))
    wrong["spec"]["activeDeadlineSecond"] = 1
    with pytest.raises(Exception, match="activeDeadlineSecond"):
        validate_ray(wrong)


def test_the_hash_tells_other_settings_and_no_other_launcher() -> None:
    def digest(**change: Any) -> str:
        return str(filled(TEMPLATE, dataclasses.replace(WANTED, **change))["metadata"]["labels"]["hypercut.dev/spec"])

    assert digest() == digest(launcher="other", owner=None, lease=7.0)
    assert re.fullmatch(r"[0-9a-f]{16}", digest())
    others = [digest(workers=3), digest(cpus=9), digest(gpus=0), digest(entrypoint=["x"]),
              digest(image=IMAGE.replace("a" * 64, "b" * 64))]
    assert len({digest(), *others}) == 6


@pytest.mark.parametrize("objective", ["sequence_min", "order_invariant", "hypercut_targets", "Ä _" * 30, ""])
def test_the_name_follows_from_the_training_and_kuberay_takes_it(objective: str) -> None:
    training = {"run": "/mnt/hypercut/runs/1", "seed": 0}
    name = job_name(training, objective)
    assert name == job_name(dict(reversed(training.items())), objective)
    assert NAME.fullmatch(name)
    assert len(name) <= 47
    assert name != job_name({**training, "seed": 1}, objective)


@pytest.mark.parametrize("image", ["", "hypercut", "hypercut:latest", "hypercut@sha256:12", f"-x@sha256:{'a' * 64}"])
def test_an_image_that_may_move_is_refused(image: str) -> None:
    with pytest.raises(RayJobError, match="by digest"):
        filled(TEMPLATE, dataclasses.replace(WANTED, image=image))


@pytest.mark.parametrize("name", ["", "1a", "A", "a-", "a" * 48, "a/b", "a.b"])
def test_a_name_that_kuberay_refuses_is_not_sent(name: str) -> None:
    with pytest.raises(RayJobError, match="no name"):
        filled(TEMPLATE, dataclasses.replace(WANTED, name=name))


def test_what_the_template_says_of_time_and_place() -> None:
    assert deadline(TEMPLATE) == 72 * 3600
    assert shared_folders(TEMPLATE) == [Path("/mnt/hypercut")]


@pytest.mark.parametrize("text", ["", "[]", "a: [", "spec: {}", "!!python/object:os.system {}", "\0"])
def test_a_template_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "rayjob.yaml").write_text(text)
    with pytest.raises(RayJobError, match=r"rayjob\.yaml: the template of a RayJob cannot be used"):
        read_template(tmp_path / "rayjob.yaml")
    with pytest.raises(RayJobError):
        read_template(tmp_path / "missing.yaml")


def test_the_image_is_that_of_the_step_and_not_of_argo() -> None:
    pod = {"spec": {"containers": [{"name": "wait", "image": f"argo@sha256:{'c' * 64}"},
                                   {"name": "main", "image": "hypercut:1"}]},
           "status": {"containerStatuses": [{"name": "main", "imageID": f"docker-pullable://{IMAGE}"}]}}
    assert image_of(pod) == IMAGE
    del pod["status"]
    assert image_of(pod) == ""
    pod["spec"]["containers"][1]["image"] = IMAGE
    assert image_of(pod) == IMAGE


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(Cluster())
    yield made
    made.stop()


def test_all_that_a_launcher_sends_is_strictly_valid(server: Server, tmp_path: Path) -> None:
    validate_ray(manifest("me"))  # skips where the schemas are not
    (tmp_path / "namespace").write_text(NAMESPACE)
    world = World(server, tmp_path, [Plan(command=500)])
    checked: list[dict[str, Any]] = []
    world.cluster.validate = lambda body: (validate_ray(body), checked.append(body))[0]
    first = world.launch()
    world.pass_time(100)
    second = world.launch()
    world.run(world.quiet)
    assert second.result is not None, (first.error, second.error)
    assert world.cluster.violations == []
    assert len(checked) >= 4  # created, taken over, renewed


def test_the_template_is_in_the_image() -> None:
    root = Path(__file__).resolve().parents[2]
    assert "!infra/kubernetes/rayjob.yaml" in (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "cp infra/kubernetes/rayjob.yaml /opt/hypercut/infra/kubernetes/" in \
        (root / "infra/images/install").read_text(encoding="utf-8")
    assert yaml.safe_load((root / "infra/kubernetes/rayjob.yaml").read_text(encoding="utf-8")) == TEMPLATE
