"""What the KubeRay operator and Kubernetes' garbage collector do with RayJobs, in a `Cluster` with a clock of its own.

After KubeRay's controller: New → Initializing (finalizer, start time, cluster) → Running → Complete or Failed; the
active deadline counts from the start time and is read anew every time; the cluster goes some time after the end, or
with the RayJob. Objects whose owners are all gone are deleted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kubernetes_cluster import Cluster, Object

FINALIZER = "ray.io/rayjob-finalizer"
FATES: dict[str, dict[str, Any]] = {  # how a command ends → the status that KubeRay gives it
    "succeeded": {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"},
    "submitter hangs": {"jobDeploymentStatus": "Failed", "jobStatus": "SUCCEEDED",
                        "reason": "JobDeploymentStatusTransitionGracePeriodExceeded"},
    "failed": {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed",
               "message": "Job entrypoint command failed with exit code 1"},
    "stopped": {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"},
    "not submitted": {"jobDeploymentStatus": "Failed", "jobStatus": "", "reason": "SubmissionFailed"},
    "invalid": {"jobDeploymentStatus": "ValidationFailed", "jobStatus": "", "reason": "ValidationFailed"},
    "hangs": {},
}
GOOD = ("succeeded", "submitter hangs")


@dataclass
class Plan:
    """How one RayJob goes, s."""

    fate: str = "succeeded"
    notice: float = 5.0  # until the operator looks at it
    ready: float = 40.0  # until its cluster is ready
    command: float = 200.0  # until its command ends
    deletion: float = 15.0  # until it is gone after its deletion


@dataclass
class Operator:
    cluster: Cluster
    plans: list[Plan] = field(default_factory=list)  # of the RayJobs in the order of their creation; the last repeats
    taken: dict[str, Plan] = field(default_factory=dict)  # uid → plan
    fates: dict[str, str] = field(default_factory=dict)  # uid → how it ended
    times: dict[str, float] = field(default_factory=dict)  # uid → when it ended
    clusters: set[str] = field(default_factory=set)  # uids of RayJobs whose Ray cluster runs

    def reconcile(self) -> None:
        for name in list(self.cluster.jobs):
            self._collect(self.cluster.jobs[name])
            if name in self.cluster.jobs:
                self._one(name, self.cluster.jobs[name])
        self.clusters &= {job["metadata"]["uid"] for job in self.cluster.jobs.values()}

    def _one(self, name: str, job: Object) -> None:
        metadata, status, now = job["metadata"], job.get("status", {}), self.cluster.now()
        uid = metadata["uid"]
        plan = self.taken.setdefault(uid, self.plans[min(len(self.taken), len(self.plans) - 1)])
        state = status.get("jobDeploymentStatus", "")
        if "deletionTimestamp" in metadata:
            if now - _seconds(metadata["deletionTimestamp"]) >= plan.deletion:
                self.cluster.finish_deletion(name)
        elif not state and now - _seconds(metadata["creationTimestamp"]) >= plan.notice:
            if plan.fate == "invalid":
                self._end(name, uid, "invalid")
                return
            metadata["finalizers"] = [FINALIZER]
            self.clusters.add(uid)
            self.cluster.set_status(name, jobDeploymentStatus="Initializing", startTime=self.cluster.stamp(),
                                    rayClusterName=f"{name}-abcde")
        elif state in ("Initializing", "Running"):
            self._running(name, job, plan)
        elif state in ("Complete", "Failed") and now - _seconds(status["endTime"]) >= \
                job["spec"]["ttlSecondsAfterFinished"] and job["spec"]["shutdownAfterJobFinishes"]:
            self.clusters.discard(uid)

    def _running(self, name: str, job: Object, plan: Plan) -> None:
        status, uid = job["status"], job["metadata"]["uid"]
        age = self.cluster.now() - _seconds(status["startTime"])
        if age >= job["spec"]["activeDeadlineSeconds"]:
            self.fates[uid], self.times[uid] = "deadline", self.cluster.now()
            self.cluster.set_status(name, jobDeploymentStatus="Failed", reason="DeadlineExceeded",
                                    endTime=self.cluster.stamp())
        elif age >= plan.ready + plan.command and plan.fate != "hangs":
            self._end(name, uid, plan.fate)
        elif age >= plan.ready and status["jobDeploymentStatus"] == "Initializing":
            self.cluster.set_status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")

    def _end(self, name: str, uid: str, fate: str) -> None:
        self.fates[uid], self.times[uid] = fate, self.cluster.now()
        self.cluster.set_status(name, **FATES[fate], endTime=self.cluster.stamp())

    def _collect(self, job: Object) -> None:
        """The garbage collector: an object goes when none of its owners is there."""
        owners = job["metadata"].get("ownerReferences") or []
        pods = {pod["metadata"]["uid"] for pod in self.cluster.pod_objects.values()}
        if owners and "deletionTimestamp" not in job["metadata"] and not pods & {owner["uid"] for owner in owners}:
            self.cluster.begin_deletion(job)


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
