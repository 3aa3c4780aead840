"""infra/kubernetes/rayjob.yaml filled in for one training: its name, command, image, workers and limits.

What the template says and nothing here overrides (accounts, security, volumes, secrets by name) stays as it is, so
that a cluster's own changes to the file are kept.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from components.train_deblurrer.ray_job_status import LAUNCHER, SPEC
from hypercut_core.errors import RayJobError

TEMPLATE = Path(__file__).resolve().parents[2] / "infra/kubernetes/rayjob.yaml"  # in a checkout and in our image
DIGEST = re.compile(r"[\w][\w.:/-]*@sha256:[0-9a-f]{64}")
NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")  # KubeRay makes longer names of it
LARGEST = 2**20  # bytes of a template
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Wanted:
    """What one training asks for.

    Args:
        image: of all pods, by digest.
        workers: pods of one worker each.
        cpus: cores of a worker; one with a GPU gets the template's if that is more.
        gpus: GPUs of a worker.
        lease: s after its begin at which KubeRay ends it, unless a launcher moves that on.
        owner: the pod of the launcher: what it belongs to, and is removed with; None: not known.
    """

    name: str
    namespace: str
    launcher: str
    image: str
    entrypoint: Sequence[str]
    workers: int
    cpus: int
    gpus: int
    lease: float
    owner: Mapping[str, Any] | None = None


def job_name(training: Mapping[str, Any], objective: str) -> str:
    """The same for the same training, and for no other one.

    Args:
        training: all that makes it what it is, as JSON: run, data, settings, seed.
    """
    digest = hashlib.sha256(json.dumps(training, sort_keys=True).encode()).hexdigest()
    words = re.sub(r"[^a-z0-9]+", "-", objective.lower()).strip("-")[:24].rstrip("-")
    return f"hypercut-{words}-{digest[:12]}"


def read_template(path: Path = TEMPLATE) -> dict[str, Any]:
    """The template.

    Raises:
        RayJobError: it is missing or no RayJob.
    """
    import yaml

    try:
        with path.open(encoding="utf-8") as stream:
            found = yaml.safe_load(stream.read(LARGEST))
        _ = [container["image"] for template in _pods(found["spec"]) for container in template["spec"]["containers"]]
        [_] = found["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, RecursionError) as error:
        raise RayJobError(f"the template of a RayJob cannot be used ({type(error).__name__}: {error})"[:300],
                          where=path, remedy="take the one that comes with this version of Hypercut") from error
    return dict(found)


def filled(template: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """The RayJob to create.

    Raises:
        RayJobError: the image is not named by digest, or the name is none that KubeRay takes.
    """
    if not DIGEST.fullmatch(wanted.image):
        raise RayJobError("the image of a RayJob must be named by digest", where=wanted.image or "image",
                          remedy="run the launcher in an image that is named by digest: NAME@sha256:...")
    if not NAME.fullmatch(wanted.name):
        raise RayJobError("this is no name for a RayJob", where=wanted.name)
    job: dict[str, Any] = copy.deepcopy(dict(template))
    spec = job["spec"]
    spec["entrypoint"] = shlex.join(wanted.entrypoint)
    for pods in _pods(spec):
        for container in pods["spec"]["containers"]:
            container["image"] = wanted.image
    spec["rayClusterSpec"]["rayVersion"] = _ray_version(str(spec["rayClusterSpec"].get("rayVersion", "")))
    _fill_workers(spec["rayClusterSpec"]["workerGroupSpecs"][0], wanted)
    spec["activeDeadlineSeconds"] = 0  # it moves on, so it is no part of what is compared
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    spec["activeDeadlineSeconds"] = math.ceil(wanted.lease)
    given = job["metadata"]
    job["metadata"] = {"name": wanted.name, "namespace": wanted.namespace,
                       "labels": {**given.get("labels", {}), SPEC: digest},
                       "annotations": {**given.get("annotations", {}), LAUNCHER: wanted.launcher}}
    if wanted.owner:
        job["metadata"]["ownerReferences"] = [dict(wanted.owner)]
    return job


def deadline(template: Mapping[str, Any]) -> float:
    """The longest time that the template gives a training, s."""
    return float(template["spec"]["activeDeadlineSeconds"])


def shared_folders(template: Mapping[str, Any]) -> list[Path]:
    """Folders of the shared volumes that all pods of the cluster see under the same name."""
    found = []
    cluster = template["spec"]["rayClusterSpec"]
    for pods in (cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]):
        shared = {one["name"] for one in pods["spec"].get("volumes", []) if "persistentVolumeClaim" in one}
        found.append({mount["mountPath"] for mount in pods["spec"]["containers"][0].get("volumeMounts", [])
                      if mount["name"] in shared})
    return [Path(path) for path in sorted(set.intersection(*found))]


def own_pod_reference(pod: Mapping[str, Any]) -> dict[str, str]:
    """What an object that belongs to a pod says of it."""
    return {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}


def image_of(pod: Mapping[str, Any]) -> str:
    """The image that a pod of ours runs, by digest; "" if it has none."""
    containers = [*pod["spec"]["containers"]]
    containers.sort(key=lambda one: one["name"] != "main")  # Argo's name for the step; beside it is Argo's own
    digests = {one["name"]: str(one.get("imageID", "")).split("://")[-1]
               for one in (pod.get("status") or {}).get("containerStatuses") or []}
    known = [name for one in containers[:1] for name in (one["image"], digests.get(one["name"], ""))]
    return next((name for name in known if DIGEST.fullmatch(name)), "")


def _fill_workers(group: dict[str, Any], wanted: Wanted) -> None:
    group["replicas"] = group["minReplicas"] = group["maxReplicas"] = wanted.workers
    pod = group["template"]["spec"]
    resources = pod["containers"][0]["resources"]
    cpus = max(wanted.cpus, _cores(resources["requests"]["cpu"])) if wanted.gpus else wanted.cpus
    for side in ("requests", "limits"):
        resources[side]["cpu"] = str(cpus)
        resources[side].pop(GPU, None)
        if wanted.gpus:
            resources[side][GPU] = str(wanted.gpus)
    if not wanted.gpus:  # any node will do
        group["groupName"] = "cpu"
        pod.pop("nodeSelector", None)
        pod.pop("tolerations", None)


def _cores(quantity: str) -> int:
    """Kubernetes' quantity of CPUs, rounded up."""
    text = str(quantity)
    return math.ceil(int(text[:-1]) / 1000) if text.endswith("m") else math.ceil(float(text))


def _ray_version(template: str) -> str:
    """Ray's version in this image, which is the image of all pods."""
    try:
        return version("ray")
    except PackageNotFoundError:
        return template


def _pods(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield spec["submitterPodTemplate"]
    yield spec["rayClusterSpec"]["headGroupSpec"]["template"]
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        yield group["template"]
