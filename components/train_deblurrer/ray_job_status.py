"""What a RayJob says of itself: where it stands, how it ended, and why.

KubeRay tells two things: `jobDeploymentStatus`, how far it is with the cluster and the submission (Initializing,
Running, Complete, Failed, ValidationFailed, Suspending, Suspended, Retrying, Waiting; "" before it has looked), and
`jobStatus`, what Ray says of the command (PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED; "" before it runs). The
command's word counts: KubeRay also ends a RayJob whose command has succeeded by "Failed" if its submitter hangs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from components.redaction import shown

Job = dict[str, Any]

LAUNCHER, SPEC = "hypercut.dev/launcher", "hypercut.dev/spec"  # annotation: whose it is; label: hash of its spec
ENDED = ("Complete", "Failed", "ValidationFailed")
REASONS = {
    "AppFailed": "the training failed",
    "SubmissionFailed": "the training could not be submitted to its Ray cluster",
    "DeadlineExceeded": "its time was over, or no launcher had renewed it",
    "PreRunningDeadlineExceeded": "its cluster was not ready in time",
    "ValidationFailed": "KubeRay does not accept it",
    "JobDeploymentStatusTransitionGracePeriodExceeded": "its submitter did not end",
    "JobStatusCheckTimeoutExceeded": "its Ray head did not answer KubeRay",
}
PATIENT = {"", "ContainerCreating", "PodInitializing"}  # reasons for waiting that pass by themselves
OUT_OF_MEMORY = ("OOMKilled", "OutOfMemory", "exit code 137")


def uid(job: Job) -> str:
    return str(job["metadata"].get("uid", ""))


def version(job: Job) -> str:
    return str(job["metadata"].get("resourceVersion", ""))


def launcher(job: Job) -> str:
    """Who looks after it: the launcher that came last."""
    return str((job["metadata"].get("annotations") or {}).get(LAUNCHER, ""))


def same_spec(job: Job, other: Job) -> bool:
    """Whether both were asked for as the same; the server fills in defaults, so the label is compared."""
    first, second = ((one["metadata"].get("labels") or {}).get(SPEC) for one in (job, other))
    return first == second and first is not None


def deleting(job: Job) -> bool:
    return bool(job["metadata"].get("deletionTimestamp"))


def ended(job: Job) -> bool:
    """Whether nothing of it runs any more, but for its cluster's shutdown."""
    return _status(job, "jobDeploymentStatus") in ENDED


def succeeded(job: Job) -> bool:
    return ended(job) and _status(job, "jobStatus") == "SUCCEEDED"


def begun(job: Job) -> float | None:
    """When KubeRay began with it, s since 1970; its activeDeadlineSeconds count from there."""
    return _seconds(_status(job, "startTime"))


def created(job: Job) -> float | None:
    return _seconds(str(job["metadata"].get("creationTimestamp", "")))


def cluster(job: Job) -> str:
    """Name of its Ray cluster; "" before there is one."""
    return _status(job, "rayClusterName")


def told(job: Job) -> str:
    """Where it stands, in one line."""
    deployment, ray = _status(job, "jobDeploymentStatus"), _status(job, "jobStatus")
    words = [deployment or "not seen by KubeRay yet"]
    if ray:
        words.append(f"command {ray}")
    state = (job.get("status") or {}).get("rayClusterStatus") or {}
    wanted = state.get("desiredWorkerReplicas")
    if wanted and not ended(job):
        words.append(f"{state.get('availableWorkerReplicas', 0)} of {wanted} workers ready")
    if deployment == "Suspended":
        words.append("it waits until spec.suspend is false, or for its turn in a queue")
    return ", ".join(words)


def failure(job: Job, pods: Iterable[Job] = ()) -> tuple[str, str]:
    """How it failed and what may mend it, from its own words and from its pods."""
    reason, ray = _status(job, "reason"), _status(job, "jobStatus")
    why = REASONS.get(reason, reason or told(job))
    if ray == "STOPPED":
        why = "somebody stopped it"
    found = troubles(pods)
    words = [why, *found, _tail(_status(job, "message"))]
    text = "; ".join(word for word in words if word)
    if any(mark in text for mark in OUT_OF_MEMORY):
        return text, ("give it more memory, or fewer clips at a time (deblurrer.scale.micro_batch), and run it again: "
                      "it goes on from its last checkpoint")
    if reason == "ValidationFailed":
        return text, "compare infra/kubernetes/rayjob.yaml with the KubeRay version of infra/README.md"
    return text, "mend the cause and run it again: it goes on from its last checkpoint"


def troubles(pods: Iterable[Job]) -> list[str]:
    """What is wrong with the pods: not placed, image not pulled, killed, failed."""
    return [f"pod {pod['metadata']['name']}: {what}" for pod in pods for what in _troubles(pod)][:10]


def _troubles(pod: Job) -> Iterator[str]:
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield f"not placed ({_tail(str(condition.get('message', '')), 200)})"
    if status.get("reason"):  # such as Evicted
        yield f"{status['reason']} ({_tail(str(status.get('message', '')), 200)})"
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        states = [container.get("state") or {}, container.get("lastState") or {}]
        waiting = states[0].get("waiting") or {}
        if waiting.get("reason", "") not in PATIENT:
            yield f"{container['name']} waits: {waiting['reason']} ({_tail(str(waiting.get('message', '')), 200)})"
        for dead in (state["terminated"] for state in states if (state.get("terminated") or {}).get("exitCode")):
            reason = dead.get("reason", "Error")
            words = "out of memory, OOMKilled" if reason == "OOMKilled" else reason
            yield f"{container['name']} ended: {words}, exit code {dead['exitCode']}"


def _status(job: Job, name: str) -> str:
    return str((job.get("status") or {}).get(name) or "")


def _seconds(stamp: str) -> float | None:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None


def _tail(text: str, most: int = 1500) -> str:
    """The end of a message, where a traceback says what happened."""
    text = " ".join(shown(text).split())
    return text if len(text) <= most else f"... {text[-most:]}"
